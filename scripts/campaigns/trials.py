"""What every trial is judged by, and the runs that trials begin with."""

import hashlib
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from campaigns import forks
from campaigns.forks import Ended
from vae_lab.runs.directory import RunDir

TINY = (
    "data=digits",
    "threads=1",
    "matmul_backend=default",
    "callbacks=none",
    "data.train_size=300",
    "data.batch_size=50",
    "model.encoder.hidden=[16]",
    "model.latent_dim=3",
    "evaluation.first=100",
    "checkpoint.every_seconds=0.01",
)
MISTAKE, INTERRUPTED = 2, 130
SECONDS, MEGABYTES = 30.0, 1500.0
"""What a command on a tiny run may take at most, whatever it is given."""


class Broken(Exception):  # noqa: N818
    """A trial that did not hold: what was expected, and the commands that show it."""


@dataclass(frozen=True)
class Trial:
    """A folder of its own, and everything random about it."""

    folder: Path
    """Empty at the start; the trial's working folder."""
    runs: Path
    """Finished runs, to be copied."""
    random: random.Random


def expect(holds: bool, rule: str, *ended: Ended) -> None:
    """Ends the trial as broken unless the rule holds."""
    if not holds:
        shown = (f"  $ vae-lab {' '.join(end.arguments)}\n  exit {end.code}: {end.output[-1500:]!r}" for end in ended)
        raise Broken("\n".join([rule, *shown]))


def run(trial: Trial, *arguments: Any, codes: Sequence[int] = (0, MISTAKE)) -> Ended:
    """Runs a command line, which must end in good order whatever it meets."""
    ended = forks.run([str(argument) for argument in arguments], trial.folder)
    judge(ended, codes)
    return ended


def judge(ended: Ended, codes: Sequence[int]) -> None:
    """The rules for every command line: its exit code, no traceback, a message, little time and memory."""
    expect(ended.code in codes, f"the exit code must be one of {codes}", ended)
    expect("Traceback" not in ended.output, "no traceback", ended)
    expect(ended.code != MISTAKE or bool(ended.output.strip()), "a refusal says why", ended)
    expect(ended.seconds < SECONDS, f"takes at most {SECONDS:.0f} s, and took {ended.seconds:.0f}", ended)
    expect(ended.megabytes < MEGABYTES, f"takes at most {MEGABYTES:.0f} MB, and took {ended.megabytes:.0f}", ended)


def content_of(folder: Path) -> dict[str, str]:
    """What lies in a folder: path -> its kind, size and hash. What nobody reads is left out: locks."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == ".lock" or path.name.startswith(".output-"):
            continue
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file():
            found[name] = f"link to {path.readlink()}" if path.is_symlink() else f"mode {path.lstat().st_mode:o}"
        elif (size := path.stat().st_size) > 100_000_000:
            found[name] = f"{size} bytes"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def result_of(run_dir: RunDir) -> dict[str, Any]:
    """What a training came to: all that must not depend on kills; weights and optimisers by their bits."""
    return {
        "curve": run_dir.curve_file.read_text(),
        "ledger": {name: run_dir.ledger(name) for name in ("best", "last")},
        "status": run_dir.read_status(),
        **{f"{name}.ckpt": bits_of(run_dir.checkpoints / f"{name}.ckpt") for name in ("best", "last")},
    }


def bits_of(file: Path) -> str:
    """A hash over all tensors and numbers of a checkpoint, without the time that it took."""
    found = hashlib.sha256()
    content = torch.load(file, weights_only=True)
    content["vae_lab"] = {key: value for key, value in content["vae_lab"].items() if key != "seconds"}
    for key in ("state_dict", "optimizer_states", "vae_lab"):
        for name, value in leaves(content.get(key), key):
            found.update(name.encode())
            found.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return found.hexdigest()


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Dotted name -> tensor or plain value, through dictionaries and lists."""
    if isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, f"{name}.{key}")
    else:
        yield name, value


def copy_of(trial: Trial, name: str, to: str = "run") -> RunDir:
    """A copy of one of the runs that trials begin with."""
    return RunDir(shutil.copytree(trial.runs / name, trial.folder / to))


RUNS = {
    "plain": ["trainer.max_epochs=3"],
    "snapshots": ["trainer.max_epochs=3", "checkpoint.at=[300,600]", "optimizer=adagrad", "seed=1"],
    "wake_sleep": ["trainer.max_epochs=3", "objective=wake_sleep", "seed=2"],
}


def make_runs(folder: Path) -> None:
    """Trains the runs that trials copy."""
    for name, settings in RUNS.items():
        ended = forks.run(["train", f"run_dir={folder / name}", *TINY, *settings], folder)
        expect(ended.code == 0, "the runs to begin with must train", ended)
