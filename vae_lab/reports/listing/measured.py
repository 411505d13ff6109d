"""Measured values in columns: which of them may be compared, a mark for the others, and the reason in words.

Nats mean nothing without the data, its scale and binarisation, the split, the likelihood and the size of the images; a
bound means nothing without its number of draws, a log p(x) without its estimator and K. Values that differ in one of
these are never averaged, and stand in one column with a mark only.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mode
from typing import Any

import pandas as pd

from vae_lab.reports.overview import Overview
from vae_lab.reports.values import as_text, is_number, letters, number_or_none, order
from vae_lab.runs.result import (
    DOUBT,
    ELBO,
    HIGH_K_HAT,
    SAMPLED,
    bound_keys,
    doubt,
    draws_behind,
    log_likelihood_keys,
    loss_of,
    place,
)
from vae_lab.wiring.table import Cell, number

SAMPLES, SECONDS = "samples_evaluated", "wall_seconds"
TITLES = {"bound": "bound", "log_likelihood": "log p(x)"}
"""The quantities that every table has, and their headings."""
KEYS = {"bound": bound_keys, "log_likelihood": log_likelihood_keys}
"""The quantities that every table has, and what finds their entries in a ledger."""
UNKNOWN = "unknown"
ENTRIES = ["value", "error", "doubt", "key", "yardstick", "loss"]
"""What a row has in every column."""
DRAWS, SPLIT, SPLIT_HASH = "draws of z", "split", "split hash"
WHEN, NOT_ENDED = "measured", "in a training that has not ended"
"""Whether a value is a checkpoint's, or the last one of the curve of a training that did not end."""

Yardstick = tuple[tuple[str, str], ...]
"""The names and values of all that two values must share to be compared; empty: the value may be compared with any."""


