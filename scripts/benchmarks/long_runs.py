"""Whole trainings: what evaluations take of their time, and whether a sample costs the same at the end."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.comparisons import difference, value_of
from benchmarks.conditions import Conditions
from benchmarks.hand_written import HandWritten, bernoulli_loss
from benchmarks.lab import NEVER, Clock, train_config, train_once, training_images
from benchmarks.networks import mnist_mlp
from benchmarks.sides import Case, Side, Throughput
from vae_lab.jobs.assemble import Parts
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.training.lit_module import LitVAE


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
    """The cost of a sample late in a long run that is evaluated all along."""
    overrides = ["experiment=mnist", "trainer.max_epochs=null", "max_samples=3000000", "callbacks=none"]
    marks = [f"evaluation.first={NEVER}", "evaluation.every=50000"]  # as many in every tenth
    reference = HandWritten("hand-written", mnist_mlp, bernoulli_loss, training_images("mnist"), conditions)
    config = train_config([*overrides, *marks], conditions)
    side = Growth("last tenth / first tenth", config, conditions, reference)
    return Case(
        "experiment=mnist, 3e6 samples, 60 evaluations: time of a sample with all that is written, in that of the "
        "hand-written loop",
        "of the first tenth's time",
        [side],
        [value_of(side.name, at_most=1.10)],
        most_repeats=1,
    )


def precision(conditions: Conditions) -> Case:
    """What bfloat16 loses in five epochs."""
    names = {"float32": "32-true", "bfloat16": "bf16-mixed"}
    overrides = ["experiment=mnist", "trainer.max_epochs=5", "callbacks=none"]
    sides = [
        FinalBound(name, train_config([*overrides, f"trainer.precision={value}"], conditions), conditions)
        for name, value in names.items()
    ]
    return Case(
        "experiment=mnist, 5 epochs: test bound",
        "nats",
        sides,
        [difference("float32", "bfloat16", at_most=0.3)],
        most_repeats=1,
    )


class LongRun(Side):
    """A number that a whole training gives."""

    def __init__(self, name: str, config: Mapping[str, Any], conditions: Conditions) -> None:
        super().__init__(name)
        self.config, self.conditions = config, conditions

    def prepare(self, seconds: float) -> None:
        """Nothing: the run is long enough."""

    def train(self, clock: Clock) -> list[dict[str, float]]:
        """The training, in a folder that is thrown away; the rows of its curve."""
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            train_once(self.config, Path(folder) / "run", clock)
            return read_rows(RunDir(Path(folder) / "run").curve)


class FinalBound(LongRun):
    """The bound of the test part at the end, in nats per datapoint."""

    def measure(self, seconds: float) -> float:
        """Whatever `seconds` says."""
        return self.train(Clock(self.conditions))[-1]["test/bound"]


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
    """Cost per sample in the last tenth of a run against its first, whatever is written on the way.

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
        (first, first_reference), (last, last_reference) = clock.cost(0), clock.cost(9)
        self.facts["without_reference"] = last / first
        return last / first * first_reference / last_reference


class BlockClock(Clock):
    """Notes, by the tenth of the training, the seconds of every block and of the reference after it.

    Args:
        conditions: as for every clock.
        reference: prepared.
    """

    def __init__(self, conditions: Conditions, reference: Throughput) -> None:
        super().__init__(conditions)
        self.reference = reference
        self.samples_before, self.before = -1, 0.0
        self.blocks: list[tuple[int, int, float, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A further block, with what callbacks did behind it; the first one of all only begins."""
        super().on_train_batch_end(trainer, pl_module)
        if self.samples_before == pl_module.block_start:
            seconds = self.now() - self.before
            tenth = min(9, 10 * pl_module.samples // pl_module.max_samples)
            amount = 5 * self.reference.unit
            count = pl_module.samples - pl_module.block_start
            self.blocks.append((tenth, count, seconds, self.reference.work(amount) / amount))
        self.samples_before, self.before = pl_module.samples, self.now()

    def cost(self, tenth: int) -> tuple[float, float]:
        """Seconds of a sample in a tenth of the training, and of the reference meanwhile."""
        blocks = [block for block in self.blocks if block[0] == tenth]
        samples, seconds = (sum(block[i] for block in blocks) for i in (1, 2))
        return seconds / samples, sum(block[3] for block in blocks) / len(blocks)
