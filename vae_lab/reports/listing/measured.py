"""Measured values in columns: which of them may be compared, a mark for the others, and the reason in words.

Nats mean nothing without the data, its scale and binarisation, the split, the likelihood and the size of the images; a
bound means nothing without its number of draws, a log p(x) without its estimator and K. Values that differ in one of
these are never averaged, and stand in one column with a mark only.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, TypeVar

from vae_lab.reports.overview import Overview
from vae_lab.reports.values import as_text, is_number, number_or_none, order

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

Yardstick = tuple[tuple[str, str], ...]
"""The names and values of all that two values must share to be compared."""
T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """A measured value of a run."""

    key: str
    """In the ledger or, where it is not in nats, anywhere."""
    value: float
    error: float | None
    """Its Monte Carlo standard error, where the ledger has it."""
    yardstick: Yardstick
    """Empty: it may be compared with any."""


Column = Sequence[Value | None]
"""A value for every run, in their order; None where it was not measured."""


class Measured:
    """The columns by number: 0 the bound, 1 log p(x), then the numbers of `show`; `texts` are its other keys.

    A letter marks every kind of values that cannot be compared with the unmarked ones of their column.

    Args:
        runs: a row for each.
        show: keys that are asked for.
        without: those of them that have a column elsewhere.
    """

    def __init__(self, runs: Sequence[Overview], show: Sequence[str], without: Sequence[str] = ()) -> None:
        by_name: dict[str, Column] = {"bound": bounds(runs), "log_likelihood": log_likelihoods(runs)}
        known = {value.key for column in by_name.values() for value in column if value is not None}
        self.texts: list[str] = []
        for key in dict.fromkeys(show):
            if key not in known and key not in without:
                column = values_of(runs, key)
                if any(column):
                    by_name[key] = column
                else:
                    self.texts.append(key)
        self.names = list(by_name)
        self.columns = list(by_name.values())
        self.unmarked = reference(self.columns)
        self._letters: dict[str, str] = {}
        self._facts: dict[str, dict[str, set[str]]] = {}
        """Data set -> fact -> its values in the table."""
        for yardstick in {value.yardstick for column in self.columns for value in column if value is not None}:
            for name, fact in yardstick:
                self._facts.setdefault(dict(yardstick)["data"], {}).setdefault(name, set()).add(fact)

    def title(self, at: int) -> str:
        """The heading of a column, with the split that the unmarked values were measured on."""
        name, split = self.names[at], dict(self.unmarked[at]).get("part", "")
        return f"{split} {TITLES[name]}".strip() if name in TITLES else name

    def mark(self, at: int, yardstick: Yardstick) -> str:
        """The letter of values with this yardstick in a column; empty where they can be compared."""
        if not yardstick or yardstick == self.unmarked[at]:
            return ""
        return self._letters.setdefault(self._reason(yardstick, self.unmarked[at]), _letter(len(self._letters)))

    def place(self, key: str) -> int | None:
        """The column that holds values of a key; None if there is none."""
        found = (at for at, column in enumerate(self.columns) if any(value and value.key == key for value in column))
        return next(found, None)

    def notes(self, error: str) -> Iterator[str]:
        """What the unmarked values are, what ± is (empty: there is none), and what the letters mean."""
        bound, log_likelihood, *_ = self.unmarked
        if facts := dict(bound or log_likelihood):
            how = f"{facts['scale']}, binarization {facts['binarization']}, {facts['likelihood']} likelihood"
            yield f"nats per datapoint of {facts['data']} ({how}), higher is better{error and f'; ±: {error}'}"
        if (draws := dict(bound).get(DRAWS, "1")) != "1":
            yield f"bound: the mean over {draws} draws of z for each datapoint"
        if estimator := dict(log_likelihood).get("estimator"):
            yield f"log p(x): {estimator}"
        for why, letter in self._letters.items():
            yield f"{letter}: not comparable with the unmarked: {why}"

    def _reason(self, ours: Yardstick, unmarked: Yardstick) -> str:
        """In what they differ; of other data that they are other data, and what tells these from one another."""
        one, other = dict(ours), dict(unmarked)
        names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
        if one["data"] == other["data"]:
            return ", ".join(f"{name} {one.get(name, 'none')} (unmarked: {other.get(name, 'none')})" for name in names)
        named = [f"data {one['data']} (unmarked: {other['data']})"]
        for name, values in self._facts[one["data"]].items():
            if name in ("part", "estimator", DRAWS):
                named += [f"{name} {one[name]} (unmarked: {other.get(name)})"] if name in names and name in one else []
            elif len(values) > 1 and name != "data":
                named.append(f"{name} {one.get(name, 'none')}")
        return ", ".join(named)


def bounds(runs: Sequence[Overview]) -> Column:
    """The bound of every run: of the test split if it was measured."""
    return _best_keys(runs, lambda key: key.endswith("/bound"))


def log_likelihoods(runs: Sequence[Overview]) -> Column:
    """An estimate of log p(x) of every run: of the test split, by the estimator that most of the runs have."""
    return _best_keys(runs, lambda key: LOG_LIKELIHOOD in key and not key.endswith(BESIDE))


def values_of(runs: Sequence[Overview], key: str) -> Column:
    """The value of a key in every run, where it is a number."""
    return [_value(run, key) for run in runs]


def yardstick_of(run: Overview, key: str) -> Yardstick:
    """What a value of the ledger may be compared by; empty for what is not measured on data."""
    if "/" not in key or key not in run.ledger:
        return ()
    ledger, (split, _, quantity) = run.ledger, key.partition("/")
    shape = run.record.get("image_shape")
    facts = {
        "data": ledger.get("data"),
        "scale": ledger.get("scale"),
        "binarization": ledger.get("binarization"),
        "likelihood": str(ledger.get("likelihood") or UNKNOWN).removesuffix("Likelihood"),
        "image shape": "x".join(map(str, shape)) if isinstance(shape, list) else None,
        "split hash": ledger.get("split_hash"),
        "part": split,
    }
    if ledger.get("binarization") == "static":
        facts["seed of the static binarisation"] = as_text(run.settings.get("data.split_seed"))
    if quantity in SAMPLED:
        facts[DRAWS] = as_text(ledger.get(f"{split}/bound_num_samples", 1))
    if quantity.startswith(LOG_LIKELIHOOD[1:]):
        facts["estimator"] = quantity.removeprefix(LOG_LIKELIHOOD[1:])
    return tuple((name, UNKNOWN if fact is None else str(fact)) for name, fact in facts.items())


def reference(columns: Sequence[Column]) -> list[Yardstick]:
    """For each column the yardstick that needs no mark: the most frequent, of the first column's data if it can be."""
    chosen: list[Yardstick] = []
    for column in columns:
        counts = Counter(value.yardstick for value in column if value is not None and value.yardstick)
        data = dict(chosen[0]).get("data") if chosen else None
        ranked = sorted(
            counts, key=lambda known: (dict(known)["data"] != data, -counts[known], _place(dict(known)["part"]))
        )
        chosen.append(next(iter(ranked), ()))
    return chosen


