"""Gallery: for every data set and latent size an MLP beside a convolutional network, and animated training.

What re-implementations of the paper show: samples, originals with reconstructions, the labelled latent space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw
from torch import Tensor

from vae_lab.atomic import atomic_file
from vae_lab.data.image_grids import image_grid, manifold_latents, paired_rows
from vae_lab.errors import ConfigError
from vae_lab.figures.base import Arrays, check_by_scale, load_last, records, select
from vae_lab.figures.canvas import GREY, legend_below, pixels_of, save, show_grid, styled
from vae_lab.figures.decoded import COLUMNS, NAMES, ModelFigure, caption_of, show_missing
from vae_lab.figures.needed import NeededRun
from vae_lab.figures.run_pictures import dark_on_white_by_default, kl_per_dimension
from vae_lab.randomness import generator
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run

CELL = 2.1
SCATTERED = 2000
NETWORKS = {"mlp": "MLP", "conv": "convolutional"}
"""Networks as they are printed."""
BACKGROUND: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
PICTURES = ("samples", "original over reconstruction", "latent distribution")
LEAST_WIDTH, STRIP, GAP = 150, 18, 12
"""Pixels of an animation: of a grid, which is enlarged in whole steps, of its caption's height, between two grids."""
GREYS, COLOURS = 16, 64
"""The colours of an animation: few, so that its file is small."""
MILLISECONDS, LAST_MILLISECONDS = 400, 2500


