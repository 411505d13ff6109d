"""Pictures of what came of applying a trained model to images."""

import math
import textwrap
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.data.image_grids import image_grid
from vae_lab.figures.canvas import GREY, figure_for_grid, label_rows, nats, show_grid, styled, write_caption

LONGEST_NAME = 14
"""Signs of a name below an image."""
HIDDEN = 0.5
"""The grey of a pixel that is hidden."""


@styled
def least_likely(
    images: Float[Tensor, "num channel height width"],
    log_likelihood: Float[Tensor, " num"],
    *,
    num: int,
    names: Sequence[str] | None,
    title: str,
    dark_on_white: bool,
) -> Figure:
    """The `num` images with the smallest log p(x), from the smallest on, each with it in nats and its name below."""
    order: list[int] = log_likelihood.argsort()[:num].tolist()
    columns = min(10, len(order))
    rows = math.ceil(len(order) / columns)
    aspect = images.shape[2] / images.shape[3]
    figure = Figure(figsize=(0.85 * columns, (0.8 * aspect + 0.4) * rows + 0.4), layout="constrained")
    figure.suptitle(title, size=11)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(order) :]:
        axes.set_axis_off()
    for axes, i in zip(panels, order, strict=False):
        show_grid(axes, image_grid(images[i][None], columns=1, dark_on_white=dark_on_white))
        name = "" if names is None else f"\n{textwrap.shorten(names[i], LONGEST_NAME, placeholder='…')}"
        axes.set_xlabel(f"{nats(float(log_likelihood[i]))}{name}", size=7, color=GREY, labelpad=2)
    return figure


@styled
def inpaintings(
    images: Float[Tensor, "num channel height width"],
    missing: Bool[Tensor, "height width"],
    draws: Float[Tensor, "num draw channel height width"],
    mean: Float[Tensor, "num channel height width"],
    *,
    labels: Sequence[str],
    title: str,
    caption: str,
    dark_on_white: bool,
) -> Figure:
    """A row for each image: itself, what is observed of it, the draws, and the mean of all states."""
    observed = torch.where(missing, HIDDEN, images)
    rows = torch.cat([images[:, None], observed[:, None], draws, mean[:, None]], dim=1)
    columns = rows.shape[1]
    grid = image_grid(rows.flatten(0, 1), columns=columns, padding=2, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title)
    label_rows(axes, labels)
    cell = (grid.shape[2] + 2) / columns
    names = {0: "image", 1: "given", (columns - 1) / 2 + 0.5: "draws", columns - 1: "mean"}
    axes.set_xticks([cell * place + (cell - 2) / 2 for place in names], list(names.values()))
    write_caption(axes, caption)
    return figure
