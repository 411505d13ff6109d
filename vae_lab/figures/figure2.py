"""Figure 2: the bound against training samples evaluated, AEVB and wake-sleep, for nine latent spaces."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Curve, PaperFigure, part, records, table_of
from vae_lab.figures.bound_points import BOUND_LABEL, bound_points, last_values
from vae_lab.figures.canvas import GREY, SPLITS, method_lines, styled
from vae_lab.figures.published import FIGURE2, figure2_published
from vae_lab.figures.section5 import Section5
from vae_lab.runs.directory import RunDir

COLUMNS = (*FIGURE2, "learning_rate", "label")
METHODS = {"aevb": ("AEVB", "tab:red"), "wake_sleep": ("Wake-Sleep", "tab:green")}


class Look(NamedTuple):
    """What the paper prints a data set's panels with."""

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    y_ticks: range


LOOKS = {
    "mnist": Look("MNIST", (1e5, 2.5e8), (-150, -95), range(-150, -95, 10)),
    "frey_face": Look("Frey Face", (1e5, 1e8), (0, 1600), range(0, 1601, 400)),
}


class Figure2(PaperFigure):
    """A row of panels for each data set; the second row begins with the legend, as in the paper.

    Args:
        training: the trainings of section 5.
        panels: the latent sizes of each data set.
    """

    name = "figure2"

    def __init__(self, *, training: Section5, panels: dict[str, list[int]]) -> None:
        if unknown := set(panels).difference(LOOKS):
            raise ConfigError(f"figure.panels must name some of {', '.join(LOOKS)}, got {', '.join(sorted(unknown))}")
        if not any(panels.values()):
            raise ConfigError("figure.panels must hold a latent size, got none: there would be nothing to draw")
        self.training, self.panels = training, panels

    def curves(self, scale: str) -> list[Curve]:
        """Both methods of every panel."""
        return [
            self.training.curve(data_set, latent_dim, method, scale)
            for data_set, latent_dims in self.panels.items()
            for latent_dim in latent_dims
            for method in METHODS
        ]

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """Every evaluation; train is the mean over the minibatches since the one before, as published."""
        rows = []
        for data_set, latent_dims in self.panels.items():
            for latent_dim in latent_dims:
                for method in METHODS:
                    label = self.training.curve(data_set, latent_dim, method, scale).label
                    if label in runs:
                        panel = {
                            "dataset": data_set,
                            "latent_dim": latent_dim,
                            "method": method,
                            "label": label,
                        }
                        rows += [panel | point for point in bound_points(runs[label])]
        return table_of(rows, COLUMNS)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The paper's arrangement and axes."""
        published = figure2_published()
        rows = [(name, latent_dims) for name, latent_dims in self.panels.items() if latent_dims]
        columns = max(len(latent_dims) + (row > 0) for row, (_, latent_dims) in enumerate(rows))
        figure = Figure(figsize=(2.75 * columns, 3.0 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for row, (data_set, latent_dims) in enumerate(rows):
            first = int(row > 0)
            for axes in (*grid[row, :first], *grid[row, first + len(latent_dims) :]):
                axes.set_axis_off()
            for axes, latent_dim in zip(grid[row, first:], latent_dims, strict=False):
                panel = {"dataset": data_set, "latent_dim": latent_dim}
                ours, theirs = (part(source, **panel) for source in (table, published))
                _draw_panel(axes, ours, theirs, LOOKS[data_set])
                axes.set_title(f"{LOOKS[data_set].title}, $N_z={latent_dim}$", pad=24)
            grid[row, first].set_ylabel(**BOUND_LABEL)
        if len(rows) > 1:
            grid[-1, 0].legend(loc="center", **_legend())
        else:
            figure.legend(loc="outside lower center", ncols=5, **_legend())
        figure.supxlabel("# Training samples evaluated", fontsize=10)
        return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, published: pd.DataFrame, look: Look) -> None:
    for source, width, alpha in ((published, 2.6, 0.25), (table, 1.3, 1.0)):
        for method, (_, colour) in METHODS.items():
            for split, dashes in SPLITS.items():
                line = part(source, method=method, split=split)
                x, y = line["samples_evaluated"], line["bound_nats"]
                axes.plot(x, y, dashes, color=colour, linewidth=width, alpha=alpha)
    axes.set(xscale="log", xlim=look.x, ylim=look.y, yticks=look.y_ticks)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    for line, (method, (title, colour)) in enumerate(reversed(METHODS.items())):
        ours = records(part(table, method=method).sort_values("samples_evaluated"))
        text = f"{title} {last_values(ours)}" if ours else f"{title}: no run yet"
        place = (0, 1.02 + 0.065 * line)
        axes.text(*place, text, color=colour if ours else GREY, transform=axes.transAxes, size=7)


def _legend() -> dict[str, Any]:
    lines = method_lines(METHODS, linewidth=1.3)
    lines["published"] = Line2D([], [], color="0.5", linewidth=2.6, alpha=0.4)
    note = "Above each panel: our last\nvalues, train / test"
    return {"handles": list(lines.values()), "labels": list(lines), "title": note, "title_fontsize": 7}
