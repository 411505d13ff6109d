"""Figure 2: the bound against training samples evaluated, AEVB and wake-sleep, for nine latent spaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Arrays, PaperFigure, load_last, records, select
from vae_lab.figures.canvas import (
    GREY,
    PUBLISHED,
    Method,
    draw_splits,
    legend_below,
    method_lines,
    nats,
    styled,
    write_above,
)
from vae_lab.figures.needed import NeededRun
from vae_lab.figures.section5 import (
    AEVB,
    BOUND_LABEL,
    FIGURE2,
    WAKE_SLEEP,
    Section5,
    bound_points,
    figure2_published,
    last_values,
)
from vae_lab.runs.directory import RunDir
from vae_lab.runs.measured import baseline
from vae_lab.runs.result import baseline_name

METHODS = {
    "aevb": Method("AEVB", AEVB),
    "wake_sleep": Method("Wake-Sleep", WAKE_SLEEP, {"marker": "o", "markersize": 2.6, "markevery": 2}),
}
BASELINES = {"independent_pixels": ":", "probabilistic_pca": "-.", "factor_analysis": (0, (6, 2))}
"""The models without a network, and their dashes."""
THIN: dict[str, Any] = {"color": "0.35", "linewidth": 0.7}
"""The look of what models without a network score."""


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


@dataclass(kw_only=True, eq=False)
class Figure2(PaperFigure):
    """A row of panels for each data set; the second row begins with the legend, as in the paper.

    Args:
        training: the trainings of section 5.
        panels: the latent sizes of each data set.
    """

    name = "figure2"
    columns = (*FIGURE2, "learning_rate", *BASELINES, "label")

    training: Section5
    panels: dict[str, list[int]]

    def __post_init__(self) -> None:
        if unknown := set(self.panels).difference(LOOKS):
            raise ConfigError(f"figure.panels must name some of {', '.join(LOOKS)}, got {', '.join(sorted(unknown))}")
        if not any(self.panels.values()):
            raise ConfigError("figure.panels must hold a latent size, got none: there would be nothing to draw")

    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """Draws both methods of every panel."""
        return {
            self.training.needed_run(data_set, latent_dim, method, scale): {
                "dataset": data_set,
                "latent_dim": latent_dim,
                "method": method,
            }
            for data_set, latent_dims in self.panels.items()
            for latent_dim in latent_dims
            for method in METHODS
        }

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """What models without a network score on the test images of Frey Face."""
        if facts["dataset"] == "frey_face":
            baseline("test").of(load_last(run))
        return {}

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """Every evaluation; train is the mean over the minibatches since the one before, as published."""
        ledger = run.ledger("last")
        scores = {name: ledger.get(f"test/baseline/{name}") for name in BASELINES}
        return [point | scores for point in bound_points(run)]

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
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
                ours, theirs = (select(source, **panel) for source in (table, published))
                _draw_panel(axes, ours, theirs, LOOKS[data_set])
                axes.set_title(f"{LOOKS[data_set].title}, $N_z={latent_dim}$", pad=24)
            grid[row, first].set_ylabel(**BOUND_LABEL)
        lines = method_lines(METHODS, linewidth=1.3)
        lines["published"] = Line2D([], [], color="0.5", linewidth=2.6, alpha=0.4)
        for name, dashes in BASELINES.items():
            if name in table and any(select(table, dataset="frey_face")[name].notna()):
                lines[f"{baseline_name(f'/baseline/{name}')} (test)"] = Line2D([], [], ls=dashes, **THIN)
        said = "Above each panel: our last\nvalues, train / test; train is\na running mean of minibatches"
        note: dict[str, Any] = {"title": said, "title_fontsize": 7}
        if len(rows) > 1:
            grid[-1, 0].legend(list(lines.values()), list(lines), loc="center", **note)
        else:
            legend_below(figure, lines, 5, **note)
        figure.supxlabel("# Training samples evaluated", fontsize=10)
        return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, published: pd.DataFrame, look: Look) -> None:
    for method, (_, colour, _) in METHODS.items():
        draw_splits(axes, select(published, method=method), "bound_nats", color=colour, **PUBLISHED)
    for name, dashes in BASELINES.items():
        for value in table[name].dropna().unique()[:1] if name in table else ():
            axes.axhline(value, ls=dashes, **THIN)
    for method, (_, colour, marks) in METHODS.items():
        ours, own = select(table, method=method), {"linewidth": 1.3, "alpha": 1.0, **marks}
        draw_splits(axes, ours, "bound_nats", color=colour, **own)
    axes.set(xscale="log", xlim=look.x, ylim=look.y, yticks=look.y_ticks)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_minor_formatter(NullFormatter())
    texts, outside = [], 0
    for method, (title, colour, _) in reversed(METHODS.items()):
        ours = records(select(table, method=method).sort_values("samples_evaluated"))
        if tested := [row for row in ours if row["split"] == "test"]:
            outside += _point_outside(axes, title, colour, tested[-1], look, outside)
        texts.append((f"{title} {last_values(ours)}", colour) if ours else (f"{title}: no run yet", GREY))
    write_above(axes, texts, spacing=0.065, size=7)


def _point_outside(axes: Axes, title: str, colour: str, last: Mapping[str, Any], look: Look, level: int) -> bool:
    """An arrow to where a test curve ends if that is not on the axes, with the value; `level`: so many are there."""
    value, (low, high) = last["bound_nats"], look.y
    below = value < low
    if not below and not value > high:
        return False
    x, offset = last["samples_evaluated"], 16 + 12 * level
    axes.annotate(
        f"{title} {nats(value)}",
        (x, 0 if below else 1),
        (6, offset if below else -offset),
        axes.get_xaxis_transform(),
        "offset points",
        color=colour,
        size=7,
        va="center",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
        arrowprops={"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
    )
    return True
