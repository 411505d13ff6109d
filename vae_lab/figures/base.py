"""What a figure of the paper is: trainings -> what is measured with their weights -> a table -> a drawing of it.

A figure never trains. It reads the run directories that are there, and says which are not and what makes
them.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vae_lab.atomic import atomic_file, write_text
from vae_lab.errors import ConfigError, RunError
from vae_lab.figures.canvas import save
from vae_lab.figures.needed import SCALES, NeededRun
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_run
from vae_lab.training.matmul import use_backend
from vae_lab.wiring.arguments import override, pasted

Arrays = Mapping[str, np.ndarray]
"""What a picture shows besides its table, by `<label>/<name>`."""


@dataclass(frozen=True)
class Missing:
    """A training that is not there, or not whole."""

    label: str
    reason: str
    command: str
    """What makes or completes it."""

    def __str__(self) -> str:
        return f"{self.label} ({self.reason}): {self.command}"


class PaperFigure(ABC):
    """A figure made from run directories.

    `measure` loads weights, `collect` reads curves and ledgers, and `draw` needs no run: it draws again from the files
    that the two have left.
    """

    name: ClassVar[str]
    """The name of the figure's files."""
    columns: ClassVar[Sequence[str]]
    """The columns of its table."""

    @abstractmethod
    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """The trainings that it needs at this scale, and what the table says about each of them."""

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """Measures what the run's ledgers lack, and returns what is shown of its model beside the table."""
        return {}

    @abstractmethod
    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """The rows of a run, from its curve and its ledgers."""

    @abstractmethod
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The picture of a table; what the table lacks is left out, and the picture says so."""

    def extras(self, table: pd.DataFrame, arrays: Arrays, folder: Path) -> list[Path]:
        """Writes what goes with the picture into `folder`; returns the files."""
        return []

    def num_estimates(self, needed: NeededRun, run: RunDir, scale: str) -> int:
        """How many values `measure` adds to the ledgers of a needed run, once it is whole, to those that are there."""
        return 0

    def needed_runs(self, scale: str) -> list[NeededRun]:
        """The trainings that it needs at this scale."""
        return list(self.trainings(scale))

    def measure(self, runs: Mapping[str, RunDir], scale: str) -> Arrays:
        """Measures what the ledgers of the runs that are there, by label, lack; returns the arrays to draw."""
        return {
            f"{needed.label}/{name}": array
            for needed, facts in self.trainings(scale).items()
            if needed.label in runs and runs[needed.label].has_checkpoint
            for name, array in self.measure_run(runs[needed.label], facts, scale).items()
        }

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The table that is drawn, from the runs that are there, by label."""
        rows = [
            facts | {"label": needed.label} | row
            for needed, facts in self.trainings(scale).items()
            if needed.label in runs
            for row in self.rows_of(runs[needed.label], scale)
        ]
        return pd.DataFrame(rows, columns=list(self.columns))

    def find_runs(self, folder: Path, scale: str, data_root: str | None = None) -> dict[str, RunDir]:
        """Those of its runs that exist in `folder`, by label; `data_root`: where their data lie now."""
        runs = {needed.label: RunDir(folder / needed.label, data_root) for needed in self.needed_runs(scale)}
        return {label: run for label, run in runs.items() if run.exists()}

    def missing(self, runs: Mapping[str, RunDir], scale: str, folder: Path) -> list[Missing]:
        """The needed runs that are not whole, each with the command that makes or completes it in `folder`."""
        found = [_missing(needed, runs.get(needed.label), folder) for needed in self.needed_runs(scale)]
        return [missing for missing in found if missing is not None]


@dataclass(frozen=True)
class Drawn:
    """The files of a figure, and what it still lacks."""

    csv: Path
    png: Path
    pdf: Path
    extras: list[Path]
    missing: list[Missing]


def make_figure(paper_figure: PaperFigure, root: Path, scale: str, data_root: str | None = None) -> Drawn:
    """Writes <root>/figures/<name>.csv and .npz of the runs that are in <root>/runs, and .png and .pdf from these.

    Raises:
        RunError: none of its runs is there.
    """
    folder = root / "runs"
    runs = paper_figure.find_runs(folder, scale, data_root)
    missing = paper_figure.missing(runs, scale, folder)
    if not runs:
        first = missing[0].command
        rest = f" and {len(missing) - 1} more" if missing[1:] else ""
        every = pasted("reproduce", f"scale={scale}", f"figures={paper_figure.name}", override("root", root))
        raise RunError(
            f"{folder} holds no run of {paper_figure.name}: {every} makes all that it needs, by itself {first}{rest}"
        )
    stem = root / "figures" / paper_figure.name
    csv = stem.with_name(f"{stem.name}.csv")
    arrays = paper_figure.measure(runs, scale)
    text = paper_figure.collect(runs, scale).to_csv(index=False)
    if arrays:
        with atomic_file(csv.with_suffix(".npz")) as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    write_text(csv, text)
    table = pd.read_csv(io.StringIO(text))
    png, pdf = save(paper_figure.draw(table, arrays), stem)
    return Drawn(csv, png, pdf, paper_figure.extras(table, arrays, stem.parent), missing)


def check_by_scale(**settings: Mapping[str, object]) -> None:
    """Refuses settings by scale, by their keys below `figure`, that do not name every scale."""
    for key, values in settings.items():
        if sorted(values) != sorted(SCALES):
            given = ", ".join(values) or "none"
            raise ConfigError(f"figure.{key} must have a value for each of {', '.join(SCALES)}, got {given}")


def load_last(directory: RunDir) -> Run:
    """The run at its last checkpoint, as comparisons with published curves use it, on its own `matmul_backend`."""
    run = load_run(directory.path, checkpoint="last", data_root=directory.data_root)
    use_backend(run.config["matmul_backend"])
    return run


def select(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    return cast(pd.DataFrame, table[(table[list(values)] == pd.Series(values)).all(axis=1)])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _missing(needed: NeededRun, run: RunDir | None, folder: Path) -> Missing | None:
    if run is None:
        return Missing(needed.label, "no run", needed.command(folder / needed.label))
    go_on = run.command("train")
    status, record = run.read_status(), run.read_record()
    if status == "running":
        return Missing(needed.label, "still running", f"wait, or watch {run.log}")
    if status == "failed":
        return Missing(needed.label, f"failed: {record.get('error')}", go_on)
    if status != "finished":
        at = f" at {record['samples_evaluated']:,} samples" if "samples_evaluated" in record else ""
        return Missing(needed.label, f"{status}{at}", go_on)
    budget = run.read_config()["max_samples"]
    if budget is not None and budget < needed.max_samples:
        reason = f"ends at {int(budget):,} of {needed.max_samples:,} samples"
        return Missing(needed.label, reason, f"{go_on} max_samples={needed.max_samples}")
    return None
