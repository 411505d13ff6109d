"""Between Hydra's sweeper and its launcher: plans a batch's runs, shows the plan, lets the launcher run the rest."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_lab.errors import ConfigError, Failed, Interrupted, NonFiniteDensity, RunError, missing
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.jobs.outcomes import as_table
from vae_lab.jobs.speed import Speeds, count_evaluations
from vae_lab.runs.continuation import frozen_config, quoted
from vae_lab.runs.directory import RunDir
from vae_lab.sweeps.points import is_broken, run_folder, varied_overrides
from vae_lab.sweeps.resources import parallel_jobs
from vae_lab.sweeps.worker import SweepJob, read_outcome
from vae_lab.wiring.compose import own_config
from vae_lab.wiring.folders import CommandLine
from vae_lab.wiring.terminal import duration, print_table

log = logging.getLogger("vae_lab")


class PlanShown(Exception):  # noqa: N818 - no error: all that was asked for
    """Ends a sweeper's work after the plan."""


@dataclass
class Point:
    """One job of the sweeper: its config, and the run directory that belongs to it."""

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    varied: list[str]
    run: RunDir

    @property
    def status(self) -> str:
        """Of the run, as far as there is one."""
        if not self.run.exists():
            return "planned"
        return "broken" if is_broken(self.run.path) else self.run.status


