"""Figure 4: the manifolds that two-dimensional latent spaces have learned, each cell of equal prior mass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Arrays, Curve, load_last, records
from vae_lab.figures.canvas import styled
from vae_lab.figures.decoded import COLUMNS, NAMES, ModelFigure, caption_of, show
from vae_lab.figures.run_facts import dark_on_white_by_default
from vae_lab.figures.section5 import Section5
from vae_lab.image_grids import decode_manifold, image_grid
from vae_lab.runs.directory import RunDir

HEIGHT = 4.6


@dataclass(kw_only=True, eq=False)
class Figure4(ModelFigure):
    """Decoder means over the unit square through the inverse normal CDF, without gaps.

    Args:
        training: the trainings of section 5.
        sizes: images along each side of each data set's manifold.
    """

    name = "figure4"
    columns = ("dataset", "latent_dim", *COLUMNS)

    training: Section5
    sizes: dict[str, int]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes.values()) < 1:
            raise ConfigError(f"figure.sizes must give each data set a number >= 1, got {self.sizes}")

    def trainings(self, scale: str) -> dict[Curve, dict[str, Any]]:
        """AEVB with two latent dimensions on every data set."""
        return {self.training.curve(name, 2, "aevb", scale): {"dataset": name, "latent_dim": 2} for name in self.sizes}

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """The manifold."""
        loaded, size = load_last(run.path), self.sizes[facts["dataset"]]
        images = decode_manifold(loaded.decode, size)
        return {"manifold": image_grid(images, columns=size, dark_on_white=dark_on_white_by_default(loaded)).numpy()}

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The manifolds beside each other, of the same height."""
        models = {row["dataset"]: row for row in records(table)}
        grids = {name: arrays[f"{row['label']}/manifold"] for name, row in models.items()}
        widths = [grids[name].shape[2] / grids[name].shape[1] if name in grids else 1.0 for name in self.sizes]
        figure = Figure(figsize=(HEIGHT * sum(widths) + 0.4, HEIGHT + 0.7), layout="constrained")
        panels = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        for i, (axes, name) in enumerate(zip(panels, self.sizes, strict=True)):
            title = f"({chr(ord('a') + i)}) Learned {NAMES.get(name, name)} manifold"
            show(axes, grids.get(name), title, caption_of(models[name]) if name in models else "")
        return figure
