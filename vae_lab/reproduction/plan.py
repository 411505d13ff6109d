"""What a reproduction consists of: the trainings that its figures need, merged, composed and timed."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_lab.errors import ConfigError, nearest, require_integer, require_number
from vae_lab.figures.needed import NeededRun, check_scale
from vae_lab.jobs.planned import planned_config
from vae_lab.jobs.speed import Speeds, count_evaluations
from vae_lab.reports.overview import glance
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.wiring import build
from vae_lab.wiring.arguments import override
from vae_lab.wiring.compose import compose_command
from vae_lab.wiring.table import Table
from vae_lab.wiring.terminal import duration

if TYPE_CHECKING:
    from vae_lab.figures.base import PaperFigure


@dataclass(frozen=True)
class ReproduceSettings:
    """The keys of `vae-lab reproduce`."""

    scale: str
    figures: list[str]
    jobs: int | None
    only: list[str] | None
    train: list[str]
    probe_samples: int
    speed_seconds: float
    dry_run: bool
    root: str

    def __post_init__(self) -> None:
        check_scale(self.scale)
        require_integer("jobs", self.jobs, minimum=1, optional=True)
        require_integer("probe_samples", self.probe_samples, minimum=1)
        require_number("speed_seconds", self.speed_seconds, at_least=0)
        if not self.figures:
            raise ConfigError("figures must name at least one, got []: figures=[figure2] for example")


@dataclass(frozen=True)
class Training:
    """A needed run as it is to be planned; without a step size where probes are to choose one."""

    needed: NeededRun
    planned: Mapping[str, Any]
    """Its config and entries for its run.json: arguments of `plan_job`."""
    probe: Mapping[str, Any]
    """The same of its probes."""
    seconds: float = 0.0
    """The estimated time of the run itself."""
    probe_seconds: float = 0.0
    """The estimated time of one probe."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run itself."""
        return self.planned["config"]


@dataclass(frozen=True)
class Needs:
    """What a figure needs."""

    name: str
    runs: list[NeededRun]
    estimates: Mapping[str, int]
    """How many values are to be measured with the weights of each run, by its label."""


def figure_config(name: str, scale: str, root: Path) -> dict[str, Any]:
    """What the YAML of a figure says."""
    config, _ = compose_command("figure", [f"figure={name}", f"scale={scale}", override("root", root)])
    return config["figure"]


def make_figures(configs: Iterable[Mapping[str, Any]]) -> "list[PaperFigure]":
    """The figures that these configs describe; loads PyTorch."""
    return [build.instantiate(config, "figure") for config in configs]


def needs_of(configs: Sequence[Mapping[str, Any]], scale: str, folder: Path) -> list[Needs]:
    """What the figures of these configs need; loads PyTorch.

    Args:
        configs: of the figures.
        scale: of their budgets.
        folder: holds the runs that are there.
    """
    found = []
    for figure in make_figures(configs):
        runs = figure.needed_runs(scale)
        estimates = {run.label: figure.num_estimates(run, RunDir(folder / run.label), scale) for run in runs}
        found.append(Needs(figure.name, runs, estimates))
    return found


def needed_runs(figures: Iterable[Sequence[NeededRun]], only: Sequence[str] | None) -> list[NeededRun]:
    """The runs that all figures need, each once, with the largest budget and all snapshots that are asked for.

    Raises:
        ConfigError: two figures mean different trainings by one label, or `only` names none.
    """
    found: dict[str, NeededRun] = {}
    for runs in figures:
        for needed in runs:
            found[needed.label] = merged(found[needed.label], needed) if needed.label in found else needed
    if only is None:
        return list(found.values())
    for pattern in only:
        if not fnmatch.filter(found, pattern):
            raise ConfigError(f"only must name runs of the figures, got {pattern!r}: {nearest(pattern, found)}")
    return [needed for label, needed in found.items() if any(fnmatch.fnmatch(label, pattern) for pattern in only)]


def merged(one: NeededRun, other: NeededRun) -> NeededRun:
    """One training that serves both."""
    if (one.overrides, one.learning_rates) != (other.overrides, other.learning_rates):
        raise ConfigError(f"two figures mean different trainings by {one.label!r}: their YAML files must agree")
    snapshots = tuple(sorted({*one.snapshots, *other.snapshots}))
    return replace(one, max_samples=max(one.max_samples, other.max_samples), snapshots=snapshots)


def compose_training(needed: NeededRun, settings: ReproduceSettings) -> Training:
    """The run's configs, with the further overrides of `settings.train`."""
    short = [f"max_samples={settings.probe_samples}", f"evaluation.first={settings.probe_samples}"]
    bare = ["callbacks=none", "logger=none", "checkpoint.at=[]"]
    planned = []
    for overrides in ([*needed.all_overrides, *settings.train], [*needed.overrides, *settings.train, *short, *bare]):
        config, choices = compose_command("train", overrides)
        planned.append({"config": planned_config(config), "choices": choices, "overrides": overrides})
    return Training(needed, *planned)


def timed(training: Training, speeds: Speeds) -> Training:
    """The training with estimated times, from a moment of it on this machine."""
    speed, start = speeds.of(training.config), speeds.of_start()
    if speed is None:  # it says itself what is wrong, when its turn comes
        return training
    seconds, probe_seconds = (
        start + speed.seconds(config["max_samples"], count_evaluations(config, config["max_samples"]))
        for config in (training.config, training.probe["config"])
    )
    return replace(training, seconds=seconds, probe_seconds=probe_seconds)


def remaining_seconds(training: Training, runs: Path, probes: Path) -> float:
    """The estimated time of what is not done yet, one after the other."""
    label, rates = training.needed.label, training.needed.learning_rates
    run = replace(glance(runs / label), curve=read_rows(RunDir(runs / label).curve_file))
    done = run.samples / training.config["max_samples"]
    open_probes = [rate for rate in rates if not glance(probes / f"{label}-lr{rate:g}").is_finished]
    return training.seconds * max(0.0, 1 - done) + training.probe_seconds * len(open_probes)


def plan_table(trainings: Sequence[Training], runs: Path, seconds: Sequence[float]) -> Table:
    """The plan for a terminal; `seconds` are what the rest of each training takes."""
    rows = []
    for training, left in zip(trainings, seconds, strict=True):
        needed, run = training.needed, RunDir(runs / training.needed.label)
        counts = [f"{training.config['max_samples']:,}", str(len(needed.learning_rates)), str(len(needed.snapshots))]
        state = run.read_status() if run.exists() else "new"
        rows.append([needed.label, *counts, state, duration(left) if training.seconds else "?"])
    return Table(("run", "samples", "probes", "snapshots", "state", "time"), rows)
