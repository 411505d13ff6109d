"""A row for every group of finished runs: means and standard errors over seeds."""

from collections.abc import Sequence
from typing import Any

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.columns import Columns, direction
from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.groups import Group, Mean, make_groups, means
from vae_lab.reports.listing.keys import Keys, as_text, order
from vae_lab.reports.listing.table import Heading, Number, Table, all_numbers, counted, title_of

Row = tuple[Group, list[Mean | None]]


def table_of_groups(
    entries: Sequence[Entry],
    group: Sequence[str],
    over: Sequence[str],
    show: Sequence[str],
    sort: Sequence[str],
    title: str,
) -> Table:
    """The groups in the order of their keys, or as `sort` says.

    Raises:
        ConfigError: `show` or `sort` names what a group has no single value and no mean of.
    """
    finished = [entry for entry in entries if entry.status == "finished"]
    keys = Keys(finished)
    columns = Columns(finished, show)
    if columns.texts:
        raise ConfigError(f"{columns.texts[0]} is no number, and has no mean: name it in group=")
    groups, repeated = make_groups(finished, columns.columns, group, over)
    rows = _sorted(list(zip(groups, means(groups, columns.columns), strict=True)), columns, group, sort)
    table = Table(title, len(rows))
    for at, key in enumerate(group):
        heading = Heading(title_of(keys.short(key)), is_number=all_numbers(finished, key))
        table.add_column(heading, [as_text(one.values[at]) for one, _ in rows])
    facts = _separating(groups)
    for fact in facts:
        table.add_column(Heading(fact), [one.fact(fact) for one, _ in rows])
    counts = [f"{len(one.members)}{'*' if one.mixed else ''}" for one, _ in rows]
    table.add_column(Heading("n", is_number=True), counts)
    for at in range(len(columns.names)):
        table.add_column(columns.heading(at), [_cell(columns, at, row) for row in rows])
    short = {key: title_of(keys.short(key)) for one in groups for key in one.mixed}
    table.notes = columns.explanations(f"standard error of the mean of n runs over {', '.join(map(keys.short, over))}")
    if facts:
        table.notes.append(f"not averaged over {', '.join(facts)}: such values cannot be compared")
    if short:
        names = ", ".join(short.values())
        table.notes.append(
            f"*: the n runs differ in {names} as well: to be named in group=, or in over= if it is meant"
        )
    if repeated:
        table.notes.append(f"left out, repeated later with the very same settings: {counted(repeated)}")
    if len(finished) < len(entries):
        table.notes.append(f"left out, not finished: {counted(len(entries) - len(finished))}")
    table.records = [_record(columns, row, group, facts, [finished[i].path for i in row[0].members]) for row in rows]
    return table


def _sorted(rows: list[Row], columns: Columns, group: Sequence[str], sort: Sequence[str]) -> list[Row]:
    for given in reversed(sort):
        key, descending = direction(given)
        if key in group:
            rows = sorted(rows, key=lambda row: order(row[0].values[group.index(key)]), reverse=descending)
            continue
        at = columns.place(key)
        if at is None:
            raise ConfigError(f"sort={given} must name a key of group= or a measured value: groups have no other")
        measured = [(mean.value, row) for row in rows if (mean := row[1][at]) is not None]
        measured.sort(key=lambda pair: pair[0], reverse=descending)
        places = {columns.footnotes.unmarked[at]: 0}
        ranks = [places.setdefault(row[0].yardsticks[at], len(places)) for _, row in measured]
        ranked = sorted(zip(ranks, measured, strict=True), key=lambda pair: pair[0])
        rows = [*(row for _, (_, row) in ranked), *(row for row in rows if row[1][at] is None)]
    return rows


def _separating(groups: Sequence[Group]) -> list[str]:
    """The facts in which groups of the same keys differ."""
    alike: dict[tuple[str, ...], list[Group]] = {}
    for one in groups:
        alike.setdefault(tuple(map(as_text, one.values)), []).append(one)
    names = dict.fromkeys(name for one in groups for known in one.yardsticks for name, _ in known)
    return [name for name in names if any(len({one.fact(name) for one in some}) > 1 for some in alike.values())]


def _cell(columns: Columns, at: int, row: Row) -> Number | str:
    """A mean; where some of the group's runs have no value, with the number of those that have."""
    group, mean = row[0], row[1][at]
    if mean is None:
        return ""
    few = f"(n={mean.num})" if mean.num < len(group.members) else ""
    return Number(mean.value, mean.error, " ".join(filter(None, [columns.mark(at, group.yardsticks[at]), few])))


def _record(
    columns: Columns, row: Row, keys: Sequence[str], facts: Sequence[str], paths: Sequence[str]
) -> dict[str, Any]:
    """A group for a program."""
    group, stats = row
    record: dict[str, Any] = dict(zip(keys, group.values, strict=True)) | {fact: group.fact(fact) for fact in facts}
    record |= {"n": len(group.members), "mixed": group.mixed}
    for at, name in enumerate(columns.names):
        mean = stats[at]
        measured = (value.key for i in group.members if (value := columns.columns[at][i]) is not None)
        record |= {
            name: mean and mean.value,
            f"{name}_se": mean and mean.error,
            f"{name}_n": mean.num if mean else 0,
            f"{name}_key": next(measured, None),
            f"{name}_mark": columns.mark(at, group.yardsticks[at]) if mean else None,
        }
    return record | {"runs": list(paths)}
