"""Whole trainings: what evaluations take of their time, and whether a sample costs the same at the end."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from vae_lab.assembly import Parts
from vae_lab.benchmarks.comparisons import value_of
from vae_lab.benchmarks.conditions import Conditions
from vae_lab.benchmarks.hand_written import HandWritten, bernoulli_loss
from vae_lab.benchmarks.lab import Clock, train_config, train_once, training_images
from vae_lab.benchmarks.networks import mnist_mlp
from vae_lab.benchmarks.sides import Case, Side, Spread, Throughput
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
    reference = HandWritten("hand-written", mnist_mlp, bernoulli_loss, training_images("mnist"), conditions)
    side = Growth("last tenth / first tenth", train_config(overrides, conditions), conditions, reference)
    return Case(
        "experiment=mnist, 3e6 samples: time of a sample without evaluations, in that of the hand-written loop",
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
    """Cost per sample in the last tenth of a run against its first, without evaluations.

    In between machines change their speed by more than is looked for. So cost is counted in that of a reference, which
    takes its turn after every block.

    Args:
        name: as for every side.
        config: of the training.
        conditions: threads and device.
        reference: work that costs the same from beginning to end.
    """

    def __init__(self, name: str, config: Mapping[str, Any], conditions: Conditions, reference: Throughput) -> None:
        super().__init__(name, config, conditions)
        self.reference = reference

    def prepare(self, seconds: float) -> None:
        """The reference."""
        self.reference.prepare(seconds=0.1)

    def measure(self, seconds: float) -> float:
        """Whatever `seconds` says."""
        clock = BlockClock(self.conditions, self.reference)
        self.train(clock)
        first, last = (Spread(tuple(a / b for a, b in clock.pairs[tenth])).median for tenth in (0, 9))
        seconds_of = [sum(a for a, _ in clock.pairs[tenth]) / len(clock.pairs[tenth]) for tenth in (0, 9)]
        self.facts["without_reference"] = seconds_of[1] / seconds_of[0]
        return last / first


class BlockClock(EvaluationClock):
    """Notes, by the tenth of the training, the seconds of every block and of the reference after it.

    Args:
        conditions: as for every clock.
        reference: prepared.
    """

    def __init__(self, conditions: Conditions, reference: Throughput) -> None:
        super().__init__(conditions)
        self.reference = reference
        self.samples_before, self.before = -1, 0.0
        self.pairs: dict[int, list[tuple[float, float]]] = {tenth: [] for tenth in range(10)}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A further block; the first one of all only begins."""
        super().on_train_batch_end(trainer, pl_module)
        count = pl_module.samples - pl_module.block_start
        if self.samples_before == pl_module.block_start:
            seconds = (self.now() - self.before - self.evaluations) / count
            tenth = min(9, 10 * pl_module.samples // pl_module.max_samples)
            amount = 5 * self.reference.unit
            self.pairs[tenth].append((seconds, self.reference.work(amount) / amount))
        self.samples_before, self.before = pl_module.samples, self.now() - self.evaluations
