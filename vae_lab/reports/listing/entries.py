"""Run directories as a list sees them: found below a folder, read from three small files, broken ones included."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vae_lab.reports.listing.small_files import Unreadable, read_ledger, read_record, read_settings
from vae_lab.runs.directory import RunDir

MARKS = {"config.yaml", "run.json", "metrics.json", "metrics.csv", "checkpoints"}
"""A folder that holds one of these is a run directory, or what is left of one."""
PARTS = {"checkpoints", "images", "tensorboard"}
"""Folders of a run directory, in which no other is looked for."""
BROKEN = "broken"
"""The status of what cannot be read."""


@dataclass(frozen=True)
class Entry:
    """What the small files of a run directory say."""

    path: str
    status: str
    """As in run.json, but `interrupted` where nobody is at work any more, and `broken` where a file is unreadable."""
    problem: str = ""
    """Why it is broken, or the error with which it failed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The config by dotted keys; a list is one value."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """run.json."""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    """metrics.json."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """Everything that `where`, `sort` and `group` know of it, by name; names of parts stand for the parts."""
        own = {"path": self.path, "status": self.status, "problem": self.problem}
        return {**_scalars(self.record), **_scalars(self.ledger), **self.settings, **self.names, **own}

    @cached_property
    def names(self) -> dict[str, Any]:
        """What its parts are called: `data`, `model`, `objective`, ... as chosen, `data.name`, `network`."""
        choices = self.record.get("choices")
        names = {key: name for key, name in choices.items() if name} if isinstance(choices, dict) else {}
        for key, target in self.settings.items():
            part, dot, last = key.rpartition(".")
            if last == "_target_" and dot and "." not in part:
                names.setdefault(part, _part_name(str(target)))
        network = self.settings.get("model.encoder._target_") or self.settings.get("model.decoder._target_")
        if network:
            *_, module, kind = f".{network}".split(".")
            names["network"] = re.sub("(Encoder|Decoder)$", "", kind)
            if not (isinstance(choices, dict) and choices.get("model")):
                names["model"] = module
        if data := self.ledger.get("data") or names.get("data"):
            names["data.name"] = data
        return names


def find_entries(roots: Sequence[str | Path]) -> list[Entry]:
    """Every run directory below the folders, in the order of their paths; one that is found twice is listed once."""
    seen: set[tuple[int, int]] = set()
    return [entry for root in roots for entry in _search(os.path.expanduser(root), seen)]


def read_entry(path: str) -> Entry:
    """One run directory, in whatever state it is."""
    problems: list[str] = []
    parts: dict[str, Mapping[str, Any]] = {}
    for name, read in (("config.yaml", read_settings), ("run.json", read_record), ("metrics.json", read_ledger)):
        try:
            parts[name] = read(path)
        except Unreadable as error:
            problems.append(str(error))
            parts[name] = {}
    record = parts["run.json"]
    status = record.get("status", BROKEN)
    if problems:
        status, problem = BROKEN, "; ".join(problems)
    else:
        problem = " ".join(str(record.get("error") or "").split()) if status == "failed" else ""
        if status == "running" and not RunDir(path).is_locked():
            status = "interrupted"
    return Entry(path, status, problem, parts["config.yaml"], record, parts["metrics.json"])


def _search(folder: str, seen: set[tuple[int, int]]) -> Iterator[Entry]:
    try:
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # reached by a link or by another root
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as content:
            found = sorted(content, key=lambda item: item.name)
    except OSError as error:
        yield Entry(folder, BROKEN, f"the folder cannot be read ({error.strerror})")
        return
    names = {item.name for item in found}
    if names & MARKS:
        yield read_entry(folder)
        if {"config.yaml", "run.json"} <= names:
            return
    for item in found:
        if not item.name.startswith(".") and item.name not in PARTS and item.is_dir():
            yield from _search(item.path.removeprefix("./"), seen)


def _scalars(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are one value; a number that is none, or endless, is left out."""
    return {
        key: value
        for key, value in content.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }


def _part_name(target: str) -> str:
    """`mnist` for vae_lab.data.mnist.MNIST, Adam for torch.optim.Adam."""
    *_, module, kind = f".{target}".split(".")
    return module if target.startswith("vae_lab.") else kind
