"""The rows of `vae-lab runs`: one for every run, or one for every group of finished runs with means over seeds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.measured import SAMPLES, SECONDS, Measured, Value, Yardstick, direction, ranked
from vae_lab.reports.listing.runs import Runs, title_of
from vae_lab.reports.listing.table import Number, Table
from vae_lab.reports.overview import BROKEN
from vae_lab.reports.values import as_text, number_or_none, order
from vae_lab.wiring.terminal import duration

MOST_COLUMNS = 4
"""So many settings in which runs differ have columns of their own; more are listed in one."""
MOST_PROBLEMS = 10
"""So many broken and failed runs are explained below the table."""
ALWAYS = ("path", "status", "experiment", SAMPLES, SECONDS)
"""Keys that have a column whatever is asked for."""
FACTS = ("scale", "binarization", "split_hash", "likelihood", "checkpoint")
"""Entries of the ledger that programs get beside its values."""


def list_of_runs(runs: Runs, show: Sequence[str], title: str) -> Table:
    """The runs in their order: status, what differs, samples, bound, log p(x), time."""
    measured = Measured(runs.runs, show, without=ALWAYS)
    varied = {key: title_of(short) for key, short in runs.differing().items() if key not in measured.texts}
    records = []
    for i, run in enumerate(runs.runs):
        keys = ("path", "status", "problem", "experiment", *varied, *measured.texts)
        record = {key: run.values.get(key) for key in keys} | {"data": run.values.get("data.name")}
        record |= {key: run.ledger.get(key) for key in FACTS}
        record |= {key: number_or_none(run.values.get(key)) for key in (SAMPLES, SECONDS)}
        for at, name in enumerate(measured.names):
            one = measured.columns[at][i]
            entries = (one.value, one.error, one.key, measured.mark(at, one.yardstick)) if one else (None,) * 4
            record |= dict(zip((name, f"{name}_se", f"{name}_key", f"{name}_mark"), entries, strict=True))
        records.append(record)
    table = Table(title, records)
    for name, key in (("run", "path"), ("status", "status"), ("experiment", "experiment")):
        table.add_column(name, runs.text(key))
    texts = {name: runs.text(key) for key, name in varied.items()}
    if len(varied) <= MOST_COLUMNS:
        for key, name in varied.items():
            table.add_column(name, texts[name], runs.has_numbers_only(key))
    else:
        rows = zip(*texts.values(), strict=True)
        named = [" ".join(f"{name}={text}" for name, text in zip(texts, row, strict=True) if text) for row in rows]
        table.add_column("what differs", named)
    for key in measured.texts:
        table.add_column(key, runs.text(key))
    numbers = {key: [record[key] for record in records] for key in (SAMPLES, SECONDS)}
    table.add_column("samples", ["" if num is None else f"{num:,}" for num in numbers[SAMPLES]], True)
    for at, column in enumerate(measured.columns):
        cells = [Number(one.value, one.error, measured.mark(at, one.yardstick)) if one else "" for one in column]
        table.add_column(measured.title(at), cells, True)
    table.add_column("time", ["" if time is None else duration(time) for time in numbers[SECONDS]], True)
    has_errors = any(one and one.error is not None for column in measured.columns for one in column)
    problems = [f"{run.status}: {run.path}: {run.problem}" for run in runs.runs if run.problem]
    table.notes = [*measured.notes("Monte Carlo standard error" if has_errors else ""), *problems[:MOST_PROBLEMS]]
    if (rest := len(problems) - MOST_PROBLEMS) > 0:
        table.notes.append(f"and {rest} more: where=status={BROKEN}, where=status=failed")
    return table


@dataclass(frozen=True)
class Mean:
    """A column's mean over the members of a group."""

    value: float
    error: float | None
    """Its standard error sd/sqrt(n); None for n = 1."""
    num: int


@dataclass(frozen=True)
class Group:
    """Runs that agree in the keys of `group` and can be compared in every column."""

    values: tuple[Any, ...]
    """The values of the keys of `group`."""
    members: list[int]
    """The positions of its runs in their list."""
    yardsticks: tuple[Yardstick, ...]
    """What the values of each column are measured by; empty where nobody has one."""
    mixed: list[str]
    """Settings besides those of `over` in which the members differ."""
    means: list[Mean | None]
    """The mean of each column; None where nobody has a value."""

    def fact(self, name: str) -> str:
        """What its yardsticks say of one thing, in all columns."""
        return ", ".join(dict.fromkeys(fact for known in self.yardsticks for other, fact in known if other == name))


def table_of_groups(
    runs: Runs, group: Sequence[str], over: Sequence[str], show: Sequence[str], sort: Sequence[str], title: str
) -> Table:
    """Means and standard errors over seeds, in the order of the groups' keys, or as `sort` says.

    Raises:
        ConfigError: `show` or `sort` names what a group has no single value and no mean of.
    """
    finished = runs.chosen([i for i, run in enumerate(runs.runs) if run.status == "finished"])
    measured = Measured(finished.runs, show)
    if measured.texts:
        raise ConfigError(f"{measured.texts[0]} is no number, and has no mean: name it in group=")
    groups, repeated = make_groups(finished, measured, group, over)
    groups = _sorted(groups, measured, group, sort)
    facts = _separating(groups)
    table = Table(title, [_record(one, finished, measured, group, facts) for one in groups])
    for at, key in enumerate(group):
        cells = [as_text(one.values[at]) for one in groups]
        table.add_column(title_of(finished.short(key)), cells, key in finished.frame and finished.has_numbers_only(key))
    for fact in facts:
        table.add_column(fact, [one.fact(fact) for one in groups])
    table.add_column("n", [f"{len(one.members)}{'*' if one.mixed else ''}" for one in groups], True)
    for at in range(len(measured.names)):
        table.add_column(measured.title(at), [_cell(measured, at, one) for one in groups], True)
    names = ", ".join(map(finished.short, over))
    table.notes = list(measured.notes(f"standard error of the mean of n runs over {names}"))
    if facts:
        table.notes.append(f"not averaged over {', '.join(facts)}: such values cannot be compared")
    if mixed := dict.fromkeys(title_of(finished.short(key)) for one in groups for key in one.mixed):
        table.notes.append(
            f"*: the n runs differ in {', '.join(mixed)} as well: to be named in group=, or in over= if it is meant"
        )
    if repeated:
        table.notes.append(f"left out, repeated later with the very same settings: {counted(repeated)}")
    if left := len(runs.runs) - len(finished.runs):
        table.notes.append(f"left out, not finished: {counted(left)}")
    return table


