"""The keys of listed runs: full and short names, which of them differ, values as text and in order."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from vae_lab.errors import ConfigError, nearest
from vae_lab.reports.listing.entries import Entry
from vae_lab.runs.identity import PLACES, UNIDENTIFYING

HIGHER_IS_BETTER = re.compile(r"(^|/)(bound|reconstruction|log_likelihood)(/[^/]*)?$")
BESIDE = ("_se", "_sd", "_num_datapoints", "_num_samples", "_seed", "_bias")
"""Endings of what the ledger says about a value."""
LARGEST = 1e300
ABSENT = "–"


class Keys:
    """Every key that some of the runs have, by its full name or by the shortest end of it that says which is meant."""

    def __init__(self, entries: Sequence[Entry], aliases: Mapping[str, str] | None = None) -> None:
        self.entries = entries
        self.aliases = aliases or {}
        self.known = dict.fromkeys(key for entry in entries for key in entry.values)
        self._by_last: dict[str, list[str]] = {}
        for key in self.known:
            self._by_last.setdefault(key.rpartition(".")[2], []).append(key)

    def resolve(self, name: str, option: str) -> str:
        """The full name of a key that `option` names.

        Raises:
            ConfigError: there is none, or several that disagree.
        """
        name = self.aliases.get(name, name)
        if name in self.known:
            return name
        found = self._ending_in(name)
        if not found:
            raise ConfigError(
                f"{option}: {name} is no key of the runs: {nearest(name, [*self.known, *self._by_last, *self.aliases])}"
            )
        if not self._agree(found):
            raise ConfigError(f"{option}: {name} may be {' or '.join(found)}, which differ: write one of these")
        return found[0]

    def short(self, key: str) -> str:
        """The shortest end of the key that `resolve` takes for it, or for one that has the same values in every run."""
        parts = key.split(".")
        if parts[-1] == "name":  # which says nothing by itself
            return key
        for i in range(len(parts) - 1, 0, -1):
            name = ".".join(parts[i:])
            if self._agree([key, *self._ending_in(name), *([name] if name in self.known else [])]):
                return name
        return key

    def texts(self, key: str) -> tuple[str, ...]:
        """The key's value in every run, as text."""
        return tuple(as_text(entry.values[key]) if key in entry.values else ABSENT for entry in self.entries)

    def _ending_in(self, name: str) -> list[str]:
        return [key for key in self._by_last.get(name.rpartition(".")[2], []) if key.endswith(f".{name}")]

    def _agree(self, keys: Sequence[str]) -> bool:
        return len({self.texts(key) for key in keys}) == 1


def differing(entries: Sequence[Entry], keys: Keys) -> dict[str, str]:
    """The settings that matter in which the runs differ -> the short name.

    The name of a part stands for its class; a setting that is there, or has its value, because of the class of its
    part is not mentioned. What has the same name and the same values (the widths of encoder and decoder) comes once.
    """
    found: dict[str, tuple[str, ...]] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry.settings):
        if not matters(key) or len({_text(entry, key) for entry in entries}) == 1:
            continue
        if key.endswith("._target_"):
            key = _name_of_part(entries, key)
        elif not _differs_within_its_part(entries, key):
            continue
        column = tuple(_text(entry, key) for entry in entries)
        if not any(column == other and _last(key) == _last(known) for known, other in found.items()):
            found[key] = column
    return {key: keys.short(key) for key in found}


def matters(key: str) -> bool:
    """Whether a setting changes what a run computes; what only says where, how fast and who looks on does not."""
    first, _, rest = key.partition(".")
    return first not in UNIDENTIFYING and key != "data.root" and not (first == "trainer" and rest in PLACES)


def is_better_higher(key: str) -> bool:
    """Whether more of it is better."""
    return HIGHER_IS_BETTER.search(key) is not None and not key.endswith(BESIDE)


def order(value: Any) -> tuple[int, float, str]:
    """What values are sorted by: numbers by size, before texts."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, as_text(value))


def as_text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number, and neither true or false nor endless nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _name_of_part(entries: Sequence[Entry], key: str) -> str:
    """For the class of a part: the key of its name, if the names differ as well."""
    part = key.split(".")[0]
    return part if len({_text(entry, part) for entry in entries}) > 1 else key


def _differs_within_its_part(entries: Sequence[Entry], key: str) -> bool:
    """Whether two runs differ in it whose parts around it have the same classes."""
    names = key.split(".")
    classes = [f"{'.'.join(names[:i])}._target_" for i in range(1, len(names))]
    texts: dict[tuple[Any, ...], str] = {}
    for entry in entries:
        around = tuple(entry.settings.get(name) for name in classes)
        if texts.setdefault(around, _text(entry, key)) != _text(entry, key):
            return True
    return False


def _text(entry: Entry, key: str) -> str:
    return as_text(entry.values[key]) if key in entry.values else ABSENT


def _last(key: str) -> str:
    return key.rpartition(".")[2]
