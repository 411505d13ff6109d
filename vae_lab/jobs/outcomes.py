"""What a reader sees of many jobs: a line when one ends, with its result and the time left, and a table at the end."""

import logging
import time
from collections.abc import Sequence

from vae_lab.jobs.job import Job, Outcome
from vae_lab.runs.result import result_of
from vae_lab.wiring.table import Table
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


class JobReport:
    """Logs a line for every job that ends; the time left is scaled by how the jobs so far did."""

    def __init__(self, jobs: Sequence[Job], num_parallel: int) -> None:
        self.total, self.num_parallel = len(jobs), num_parallel
        self.ended = 0
        self.pending = sum(job.seconds for job in jobs)
        self.expected = self.spent = 0.0
        self.started = time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        """One line about an ended job."""
        self.ended += 1
        if outcome.status == "skipped":
            self.pending -= outcome.job.seconds
        else:
            self.expected += outcome.job.seconds
            self.spent += outcome.seconds
        left = f"; about {duration(self.seconds_left())} left" if self.ended < self.total else ""
        log_ended(outcome, self.ended, self.total, left)

    def seconds_left(self) -> float:
        """The seconds until all have ended."""
        scale = self.spent / self.expected if self.expected else 1.0
        return max(0.0, scale * self.pending / self.num_parallel - (time.monotonic() - self.started))


def log_ended(outcome: Outcome, num_ended: int, total: int, left: str = "") -> None:
    """The line about a job that ended, the `num_ended`th of `total`."""
    what = "was finished" if outcome.status == "skipped" else f"{outcome.status} in {duration(outcome.seconds)}"
    line = f"[{num_ended:{len(str(total))}}/{total}] {outcome.job.name} {what}: {in_words(outcome)}{left}"
    log.log(logging.INFO if outcome.is_good else logging.WARNING, line)


def in_words(outcome: Outcome) -> str:
    """What came of a job: its result, or the reason of its failure and where its output is."""
    run = outcome.job.run
    if outcome.is_good:
        return str(result_of(run.ledger(run.default_checkpoint)) or "done")
    return f"{outcome.reason} ({outcome.job.run.output})"


def as_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """How every job ended; of a failed one the reason and where its output is."""
    rows = [
        [
            outcome.job.name,
            outcome.status,
            "" if outcome.status == "skipped" else duration(outcome.seconds),
            in_words(outcome),
        ]
        for outcome in outcomes
    ]
    return Table(("run", "status", "time", "result"), rows, title=title)
