"""Figure 3: log p(x) against training samples evaluated, for AEVB, wake-sleep and Monte Carlo EM.

By the paper's estimator (appendix D) at snapshots of the weights, and for the same datapoints by another one,
which checks it.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_lab.errors import ConfigError
from vae_lab.estimators.base import Estimator
from vae_lab.figures.base import Arrays, check_by_scale, records, select
from vae_lab.figures.canvas import (
    GREY,
    PUBLISHED,
    SPLITS,
    Method,
    draw_splits,
    legend_below,
    method_lines,
    nats,
    styled,
)
from vae_lab.figures.section5 import AEVB, FIGURE3, MCEM, WAKE_SLEEP, figure3_published
from vae_lab.figures.snapshots import SnapshotFigure
from vae_lab.runs.measured import Measurement, log_likelihood

METHODS = {
    "wake_sleep": Method("Wake-Sleep", WAKE_SLEEP, {"marker": "s", "markersize": 3}),
    "mcem": Method("MCEM", MCEM, {"marker": "^", "markersize": 3}),
    "aevb": Method("AEVB", AEVB, {"marker": "o", "markersize": 3}),
}
CHECK: dict[str, Any] = {"ls": "", "markersize": 6, "markerfacecolor": "none"}
"""How the points of the estimator look that checks the paper's."""
LOOKS = {1000: ((0, 60), (-160, -100)), 50000: ((0, 68), (-160, -125))}
"""The paper's axes: x in millions, y in nats."""


@dataclass(kw_only=True, eq=False)
class Figure3(SnapshotFigure):
    """A panel for each training set size.

    Args:
        num_datapoints: at each scale, the first so many of train and test that log p(x) is estimated for.
        paper_estimator: the paper's.
        check_estimator: what checks it.
    """

    name = prefix = "figure3"
    columns = (*FIGURE3, "role", "estimator", "standard_error", "num_datapoints", "learning_rate", "label")
    value = "log_marginal_nats"

    num_datapoints: dict[str, int]
    paper_estimator: Estimator
    check_estimator: Estimator

    def __post_init__(self) -> None:
        for key, names, known in (
            ("train_sizes", self.train_sizes, LOOKS),
            ("methods", self.methods, METHODS),
            ("learning_rates", self.learning_rates, self.methods),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"figure.{key} must name some of {', '.join(map(str, known))}, got {unknown}")
        super().__post_init__()
        check_by_scale(num_datapoints=self.num_datapoints)
        both = (self.paper_estimator, self.check_estimator)
        if any(estimator.needs_encoder or estimator.quantity != "log_likelihood" for estimator in both):
            raise ConfigError(
                "figure.paper_estimator and figure.check_estimator must measure log p(x) of the data, and do without "
                "an encoder, which Monte Carlo EM does not have, got "
                f"{self.paper_estimator.label} and {self.check_estimator.label}"
            )

    def measurements(self, scale: str) -> list[tuple[dict[str, Any], Measurement]]:
        """Log p(x) of the same datapoints by both estimators."""
        asked = {"seed": self.seed, "num_datapoints": self.num_datapoints[scale]}
        return [
            (
                {"split": split, "role": role, "estimator": estimator.label},
                log_likelihood(split, estimator, **asked),
            )
            for split in SPLITS
            for role, estimator in (("paper", self.paper_estimator), ("check", self.check_estimator))
        ]

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The paper's axes; below them, where the table covers a part of these only, that part."""
        published = figure3_published()
        reach = max(table["samples_evaluated"].tolist(), default=math.inf) / 1e6
        is_short = reach < 0.5 * max(LOOKS[size][0][1] for size in self.train_sizes)
        rows = 1 + is_short
        figure = Figure(figsize=(4.9 * len(self.train_sizes), 3.4 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, len(self.train_sizes), squeeze=False)
        for column, size in enumerate(self.train_sizes):
            x, y = LOOKS[size]
            ours, theirs = (select(source, train_size=size) for source in (table, published))
            for row, limit in enumerate((x, (0, 1.04 * reach))[:rows]):
                draw_panel(grid[row, column], ours, theirs)
                grid[row, column].set(xlim=limit, ylim=y, xlabel="# Training samples evaluated (millions)")
            notes = [text for method in self.methods if (text := not_seen(method, ours, y[0]))]
            top = grid[0, column]
            top.set_title(f"$N_{{\\mathrm{{train}}}} = {size}$", pad=6 + 11 * len(notes))
            top.text(0.5, 1.02, "\n".join(notes), transform=top.transAxes, ha="center", size=8, color=GREY)
        for axes in grid[:, 0]:
            axes.set_ylabel("Marginal log-likelihood (nats)")
        if is_short:
            grid[1, 0].set_title("the part that was run", size=9, color=GREY, loc="left")
        draw_legend(figure, table)
        return figure


def draw_panel(axes: Axes, table: pd.DataFrame, published: pd.DataFrame) -> None:
    """Published curves in pale, the paper's estimator as lines with points, its check as larger, hollow points."""
    for method, (_, colour, marks) in METHODS.items():
        ours = select(table, method=method)
        for lines, look in (
            (select(published, method=method), PUBLISHED),
            (select(ours, role="paper"), marks),
            (select(ours, role="check"), {**marks, **CHECK}),
        ):
            draw_splits(axes, lines, "log_marginal_nats", unit=1e6, color=colour, **look)


def not_seen(method: str, table: pd.DataFrame, bottom: float) -> str:
    """Why a method's curve is not in its panel; empty if it is."""
    title = METHODS[method][0]
    rows = records(select(table, method=method, role="paper").sort_values("samples_evaluated"))
    if not rows:
        return f"{title}: no run yet"
    if any(row["log_marginal_nats"] >= bottom for row in rows):
        return ""
    last = {row["split"]: nats(row["log_marginal_nats"]) for row in rows}
    values = " / ".join(last[split] for split in SPLITS)
    return f"{title}: below the axis, {values} at {rows[-1]['samples_evaluated'] / 1e6:.2g} million"


def draw_legend(figure: Figure, table: pd.DataFrame) -> None:
    """Methods and splits, and what pale lines and hollow points are."""
    lines = method_lines(METHODS)
    checks = sorted({row["estimator"].replace("_", " ") for row in records(select(table, role="check"))})
    lines["published"] = Line2D([], [], color="0.5", linewidth=2.6, alpha=0.4)
    label = f"by {' or '.join(checks) or 'another estimator'}"
    lines[label] = Line2D([], [], color="0.3", marker="o", **CHECK)
    legend_below(figure, lines, 4)
