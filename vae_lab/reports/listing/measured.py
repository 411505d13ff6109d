"""Measured values in columns: which of them may be compared, a mark for the others, and the reason in words.

Nats mean nothing without the data, its scale and binarisation, the split, the likelihood and the size of the images; a
bound means nothing without its number of draws, a log p(x) without its estimator and K. Values that differ in one of
these are never averaged, and stand in one column with a mark only.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import pandas as pd

from vae_lab.reports.overview import Overview
from vae_lab.reports.table import Cell, number
from vae_lab.reports.values import as_text, is_number, letters, number_or_none, order

SAMPLES, SECONDS = "samples_evaluated", "wall_seconds"
TITLES = {"bound": "bound", "log_likelihood": "log p(x)"}
LOG_LIKELIHOOD = "/log_likelihood/"
HIGHER_IS_BETTER = re.compile(r"(^|/)(bound|reconstruction|log_likelihood)(/[^/]*)?$")
BESIDE = ("_se", "_sd", "_num_datapoints", "_num_samples", "_seed", "_settings", "_bias")
"""Endings of what the ledger says about a value."""
SPLITS = ("test", "val", "train")
"""Whose value is shown where there are several, the first that there is."""
UNKNOWN = "unknown"
SAMPLED = ("bound", "reconstruction")
"""What is measured with as many draws of z as `<split>/bound_num_samples` says; without that entry, with one."""
DRAWS = "draws of z"
SPLIT = "split hash"

Yardstick = tuple[tuple[str, str], ...]
"""The names and values of all that two values must share to be compared; empty: the value may be compared with any."""


@dataclass(frozen=True)
class Column:
    """A measured quantity in every row of a table, which stands for a run or for a group of runs."""

    name: str
    """The name of the quantity, or its key."""
    frame: pd.DataFrame
    """Value, error, key and yardstick in each row, None where nothing was measured; num, where it is a mean of so many.
    """
    unmarked: Yardstick
    """The yardstick that needs no mark: the most frequent of the runs."""

    @classmethod
    def of_runs(cls, name: str, runs: Sequence[Overview], keys: Sequence[str | None], data: str | None) -> "Column":
        """The values of these entries; unmarked are those on `data`, if there are any."""
        rows = []
        for run, key in zip(runs, keys, strict=True):
            value = number_or_none(run.values.get(key or ""))
            error = number_or_none(run.values.get(f"{key}_se"))
            rows.append((None,) * 4 if key is None or value is None else (value, error, key, yardstick_of(run, key)))
        frame = pd.DataFrame(rows, columns=["value", "error", "key", "yardstick"], dtype=object)
        counts = Counter(filter(None, frame["yardstick"]))
        ranked = sorted(
            counts,
            key=lambda by: (dict(by)["data"] != data, SPLIT not in dict(by), -counts[by], _place(dict(by)["part"])),
        )
        return cls(name, frame, next(iter(ranked), ()))

    def averaged(self, groups: pd.Series) -> "Column":
        """Mean and standard error sd/sqrt(n) in each group of the runs that are in one."""
        rows = self.frame.loc[groups.index].astype({"value": float}).groupby(groups)
        frame = rows["value"].agg(["mean", "sem", "count"]).set_axis(["value", "error", "num"], axis=1)
        frame = frame.join(rows[["key", "yardstick"]].first()).astype(object)
        return replace(self, frame=frame.where(frame.notna(), None))

    def chosen(self, positions: Sequence[int]) -> "Column":
        """Some of the rows."""
        return replace(self, frame=self.frame.iloc[list(positions)].reset_index(drop=True))

    @property
    def title(self) -> str:
        """The heading, with the split that the unmarked values were measured on."""
        split = dict(self.unmarked).get("part", "")
        return f"{split} {TITLES[self.name]}".strip() if self.name in TITLES else self.name

    @property
    def keys(self) -> list[str]:
        """The entries that it has values of."""
        return self.frame["key"].dropna().tolist()


class Measured:
    """The columns of bound and log p(x), then of further quantities.

    A letter marks every kind of values that cannot be compared with the unmarked ones of their column.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = list(columns)
        self._letters: dict[str, str] = {}

    @classmethod
    def of_runs(cls, runs: Sequence[Overview], show: Sequence[str]) -> "Measured":
        """The columns of these runs, with those keys of `show` that are numbers."""
        bound = Column.of_runs("bound", runs, bound_keys(runs), None)
        data = dict(bound.unmarked).get("data")
        found = cls([bound, Column.of_runs("log_likelihood", runs, log_likelihood_keys(runs), data)])
        for key in show:
            if not found.column(key) and (column := Column.of_runs(key, runs, [key] * len(runs), data)).keys:
                found.columns.append(column)
        return found

    def averaged(self, groups: pd.Series) -> "Measured":
        """The means of every column in each group of runs."""
        return Measured([column.averaged(groups) for column in self.columns])

    def chosen(self, positions: Sequence[int]) -> "Measured":
        """Some of the rows."""
        return Measured([column.chosen(positions) for column in self.columns])

    def column(self, key: str) -> Column | None:
        """The column that holds values of a key; None if there is none."""
        return next((column for column in self.columns if key in column.keys), None)

    def marks(self, column: Column) -> list[str]:
        """The letter of each row of a column; empty where its value can be compared, or is absent."""
        return [
            self._letters.setdefault(_reason(by, column.unmarked), letters(len(self._letters)).lower())
            if by and not set(by) <= set(column.unmarked)
            else ""
            for by in column.frame["yardstick"]
        ]

    def cells(self, totals: Sequence[int] = ()) -> list[tuple[str, list[Cell]]]:
        """Heading and cells of every column; a mean over fewer than `totals` says over how many."""
        found = []
        for column in self.columns:
            pairs = zip(column.frame["num"] if totals else (), totals, strict=True)
            few = [f"(n={int(num)})" if num < total else "" for num, total in pairs]
            marks = [" ".join(filter(None, pair)) for pair in zip_longest(self.marks(column), few)]
            rows = zip(column.frame["value"], column.frame["error"], marks, strict=True)
            found.append((column.title, [number(*row) for row in rows]))
        return found

    def records(self) -> pd.DataFrame:
        """The columns for a program, with full precision."""
        frames = []
        for column in self.columns:
            marks = pd.Series(self.marks(column), dtype=object).where(column.frame["key"].notna(), None)
            endings = {"value": "", "error": "_se", "num": "_n", "key": "_key", "mark": "_mark"}
            frame = column.frame.drop(columns="yardstick").assign(mark=marks)
            frames.append(frame.rename(columns={name: f"{column.name}{ending}" for name, ending in endings.items()}))
        return pd.concat(frames, axis=1)

    def best_first(self, sort: Sequence[str], values: Callable[[str], Sequence[Any]]) -> list[int]:
        """The positions of the rows in the order that `sort` asks for, the first key decides; `-key` turns a key round.

        Missing values come last, nats that can be compared stand together. `values` has those of other keys.
        """
        positions = list(range(len(self.columns[0].frame)))
        for given in reversed(sort):
            key, is_descending = direction(given)
            column = self.column(key)
            known = values(key) if column is None else column.frame["value"].tolist()
            present = [i for i in positions if known[i] is not None]
            present.sort(key=lambda i: order(known[i]), reverse=is_descending)
            if column:
                ranks = {column.unmarked: 0}
                rank = [ranks.setdefault(by or column.unmarked, len(ranks)) for by in column.frame["yardstick"]]
                present.sort(key=lambda i: rank[i])
            positions = [*present, *(i for i in positions if known[i] is None)]
        return positions

    def notes(self, error: str) -> Iterator[str]:
        """What the unmarked values are, what ± is, and what the letters mean."""
        bound, log_likelihood = (dict(column.unmarked) for column in self.columns[:2])
        has_errors = any(column.frame["error"].notna().any() for column in self.columns)
        if SPLIT in (facts := bound or log_likelihood):
            how = f"{facts['scale']}, binarization {facts['binarization']}, {facts['likelihood']} likelihood"
            meaning = f"; ±: {error}" if has_errors else ""
            yield f"nats per datapoint of {facts['data']} ({how}), higher is better{meaning}"
        if (draws := bound.get(DRAWS, "1")) != "1":
            yield f"bound: the mean over {draws} draws of z for each datapoint"
        if estimator := log_likelihood.get("estimator"):
            yield f"log p(x): {estimator}"
        for why, letter in self._letters.items():
            yield f"{letter}: not comparable with the unmarked: {why}"


