"""`vae-lab train`: a config becomes a run directory with a trained model, its curve and its ledger."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, RunError
from vae_lab.jobs.assemble import assemble
from vae_lab.jobs.execute import assist, execute, go_on
from vae_lab.runs.continuation import Request, continued_config
from vae_lab.runs.directory import RunDir, new_run_path, plan_run
from vae_lab.runs.identity import frozen_config
from vae_lab.training.matmul import settled
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


def train(cfg: DictConfig) -> Path:
    """Trains a new run, or continues the one at `run_dir`; returns the run directory.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        Interrupted: a signal stopped it; the same command with `run_dir` continues.
    """
    if "VAE_LAB_RUN_DIR" in os.environ and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return assist(RunDir(os.environ["VAE_LAB_RUN_DIR"]))
    requested: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    config = frozen_config(requested)
    request = Request.of_this_command(requested)
    run = RunDir(run_path(request, requested))
    if not run.exists():
        run.require_free()
        assembled = assemble(config, run)
        config = settled(config)
        with run.locked():
            if run.exists():
                raise RunError(f"{run.path} was planned by another process at this moment: name another run_dir")
            plan_run(run.path, config, choices=request.choices, overrides=request.overrides)
            return execute(run, assembled)
    frozen = run.config
    build.refuse_untrusted(frozen, requested["allow"])
    config = continued_config(frozen, config, request, run)
    return go_on(run, config)


def run_path(request: Request, requested: Mapping[str, Any]) -> Path:
    """Where the run goes: `run_dir`, else a new folder."""
    if not isinstance(requested["output_root"], str):
        raise ConfigError(f"output_root must name a folder, got {requested['output_root'] or 'null'}")
    root = Path(requested["output_root"]).expanduser()
    name = requested["name"] or request.experiment or request.choices.get("data", "run")
    if requested["run_dir"] is None:
        return new_run_path(root, name)
    if not requested["run_dir"]:
        raise ConfigError("run_dir must name a folder, got an empty text: leave it out for a new one")
    return Path(str(requested["run_dir"]))  # a name of digits arrives as a number
