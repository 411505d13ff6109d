"""Sides that are whole processes: the time that one takes, its peak of memory, several trainings at once."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.sides import Side
from vae_lab.errors import Failed
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import plan_job

CHILD = ("-m", "benchmarks.child")
SCRIPTS = str(Path(__file__).parents[1])
"""Where a child finds these benchmarks, which are no part of the installed package."""


class ProcessTime(Side):
    """Seconds from the start of a Python process to its end."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        super().__init__(name)
        self.arguments = arguments

    def prepare(self, seconds: float) -> None:
        """Once, so that its files are in the system's cache."""
        python(*self.arguments)

    def measure(self, seconds: float) -> float:
        """The seconds of a whole process."""
        started = time.perf_counter()
        python(*self.arguments)
        return time.perf_counter() - started


class PeakMemory(Side):
    """The most memory that a task of `benchmarks.child` ever had, in MB."""

    def __init__(self, name: str, task: str, arguments: Sequence[str], conditions: Conditions) -> None:
        super().__init__(name)
        self.task, self.arguments = task, arguments
        self.result = conditions.folder / f"{name.replace(' ', '_')}.json"

    def prepare(self, seconds: float) -> None:
        """Nothing is paid once; a side that imports comes behind the one whose imports it repeats."""

    def measure(self, seconds: float) -> float:
        """The peak of a process of its own."""
        python(*CHILD, self.task, str(self.result), *self.arguments)
        return json.loads(self.result.read_text(encoding="utf-8"))["peak"]


class SeveralTrainings(Side):
    """Seconds of the same trainings, so many processes at once."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        count: int,
        at_once: int,
        conditions: Conditions,
    ) -> None:
        super().__init__(name)
        self.config, self.count, self.conditions = config, count, conditions
        self.at_once = at_once

    def prepare(self, seconds: float) -> None:
        """Nothing is paid once."""

    def measure(self, seconds: float) -> float:
        """The seconds of all of them, planned before."""
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            jobs = [plan_job(Path(folder) / str(i), {**self.config, "seed": i}) for i in range(self.count)]
            started = time.perf_counter()
            outcomes = run_jobs(jobs, num_parallel=self.at_once)
            taken = time.perf_counter() - started
        if bad := [outcome for outcome in outcomes if not outcome.is_good]:
            raise Failed(f"{self.name}: a training {bad[0].status}: {bad[0].reason}")
        return taken


def python(*arguments: str) -> None:
    """A Python process, to its end.

    Raises:
        Failed: it ended with another code than 0; its last words are named.
    """
    path = os.pathsep.join(filter(None, (SCRIPTS, os.environ.get("PYTHONPATH"))))
    process = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        last = process.stderr.strip().rpartition("\n")[2]
        raise Failed(f"python {' '.join(arguments)} ended with code {process.returncode}: {last}")
