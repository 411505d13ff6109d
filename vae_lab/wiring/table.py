"""The table of all commands and reports: one object, written for a terminal, a page, a paper or a program."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from vae_lab.wiring.terminal import printable, put

if TYPE_CHECKING:  # it is imported where it is needed: whoever only waits for others is not to wait for it
    import pandas as pd

TONES = {
    **dict.fromkeys(("finished", "yes"), "good"),
    **dict.fromkeys(("failed", "broken", "no"), "bad"),
    **dict.fromkeys(("interrupted", "in part"), "warn"),
    **{"running": "busy", "planned": "dim"},
}
"""Texts of cells that stand out -> how; on a page, the name of their class."""
STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "busy": "cyan", "dim": "dim"}
"""The same on a terminal."""
NUMERIC = re.compile(r"[-−+]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\*?|\d+(:\d\d)? (s|min|h)|\d+ of \d+")
"""A number with signs and separators, perhaps with an asterisk, a duration, or how many of how many."""
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$"},
    }
)
"""Signs that LaTeX reads otherwise -> how they are written."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What begins a text that a spreadsheet would run."""
LONGEST = 1000
"""Signs of a cell that a terminal shows, at most."""
ANY_WIDTH = 100_000
FRAME = 3
"""What rich's lines and margins add to the width of a column."""
NO_ERROR = 5e-7
"""A standard error up to here is none that a table could show."""
WORD = 100
"""Words up to this length, and so paths, are not broken; the terminal breaks what is too wide even so."""


@dataclass(frozen=True)
class Number:
    """A cell with a number, perhaps its standard error, and the mark of what cannot be compared."""

    value: float
    error: float | None = None
    mark: str = ""
    places: int = 2
    """Decimal places, or more where the error needs them."""

    @property
    def texts(self) -> tuple[str, str]:
        """The value, and what stands behind it: ` ± ` and an error that is known and not zero, and the mark."""
        mark = f" {self.mark}" if self.mark else ""
        if self.error is None or not NO_ERROR < self.error < math.inf:
            return f"{self.value:.{self.places}f}", mark
        places = min(6, max(self.places, math.ceil(-math.log10(self.error))))
        return f"{self.value:.{places}f}", f" ± {self.error:.{places}f}{mark}"

    def __str__(self) -> str:
        return "".join(self.texts)


Cell = str | Number


def number(value: float | None, error: float | None = None, mark: str = "", places: int = 2) -> Cell:
    """The cell of a measured value; it is empty where there is none."""
    return "" if value is None or math.isnan(value) else Number(float(value), error, mark, places)


