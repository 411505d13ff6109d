"""What is made of trained runs: the estimates of the figures, of several runs at once, and the figures."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from multiprocessing import active_children, get_all_start_methods, set_forkserver_preload
from pathlib import Path
from typing import Any

import torch

from vae_lab.errors import Interrupted, RunError
from vae_lab.figures.base import Drawn, PaperFigure, make_figure
from vae_lab.figures.needed import NeededRun
from vae_lab.jobs.children import called_in_child
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.training.signals import as_ctrl_c
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")

START_METHOD = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
"""What all processes need is loaded once where they can be forked from a process that only waits, as on Linux."""


def measure_all(figures: Sequence[PaperFigure], root: Path, scale: str, num_parallel: int) -> None:
    """Makes the estimates of the figures that the ledgers of their whole runs lack; `num_parallel` runs at once.

    Each has a process of its own. What cannot be measured is said once more by the figure, which tries it when it is
    drawn.

    Raises:
        Interrupted: by a signal; what was measured is in the ledgers.
    """
    folder, tasks = root / "runs", []
    for figure in figures:
        runs = figure.find_runs(folder, scale)
        try:
            missing = {missing.label for missing in figure.missing(runs, scale, folder)}
        except RunError:  # which is said when it is drawn
            continue
        for needed in figure.needed_runs(scale):
            if needed.label in runs.keys() - missing and figure.num_estimates(needed, runs[needed.label], scale):
                tasks.append((figure, needed, runs[needed.label], scale))
    if not tasks:
        return
    log.info("measuring with the weights of %d runs", len(tasks))
    num_parallel, started = min(num_parallel, len(tasks)), time.monotonic()
    threads, stopping = max(1, available_cores() // num_parallel), threading.Event()

    def measured(*task: Any) -> str:
        return "interrupted" if stopping.is_set() else called_in_child(measure, threads, *task, method=START_METHOD)

    set_forkserver_preload([__name__])
    with as_ctrl_c(), ThreadPoolExecutor(num_parallel) as pool:
        labels = {pool.submit(measured, *task): task[1].label for task in tasks}
        try:
            for i, future in enumerate(as_completed(labels), 1):
                line = f"[{i}/{len(tasks)}] {labels[future]}"
                if problem := str(future.exception() or "") or future.result():
                    log.warning("%s cannot be measured: %s", line, problem)
                else:
                    log.info("%s measured after %s", line, duration(time.monotonic() - started))
        except KeyboardInterrupt as interrupt:
            stopping.set()
            while wait(labels, timeout=0.1).not_done:
                for process in active_children():
                    process.terminate()
            raise Interrupted("stopped while it measured") from interrupt


def measure(threads: int, figure: PaperFigure, needed: NeededRun, run: RunDir, scale: str) -> str:
    """Makes the estimates that the ledgers of a run lack; returns why it cannot, empty if it can."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(threads)
    try:
        figure.measure_run(run, figure.trainings(scale)[needed], scale)
    except Exception as error:  # the boundary of a process: errors of anybody's need not be such as can be sent
        return f"{type(error).__name__}: {error}"
    return ""


def draw_all(figures: Sequence[PaperFigure], root: Path, scale: str) -> tuple[dict[str, Drawn], list[str]]:
    """Draws every figure from what is there; returns the figures by name, and what failed, which stops no other."""
    found, failures = {}, []
    for figure in figures:
        log.info("drawing %s", figure.name)
        try:
            drawn = found[figure.name] = make_figure(figure, root, scale)
        except Exception as error:  # the boundary of a job: recorded and reported
            log.warning("%s could not be drawn", figure.name, exc_info=not isinstance(error, RunError))
            failures.append(f"{figure.name} could not be drawn: {error}")
            continue
        if drawn.missing:
            names = ", ".join(f"{missing.label} ({missing.reason})" for missing in drawn.missing)
            log.warning("%s is drawn without %d of its runs: %s", figure.name, len(drawn.missing), names)
    return found, failures
