"""`vae-lab train`: a config becomes a run directory with a trained model, its curve and its ledger."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, RunError
from vae_lab.jobs.assemble import assemble
from vae_lab.jobs.execute import assist, execute, go_on
from vae_lab.jobs.planned import planned_config
from vae_lab.jobs.settle import settled
from vae_lab.runs.continuation import Request, continued_config
from vae_lab.runs.directory import RunDir, new_run_path, plan_run, require_root
from vae_lab.runs.identity import frozen_config
from vae_lab.sweeps.worker import SweepSettings
from vae_lab.training.matmul import choose_backend
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class Destination:
    """The keys of `vae-lab train` that say where a run goes, not what it is."""

    output_root: str
    name: str | int | None
    run_dir: str | int | None
    allow: list[str]

    def __post_init__(self) -> None:
        if self.run_dir == "":
            raise ConfigError("run_dir must name a folder, got an empty text: leave it out for a new one")
        require_root(self.output_root)

    def path(self, request: Request) -> Path:
        """`run_dir`, else a new folder."""
        if self.run_dir is not None:
            return Path(str(self.run_dir))  # a name of digits arrives as a number
        name = self.name or request.experiment or request.choices.get("data", "run")
        return new_run_path(Path(self.output_root).expanduser(), str(name))


def train(cfg: DictConfig) -> Path:
    """Trains a new run, or continues the one at `run_dir`; returns the run directory.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        Interrupted: a signal stopped it; the same command with `run_dir` continues.
    """
    if assisted := assist():
        return assisted
    requested: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    config = frozen_config(requested)
    request = Request.of_this_command()
    destination = build.settings(Destination, requested)
    SweepSettings.of(cfg)  # refuses what could be meant for no sweep either
    run = RunDir(destination.path(request))
    if not run.exists():
        run.require_free()
        config = planned_config(requested)
        assembled = assemble(config, run)
        choose_backend(config["matmul_backend"])  # one that rounds is refused to new runs
        config = settled(config, assembled, run)
        with run.locked():
            if run.exists():
                raise RunError(f"{run.path} was planned by another process at this moment: name another run_dir")
            plan_run(run.path, config, choices=request.choices, overrides=request.overrides)
            return execute(run, assembled)
    frozen = run.read_config()
    build.refuse_untrusted(frozen, destination.allow)
    return go_on(run, lambda frozen: continued_config(frozen, config, request, run))
