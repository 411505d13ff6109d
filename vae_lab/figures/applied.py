"""Pictures of what came of applying a trained model to images."""

import math
import textwrap
from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.data.image_grids import image_grid
from vae_lab.figures.canvas import GREY, nats, show_grid, styled

LONGEST_NAME = 14
"""Signs of a name below an image."""


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
