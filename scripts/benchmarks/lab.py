"""Ours: the whole training of `vae-lab train`, through Lightning's Trainer, with events, CSV and checkpoints.

The config is the experiment's own but for its budget and its evaluations: in a measurement there is one, at its end,
behind the last block, where the clock stops. What evaluations take of a whole run, with their rows, events, pictures
and checkpoints, is a case of its own, `evaluation`. Without the callbacks that talk and draw (callbacks=none).
"""

import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from benchmarks.conditions import Conditions
from benchmarks.sides import Throughput
from vae_lab.data.arrays import ImageData
from vae_lab.jobs.assemble import Parts, assemble
from vae_lab.jobs.execute import fit
from vae_lab.runs.continuation import frozen_config
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.training.lit_module import LitVAE
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command

NEVER = 2**62
"""A count of samples that no training reaches."""


class Lab(Throughput):
    """Samples per second of a training, from the end of its first block to the end of its last.

    Args:
        name: as for every side.
        overrides: of `vae-lab train`.
        conditions: threads, device, and where the run directories go.
    """

    def __init__(self, name: str, overrides: Sequence[str], conditions: Conditions) -> None:
        config = train_config([*overrides, "trainer.max_epochs=null", "max_samples=1e9", "callbacks=none"], conditions)
        self.config = config | {"evaluation": config["evaluation"] | {"first": NEVER, "splits": []}}
        self.conditions = conditions
        super().__init__(name, unit=self.config["data"]["batch_size"] * self.config["steps_per_execution"])

    def work(self, amount: int) -> float:
        """A training in a new run directory, of one block more than the amount."""
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            clock = SteadyClock(self.conditions)
            train_once(self.config | {"max_samples": amount + self.unit}, Path(folder) / "run", clock)
        assert clock.samples == amount
        return clock.seconds


class Clock(pl.Callback):
    """The seconds of a training behind its first block."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.samples, self.seconds, self.first = 0, 0.0, 0

    def attach(self, parts: Parts) -> None:
        """Comes last of the callbacks, whose work counts."""
        parts.trainer.callbacks.append(self)  # pyright: ignore[reportAttributeAccessIssue]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock after the first block."""
        if not self.first:
            self.first, self.started = pl_module.samples, self.now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Stops it."""
        self.samples, self.seconds = pl_module.samples - self.first, self.now() - self.started

    def now(self) -> float:
        """The time that counts, once the device has done its work."""
        self.conditions.synchronize()
        return time.perf_counter()


class SteadyClock(Clock):
    """The seconds from the end of the first block to the end of the last, whatever follows there."""

    def attach(self, parts: Parts) -> None:
        """Comes first of the callbacks."""
        parts.trainer.callbacks.insert(0, self)  # pyright: ignore[reportAttributeAccessIssue]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock after the first block, stops it after the last."""
        super().on_train_batch_end(trainer, pl_module)
        if pl_module.samples >= pl_module.max_samples:
            self.samples, self.seconds = pl_module.samples - self.first, self.now() - self.started

    def on_train_end(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """It has stopped."""


def train_config(overrides: Sequence[str], conditions: Conditions) -> dict[str, Any]:
    """The config of a training as `vae-lab train` freezes it."""
    place = ["trainer=gpu"] if conditions.device == "cuda" else []
    return frozen_config(compose_command("train", [*overrides, *place, f"threads={conditions.threads}"])[0])


def train_once(config: Mapping[str, Any], folder: Path, clock: Clock) -> Parts:
    """A new run, trained to the end of its budget."""
    run = RunDir(folder)
    parts = assemble(config, run)
    clock.attach(parts)
    plan_run(folder, config)
    fit(run, parts)
    return parts


@functools.cache
def data_of(experiment: str) -> ImageData:
    """The data set of an experiment, read once for all sides but ours.

    Raises:
        ConfigError: a file is not there and cannot be fetched; the message says what to do.
    """
    config = compose_command("train", [f"experiment={experiment}"])[0]
    return build.instantiate(config["data"], "data")


def training_images(experiment: str) -> Tensor:
    """The training images of an experiment, [num, channel, height, width] in [0, 1]."""
    return data_of(experiment).parts["train"].images
