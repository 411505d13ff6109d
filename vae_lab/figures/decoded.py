"""What figures 4 and 5 and the gallery share: a table of trained models, and how their images are shown."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.data.image_grids import image_grid
from vae_lab.figures.base import Arrays, PaperFigure, load_last, records
from vae_lab.figures.canvas import GREY, nats, show_grid, styled
from vae_lab.figures.needed import NeededRun
from vae_lab.figures.run_pictures import dark_on_white_by_default
from vae_lab.figures.section5 import Section5
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, samples_of
from vae_lab.runs.result import draws_behind, draws_of_z, latest, loss_of, trained_with

NAMES = {"mnist": "MNIST", "frey_face": "Frey Face", "digits": "digits"}
"""Data sets as they are printed."""
COLUMNS = ("label", "run", "samples_evaluated", "test_bound_nats", "bound_samples", "bound_draws", "bound_loss")
"""What is known of a model."""


class ModelFigure(PaperFigure):
    """A figure of trained models: a row for each, whose images are arrays beside the table."""

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """The model, if it is there, and its test bound or, where it has none yet, the one that was measured last."""
        if not run.has_checkpoint:
            return []
        row: dict[str, Any] = {"run": str(run.path), "samples_evaluated": samples_of(run.checkpoint_path("last"))}
        ledger = run.ledger("last")
        if ledger.get("samples_evaluated") != row["samples_evaluated"] or "test/bound" not in ledger:
            measured = [row for row in read_rows(run.curve_file) if "test/bound" in row]
            ledger = latest(measured, run.read_config())
        if "test/bound" in ledger:
            row["test_bound_nats"] = ledger["test/bound"]
            row["bound_samples"] = int(ledger["samples_evaluated"])
            row["bound_draws"] = draws_behind(ledger, "test/bound")
            row["bound_loss"] = loss_of(ledger)
        return [row]


@dataclass(kw_only=True, eq=False)
class PictureRow(ModelFigure):
    """The images of AEVB models in a row of the same height, a title below each and its bound above.

    Args:
        training: the trainings of section 5.
    """

    columns = ("dataset", "latent_dim", *COLUMNS)
    height: ClassVar[float]
    margins: ClassVar[tuple[float, float]]
    """The margins beside the pictures, and above and below them, in inches as the height."""

    training: Section5

    @abstractmethod
    def titles(self) -> dict[tuple[str, int], str]:
        """The axes by data set and latent size, from the left."""

    @abstractmethod
    def images(self, run: Run, data_set: str) -> tuple[Tensor, int]:
        """The images of a model, and how many stand beside each other."""

    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """A model for each picture."""
        return {
            self.training.needed_run(data_set, latent_dim, "aevb", scale): {
                "dataset": data_set,
                "latent_dim": latent_dim,
            }
            for data_set, latent_dim in self.titles()
        }

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """The picture."""
        loaded = load_last(run)
        images, columns = self.images(loaded, facts["dataset"])
        return {"grid": image_grid(images, columns=columns, dark_on_white=dark_on_white_by_default(loaded)).numpy()}

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The pictures beside each other."""
        models = {(row["dataset"], row["latent_dim"]): row for row in records(table)}
        grids = {key: arrays[f"{row['label']}/grid"] for key, row in models.items()}
        widths = [grids[key].shape[2] / grids[key].shape[1] if key in grids else 1.0 for key in self.titles()]
        size = self.height * sum(widths) + self.margins[0], self.height + self.margins[1]
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        for i, (axes, (key, title)) in enumerate(zip(panels, self.titles().items(), strict=True)):
            if key in models:
                show_grid(axes, torch.from_numpy(grids[key]))
                look: dict[str, Any] = {"ha": "center", "va": "bottom", "size": 8, "color": GREY}
                axes.text(0.5, 1.015, caption_of(models[key]), transform=axes.transAxes, **look)
            else:
                show_missing(axes)
            axes.set_xlabel(f"({chr(ord('a') + i)}) {title}", labelpad=4)
        return figure


def caption_of(row: Mapping[str, Any]) -> str:
    """The test bound of a row's model, and after how many training samples."""
    if pd.isna(row["test_bound_nats"]):
        return f"{row['samples_evaluated']:,} samples"
    bound = f"{nats(row['test_bound_nats'])} nats{draws_of_z(int(row['bound_draws']))}"
    loss = row["bound_loss"] if isinstance(row["bound_loss"], str) else ""  # an empty text of a CSV file is NaN
    return f"test bound {bound}{trained_with(loss)} at {int(row['bound_samples']):,} samples"


def show_missing(axes: Axes) -> None:
    """An empty frame in a missing model's place."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.spines[:].set(visible=True, color="0.8")
    axes.text(0.5, 0.5, "no run yet", ha="center", va="center", color=GREY, size=8)
