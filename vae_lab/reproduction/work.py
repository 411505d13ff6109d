"""The work of a reproduction until all is trained: choose step sizes, train what is missing; loads no PyTorch."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from vae_lab.errors import Interrupted, RunError
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.jobs.outcomes import JobReport, as_table
from vae_lab.jobs.speed import Speeds
from vae_lab.reproduction.plan import Needs, Training, plan_table, remaining_seconds, timed
from vae_lab.reproduction.step_sizes import Choice, choose, plan_probes, with_step_size, write_probes
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


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
    runs = root / "runs"
    seconds = [remaining_seconds(training, runs, root / "probes") for training in trainings]
    plan_table(trainings, runs, seconds).print()
    labels = {training.needed.label for training in trainings}
    estimates = sum(num for figure in figures for label, num in figure.estimates.items() if label in labels)
    log.info(
        "scale %s: %d runs for %s, %s samples besides the probes, %d at once; estimated time %s%s",
        scale,
        len(trainings),
        ", ".join(figure.name for figure in figures),
        f"{sum(training.config['max_samples'] for training in trainings):,}",
        num_parallel,
        duration(sum(seconds) / num_parallel) if any(training.seconds for training in trainings) else "unknown",
        f", and then {estimates} estimates from snapshots" if estimates else "",
    )


def run_all(jobs: Sequence[Job], num_parallel: int) -> list[Outcome]:
    """Runs the jobs, so many at once, with a line for each.

    Raises:
        Interrupted: a signal stopped them.
    """
    outcomes = run_jobs(jobs, num_parallel=num_parallel, report=JobReport(jobs, num_parallel))
    if any(outcome.status == "interrupted" for outcome in outcomes):
        good = sum(outcome.is_good for outcome in outcomes)
        raise Interrupted(f"stopped with {good} of {len(outcomes)} runs done")
    return outcomes


def choose_step_sizes(trainings: Sequence[Training], root: Path, num_parallel: int) -> dict[str, Choice]:
    """Makes the probes; every run's step size by label, also written to probes.csv."""
    probes = {
        training.needed.label: [
            replace(probe, job=replace(probe.job, seconds=training.probe_seconds or 1.0))
            for probe in plan_probes(training.needed, training.probe, root / "probes")
        ]
        for training in trainings
        if training.needed.learning_rates
    }
    jobs = [probe.job for probe in chain(*probes.values())]
    if not jobs:
        return {}
    log.info("step sizes: %d probes", len(jobs))
    outcomes = iter(run_all(jobs, num_parallel))
    choices, rows = {}, []
    for label, group in probes.items():
        choices[label], own = choose(group, list(islice(outcomes, len(group))))
        rows += own
    write_probes(root / "probes.csv", rows)
    return choices


def train_all(trainings: Sequence[Training], choices: dict[str, Choice], root: Path, num_parallel: int) -> list[str]:
    """Makes the runs, the longest first; returns what cannot be planned and what failed, in words."""
    jobs: list[Job] = []
    failures = []
    for training in sorted(trainings, key=lambda training: -training.seconds):
        label, planned = training.needed.label, training.planned
        if choice := choices.get(label):
            if choice.learning_rate is None:
                failures.append(f"{label} has no step size: {choice.reason}")
                continue
            planned = with_step_size(planned, choice.learning_rate)
        try:
            job = plan_job(root / "runs" / label, **planned)
        except RunError as error:
            failures.append(f"{label}: {error}")
            continue
        jobs.append(replace(job, seconds=training.seconds or 1.0))
    log.info("training: %d runs", len(jobs))
    outcomes = run_all(jobs, num_parallel)
    as_table(outcomes, "runs").print()
    bad = [outcome for outcome in outcomes if not outcome.is_good]
    return [*failures, *(f"{one.job.name} {one.status}: {one.reason} ({one.job.run.output})" for one in bad)]
