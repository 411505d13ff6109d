"""`vae-lab train -m ...` and `sweep=NAME`: every run is planned before Hydra's launcher has the first.

Sweeper and launcher are Hydra's or a plugin's. In between, each job's config becomes a run directory named by what
varies and a hash of the whole config, so a point that exists is recognised: it is skipped or resumed.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_lab.compose import own_config
from vae_lab.continuation import FREE, quoted
from vae_lab.errors import ConfigError, Failed, Interrupted
from vae_lab.explanations import CommandLine, missing
from vae_lab.job_report import as_table
from vae_lab.jobs import Job, Outcome, available_cores, plan_job
from vae_lab.run_directory import RunDir, config_hash, safe_name
from vae_lab.search import is_search, prepare_search, remaining_trials
from vae_lab.speed import Speeds, count_evaluations
from vae_lab.sweep_job import SweepJob, read_outcome
from vae_lab.terminal import duration, print_table
from vae_lab.train import frozen_config

log = logging.getLogger("vae_lab")

NAME_LENGTH = 80


class PlanShown(Exception):  # noqa: N818 - no error: all that was asked for
    """Ends a sweeper's work after the plan."""


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
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=line.config_name)
    with RunDir(folder).locked(), own_folder(folder) as invocation:
        if is_search(cfg):
            prepare_search(cfg, folder)
        threads = threads_of_a_job(cfg)
        task = SweepJob(
            folder=invocation,
            owner=os.getpid(),
            total=0,
            threads=threads,
            at_once=max(1, available_cores() // threads),
            fail_fast=cfg.sweep.fail_fast,
            value="val/bound" if is_search(cfg) else None,
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
        sweeper = Plugins.instance().instantiate_sweeper(config=cfg, hydra_context=context, task_function=task)
        inner: Any = getattr(sweeper, "sweeper", sweeper)  # Optuna's is wrapped once more
        inner.launcher = launch = PlannedLauncher(inner.launcher, cfg, line, folder, task)
        if is_search(cfg) and remaining_trials(inner) == 0:
            log.info("the search in %s is finished: a larger hydra.sweeper.n_trials goes on", folder)
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


@dataclass
class PlannedLauncher(Launcher):
    """Stands where the sweeper expects a launcher: plans the jobs of a batch, shows the plan, lets the launcher run."""

    inner: Any
    """The launcher of the config."""
    cfg: DictConfig
    line: CommandLine
    folder: Path
    task: SweepJob
    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: bool = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing: the launcher within has been set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One batch of the sweep's jobs; a launcher that breaks down leaves outcomes that say so."""
        jobs = self.plan(job_overrides)
        if self.cfg.sweep.dry_run:
            raise PlanShown
        # what is finished needs no launcher; a sweeper that waits for values gets them all from one
        pending = jobs if self.task.value else [job for job in jobs if not job.is_done]
        self.inner.task_function = replace(self.task, total=initial_job_idx + len(pending))
        arguments = [[f"run_dir={quoted(str(job.run.path))}", f"budget={list(job.budget)}"] for job in pending]
        returns: Sequence[JobReturn] = []
        try:
            if pending:
                with composed_from("job", self.cfg):
                    returns = self.inner.launch(arguments, initial_job_idx=initial_job_idx)
        except Exception as error:  # the boundary of many jobs: what they left on disk says how each ended
            log.warning("the launcher broke down: %s: %s", type(error).__name__, error)
        finally:
            files = {job: self.task.folder / f"{initial_job_idx + i:06}.json" for i, job in enumerate(pending)}
            self.outcomes += [
                read_outcome(files[job], job) if job in files else Outcome(job, "skipped") for job in jobs
            ]
        return returns if self.task.value else []

    def plan(self, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        """The jobs' run directories, made where they do not exist; refuses a config with values missing."""
        composed = []
        for overrides in job_overrides:
            config = self.inner.hydra_context.config_loader.load_sweep_config(self.cfg, list(overrides))
            if absent := sorted(key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra.")):
                raise ConfigError(missing(self.line, absent))
            requested, choices = own_config(config)
            if requested["run_dir"] is not None:
                raise ConfigError("run_dir must be null in a sweep, or all its jobs would share one: leave it out")
            composed.append((frozen_config(requested), choices, list(overrides)))
        varied = varied_overrides(self.cfg, job_overrides)
        configs = [config for config, _, _ in composed]
        runs = [RunDir(run_folder(self.folder, names, config)) for names, config in zip(varied, configs, strict=True)]
        seconds, disk = self.estimate(configs, runs)
        self.show(runs, varied, seconds, disk)
        if self.cfg.sweep.dry_run:
            return []
        return [
            replace(plan_job(run.path, config, choices=choices, overrides=overrides), seconds=estimate or 1.0)
            for run, (config, choices, overrides), estimate in zip(runs, composed, seconds, strict=True)
        ]

    def estimate(self, configs: Sequence[Mapping[str, Any]], runs: Sequence[RunDir]) -> tuple[list[float | None], int]:
        """Seconds of each job, 0 for a finished one, None where its training cannot be tried; bytes of checkpoints."""
        if not self.cfg.sweep.speed_seconds:
            return [None] * len(configs), 0
        log.info("measuring the speed of the trainings on this machine")
        speeds = Speeds(
            self.folder / "speeds.json", threads=self.task.threads, measure_for=self.cfg.sweep.speed_seconds
        )
        start, seconds, disk = speeds.of_start(), [], 0
        for config, run in zip(configs, runs, strict=True):
            if run.exists() and run.status == "finished":
                seconds.append(0.0)
                continue
            try:
                speed = speeds.of(config)
            except (ValueError, OSError):  # it will say so itself when its turn comes
                seconds.append(None)
                continue
            samples = speed.budget(config)
            seconds.append(start + speed.seconds(samples, count_evaluations(config, samples)))
            disk += (2 + len(config["checkpoint"]["at"])) * speed.checkpoint_bytes
        return seconds, disk

    def show(
        self,
        runs: Sequence[RunDir],
        varied: Sequence[Sequence[str]],
        seconds: Sequence[float | None],
        disk: int,
    ) -> None:
        """The plan: how many jobs, how many of them are done, time and disk."""
        states = [run.status if run.exists() else "planned" for run in runs]
        counts = {
            "finished": states.count("finished"),
            "to continue": states.count("interrupted") + states.count("running"),
            "failed before": states.count("failed"),
            "new": states.count("planned"),
        }
        keys = dict.fromkeys(override.partition("=")[0] for names in varied for override in names)
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        log.info("sweep over %s: %d jobs (%s)", ", ".join(keys) or "one point", len(runs), told)
        at_once = min(parallel_jobs(self.cfg), self.task.at_once)
        known = [value for value in seconds if value is not None]
        log.info(
            "folder %s; %d at once, threads each: %d; estimated time %s, disk %s of %.0f GB free",
            self.folder,
            at_once,
            self.task.threads,
            duration(sum(known) / at_once) if known else "unknown",
            f"{disk / 1e6:.0f} MB" if known else "unknown",
            shutil.disk_usage(self.folder).free / 1e9,
        )

    def conclude(self) -> None:
        """The table of all outcomes, and what to do next.

        Raises:
            Failed: jobs failed.
            Interrupted: the sweep was stopped.
        """
        print_table(as_table(self.outcomes, str(self.folder)))
        log.info("monitor:  tensorboard --logdir %s", self.folder)
        log.info("compare:  vae-lab runs root=%s", self.folder)
        log.info("report:   vae-lab report sweep=%s", self.folder)
        failed = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        good = sum(outcome.is_good for outcome in self.outcomes)
        if failed:
            last = failed[-1]
            raise Failed(
                f"{len(failed)} of {len(self.outcomes)} jobs failed, the last of them {last.job.name}: {last.reason} "
                f"({last.job.output}); the same command skips what is finished and tries them again"
            )
        if self.interrupted or good < len(self.outcomes):
            raise Interrupted(f"stopped with {good} of {len(self.outcomes)} jobs done; the same command goes on")


def sweep_folder(cfg: DictConfig) -> Path:
    """<output_root>/sweeps/<name, else the sweep's, the experiment's or the data set's, if that does not vary>."""
    if not isinstance(cfg.output_root, str):
        raise ConfigError(f"output_root must name a folder, got {cfg.output_root or 'null'}")
    swept = {text.partition("=")[0] for text in swept_arguments(cfg)}
    choices = cfg.hydra.runtime.choices
    names = [choices.get(group) for group in ("sweep", "experiment", "data") if group not in swept]
    name = cfg.name or next((choice for choice in names if choice), "runs")
    return Path(cfg.output_root).expanduser() / "sweeps" / safe_name(str(name))


def typed_overrides(cfg: DictConfig) -> list[str]:
    """The overrides of the command line, as typed: one may hold a ${reference}."""
    return OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)  # pyright: ignore[reportReturnType]


def swept_arguments(cfg: DictConfig) -> list[str]:
    """What the command line and the sweep's YAML say about keys, as typed."""
    typed = typed_overrides(cfg)
    params = cfg.hydra.sweeper.get("params") or {}
    keys = {text.partition("=")[0] for text in typed}
    own = [f"{key}={value}" for key, value in params.items() if key not in keys]
    return [text for text in [*own, *typed] if is_sweep(text)]


def is_sweep(override: str) -> bool:
    """Whether an override stands for several values."""
    return OverridesParser.create().parse_override(override).is_sweep_override()


def varied_overrides(cfg: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of every job, the overrides that tell it from the others."""
    swept = {text.partition("=")[0].lstrip("+~") for text in swept_arguments(cfg)}
    return [
        [text for text in overrides if (key := text.partition("=")[0].lstrip("+~")) in swept and key not in FREE]
        for overrides in job_overrides
    ]


def run_folder(folder: Path, varied: Sequence[str], config: Mapping[str, Any]) -> Path:
    """<what varies>-<6 hex of the config's hash>; an existing folder with this hash, whatever it is called."""
    digest = config_hash(config)
    for path in sorted(folder.glob(f"*-{digest}")):
        if RunDir(path).exists():
            return path
    pairs = [text.lstrip("+~").partition("=") for text in varied]
    name = safe_name("_".join(f"{key.split('.')[-1]}-{value}" for key, _, value in pairs))[:NAME_LENGTH]
    return folder / f"{name or 'run'}-{digest}"


def parallel_jobs(cfg: DictConfig) -> int:
    """Jobs that the launcher has running at once, as far as its config says; as many as there is room for if not."""
    launcher = cfg.hydra.launcher
    if launcher._target_.endswith("BasicLauncher"):
        return 1
    if "n_jobs" not in launcher:
        return available_cores()
    count = launcher.n_jobs
    return count if count > 0 else max(1, available_cores() + 1 + count)


def threads_of_a_job(cfg: DictConfig) -> int:
    """`threads`, else what the launcher reserves for a job, else the cores divided among the jobs at once."""
    launcher = cfg.hydra.launcher
    remote = launcher.ray.remote.get("num_cpus") if "ray" in launcher else None
    asked = cfg.threads or remote or launcher.get("cpus_per_task")
    if asked:
        return int(asked)
    return max(1, available_cores() // parallel_jobs(cfg))


@contextmanager
def composed_from(name: str, cfg: DictConfig) -> Iterator[None]:
    """While the block runs, launchers compose their jobs from this primary config."""
    before = cfg.hydra.job.config_name
    with open_dict(cfg.hydra):
        cfg.hydra.job.config_name = name
    try:
        yield
    finally:
        with open_dict(cfg.hydra):
            cfg.hydra.job.config_name = before


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """A folder for what this invocation's jobs leave, removed at the end."""
    path = folder / f".sweep-{secrets.token_hex(4)}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
