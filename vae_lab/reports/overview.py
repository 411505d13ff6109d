"""Whole run directories at a glance, finished or not: settings, values, curve, and how runs differ.

Read once and held in memory, so that a run that goes on meanwhile is seen at one moment. No weights are read.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_lab.errors import RunError
from vae_lab.reports.listing.entries import BROKEN, Entry, read_entry
from vae_lab.reports.listing.keys import ABSENT, Keys, as_text, differing, is_number
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir

FIRST = ("data", "model", "objective", "latent_dim", "lr")
"""What tells runs apart, most important first; then everything else, the seed last."""
OTHER_TRAINING = ("data.batch_size", "data.root", "data.train_size")
"""Settings of the data set that leave its test part as it is."""


@dataclass(frozen=True)
class Overview:
    """What a run directory says."""

    entry: Entry
    checkpoint: str
    """`best` or `last`: whose values and pictures are asked for."""
    ledger: Mapping[str, Any]
    """Of that checkpoint; empty where nothing was measured."""
    curve: Sequence[Mapping[str, float]]

    @property
    def path(self) -> Path:
        """The run directory."""
        return Path(self.entry.path)

    @property
    def status(self) -> str:
        """As run.json has it, but `interrupted` where nobody is at work any more."""
        return self.entry.status

    @property
    def record(self) -> Mapping[str, Any]:
        """run.json."""
        return self.entry.record

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config by dotted keys."""
        return self.entry.settings

    @property
    def data(self) -> str:
        """The data set; a user's own by the name of its file."""
        path = self.settings.get("data.path")
        return Path(path).stem if isinstance(path, str) and path else as_text(self.entry.names.get("data", ABSENT))

    @property
    def network(self) -> str:
        """The kind of network."""
        return str(self.entry.names.get("network", ABSENT))

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
        recorded: Any = self.record.get("samples_evaluated")
        last = self.curve[-1]["samples_evaluated"] if self.curve else 0
        return int(max(last, recorded if is_number(recorded) else 0))

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
            "failed": f"failed{at}: {self.entry.problem}",
        }.get(self.status, f"{self.status}{at}")

    def value(self, key: str) -> float | None:
        """A measured value: of the ledger if the run is finished, else the last one on its curve."""
        if self.is_finished and (self.ledger or self.checkpoint == "best"):
            value = self.ledger.get(key)
            return value if is_number(value) else None
        return next((row[key] for row in reversed(self.curve) if key in row), None)

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Samples evaluated and values of a column of the curve."""
        rows = [row for row in self.curve if key in row]
        return [row["samples_evaluated"] for row in rows], [row[key] for row in rows]


def read_overview(path: Path, checkpoint: str | None = None) -> Overview:
    """What the run directory at `path` says now, of a checkpoint; None: of the one that is read by default.

    Raises:
        RunError: it is none, or not whole.
    """
    run = RunDir(path)
    if not run.path.is_dir():
        raise RunError(f"{path} is no run directory: there is no such folder")
    entry = read_entry(str(run.path))
    if entry.status == BROKEN:
        what = "is no whole run directory" if run.exists() else "is no run directory"
        raise RunError(f"{path} {what}: {entry.problem}")
    if not isinstance(entry.settings.get("model.latent_dim"), int):
        raise RunError(f"{path} is no whole run directory: config.yaml has no model.latent_dim")
    chosen = checkpoint or run.default_checkpoint
    try:
        ledger = entry.ledger if chosen == run.default_checkpoint else run.ledger(chosen)
        curve = [row for row in read_rows(run.curve) if "samples_evaluated" in row]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is no whole run directory: {type(error).__name__}: {error}") from error
    return Overview(entry, chosen, ledger, curve)


def differences(runs: Sequence[Overview]) -> dict[str, list[str]]:
    """The settings that runs disagree in -> the value of each run as text; a dash where it has no such setting."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    columns = {key: [as_text(run.settings[key]) if key in run.settings else ABSENT for run in runs] for key in keys}
    return {key: texts for key, texts in columns.items() if len(set(texts)) > 1}


def distinctions(runs: Sequence[Overview]) -> dict[str, list[str]]:
    """In few columns what tells runs apart -> the text of each run. Runs with the same texts compute the same."""
    entries = [run.entry for run in runs]
    found = differing(entries, Keys(entries))
    columns = {short: [as_text(entry.values.get(key, ABSENT)) for entry in entries] for key, short in found.items()}
    order = [*(name for name in FIRST if name in columns), *(name for name in columns if name not in (*FIRST, "seed"))]
    return {name: columns[name] for name in [*order, *(["seed"] if "seed" in columns else [])]}


def yardstick(run: Overview) -> dict[str, str]:
    """The settings that runs must share for their test values in nats to be comparable."""
    data = {key: as_text(value) for key, value in run.settings.items() if key.startswith("data.")}
    return {key: text for key, text in data.items() if key not in OTHER_TRAINING} | {"likelihood": run.likelihood}


def grouped(runs: Mapping[str, Overview], key: Callable[[Overview], Any]) -> list[dict[str, Overview]]:
    """The labelled runs in groups of equal `key`, in the order of their first members."""
    groups: list[tuple[Any, dict[str, Overview]]] = []
    for label, run in runs.items():
        value = key(run)
        found = next((members for known, members in groups if known == value), None)
        if found is None:
            groups.append((value, found := {}))
        found[label] = run
    return [members for _, members in groups]
