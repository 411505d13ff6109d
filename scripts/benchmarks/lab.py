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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from torch import Tensor

from benchmarks.conditions import Conditions
from benchmarks.hand_written import MNIST, HandWritten, UntilBound
from benchmarks.sides import Case, Side, Throughput, difference, ratio, value_of
from vae_lab.errors import Failed
from vae_lab.jobs.assemble import assemble
from vae_lab.jobs.execute import fit
from vae_lab.jobs.planned import planned_config
from vae_lab.jobs.settle import settled
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir, plan_run
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
        self.clock = train_once(self.config | {"max_samples": amount + self.unit}, self.conditions).before

    def work(self, amount: int) -> float:
        self.do(amount)
        (samples, started), (all_samples, ended) = self.clock.blocks[0], self.clock.blocks[-1]
        assert all_samples - samples == amount
        return ended - started


class Clock(pl.Callback):
    """When a training began and was over, and with how many samples each of its blocks ended, and when.

    A block ends once the device has done its work.
    """

    def __init__(self) -> None:
        self.blocks: list[tuple[int, float]] = []

    def on_train_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.blocks.append((pl_module.samples, time.perf_counter()))

    def on_train_end(self, *_: Any) -> None:
        self.over = time.perf_counter()


class Trained(NamedTuple):
    """The rows of a training's curve, and clocks that were called before its callbacks, amid and behind them."""

    rows: Sequence[Mapping[str, float]]
    before: Clock
    evaluated: Clock
    """Directly behind the evaluation, which comes first."""
    behind: Clock
    measuring: float
    """Seconds of the evaluations alone, without what they make others write."""


class LongRun(Side):
    """A number that a whole training gives."""

    def __init__(self, name: str, overrides: Sequence[str], conditions: Conditions) -> None:
        super().__init__(name, conditions)
        self.config = train_config(overrides, conditions)


class FinalBound(LongRun):
    """The bound of the test set at the end, in nats per datapoint."""

    def measure(self, seconds: float) -> float:
        return train_once(self.config, self.conditions).rows[-1]["test/bound"]


class TimeToBound(LongRun):
    """Seconds of a whole training, from its first step to its end, evaluations and compiling included."""

    def __init__(self, name: str, overrides: Sequence[str], bound: float, conditions: Conditions) -> None:
        super().__init__(name, overrides, conditions)
        self.bound = bound

    def measure(self, seconds: float) -> float:
        trained = train_once(self.config, self.conditions)
        reached, clock = trained.rows[-1]["test/bound"], trained.behind
        self.facts = {"test_bound": reached}
        if reached < self.bound:
            raise Failed(f"{self.name} ended at {reached:.2f} nats, below {self.bound}: its time answers nothing")
        return clock.over - clock.began


class EvaluationShare(LongRun):
    """Time of all evaluations, and of what they make others write, against the rest behind the first block."""

    def measure(self, seconds: float) -> float:
        _, before, evaluated, behind, measuring = train_once(self.config, self.conditions)
        blocks = zip(before.blocks, evaluated.blocks, strict=True)
        evaluations = sum(end - start for (_, start), (_, end) in blocks)
        training = behind.over - behind.blocks[0][1] - evaluations
        self.facts = {"training_seconds": training, "evaluation_seconds": evaluations, "of_which_measuring": measuring}
        return evaluations / training


class Growth(LongRun):
    """Cost per sample in the last tenth of a run against its first, whatever is written on the way.

    In between machines change their speed by more than is looked for. So cost is counted in that of a reference, which
    costs the same from beginning to end and takes its turn after every block.
    """

    def prepare(self, seconds: float) -> None:
        self.reference = HandWritten("", MNIST, training_images("mnist"), self.conditions)
        self.reference.prepare(seconds=0.1)

    def measure(self, seconds: float) -> float:
        clock = ClockWithReference(self.reference)
        train_once(self.config, self.conditions, clock)
        first, *_, last = clock.costs().to_numpy()
        growth, of_reference = last / first
        self.facts["without_reference"] = growth
        return growth / of_reference


class ClockWithReference(Clock):
    """Lets a reference work after every block, in time that does not count."""

    def __init__(self, reference: Throughput) -> None:
        super().__init__()
        self.reference = reference
        self.turns: list[tuple[float, float]] = []
        """Its seconds for a sample, and when it was done."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        super().on_train_batch_end(trainer, pl_module)
        amount = 5 * self.reference.unit
        self.turns.append((self.reference.work(amount) / amount, time.perf_counter()))

    def costs(self) -> pd.DataFrame:
        """Seconds of a sample in each tenth of the training but for its first block, and of the reference meanwhile."""
        (samples, ends), (references, goes_on) = np.array(self.blocks).T, np.array(self.turns).T
        blocks = {"samples": np.diff(samples), "seconds": ends[1:] - goes_on[:-1], "reference": references[1:]}
        tenths: Any = pd.DataFrame(blocks).groupby(np.minimum(9, 10 * samples[1:] // samples[-1]))
        cost = tenths["seconds"].sum() / tenths["samples"].sum()
        return pd.DataFrame({"lab": cost, "reference": tenths["reference"].mean()})


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
    """Times experiment=mnist_fast, and a loop by hand with constant Adam, to the paper's test bound at 1e7 samples."""
    ours = TimeToBound("ours", ["experiment=mnist_fast"], PAPER_BOUND, conditions)
    train, test = (images_of("mnist_fast", split) for split in ("train", "test"))
    hand_written = UntilBound("hand-written", MNIST, train, test, PAPER_BOUND, conditions)
    faster = ratio(hand_written.name, ours.name)
    return Case([ours, hand_written], [faster], "seconds", most_repeats=1)


def train_config(overrides: Sequence[str], conditions: Conditions) -> dict[str, Any]:
    """The config of a training as `vae-lab train` freezes it."""
    return planned_config(compose_command("train", [*overrides, *conditions.overrides])[0])


def train_once(config: Mapping[str, Any], conditions: Conditions, *further: pl.Callback) -> Trained:
    """A new run, trained to the end of its budget, in a folder that is thrown away; `further` callbacks come last."""
    before, evaluated, behind = Clock(), Clock(), Clock()
    with tempfile.TemporaryDirectory(dir=conditions.folder) as folder:
        run = RunDir(Path(folder) / "run")
        assembled = assemble(config, run)
        config = settled(config, assembled, run)
        callbacks: list[pl.Callback] = assembled.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        callbacks.insert(callbacks.index(assembled.evaluation) + 1, evaluated)
        callbacks[:] = [before, *callbacks, behind, *further]
        plan_run(run.path, config)
        fit(run, assembled)
        return Trained(read_rows(run.curve_file), before, evaluated, behind, assembled.evaluation.seconds)


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
