"""`vae-lab train`: a config becomes a run directory with a trained model, its curve and its ledger."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_lab.errors import ConfigError, Failed, Interrupted, NonFiniteDensity, RunError
from vae_lab.jobs.assemble import assemble
from vae_lab.jobs.execute import assist, execute
from vae_lab.runs.continuation import Request, budget_of, continued_config, frozen_config
from vae_lab.runs.directory import RunDir, new_run_path, plan_run
from vae_lab.runs.identity import config_hash
from vae_lab.training.matmul import settled
from vae_lab.training.sharing import MOST, share_device, why_alone
from vae_lab.training.signals import STOP
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


def train(cfg: DictConfig) -> Path | str:
    """Trains a new run, or continues the one at `run_dir`; returns the run directory.

    With a list of run directories these are continued together; returns them, a line each.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        Interrupted: a signal stopped it; the same command with `run_dir` continues.
    """
    if "VAE_LAB_RUN_DIR" in os.environ and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return assist(RunDir(os.environ["VAE_LAB_RUN_DIR"]))
    if isinstance(cfg.run_dir, ListConfig):
        return train_together(cfg)
    requested: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    config = frozen_config(requested)
    request = Request.of_this_command(requested)
    run = RunDir(run_path(request, requested))
    if not run.exists():
        run.require_free()
        parts = assemble(config, run)
        config = settled(config)
        with run.locked():
            if run.exists():
                raise RunError(f"{run.path} was planned by another process at this moment: name another run_dir")
            plan_run(run.path, config, choices=request.choices, overrides=request.overrides)
            return execute(run, parts)
    frozen = run.config
    build.refuse_untrusted(frozen, requested["allow"])
    config = continued_config(frozen, config, request, run)
    if run.status == "finished" and budget_of(config) == budget_of(frozen):
        log.info("%s is finished, and nothing is to be added", run.path)
        return run.path
    parts = assemble(config, run)
    with run.locked():
        # on another machine its backend may be refused to new runs, while this one goes on with the default
        run.config = settled(config) if config.get("matmul_backend") == "auto" else config
        run.update_record(config_hash=config_hash(config))
        return execute(run, parts)


def train_together(cfg: DictConfig) -> str:
    """Continues several runs in this process, where they share the device; returns their directories, a line each.

    Raises:
        ConfigError: a directory is none of a run, or named twice; nothing was done.
        Failed: some of them failed; the others went on to their ends.
        Interrupted: a signal stopped them; the same command continues.
    """
    runs = [RunDir(str(path)) for path in cfg.run_dir]
    check_shareable(runs)
    alone = [DictConfig({**cfg, "run_dir": str(run.path)}) for run in runs]
    STOP.listen()
    try:
        ends = share_device([partial(train, part) for part in alone])
    finally:
        STOP.ignore()
    stopped = sum(isinstance(end, Interrupted) for end in ends)
    failed = {}
    for run, end in zip(runs, ends, strict=True):
        if isinstance(end, Exception) and not isinstance(end, Interrupted):
            failed[run.path] = end
            known = isinstance(end, ConfigError | NonFiniteDensity)
            log.error("%s: %s", run.path, end, exc_info=None if known else end)
    if stopped:
        raise Interrupted(f"stopped with {stopped} of {len(runs)} trainings to continue; the same command goes on")
    if failed:
        raise Failed(f"{len(failed)} of {len(runs)} trainings failed, such as {next(iter(failed))} (see above)")
    return "\n".join(str(run.path) for run in runs)


def check_shareable(runs: Sequence[RunDir]) -> None:
    """Raises ConfigError unless these are different runs that one process can continue."""
    if not 0 < len(runs) <= MOST:
        raise ConfigError(f"run_dir must name from 1 to {MOST} runs, got {len(runs)}: start several processes for more")
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ConfigError(f"run_dir must name every run once, got {[str(run.path) for run in runs]}")
    backends = {}
    for run in runs:
        if not run.exists():
            raise ConfigError(f"run_dir={run.path} must be a run that exists, where several are named: it is none")
        if reason := why_alone(run.config["trainer"]):
            raise ConfigError(f"run_dir={run.path} must be continued alone: {reason}")
        backends[run.config.get("matmul_backend", "default")] = run.path
    if len(backends) > 1:
        which = ", ".join(f"{path} has {name}" for name, path in backends.items())
        raise ConfigError(f"run_dir must name runs with one matmul_backend, which a process has once: {which}")


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
