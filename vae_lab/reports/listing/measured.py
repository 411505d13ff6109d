"""Measured values in one column: which of them may be compared, a mark for the others, and the reason in words.

Nats mean nothing without the data, its scale and binarisation, the split, the likelihood and the size of the images; a
log p(x) means nothing without its estimator and K. Values that differ in one of these are never averaged, and stand in
one column with a mark only.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.keys import BESIDE, as_text, is_number

LOG_LIKELIHOOD = "/log_likelihood/"
SPLITS = ("test", "val", "train")
"""Whose value is shown where there are several, the first that there is."""
UNKNOWN = "unknown"
SAMPLED = ("bound", "reconstruction")
"""What is measured with as many draws of z as `<split>/bound_num_samples` says; without that entry, with one."""
DRAWS = "draws of z"

Yardstick = tuple[tuple[str, str], ...]
"""The names and values of all that two values must share to be compared."""


@dataclass(frozen=True)
class Value:
    """A measured value of a run."""

    key: str
    """In the ledger or, where it is not in nats, anywhere."""
    value: float
    error: float | None = None
    """Its Monte Carlo standard error, where the ledger has it."""
    yardstick: Yardstick = ()
    """Empty: it may be compared with any."""


Column = Sequence[Value | None]
"""A value for every run, in their order; None where it was not measured."""


def bounds(entries: Sequence[Entry]) -> Column:
    """The bound of every run: of the test part if it was measured."""
    return _best_keys(entries, lambda key: key.endswith("/bound"))


def log_likelihoods(entries: Sequence[Entry]) -> Column:
    """An estimate of log p(x) of every run: of the test part, by the estimator that most of the runs have."""
    return _best_keys(entries, lambda key: LOG_LIKELIHOOD in key and not key.endswith(BESIDE))


def values_of(entries: Sequence[Entry], key: str) -> Column:
    """The value of a key in every run, where it is a number."""
    return [_value(entry, key) for entry in entries]


def yardstick(entry: Entry, key: str) -> Yardstick:
    """What a value of the ledger may be compared by; empty for what is not measured on data."""
    if "/" not in key or key not in entry.ledger:
        return ()
    ledger, (split, _, quantity) = entry.ledger, key.partition("/")
    shape = entry.record.get("image_shape")
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
        facts["seed of the static binarisation"] = as_text(entry.settings.get("data.split_seed"))
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


class Footnotes:
    """A letter for every kind of values that cannot be compared with the unmarked ones of their column."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.unmarked = reference(columns)
        self.letters: dict[str, str] = {}
        self._facts: dict[str, dict[str, set[str]]] = {}
        """Data set -> fact -> its values in the table."""
        for known in {value.yardstick for column in columns for value in column if value is not None}:
            facts = dict(known)
            for name, fact in facts.items():
                self._facts.setdefault(facts["data"], {}).setdefault(name, set()).add(fact)

    def mark(self, at: int, yardstick: Yardstick) -> str:
        """The letter of values with this yardstick in a column; empty where they can be compared."""
        if not yardstick or yardstick == self.unmarked[at]:
            return ""
        return self.letters.setdefault(self._reason(yardstick, self.unmarked[at]), _letter(len(self.letters)))

    @property
    def lines(self) -> list[str]:
        """What the letters mean."""
        return [f"{letter}: not comparable with the unmarked: {why}" for why, letter in self.letters.items()]

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


def _value(entry: Entry, key: str) -> Value | None:
    number = entry.values.get(key)
    if not is_number(number):
        return None
    error = entry.values.get(f"{key}_se")
    return Value(key, number, error if is_number(error) else None, yardstick(entry, key))


def _best_keys(entries: Sequence[Entry], is_candidate: Callable[[str], bool]) -> Column:
    """Of every run the value whose key comes first by part of the data, frequency, whole parts before the first n."""
    candidates = [
        [key for key in entry.ledger if is_candidate(key) and is_number(entry.values.get(key))] for entry in entries
    ]
    counts = Counter(key for keys in candidates for key in keys)

    def rank(key: str) -> tuple[Any, ...]:
        place, first = _place(key.partition("/")[0])
        return (place, -counts[key], first, key)

    return [
        _value(entry, min(keys, key=rank)) if keys else None for entry, keys in zip(entries, candidates, strict=True)
    ]


def _place(part: str) -> tuple[int, str]:
    """What parts of the data are sorted by; the first n of a part come after the whole."""
    name, _, first = part.partition("[")
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), first)


def _letter(index: int) -> str:
    count, rest = divmod(index, len(ascii_lowercase))
    return (_letter(count - 1) if count else "") + ascii_lowercase[rest]
