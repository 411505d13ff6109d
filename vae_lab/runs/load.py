"""A run with its model: what `load_run` makes of a run directory, which may be a stranger's."""

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.data.arrays import ImageData
from vae_lab.data.files import open_archive
from vae_lab.errors import RunError, require_memory
from vae_lab.measurement import evaluating
from vae_lab.model import VAE
from vae_lab.objectives.base import Objective
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.formats import migrated_checkpoint
from vae_lab.runs.identity import fixed_hashes
from vae_lab.runs.place import place_key, places_of, places_of_test, require_place
from vae_lab.runs.result import loss_facts
from vae_lab.wiring import build

LARGEST_PICKLE, PICKLE_OF_TENSOR = 2**18, 2**10
"""Bytes of what a checkpoint holds besides the values of its tensors, at most, and as many more for each of these."""
DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, OverflowError),
)
"""What reading a file that is no checkpoint, or half of one, ends in."""
CHUNK = 2**20
"""Bytes of a checkpoint that are checked at once."""


def ledger_facts(data: ImageData, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a value in nats means nothing without."""
    return {
        "data": data.name,
        "scale": data.scale,
        "binarization": data.binarization,
        "split_hash": data.split_hash,
        "likelihood": config["likelihood"]["_target_"].rsplit(".", 1)[-1],
        **loss_facts(config),
    }


def open_data(
    config: Mapping[str, Any], record: Mapping[str, Any], run: Path, *, given: str | None = None, key: str = "data_root"
) -> ImageData:
    """The data set of a run, wherever it lies now; its files are read when they are asked for.

    Args:
        config: of the run.
        record: its run.json; empty: the run is new.
        run: its path, for the messages.
        given: the place that a command, or a call, names.
        key: what names another place, for the messages.
    """
    settings, places, tests = dict(config["data"]), places_of(config, record, given), []
    if places and (own := place_key(config)):
        settings[own.removeprefix("data.")] = next(iter(places))
    if places and (tests := places_of_test(config, record, next(iter(places.values())))):
        settings["test_path"] = tests[0]
    data: ImageData = build.instantiate(settings, "data")
    looked = f" (looked for the data of {run} at {' and at '.join(places.values())}"
    looked += f", and for its test pictures at {' and at '.join(tests)}" if tests else ""
    looked += f": {key}=NEW names another place)"
    data.expect(record.get("data_fingerprint", {}), run, looked if record and places else "")
    return data


@dataclass(frozen=True)
class Run:
    """A trained model with all that is known about it."""

    path: Path
    config: dict[str, Any]
    model: VAE
    record: dict[str, Any]
    metrics: dict[str, Any]
    """The ledger of the checkpoint, as it was when the run was loaded."""
    checkpoint: str
    """`best`, `last` or the count of a snapshot."""
    samples: int
    """Training samples that had been presented at that checkpoint."""
    data_root: str | None = None

    @cached_property
    def data(self) -> ImageData:
        """The data set of the run, loaded when first asked for."""
        return open_data(self.config, self.record, self.path, given=self.data_root)

    @cached_property
    def curve(self) -> list[dict[str, float]]:
        """The rows of metrics.csv."""
        return read_rows(RunDir(self.path).curve_file)

    def at(self, checkpoint: str | int) -> Self:
        """The same run at another of its checkpoints; a data set that is loaded need not be loaded again."""
        other = type(self)(**vars(_load(RunDir(self.path), self.config, checkpoint, self.data_root)))
        if "data" in vars(self):
            vars(other)["data"] = self.data
        return other

    def encode(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch latent"]:
        """The posterior mean E_q[z|x]."""
        with torch.no_grad():
            return self.model.posterior(x).mean

    def decode(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channel height width"]:
        """The likelihood's mean E[x|z], in [0, 1]."""
        with torch.no_grad():
            return self.model.likelihood(z).mean

    def sample(self, num_samples: int, seed: int = 0) -> Float[Tensor, "batch channel height width"]:
        """Decoder means at draws z ~ N(0, I), as the paper's figure 5 shows them."""
        with evaluating(self.model, torch.device("cpu"), seed, "sample"):
            z = torch.randn(num_samples, self.model.latent_dim, dtype=next(self.model.parameters()).dtype)
        return self.decode(z)

    def reconstruct(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The decoder mean at the posterior mean."""
        return self.decode(self.encode(x))


def load_run(
    path: str | Path,
    *,
    allow: Collection[str] = (),
    checkpoint: str | int | None = None,
    data_root: str | None = None,
) -> Run:
    """Loads a run directory, which may be a stranger's, as `vae_lab.load_run` describes it: no code of it is executed.

    Raises:
        UntrustedTarget: its config names other code.
        RunError: it is no run directory or has no checkpoint.
    """
    run = RunDir.existing(path)
    config = run.read_config()
    build.refuse_untrusted({key: part for key, part in config.items() if key != "logger"}, allow)  # none is made here
    return _load(run, config, checkpoint, data_root)


def _load(run: RunDir, config: dict[str, Any], checkpoint: str | int | None, data_root: str | None) -> Run:
    if data_root is not None:
        require_place(config, "data_root", data_root, run.path)
    file = run.checkpoint_path(checkpoint)
    content = read_checkpoint(file, config)
    # an objective that trains no encoder leaves none in its checkpoints
    without = {} if any(name.startswith("model.encoder.") for name in content["state_dict"]) else {"has_encoder": False}
    record = run.read_record()
    if not isinstance(record.get("image_shape"), list):
        raise RunError(f"{run.path}: run.json has no image_shape, the [channel, height, width] of the model's images")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the run's, whatever a notebook has chosen
    try:
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and the notebook's noise goes on
            model = build.model(config["model"], copies=1, image_shape=tuple(record["image_shape"]), **without)
    finally:
        torch.set_default_dtype(default)
    fill(model, content, file)
    samples = content["vae_lab"]["samples"]
    ledger = run.ledger(file.stem, samples)
    return Run(run.path, config, model.eval(), record, ledger, file.stem, samples, data_root)


def samples_of(file: Path) -> int:
    """The training samples that had been presented by a checkpoint."""
    return read_checkpoint(file, mmap=True)["vae_lab"]["samples"]


def best_bound(run: RunDir) -> float:
    """The validation bound that the best checkpoint was saved with; -infinity where there is none.

    Raises:
        RunError: the file is no best checkpoint.
    """
    if not run.best.is_file():
        return float("-inf")
    bound = (read_checkpoint(run.best, mmap=True)["vae_lab"].get("latest") or {}).get("val/bound")
    if not isinstance(bound, int | float):
        raise RunError(f"{run.best} is no best checkpoint: it lacks the validation bound that it was chosen by")
    return bound


def take_back_best(run: RunDir, keep: Callable[[int], bool]) -> None:
    """Puts the best checkpoint of before in place where `keep` refuses the evaluation that chose the present one.

    That is one after the checkpoint that a run continues from, or at the end of a budget that was extended: an
    undisturbed run with the larger budget has not measured there.
    """
    if run.best.is_file() and not keep(samples_of(run.best)):
        run.drop_ledger("best")
        run.best.unlink() if not run.best_before.is_file() else os.replace(run.best_before, run.best)


def load_weights(model: VAE, file: Path, config: Mapping[str, Any]) -> int:
    """Loads the model's weights from a checkpoint of the run with this config; returns the samples presented by then.

    Raises:
        RunError: the file is corrupt, or holds more than tensors and plain values, or another model.
    """
    content = read_checkpoint(file, config)
    fill(model, content, file)
    return content["vae_lab"]["samples"]


def fill(model: VAE, content: Mapping[str, Any], file: Path) -> None:
    """Gives the model the weights in the content of a checkpoint.

    Raises:
        RunError: they are another model's, or not finite.
    """
    weights = state_of("model", content)
    refuse_other_weights(model.state_dict(), weights, file)
    model.load_state_dict(weights)


def refuse_other_weights(expected: Mapping[str, Any], found: Mapping[str, Any], file: Path) -> None:
    """Refuses weights of other names, shapes or types than a model's, which PyTorch may convert, and what is no number.

    Raises:
        RunError: naming the first of them.
    """

    def reason(name: str) -> str | None:
        if name not in found or name not in expected:
            return f"{name} is {'missing' if name in expected else 'no weight of it'}"
        value, like = found[name], expected[name]
        if not isinstance(value, Tensor) or not isinstance(like, Tensor):
            return None if type(value) is type(like) else f"{name} is of type {type(value).__name__}"
        if value.shape != like.shape:
            return f"size mismatch for {name}: {list(value.shape)} in place of {list(like.shape)}"
        if (value.dtype, value.layout) != (like.dtype, like.layout):
            return f"{name} is {value.dtype}, {value.layout} in place of {like.dtype}, {like.layout}"
        if value.is_meta:
            return f"{name} has a shape and no numbers"
        return None if value.isfinite().all() else f"{name} holds NaN or infinity"

    if wrong := next(filter(None, map(reason, dict.fromkeys([*expected, *found]))), None):
        raise RunError(f"{file} must hold the weights of the model in config.yaml, and does not: {wrong}")


def load_objective(run: Run, file: Path) -> Objective:
    """The objective that trained a loaded run, with what it had learned by a checkpoint; the model stays as it is.

    Raises:
        RunError: the file is corrupt, or holds more than tensors and plain values.
    """
    objective: Objective = build.instantiate(run.config["objective"], "objective")
    objective.prepare(run.model, len(run.data.splits["train"]))
    learned = state_of("objective", read_checkpoint(file, run.config))
    refuse_other_weights(objective.state_dict(), learned, file)
    objective.load_state_dict(learned)
    return objective.eval()


def state_of(owner: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of `model` or `objective` in a checkpoint's content, by its own names."""
    prefix = f"{owner}."
    return {key.removeprefix(prefix): value for key, value in content["state_dict"].items() if key.startswith(prefix)}


def refuse_damaged_archive(file: Path, checked: str) -> None:
    """Refuses a file that reading would fill the memory with, or that is not as it was written.

    PyTorch compares no checksums: those of the entries that end with `checked` are compared here.

    Raises:
        Any of `DAMAGE`: it is none that `torch.save` writes.
    """
    with open_archive(file) as archive:
        entries = archive.infolist()
        largest = LARGEST_PICKLE + PICKLE_OF_TENSOR * len(entries)
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file.stat().st_size:
                raise ValueError(f"{entry.filename} is packed")
            if entry.filename.endswith(".pkl") and entry.file_size > largest:
                raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes, and {largest:,} at most are read")
        require_memory(f"{file}", sum(entry.file_size for entry in entries), "read it on a larger one")
        for entry in entries:
            if entry.filename.endswith(checked):
                with archive.open(entry) as content:
                    while content.read(CHUNK):  # the last read compares the checksum
                        pass


def read_checkpoint(file: Path, config: Mapping[str, Any] | None = None, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, as it was written.

    Args:
        file: the checkpoint.
        config: of the run that it must belong to; None: whichever run's.
        mmap: tensors are read, and not checked, when they are used.

    Raises:
        RunError: the file is corrupt, holds more than tensors and plain values, or is no checkpoint of the run.
    """
    try:
        refuse_damaged_archive(file, "data.pkl" if mmap else "")
        content = torch.load(file, weights_only=True, map_location="cpu", mmap=mmap)
    except DAMAGE as error:
        raise RunError(
            f"{file} must hold tensors and plain values, and is corrupt or holds something else, which could run "
            f"code: refused ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
        ) from error
    own = content.get("vae_lab") if isinstance(content, dict) else None
    weights = content.get("state_dict") if isinstance(content, dict) else None
    samples = own.get("samples") if isinstance(own, dict) else None
    if not isinstance(own, dict) or not isinstance(weights, dict) or not isinstance(samples, int) or samples < 0:
        raise RunError(f"{file} is no checkpoint of a run: it lacks the weights, or the count of training samples")
    if config is not None and own.get("identity") not in fixed_hashes(config):
        raise RunError(
            f"{file} is a checkpoint of another run, whose settings are not those of config.yaml: put this run's own "
            "back, or read the run that it was copied from"
        )
    return migrated_checkpoint(content)
