"""The rows of `vae-lab runs`: one for every run, or one for every group of finished runs with means over seeds."""

import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from statistics import mode
from typing import Any

import pandas as pd

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.measured import SAMPLES, SECONDS, MeasuredColumns, Yardstick
from vae_lab.reports.listing.runs import Runs, texts_of, title_of
from vae_lab.reports.overview import BROKEN
from vae_lab.reports.values import ABSENT, as_text, counted, number_or_none
from vae_lab.wiring.table import Cell, Table
from vae_lab.wiring.terminal import duration

MOST_COLUMNS = 4
"""The most settings in which runs differ that have columns of their own; more are listed in one."""
MOST_PROBLEMS = 10
"""The most broken and failed runs that are explained below the table."""
ALWAYS = ("path", "status", "experiment", SAMPLES, SECONDS)
"""Keys that have a column whatever is asked for."""
FACTS = ("scale", "binarization", "split_hash", "likelihood", "checkpoint")
"""Entries of the ledger that programs get beside its values."""


def list_of_runs(
    runs: Runs,
    show: Sequence[str],
    sort: Sequence[str] = (),
    title: str = "",
    labels: Sequence[str] = (),
    root: str | None = None,
) -> Table:
    """The runs: status, what differs, samples, bound, log p(x), time; in their order, or as `sort` says.

    A setting differs that does so among runs of one experiment. Paths below `root` are written from there. Without
    `sort`, the runs may have `labels`; their paths then come last.
    """
    shown = [key for key in dict.fromkeys(show) if key not in ALWAYS]
    measured = MeasuredColumns.of_runs(runs.runs, [key for key in shown if key not in runs.settings])
    order = measured.best_first(sort, lambda key: [run.values.get(key) for run in runs.runs])
    runs, measured = Runs([runs.runs[i] for i in order]), measured.chosen(order)
    differing = {key: title_of(short) for key, short in runs.differing().items()}
    texts = {key: differing.get(key, key) for key in shown if not measured.column(key)}
    varied = {key: name for key, name in differing.items() if key not in texts}
    by_itself = [] if labels else runs.text("experiment")
    settings = [(name, runs.text(key)) for key, name in varied.items() if labels or runs.differ_within(by_itself, key)]
    if len(settings) > MOST_COLUMNS:
        rows = zip(*(cells for _, cells in settings), strict=True)
        named = [[f"{name}={text}" for (name, _), text in zip(settings, row, strict=True) if text] for row in rows]
        settings = [("what differs", list(map(" ".join, named)))]
    numbers = {key: [number_or_none(run.values.get(key)) for run in runs.runs] for key in (SAMPLES, SECONDS)}
    paths = [path if root in (None, path) else os.path.relpath(path, root) for path in runs.text("path")]
    columns: list[tuple[str, Sequence[Cell]]] = [
        ("run", labels or paths),
        *((key, runs.text(key)) for key in ("status", "experiment")),
        *settings,
        *((name, runs.text(key)) for key, name in texts.items()),
        ("samples", ["" if num is None else f"{num:,}" for num in numbers[SAMPLES]]),
        *measured.cells(),
        ("time", ["" if time is None else duration(time) for time in numbers[SECONDS]]),
        *([("directory", paths)] if labels else []),
    ]
    keys = {key: key for key in ("path", "status", "problem", "experiment", *varied, *texts)} | {"data": "data.name"}
    known = {name: [run.values.get(key) for run in runs.runs] for name, key in keys.items()} | numbers
    known |= {key: [run.ledger.get(key) for run in runs.runs] for key in FACTS}
    records = pd.DataFrame(known, dtype=object).join(measured.records())
    problems = [f"{run.status}: {run.path}: {run.problem}" for run in runs.runs if run.problem]
    notes = [*measured.notes("Monte Carlo standard error"), *problems[:MOST_PROBLEMS]]
    if (rest := len(problems) - MOST_PROBLEMS) > 0:
        notes.append(f"and {rest} more: where=status={BROKEN}, where=status=failed")
    return Table.of_columns(columns, "\n".join(notes), title, records)


