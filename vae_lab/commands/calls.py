"""The commands as calls from Python and notebooks: the same configs, files and bits; mistakes are exceptions.

`import vae_lab` has them, and a run with them as its methods. A call leaves the process as it was: threads, random
state, precision of products, environment, paths and logging.
"""

import base64
import html
import logging
import numbers
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from vae_lab.applications.blocks import blocks_of
from vae_lab.applications.scoring import score
from vae_lab.commands.classify import ClassifySettings, require_labels, table_of
from vae_lab.commands.evaluate import require_fit
from vae_lab.commands.explanations import explain, is_mistake
from vae_lab.commands.task import Task
from vae_lab.commands.typed import understood
from vae_lab.errors import ConfigError, Interrupted, NoEncoder, require_choice, require_integer
from vae_lab.estimators.base import Estimator
from vae_lab.figures.canvas import encoded
from vae_lab.figures.run_pictures import PICTURES, CannotDrawError, dark_on_white_by_default
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import find_runs
from vae_lab.runs import load
from vae_lab.runs.directory import RunDir
from vae_lab.runs.result import results
from vae_lab.training.matmul import MKLDNN
from vae_lab.wiring import build
from vae_lab.wiring.arguments import named_paths, override, with_any_place, with_texts
from vae_lab.wiring.build import foreign_packages
from vae_lab.wiring.compose import compose_command, started
from vae_lab.wiring.dotted import value_at
from vae_lab.wiring.folders import CommandLine, package_configs
from vae_lab.wiring.keys import CommandKeys

Array = np.ndarray | Tensor
"""What goes into a call comes out of it: NumPy or torch."""
log = logging.getLogger("vae_lab")


