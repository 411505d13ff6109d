"""Figure 4: the manifolds that two-dimensional latent spaces have learned, each cell of equal prior mass."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Curve, PaperFigure, load_last, records
from vae_lab.figures.canvas import styled
from vae_lab.figures.decoded import NAMES, caption_of, model_table, show, show_missing
from vae_lab.figures.run_facts import dark_on_white_by_default
from vae_lab.figures.section5 import Section5
from vae_lab.image_grids import decode_manifold, image_grid
from vae_lab.runs.directory import RunDir

HEIGHT = 4.6


class Figure4(PaperFigure):
    """Decoder means over the unit square through the inverse normal CDF, without gaps.

    Args:
        training: the trainings of section 5.
        sizes: images along each side of each data set's manifold.
    """

    name = "figure4"

    def __init__(self, *, training: Section5, sizes: dict[str, int]) -> None:
        if not sizes or min(sizes.values()) < 1:
            raise ConfigError(f"figure.sizes must give each data set a number >= 1, got {sizes}")
        self.training, self.sizes = training, sizes

    def curves(self, scale: str) -> list[Curve]:
        """AEVB with two latent dimensions on every data set."""
        return [self.training.curve(data_set, 2, "aevb", scale) for data_set in self.sizes]

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The models that are there."""
        facts = {
            curve.label: {"dataset": data_set, "latent_dim": 2}
            for data_set, curve in zip(self.sizes, self.curves(scale), strict=True)
        }
        return model_table(runs, facts)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The manifolds beside each other, of the same height."""
        models = {row["dataset"]: row for row in records(table)}
        grids, captions = {}, {}
        for data_set, row in models.items():
            run = load_last(row["run"])
            images, size = decode_manifold(run.decode, self.sizes[data_set]), self.sizes[data_set]
            grids[data_set] = image_grid(images, columns=size, dark_on_white=dark_on_white_by_default(run))
            captions[data_set] = caption_of(row)
        widths = [grids[name].shape[2] / grids[name].shape[1] if name in grids else 1.0 for name in self.sizes]
        figure = Figure(figsize=(HEIGHT * sum(widths) + 0.4, HEIGHT + 0.7), layout="constrained")
        for i, axes in enumerate(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]):
            data_set = list(self.sizes)[i]
            title = f"({chr(ord('a') + i)}) Learned {NAMES.get(data_set, data_set)} manifold"
            if data_set in grids:
                show(axes, grids[data_set], title, captions[data_set])
            else:
                show_missing(axes, title)
        return figure
