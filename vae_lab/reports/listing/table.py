"""A table of runs before it is written in a format: columns, cells, notes, and the same as records for programs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.keys import as_text, is_number


@dataclass(frozen=True)
class Heading:
    """Of a column."""

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Number:
    """A cell with a number, perhaps its standard error, and the mark of what cannot be compared."""

    value: float
    error: float | None = None
    mark: str = ""

    @property
    def texts(self) -> tuple[str, str]:
        """Value and error with as many decimal places as the error needs, two at least; no error: an empty text."""
        if self.error is None or not math.isfinite(self.error):
            return f"{self.value:.2f}", ""
        places = 2 if self.error <= 0 else min(6, max(2, math.ceil(-math.log10(self.error))))
        return f"{self.value:.{places}f}", f"{self.error:.{places}f}"

    def __str__(self) -> str:
        value, error = self.texts
        return " ".join(filter(None, [f"{value} ± {error}" if error else value, self.mark]))


Cell = str | Number


class Table:
    """What a format writes."""

    def __init__(self, title: str, num_rows: int) -> None:
        self.title = title
        self.headings: list[Heading] = []
        self.rows: list[list[Cell]] = [[] for _ in range(num_rows)]
        self.notes: list[str] = []
        self.records: list[dict[str, Any]] = []
        """The rows for programs: full keys, full precision."""

    def add_column(self, heading: Heading, cells: Sequence[Cell]) -> None:
        """Adds a column with a cell for every row; one without any text is left out."""
        if any(cells):
            self.headings.append(heading)
            for row, cell in zip(self.rows, cells, strict=True):
                row.append(cell)

    def columns(self) -> Iterator[tuple[Heading, list[Cell]]]:
        """Every heading with the cells below it."""
        for at, heading in enumerate(self.headings):
            yield heading, [row[at] for row in self.rows]


def text_of(entry: Entry, key: str) -> str:
    """A setting as it is typed; of a class its name; empty where there is none."""
    value = entry.values.get(key)
    if key.endswith("._target_"):
        return str(value or "").rpartition(".")[2]
    return as_text(value) if key in entry.values else ""


def title_of(short: str) -> str:
    """A short key as a heading: a class goes by the name of its part."""
    return short.removesuffix("._target_")


def counted(num: int) -> str:
    """So many runs."""
    return f"{num} run{'' if num == 1 else 's'}"


def all_numbers(entries: Sequence[Entry], key: str) -> bool:
    """Whether all values of a key are numbers or absent."""
    return all(value is None or is_number(value) for value in (entry.values.get(key) for entry in entries))
