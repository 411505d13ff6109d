"""Ours: the whole training of `vae-lab train`, through Lightning's Trainer, with events, CSV and checkpoints.

The config is the experiment's own but for its budget and its evaluations: in a measurement of speed there is one, at
its end, behind the last block, where the clock stops. What evaluations take of a whole run, with their rows, events,
pictures and checkpoints, is a case of its own, `evaluation`. Without the callbacks that talk and draw (callbacks=none).
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
from benchmarks.hand_written import MNIST, HandWritten, UntilBound
from benchmarks.sides import Case, Side, Throughput, difference, ratio, value_of
from vae_lab.errors import Failed
from vae_lab.jobs.assemble import Assembled, assemble
from vae_lab.jobs.execute import fit
from vae_lab.jobs.planned import planned_config
from vae_lab.jobs.settle import settled
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.training.lit_module import LitVAE
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command

NEVER = 2**62
"""A count of samples that no training reaches."""
PAPER_BOUND = -104.8
"""The test bound on MNIST with 20 latent dimensions after 1e7 samples, in figure 2."""


class Lab(Throughput):
    """Samples per second of a training with these overrides, from the end of its first block to the end of its last."""

    def __init__(self, name: str, overrides: Sequence[str], conditions: Conditions) -> None:
        config = train_config([*overrides, "trainer.max_epochs=null", "max_samples=1e9", "callbacks=none"], conditions)
        self.config = config | {"evaluation": config["evaluation"] | {"first": NEVER, "splits": []}}
        super().__init__(name, conditions, unit=config["data"]["batch_size"] * config["steps_per_execution"])

    def do(self, amount: int) -> None:
        self.clock = Clock(self.conditions)
        train_once(self.config | {"max_samples": amount + self.unit}, self.clock)

    def work(self, amount: int) -> float:
        self.do(amount)
        assert self.clock.samples == amount
        return self.clock.seconds


class Clock(pl.Callback):
    """The seconds of a training behind its first block, to the end of its last; `whole`: with all that follows."""

    def __init__(self, conditions: Conditions, *, whole: bool = False) -> None:
        self.conditions, self.whole = conditions, whole
        self.samples, self.seconds, self.first = 0, 0.0, 0

    def attach(self, assembled: Assembled) -> None:
        """Comes first of the callbacks, or last of them where their work counts."""
        callbacks: list[pl.Callback] = assembled.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        callbacks.insert(len(callbacks) if self.whole else 0, self)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if not self.first:
            self.first, self.started = pl_module.samples, self.now()
        elif not self.whole and pl_module.samples >= pl_module.max_samples:
            self.stop(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.whole:
            self.stop(pl_module)

    def stop(self, lit: LitVAE) -> None:
        """Notes samples and seconds."""
        self.samples, self.seconds = lit.samples - self.first, self.now() - self.started

    def now(self) -> float:
        """The time that counts, once the device has done its work."""
        self.conditions.synchronize()
        return time.perf_counter()


class LongRun(Side):
    """A number that a whole training gives."""

    def __init__(self, name: str, overrides: Sequence[str], conditions: Conditions) -> None:
        super().__init__(name, conditions)
        self.config = train_config(overrides, conditions)


class FinalBound(LongRun):
    """The bound of the test set at the end, in nats per datapoint."""

    def measure(self, seconds: float) -> float:
        return train_once(self.config, Clock(self.conditions))[-1]["test/bound"]


class TimeToBound(LongRun):
    """Seconds of a whole training, from its first step to its end, evaluations and compiling included."""

    def __init__(self, name: str, overrides: Sequence[str], bound: float, conditions: Conditions) -> None:
        super().__init__(name, overrides, conditions)
        self.bound = bound

    def measure(self, seconds: float) -> float:
        clock = FitClock(self.conditions, whole=True)
        reached = train_once(self.config, clock)[-1]["test/bound"]
        self.facts = {"test_bound": reached}
        if reached < self.bound:
            raise Failed(f"{self.name} ended at {reached:.2f} nats, below {self.bound}: its time answers nothing")
        return clock.seconds


class FitClock(Clock):
    """From the start of the training on, its first block included."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.started = self.now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Nothing: no block is left out."""


class EvaluationShare(LongRun):
    """Time of all evaluations, and of what they write, against the rest of the training's time."""

    def measure(self, seconds: float) -> float:
        clock = EvaluationClock(self.conditions, whole=True)
        train_once(self.config, clock)
        training = clock.seconds - clock.evaluations
        self.facts |= {"training_seconds": training, "evaluation_seconds": clock.evaluations}
        self.facts["of_which_measuring"] = clock.evaluation.seconds
        return clock.evaluations / training


class EvaluationClock(Clock):
    """Adds up the time of evaluating, with all that an evaluation makes others do."""

    def attach(self, assembled: Assembled) -> None:
        super().attach(assembled)
        self.evaluation, self.evaluations = assembled.evaluation, 0.0
        work = assembled.evaluation.on_train_batch_end

        def timed(*arguments: Any) -> None:
            started = self.now()
            work(*arguments)
            self.evaluations += self.now() - started

        assembled.evaluation.on_train_batch_end = timed  # pyright: ignore[reportAttributeAccessIssue]


