"""Processes: how soon one begins, how much memory it takes, what several at once gain."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.lab import train_config, training_images
from benchmarks.sides import Case, Side, difference, ratio, value_of
from vae_lab.errors import Failed
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import plan_job
from vae_lab.runs.directory import plan_run

CHILD = ("-m", "benchmarks.child")
SILENT: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
SCRIPTS = str(Path(__file__).parents[1])
"""Where a child finds these benchmarks, which are no part of the installed package."""


class ProcessTime(Side):
    """Seconds from the start of a Python process to its end; prepared by one, so that its files are in the cache."""

    def __init__(self, name: str, arguments: Sequence[str], conditions: Conditions, **environment: str) -> None:
        super().__init__(name, conditions)
        self.arguments, self.environment = arguments, environment

    def prepare(self, seconds: float) -> None:
        self.measure(seconds)

    def measure(self, seconds: float) -> float:
        started = time.perf_counter()
        python(*self.arguments, **self.environment)
        return time.perf_counter() - started


class WholeRun(ProcessTime):
    """Seconds of a training's process, its cache of compiled steps empty or as the run before left it."""

    def __init__(self, name: str, conditions: Conditions, *, cold: bool) -> None:
        self.cache, self.cold = conditions.folder / f"cache of {name}", cold
        command = ["-m", "vae_lab", "train", *everyday(conditions)]
        super().__init__(name, command, conditions, XDG_CACHE_HOME=str(self.cache))

    def measure(self, seconds: float) -> float:
        if self.cold:
            shutil.rmtree(self.cache / "vae_lab" / "compiled", ignore_errors=True)
        return super().measure(seconds)


