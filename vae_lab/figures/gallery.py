"""Gallery: for every data set and latent size an MLP beside a convolutional network, and animated training.

What re-implementations of the paper show: samples, originals with reconstructions, the labelled latent space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from vae_lab.errors import ConfigError
from vae_lab.figures.animation import write_animation
from vae_lab.figures.base import Curve, PaperFigure, check_by_scale, check_scale, load_last, part, records
from vae_lab.figures.canvas import GREY, show_grid, styled
from vae_lab.figures.decoded import NAMES, caption_of, model_table, show_missing
from vae_lab.figures.run_facts import dark_on_white_by_default, kl_per_dimension
from vae_lab.image_grids import image_grid, paired_rows
from vae_lab.randomness import generator
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_weights

CELL = 2.1
SCATTERED = 2000
NETWORKS = {"mlp": "MLP", "conv": "convolutional"}
"""Networks as they are printed."""
BACKGROUND: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
PICTURES = ("samples", "original over reconstruction", "latent distribution")


class Gallery(PaperFigure):
    """A row for each data set and latent size, three pictures for each network.

    Args:
        data_sets: overrides for each data set.
        networks: overrides for each network.
        overrides: of every training.
        latent_dims: latent sizes.
        max_samples: the budget at each scale.
        snapshots: at each scale, the counts of training samples that the animations show.
        side: images along each side of a picture; even.
        seed: of the samples.
    """

    name = "gallery"

    def __init__(
        self,
        *,
        data_sets: dict[str, list[str]],
        networks: dict[str, list[str]],
        overrides: list[str],
        latent_dims: list[int],
        max_samples: dict[str, int],
        snapshots: dict[str, list[int]],
        side: int,
        seed: int,
    ) -> None:
        if side < 2 or side % 2:
            raise ConfigError(
                f"figure.side must be even and >= 2, got {side}: originals have their reconstructions below"
            )
        if not latent_dims or min(latent_dims) < 2:
            raise ConfigError(f"figure.latent_dims must hold sizes >= 2, got {latent_dims}: a scatter has two axes")
        check_by_scale("figure.max_samples", max_samples)
        check_by_scale("figure.snapshots", snapshots)
        self.data_sets, self.networks, self.overrides = data_sets, networks, overrides
        self.latent_dims, self.max_samples, self.snapshots = latent_dims, max_samples, snapshots
        self.side, self.seed = side, seed

    @property
    def rows(self) -> list[tuple[str, int]]:
        """Data set and latent size of each row."""
        return [(data_set, latent_dim) for data_set in self.data_sets for latent_dim in self.latent_dims]

    def curve(self, data_set: str, latent_dim: int, network: str, scale: str) -> Curve:
        """The training of one network on one data set."""
        check_scale(scale)
        choices = (*self.data_sets[data_set], *self.networks[network], f"model.latent_dim={latent_dim}")
        return Curve(
            label=f"gallery_{data_set}_{latent_dim}_{network}",
            overrides=(*choices, *self.overrides),
            learning_rates=(),
            max_samples=self.max_samples[scale],
            snapshots=tuple(self.snapshots[scale]),
        )

    def curves(self, scale: str) -> list[Curve]:
        """Every network of every row."""
        return [self.curve(*row, network, scale) for row in self.rows for network in self.networks]

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The models that are there."""
        facts = {
            self.curve(data_set, latent_dim, network, scale).label: {
                "dataset": data_set,
                "latent_dim": latent_dim,
                "network": network,
            }
            for data_set, latent_dim in self.rows
            for network in self.networks
        }
        return model_table(runs, facts)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The whole gallery on one page; bounds stand above the pictures of each model."""
        models = {(row["dataset"], row["latent_dim"], row["network"]): row for row in records(table)}
        columns, rows = len(PICTURES) * len(self.networks), len(self.rows)
        figure = Figure(figsize=(CELL * columns + 0.5, (CELL + 0.25) * rows + 0.8), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        labels = set()
        for row, (data_set, latent_dim) in enumerate(self.rows):
            for i, network in enumerate(self.networks):
                cells = grid[row, len(PICTURES) * i : len(PICTURES) * (i + 1)]
                model = models.get((data_set, latent_dim, network))
                if model is None:
                    for axes in cells:
                        show_missing(axes, "")
                    caption = "no run yet"
                else:
                    labels |= self.draw_model(list(cells), load_last(model["run"]))
                    caption = caption_of(model)
                cells[1].set_title(f"{NETWORKS.get(network, network)}: {caption}", size=8.5)
                for axes, picture in zip(cells, PICTURES, strict=True):
                    if row == rows - 1:
                        axes.set_xlabel(picture, size=9)
            grid[row, 0].set_ylabel(f"{NAMES.get(data_set, data_set)}, $N_z={latent_dim}$", size=11)
        if labels:
            look: dict[str, Any] = {"ls": "", "marker": "o"}
            dots = {str(label): Line2D([], [], color=colour_of(label), **look) for label in sorted(labels)}
            place = {"loc": "outside lower center", "ncols": 10, "title": "label"}
            figure.legend(list(dots.values()), list(dots), **place)
        return figure

    def draw_model(self, cells: Sequence[Axes], run: Run) -> set[int]:
        """The three pictures of a model; returns the labels that the last one shows."""
        dark_on_white = dark_on_white_by_default(run)
        test = run.data.parts["test"]
        x = test.images[: self.side**2 // 2]
        pairs = paired_rows(x, run.reconstruct(x), columns=self.side)
        for axes, images in zip(cells, (run.decode(self.latents(run)), pairs), strict=False):
            show_grid(axes, image_grid(images, columns=self.side, dark_on_white=dark_on_white))
        x, labels = test.images[:SCATTERED], test.labels
        kl, means = kl_per_dimension(run, x), run.encode(x)
        first, second = sorted(kl.argsort(descending=True)[:2].tolist())
        look = {"s": 2.5, "linewidths": 0, "rasterized": True}
        if labels is None:
            look |= {"c": test.indices[:SCATTERED].numpy(), "cmap": "viridis"}
        else:
            look |= {"color": [colour_of(label) for label in labels[:SCATTERED].tolist()]}
        axes = cells[2]
        axes.scatter(means[:, first].numpy(), means[:, second].numpy(), **look)
        axes.set(xticks=[], yticks=[], box_aspect=1)
        what = f"$z_{{{first}}}$, $z_{{{second}}}$" + ("; colour: place in the video" if labels is None else "")
        axes.text(0.03, 0.97, what, transform=axes.transAxes, va="top", size=6.5, color=GREY, bbox=BACKGROUND)
        axes.spines[:].set(visible=True, color="0.7")
        return set() if labels is None else set(labels[:SCATTERED].tolist())

    def latents(self, run: Run) -> Float[Tensor, "cells latent"]:
        """The z of the samples: always the same for a latent size."""
        noise = generator("cpu", self.seed, "gallery")
        return torch.randn(self.side**2, run.model.latent_dim, generator=noise)

    def extras(self, table: pd.DataFrame, folder: Path) -> list[Path]:
        """An animated GIF of each row: samples of the same z while the networks train, beside each other."""
        files = []
        for data_set, latent_dim in self.rows:
            chosen = part(table, dataset=data_set, latent_dim=latent_dim)
            films = {}
            for row in records(chosen):
                if film := self.film(row["run"]):
                    films[NETWORKS.get(row["network"], row["network"])] = film
            if films:
                files.append(folder / self.name / f"{data_set}_{latent_dim}.gif")
                write_animation(films, files[-1])
        return files

    def film(self, path: str) -> dict[int, Float[Tensor, "channel grid_height grid_width"]]:
        """The samples' grid at every snapshot, by training samples."""
        run = load_last(path)
        files = {int(file.stem): file for file in (RunDir(path).checkpoints / "at").glob("*.ckpt")}
        frames, dark_on_white = {}, dark_on_white_by_default(run)
        for samples in sorted(files):
            load_weights(run.model, files[samples])
            images = run.decode(self.latents(run))
            frames[samples] = image_grid(images, columns=self.side, dark_on_white=dark_on_white)
        return frames


def colour_of(label: int) -> tuple[float, float, float, float]:
    """The colour of a label; they repeat after ten."""
    return colormaps["tab10"](label % 10)