class Growth(LongRun):
    """Cost per sample in the last tenth of a run against its first, whatever is written on the way.

    In between machines change their speed by more than is looked for. So cost is counted in that of a reference, which
    costs the same from beginning to end and takes its turn after every block.
    """

    def prepare(self, seconds: float) -> None:
        self.reference = HandWritten("", MNIST, training_images("mnist"), self.conditions)
        self.reference.prepare(seconds=0.1)

    def measure(self, seconds: float) -> float:
        clock = BlockClock(self.conditions, self.reference)
        train_once(self.config, clock)
        (first, first_reference), (last, last_reference) = clock.cost(0), clock.cost(9)
        self.facts["without_reference"] = last / first
        return last / first * first_reference / last_reference


class BlockClock(Clock):
    """Notes, by the tenth of the training, the seconds of every block and of the reference after it."""

    def __init__(self, conditions: Conditions, reference: Throughput) -> None:
        super().__init__(conditions, whole=True)
        self.reference, self.samples_before, self.before = reference, -1, 0.0
        self.blocks: list[tuple[int, int, float, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """A further block, with what callbacks did behind it; the first one of all only begins."""
        super().on_train_batch_end(trainer, pl_module)
        if self.samples_before == pl_module.block_start:
            seconds = self.now() - self.before
            tenth = min(9, 10 * pl_module.samples // pl_module.max_samples)
            count, amount = pl_module.samples - pl_module.block_start, 5 * self.reference.unit
            self.blocks.append((tenth, count, seconds, self.reference.work(amount) / amount))
        self.samples_before, self.before = pl_module.samples, self.now()

    def cost(self, tenth: int) -> tuple[float, float]:
        """Seconds of a sample in a tenth of the training, and of the reference meanwhile."""
        _, samples, seconds, reference = zip(*(block for block in self.blocks if block[0] == tenth), strict=True)
        return sum(seconds) / sum(samples), sum(reference) / len(reference)


def evaluation(conditions: Conditions) -> Case:
    """Bound, events, pictures and checkpoint of every evaluation in 20 epochs of experiment=mnist."""
    side = EvaluationShare("evaluations / training", ["experiment=mnist"], conditions)
    return Case([side], [value_of(side.name, at_most=0.10)], "of the training's time", most_repeats=1)


def growth(conditions: Conditions) -> Case:
    """The last tenth of 3e6 samples of experiment=mnist with 60 evaluations, in the time of a hand-written loop."""
    overrides = ["experiment=mnist", "trainer.max_epochs=null", "max_samples=3000000", "callbacks=none"]
    marks = [f"evaluation.first={NEVER}", "evaluation.every=50000"]  # as many in every tenth
    side = Growth("last tenth / first tenth", [*overrides, *marks], conditions)
    return Case([side], [value_of(side.name, at_most=1.10)], "of the first tenth's time", most_repeats=1)


def precision(conditions: Conditions) -> Case:
    """What bfloat16 loses of the test bound in five epochs of experiment=mnist."""
    overrides, values = ["experiment=mnist", "max_samples=250000", "callbacks=none"], ("32-true", "bf16-mixed")
    sides = [FinalBound(value, [*overrides, f"trainer.precision={value}"], conditions) for value in values]
    return Case(sides, [difference(*values, at_most=0.3)], "nats", most_repeats=1)


def time_to_bound(conditions: Conditions) -> Case:
    """To the paper's test bound at 1e7 samples: experiment=mnist_fast, and a hand-written loop with constant Adam."""
    ours = TimeToBound("ours", ["experiment=mnist_fast"], PAPER_BOUND, conditions)
    train, test = (images_of("mnist_fast", split) for split in ("train", "test"))
    hand_written = UntilBound("hand-written", MNIST, train, test, PAPER_BOUND, conditions)
    faster = ratio(hand_written.name, ours.name)
    return Case([ours, hand_written], [faster], "seconds", most_repeats=1)


def train_config(overrides: Sequence[str], conditions: Conditions) -> dict[str, Any]:
    """The config of a training as `vae-lab train` freezes it."""
    place = ["trainer=gpu"] if conditions.device == "cuda" else []
    return planned_config(compose_command("train", [*overrides, *place, f"threads={conditions.threads}"])[0])


def train_once(config: Mapping[str, Any], clock: Clock) -> list[dict[str, float]]:
    """A new run, trained to the end of its budget, in a folder that is thrown away; the rows of its curve."""
    with tempfile.TemporaryDirectory(dir=clock.conditions.folder) as folder:
        run = RunDir(Path(folder) / "run")
        assembled = assemble(config, run)
        config = settled(config, assembled, run)
        clock.attach(assembled)
        plan_run(run.path, config)
        fit(run, assembled)
        return read_rows(run.curve_file)


def training_images(experiment: str) -> Tensor:
    """The images that an experiment trains on."""
    return images_of(experiment, "train")


@functools.cache
def images_of(experiment: str, split: str) -> Tensor:
    """The images of an experiment in [0, 1], read once for all sides but ours.

    Raises:
        ConfigError: a file is not there and cannot be fetched; the message says what to do.
    """
    config = compose_command("train", [f"experiment={experiment}"])[0]
    return build.instantiate(config["data"], "data").splits[split].images