def make_groups(runs: Runs, measured: Measured, group: Sequence[str], over: Sequence[str]) -> tuple[list[Group], int]:
    """The groups in the order of their keys, and how many runs were left out because a later one repeats them."""
    identifying = list(runs.differing())
    buckets: dict[tuple[str, ...], list[int]] = {}
    for i, run in enumerate(runs.runs):
        buckets.setdefault(tuple(as_text(run.values.get(key)) for key in group), []).append(i)
    table = [[None if value is None else value.value for value in column] for column in measured.columns]
    values = pd.DataFrame(dict(enumerate(table)), dtype=float)
    groups, repeated = [], 0
    for bucket in buckets.values():
        for yardsticks, comparable in _comparable(bucket, measured).items():
            again = runs.texts.loc[comparable, identifying].duplicated(keep="last")
            members = [i for i in comparable if not again[i]] if identifying else comparable[-1:]
            repeated += len(comparable) - len(members)
            stats = values.loc[members].agg(["mean", "sem", "count"])
            means = [
                Mean(float(mean), float(error) if num > 1 else None, int(num)) if num else None
                for mean, error, num in (stats[at] for at in stats)
            ]
            mixed = [key for key in runs.chosen(members).differing() if key not in (*group, *over)]
            first = runs.runs[members[0]].values
            groups.append(Group(tuple(first.get(key) for key in group), members, yardsticks, mixed, means))
    return sorted(groups, key=lambda one: ([order(value) for value in one.values], one.yardsticks)), repeated


def counted(num: int) -> str:
    """A number of runs in words."""
    return f"{num} run{'' if num == 1 else 's'}"


def _comparable(members: Sequence[int], measured: Measured) -> dict[tuple[Yardstick, ...], list[int]]:
    """The members by the yardsticks of all columns; a missing value goes with what most of the others have."""
    found: dict[tuple[Yardstick, ...], list[int]] = {}
    own = {i: [column[i] for column in measured.columns] for i in members}
    for i in members:
        filled: list[Yardstick] = []
        for at, value in enumerate(own[i]):
            if value is not None:
                filled.append(value.yardstick)
                continue
            alike = [j for j in members if all(_fits(own[j][k], known) for k, known in enumerate(filled))]
            counts = Counter(other.yardstick for j in alike if (other := own[j][at]) is not None)
            filled.append(counts.most_common(1)[0][0] if counts else ())
        found.setdefault(tuple(filled), []).append(i)
    return found


def _fits(value: Value | None, known: Yardstick) -> bool:
    return value is None or value.yardstick == known


def _sorted(groups: list[Group], measured: Measured, group: Sequence[str], sort: Sequence[str]) -> list[Group]:
    for given in reversed(sort):
        key, descending = direction(given)
        if key in group:
            groups = sorted(groups, key=lambda one: order(one.values[group.index(key)]), reverse=descending)
            continue
        at = measured.place(key)
        if at is None:
            raise ConfigError(f"sort={given} must name a key of group= or a measured value: groups have no other")
        rows = [(mean and mean.value, one.yardsticks[at], one) for one in groups for mean in one.means[at : at + 1]]
        groups = ranked(rows, measured.unmarked[at], descending)
    return groups


def _separating(groups: Sequence[Group]) -> list[str]:
    """The facts in which groups of the same keys differ."""
    alike: dict[tuple[str, ...], list[Group]] = {}
    for one in groups:
        alike.setdefault(tuple(map(as_text, one.values)), []).append(one)
    names = dict.fromkeys(name for one in groups for known in one.yardsticks for name, _ in known)
    return [name for name in names if any(len({one.fact(name) for one in some}) > 1 for some in alike.values())]


def _cell(measured: Measured, at: int, group: Group) -> Number | str:
    """A mean; where some of the group's runs have no value, with the number of those that have."""
    mean = group.means[at]
    if mean is None:
        return ""
    few = f"(n={mean.num})" if mean.num < len(group.members) else ""
    return Number(mean.value, mean.error, " ".join(filter(None, [measured.mark(at, group.yardsticks[at]), few])))


def _record(group: Group, runs: Runs, measured: Measured, keys: Sequence[str], facts: Sequence[str]) -> dict[str, Any]:
    """A group for a program."""
    record: dict[str, Any] = dict(zip(keys, group.values, strict=True)) | {fact: group.fact(fact) for fact in facts}
    record |= {"n": len(group.members), "mixed": group.mixed}
    for at, name in enumerate(measured.names):
        mean = group.means[at]
        keys_of_values = (value.key for i in group.members if (value := measured.columns[at][i]) is not None)
        record |= {
            name: mean and mean.value,
            f"{name}_se": mean and mean.error,
            f"{name}_n": mean.num if mean else 0,
            f"{name}_key": next(keys_of_values, None),
            f"{name}_mark": measured.mark(at, group.yardsticks[at]) if mean else None,
        }
    return record | {"runs": [str(runs.runs[i].path) for i in group.members]}