class Groups:
    """Finished runs in groups that agree in some keys and can be compared in every column, with the means of these.

    Args:
        runs: those that are not finished are left out.
        group: the keys in which the runs of a group agree.
        over: the keys that are averaged over.
        show: measured quantities that are averaged besides bound and log p(x).
        sort: keys of `group` or measured quantities; without it the groups stand in the order of their keys.

    Raises:
        ConfigError: `show` or `sort` names what a group has no single value and no mean of.
    """

    def __init__(
        self, runs: Runs, group: Sequence[str], over: Sequence[str], show: Sequence[str], sort: Sequence[str] = ()
    ) -> None:
        self.runs = runs.finished
        self.num_unfinished = len(runs.runs) - len(self.runs.runs)
        self.keys, self.over = list(dict.fromkeys(group)), list(over)
        measured = MeasuredColumns.of_runs(self.runs.runs, show)
        if unknown := [key for key in show if not measured.column(key)]:
            raise ConfigError(f"{unknown[0]} is no number, and has no mean: name it in group=")
        alike = self._alike(measured)
        own = self.runs.texts[[key for key in self.runs.differing() if key not in self.keys]]
        is_repeated = pd.concat([alike, own], axis=1).duplicated(keep="last")
        self.repeated = alike.index[is_repeated].tolist()
        """The positions of runs that a later one repeats with the very same settings; they do not count."""
        by = alike[~is_repeated].groupby(list(alike), sort=False).ngroup()
        varied = own.drop(columns=self.over, errors="ignore").loc[by.index].groupby(by).nunique() > 1
        members = pd.Series(by.index, by.index).groupby(by).agg(list)
        values = self.runs.frame.reindex(columns=self.keys).loc[[found[0] for found in members]]
        self.frame = pd.DataFrame({key: values[key].tolist() for key in self.keys}, index=members.index, dtype=object)
        """The values of the keys in each group."""
        self.measured = measured.averaged(by)
        order = self.measured.best_first([*sort, *self.keys], self._values)
        self.frame, self.measured = self.frame.iloc[order].reset_index(drop=True), self.measured.chosen(order)
        self.members: list[list[int]] = members.loc[order].tolist()
        """The positions of the runs of each group."""
        self.mixed = [[key for key in varied if varied.loc[i, key]] for i in order]
        """The settings besides in which the runs of each group differ."""

    def _alike(self, measured: MeasuredColumns) -> pd.DataFrame:
        """A row for each run: the texts of the keys and the yardsticks of the columns, by number, that make its group.

        A missing value goes with what most of the others have.
        """
        frame = self.runs.texts.reindex(columns=self.keys, fill_value=ABSENT)
        for at, name in enumerate(measured.unmarked):
            rows = list(zip(frame.itertuples(index=False, name=None), measured.frame[name, "yardstick"], strict=True))
            found: dict[Any, list[Yardstick]] = defaultdict(list)
            for row, yardstick in rows:
                found[row] += [] if yardstick is None else [yardstick]
            most = {row: mode(yardsticks or [()]) for row, yardsticks in found.items()}
            frame[at] = pd.Series([most[row] if known is None else known for row, known in rows], dtype=object)
        return frame

    def _values(self, key: str) -> list[Any]:
        if key not in self.keys:
            raise ConfigError(f"sort={key} must name a key of group= or a measured value: groups have no other")
        return self.frame[key].tolist()

    @property
    def facts(self) -> pd.DataFrame:
        """What the yardsticks of each group say, of the things in which groups of the same keys differ."""
        columns = [self.measured.frame[name, "yardstick"] for name in self.measured.unmarked]
        known = [dict.fromkeys(chain(*filter(None, yardsticks))) for yardsticks in zip(*columns, strict=True)]
        rows = [{name: ", ".join(fact for of, fact in pairs if of == name) for name, _ in pairs} for pairs in known]
        frame = pd.DataFrame(rows).fillna("")
        keys = pd.Series(list(texts_of(self.frame).itertuples(index=False, name=None)), dtype=object)
        nums: pd.DataFrame = frame.groupby(keys).nunique()
        return frame.loc[:, (nums > 1).any()]

    def table(self, title: str = "") -> Table:
        """A row for each group."""
        runs, facts, nums = self.runs, self.facts, list(map(len, self.members))
        columns: list[tuple[str, Sequence[Cell]]] = [
            *((title_of(runs.short(key)), list(map(as_text, self.frame[key]))) for key in self.keys),
            *((name, facts[name].tolist()) for name in facts),
            ("n", [f"{num}{'*' if mixed else ''}" for num, mixed in zip(nums, self.mixed, strict=True)]),
            *self.measured.cells(nums),
        ]
        notes = list(
            self.measured.notes(f"standard error of the mean of n runs over {', '.join(map(runs.short, self.over))}")
        )
        if len(facts.columns):
            notes.append(f"not averaged over {', '.join(facts)}: such values cannot be compared")
        if mixed := dict.fromkeys(title_of(runs.short(key)) for keys in self.mixed for key in keys):
            notes.append(
                f"*: the n runs differ in {', '.join(mixed)} as well: to be named in group=, or in over= if it is meant"
            )
        if self.repeated:
            notes.append(f"left out, repeated later with the very same settings: {counted(len(self.repeated))}")
        if self.num_unfinished:
            notes.append(f"left out, not finished: {counted(self.num_unfinished)}")
        paths = [[str(runs.runs[i].path) for i in members] for members in self.members]
        records = self.frame.join(facts).assign(n=nums, mixed=self.mixed).join(self.measured.records())
        return Table.of_columns(columns, "\n".join(notes), title, records.assign(runs=paths))
