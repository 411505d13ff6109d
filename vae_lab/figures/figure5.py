"""Figure 5: random samples of MNIST models with latent spaces of different dimensions."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Curve, PaperFigure, load_last, records
from vae_lab.figures.canvas import styled
from vae_lab.figures.decoded import caption_of, model_table, show, show_missing
from vae_lab.figures.run_facts import dark_on_white_by_default
from vae_lab.figures.section5 import Section5
from vae_lab.image_grids import image_grid
from vae_lab.runs.directory import RunDir

WIDTH = 3.0


class Figure5(PaperFigure):
    """Decoder means at z ~ N(0, I).

    Args:
        training: the trainings of section 5.
        data_set: whose images are sampled.
        latent_dims: a picture for each.
        side: images along each side of a picture.
        seed: of the z.
    """

    name = "figure5"

    def __init__(self, *, training: Section5, data_set: str, latent_dims: list[int], side: int, seed: int) -> None:
        if not latent_dims or side < 1:
            raise ConfigError(f"figure.latent_dims must hold a size, figure.side be >= 1, got {latent_dims} and {side}")
        self.training, self.data_set, self.latent_dims = training, data_set, latent_dims
        self.side, self.seed = side, seed

    def curves(self, scale: str) -> list[Curve]:
        """AEVB with every latent size."""
        return [self.training.curve(self.data_set, size, "aevb", scale) for size in self.latent_dims]

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The models that are there."""
        facts = {
            curve.label: {"dataset": self.data_set, "latent_dim": size}
            for size, curve in zip(self.latent_dims, self.curves(scale), strict=True)
        }
        return model_table(runs, facts)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The pictures in a row, by latent size."""
        models = {row["latent_dim"]: row for row in records(table)}
        columns = len(self.latent_dims)
        figure = Figure(figsize=(WIDTH * columns, WIDTH + 0.6), layout="constrained")
        for i, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
            latent_dim = self.latent_dims[i]
            title = f"({chr(ord('a') + i)}) {latent_dim}-D latent space"
            if latent_dim not in models:
                show_missing(axes, title)
                continue
            run = load_last(models[latent_dim]["run"])
            samples = run.sample(self.side**2, self.seed)
            grid = image_grid(samples, columns=self.side, dark_on_white=dark_on_white_by_default(run))
            show(axes, grid, title, caption_of(models[latent_dim]))
        return figure
