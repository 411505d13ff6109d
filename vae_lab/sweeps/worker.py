"""One job of a sweep, as a launcher starts it wherever that may be: a planned run, continued in a child process."""

import copy
import functools
import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig

from vae_lab.atomic import write_json
from vae_lab.errors import INTERRUPTED, require_integer, require_number, require_threads
from vae_lab.jobs.children import Children
from vae_lab.jobs.engine import NOT_BEGUN, POLL_SECONDS, run_job
from vae_lab.jobs.job import Job, Outcome
from vae_lab.jobs.outcomes import log_ended
from vae_lab.runs.lock import Held, Lock
from vae_lab.runs.provenance import available_cores
from vae_lab.training.signals import listening
from vae_lab.wiring.build import settings

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class SweepSettings:
    """The keys `sweep.*` of `vae-lab train`."""

    dry_run: bool
    fail_fast: bool
    jobs: int
    speed_seconds: float

    def __post_init__(self) -> None:
        require_integer("sweep.jobs", self.jobs, minimum=1, advice="name a count of jobs")
        require_number("sweep.speed_seconds", self.speed_seconds, at_least=0)

    @classmethod
    def of(cls, cfg: DictConfig) -> "SweepSettings":
        """The settings `sweep.*` of a composed config."""
        return settings(cls, cfg.get("sweep") or {}, "sweep")


def is_local(cfg: DictConfig) -> bool:
    """Whether no launcher was chosen, and the lab's own engine runs the jobs."""
    return cfg.hydra.launcher._target_.endswith("BasicLauncher")


def parallel_jobs(cfg: DictConfig) -> int:
    """Jobs at once: `sweep.jobs`, or a launcher's count as far as its config says; else as many as there is room for.

    Raises:
        ConfigError: `sweep.jobs` is no count.
    """
    if is_local(cfg):
        return SweepSettings.of(cfg).jobs
    count = cfg.hydra.launcher.get("n_jobs", 0) or available_cores()
    return count if count > 0 else max(1, available_cores() + 1 + count)


def threads_of_a_job(cfg: DictConfig) -> int:
    """`threads`, else what the launcher reserves for a job, else the cores divided among the jobs at once."""
    launcher = cfg.hydra.launcher
    remote = launcher.ray.remote.get("num_cpus") if "ray" in launcher else None
    require_threads(cfg.threads)
    asked = cfg.threads or remote or launcher.get("cpus_per_task") or available_cores() // parallel_jobs(cfg)
    return max(1, int(asked))


def places(cfg: DictConfig) -> int | None:
    """How many jobs may run at once on this machine, however many the launcher starts; None: a cluster decides."""
    launcher = cfg.hydra.launcher
    if launcher._target_.endswith("SlurmLauncher") or "ray" in launcher:
        return None
    return max(1, available_cores() // threads_of_a_job(cfg))


class SweepConfig:
    """What a launcher asks for a job's config: the sweep's own, for all else is in the run directory."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """A copy for one job."""
        return copy.deepcopy(master_config)


def launch(jobs: Sequence[Job], cfg: DictConfig, folder: Path) -> list[Outcome]:
    """Lets the launcher of the config run the jobs; one that breaks down leaves outcomes that say so."""
    for left in folder.glob(".sweep-*"):  # by a sweep that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=".sweep-", dir=folder, ignore_cleanup_errors=True) as invocation:
        task = SweepJob(
            folder=Path(invocation),
            owner=os.getpid(),
            jobs=tuple(jobs),
            threads=threads_of_a_job(cfg),
            places=places(cfg),
            fail_fast=SweepSettings.of(cfg).fail_fast,
        )
        # launchers call one method of the loader, and callbacks that do nothing
        loader: Any = SweepConfig()
        callbacks: Any = Callback()
        context = HydraContext(config_loader=loader, callbacks=callbacks)
        interrupted = False
        try:
            launcher = Plugins.instance().instantiate_launcher(context, task, cfg)
            launcher.launch([[f"run_dir={job.run.path}"] for job in jobs], initial_job_idx=0)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:  # the boundary of many jobs: what they left on disk says how each ended
            log.warning("the launcher broke down: %s: %s", type(error).__name__, error)
        return [read_outcome(task.outcome_file(i), job, interrupted=interrupted) for i, job in enumerate(jobs)]


@dataclass(frozen=True)
class SweepJob:
    """What a launcher calls for each job; picklable, for it may call from elsewhere."""

    folder: Path
    """The folder of this invocation of the sweep, where outcomes land."""
    owner: int
    """The sweep's process: one that it started for jobs ends with it."""
    jobs: tuple[Job, ...]
    threads: int
    places: int | None
    """How many jobs may run at once on this machine, however many the launcher starts; None: a cluster decides."""
    fail_fast: bool

    def __call__(self, cfg: DictConfig) -> None:
        """Runs the job of the launcher's number, and leaves its outcome in the folder.

        Raises:
            KeyboardInterrupt: a signal stopped it, after a checkpoint.
        """
        number = HydraConfig.get().job.num
        children = Children()
        if os.getppid() == self.owner:
            end_with(self.owner)
        with listening(children.receive), BUSY:
            outcome = self.outcome(self.jobs[number], children)
        write_json(
            self.outcome_file(number), {"status": outcome.status, "seconds": outcome.seconds, "reason": outcome.reason}
        )
        if outcome.status == "failed" and self.fail_fast:
            self.stop_file.touch()
        log_ended(outcome, len(list(self.folder.glob("*.json"))), len(self.jobs))
        if children.stopping.is_set():
            raise KeyboardInterrupt

    @property
    def stop_file(self) -> Path:
        """The file whose existence says that no further job may begin."""
        return self.folder / "stop"

    def outcome_file(self, number: int) -> Path:
        """Where the outcome of a job lands."""
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


BUSY = threading.Lock()
"""Held while this process runs a job."""


@functools.cache
def end_with(owner: int) -> None:
    """Lets this process end when its parent, the sweep, was killed; a training saves a checkpoint first.

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
    locks = [Lock(folder / f".slot-{socket.gethostname()}-{i}") for i in range(count)]
    while True:
        for i, lock in enumerate(locks):
            try:
                lock.acquire()
            except Held:
                continue
            try:
                yield i
            finally:
                lock.release()
            return
        if children.stopping.wait(POLL_SECONDS):
            yield None
            return


def read_outcome(path: Path, job: Job, *, interrupted: bool) -> Outcome:
    """The outcome that a job left, or that it left none."""
    if path.is_file():
        return Outcome(job, **json.loads(path.read_text(encoding="utf-8")))
    if interrupted:
        return Outcome(job, "interrupted", reason="stopped, or not begun")
    return Outcome(job, "failed", reason="its launcher lost it; the same command tries again")