class MeasuredColumns:
    """The columns of bound and log p(x), then of further quantities, in the rows of a table of runs or of groups.

    A letter marks every kind of values that cannot be compared with the unmarked ones of their column.

    Args:
        frame: for every column value, error, the share of datapoints in doubt, key, yardstick and, of a bound, by what
            the loss of the training differed from it, in each row, None where nothing was measured; of a mean also num,
            of how many values it is.
        unmarked: the yardstick of each column that needs no mark.
    """

    def __init__(self, frame: pd.DataFrame, unmarked: Mapping[str, Yardstick]) -> None:
        self.frame, self.unmarked = frame, unmarked
        self._letters: dict[str, str] = {}

    @classmethod
    def of_runs(cls, runs: Sequence[Overview], show: Sequence[str]) -> "MeasuredColumns":
        """The columns of these runs, with those keys of `show` that are numbers; unmarked is what most of them have."""
        keys: dict[str, list[str | None]] = {name: best_keys(runs, name) for name in KEYS}
        common = {mode(filter(None, found)) for found in keys.values() if any(found)}
        for key in show:
            if key not in common and any(is_number(run.values.get(key)) for run in runs):
                keys[key] = [key] * len(runs)
        unmarked: dict[str, Yardstick] = {}
        frames = {}
        for name, found in keys.items():
            rows = [_entries(run, key) for run, key in zip(runs, found, strict=True)]
            frames[name] = pd.DataFrame(rows, columns=ENTRIES, dtype=object)
            counts = Counter(filter(None, frames[name]["yardstick"]))
            data = dict(unmarked.get("bound", ())).get("data")
            ranks = {
                by: (facts["data"] != data, SPLIT_HASH not in facts, -counts[by], place(facts[SPLIT]))
                for by in counts
                if (facts := dict(by))
            }
            unmarked[name] = min(ranks, key=ranks.__getitem__, default=())
        return cls(pd.concat(frames, axis=1), unmarked)

    def averaged(self, groups: pd.Series) -> "MeasuredColumns":
        """Mean and standard error sd/sqrt(n) in each group of the rows that are in one."""
        frames = {}
        for name in self.unmarked:
            rows = self.frame.loc[groups.index, name].astype({"value": float, "doubt": float}).groupby(groups)
            means = rows["value"].agg(["mean", "sem", "count"]).set_axis(["value", "error", "num"], axis=1)
            frame = means.join(rows["doubt"].mean()).join(rows[["key", "yardstick", "loss"]].first()).astype(object)
            frames[name] = frame.where(frame.notna(), None)
        return MeasuredColumns(pd.concat(frames, axis=1), self.unmarked)

    def chosen(self, positions: Sequence[int]) -> "MeasuredColumns":
        """These rows alone."""
        return MeasuredColumns(self.frame.iloc[list(positions)].reset_index(drop=True), self.unmarked)

    def column(self, key: str) -> str | None:
        """The name of the column that holds values of a key; None if there is none."""
        return next(
            (name for name in (key, *KEYS) if name in self.unmarked and key in set(self.frame[name, "key"])), None
        )

    def marks(self, name: str) -> list[str]:
        """The letter of each row of a column; empty where its value is final and can be compared, or is absent."""
        unmarked = self.unmarked[name]
        return [
            self._letters.setdefault(_reason(by, unmarked), letters(len(self._letters)).lower())
            if by and (not set(by) <= set(unmarked) or (WHEN, NOT_ENDED) in by)
            else ""
            for by in self.frame[name, "yardstick"]
        ]

    def cells(self, totals: Sequence[int] | None = None) -> list[tuple[str, list[Cell]]]:
        """Heading, with the split of the unmarked values, and cells of every column.

        A mean over fewer than `totals` says over how many.
        """
        found = []
        for name, unmarked in self.unmarked.items():
            frame: Any = self.frame[name]
            is_whole = all(map(float.is_integer, frame["value"].dropna().map(float)))
            places = 0 if is_whole and not any(frame["error"].dropna() > 0) and name not in TITLES else 2
            cells = []
            for row, mark, total in zip(frame.itertuples(), self.marks(name), totals or [0] * len(frame), strict=True):
                few = f"(n={row.num})" if totals and row.num < total else ""
                marks = " ".join(filter(None, [row.loss, mark, doubt(row.doubt), few]))
                cells.append(number(row.value, row.error, marks, places))
            title = f"{dict(unmarked).get(SPLIT, '')} {TITLES[name]}".strip() if name in TITLES else name
            found.append((title, cells))
        return found

    def records(self) -> pd.DataFrame:
        """The columns for a program, with full precision."""
        endings = {"value": "", "error": "_se", "doubt": HIGH_K_HAT, "num": "_n", "key": "_key", "mark": "_mark"}
        frames = []
        for name in self.unmarked:
            frame: Any = self.frame[name].drop(columns=["yardstick", "loss"])
            frame = frame if frame["doubt"].notna().any() else frame.drop(columns="doubt")
            frame["mark"] = pd.Series(self.marks(name), dtype=object).where(frame["key"].notna(), None)
            frames.append(frame.rename(columns={column: f"{name}{ending}" for column, ending in endings.items()}))
        return pd.concat(frames, axis=1)

    def best_first(self, sort: Sequence[str], values: Callable[[str], Sequence[Any]]) -> list[int]:
        """The positions of the rows in the order that `sort` asks for, the first key decides; `-key` turns a key round.

        Large values come first where more is better. Missing values come last, nats that can be compared stand
        together. `values` has those of other keys.
        """
        positions = list(range(len(self.frame)))
        for given in reversed(sort):
            key = given.removeprefix("-")
            name = self.column(key)
            known = values(key) if name is None else self.frame[name, "value"].tolist()
            is_higher_better = (
                key in KEYS or key.endswith(("/bound", "/reconstruction")) or log_likelihood_keys({key: 0})
            )
            is_descending = bool(is_higher_better) != given.startswith("-")
            positions.sort(key=lambda i: order(known[i]), reverse=is_descending)
            unmarked = self.unmarked[name] if name else ()
            yardsticks = self.frame[name, "yardstick"] if name else [None] * len(positions)
            ranks = {unmarked: 0}
            rank = [ranks.setdefault(by or unmarked, len(ranks)) for by in yardsticks]
            positions.sort(key=lambda i: (known[i] is None, rank[i]))
        return positions

    def notes(self, error: str) -> Iterator[str]:
        """What the unmarked values are, what ± is, and what the letters mean."""
        shown = {name: any(self.frame[name, "value"].notna()) for name in KEYS}
        bound, log_likelihood = (dict(self.unmarked[name]) if shown[name] else {} for name in KEYS)
        has_errors = any(self.frame[name, "error"].notna().any() for name in self.unmarked)
        if SPLIT_HASH in (facts := bound or log_likelihood):
            how = f"{facts['scale']}, binarization {facts['binarization']}, {facts['likelihood']} likelihood"
            meaning = f"; ±: {error}" if has_errors else ""
            yield f"nats per datapoint of {facts['data']} ({how}), higher is better{meaning}"
        if (draws := bound.get(DRAWS, "1")) != "1":
            yield f"bound: the mean over {draws} draws of z for each datapoint"
        if estimator := log_likelihood.get("estimator"):
            yield f"log p(x): {estimator}"
        if any(map(doubt, (share for name in self.unmarked for share in self.frame[name, "doubt"]))):
            yield DOUBT
        if any(filter(None, self.frame["bound", "loss"])):
            yield ELBO
        for why, letter in self._letters.items():
            yield f"{letter}: not comparable with the unmarked: {why}"