def bound_keys(runs: Sequence[Overview]) -> list[str | None]:
    """The entry of each run's bound: of the test split if it was measured."""
    return _best_keys(runs, lambda key: key.endswith("/bound"))


def log_likelihood_keys(runs: Sequence[Overview]) -> list[str | None]:
    """The entry of each run's log p(x): of the test split, by the estimator that most of the runs have."""
    return _best_keys(runs, lambda key: LOG_LIKELIHOOD in key and not key.endswith(BESIDE))


def yardstick_of(run: Overview, key: str) -> Yardstick:
    """What a value may be compared by: less is known of one on a curve; empty for what is not measured on data."""
    ledger, (split, _, quantity) = run.measured, key.partition("/")
    if key not in ledger or not quantity:
        return ()
    if "data" not in ledger:
        return (("data", run.data), ("part", split))
    shape = run.record.get("image_shape")
    facts = {
        "data": ledger.get("data"),
        "scale": ledger.get("scale"),
        "binarization": ledger.get("binarization"),
        "likelihood": str(ledger.get("likelihood") or UNKNOWN).removesuffix("Likelihood"),
        "image shape": "x".join(map(str, shape)) if isinstance(shape, list) else None,
        SPLIT: ledger.get("split_hash"),
        "part": split,
    }
    if ledger.get("binarization") == "static":
        facts["seed of the static binarisation"] = as_text(run.settings.get("data.split_seed"))
    if quantity in SAMPLED:
        facts[DRAWS] = as_text(ledger.get(f"{split}/bound_num_samples", 1))
    if quantity.startswith(LOG_LIKELIHOOD[1:]):
        facts["estimator"] = quantity.removeprefix(LOG_LIKELIHOOD[1:])
    return tuple((name, UNKNOWN if fact is None else str(fact)) for name, fact in facts.items())