@dataclass
class PlannedLauncher(Launcher):
    """Stands where the sweeper expects a launcher."""

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
        points = self.compose(job_overrides)
        self.show(points)
        if self.cfg.sweep.dry_run:
            raise PlanShown
        planned = [self.plan(point) for point in points]
        jobs = [job for job in planned if isinstance(job, Job)]
        # what is finished needs no launcher; a sweeper that waits for values gets them all from one
        pending = jobs if self.task.value else [job for job in jobs if not job.is_done]
        self.inner.task_function = replace(self.task, total=initial_job_idx + len(pending))
        arguments = [[f"run_dir={quoted(str(job.run.path))}", f"allow={list(job.allow)}"] for job in pending]
        returns: Sequence[JobReturn] = []
        try:
            if pending:
                with composed_from("job", self.cfg):
                    returns = self.inner.launch(arguments, initial_job_idx=initial_job_idx)
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        except Exception as error:  # the boundary of many jobs: what they left on disk says how each ended
            log.warning("the launcher broke down: %s: %s", type(error).__name__, error)
        finally:
            files = {job: self.task.outcome_file(initial_job_idx + i) for i, job in enumerate(pending)}
            for job in planned:
                if isinstance(job, Outcome):
                    self.outcomes.append(job)
                elif job in files:
                    self.outcomes.append(read_outcome(files[job], job, interrupted=self.interrupted))
                else:
                    self.outcomes.append(Outcome(job, "skipped"))
        return returns if self.task.value else []

    def compose(self, job_overrides: Sequence[Sequence[str]]) -> list[Point]:
        """The points of a batch, each once; refuses a config with values missing."""
        points: dict[Path, Point] = {}
        names = varied_overrides(self.cfg, job_overrides)
        for overrides, varied in zip(job_overrides, names, strict=True):
            config = self.inner.hydra_context.config_loader.load_sweep_config(self.cfg, list(overrides))
            if absent := sorted(key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra.")):
                raise ConfigError(missing(absent))
            requested, choices = own_config(config)
            if requested["run_dir"] is not None:
                raise ConfigError("run_dir must be null in a sweep, or all its jobs would share one: leave it out")
            frozen = frozen_config(requested)
            run = RunDir(run_folder(self.folder, varied, frozen))
            point = Point(frozen, choices, list(overrides), varied, run)
            if point.run.path in points and not self.task.value:
                log.info("%s is asked for twice, and made once", point.run.path.name)
            # a sweeper that waits for values gets one for every job
            points[point.run.path if not self.task.value else Path(str(len(points)))] = point
        return list(points.values())

    def plan(self, point: Point) -> Job | Outcome:
        """The point's job, its run directory made if there is none; a failure where another thing is in its place."""
        try:
            if point.status == "broken":
                raise RunError(f"{point.run.path} holds a broken run: move it away, and the same command makes it anew")
            return plan_job(point.run.path, point.config, choices=point.choices, overrides=point.overrides)
        except RunError as error:
            if self.task.value:  # the sweeper waits for a value of every job
                raise
            return Outcome(Job(point.run), "failed", reason=str(error))

    def show(self, points: Sequence[Point]) -> None:
        """The plan: how many jobs, how many of them are done, time and disk."""
        names = {
            "finished": "finished",
            "interrupted": "to continue",
            "running": "to continue",
            "failed": "failed before",
            "planned": "new",
            "broken": "broken",
        }
        counts = Counter(names[point.status] for point in points)
        keys = dict.fromkeys(override.partition("=")[0] for point in points for override in point.varied)
        told = ", ".join(f"{counts[name]} {name}" for name in dict.fromkeys(names.values()) if counts[name])
        log.info("sweep over %s: %d jobs (%s)", ", ".join(keys) or "one point", len(points), told)
        for folder in sorted({point.run.path.parent for point in points} - {self.folder}):
            log.info("some of them are in %s: a sweep over less made them", folder)
        at_once = min(parallel_jobs(self.cfg), self.task.places or len(points))
        seconds, disk = self.estimate(points)
        log.info(
            "folder %s; %d at once, threads each: %d; estimated time %s, disk %s of %.0f GB free",
            self.folder,
            at_once,
            self.task.threads,
            "unknown" if seconds is None else duration(seconds / at_once),
            "unknown" if seconds is None else f"{disk / 1e6:.0f} MB",
            shutil.disk_usage(self.folder).free / 1e9,
        )

    def estimate(self, points: Sequence[Point]) -> tuple[float | None, int]:
        """Seconds of all jobs one after the other, None where no speed is known; bytes of their checkpoints."""
        unfinished = [point for point in points if point.status != "finished"]
        if not self.cfg.sweep.speed_seconds:
            return None, 0
        speeds = Speeds(
            self.folder / "speeds.json", threads=self.task.threads, measure_for=self.cfg.sweep.speed_seconds
        )
        log.info("measuring the speed of the trainings on this machine, where it is not known")
        speeds.measure(point.config for point in unfinished)
        seconds, disk, known = 0.0, 0, 0
        for point in unfinished:
            speed = speeds.of(point.config)
            if speed is None:  # its training will say itself what is wrong
                continue
            samples = speed.budget(point.config)
            known += 1
            seconds += speeds.of_start() + speed.seconds(samples, count_evaluations(point.config, samples))
            disk += (2 + len(point.config["checkpoint"]["at"])) * speed.checkpoint_bytes
        return (seconds if known or not unfinished else None), disk

    def conclude(self) -> None:
        """The table of all outcomes, and what to do next.

        Raises:
            Interrupted: the sweep was stopped.
            Failed: jobs failed.
        """
        print_table(as_table(self.outcomes, str(self.folder)))
        log.info("monitor:  tensorboard --logdir %s", self.folder)
        log.info("compare:  vae-lab runs root=%s", self.folder)
        log.info("report:   vae-lab report sweep=%s", self.folder)
        failed = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        good = sum(outcome.is_good for outcome in self.outcomes)
        if self.interrupted:
            raise Interrupted(f"stopped with {good} of {len(self.outcomes)} jobs done; the same command goes on")
        if failed:
            last = failed[-1]
            hopeless = all(NonFiniteDensity.__name__ in outcome.reason for outcome in failed)
            again = "leaves what would fail again" if hopeless else "tries them again"
            raise Failed(
                f"{len(failed)} of {len(self.outcomes)} jobs failed, the last of them {last.job.name}: {last.reason} "
                f"({last.job.output}); the same command skips what is finished and {again}"
            )
        if good < len(self.outcomes):
            raise Interrupted(f"stopped with {good} of {len(self.outcomes)} jobs done; the same command goes on")


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
