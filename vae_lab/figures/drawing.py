"""From run directories to a figure's table, and from the table to its pictures."""

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vae_lab.atomic import write_text
from vae_lab.errors import RunError
from vae_lab.figures.base import Missing, PaperFigure
from vae_lab.figures.canvas import save


@dataclass(frozen=True)
class Drawn:
    """The files of a figure, and what it still lacks."""

    csv: Path
    png: Path
    pdf: Path
    extras: list[Path]
    missing: list[Missing]


def make_figure(paper_figure: PaperFigure, root: Path, scale: str) -> Drawn:
    """Writes <root>/figures/<name>.csv, and .png and .pdf from it, of the runs that are in <root>/runs.

    Raises:
        RunError: none of its runs is there.
    """
    folder = root / "runs"
    runs = paper_figure.find_runs(folder, scale)
    missing = paper_figure.missing(runs, scale, folder)
    if not runs:
        commands = "; ".join(entry.command for entry in missing)
        raise RunError(f"{folder} holds no run of {paper_figure.name}; what makes them: {commands}")
    stem = root / "figures" / paper_figure.name
    csv = stem.with_name(f"{stem.name}.csv")
    text = paper_figure.collect(runs, scale).to_csv(index=False)
    write_text(csv, text)
    table = pd.read_csv(io.StringIO(text))
    png, pdf = save(paper_figure.draw(table), stem)
    return Drawn(csv, png, pdf, paper_figure.extras(table, stem.parent), missing)
