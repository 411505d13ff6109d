"""Whole trainings: what evaluations take of their time, and whether a sample costs the same at the end."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vae_lab.assembly import Parts
from vae_lab.benchmarks.comparisons import value_of
from vae_lab.benchmarks.conditions import Conditions
from vae_lab.benchmarks.lab import Clock, train_config, train_once
from vae_lab.benchmarks.sides import Case, Side
from vae_lab.lit_module import LitVAE


def evaluation(conditions: Conditions) -> Case:
    """The everyday run to its end, with its pictures and checkpoints."""
    side = EvaluationShare("evaluations / training", train_config(["experiment=mnist"], conditions), conditions)
    return Case(
        "experiment=mnist, 20 epochs: bound, events, pictures and checkpoint of every evaluation",
        "of the training's time",
        [side],
        [value_of(side.name, at_most=0.10)],
        most_repeats=1,
    )


def growth(conditions: Conditions) -> Case:
    """The cost of a sample late in a long run."""
    overrides = ["experiment=mnist", "trainer.max_epochs=null", "max_samples=3000000", "callbacks=none"]
    side = Growth("last tenth / first tenth", train_config(overrides, conditions), conditions)
    return Case(
        "experiment=mnist, 3e6 samples: time of a sample without evaluations",
        "of the first tenth's time",
        [side],
        [value_of(side.name, at_most=1.10)],
        most_repeats=1,
    )


class LongRun(Side):
    """A number that a whole training gives."""

    def __init__(self, name: str, config: Mapping[str, Any], conditions: Conditions) -> None:
        super().__init__(name)
        self.config, self.conditions = config, conditions

    def prepare(self, seconds: float) -> None:
        """Nothing: the run is long enough."""

    def train(self, clock: Clock) -> None:
        """The training, in a folder that is thrown away."""
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            train_once(self.config, Path(folder) / "run", clock)


class EvaluationShare(LongRun):
    """Time of all evaluations, and of what they write, against the rest of the training's time."""

    def measure(self, seconds: float) -> float:
        """Whatever `seconds` says."""
        clock = EvaluationClock(self.conditions)
        self.train(clock)
        training = clock.seconds - clock.evaluations
        self.facts |= {"training_seconds": training, "evaluation_seconds": clock.evaluations}
        self.facts["of_which_measuring"] = clock.curve.seconds
        return clock.evaluations / training


class EvaluationClock(Clock):
    """Adds up the time in which the curve is at work, with all that an evaluation makes others do."""

    def attach(self, parts: Parts) -> None:
        """Puts a stopwatch around it."""
        super().attach(parts)
        self.curve, self.evaluations = parts.curve, 0.0
        work = parts.curve.on_train_batch_end

        def timed(*arguments: Any) -> None:
            started = self.now()
            work(*arguments)
            self.evaluations += self.now() - started

        parts.curve.on_train_batch_end = timed  # pyright: ignore[reportAttributeAccessIssue]


class Growth(LongRun):
    """Cost per sample in the last tenth of a run against its first, without evaluations."""

    def measure(self, seconds: float) -> float:
        """Whatever `seconds` says."""
        clock = BlockClock(self.conditions)
        self.train(clock)
        total = clock.blocks[-1][0]
        first = [block for block in clock.blocks if block[0] <= total / 10]
        last = [block for block in clock.blocks if block[0] >= total * 9 / 10]
        costs = [(part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) for part in (first, last)]
        return costs[1] / costs[0]


class BlockClock(EvaluationClock):
    """Notes samples and time at the end of every block."""

    def attach(self, parts: Parts) -> None:
        """Begins with an empty list."""
        super().attach(parts)
        self.blocks: list[tuple[int, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A further block."""
        super().on_train_batch_end(trainer, pl_module)
        self.blocks.append((pl_module.samples, self.now() - self.evaluations))