class Run(load.Run):
    """A trained model with all that is known about it, as `train` and `load_run` return it.

    Images go in as NumPy or torch, [n, channel, height, width] or, of one channel, [n, height, width]: floating point
    in [0, 1], or uint8, which is divided by 255. What comes out is float32 of the same kind.
    """

    @property
    def history(self) -> pd.DataFrame:
        """The bound curve: a row for each evaluation."""
        return pd.DataFrame(self.curve)

    @property
    def ledger(self) -> dict[str, Any]:
        """What has been measured of these weights by now, in nats per datapoint: `run.ledger["test/bound"]`."""
        return RunDir(self.path).ledger(self.checkpoint)

    def encode(self, x: Any) -> Any:
        """The posterior means E_q[z|x], [n, latent]."""
        if not self.model.has_encoder:
            raise NoEncoder(f"{self.path} has no q(z|x): its objective trained no encoder")
        images = self._images(x)
        return _like(torch.cat([super(Run, self).encode(images[block]) for block in blocks_of(len(images))]), x)

    def decode(self, z: Any) -> Any:
        """The likelihood's means E[x|z], [n, channel, height, width], at z: [n, latent]."""
        latents = _tensor(z, "z")
        expected = f"[n, {self.model.latent_dim}]"
        if latents.ndim != 2 or latents.shape[1] != self.model.latent_dim or not len(latents):
            raise ConfigError(f"z must have the shape {expected}, got {list(latents.shape)}")
        latents = latents.to(next(self.model.parameters()))
        return _like(torch.cat([super(Run, self).decode(latents[block]) for block in blocks_of(len(latents))]), z)

    def sample(self, num_samples: int, seed: int = 0, *, as_numpy: bool = False) -> Any:
        """Decoder means at draws z ~ N(0, I), [n, channel, height, width]."""
        require_integer("num_samples", num_samples, minimum=1)
        images = super().sample(num_samples, seed)
        return images.numpy() if as_numpy else images

    def score(
        self, x: Any, *, estimator: str = "importance_sampling", num_samples: int = 8, seed: int = 0, **settings: Any
    ) -> pd.DataFrame:
        """`vae-lab score`: a row for each image, with log p(x), its standard error, the bound and its terms, in nats.

        Args:
            x: images.
            estimator: of log p(x), by its name.
            num_samples: draws of z for the bound.
            seed: of the noise.
            settings: keys of the estimator.
        """
        words = [f"estimator={estimator}", *(f"estimator.{name}={typed(value)}" for name, value in settings.items())]
        line = CommandLine("evaluate", "evaluate", [package_configs()], ["run=_", *words])
        with mistakes_of(line):
            config, _ = compose_command("evaluate", line.overrides)
        chosen: Estimator = build.instantiate(config["estimator"], "estimator")
        require_fit(chosen, self)
        scores = score(self.model, self._images(x), chosen, num_samples=num_samples, seed=seed)
        return pd.DataFrame(scores.columns())

    def plot(
        self,
        picture: str,
        *,
        seed: int = 0,
        dark_on_white: bool | None = None,
        interpolate: Sequence[int] | None = None,
    ) -> Figure:
        """A picture of `vae-lab plot`, which a notebook shows; nothing is written.

        Args:
            picture: bound_curve, samples, reconstructions, manifold, latent_scatter, posteriors, traversals or
                interpolations.
            seed: of the samples.
            dark_on_white: shows 1 - x; None: for the data sets that the paper shows so.
            interpolate: the ends of the interpolations: test images in pairs.
        """
        require_choice("picture", picture, PICTURES)
        shown = dark_on_white_by_default(self) if dark_on_white is None else dark_on_white
        further = {} if interpolate is None else {"ends": interpolate}
        try:
            return PICTURES[picture](self, dark_on_white=shown, seed=seed, **further)
        except CannotDrawError as error:
            raise ConfigError(f"{picture} cannot be drawn: {error}") from error

    def __repr__(self) -> str:
        ledger, record = self.ledger, self.record
        shape = " x ".join(map(str, record["image_shape"]))
        encoder, decoder, objective, optimizer = (
            str(value_at(self.config, f"{part}._target_")).rpartition(".")[2]
            for part in ("model.encoder", "model.decoder", "objective", "optimizer")
        )
        lines = [
            f"Run {self.path}: {record['status']}, {self.checkpoint}.ckpt at {self.samples:,} samples",
            f"data: {ledger.get('data')}, {shape}, {ledger.get('scale')}, likelihood {ledger.get('likelihood')}",
            f"model: {self.model.latent_dim} latent dimensions, {encoder}, {decoder}",
            f"trained by: {objective}, {optimizer}, seed {self.config['seed']}",
            f"measured: {', '.join(map(str, results(ledger))) or 'nothing yet'}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<pre>{html.escape(repr(self))}</pre>"]
        for picture in ("bound_curve", "samples"):
            try:
                content = encoded(self.plot(picture))
            except ConfigError:  # a run without such a picture
                continue
            kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
            data = base64.b64encode(content).decode()
            parts.append(f'<img alt="{picture}" style="max-height: 20em" src="data:image/{kind};base64,{data}">')
        return "".join(parts)

    def _images(self, x: Any) -> Tensor:
        """Images as the encoder takes them.

        Raises:
            ConfigError: their type, shape or range is another one.
        """
        images, shape = _tensor(x, "x"), tuple(self.model.image_shape)
        wanted = f"[n, {', '.join(map(str, shape))}]"
        if shape[0] == 1:
            wanted += f" or [n, {shape[1]}, {shape[2]}]"
            images = images[:, None] if images.shape[1:] == shape[1:] else images
        if images.ndim != 4 or tuple(images.shape[1:]) != shape or not len(images):
            raise ConfigError(f"x must have the shape {wanted}, got {list(x.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if not images.is_floating_point():
            raise ConfigError(f"x must be floating point in [0, 1] or uint8, got {images.dtype}")
        least, most = float(images.min()), float(images.max())
        if not (least >= 0 and most <= 1):  # NaN is neither
            raise ConfigError(f"x must have values in [0, 1], got {least:.3g} ... {most:.3g}: divide it by its largest")
        return images.to(next(self.model.parameters()))


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    raise ConfigError(f"{name} must be a NumPy array or a torch tensor, got {type(values).__name__}")


def _like(result: Tensor, given: Any) -> Any:
    """NumPy where NumPy was given, else on the device of what was given."""
    return result.to(given.device) if isinstance(given, Tensor) else result.cpu().numpy()


def load_run(
    path: str | Path,
    *,
    allow: Sequence[str] = (),
    checkpoint: str | int | None = None,
    data_root: str | None = None,
) -> Run:
    """Loads a run directory, which may be a stranger's: no code of it is executed.

    Args:
        path: the run directory.
        allow: packages whose classes its config may name besides vae_lab's components and the frameworks'.
        checkpoint: `best`, `last` or the count of a snapshot; None: best where there is one.
        data_root: where the data set, file or folder of pictures lies now, if not where the run found it.

    Raises:
        UntrustedTarget: its config names other code.
        RunError: it is no run directory or has no checkpoint.
    """
    with as_it_was():  # a model is made with random weights before it gets the run's
        return Run(**vars(load.load_run(path, allow=allow, checkpoint=checkpoint, data_root=data_root)))


def train(experiment: str | None = None, overrides: Mapping[str, Any] | None = None) -> Run:
    """`vae-lab train experiment=EXPERIMENT KEY=VALUE ...`: trains a new run, or continues one, and loads it.

    Args:
        experiment: a choice of that name; None: the defaults.
        overrides: values of keys, and choices of groups: {"data": "mnist", "model.latent_dim": 2, "run_dir": "runs/a"}.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        KeyboardInterrupt: a signal stopped it; the same call with `run_dir` continues.
    """
    words = {} if experiment is None else {"experiment": experiment}
    (path,) = call("train", {**words, **(overrides or {})})
    return load_run(path, allow=foreign_packages(RunDir(path).read_config()))


def evaluate(run: Run | str | Path, *, overrides: Mapping[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """`vae-lab evaluate run=RUN KEY=VALUE ...`: measures a run in nats, prints the table, and returns the ledger.

    Args:
        run: a run, or its directory.
        overrides: values of keys, dots and all: {"estimator.num_samples": 5000}.
        keys: those without a dot: num_samples=8, splits=["val", "test"].
    """
    loaded = run if isinstance(run, load.Run) else load_run(run)
    call("evaluate", {**_naming(loaded), **keys, **(overrides or {})})
    return RunDir(loaded.path).ledger(loaded.checkpoint)


def classify(
    run: Run | str | Path, labels: Sequence[int] = (100, 600, 1000, 3000), *, repeats: int = 10, seed: int = 0
) -> pd.DataFrame:
    """`vae-lab classify run=RUN`: the test errors of classifiers that learn from so many labelled images each.

    Args:
        run: a run, or its directory.
        labels: numbers of labelled training images.
        repeats: draws of them.
        seed: of the draws.
    """
    loaded = run if isinstance(run, load.Run) else load_run(run)
    how = {"labels": list(labels), "repeats": repeats, "seed": seed, "threads": None, "out": None, "overwrite": False}
    settings = ClassifySettings(**_naming(loaded), **how)
    require_labels(loaded, settings)
    records = table_of(loaded, settings).records
    assert records is not None
    return records


def runs(root: str | Path | Sequence[str | Path] = "outputs", *, where: Sequence[str] = ()) -> pd.DataFrame:
    """`vae-lab runs`: a row for each run below a folder, or several, and a column for every key of theirs.

    Args:
        root: folders, or patterns.
        where: conditions, all of which hold: ["status=finished", "model.latent_dim>=5"].
    """
    roots = [root] if isinstance(root, str | Path) else list(root)
    paths = list(map(str, named_paths("root", list(map(str, roots)))))
    if absent := next((path for path in paths if not os.path.isdir(path)), None):
        raise ConfigError(f"root must be a folder, got {absent}: there is none")
    every = Runs(find_runs(paths))
    for condition in where:
        every = every.chosen(np.flatnonzero(every.where(condition)).tolist())
    first = [key for key in ("path", "status", "data.name", "test/bound") if key in every.frame]
    return every.frame.reindex(columns=first + [key for key in every.frame if key not in first]).infer_objects()


def _naming(run: load.Run) -> dict[str, Any]:
    """The keys by which a command reads this very run."""
    allow = foreign_packages(run.config)
    return {"run": str(run.path), "checkpoint": run.checkpoint, "data_root": run.data_root, "allow": allow}


def call(command: str, keys: Mapping[str, Any]) -> list[Path]:
    """What a command line does, in this process; returns the paths that the command wrote.

    Raises:
        ConfigError: the message of the command line.
    """
    words = [f"{key}={typed(value)}" for key, value in keys.items()]
    folders = [package_configs()]
    line = CommandLine(command, command, folders, words)
    with as_it_was(), lines_on_stderr(), mistakes_of(line):
        overrides = with_texts(understood(line, CommandKeys(folders, command, words), words, []))
        line = line._replace(overrides=with_any_place(overrides) if command == "train" else overrides)
        sys.argv[:] = ["vae-lab", command, *line.overrides]
        with composed(line) as cfg:
            return Task(line, Path(), None).run(cfg)


@contextmanager
def mistakes_of(line: CommandLine) -> Iterator[None]:
    """While a config is composed and a command runs: what the command line would say, as an exception."""
    try:
        yield
    except Interrupted as interrupt:
        raise KeyboardInterrupt(str(interrupt)) from interrupt
    except ConfigError:
        raise
    except Exception as error:
        if is_mistake(error):
            raise ConfigError(explain(error, line)) from error
        raise


def typed(value: Any) -> str:
    """A value as a command line has it."""
    if value is None or isinstance(value, bool | np.bool_):
        return "null" if value is None else str(bool(value)).lower()
    if isinstance(value, numbers.Real):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{typed(item)}' for name, item in value.items())}}}"
    if isinstance(value, list | tuple | np.ndarray):
        return f"[{','.join(map(typed, value))}]"
    return override("", value)[1:]


@contextmanager
def composed(line: CommandLine) -> Iterator[DictConfig]:
    """The config of a command line, with Hydra's own part where commands look for it.

    Raises:
        ConfigError: it asks for a sweep, or for several processes.
    """
    config = HydraConfig.instance()
    before = config.cfg
    with started(line.folders):
        try:
            cfg = compose(line.config_name, list(line.overrides), return_hydra_config=True)
            if cfg.hydra.mode == RunMode.MULTIRUN:
                raise ConfigError("a sweep is many processes: start it from a shell, with vae-lab train")
            for key in ("trainer.devices", "trainer.num_nodes"):
                if (value := OmegaConf.select(cfg, key, default=1)) not in (1, "auto"):
                    raise ConfigError(f"{key} must be 1 in a call, got {value}: several processes start from a shell")
            config.set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            yield cfg
        finally:
            config.cfg = before


@contextmanager
def as_it_was() -> Iterator[None]:
    """What a command sets for its whole process is as before when the block ends."""
    threads, precision = torch.get_num_threads(), MKLDNN.matmul.fp32_precision
    states = random.getstate(), np.random.get_state()
    environment, path, argv = dict(os.environ), sys.path[:], sys.argv[:]
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
        MKLDNN.matmul.fp32_precision = precision
        random.setstate(states[0])
        np.random.set_state(states[1])
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:], sys.argv[:] = path, argv


@contextmanager
def lines_on_stderr() -> Iterator[None]:
    """Where nobody has set up logging, the lines of a command go to stderr, as they do in a shell."""
    if log.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(sys.stderr), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
