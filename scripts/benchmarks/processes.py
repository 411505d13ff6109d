"""Processes: how soon one begins, how much memory it takes, what several at once gain."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.lab import train_config, training_images
from benchmarks.sides import Case, Side, difference, ratio, value_of
from vae_lab.errors import Failed
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import plan_job
from vae_lab.runs.directory import plan_run

CHILD = (sys.executable, "-m", "benchmarks.child")
VAE_LAB = (sys.executable, "-m", "vae_lab")
SILENT: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
SCRIPTS = str(Path(__file__).parents[1])
"""Where a child finds these benchmarks, which are no part of the installed package."""


class ProcessTime(Side):
    """Seconds from the start of a process to its end; prepared by one, so that its files are in the cache.

    Args:
        name: of the side.
        command: a program and its arguments.
        conditions: of the measurement.
        time_of: the clock: `processor_seconds` for those that the process and its children compute.
        forget: a folder that is removed before it starts.
        environment: further variables.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        conditions: Conditions,
        *,
        time_of: Callable[[], float] = time.perf_counter,
        forget: Path | None = None,
        **environment: str,
    ) -> None:
        super().__init__(name, conditions)
        self.command, self.time_of, self.forget, self.environment = command, time_of, forget, environment

    def prepare(self, seconds: float) -> None:
        self.measure(seconds)

    def measure(self, seconds: float) -> float:
        if self.forget:
            shutil.rmtree(self.forget, ignore_errors=True)
        started = self.time_of()
        run(*self.command, **self.environment)
        return self.time_of() - started


def processor_seconds() -> float:
    """What the processes that this one has waited for have taken of the CPU."""
    times = os.times()
    return times.children_user + times.children_system


class PeakMemory(Side):
    """The most memory that a task of `benchmarks.child` ever had, in MB."""

    def __init__(self, name: str, arguments: Sequence[object], conditions: Conditions) -> None:
        super().__init__(name, conditions)
        self.arguments, self.result = list(map(str, arguments)), conditions.folder / f"{name.replace(' ', '_')}.json"

    def measure(self, seconds: float) -> float:
        run(*CHILD, str(self.result), *self.arguments)
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


def run(*command: str, **environment: str) -> None:
    """A process, to its end.

    Raises:
        Failed: it ended with another code than 0; its last words are named.
    """
    path = os.pathsep.join(filter(None, (SCRIPTS, os.environ.get("PYTHONPATH"))))
    process = subprocess.run(command, env=os.environ | {"PYTHONPATH": path} | environment, **SILENT)
    if process.returncode:
        last = process.stderr.strip().rpartition("\n")[2]
        raise Failed(f"{' '.join(command)} ended with code {process.returncode}: {last}")


def startup(conditions: Conditions) -> Case:
    """The help, and the optimiser's first step, from the start of a process, beside imports that nobody avoids."""
    words, first = "vae-lab --help", "train, first step"
    sides = {
        words: [*VAE_LAB, "--help"],
        "import hydra": [sys.executable, "-c", "import hydra"],
        first: [*CHILD, os.devnull, "first_step", *everyday(conditions)],
        "import pytorch_lightning": [sys.executable, "-c", "import pytorch_lightning"],
    }
    compared = [ratio(words, "import hydra", at_most=3), ratio(first, "import pytorch_lightning", at_most=2)]
    return Case([ProcessTime(name, of, conditions) for name, of in sides.items()], compared, "s", most_repeats=3)


def whole_run(conditions: Conditions) -> Case:
    """`vae-lab train experiment=mnist`, from the start of its process to its end, beside the same written by hand."""
    cold, warm, hand = "ours, nothing compiled yet", "ours, compiled before", "hand-written"
    train, sides = [*VAE_LAB, "train", *everyday(conditions)], []
    for name in (cold, warm):
        cache = conditions.folder / f"cache of {name}"
        forget = cache / "vae_lab" / "compiled" if name == cold else None
        sides.append(ProcessTime(name, train, conditions, forget=forget, XDG_CACHE_HOME=str(cache)))
    task = [*CHILD, os.devnull, "hand_written", str(conditions.threads), "20"]
    compared = [ratio(cold, hand, at_most=1.0), ratio(warm, hand, at_most=0.8)]
    return Case([*sides, ProcessTime(hand, task, conditions)], compared, "s", most_repeats=5)


def quickstart(conditions: Conditions) -> Case:
    """`scripts/quickstart` after installation: a training, its bounds and its pictures."""
    command = [str(Path(SCRIPTS) / "quickstart"), f"output_root={conditions.folder}"]
    side = ProcessTime("scripts/quickstart", command, conditions, time_of=processor_seconds, VENV=sys.prefix)
    return Case([side], [value_of(side.name, at_most=25)], "s of CPU", most_repeats=3)


def listing(conditions: Conditions, count: int = 1000) -> Case:
    """`vae-lab runs` over 1,000 planned runs of experiment=mnist, from the start of its process."""
    config, folder = train_config(["experiment=mnist"], conditions), conditions.folder / "listed"
    for i in range(count):
        plan_run(folder / str(i), {**config, "seed": i})
    side = ProcessTime("vae-lab runs", [*VAE_LAB, "runs", f"root={folder}"], conditions)
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
    return several("max_samples=50000", conditions, count=2, at_once=2)


def sweep(conditions: Conditions) -> Case:
    """Eight trainings of experiment=mnist of 200,000 samples, one after the other or two at once."""
    return several("max_samples=200000", conditions, count=8, at_once=2, at_least=1.5)


def shared_jobs(conditions: Conditions) -> Case:
    """Four trainings of 100 epochs of experiment=mnist on one GPU, with the starts of their processes."""
    return several("max_samples=5000000", conditions, count=4, at_once=4)


def several(budget: str, conditions: Conditions, count: int, at_once: int, **limit: float) -> Case:
    """Runs so many trainings, one after the other or several at once."""
    training_images("mnist")
    config = train_config(["experiment=mnist", budget, "callbacks=none"], conditions)
    alone, together = (SeveralTrainings(config, count, jobs, conditions) for jobs in (1, at_once))
    faster = ratio(alone.name, together.name, f"how many times faster {at_once} at once are", **limit)
    return Case([alone, together], [faster], "s", most_repeats=2)


def everyday(conditions: Conditions) -> list[str]:
    """The arguments of `vae-lab train`: its data there, its run directory in a folder that is thrown away."""
    training_images("mnist")
    return ["experiment=mnist", *conditions.overrides, f"output_root={conditions.folder}"]
