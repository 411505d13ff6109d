"""Several runs in one picture: their curves, their images in labelled rows, a sweep's bounds.

Everything drawn in one picture shares what makes it comparable; the caller sees to that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from vae_lab.data.image_grids import image_grid
from vae_lab.figures.base import select
from vae_lab.figures.canvas import figure_for_grid, label_rows, nats, new_figure, styled
from vae_lab.runs.curve import series

SIZE = (4.7, 3.0)
"""Inches: small enough for the labels to be read on a phone."""
SPARSE = 5
"""Fewer points of a curve have markers."""
LINES = {
    "train/{}_running": ("train (running mean)", "tab:red", "-"),
    "val/{}": ("validation", "tab:blue", "-."),
    "test/{}": ("test", "black", "--"),
}
"""Columns of a curve, of the bound or one of its terms, and how they look."""
TERMS = {"reconstruction": "reconstruction", "kl": "KL"}
"""Bound = reconstruction - KL."""
FEW = 10
"""The most lines that get a colour of their own each; more share a scale."""


@dataclass(frozen=True)
class Line:
    """A curve: values by training samples evaluated."""

    label: str
    samples: Sequence[float]
    values: Sequence[float]
    colour: Any
    dashes: str = "-"
    is_named: bool = True
    """Whether the legend has it."""


def lines_of(curve: Sequence[Mapping[str, float]], quantity: str) -> list[Line]:
    """The curves of the bound, or of one of its terms, of a run, one for each split that was measured."""
    found = [
        Line(label, *series(curve, key.format(quantity)), colour, dashes)
        for key, (label, colour, dashes) in LINES.items()
    ]
    return [line for line in found if line.samples]


def described(lines: Sequence[Line], quantity: str) -> str:
    """What a picture of curves shows, in words."""
    ends = ", ".join(f"{line.label} at {nats(line.values[-1], 2)}" for line in lines if line.is_named)
    return f"{quantity} in nats against training samples evaluated; the curves end with {ends}"


def colours(count: int) -> list[Any]:
    """Makes so many colours, as different as they can be."""
    if count <= FEW:
        return [colormaps["tab10"](i) for i in range(count)]
    return [colormaps["turbo"](0.05 + 0.9 * i / (count - 1)) for i in range(count)]


@styled
def curves(lines: Sequence[Line], *, title: str, quantity: str) -> Figure:
    """Curves over each other, on the axes of the bound curve; the legend stands below."""
    figure, axes = new_figure(*SIZE, title)
    draw_curves(axes, lines, quantity, markersize=4)
    named = [line.label for line in lines if line.is_named]
    columns = 1 if max(map(len, named)) > 24 else min(len(named), 3)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.17), "borderaxespad": 0}
    axes.legend(ncols=max(columns, -(-len(named) // 24)), fontsize=8, **place)
    return figure


@styled
def terms(curve: Sequence[Mapping[str, float]], *, title: str) -> Figure:
    """The two terms of the bound of a run, of the size of its curve."""
    figure, axes = new_figure(*SIZE, title)
    axes.set_axis_off()
    draw_terms(figure, (0, 0, 1, 1), curve)
    return figure


def draw_terms(figure: Figure, place: tuple[float, float, float, float], curve: Sequence[Mapping[str, float]]) -> None:
    """Reconstruction above KL at this place of a figure (left, bottom, width, height), on the axes of the bound."""
    left, bottom, width, height = place
    for i, (term, title) in enumerate(TERMS.items()):
        if not (lines := lines_of(curve, term)):
            continue
        axes = figure.add_axes((left, bottom + 0.52 * (1 - i) * height, width, 0.48 * height))
        draw_curves(axes, lines, title)
        axes.set_ylabel(f"{title} (nats)")
        if i == 0:
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)


def draw_curves(axes: Axes, lines: Sequence[Line], quantity: str, **look: Any) -> None:
    """The lines on the axes of a bound curve; few points are dots besides."""
    for line in lines:
        named = {"label": line.label} if line.is_named else {"linewidth": 0.9, "alpha": 0.7}
        marker = "o" if len(line.samples) < SPARSE else ""
        axes.plot(list(line.samples), list(line.values), line.dashes, color=line.colour, marker=marker, **named, **look)
    set_limits(axes, [point for line in lines for point in zip(line.samples, line.values, strict=True)])
    axes.set_xlabel("training samples evaluated")
    axes.set_ylabel(f"{quantity} (nats per datapoint)")
    axes.grid(which="major", color="0.9", linewidth=0.6)


def set_limits(axes: Axes, points: list[tuple[float, float]]) -> None:
    """The scales of a bound curve: a steep start may leave it, and a short x axis gets plain numbers.

    The y axis reaches down to four times the distance between the best value and the lower quartile: what
    lies lower is the steep start, and would flatten the rest.
    """
    counts, values = torch.tensor(points).double().T
    top = float(values.max())
    bottom = max(float(values.min()), top - 4 * (top - float(values.quantile(0.25))))
    margin = 0.05 * (top - bottom) or 1.0
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_xscale("log")
    if counts.max() < 30 * counts.min():
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


@styled
def against_latent_dim(table: pd.DataFrame, *, title: str, quantity: str) -> Figure:
    """A line for each series: mean over seeds, with its standard error where there are several.

    Args:
        table: columns series, latent_dim, mean, se (NaN for a single seed).
        title: of the figure.
        quantity: what `mean` is, in nats.
    """
    figure, axes = new_figure(*SIZE, title)
    names = list(dict.fromkeys(table["series"]))
    for name, colour in zip(names, colours(len(names)), strict=True):
        rows = select(table, series=name).sort_values("latent_dim")
        look: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 4, "capsize": 3, "label": name}
        axes.errorbar(rows["latent_dim"], rows["mean"], rows["se"].fillna(0), **look)
    sizes = sorted(set(table["latent_dim"]))
    if sizes[-1] >= 8 * sizes[0]:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(x=0.06)
    axes.set_xlabel("$N_z$ (model.latent_dim)")
    axes.set_ylabel(f"{quantity} (nats per datapoint)")
    axes.grid(color="0.9", linewidth=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0, fontsize=8)
    return figure


@styled
def labelled_rows(
    labels: Sequence[str], images: Float[Tensor, "all channel height width"], *, dark_on_white: bool, title: str
) -> Figure:
    """Images in rows of equal length, each with its label."""
    grid = image_grid(images, columns=len(images) // len(labels), padding=1, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title)
    label_rows(axes, list(labels))
    axes.tick_params(labelsize=13)
    axes.set_title(title, size=14, pad=8)
    return figure


@styled
def kl_bars(values: Sequence[float], *, title: str) -> Figure:
    """KL(q(z_j|x) || p(z_j)) of every latent dimension, most first; the axis names the dimensions where they fit."""
    order = sorted(range(len(values)), key=lambda j: -values[j])
    figure, axes = new_figure(*SIZE, title)
    axes.bar(range(len(order)), [values[j] for j in order], color="tab:blue", width=0.8)
    if len(order) <= 32:
        axes.set_xticks(range(len(order)), list(map(str, order)), size=8 if len(order) <= 20 else 6)
    axes.set_xlabel("dimension of z" if len(order) <= 32 else "dimensions of z, most KL first")
    axes.set_ylabel("KL (nats per datapoint)")
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure
