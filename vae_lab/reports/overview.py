"""A run in a report: settings, record, ledger and curve, read once and held in memory.

A run that goes on meanwhile is so seen at one moment. No weights are read, and a damaged directory is one of the
things that can be seen.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vae_lab.errors import RunError
from vae_lab.reports.values import ABSENT, as_text, number_or_none
from vae_lab.runs.curve import read_rows, series
from vae_lab.runs.directory import FOLDERS, MARKS, NEEDED, RunDir
from vae_lab.runs.identity import decides_the_density
from vae_lab.runs.result import draws_of, latest
from vae_lab.runs.small_files import Unreadable, read_ledger, read_record, read_settings

BROKEN = "broken"
"""The status of what cannot be read."""


@dataclass(frozen=True)
class Overview:
    """What a run directory says, whatever state it is in."""

    path: Path
    status: str
    """That of run.json, but `interrupted` where nobody is at work any more, and `broken` where a file is unreadable."""
    problem: str = ""
    """Why it is broken, or the error with which it failed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The config by dotted keys; a list is one value."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """run.json."""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    """The measured values of `checkpoint`; empty where nothing was measured."""
    checkpoint: str = ""
    """`best` or `last`: whose values and pictures are asked for; empty in a list of runs: the one read by default."""
    curve: Sequence[Mapping[str, float]] = ()
    """The rows of metrics.csv; a list of runs reads those of a run that has no result yet."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """Everything that a list of runs knows of it, by name; names of components stand for the components."""
        own = {"path": str(self.path), "status": self.status, "problem": self.problem}
        own |= {"checkpoint": self.checkpoint} if self.checkpoint else {}
        own |= {"samples_evaluated": self.samples} if self.samples else {}
        measured = _scalars(self.measured)
        own |= {"checkpoint_samples": measured["samples_evaluated"]} if "samples_evaluated" in measured else {}
        return {**_scalars(self.record), **measured, **self.settings, **self.names, **own}

    @cached_property
    def names(self) -> dict[str, Any]:
        """What its components are called: `data`, `model`, `objective`, ... as chosen, `data.name`, `network`."""
        choices = self.record.get("choices")
        names = {key: name for key, name in choices.items() if name} if isinstance(choices, dict) else {}
        for key, target in self.settings.items():
            component, dot, last = key.rpartition(".")
            if last == "_target_" and dot and "." not in component:
                names.setdefault(component, _component_name(str(target)))
        network = self.settings.get("model.encoder._target_") or self.settings.get("model.decoder._target_")
        if network:
            *_, module, kind = f".{network}".split(".")
            names["network"] = re.sub("(Encoder|Decoder)$", "", kind)
            if not (isinstance(choices, dict) and choices.get("model")):
                names["model"] = module
        if data := self.ledger.get("data") or names.get("data"):
            names["data.name"] = data
        return names

    @property
    def data(self) -> str:
        """The data set; a user's own by the name of its file."""
        path = self.settings.get("data.path")
        return Path(path).stem if isinstance(path, str) and path else as_text(self.names.get("data", ABSENT))

    @property
    def network(self) -> str:
        """The kind of network."""
        return str(self.names.get("network", ABSENT))

    @property
    def likelihood(self) -> str:
        """The density of an image."""
        target = self.settings.get("likelihood._target_") or self.settings.get("model.likelihood._target_")
        return str(target or ABSENT).rpartition(".")[2].removesuffix("Likelihood")

    @property
    def latent_dim(self) -> int:
        """The size of z."""
        return self.settings["model.latent_dim"]

    @property
    def samples(self) -> int:
        """Training samples presented, as far as the directory knows."""
        last = self.curve[-1]["samples_evaluated"] if self.curve else 0
        return int(max(last, number_or_none(self.record.get("samples_evaluated")) or 0))

    @property
    def is_finished(self) -> bool:
        """Whether its ledger is its result."""
        return self.status == "finished"

    @property
    def lack(self) -> str:
        """Why it is no finished run; empty where it is one."""
        at = f" at {self.samples:,} samples" if self.samples else ""
        return {
            "finished": "",
            "planned": "planned, and not begun",
            "running": f"still running{at}",
            "failed": f"failed{at}: {self.problem}",
        }.get(self.status, f"{self.status}{at}")

    @property
    def test_conditions(self) -> dict[str, str]:
        """The settings that runs must share for their test values in nats to be comparable."""
        shared = {key: as_text(value) for key, value in self.settings.items() if decides_the_density(key)}
        return {**shared, "likelihood": self.likelihood}

    @property
    def draws(self) -> int:
        """How many draws of z there are for each datapoint where its curve is measured."""
        return draws_of(self.settings)

    @cached_property
    def measured(self) -> Mapping[str, Any]:
        """The measured values: the ledger of a finished run, else the last value of each column of the curve."""
        if not self.curve or (self.is_finished and (self.ledger or self.checkpoint == "best")):
            return self.ledger
        return latest(self.curve, self.settings)

    def value(self, key: str) -> float | None:
        """A measured value."""
        return number_or_none(self.measured.get(key))

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Samples evaluated and values of a column of the curve."""
        return series(self.curve, key)


def read_overview(path: Path, checkpoint: str | None = None) -> Overview:
    """What the run directory at `path` says now, of a checkpoint; None: of the one that is read by default.

    Raises:
        RunError: it is none, or not whole.
    """
    run = RunDir(path)
    if run.path.is_dir() and not any((run.path / name).exists() for name in MARKS):
        RunDir.existing(path)
    if not run.path.is_dir():
        raise RunError(f"{path} is no run directory: there is no such folder")
    found = glance(run.path)
    if found.status == BROKEN:
        what = "is no whole run directory" if run.exists() else "is no run directory"
        raise RunError(f"{path} {what}: {found.problem}")
    if not isinstance(size := found.settings.get("model.latent_dim"), int):
        has = "has no model.latent_dim" if size is None else f"has model.latent_dim={size}, which is no integer"
        raise RunError(f"{path} is no whole run directory: config.yaml {has}")
    chosen = checkpoint or run.default_checkpoint
    try:
        ledger = found.ledger if chosen == run.default_checkpoint else run.ledger(chosen)
        curve = read_rows(run.curve_file)
    except RunError as error:
        raise RunError(f"{path} is no whole run directory: {type(error).__name__}: {error}") from error
    return replace(found, checkpoint=chosen, ledger=ledger, curve=curve)


def find_runs(roots: Sequence[str | Path]) -> list[Overview]:
    """Every run directory below the folders, in the order of their paths; one that is found twice is listed once.

    One that is not finished, and of which no checkpoint was measured, has its curve.
    """
    seen: set[tuple[int, int]] = set()
    found = (run for root in roots for run in _search(Path(root).expanduser(), seen))
    return [run if run.is_finished or run.ledger or run.status == BROKEN else _listed(run) for run in found]


def glance(path: Path) -> Overview:
    """One run directory, in whatever state it is, without its curve."""
    problems: list[str] = []

    def attempt(read: Callable[..., Mapping[str, Any]], *arguments: Any) -> Mapping[str, Any]:
        try:
            return read(path, *arguments)
        except Unreadable as error:
            problems.append(error.problem)
            return {}

    record = attempt(read_record)
    settings, ledger = attempt(read_settings, record), attempt(read_ledger)
    status = record.get("status", BROKEN)
    if problems:
        status, problem = BROKEN, "; ".join(problems)
    else:
        problem = " ".join(str(record.get("error") or "").split()) if status == "failed" else ""
        status = RunDir(path).believed(status)
    return Overview(path, status, problem, settings, record, ledger)


def read_overviews(paths: Iterable[Path], checkpoint: str | None = None) -> tuple[list[Overview], dict[Path, RunError]]:
    """The run directories among these folders, and why the others are none, or not whole."""
    runs, errors = [], {}
    for path in paths:
        try:
            runs.append(read_overview(path, checkpoint))
        except RunError as error:
            errors[path] = error
    return runs, errors


def grouped(runs: Mapping[str, Overview], key: Callable[[Overview], Mapping[str, str]]) -> list[dict[str, Overview]]:
    """The labelled runs in groups of equal `key`, in the order of their first members."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, Overview]] = {}
    for label, run in runs.items():
        groups.setdefault(tuple(sorted(key(run).items())), {})[label] = run
    return list(groups.values())


def _search(root: Path, seen: set[tuple[int, int]]) -> Iterator[Overview]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:  # reached by a link or by another root
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as content:
                found = sorted(content, key=lambda item: item.name)
        except OSError as error:
            yield Overview(folder, BROKEN, f"the folder cannot be read ({error.strerror})")
            continue
        names = {item.name for item in found}
        if names & MARKS:
            yield glance(folder)
            if names >= NEEDED:
                continue
        waiting += [
            Path(item.path)
            for item in reversed(found)
            if not item.name.startswith(".") and item.name not in FOLDERS and item.is_dir()
        ]


def _listed(run: Overview) -> Overview:
    try:
        return replace(run, curve=read_rows(RunDir(run.path).curve_file))
    except RunError as error:
        return replace(run, status=BROKEN, problem=f"metrics.csv: {type(error).__name__}: {error}")


def _scalars(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are one value; a number that is none, or endless, is left out."""
    return {
        key: value
        for key, value in content.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }


def _component_name(target: str) -> str:
    """`mnist` for vae_lab.data.mnist.MNIST, Adam for torch.optim.Adam."""
    *_, module, kind = f".{target}".split(".")
    return module if target.startswith("vae_lab.") else kind
