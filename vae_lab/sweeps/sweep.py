"""`vae-lab train -m ...` and `sweep=NAME`: every run is planned before the first begins.

Each job's config becomes a run directory named by what varies and a hash of the whole config, so a point that exists
is recognised: it is skipped or resumed. The lab's own engine runs the jobs, `sweep.jobs` at once, or a launcher of
Hydra on a cluster.
"""

import logging
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import yaml
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from vae_lab.atomic import write_text
from vae_lab.errors import ConfigError, Failed, Interrupted, NonFiniteDensity, RunError, install
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.jobs.outcomes import JobReport, as_table
from vae_lab.jobs.speed import Speeds, count_evaluations
from vae_lab.runs.continuation import budget_in_samples
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import frozen_config
from vae_lab.runs.result import one_draw_bound
from vae_lab.sweeps.points import Point, Space, sweep_folder
from vae_lab.sweeps.worker import SweepSettings, is_local, launch, parallel_jobs, places, threads_of_a_job
from vae_lab.wiring.arguments import override, pasted
from vae_lab.wiring.build import find_own_classes
from vae_lab.wiring.compose import own_config
from vae_lab.wiring.dotted import key_of
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


def run_sweep(cfg: DictConfig, typed: Sequence[str]) -> Path:
    """Plans the runs, shows the plan, runs what is not finished; returns the sweep's folder.

    Args:
        cfg: composed, with Hydra's own part, without the keys that vary.
        typed: the overrides of the command line.

    Raises:
        ConfigError: a config cannot be composed, or another process runs this sweep; nothing was started.
        Failed: jobs failed; the others were run.
        Interrupted: a signal stopped it; the same command goes on.
    """
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    find_own_classes()
    settings = cfg.hydra.sweeper
    space = Space(typed, OmegaConf.to_container(settings.get("params") or OmegaConf.create()))  # pyright: ignore[reportArgumentType]
    folder = sweep_folder(cfg, space.swept)
    cfg.hydra.sweep.dir = str(folder)
    hydra = [str(text) for text in cfg.hydra.overrides.hydra]
    sweep = Sweep(cfg, folder, space)
    is_search = "n_trials" in settings
    points = [] if is_search else sweep.points(space.grid())
    if sweep.settings.dry_run:
        sweep.check(points)
    home = RunDir(folder)
    with nullcontext(home.make()) if sweep.settings.dry_run else home.locked():
        if not sweep.settings.dry_run:
            kept = {"hydra": hydra, "task": [text for text in typed if text not in hydra]}
            write_text(folder / "multirun.yaml", yaml.safe_dump({"hydra": {"overrides": kept}}))
        try:
            if is_search:
                try:
                    from vae_lab.sweeps.search import search
                except ModuleNotFoundError as error:
                    raise ConfigError(f"a search needs {error.name}: {install('sweep')}") from error
                fixed = frozen_config(own_config(cfg)[0])
                search(settings, space, fixed, folder, sweep.values, is_kept=not sweep.settings.dry_run)
            else:
                sweep.run(points)
        except PlanShown:
            return folder
        if sweep.outcomes:
            sweep.conclude()
    return folder


class PlanShown(Exception):  # noqa: N818 - no error: all that was asked for
    """Ends a sweep after the plan."""


