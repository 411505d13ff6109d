"""Figure 5: random samples of MNIST models with latent spaces of different dimensions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Arrays, Curve, load_last, records
from vae_lab.figures.canvas import styled
from vae_lab.figures.decoded import COLUMNS, ModelFigure, caption_of, show
from vae_lab.figures.run_facts import dark_on_white_by_default
from vae_lab.figures.section5 import Section5
from vae_lab.image_grids import image_grid
from vae_lab.runs.directory import RunDir

WIDTH = 3.0


@dataclass(kw_only=True, eq=False)
class Figure5(ModelFigure):
    """Decoder means at z ~ N(0, I).

    Args:
        training: the trainings of section 5.
        data_set: whose images are sampled.
        latent_dims: a picture for each.
        side: images along each side of a picture.
        seed: of the z.
    """

    name = "figure5"
    columns = ("dataset", "latent_dim", *COLUMNS)

    training: Section5
    data_set: str
    latent_dims: list[int]
    side: int
    seed: int

    def __post_init__(self) -> None:
        if not self.latent_dims or self.side < 1:
            raise ConfigError(
                f"figure.latent_dims must hold a size, figure.side be >= 1, got {self.latent_dims} and {self.side}"
            )

    def trainings(self, scale: str) -> dict[Curve, dict[str, Any]]:
        """AEVB with every latent size."""
        return {
            self.training.curve(self.data_set, size, "aevb", scale): {"dataset": self.data_set, "latent_dim": size}
            for size in self.latent_dims
        }

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """The samples."""
        loaded = load_last(run.path)
        samples, dark_on_white = loaded.sample(self.side**2, self.seed), dark_on_white_by_default(loaded)
        return {"samples": image_grid(samples, columns=self.side, dark_on_white=dark_on_white).numpy()}

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The pictures in a row, by latent size."""
        models = {row["latent_dim"]: row for row in records(table)}
        columns = len(self.latent_dims)
        figure = Figure(figsize=(WIDTH * columns, WIDTH + 0.6), layout="constrained")
        panels = figure.subplots(1, columns, squeeze=False)[0]
        for i, (axes, size) in enumerate(zip(panels, self.latent_dims, strict=True)):
            title, row = f"({chr(ord('a') + i)}) {size}-D latent space", models.get(size)
            grid, caption = (arrays[f"{row['label']}/samples"], caption_of(row)) if row else (None, "")
            show(axes, grid, title, caption)
        return figure
