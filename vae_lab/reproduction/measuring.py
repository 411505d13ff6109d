"""What figures measure with the weights of their runs: in several processes at once, each at one run."""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch

from vae_lab.errors import INTERRUPTED, Interrupted
from vae_lab.figures.base import NeededRun, PaperFigure, has_weights
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.training.signals import as_ctrl_c
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


def measure_all(figures: Sequence[PaperFigure], root: Path, scale: str, num_parallel: int) -> None:
    """Measures what the figures need and the ledgers lack; `num_parallel` runs at once.

    What cannot be measured is said once more by the figure, which tries it when it is drawn.

    Raises:
        Interrupted: by a signal; what was measured is in the ledgers.
    """
    tasks = [
        (figure, needed, run)
        for figure in figures
        for needed in figure.needed_runs(scale)
        if has_weights(run := RunDir(root / "runs" / needed.label)) and figure.num_estimates(needed, run, scale)
    ]
    if not tasks:
        return
    num = sum(figure.num_estimates(needed, run, scale) for figure, needed, run in tasks)
    log.info("measuring: %d estimates with the weights of %d runs", num, len(tasks))
    started, threads = time.monotonic(), max(1, available_cores() // num_parallel)
    pool = ProcessPoolExecutor(min(num_parallel, len(tasks)), get_context("spawn"), begin, (threads,))
    with as_ctrl_c(), pool:
        try:
            labels = {pool.submit(measure, *task, scale): task[1].label for task in tasks}
            for i, future in enumerate(as_completed(labels), 1):
                line = f"[{i}/{len(tasks)}] {labels[future]}"
                if error := future.exception():
                    log.warning("%s cannot be measured: %s", line, error)
                else:
                    log.info("%s measured after %s", line, duration(time.monotonic() - started))
        except KeyboardInterrupt as interrupt:
            for process in active_children():
                process.terminate()
            again = f"vae-lab reproduce scale={scale}"
            raise Interrupted(f"stopped while it measured; the same command goes on: {again}") from interrupt


def begin(threads: int) -> None:
    """Prepares a process that measures: it leaves a Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)

    def follow() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(INTERRUPTED)

    threading.Thread(target=follow, daemon=True).start()


def measure(figure: PaperFigure, needed: NeededRun, run: RunDir, scale: str) -> None:
    """Measures what the ledgers of a run lack."""
    figure.measure_run(run, figure.trainings(scale)[needed], scale)
