"""One job of a sweep, as a launcher starts it wherever that may be: a planned run, continued in a child process."""

import fcntl
import functools
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_lab.atomic import write_json
from vae_lab.jobs.children import INTERRUPTED, Children
from vae_lab.jobs.engine import NOT_BEGUN, POLL_SECONDS, run_job
from vae_lab.jobs.job import Job, Outcome
from vae_lab.jobs.outcomes import told
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class SweepJob:
    """What a launcher calls with the config `job.yaml` of one process; picklable, for it may call from elsewhere."""

    folder: Path
    """Of this invocation of the sweep: outcomes land here."""
    owner: int
    """The sweep's process: one that it started for jobs ends with it."""
    total: int
    """Jobs of the sweep, as far as known."""
    threads: int
    places: int | None
    """Jobs that may run at once on this machine, however many the launcher starts; None: a cluster places them."""
    fail_fast: bool
    value: str | None
    """The entry of the ledger that is handed to the sweeper; None: nothing is."""

    def __call__(self, cfg: DictConfig) -> float | None:
        """Runs its job, and leaves its outcome in the folder.

        Raises:
            KeyboardInterrupt: a signal stopped it, after a checkpoint.
            RuntimeError: the sweeper waits for a value, and the job has none.
        """
        job = Job(RunDir(str(cfg.run_dir)), allow=tuple(cfg.allow))
        children = Children()
        if os.getppid() == self.owner:
            end_with(self.owner)
        with children.stopped_by_signals(), BUSY:
            outcome = self.outcome(job, children)
        write_outcome(self.outcome_file(HydraConfig.get().job.num), outcome)
        if outcome.status == "failed" and self.fail_fast:
            self.stop_file.touch()
        self.report(outcome)
        if children.stopping.is_set():
            raise KeyboardInterrupt
        if self.value is None:
            return None
        run = job.run
        ledger = run.ledger(run.default_checkpoint)
        if not outcome.is_good or self.value not in ledger:
            raise RuntimeError(outcome.reason or f"{run.path} has no {self.value}: choose data with that split")
        return ledger[self.value]

    @property
    def stop_file(self) -> Path:
        """Exists once no further job is to begin."""
        return self.folder / "stop"

    def outcome_file(self, number: int) -> Path:
        """Where the outcome of a job lands, by the launcher's number."""
        return self.folder / f"{number:06}.json"

    def outcome(self, job: Job, children: Children) -> Outcome:
        """Runs the job as soon as the machine has room for its process."""
        with free_slot(self.folder.parent, self.places, children) as slot:
            if slot is None:
                return Outcome(job, "interrupted", reason="stopped before it began")
            if self.stop_file.exists():
                return Outcome(job, "interrupted", reason=NOT_BEGUN)
            own = slot if self.places is not None else None  # else the cluster has chosen the devices
            return run_job(job, children, threads=self.threads, slot=own)

    def report(self, outcome: Outcome) -> None:
        """A line about the job that ended."""
        ended = len(list(self.folder.glob("*.json")))
        took = "" if outcome.status == "skipped" else f" in {duration(outcome.seconds)}"
        level = logging.INFO if outcome.is_good else logging.WARNING
        log.log(level, "[%d/%d] %s %s%s: %s", ended, self.total, outcome.job.name, outcome.status, took, told(outcome))


BUSY = threading.Lock()
"""Held while this process runs a job."""


@functools.cache
def end_with(owner: int) -> None:
    """From now on this process ends when its parent, the sweep, was killed; a training saves a checkpoint first.

    A launcher's pool would wait for work, or go on with what is queued, for as long as the machine runs.
    """

    def watch() -> None:
        while os.getppid() == owner:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)  # stops the training, or ends a process that has none
        with BUSY:
            os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def free_slot(folder: Path, count: int | None, children: Children) -> Iterator[int | None]:
    """One of this machine's `count` places for jobs, held while the block runs; None where a signal ended the wait."""
    if count is None:
        yield 0
        return
    with ExitStack() as stack:
        paths = [folder / f".slot-{socket.gethostname()}-{i}" for i in range(count)]
        files = [stack.enter_context(open(path, "a")) for path in paths]
        while True:
            for i, file in enumerate(files):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield i
                return
            if children.stopping.wait(POLL_SECONDS):
                yield None
                return


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Keeps an outcome for the process that waits for it."""
    write_json(path, {"status": outcome.status, "seconds": outcome.seconds, "reason": outcome.reason})


def read_outcome(path: Path, job: Job, *, interrupted: bool) -> Outcome:
    """The outcome that a job left, or that it left none."""
    if path.is_file():
        return Outcome(job, **json.loads(path.read_text(encoding="utf-8")))
    if interrupted:
        return Outcome(job, "interrupted", reason="stopped, or not begun")
    return Outcome(job, "failed", reason="its launcher lost it; the same command tries again")
