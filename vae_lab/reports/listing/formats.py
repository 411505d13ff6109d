"""A table of runs as text: for a terminal, for a page, for a paper, for a program."""

import csv
import io
import json
import math
import re
import sys
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from vae_lab.reports.listing.table import Cell, Number, Table

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
WITH_NOTES = ("table", "markdown", "latex")
"""Formats that say below the table what its marks mean; a program must not stumble over that."""
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


def print_table(table: Table) -> None:
    """On stdout. A terminal breaks long texts inside of their columns; in a file no line is broken, for the paths."""
    console = Console()
    widths = [max(map(cell_len, [heading.title, *map(str, cells)])) for heading, cells in table.columns()]
    if console.is_terminal:
        widths = _fitted(table, widths, console.width - FRAME * len(widths) - 1)
    width = sum(widths) + FRAME * len(widths) + 1
    if not console.is_terminal:
        width = max(width, *map(cell_len, [table.title, *table.notes]))
    rich = RichTable(title=Text(table.title), title_justify="left")
    for heading, column in zip(table.headings, widths, strict=True):
        justify = "right" if heading.is_number else "left"
        rich.add_column(Text(heading.title), justify=justify, overflow="fold", width=column)
    for row in table.rows:
        rich.add_row(*(Text(str(cell), style=STYLES.get(str(cell), "")) for cell in row))
    console.width = max(width, console.width)
    with console.capture() as captured:  # so that a reader who leaves early, as `head` does, is no matter of rich's
        console.print(rich)
        for note in table.notes:
            console.print(Text(note))
    sys.stdout.write(captured.get())


def _fitted(table: Table, widths: list[int], available: int) -> list[int]:
    """The columns' widths, the widest texts made narrower as far as they must and can be."""
    fitted = dict(enumerate(widths))
    texts = [at for at, heading in enumerate(table.headings) if not heading.is_number]
    while texts and sum(fitted.values()) > available:
        widest = max(texts, key=lambda at: fitted[at])
        if fitted[widest] <= NARROW:
            break
        fitted[widest] -= 1
    return list(fitted.values())


def as_csv(table: Table) -> str:
    """The records with a line of their keys; lists as JSON."""
    text = io.StringIO()
    names = dict.fromkeys(name for record in table.records for name in record)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in record.items()} for record in table.records)
    return text.getvalue()


def as_json(table: Table) -> str:
    """The records as a list of objects."""
    return json.dumps(_finite(table.records), indent=2, allow_nan=False, default=str) + "\n"


def as_markdown(table: Table) -> str:
    """A pipe table, the notes below it."""
    lines = [
        [_markdown(heading.title) for heading in table.headings],
        ["---:" if heading.is_number else "---" for heading in table.headings],
        *([_markdown(str(cell)) for cell in row] for row in table.rows),
    ]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"\n{_markdown(note)}\n" for note in table.notes)


def as_latex(table: Table) -> str:
    """A tabular with the rules of booktabs, the notes below it."""
    import pandas as pd

    frame = pd.DataFrame([[_latex(cell) for cell in row] for row in table.rows])
    text = frame.to_latex(
        index=False,
        header=[_latex(heading.title) for heading in table.headings],
        column_format="".join("r" if heading.is_number else "l" for heading in table.headings),
    )
    notes = "".join(f"\n{{\\footnotesize {_latex(note)}}}\n" for note in table.notes)
    return f"% \\usepackage{{booktabs}}\n{text}{notes}"


FORMATS = {"csv": as_csv, "json": as_json, "markdown": as_markdown, "latex": as_latex}
"""Those that are text; `table` is printed."""


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _finite(value: Any) -> Any:
    """The same with NaN and infinity as texts: JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*<`])", r"\\\1", " ".join(text.split()))


def _latex(cell: Cell) -> str:
    if isinstance(cell, Number):
        value, error = cell.texts
        mark = f"\\textsuperscript{{{_latex(cell.mark)}}}" if cell.mark else ""
        return f"${value} \\pm {error}${mark}" if error else f"${value}${mark}"
    text = "".join(LATEX.get(sign, sign) for sign in cell)
    return text.replace("log p(x)", r"$\log p(x)$")
