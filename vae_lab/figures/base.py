"""What a figure of the paper is: the trainings it needs -> a table from their directories -> a drawing of it.

A figure never trains. It reads the run directories that are there, and says which are not and what makes
them.
"""

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pandas as pd
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError, require_choice
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_run
from vae_lab.training.matmul import use_backend

SCALES = ("quick", "standard", "paper")
"""Budgets: minutes on two cores, an afternoon, the published axes."""


@dataclass(frozen=True)
class Curve:
    """One training that a figure needs.

    Figures that need the same training name it by equal curves.
    """

    label: str
    """Its folder's name: letters, digits, '.', '-' and '_'."""
    overrides: tuple[str, ...]
    """Of `vae-lab train`, without budget, snapshots and, where there are candidates, step size."""
    learning_rates: tuple[float, ...]
    """Step sizes to choose from by short probes; empty: as configured."""
    max_samples: int
    snapshots: tuple[int, ...] = ()
    """Counts of training samples at which weights are kept (`checkpoint.at`)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.label):
            raise ConfigError(f"a curve's label must be of letters, digits, '.', '-' and '_', got {self.label!r}")

    @property
    def all_overrides(self) -> list[str]:
        """With budget and snapshots, without a step size."""
        kept = [f"checkpoint.at=[{','.join(map(str, self.snapshots))}]"] if self.snapshots else []
        return [*self.overrides, *kept, f"max_samples={self.max_samples}"]

    def command(self, path: Path) -> str:
        """The command line that trains it there, with the step size of its experiment."""
        return shlex.join(["vae-lab", "train", f"run_dir={path}", *self.all_overrides])


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
    """A figure made from run directories; `name` is that of its files."""

    name: ClassVar[str]

    @abstractmethod
    def curves(self, scale: str) -> list[Curve]:
        """The trainings that it needs at this scale."""

    @abstractmethod
    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The table that is drawn, from the runs that are there, by label."""

    @abstractmethod
    def draw(self, table: pd.DataFrame) -> Figure:
        """The picture of a table; what the table lacks is left out, and the picture says so."""

    def extras(self, table: pd.DataFrame, folder: Path) -> list[Path]:
        """Writes what goes with the picture into `folder`; returns the files."""
        return []

    def num_estimates(self, curve: Curve) -> int:
        """How many estimates `collect` makes from a whole run of this curve; none where it only reads."""
        return 0

    def find_runs(self, folder: Path, scale: str) -> dict[str, RunDir]:
        """Those of its runs that exist in `folder`, by label."""
        runs = {curve.label: RunDir(folder / curve.label) for curve in self.curves(scale)}
        return {label: run for label, run in runs.items() if run.exists()}

    def missing(self, runs: Mapping[str, RunDir], scale: str, folder: Path) -> list[Missing]:
        """The curves without a whole run, each with the command that makes or completes it in `folder`."""
        found = [_missing(curve, runs.get(curve.label), folder) for curve in self.curves(scale)]
        return [missing for missing in found if missing is not None]


def check_scale(scale: str) -> None:
    """Refuses an unknown scale."""
    require_choice("scale", scale, SCALES)


def check_by_scale(key: str, values: Mapping[str, object]) -> None:
    """Refuses settings by scale that do not name every scale."""
    if sorted(values) != sorted(SCALES):
        raise ConfigError(f"{key} must have a value for each of {', '.join(SCALES)}, got {', '.join(values) or 'none'}")


def has_weights(run: RunDir | None) -> bool:
    """Whether the run has been trained as far as its first checkpoint."""
    return run is not None and (run.checkpoints / "last.ckpt").is_file()


def part(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    chosen = pd.Series(True, index=table.index)
    for column, value in values.items():
        chosen &= table[column] == value
    return cast(pd.DataFrame, table[chosen])


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def table_of(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows as a table with exactly these columns, also where there is no row."""
    return pd.DataFrame([dict(row) for row in rows], columns=list(columns))


def _missing(curve: Curve, run: RunDir | None, folder: Path) -> Missing | None:
    if run is None:
        return Missing(curve.label, "no run", curve.command(folder / curve.label))
    go_on = shlex.join(["vae-lab", "train", f"run_dir={run.path}"])
    status = run.status
    if status == "running":
        return Missing(curve.label, "still running", f"wait, or watch {run.log}")
    if status == "failed":
        return Missing(curve.label, f"failed: {run.record['error']}", go_on)
    if status != "finished":
        at = f" at {run.record['samples_evaluated']:,} samples" if "samples_evaluated" in run.record else ""
        return Missing(curve.label, f"{status}{at}", go_on)
    budget = run.config["max_samples"]
    if budget is not None and budget < curve.max_samples:
        reason = f"ends at {int(budget):,} of {curve.max_samples:,} samples"
        return Missing(curve.label, reason, f"{go_on} max_samples={curve.max_samples}")
    return None


def load_last(path: str | Path) -> Run:
    """The run at its last checkpoint, as comparisons with published curves use it, on its own `matmul_backend`."""
    run = load_run(path, checkpoint="last")
    use_backend(run.config.get("matmul_backend", "default"))
    return run
