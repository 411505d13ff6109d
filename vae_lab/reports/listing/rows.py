"""A row for every run: status, what differs, samples, bound, log p(x), time."""

from collections.abc import Mapping, Sequence
from typing import Any

from vae_lab.reports.listing.columns import SAMPLES, SECONDS, Columns
from vae_lab.reports.listing.entries import BROKEN, Entry
from vae_lab.reports.listing.keys import Keys, differing, is_number
from vae_lab.reports.listing.table import Heading, Number, Table, all_numbers, text_of, title_of
from vae_lab.wiring.terminal import duration

MOST_COLUMNS = 4
"""So many settings in which runs differ have columns of their own; more are listed in one."""
MOST_PROBLEMS = 10
"""So many broken and failed runs are explained below the table."""
ALWAYS = ("path", "status", "experiment", SAMPLES, SECONDS)
"""Keys that have a column whatever is asked for."""
FACTS = ("scale", "binarization", "split_hash", "likelihood", "checkpoint")
"""Entries of the ledger that programs get beside its values."""


def list_of_runs(entries: Sequence[Entry], show: Sequence[str], title: str) -> Table:
    """The runs in their order."""
    keys = Keys(entries)
    columns = Columns(entries, show, without=ALWAYS)
    varied = {key: short for key, short in differing(entries, keys).items() if key not in columns.texts}
    table = Table(title, len(entries))
    table.add_column(Heading("run"), [entry.path for entry in entries])
    table.add_column(Heading("status"), [entry.status for entry in entries])
    table.add_column(Heading("experiment"), [text_of(entry, "experiment") for entry in entries])
    if len(varied) <= MOST_COLUMNS:
        for key, short in varied.items():
            heading = Heading(title_of(short), is_number=all_numbers(entries, key))
            table.add_column(heading, [text_of(entry, key) for entry in entries])
    else:
        table.add_column(Heading("what differs"), [_differences(entry, varied) for entry in entries])
    for key in columns.texts:
        table.add_column(Heading(key), [text_of(entry, key) for entry in entries])
    samples = [_number(entry, SAMPLES) for entry in entries]
    table.add_column(Heading("samples", is_number=True), ["" if num is None else f"{num:,}" for num in samples])
    for at, column in enumerate(columns.columns):
        cells = [Number(one.value, one.error, columns.mark(at, one.yardstick)) if one else "" for one in column]
        table.add_column(columns.heading(at), cells)
    seconds = [_number(entry, SECONDS) for entry in entries]
    table.add_column(Heading("time", is_number=True), ["" if time is None else duration(time) for time in seconds])
    has_errors = any(one and one.error is not None for column in columns.columns for one in column)
    table.notes = [*columns.explanations("Monte Carlo standard error" if has_errors else ""), *_problems(entries)]
    table.records = [_record(columns, i, entry, [*varied, *columns.texts]) for i, entry in enumerate(entries)]
    return table


def _record(columns: Columns, at_run: int, entry: Entry, keys: Sequence[str]) -> dict[str, Any]:
    """A run for a program."""
    record = {key: entry.values.get(key) for key in ("path", "status", "problem", "experiment", *keys)}
    record |= {"data": entry.values.get("data.name")} | {key: entry.ledger.get(key) for key in FACTS}
    record |= {key: _number(entry, key) for key in (SAMPLES, SECONDS)}
    for at, name in enumerate(columns.names):
        one = columns.columns[at][at_run]
        values = (one.value, one.error, one.key, columns.mark(at, one.yardstick)) if one else (None,) * 4
        record |= dict(zip((name, f"{name}_se", f"{name}_key", f"{name}_mark"), values, strict=True))
    return record


def _number(entry: Entry, key: str) -> float | None:
    value = entry.values.get(key)
    return value if is_number(value) else None


def _differences(entry: Entry, varied: Mapping[str, str]) -> str:
    return " ".join(f"{title_of(short)}={text_of(entry, key)}" for key, short in varied.items() if key in entry.values)


def _problems(entries: Sequence[Entry]) -> list[str]:
    """Why runs are broken or failed."""
    told = [f"{entry.status}: {entry.path}: {entry.problem}" for entry in entries if entry.problem]
    rest = len(told) - MOST_PROBLEMS
    return [*told[:MOST_PROBLEMS], f"and {rest} more: where=status={BROKEN}, where=status=failed"] if rest > 0 else told
