"""What figures 4 and 5 and the gallery share: a table of trained models, and how their images are shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from vae_lab.figures.base import PaperFigure, has_weights
from vae_lab.figures.canvas import GREY, nats, show_grid
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import samples_of

NAMES = {"mnist": "MNIST", "frey_face": "Frey Face", "digits": "digits"}
"""Data sets as they are printed."""
COLUMNS = ("label", "run", "samples_evaluated", "test_bound_nats", "bound_samples")
"""What is known of a model."""


class ModelFigure(PaperFigure):
    """A figure of trained models: a row for each, whose images are arrays beside the table."""

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """The model, if it is there, and the test bound last measured."""
        if not has_weights(run):
            return []
        row = {"run": str(run.path), "samples_evaluated": samples_of(run.checkpoint_path("last"))}
        measured = [row for row in read_rows(run.curve) if "test/bound" in row]
        if measured:
            row["test_bound_nats"] = measured[-1]["test/bound"]
            row["bound_samples"] = int(measured[-1]["samples_evaluated"])
        return [row]


def caption_of(row: Mapping[str, Any]) -> str:
    """The test bound of a row's model, and after how many training samples."""
    if pd.isna(row["test_bound_nats"]):
        return f"{row['samples_evaluated']:,} samples"
    return f"test bound {nats(row['test_bound_nats'])} nats at {int(row['bound_samples']):,} samples"


def show(axes: Axes, grid: np.ndarray | None, title: str, caption: str) -> None:
    """A grid with its title below, as in the paper, and what is known about its model; None: an empty frame."""
    if grid is None:
        show_missing(axes)
    else:
        show_grid(axes, torch.from_numpy(grid))
        axes.text(0.5, 1.015, caption, transform=axes.transAxes, ha="center", va="bottom", size=8, color=GREY)
    axes.set_xlabel(title, labelpad=4)


def show_missing(axes: Axes) -> None:
    """An empty frame in a missing model's place."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.spines[:].set(visible=True, color="0.8")
    axes.text(0.5, 0.5, "no run yet", ha="center", va="center", color=GREY, size=8)
