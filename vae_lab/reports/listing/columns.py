"""The columns of measured values: the bound, log p(x), and further numbers that are asked for."""

from collections import Counter
from collections.abc import Sequence

from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.keys import is_better_higher, order
from vae_lab.reports.listing.measured import (
    DRAWS,
    Column,
    Footnotes,
    Yardstick,
    bounds,
    log_likelihoods,
    reference,
    values_of,
)
from vae_lab.reports.listing.table import Heading

SAMPLES, SECONDS = "samples_evaluated", "wall_seconds"
TITLES = {"bound": "bound", "log_likelihood": "log p(x)"}


class Columns:
    """The columns by number: 0 the bound, 1 log p(x), then the numbers of `show`; `texts` are its other keys.

    Args:
        entries: the runs.
        show: keys that are asked for.
        without: those of them that have a column elsewhere.
    """

    def __init__(self, entries: Sequence[Entry], show: Sequence[str], without: Sequence[str] = ()) -> None:
        by_name: dict[str, Column] = {"bound": bounds(entries), "log_likelihood": log_likelihoods(entries)}
        known = {value.key for column in by_name.values() for value in column if value is not None}
        self.texts: list[str] = []
        for key in dict.fromkeys(show):
            if key in known or key in without:
                continue
            column = values_of(entries, key)
            if any(column):
                by_name[key] = column
            else:
                self.texts.append(key)
        self.names = list(by_name)
        self.columns = list(by_name.values())
        self.footnotes = Footnotes(self.columns)

    def heading(self, at: int) -> Heading:
        """With the part of the data that the unmarked values were measured on."""
        name, part = self.names[at], dict(self.footnotes.unmarked[at]).get("part", "")
        return Heading(f"{part} {TITLES[name]}".strip() if name in TITLES else name, is_number=True)

    def mark(self, at: int, yardstick: Yardstick) -> str:
        """The letter of values with this yardstick."""
        return self.footnotes.mark(at, yardstick)

    def place(self, key: str) -> int | None:
        """The column that holds values of a key; None if there is none."""
        found = (at for at, column in enumerate(self.columns) if any(value and value.key == key for value in column))
        return next(found, None)

    def explanations(self, error: str) -> list[str]:
        """What the unmarked values are, what ± is (empty: there is none), and what the letters mean."""
        bound, log_likelihood, *_ = self.footnotes.unmarked
        lines = []
        if facts := dict(bound or log_likelihood):
            how = f"{facts['scale']}, binarization {facts['binarization']}, {facts['likelihood']} likelihood"
            lines.append(f"nats per datapoint of {facts['data']} ({how}), higher is better{error and f'; ±: {error}'}")
        if (draws := dict(bound).get(DRAWS, "1")) != "1":
            lines.append(f"bound: the mean over {draws} draws of z for each datapoint")
        if estimator := dict(log_likelihood).get("estimator"):
            lines.append(f"log p(x): {estimator}")
        return [*lines, *self.footnotes.lines]


def aliases(entries: Sequence[Entry]) -> dict[str, str]:
    """Short names of what has a column anyway; of bound and log p(x) for the key that most of the runs have."""
    found = {"samples": SAMPLES, "time": SECONDS}
    for name, column in (("bound", bounds(entries)), ("log_likelihood", log_likelihoods(entries))):
        counts = Counter(value.key for value in column if value is not None)
        if counts:
            found[name] = counts.most_common(1)[0][0]
    return found


def sorted_entries(entries: Sequence[Entry], sort: Sequence[str]) -> list[Entry]:
    """The runs, best first; `-key` turns a key round. Missing values come last, nats that can be compared together."""
    result = list(entries)
    for given in reversed(sort):
        key, descending = direction(given)
        absent = [entry for entry in result if entry.values.get(key) is None]
        present = [entry for entry in result if entry.values.get(key) is not None]
        present.sort(key=lambda entry: order(entry.values[key]), reverse=descending)
        column = values_of(present, key)
        (unmarked,) = reference([column])
        places = {unmarked: 0}
        ranks = [places.setdefault(value.yardstick if value else unmarked, len(places)) for value in column]
        ranked = sorted(zip(ranks, present, strict=True), key=lambda pair: pair[0])
        result = [*(entry for _, entry in ranked), *absent]
    return result


def direction(given: str) -> tuple[str, bool]:
    """The key of a `sort`, and whether large values come first."""
    key = given.removeprefix("-")
    return key, is_better_higher(key) != given.startswith("-")