class ProcessorTime(Side):
    """Seconds of the CPU that a command and its children take, in an environment that is there."""

    def __init__(self, name: str, command: Sequence[str], conditions: Conditions) -> None:
        super().__init__(name, conditions)
        self.command = command

    def measure(self, seconds: float) -> float:
        before = os.times()
        done = subprocess.run(self.command, env=os.environ | {"VENV": sys.prefix}, **SILENT)
        if done.returncode:
            raise Failed(f"{self.name} ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system


class PeakMemory(Side):
    """The most memory that a task of `benchmarks.child` ever had, in MB."""

    def __init__(self, name: str, arguments: Sequence[object], conditions: Conditions) -> None:
        super().__init__(name, conditions)
        self.arguments, self.result = (
            [str(one) for one in arguments],
            conditions.folder / f"{name.replace(' ', '_')}.json",
        )

    def measure(self, seconds: float) -> float:
        python(*CHILD, str(self.result), *self.arguments)
        return json.loads(self.result.read_text(encoding="utf-8"))["peak"]

    def imports(self) -> "PeakMemory":
        """The peak of a process that imports the same modules; it is measured after this one."""
        return PeakMemory(f"imports of {self.name}", ["imports", self.result], self.conditions)


class SeveralTrainings(Side):
    """Seconds of the same trainings, planned before, so many processes at once."""

    def __init__(self, config: Mapping[str, Any], count: int, at_once: int, conditions: Conditions) -> None:
        super().__init__(f"jobs={at_once}", conditions)
        self.config, self.count, self.at_once = config, count, at_once

    def measure(self, seconds: float) -> float:
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            jobs = [plan_job(Path(folder) / str(i), {**self.config, "seed": i}) for i in range(self.count)]
            started = time.perf_counter()
            outcomes = run_jobs(jobs, num_parallel=self.at_once)
            taken = time.perf_counter() - started
        if bad := [outcome for outcome in outcomes if not outcome.is_good]:
            raise Failed(f"{self.name}: a training {bad[0].status}: {bad[0].reason}")
        return taken


def python(*arguments: str, **environment: str) -> None:
    """A Python process, to its end.

    Raises:
        Failed: it ended with another code than 0; its last words are named.
    """
    path = os.pathsep.join(filter(None, (SCRIPTS, os.environ.get("PYTHONPATH"))))
    process = subprocess.run(
        [sys.executable, *arguments], env=os.environ | {"PYTHONPATH": path} | environment, **SILENT
    )
    if process.returncode:
        last = process.stderr.strip().rpartition("\n")[2]
        raise Failed(f"python {' '.join(arguments)} ended with code {process.returncode}: {last}")


def startup(conditions: Conditions) -> Case:
    """The help, and the optimiser's first step, from the start of a process, beside imports that nobody avoids."""
    words, first = "vae-lab --help", "train, first step"
    sides = {
        words: ["-m", "vae_lab", "--help"],
        "import hydra": ["-c", "import hydra"],
        first: [*CHILD, os.devnull, "first_step", *everyday(conditions)],
        "import pytorch_lightning": ["-c", "import pytorch_lightning"],
    }
    compared = [ratio(words, "import hydra", at_most=3), ratio(first, "import pytorch_lightning", at_most=2)]
    return Case([ProcessTime(name, of, conditions) for name, of in sides.items()], compared, "s", most_repeats=3)


def whole_run(conditions: Conditions) -> Case:
    """`vae-lab train experiment=mnist`, from the start of its process to its end, beside the same written by hand."""
    cold, warm, hand = "ours, nothing compiled yet", "ours, compiled before", "hand-written"
    sides = [WholeRun(cold, conditions, cold=True), WholeRun(warm, conditions, cold=False)]
    task = [*CHILD, os.devnull, "hand_written", str(conditions.threads), "20"]
    compared = [ratio(cold, hand, at_most=1.0), ratio(warm, hand, at_most=0.8)]
    return Case([*sides, ProcessTime(hand, task, conditions)], compared, "s", most_repeats=5)


def quickstart(conditions: Conditions) -> Case:
    """`scripts/quickstart` after installation: a training, its bounds and its pictures."""
    place = [str(Path(SCRIPTS) / "quickstart"), f"output_root={conditions.folder}"]
    side = ProcessorTime("scripts/quickstart", place, conditions)
    return Case([side], [value_of(side.name, at_most=25)], "s of CPU", most_repeats=3)


def listing(conditions: Conditions, count: int = 1000) -> Case:
    """`vae-lab runs` over 1,000 planned runs of experiment=mnist, from the start of its process."""
    config, folder = train_config(["experiment=mnist"], conditions), conditions.folder / "listed"
    for i in range(count):
        plan_run(folder / str(i), {**config, "seed": i})
    side = ProcessTime("vae-lab runs", ["-m", "vae_lab", "runs", f"root={folder}"], conditions)
    return Case([side], [value_of(side.name, at_most=3)], "s", most_repeats=3)


def memory(conditions: Conditions) -> Case:
    """Peaks of an epoch of experiment=mnist and of importance sampling with K samples for N datapoints."""
    training = PeakMemory("training", ["command", "train", *everyday(conditions), "max_samples=50000"], conditions)
    estimates = [
        PeakMemory(f"K = {k}, N = {n}", ["estimate", k, n, conditions.threads], conditions)
        for k, n in ((5000, 50), (500, 500), (50000, 5))
    ]
    imports = [training.imports(), estimates[0].imports()]
    limits = [(training, imports[0], 450), *[(side, imports[1], 250) for side in estimates]]
    compared = [difference(a.name, b.name, f"{a.name}, above its imports", at_most=most) for a, b, most in limits]
    return Case([training, imports[0], estimates[0], imports[1], *estimates[1:]], compared, "MB", most_repeats=1)


def jobs(conditions: Conditions) -> Case:
    """Two trainings of 50,000 samples of experiment=mnist, one after the other or at once with half of the cores."""
    return several("max_samples=50000", 2, conditions)


def sweep(conditions: Conditions) -> Case:
    """Eight trainings of experiment=mnist of 200,000 samples, one after the other or two at once."""
    return several("max_samples=200000", 8, conditions, at_once=2, at_least=1.5)


def shared_jobs(conditions: Conditions) -> Case:
    """Four trainings of 100 epochs of experiment=mnist on one GPU, with the starts of their processes."""
    return several("max_samples=5000000", 4, conditions)


def several(
    budget: str, count: int, conditions: Conditions, at_once: int | None = None, at_least: float | None = None
) -> Case:
    """So many trainings, one after the other or several at once; without a number: all of them."""
    training_images("mnist")
    together = at_once or count
    config = train_config(["experiment=mnist", budget, "callbacks=none"], conditions)
    sides = [SeveralTrainings(config, count, jobs, conditions) for jobs in (1, together)]
    name = f"how many times faster {together} at once are"
    return Case(sides, [ratio(sides[0].name, sides[1].name, name, at_least=at_least)], "s", most_repeats=2)


def everyday(conditions: Conditions) -> list[str]:
    """Of `vae-lab train`: its data there, its run directory in a folder that is thrown away."""
    training_images("mnist")
    place = ["trainer=gpu"] if conditions.device == "cuda" else []
    return ["experiment=mnist", *place, f"threads={conditions.threads}", f"output_root={conditions.folder}"]
