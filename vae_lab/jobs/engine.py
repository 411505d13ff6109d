"""The engine for many runs: plans run directories, then trains each in a child process, `vae-lab train run_dir=DIR`.

What is on disk decides: a finished run is skipped, an interrupted one resumed, one that another process is writing is
waited for. Repeating the same call after a kill of anything finishes the work.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from vae_lab.errors import RunError
from vae_lab.jobs.children import INTERRUPTED, Children
from vae_lab.jobs.job import Job, Outcome
from vae_lab.runs.continuation import quoted
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.training.sharing import why_alone

log = logging.getLogger("vae_lab")

ATTEMPTS = 2
POLL_SECONDS = 0.5
MISTAKE = 2
NOT_BEGUN = "not begun: another job failed, and sweep.fail_fast is on"


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_parallel: int,
    runs_per_process: int = 1,
    fail_fast: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Runs the jobs, `num_parallel` processes at once, in their order; returns how each ended, in the same order.

    Up to `runs_per_process` of them share a process, and in it a GPU, which one of these networks cannot fill. A failed
    job does not stop the others, unless `fail_fast`. SIGINT, SIGTERM and SIGHUP are passed on to the running
    jobs, which end after a checkpoint; what remains is then reported as interrupted, and nothing raises.
    """
    children = Children()
    threads = max(1, available_cores() // num_parallel)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(num_parallel):
        slots.put(slot)

    def work(group: Sequence[Job]) -> list[Outcome]:
        slot = slots.get()
        try:
            return run_group(group, children, threads=threads, slot=slot, fail_fast=fail_fast)
        finally:
            slots.put(slot)

    outcomes: dict[RunDir, Outcome] = {}
    with children.stopped_by_signals(), ThreadPoolExecutor(num_parallel) as pool:
        for future in as_completed([pool.submit(work, group) for group in grouped(jobs, runs_per_process)]):
            for outcome in future.result():
                outcomes[outcome.job.run] = outcome
                if report is not None:
                    report(outcome)
                if fail_fast and outcome.status == "failed":
                    children.stop()
    return [outcomes[job.run] for job in jobs]


def grouped(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """The jobs in their order, in groups of up to `size` that can share a process."""
    alike: dict[Any, list[Job]] = {}
    for i, job in enumerate(jobs):
        alike.setdefault(what_it_shares(job) if size > 1 else i, []).append(job)
    groups = []
    for members in alike.values():
        count = -(-len(members) // size)
        bounds = [len(members) * i // count for i in range(count + 1)]  # as equal as can be
        groups += [members[begin:end] for begin, end in pairwise(bounds)]
    return groups


def what_it_shares(job: Job) -> object:
    """What the jobs of one process have in common; the job itself if it can share with none."""
    if job.budget or not is_readable(job) or why_alone(job.run.config["trainer"]):
        return job
    config = job.run.config
    # what a process has once: the backend, the device, and flags that the Trainer's constructor sets
    trainer = {key: value for key, value in config["trainer"].items() if key not in ("max_epochs", "precision")}
    return job.allow, config.get("matmul_backend", "default"), json.dumps(trainer, sort_keys=True)


def run_group(
    group: Sequence[Job], children: Children, *, threads: int, slot: int | None, fail_fast: bool = False
) -> list[Outcome]:
    """Jobs that share a child process; what did not finish there is tried again in a process of its own.

    Args:
        group: one job or several.
        children: among which the process is.
        threads: of the process.
        slot: the number of the place that it takes, which has its own devices; None: a cluster has chosen them.
        fail_fast: whether no further process begins once a job has failed.
    """
    environment = thread_environment(threads)
    together: dict[Job, Outcome | None] = {}
    if len(group) > 1:
        try:
            own = environment | devices(slot, group[0])
            together = run_together(group, children, threads=threads, environment=own)
        except Exception as error:  # the boundary of a process: each job has another one
            log.warning("%d runs could not share a process: %s: %s", len(group), type(error).__name__, error)
    outcomes: list[Outcome] = []
    for job in group:
        failed = any(outcome.status == "failed" for outcome in (*outcomes, *together.values()) if outcome)
        if fail_fast and failed and not together.get(job):
            outcomes.append(Outcome(job, "interrupted", reason=NOT_BEGUN))
            continue
        try:
            outcomes.append(
                together.get(job)
                or run_job(
                    job,
                    children,
                    threads=threads,
                    environment=environment | devices(slot, job),
                    attempts=ATTEMPTS - (job in together),
                )
            )
        except Exception as error:  # the boundary of a job: recorded and reported
            outcomes.append(Outcome(job, "failed", reason=f"{type(error).__name__}: {error}"))
    return outcomes


def run_together(
    group: Sequence[Job], children: Children, *, threads: int, environment: Mapping[str, str]
) -> dict[Job, Outcome | None]:
    """The jobs that there is something to do for, in one child process; None for those that failed in it."""
    readable = [job for job in group if is_readable(job)]  # of the others it is said when their own turn comes
    pending = [job for job in readable if not (job.run.is_locked() or job.is_done or job.is_hopeless)]
    if len(pending) < 2:
        return {}
    started, begun = time.monotonic(), {job for job in pending if job.has_checkpoint}
    code = children.run(command(pending, threads), pending[0].output, environment)
    seconds = (time.monotonic() - started) / len(pending)  # each has its share of the time
    together: dict[Job, Outcome | None] = dict.fromkeys(pending)
    for job in pending:
        if is_readable(job) and job.is_done:
            together[job] = Outcome(job, "resumed" if job in begun else "finished", seconds)
        elif is_readable(job) and job.is_hopeless:
            together[job] = Outcome(job, "failed", seconds, reason_of_failure(job, code))
        elif children.stopping.is_set() or (code == INTERRUPTED and job.run.status != "failed"):
            together[job] = Outcome(job, "interrupted", seconds, last_line(pending[0].output))
    return together


def is_readable(job: Job) -> bool:
    """Whether config and record of the run are there, and whole."""
    try:
        trainer = job.run.config["trainer"]
        return bool(job.run.status and trainer["devices"] and trainer["num_nodes"])
    except (RunError, OSError, KeyError, TypeError):
        return False


def run_job(
    job: Job, children: Children, *, threads: int, environment: Mapping[str, str], attempts: int = ATTEMPTS
) -> Outcome:
    """One job in a child process, begun, resumed or skipped as the disk says; tried again once after a failure."""
    started = time.monotonic()

    def outcome(status: str, reason: str = "") -> Outcome:
        return Outcome(job, status, time.monotonic() - started, reason)

    if job.run.is_locked():
        log.info("%s is being written by another process: waiting for it", job.run.path)
    while job.run.is_locked():
        if children.stopping.wait(POLL_SECONDS):
            return outcome("interrupted", "another process goes on with it")
    if job.is_done:
        return outcome("skipped")
    if job.is_hopeless:
        return outcome("failed", f"as before, and it would fail again: {job.run.record['error']}")
    begun = job.has_checkpoint
    for _ in range(attempts):
        code = children.run(command([job], threads), job.output, environment)
        if code == 0:
            return outcome("resumed" if begun else "finished")
        if children.stopping.is_set() or code == INTERRUPTED:
            return outcome("interrupted", last_line(job.output))
        if code == MISTAKE or job.is_hopeless:
            break
        begun = job.has_checkpoint
    return outcome("failed", reason_of_failure(job, code))


def command(jobs: Sequence[Job], threads: int) -> list[str]:
    """The command line of the process of a job, or of several that share it."""
    # composed from a config of its own, so that an edited YAML reaches no planned run
    start = [sys.executable, "-m", "vae_lab", "train", "--config-name", "job"]
    return [*start, *address(jobs), f"threads={threads}", *jobs[0].budget]


def address(jobs: Sequence[Job]) -> list[str]:
    """The overrides that say which runs are meant: one, or several that share a process."""
    folders = ",".join(quoted(str(job.run.path)) for job in jobs)
    return [f"run_dir={folders if len(jobs) == 1 else f'[{folders}]'}", f"allow={list(jobs[0].allow)}"]


def reason_of_failure(job: Job, code: int) -> str:
    """Why a job's process ended with this code, in one line."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    error = job.run.record.get("error") if code != MISTAKE else None
    return " ".join((error or last_line(job.output) or f"exit code {code}").split())


def last_line(file: Path) -> str:
    """The last line of a text file that is not empty."""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def thread_environment(threads: int) -> dict[str, str]:
    """Limits the libraries that start threads before PyTorch is asked."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def devices(slot: int | None, job: Job) -> dict[str, str]:
    """With several GPUs: as many as it asks for, for each of the jobs that run at once."""
    if slot is None or (count := torch.cuda.device_count()) < 2:
        return {}
    wanted = job.run.config["trainer"]["devices"]
    if not isinstance(wanted, int) or not 0 < wanted < count:  # all of them, or ones that its user names
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == count else [str(i) for i in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[(slot * wanted + i) % count] for i in range(wanted))}
