"""The engine for many runs: trains each planned run directory in a child process, `python -m vae_lab.jobs.execute RUN`.

What is on disk decides: a finished run is skipped, an interrupted one resumed, one that another process is writing is
waited for. Repeating the same call after a kill of anything finishes the work. The engine imports neither PyTorch
nor Lightning: it waits.
"""

import functools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from vae_lab.errors import INTERRUPTED, MISTAKE
from vae_lab.jobs.children import Children
from vae_lab.jobs.job import Job, Outcome
from vae_lab.runs.provenance import available_cores
from vae_lab.training.signals import listening

log = logging.getLogger("vae_lab")

ATTEMPTS = 2
POLL_SECONDS = 0.5
NOT_BEGUN = "not begun: another job failed, and sweep.fail_fast is on"


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_parallel: int,
    threads: int | None = None,
    fail_fast: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Runs the jobs, `num_parallel` processes at once, in their order; returns how each ended, in the same order.

    A failed job does not stop the others. Signals to stop are passed on to the running
    jobs, which end after a checkpoint; what remains is then reported as interrupted, and nothing raises.

    Args:
        jobs: planned runs.
        num_parallel: processes at once.
        threads: of each process; None: the cores divided among them.
        fail_fast: whether no further job begins once one has failed.
        report: is called with every outcome as it comes.
    """
    children, has_failed = Children(), threading.Event()
    threads = threads or max(1, available_cores() // num_parallel)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(num_parallel):
        slots.put(slot)

    def work(job: Job) -> Outcome:
        slot = slots.get()
        try:
            if fail_fast and has_failed.is_set():
                return Outcome(job, "interrupted", reason=NOT_BEGUN)
            outcome = run_job(job, children, threads=threads, slot=slot)
            if outcome.status == "failed":
                has_failed.set()
            return outcome
        finally:
            slots.put(slot)

    with listening(children.receive), ThreadPoolExecutor(num_parallel) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        if report is not None:
            for future in as_completed(futures):
                report(future.result())
        return [future.result() for future in futures]


def run_job(job: Job, children: Children, *, threads: int, slot: int | None) -> Outcome:
    """One job in a child process; whatever goes wrong with it is its outcome.

    Args:
        job: a planned run.
        children: among which its process is.
        threads: of the process.
        slot: the number of the place that it takes, which has its own devices; None: a cluster has chosen them.
    """
    try:
        return attempted(job, children, threads=threads, slot=slot)
    except Exception as error:  # the boundary of a job: recorded and reported
        return Outcome(job, "failed", reason=f"{type(error).__name__}: {error}")


def attempted(job: Job, children: Children, *, threads: int, slot: int | None) -> Outcome:
    """The job begun, resumed or skipped as the disk says; tried again once after a failure."""
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
        return outcome("failed", f"as before, and it would fail again: {job.run.read_record().get('error')}")
    begun, code = job.run.has_checkpoint, MISTAKE
    for _ in range(ATTEMPTS):
        code = children.run(command(job, threads), job.run.output, thread_environment(threads) | devices(slot, job))
        if code == 0:
            return outcome("resumed" if begun else "finished")
        if children.stopping.is_set() or code == INTERRUPTED:
            return outcome("interrupted", job.run.last_output())
        if code == MISTAKE or job.is_hopeless:
            break
        begun = job.run.has_checkpoint
    reason = reason_of_failure(job, code)
    if job.run.read_status() == "planned":  # its process was refused, or died, before it could say so
        with job.run.locked():
            job.run.update_record(status="failed", error=reason)
    return outcome("failed", reason)


def command(job: Job, threads: int) -> list[str]:
    """The command line of a job's process: the run directory, and what it cannot say itself."""
    options = [f"--threads={threads}", f"--budget={json.dumps(job.budget)}", *(f"--allow={name}" for name in job.allow)]
    return [sys.executable, "-m", "vae_lab.jobs.execute", *options, "--", str(job.run.path)]


def reason_of_failure(job: Job, code: int) -> str:
    """Why a job's process ended with this code, in one line."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    error = job.run.read_record().get("error") if code != MISTAKE else None
    return " ".join((error or job.run.last_output() or f"exit code {code}").split())


def thread_environment(threads: int) -> dict[str, str]:
    """Limits the libraries that start threads before PyTorch is asked."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@functools.cache
def count_gpus() -> int:
    """The NVIDIA GPUs that a child process would see, without asking PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def devices(slot: int | None, job: Job) -> dict[str, str]:
    """The environment that gives each of the jobs that run at once as many of several GPUs as it asks for."""
    if slot is None or (count := count_gpus()) < 2:
        return {}
    wanted = job.run.read_config()["trainer"]["devices"]
    if not isinstance(wanted, int) or not 0 < wanted < count:  # all of them, or ones that its user names
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == count else [str(i) for i in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[(slot * wanted + i) % count] for i in range(wanted))}
