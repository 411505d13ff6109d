"""What figures 4 and 5 and the gallery share: a table of trained models, and how their images are shown."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from vae_lab.figures.base import has_weights, load_last, table_of
from vae_lab.figures.canvas import GREY, show_grid
from vae_lab.figures.run_facts import nats
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir

NAMES = {"mnist": "MNIST", "frey_face": "Frey Face", "digits": "digits"}
"""Data sets as they are printed."""
BOUND = ("test_bound_nats", "bound_samples")


def model_table(runs: Mapping[str, RunDir], facts: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """A row for each model that is there: its `facts` by label, its run, and the test bound last measured."""
    columns = dict.fromkeys(name for entry in facts.values() for name in entry)
    rows = []
    for label, entry in facts.items():
        if has_weights(runs.get(label)):
            run = load_last(runs[label].path)
            measured = [row for row in read_rows(runs[label].curve) if "test/bound" in row]
            bound = {}
            if measured:
                values = measured[-1]["test/bound"], int(measured[-1]["samples_evaluated"])
                bound = dict(zip(BOUND, values, strict=True))
            weights = {"label": label, "run": str(run.path), "samples_evaluated": run.samples}
            rows.append({**entry, **weights, **bound})
    return table_of(rows, [*columns, "label", "run", "samples_evaluated", *BOUND])


def caption_of(row: Mapping[str, Any]) -> str:
    """The test bound of a row's model, and after how many training samples."""
    if pd.isna(row["test_bound_nats"]):
        return f"{row['samples_evaluated']:,} samples"
    return f"test bound {nats(row['test_bound_nats'])} nats at {int(row['bound_samples']):,} samples"


def show(
    axes: Axes,
    grid: Float[Tensor, "channel grid_height grid_width"],
    title: str,
    caption: str,
    size: float = 8,
) -> None:
    """A grid with its title below, as in the paper, and what is known about its model."""
    show_grid(axes, grid)
    axes.set_xlabel(title, labelpad=4)
    axes.text(0.5, 1.015, caption, transform=axes.transAxes, ha="center", va="bottom", size=size, color=GREY)


def show_missing(axes: Axes, title: str, text: str = "no run yet") -> None:
    """An empty frame in a missing model's place."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.spines[:].set(visible=True, color="0.8")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, size=8)
    axes.set_xlabel(title, labelpad=4)