@dataclass
class Table:
    """Rows of cells under headings; columns of numbers stand to the right."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    caption: str = ""
    """What stands below it; a note in each line."""
    tones: Mapping[str, str] | None = None
    """The texts that stand out besides those of `TONES`."""
    title: str = ""
    """What stands above it on a terminal."""
    records: "pd.DataFrame | None" = None
    """The rows for programs, with full keys and full precision."""

    @classmethod
    def of_columns(
        cls, columns: Sequence[tuple[str, Sequence[Cell]]], caption: str, title: str, records: "pd.DataFrame"
    ) -> "Table":
        """The table of these headings and their cells; a column without any text is left out."""
        shown = [(title, cells) for title, cells in columns if any(map(str, cells))]
        rows = list(zip(*(cells for _, cells in shown), strict=True))
        return cls([title for title, _ in shown], rows, caption, title=title, records=records)

    @property
    def notes(self) -> list[str]:
        """The lines below it."""
        return self.caption.splitlines()

    @cached_property
    def is_numeric(self) -> list[bool]:
        """Whether all cells of a column are numbers or empty, for each column."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        filled = [[cell for cell in cells if str(cell)] for cells in columns]
        return [bool(cells) and all(map(is_number, cells)) for cells in filled]

    @cached_property
    def widths(self) -> list[int]:
        """The signs of the longest error and mark in each column: values stand below each other whatever follows."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return [max((len(cell.texts[1]) for cell in cells if isinstance(cell, Number)), default=0) for cells in columns]

    def turned(self) -> "Table":
        """A column for each row; the columns' names stand on the left."""
        first, *others = zip(*self.rows, strict=True)
        rows = [[name, *cells] for name, cells in zip(self.columns[1:], others, strict=True)]
        return replace(self, columns=[self.columns[0], *map(str, first)], rows=rows)

    def cut(self, most: int) -> list["Table"]:
        """The same in tables of so many rows at most; the notes stand below the last one."""
        tables = [replace(self, rows=self.rows[i : i + most], caption="") for i in range(0, len(self.rows), most)]
        return [*tables[:-1], *(replace(table, caption=self.caption) for table in tables[-1:])]

    def tone(self, cell: Cell) -> str:
        """How a cell stands out; empty where it does not."""
        return (TONES | dict(self.tones or {})).get(str(cell), "")

    def write(self, form: str) -> None:
        """Writes it on stdout; notes that the format has no place for go to stderr, out of the way of programs.

        Args:
            form: table, csv, json, markdown or latex.
        """
        if form == "table":
            self.print()
        elif form in ("csv", "json"):
            put(self.to_csv() if form == "csv" else self.to_json(), end="")
            for note in self.notes:
                print(printable(note), file=sys.stderr)
        elif self.rows:
            put(self.to_markdown() if form == "markdown" else self.to_latex(), end="")

    def print(self) -> None:
        """Shows it on a terminal, which breaks long texts inside of their columns; in a file no line is broken."""
        console, rich = Console(), RichTable()
        columns, *rows = texts = [list(map(_shown, row)) for row in (self.columns, *self.rows)]
        longest = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
        words = [
            max(min(WORD, cell_len(word)) for cell in column for word in cell.split() or [""])
            for column in zip(*texts, strict=True)
        ]
        least = [num if known else word for num, word, known in zip(longest, words, self.is_numeric, strict=True)]
        console.width = max(console.width, sum(least) + FRAME * len(least) + 1) if console.is_terminal else ANY_WIDTH
        fits = sum(longest) + FRAME * len(longest) < console.width
        for title, num, word, is_numeric in zip(columns, longest, least, self.is_numeric, strict=True):
            look: Any = {"justify": "right", "no_wrap": True} if is_numeric else {"overflow": "fold", "min_width": word}
            rich.add_column(Text(title), width=num if fits else None, **look)  # rich would measure all once more
        for cells in rows:
            rich.add_row(*(Text(cell, style=STYLES.get(self.tone(cell), "")) for cell in cells))
        with console.capture() as captured:  # so that a reader who leaves early, as `head` does, is no matter of rich's
            above, below = ([Text(_shown(line)) for line in text.splitlines()] for text in (self.title, self.caption))
            for content in (*above, rich, *below):
                console.print(content)
        put(captured.get(), end="")

    def to_csv(self) -> str:
        """The records with a line of their keys; lists as JSON."""
        if self.records is None:
            return "\n"
        plain = {_plain(name): list(map(_plain, column)) for name, column in self.records.items()}
        return type(self.records)(plain, dtype=object).to_csv(index=False, lineterminator="\n")

    def to_json(self) -> str:
        """The records as a list of objects; pandas' own JSON would round to fifteen digits."""
        records = [] if self.records is None else self.records.to_dict("records")
        return json.dumps(_finite(records), indent=2, allow_nan=False, default=str) + "\n"

    def to_markdown(self) -> str:
        """A pipe table, the notes below it."""
        import pandas as pd

        text = pd.DataFrame([[_markdown(str(cell)) for cell in row] for row in self.rows]).to_markdown(
            index=False,
            tablefmt="pipe",
            headers=list(map(_markdown, self.columns)),
            colalign=["right" if is_numeric else "left" for is_numeric in self.is_numeric],
            disable_numparse=True,
        )
        return f"{text}\n" + "".join(f"\n{_markdown(note)}\n" for note in self.notes)

    def to_latex(self) -> str:
        """A tabular with the rules of booktabs, the notes below it."""
        import pandas as pd

        text = pd.DataFrame([list(map(_latex, row)) for row in self.rows]).to_latex(
            index=False,
            header=list(map(_latex, self.columns)),
            column_format="".join("r" if is_numeric else "l" for is_numeric in self.is_numeric),
        )
        notes = "".join(f"\n{{\\footnotesize {_latex(note)}}}\n" for note in self.notes)
        return f"% \\usepackage{{booktabs}}\n{text}{notes}"


def is_number(cell: Cell) -> bool:
    """Whether a cell holds one number and nothing else."""
    return isinstance(cell, Number) or NUMERIC.fullmatch(cell) is not None


def _shown(cell: Cell) -> str:
    """A cell on a terminal."""
    text = str(cell)
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def _plain(value: Any) -> Any:
    """A cell of a CSV file; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    text = json.dumps(value) if isinstance(value, list | dict) else value
    if not isinstance(text, str):
        return text
    return f"'{printable(text)}" if text.startswith(FORMULA) and not is_number(text) else printable(text)


def _finite(value: Any) -> Any:
    """The same with infinity as a text, for which JSON has no number, and null for NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<`])", r"\\\1", printable(" ".join(text.split())))


def _latex(cell: Cell) -> str:
    if isinstance(cell, Number):
        mark = f"\\textsuperscript{{{_latex(cell.mark)}}}" if cell.mark else ""
        return f"${replace(cell, mark='')}${mark}".replace("±", r"\pm")
    return printable(cell).translate(LATEX).replace("log p(x)", r"$\log p(x)$")