@dataclass(kw_only=True, eq=False)
class Gallery(ModelFigure):
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
    columns = ("dataset", "latent_dim", "network", *COLUMNS)

    data_sets: dict[str, list[str]]
    networks: dict[str, list[str]]
    overrides: list[str]
    latent_dims: list[int]
    max_samples: dict[str, int]
    snapshots: dict[str, list[int]]
    side: int
    seed: int

    def __post_init__(self) -> None:
        if self.side < 2 or self.side % 2:
            raise ConfigError(
                f"figure.side must be even and >= 2, got {self.side}: originals have their reconstructions below"
            )
        if not self.latent_dims or min(self.latent_dims) < 2:
            raise ConfigError(
                f"figure.latent_dims must hold sizes >= 2, got {self.latent_dims}: a scatter has two axes"
            )
        check_by_scale(max_samples=self.max_samples, snapshots=self.snapshots)

    @property
    def rows(self) -> list[tuple[str, int]]:
        """Data sets and latent sizes, from the top."""
        return [(data_set, latent_dim) for data_set in self.data_sets for latent_dim in self.latent_dims]

    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """Every network of every row."""
        return {
            NeededRun(
                label=f"gallery_{data_set}_{latent_dim}_{network}",
                overrides=(
                    *self.data_sets[data_set],
                    *self.networks[network],
                    f"model.latent_dim={latent_dim}",
                    *self.overrides,
                ),
                max_samples=self.max_samples[scale],
                snapshots=tuple(self.snapshots[scale]),
            ): {"dataset": data_set, "latent_dim": latent_dim, "network": network}
            for data_set, latent_dim in self.rows
            for network in self.networks
        }

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """What the three pictures show, and the samples of the same z at every snapshot."""
        loaded = load_last(run)
        test, dark_on_white = loaded.data.splits["test"], dark_on_white_by_default(loaded)

        def grid(images: Tensor, columns: int = self.side) -> Tensor:
            return image_grid(images, columns=columns, dark_on_white=dark_on_white)

        x = test.images[: self.side**2 // 2]
        pairs = paired_rows(x, loaded.reconstruct(x), columns=self.side)
        x = test.images[:SCATTERED]
        means, kl = loaded.encode(x), kl_per_dimension(loaded, x)
        dimensions = kl.argsort(descending=True)[:2].sort().values
        colours = {"places": test.indices} if test.labels is None else {"labels": test.labels}
        shown = {
            "samples": grid(loaded.decode(self.latents(loaded))),
            "pairs": grid(pairs),
            "means": means[:, dimensions],
            "dimensions": dimensions,
            **{name: values[:SCATTERED] for name, values in colours.items()},
        }
        if loaded.model.latent_dim == 2:
            shown["manifold"] = grid(loaded.decode(manifold_latents(2 * self.side)), 2 * self.side)
        film = [pixels_of(grid(loaded.at(count).decode(self.latents(loaded)))) for count in run.snapshots]
        arrays = {name: values.numpy() for name, values in shown.items()}
        return {**arrays, "film": np.array(film), "counts": np.array(list(run.snapshots))}

    def latents(self, run: Run) -> Float[Tensor, "cells latent"]:
        """The z of the samples: always the same for a latent size."""
        noise = generator("cpu", self.seed, "gallery")
        return torch.randn(self.side**2, run.model.latent_dim, generator=noise)

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
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
                        show_missing(axes)
                    caption = "no run yet"
                else:
                    labels |= draw_model(list(cells), arrays_of(model, arrays))
                    caption = caption_of(model)
                cells[1].set_title(f"{NETWORKS.get(network, network)}: {caption}", size=8.5)
            grid[row, 0].set_ylabel(f"{NAMES.get(data_set, data_set)}, $N_z={latent_dim}$", size=11)
        for axes, picture in zip(grid[-1], PICTURES * len(self.networks), strict=True):
            axes.set_xlabel(picture, size=9)
        if labels:
            look: dict[str, Any] = {"ls": "", "marker": "o"}
            dots = {str(label): Line2D([], [], color=colour_of(label), **look) for label in sorted(labels)}
            legend_below(figure, dots, 10, title="label")
        return figure

    def extras(self, table: pd.DataFrame, arrays: Arrays, folder: Path) -> list[Path]:
        """An animated GIF of each row, samples of the same z while the networks train; manifolds of two dimensions."""
        files = []
        for data_set, latent_dim in self.rows:
            films: dict[Any, Any] = {
                NETWORKS.get(row["network"], row["network"]): dict(
                    zip(own["counts"].tolist(), own["film"], strict=True)
                )
                for row in records(select(table, dataset=data_set, latent_dim=latent_dim))
                if len((own := arrays_of(row, arrays))["counts"])
            }
            if films:
                files.append(folder / self.name / f"{data_set}_{latent_dim}.gif")
                write_animation(films, files[-1])
        manifolds = {
            (row["dataset"], row["network"]): torch.from_numpy(own["manifold"])
            for row in records(table)
            if "manifold" in (own := arrays_of(row, arrays))
        }
        if manifolds:
            files += save(draw_manifolds(manifolds), folder / self.name / "manifolds")
        return files


@styled
def draw_manifolds(manifolds: Mapping[tuple[str, str], Tensor]) -> Figure:
    """Learned manifolds by data set and network, beside each other."""
    figure = Figure(figsize=(3.4 * len(manifolds), 3.8), layout="constrained")
    panels = figure.subplots(1, len(manifolds), squeeze=False)[0]
    for axes, ((data_set, network), manifold) in zip(panels, manifolds.items(), strict=True):
        show_grid(axes, manifold)
        axes.set_title(f"{NAMES.get(data_set, data_set)}, {NETWORKS.get(network, network)}", size=9)
    return figure


def arrays_of(row: Mapping[str, Any], arrays: Arrays) -> Arrays:
    """The arrays of one row's model."""
    prefix = f"{row['label']}/"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def draw_model(cells: Sequence[Axes], model: Arrays) -> set[int]:
    """The three pictures of a model; returns the labels that the last one shows."""
    for axes, name in zip(cells, ("samples", "pairs"), strict=False):
        show_grid(axes, torch.from_numpy(model[name]))
    look: dict[str, Any] = {"s": 2.5, "linewidths": 0, "rasterized": True}
    labels = model["labels"].tolist() if "labels" in model else []
    look |= {"color": [colour_of(label) for label in labels]} if labels else {"c": model["places"], "cmap": "viridis"}
    axes, (first, second) = cells[2], model["dimensions"].tolist()
    axes.scatter(*model["means"].T, **look)
    axes.set(xticks=[], yticks=[], box_aspect=1)
    what = f"$z_{{{first}}}$, $z_{{{second}}}$" + ("" if labels else "; colour: place in the video")
    axes.text(0.03, 0.97, what, transform=axes.transAxes, va="top", size=6.5, color=GREY, bbox=BACKGROUND)
    axes.spines[:].set(visible=True, color="0.7")
    return set(labels)


def colour_of(label: int) -> tuple[float, float, float, float]:
    """The colour of a label; they repeat after ten."""
    return colormaps["tab10"](label % 10)


def write_animation(films: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> None:
    """Writes films (count -> 8-bit pixels) as one GIF, a frame for every count of training samples that all have."""
    counts = sorted(set.intersection(*(set(film) for film in films.values())))
    if not counts:
        raise ConfigError(f"{', '.join(films)} have no snapshot at the same count of training samples")
    frames = [_frame({network: film[count] for network, film in films.items()}, count) for count in counts]
    most = GREYS if all(film[counts[0]].ndim == 2 for film in films.values()) else COLOURS
    first, *others = [frame.quantize(most, dither=Image.Dither.NONE) for frame in frames]
    durations = [MILLISECONDS] * len(others) + [LAST_MILLISECONDS]
    with atomic_file(path) as file:
        look: dict[str, Any] = {"duration": durations, "loop": 0, "disposal": 1}
        first.save(file, format="GIF", save_all=True, append_images=others, **look)


def _frame(grids: Mapping[str, np.ndarray], count: int) -> Image.Image:
    images = [Image.fromarray(grid) for grid in grids.values()]
    times = -(-LEAST_WIDTH // min(image.width for image in images))
    pictures = [image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST) for image in images]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    frame = Image.new("RGB", (width, STRIP + max(picture.height for picture in pictures)), "white")
    pen, left = ImageDraw.Draw(frame), 0
    for i, (network, picture) in enumerate(zip(grids, pictures, strict=True)):
        pen.text((left + 2, 3), network + (f", {count:,} samples" if i == 0 else ""), fill="black")
        frame.paste(picture, (left, STRIP))
        left += picture.width + GAP
    return frame
