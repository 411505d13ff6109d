"""`vae-lab train -m ...` and `sweep=NAME`: every run is planned before Hydra's launcher has the first.

Sweeper and launcher are Hydra's or a plugin's. In between, each job's config becomes a run directory named by what
varies and a hash of the whole config, so a point that exists is recognised: it is skipped or resumed.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import open_dict

from vae_lab.runs.directory import RunDir
from vae_lab.sweeps.launcher import PlannedLauncher, PlanShown
from vae_lab.sweeps.points import sweep_folder, typed_overrides
from vae_lab.sweeps.resources import places, threads_of_a_job
from vae_lab.sweeps.search import is_finished, is_search, prepare_search
from vae_lab.sweeps.worker import SweepJob
from vae_lab.wiring.folders import CommandLine


def run_sweep(hydra: Hydra, line: CommandLine, overrides: list[str]) -> Path:
    """Does what `Hydra.multirun` does, with a plan before every launch; returns the sweep's folder.

    Raises:
        ConfigError: a job's config is refused, or another process runs this sweep; nothing was started.
        Failed: jobs failed; the others were run.
        Interrupted: a signal stopped it; the same command goes on.
    """
    cfg = hydra.compose_config(line.config_name, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=True)
    folder = sweep_folder(cfg)
    with open_dict(cfg.hydra):
        cfg.hydra.sweep.dir = str(folder)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for a user's own _target_, as for a single run
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=line.config_name)
    with RunDir(folder).locked(), own_folder(folder) as invocation:
        if is_search(cfg):
            prepare_search(cfg, folder)
        task = SweepJob(
            folder=invocation,
            owner=os.getpid(),
            total=0,
            threads=threads_of_a_job(cfg),
            places=places(cfg),
            fail_fast=cfg.sweep.fail_fast,
            value="val/bound" if is_search(cfg) else None,
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        sweeper = Plugins.instance().instantiate_sweeper(config=cfg, hydra_context=context, task_function=task)
        inner: Any = getattr(sweeper, "sweeper", sweeper)  # Optuna's is wrapped once more
        inner.launcher = launch = PlannedLauncher(inner.launcher, cfg, line, folder, task)
        if is_search(cfg) and is_finished(inner, folder):
            return folder
        try:
            sweeper.sweep(arguments=typed_overrides(cfg))
        except PlanShown:
            return folder
        except KeyboardInterrupt:
            launch.interrupted = True
        finally:
            callbacks.on_multirun_end(config=cfg, config_name=line.config_name)
        launch.conclude()
    return folder


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """A folder for what this invocation's jobs leave, removed at the end."""
    for left in folder.glob(".sweep-*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    path = folder / f".sweep-{secrets.token_hex(4)}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
