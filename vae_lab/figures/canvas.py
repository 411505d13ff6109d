"""How pictures look: one style, axes that hold nothing but an image grid, PNG and PDF written atomically.

Matplotlib is used without pyplot: no global figure, no window, no backend chosen for anybody else.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from vae_lab.atomic import atomic_file

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.1,
}
styled = matplotlib.rc_context(STYLE)
"""Decorates a drawing function, which then uses the lab's style, whatever the caller's settings are."""
GREY = "#555555"
PUBLISHED: dict[str, Any] = {"linewidth": 2.6, "alpha": 0.25}
"""The look of the paper's own curves, behind ours."""
GRID_WIDTH = 5.5
"""Inches."""
PAGE_DPI = 150
"""The resolution of figures in pages: enough for a screen."""
TILE_SIDES = (180, 400)
"""Pixels: a tile is enlarged to about the first, and reduced to the second."""
FEW_COLOURS = 4096
"""Line drawings have fewer, and are stored without loss of sharpness."""
SPLITS: dict[str, Any] = {"train": "-", "test": "--"}
"""The splits that curves show, each with its line style."""


class Method(NamedTuple):
    """How the curves of a way of training look."""

    title: str
    colour: str
    marks: Mapping[str, Any] = {}
    """What tells them from the curves of other methods besides the colour."""


class Picture(Figure):
    """A figure that a notebook shows, and that is saved in the lab's style whoever saves it."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Saves as ever, with room for what stands outside of the axes."""
        with matplotlib.rc_context(STYLE):
            super().savefig(*args, **kwargs)

    def _repr_png_(self) -> bytes:
        return encoded(self)


def nats(value: float, digits: int = 1) -> str:
    """Has so many decimal places and a typographic minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def method_lines(methods: Mapping[str, Method], **look: Any) -> dict[str, Line2D]:
    """The legend's lines of curves by method and split, by their labels."""
    return {
        f"{title} ({split})": Line2D([], [], color=colour, ls=dashes, **marks, **look)
        for title, colour, marks in methods.values()
        for split, dashes in SPLITS.items()
    }


def draw_splits(axes: Axes, table: pd.DataFrame, value: str, *, unit: float = 1, **look: Any) -> None:
    """A line of the column `value` for each split, against training samples in this unit, over a pale grid."""
    for split, dashes in SPLITS.items():
        points = table[table["split"] == split]
        axes.plot(points["samples_evaluated"] / unit, points[value], **{"ls": dashes, **look})
    pale_grid(axes)


def pale_grid(axes: Axes) -> None:
    """Lines at the major ticks, behind everything."""
    axes.grid(which="major", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def write_above(axes: Axes, lines: Sequence[tuple[str, str]], *, spacing: float, size: float) -> None:
    """Lines of text in colours over the axes, the first at the bottom."""
    for line, (text, colour) in enumerate(lines):
        axes.text(0, 1.02 + spacing * line, text, color=colour, transform=axes.transAxes, size=size)


def legend_below(figure: Figure, lines: Mapping[str, Line2D], ncols: int, **look: Any) -> None:
    """A legend under all panels."""
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=ncols, **look)


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure and its axes, exactly this large (inches): labels stand outside, and `save` makes room."""
    figure = Picture(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_title(title, pad=8)
    return figure, axes


def figure_for_grid(grid: Float[Tensor, "channel grid_height grid_width"], title: str) -> tuple[Figure, Axes]:
    """A figure that shows this grid."""
    figure, axes = new_figure(GRID_WIDTH, GRID_WIDTH * grid.shape[1] / grid.shape[2], title)
    show_grid(axes, grid)
    return figure, axes


def write_caption(axes: Axes, caption: str) -> None:
    """Writes a line under the axes, below the tick labels and the axis label that they have by now."""
    lines = bool(axes.get_xlabel()) + any(label.get_text() for label in axes.get_xticklabels())
    below, look = (0, -8 - 15 * lines), {"size": STYLE["xtick.labelsize"], "color": GREY}
    axes.annotate(caption, (0.5, 0), below, "axes fraction", "offset points", ha="center", va="top", **look)


def show_grid(axes: Axes, grid: Float[Tensor, "channel grid_height grid_width"]) -> None:
    """Fills the axes with a grid on the fixed scale [0, 1], grey or colour, without frame or ticks.

    A pixel is one unit of the axes, whose origin is at the bottom left.

    Raises:
        ValueError: the images have neither 1 nor 3 channels.
    """
    if grid.shape[0] not in (1, 3):
        raise ValueError(f"only images of 1 or 3 channels can be shown, got {grid.shape[0]}")
    height, width = grid.shape[1:]
    pixels = grid.permute(1, 2, 0).squeeze(-1).numpy()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, width, 0, height), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Writes a label to the left of every row of the grid."""
    height = axes.get_ylim()[1] / len(labels)
    axes.set_yticks([(len(labels) - i - 0.5) * height for i in range(len(labels))], labels)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes `stem`.png and `stem`.pdf, the same bytes for the same figure; returns the two paths."""
    return write(rendered(figure), stem)


def rendered(figure: Figure) -> dict[str, bytes]:
    """The two files of a figure, by their suffixes."""
    return {".png": png_of(figure), ".pdf": pdf_of(figure)}


def png_of(figure: Figure, **look: Any) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    return _file_of(figure, format="png", metadata={"Software": None}, **look)


def pdf_of(figure: Figure) -> bytes:
    """The figure as a PDF, the same bytes for the same figure."""
    logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # a line per font table at INFO
    return _file_of(figure, format="pdf", metadata={"CreationDate": None})


def _file_of(figure: Figure, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, **settings)
    return buffer.getvalue()


def write(files: Mapping[str, bytes], stem: Path) -> list[Path]:
    """Writes the files of a figure; returns their paths."""
    paths = {stem.with_name(stem.name + suffix): content for suffix, content in files.items()}
    for path, content in paths.items():
        with atomic_file(path) as file:
            file.write(content)
    return list(paths)


def encoded(figure: Figure) -> bytes:
    """The figure as a PNG or, where it is full of colour photographs, a JPEG: in few bytes, for a page."""
    return compressed(png_of(figure, dpi=PAGE_DPI))


def compressed(picture: bytes) -> bytes:
    """The PNG of a figure likewise in few bytes."""
    return _compressed(Image.open(io.BytesIO(picture)).convert("RGB"))


def pixels_of(grid: Float[Tensor, "channel grid_height grid_width"]) -> np.ndarray:
    """The grid as 8-bit pixels, [height, width] or [height, width, 3]."""
    return (grid * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()


def encoded_tile(grid: Float[Tensor, "channel grid_height grid_width"]) -> bytes:
    """The bare grid as an image file that is to stand beside many others: enlarged in whole steps, or reduced."""
    image = Image.fromarray(pixels_of(grid))
    smallest, largest = TILE_SIDES
    times = max(1, round(smallest / max(image.size)))
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image.thumbnail((largest, largest), Image.Resampling.BOX)
    return _compressed(image.convert("RGB"))


def _compressed(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    grey = image.convert("L")
    if grey.convert("RGB").tobytes() == image.tobytes():
        grey.save(buffer, "PNG", optimize=True)
    elif image.getcolors(FEW_COLOURS) is None:
        image.save(buffer, "JPEG", quality=88, optimize=True)
    else:
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