def aliases(runs: Sequence[Overview]) -> dict[str, str]:
    """Short names of what has a column anyway; of bound and log p(x) for the key that most of the runs have."""
    found = {"samples": SAMPLES, "time": SECONDS}
    for name, column in (("bound", bounds(runs)), ("log_likelihood", log_likelihoods(runs))):
        counts = Counter(value.key for value in column if value is not None)
        if counts:
            found[name] = counts.most_common(1)[0][0]
    return found


def sorted_runs(runs: Sequence[Overview], sort: Sequence[str]) -> list[Overview]:
    """The runs, best first; `-key` turns a key round. Missing values come last, nats that can be compared together."""
    result = list(runs)
    for given in reversed(sort):
        key, descending = direction(given)
        (unmarked,) = reference([values_of(result, key)])
        rows = [(run.values.get(key), yardstick_of(run, key) or unmarked, run) for run in result]
        result = ranked(rows, unmarked, descending)
    return result


def ranked(rows: Sequence[tuple[Any, Yardstick, T]], unmarked: Yardstick, descending: bool) -> list[T]:
    """What belongs to values, in their order: those of the unmarked yardstick, of each other one, then the absent."""
    present = [row for row in rows if row[0] is not None]
    present.sort(key=lambda row: order(row[0]), reverse=descending)
    places = {unmarked: 0}
    ranks = [places.setdefault(yardstick, len(places)) for _, yardstick, _ in present]
    by_rank = sorted(zip(ranks, present, strict=True), key=lambda pair: pair[0])
    return [*(row[2] for _, row in by_rank), *(row[2] for row in rows if row[0] is None)]


def direction(given: str) -> tuple[str, bool]:
    """The key of a `sort`, and whether large values come first: they do where more is better, without a sign."""
    key = given.removeprefix("-")
    is_better_higher = HIGHER_IS_BETTER.search(key) is not None and not key.endswith(BESIDE)
    return key, is_better_higher != given.startswith("-")


def _value(run: Overview, key: str) -> Value | None:
    number = run.values.get(key)
    if not is_number(number):
        return None
    return Value(key, number, number_or_none(run.values.get(f"{key}_se")), yardstick_of(run, key))


def _best_keys(runs: Sequence[Overview], is_candidate: Callable[[str], bool]) -> Column:
    """Of every run the value whose key comes first by split, frequency, whole splits before the first n of them."""
    candidates = [[key for key in run.ledger if is_candidate(key) and is_number(run.values.get(key))] for run in runs]
    counts = Counter(key for keys in candidates for key in keys)

    def rank(key: str) -> tuple[Any, ...]:
        place, first = _place(key.partition("/")[0])
        return (place, -counts[key], first, key)

    return [_value(run, min(keys, key=rank)) if keys else None for run, keys in zip(runs, candidates, strict=True)]


def _place(split: str) -> tuple[int, str]:
    """What splits are sorted by; the first n of a split come after the whole."""
    name, _, first = split.partition("[")
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), first)


def _letter(index: int) -> str:
    count, rest = divmod(index, len(ascii_lowercase))
    return (_letter(count - 1) if count else "") + ascii_lowercase[rest]
