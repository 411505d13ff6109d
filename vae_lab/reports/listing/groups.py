"""Runs in groups: mean and standard error over seeds, never over values that cannot be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.keys import Keys, as_text, differing, order
from vae_lab.reports.listing.measured import Column, Yardstick


@dataclass(frozen=True)
class Group:
    """Runs that agree in the keys of `group` and can be compared in every column."""

    values: tuple[Any, ...]
    """Of the keys of `group`."""
    members: list[int]
    """Positions in the list of the runs."""
    yardsticks: tuple[Yardstick, ...]
    """Of each column; empty where nobody has a value."""
    mixed: list[str]
    """Settings besides those of `over` in which the members differ."""

    def fact(self, name: str) -> str:
        """What its yardsticks say of one thing, in all columns."""
        return ", ".join(dict.fromkeys(fact for known in self.yardsticks for other, fact in known if other == name))


@dataclass(frozen=True)
class Mean:
    """A column's mean over the members of a group."""

    value: float
    error: float | None
    """Its standard error sd/sqrt(n); None for n = 1."""
    num: int


def make_groups(
    entries: Sequence[Entry], columns: Sequence[Column], group: Sequence[str], over: Sequence[str]
) -> tuple[list[Group], int]:
    """The groups in the order of their keys, and how many runs were left out because a later one repeats them."""
    keys = Keys(entries)
    identifying = list(differing(entries, keys))
    buckets: dict[tuple[Any, ...], list[int]] = {}
    for i, entry in enumerate(entries):
        values = tuple(entry.values.get(key) for key in group)
        buckets.setdefault(tuple(map(as_text, values)), []).append(i)
    groups, repeated = [], 0
    for members in buckets.values():
        values = tuple(entries[members[0]].values.get(key) for key in group)
        for yardsticks, comparable in _comparable(members, columns).items():
            latest = {tuple(as_text(entries[i].values.get(key)) for key in identifying): i for i in comparable}
            repeated += len(comparable) - len(latest)
            kept = sorted(latest.values())
            mixed = differing([entries[i] for i in kept], keys)
            groups.append(Group(values, kept, yardsticks, [key for key in mixed if key not in (*group, *over)]))
    return sorted(groups, key=lambda one: ([order(value) for value in one.values], one.yardsticks)), repeated


def means(groups: Sequence[Group], columns: Sequence[Column]) -> list[list[Mean | None]]:
    """For every group the mean of each column; None where nobody has a value."""
    import pandas as pd

    rows = [
        {"group": number, **{at: value.value for at, column in enumerate(columns) if (value := column[i]) is not None}}
        for number, group in enumerate(groups)
        for i in group.members
    ]
    frame = pd.DataFrame(rows, columns=["group", *range(len(columns))])
    table = frame.groupby("group").agg(["mean", "sem", "count"])
    found: list[list[Mean | None]] = []
    for number in range(len(groups)):
        row = table.loc[number]
        found.append([])
        for at in range(len(columns)):
            num = int(row[at, "count"])
            error = float(row[at, "sem"]) if num > 1 else None
            found[-1].append(Mean(float(row[at, "mean"]), error, num) if num else None)
    return found


def _comparable(members: Sequence[int], columns: Sequence[Column]) -> dict[tuple[Yardstick, ...], list[int]]:
    """The members by the yardsticks of all columns; a missing value goes with what most of the others have."""
    found: dict[tuple[Yardstick, ...], list[int]] = {}
    own = {i: [column[i] for column in columns] for i in members}
    for i in members:
        filled = []
        for at, value in enumerate(own[i]):
            if value is not None:
                filled.append(value.yardstick)
                continue
            alike = [j for j in members if all(_fits(own[j][k], known) for k, known in enumerate(filled))]
            counts = Counter(other.yardstick for j in alike if (other := own[j][at]) is not None)
            filled.append(counts.most_common(1)[0][0] if counts else ())
        found.setdefault(tuple(filled), []).append(i)
    return found


def _fits(value: Any, known: Yardstick) -> bool:
    return value is None or value.yardstick == known
