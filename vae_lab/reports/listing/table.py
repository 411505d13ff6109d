"""A table of runs: cells and notes for readers, records for programs; for a terminal, a page, a paper or a program."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

STYLES = {
    "finished": "green",
    "running": "cyan",
    "interrupted": "yellow",
    "failed": "bold red",
    "broken": "bold red",
    "planned": "dim",
}
FRAME = 3
"""What rich's lines and margins add to the width of a column."""
NARROW = 14
"""The least width of a text; a table that is too wide even so is broken by the terminal."""
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
"""What must be written differently."""


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


class Table:
    """What every format writes.

    Args:
        title: stands above the table on a terminal.
        records: the rows for programs, with full keys and full precision.
    """

    def __init__(self, title: str = "", records: Sequence[Mapping[str, Any]] = ()) -> None:
        self.title = title
        self.notes: list[str] = []
        """What stands below it, in the formats that have a place for it."""
        self.cells = pd.DataFrame(index=range(len(records)))
        """The columns by number, of texts and `Number`."""
        self.titles: list[str] = []
        self.numeric: list[bool] = []
        """Whether a column stands to the right."""
        self.records = pd.DataFrame([dict(record) for record in records], dtype=object)

    def add_column(self, title: str, cells: Sequence[str | Number], is_number: bool = False) -> None:
        """Adds a column with a cell for every row; one without any text is left out."""
        if any(cells):
            self.cells[len(self.titles)] = pd.Series(list(cells), dtype=object)
            self.titles.append(title)
            self.numeric.append(is_number)

    def write(self, form: str) -> None:
        """Writes it on stdout; notes that the format has no place for go to stderr, out of the way of programs.

        Args:
            form: table, csv, json, markdown or latex.
        """
        if form == "table":
            self.print()
        elif form in ("csv", "json"):
            sys.stdout.write(self.to_csv() if form == "csv" else self.to_json())
        elif len(self.records):
            sys.stdout.write(self.to_markdown() if form == "markdown" else self.to_latex())
        for note in self.notes if form in ("csv", "json") else ():
            print(note, file=sys.stderr)

    def print(self) -> None:
        """A terminal breaks long texts inside of their columns; in a file no line is broken, for the paths."""
        console = Console()
        texts = self.cells.map(str)
        widths = [max(map(cell_len, [title, *texts[at]])) for at, title in enumerate(self.titles)]
        if console.is_terminal:
            widths = self._fitted(widths, console.width - FRAME * len(widths) - 1)
        width = sum(widths) + FRAME * len(widths) + 1
        if not console.is_terminal:
            width = max(width, *map(cell_len, [self.title, *self.notes]))
        rich = RichTable(title=Text(self.title), title_justify="left")
        for title, is_number, column in zip(self.titles, self.numeric, widths, strict=True):
            rich.add_column(Text(title), justify="right" if is_number else "left", overflow="fold", width=column)
        for row in texts.itertuples(index=False):
            rich.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        console.width = max(width, console.width)
        with console.capture() as captured:  # so that a reader who leaves early, as `head` does, is no matter of rich's
            console.print(rich)
            for note in self.notes:
                console.print(Text(note))
        sys.stdout.write(captured.get())

    def to_csv(self) -> str:
        """The records with a line of their keys; lists as JSON."""
        return self.records.map(_plain).to_csv(index=False, lineterminator="\n")

    def to_json(self) -> str:
        """The records as a list of objects; pandas' own JSON would round to fifteen digits."""
        return json.dumps(_finite(self.records.to_dict("records")), indent=2, allow_nan=False, default=str) + "\n"

    def to_markdown(self) -> str:
        """A pipe table, the notes below it."""
        text = self.cells.map(lambda cell: _markdown(str(cell))).to_markdown(
            index=False,
            tablefmt="pipe",
            headers=list(map(_markdown, self.titles)),
            colalign=["right" if is_number else "left" for is_number in self.numeric],
            disable_numparse=True,
        )
        return f"{text}\n" + "".join(f"\n{_markdown(note)}\n" for note in self.notes)

    def to_latex(self) -> str:
        """A tabular with the rules of booktabs, the notes below it."""
        text = self.cells.map(_latex).to_latex(
            index=False,
            header=list(map(_latex, self.titles)),
            column_format="".join("r" if is_number else "l" for is_number in self.numeric),
        )
        notes = "".join(f"\n{{\\footnotesize {_latex(note)}}}\n" for note in self.notes)
        return f"% \\usepackage{{booktabs}}\n{text}{notes}"

    def _fitted(self, widths: list[int], available: int) -> list[int]:
        """The columns' widths, the widest texts made narrower as far as they must and can be."""
        fitted = list(widths)
        texts = [at for at, is_number in enumerate(self.numeric) if not is_number]
        while texts and sum(fitted) > available:
            widest = max(texts, key=lambda at: fitted[at])
            if fitted[widest] <= NARROW:
                break
            fitted[widest] -= 1
        return fitted


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _finite(value: Any) -> Any:
    """The same with infinity as a text, for which JSON has no number; NaN is how a DataFrame says there is none."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<`])", r"\\\1", " ".join(text.split()))


def _latex(cell: str | Number) -> str:
    if isinstance(cell, Number):
        value, error = cell.texts
        mark = f"\\textsuperscript{{{_latex(cell.mark)}}}" if cell.mark else ""
        return f"${value} \\pm {error}${mark}" if error else f"${value}${mark}"
    return "".join(LATEX.get(sign, sign) for sign in cell).replace("log p(x)", r"$\log p(x)$")