class Sweep:
    """The runs of a folder, and how they ended."""

    def __init__(self, cfg: DictConfig, folder: Path, space: Space) -> None:
        self.cfg, self.folder, self.space, self.settings = cfg, folder, space, SweepSettings.of(cfg)
        self.at_once, self.threads = parallel_jobs(cfg), threads_of_a_job(cfg)
        self.outcomes: list[Outcome] = []

    def points(self, varied: Iterable[list[str]]) -> list[Point]:
        """The points with these values of the keys that vary."""
        return [self.space.point(self.cfg, self.folder, values) for values in varied]

    def run(self, points: Sequence[Point]) -> dict[Path, Outcome]:
        """Shows the plan of a batch of points, and runs each that is not finished once; returns how they ended.

        Raises:
            PlanShown: nothing was to be run.
        """
        asked = Counter(point.run.path for point in points)
        for path in (path for path, count in asked.items() if count > 1):
            same = [set(point.overrides) for point in points if point.run.path == path]
            keys = sorted({key_of(text) for text in set.union(*same) - set.intersection(*same)})
            why = f"{', '.join(keys)} changes no number" if keys else "the same values were named again"
            log.info("%s is asked for %d times, and made once: %s", path.name, len(same), why)
        points = list({point.run.path: point for point in points}.values())
        self.show(points)
        if self.settings.dry_run:
            raise PlanShown
        planned = {point.run.path: self.plan(point) for point in points}
        pending = [job for job in planned.values() if isinstance(job, Job)]
        ended: list[Outcome] = []
        if pending and is_local(self.cfg):
            ended = run_jobs(
                pending,
                num_parallel=self.at_once,
                threads=self.threads,
                fail_fast=self.settings.fail_fast,
                report=JobReport(pending, self.at_once),
            )
        elif pending:
            ended = launch(pending, self.cfg, self.folder)
        by_path = {outcome.job.run.path: outcome for outcome in ended}
        outcomes = {path: job if isinstance(job, Outcome) else by_path[path] for path, job in planned.items()}
        self.outcomes += outcomes.values()
        return outcomes

    def values(self, batch: Sequence[list[str]]) -> list[float | None]:
        """Runs a batch of a search; returns the validation bound of each point, None where its run failed.

        Raises:
            ConfigError: a run has no validation bound.
            Interrupted: a signal stopped it.
        """
        points = self.points(batch)
        if self.settings.dry_run:
            self.check(points)
        ended = self.run(points)
        if any(outcome.status == "interrupted" for outcome in ended.values()):
            self.conclude()
        values: list[float | None] = []
        for run in (point.run for point in points):
            value = one_draw_bound(run.ledger(run.default_checkpoint), "val") if ended[run.path].is_good else None
            if ended[run.path].is_good and value is None:
                again = run.command("evaluate", "splits=[val]", "num_samples=1")
                raise ConfigError(
                    f"{run.path} has no val/bound with one draw of z, which a search needs: choose data with that "
                    f"split, or measure it: {again}"
                )
            values.append(value)
        return values

    def check(self, points: Sequence[Point]) -> None:
        """Refuses points that cannot be trained, where a plan is all that was asked for.

        Raises:
            ConfigError: naming the first of them.
        """
        from vae_lab.jobs.assemble import assemble  # a sweep that trains leaves torch to its jobs

        for point in points:
            try:
                if point.status == "planned":
                    assemble(point.config, point.run)
            except ConfigError as error:
                raise ConfigError(f"{' '.join(point.varied) or point.run.path.name}: {error}") from error

    def plan(self, point: Point) -> Job | Outcome:
        """The point's job, its run directory made if there is none; its outcome where there is nothing to run."""
        try:
            if point.status == "broken":
                raise RunError(f"{point.run.path} holds a broken run: move it away, and the same command makes it anew")
            job = plan_job(point.run.path, point.config, choices=point.choices, overrides=point.overrides)
            return Outcome(job, "skipped") if job.is_done else job
        except RunError as error:
            return Outcome(Job(point.run), "failed", reason=str(error))

    def show(self, points: Sequence[Point]) -> None:
        """The plan: how many jobs, how many of them are done, time and disk."""
        names = {"interrupted": "to continue", "running": "to continue", "failed": "failed before", "planned": "new"}
        counts = Counter(names.get(point.status, point.status) for point in points)
        keys = dict.fromkeys(override.partition("=")[0] for point in points for override in point.varied)
        states = ", ".join(
            f"{counts[name]} {name}" for name in ("finished", *dict.fromkeys(names.values()), "broken") if counts[name]
        )
        log.info("sweep over %s: %d jobs (%s)", ", ".join(keys) or "one point", len(points), states)
        for folder in sorted({point.run.path.parent for point in points} - {self.folder}):
            log.info("some of them are in %s: a sweep over less made them", folder)
        room = self.at_once if is_local(self.cfg) else places(self.cfg)
        at_once = min(self.at_once, room or len(points))
        seconds, disk = self.estimate(points)
        log.info(
            "folder %s; %d at once, threads each: %d; estimated time %s, disk %s of %.0f GB free",
            self.folder,
            at_once,
            self.threads,
            "unknown" if seconds is None else duration(seconds / at_once),
            "unknown" if seconds is None else f"{disk / 1e6:.0f} MB",
            shutil.disk_usage(self.folder).free / 1e9,
        )

    def estimate(self, points: Sequence[Point]) -> tuple[float | None, int]:
        """Seconds of all jobs one after the other, None where no speed is known; bytes of their checkpoints."""
        unfinished = [point for point in points if point.status != "finished"]
        if not self.settings.speed_seconds:
            return None, 0
        speeds = Speeds(self.folder / "speeds.json", threads=self.threads, measure_for=self.settings.speed_seconds)
        if unfinished:
            log.info("measuring the speed of the trainings on this machine, where it is not known")
        speeds.measure(point.config for point in unfinished)
        seconds, disk = 0.0, 0
        # a training without a speed will say itself what is wrong
        known = [(point.config, speed) for point in unfinished if (speed := speeds.of(point.config))]
        for config, speed in known:
            samples = budget_in_samples(config, speed.samples_per_epoch) or 0
            seconds += speeds.of_start() + speed.seconds(samples, count_evaluations(config, samples))
            disk += (2 + len(config["checkpoint"]["at"])) * speed.checkpoint_bytes
        return (seconds if known or not unfinished else None), disk

    def conclude(self) -> None:
        """The table of all outcomes, and what to do next.

        Raises:
            Interrupted: the sweep was stopped.
            Failed: jobs failed.
        """
        as_table(self.outcomes, str(self.folder)).print()
        log.info("monitor:  tensorboard --logdir %s", shlex.quote(str(self.folder)))
        log.info("compare:  %s", pasted("runs", override("root", self.folder)))
        packages = sorted({package for outcome in self.outcomes for package in outcome.job.run.packages("report")})
        allow = [f"allow={','.join(packages)}"] if packages else []
        log.info("report:   %s", pasted("report", override("sweep", self.folder), *allow))
        failed = [outcome for outcome in self.outcomes if outcome.status == "failed"]
        good = sum(outcome.is_good for outcome in self.outcomes)
        if good + len(failed) < len(self.outcomes) and not (failed and self.settings.fail_fast):
            raise Interrupted(f"stopped with {good} of {len(self.outcomes)} jobs done; the same command goes on")
        if failed:
            last = failed[-1]
            hopeless = all(NonFiniteDensity.__name__ in outcome.reason for outcome in failed)
            again = "leaves what would fail again" if hopeless else "tries them again"
            raise Failed(
                f"{len(failed)} of {len(self.outcomes)} jobs failed, the last of them {last.job.name}: {last.reason} "
                f"({last.job.run.output}); the same command skips what is finished and {again}"
            )
