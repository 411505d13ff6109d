"""The work of a reproduction until all is trained: choose step sizes, train what is missing; loads no PyTorch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vae_lab.errors import Interrupted, RunError
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.jobs.outcomes import JobReport, as_table
from vae_lab.jobs.speed import Speeds
from vae_lab.reproduction.plan import Needs, Training, plan_table, remaining_seconds, timed
from vae_lab.reproduction.step_sizes import Choice, choose, plan_probes, with_step_size, write_probes
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring.terminal import duration

if TYPE_CHECKING:
    from vae_lab.figures.base import Drawn

log = logging.getLogger("vae_lab")


@dataclass
class Work:
    """What has been done, and what has failed in words."""

    outcomes: list[Outcome] = field(default_factory=list)
    drawn: "dict[str, Drawn]" = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def estimated(trainings: Sequence[Training], root: Path, num_parallel: int, seconds: float) -> list[Training]:
    """The trainings with their times, measured for a moment each unless known from before."""
    log.info("measuring the speed of %d trainings on this machine", len(trainings))
    threads = max(1, available_cores() // num_parallel)
    speeds = Speeds(root / "speeds.json", threads=threads, measure_for=seconds)
    speeds.measure(training.config for training in trainings)
    return [timed(training, speeds) for training in trainings]


def print_plan(
    trainings: Sequence[Training], figures: Sequence[Needs], root: Path, num_parallel: int, scale: str
) -> None:
    """What will be done, before anything is."""
    runs, probes = root / "runs", root / "probes"
    plan_table(trainings, runs, probes).print()
    seconds = sum(remaining_seconds(training, runs, probes) for training in trainings) / num_parallel
    labels = {training.needed.label for training in trainings}
    estimates = sum(num for figure in figures for label, num in figure.estimates.items() if label in labels)
    log.info(
        "scale %s: %d runs for %s, %s samples besides the probes, %d at once; estimated time %s%s",
        scale,
        len(trainings),
        ", ".join(figure.name for figure in figures),
        f"{sum(training.config['max_samples'] for training in trainings):,}",
        num_parallel,
        duration(seconds) if any(training.seconds for training in trainings) else "unknown",
        f", and then {estimates} estimates from snapshots" if estimates else "",
    )


@dataclass(frozen=True)
class Engine:
    """How jobs are run."""

    num_parallel: int
    """Processes at once."""

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs the jobs with a line for each.

        Raises:
            Interrupted: a signal stopped them.
        """
        report = JobReport(jobs, self.num_parallel)
        outcomes = run_jobs(jobs, num_parallel=self.num_parallel, report=report)
        if any(outcome.status == "interrupted" for outcome in outcomes):
            good = sum(outcome.is_good for outcome in outcomes)
            raise Interrupted(f"stopped with {good} of {len(outcomes)} runs done")
        return outcomes


def choose_step_sizes(trainings: Sequence[Training], root: Path, engine: Engine) -> dict[str, Choice]:
    """Makes the probes; every run's step size by label, also written to probes.csv."""
    probes = {
        training.needed.label: [
            replace(probe, job=replace(probe.job, seconds=training.probe_seconds or 1.0))
            for probe in plan_probes(training.needed, training.probe_config, root / "probes", **training.probe_record)
        ]
        for training in trainings
        if training.needed.learning_rates
    }
    jobs = [probe.job for group in probes.values() for probe in group]
    if not jobs:
        return {}
    log.info("step sizes: %d probes", len(jobs))
    outcomes = dict(zip([job.run.path for job in jobs], engine.run(jobs), strict=True))
    choices, rows = {}, []
    for label, group in probes.items():
        choices[label], own = choose(group, [outcomes[probe.job.run.path] for probe in group])
        rows += own
    write_probes(root / "probes.csv", rows)
    return choices


def train_all(
    trainings: Sequence[Training],
    choices: dict[str, Choice],
    root: Path,
    engine: Engine,
    work: Work,
) -> None:
    """Makes the runs, the longest first; what cannot be planned or fails is a failure in words."""
    jobs: list[Job] = []
    for training in sorted(trainings, key=lambda training: -training.seconds):
        label, planned = training.needed.label, {**training.record, "config": training.config}
        if label in choices:
            choice = choices[label]
            if choice.learning_rate is None:
                work.failures.append(f"{label} has no step size: {choice.reason}")
                continue
            planned = with_step_size(training.config, training.record, choice.learning_rate)
        try:
            job = plan_job(root / "runs" / label, **planned)
        except RunError as error:
            work.failures.append(f"{label}: {error}")
            continue
        jobs.append(replace(job, seconds=training.seconds or 1.0))
    log.info("training: %d runs", len(jobs))
    work.outcomes = engine.run(jobs)
    as_table(work.outcomes, "runs").print()
    work.failures += [
        f"{outcome.job.name} {outcome.status}: {outcome.reason} ({outcome.job.run.output})"
        for outcome in work.outcomes
        if not outcome.is_good
    ]