def best_keys(runs: Sequence[Overview], name: str) -> list[str | None]:
    """The entry of each run that holds its bound or its log p(x), by the estimator that most of the runs have.

    Of the test split if it was measured, and of the whole of it rather than of the first n; of several estimators that
    as many runs have, the first by `place`.
    """
    candidates = [[key for key in KEYS[name](run.measured) if is_number(run.measured[key])] for run in runs]
    counts = Counter(key for keys in candidates for key in keys)

    def rank(key: str) -> tuple[Any, ...]:
        split, datapoints, *estimator = place(key)
        return (split, datapoints, -counts[key], *estimator)

    return [min(keys, key=rank, default=None) for keys in candidates]


def yardstick_of(run: Overview, key: str) -> Yardstick:
    """What a value may be compared by: less is known of one on a curve; empty for what is not measured on data."""
    ledger, (split, _, quantity) = run.measured, key.partition("/")
    if key not in ledger or not quantity:
        return ()
    draws = {DRAWS: as_text(draws_behind(ledger, key))} if quantity in SAMPLED else {}
    if "data" not in ledger:
        return (("data", run.data), (SPLIT, split), *draws.items(), (WHEN, NOT_ENDED))
    shape = run.record.get("image_shape")
    facts = {
        "data": ledger.get("data"),
        "scale": ledger.get("scale"),
        "binarization": ledger.get("binarization"),
        "likelihood": str(ledger.get("likelihood") or UNKNOWN).removesuffix("Likelihood"),
        "image shape": "x".join(map(str, shape)) if isinstance(shape, list) else None,
        SPLIT_HASH: ledger.get("split_hash"),
        SPLIT: split,
        WHEN: "of a checkpoint",
    }
    if ledger.get("binarization") == "static":
        facts["seed of the static binarisation"] = as_text(run.settings.get("data.split_seed"))
    facts |= draws
    if quantity.startswith("log_likelihood/"):
        facts["estimator"] = quantity.removeprefix("log_likelihood/")
    return tuple((name, UNKNOWN if fact is None else str(fact)) for name, fact in facts.items())


def aliases(runs: Sequence[Overview]) -> dict[str, str]:
    """Short names of what has a column anyway; of bound and log p(x) for the key that most of the runs have."""
    common = {name: mode(filter(None, keys)) for name in KEYS if any(keys := best_keys(runs, name))}
    return {"samples": SAMPLES, "time": SECONDS, **common}


def _entries(run: Overview, key: str | None) -> tuple[Any, ...]:
    """The `ENTRIES` of a run's value; None where it is absent."""
    value = number_or_none(run.values.get(key or ""))
    if key is None or value is None:
        return (None,) * len(ENTRIES)
    error, share = (number_or_none(run.values.get(f"{key}{ending}")) for ending in ("_se", HIGH_K_HAT))
    loss = loss_of(run.settings) if key.endswith("/bound") else ""
    return (value, error, share, key, yardstick_of(run, key), loss)


def _reason(ours: Yardstick, unmarked: Yardstick) -> str:
    """Says in what two yardsticks differ; if in the data, everything about ours, which tells other data apart."""
    one, other = dict(ours), dict(unmarked)
    names = one if one.get(WHEN) == NOT_ENDED else {**one, **other}  # of a curve less is known, not something else
    differing = [name for name in names if one.get(name) != other.get(name)]
    if not differing:
        return f"{WHEN} {one[WHEN]}"
    names = list(one) if "data" in differing else differing
    unlike = {name: f" (unmarked: {other.get(name, 'none')})" for name in differing}
    return ", ".join(f"{name} {one.get(name, 'none')}{unlike.get(name, '')}" for name in names)