def aliases(runs: Sequence[Overview]) -> dict[str, str]:
    """Short names of what has a column anyway; of bound and log p(x) for the key that most of the runs have."""
    found = {"samples": SAMPLES, "time": SECONDS}
    for name, keys in (("bound", bound_keys(runs)), ("log_likelihood", log_likelihood_keys(runs))):
        if counts := Counter(filter(None, keys)):
            found[name] = counts.most_common(1)[0][0]
    return found


def direction(given: str) -> tuple[str, bool]:
    """The key of a `sort`, and whether large values come first: they do where more is better, without a sign."""
    key = given.removeprefix("-")
    is_better_higher = HIGHER_IS_BETTER.search(key) is not None and not key.endswith(BESIDE)
    return key, is_better_higher != given.startswith("-")


def _reason(ours: Yardstick, unmarked: Yardstick) -> str:
    """In what they differ; of other data everything that is known of them, which tells these from one another."""
    one, other = dict(ours), dict(unmarked)
    differing = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    names = list(one) if "data" in differing else differing
    unlike = {name: f" (unmarked: {other.get(name, 'none')})" for name in differing}
    return ", ".join(f"{name} {one.get(name, 'none')}{unlike.get(name, '')}" for name in names)


def _best_keys(runs: Sequence[Overview], is_candidate: Callable[[str], bool]) -> list[str | None]:
    """Of every run the key that comes first by split, frequency, whole splits before the first n of them."""
    candidates = [[key for key in run.measured if is_candidate(key) and is_number(run.values.get(key))] for run in runs]
    counts = Counter(key for keys in candidates for key in keys)

    def rank(key: str) -> tuple[Any, ...]:
        place, first = _place(key.partition("/")[0])
        return (place, -counts[key], first, key)

    return [min(keys, key=rank) if keys else None for keys in candidates]


def _place(split: str) -> tuple[int, str]:
    """What splits are sorted by; the first n of a split come after the whole."""
    name, _, first = split.partition("[")
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), first)
