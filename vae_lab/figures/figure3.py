"""Figure 3: log p(x) against training samples evaluated, for AEVB, wake-sleep and Monte Carlo EM.

By the paper's estimator (appendix D) at snapshots of the weights, and for the same datapoints by another one,
which checks it. Estimates are kept beside the weights that they belong to, so they are made once.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_lab.errors import ConfigError
from vae_lab.estimators.base import Estimator
from vae_lab.figures.base import (
    Curve,
    PaperFigure,
    check_by_scale,
    check_scale,
    has_weights,
    load_last,
    part,
    records,
    table_of,
)
from vae_lab.figures.canvas import GREY, SPLITS, method_lines, styled
from vae_lab.figures.estimates import Estimates, weights_by_samples
from vae_lab.figures.published import FIGURE3, figure3_published
from vae_lab.figures.run_facts import nats
from vae_lab.measurement import measure_log_likelihood
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_weights

log = logging.getLogger("vae_lab")

COLUMNS = (*FIGURE3, "role", "estimator", "standard_error", "num_datapoints", "learning_rate", "label")
METHODS = {
    "wake_sleep": ("Wake-Sleep", "tab:green"),
    "mcem": ("MCEM", "tab:blue"),
    "aevb": ("AEVB", "tab:red"),
}
LOOKS = {1000: ((0, 60), (-160, -100)), 50000: ((0, 68), (-160, -125))}
"""The paper's axes: x in millions, y in nats."""


class Figure3(PaperFigure):
    """A panel for each training set size.

    Args:
        train_sizes: training sets, the first so many images of the train part.
        overrides: of every training.
        methods: further overrides of each method.
        learning_rates: for each method, the step sizes to choose from; none: as configured.
        max_samples: the budget at each scale.
        snapshots: at each scale, the counts of training samples at which log p(x) is estimated.
        num_datapoints: at each scale, the first so many of train and test that it is estimated for.
        paper_estimator: the paper's.
        check_estimator: what checks it.
        seed: of the estimates.
    """

    name = "figure3"

    def __init__(
        self,
        *,
        train_sizes: list[int],
        overrides: list[str],
        methods: dict[str, list[str]],
        learning_rates: dict[str, list[float]],
        max_samples: dict[str, int],
        snapshots: dict[str, list[int]],
        num_datapoints: dict[str, int],
        paper_estimator: Estimator,
        check_estimator: Estimator,
        seed: int,
    ) -> None:
        for key, names, known in (
            ("train_sizes", train_sizes, LOOKS),
            ("methods", methods, METHODS),
            ("learning_rates", learning_rates, methods),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ConfigError(f"figure.{key} must name some of {', '.join(map(str, known))}, got {unknown}")
        for key, values in (
            ("max_samples", max_samples),
            ("snapshots", snapshots),
            ("num_datapoints", num_datapoints),
        ):
            check_by_scale(f"figure.{key}", values)
        if check_estimator.needs_encoder or paper_estimator.needs_encoder:
            raise ConfigError(
                "figure.paper_estimator and figure.check_estimator must do without an encoder, which Monte Carlo EM "
                f"does not have, got {paper_estimator.label} and {check_estimator.label}"
            )
        self.train_sizes, self.overrides = train_sizes, overrides
        self.methods, self.learning_rates = methods, learning_rates
        self.max_samples, self.snapshots, self.num_datapoints = max_samples, snapshots, num_datapoints
        self.estimators, self.seed = {"paper": paper_estimator, "check": check_estimator}, seed

    def curves(self, scale: str) -> list[Curve]:
        """Every method with every training set."""
        return [self.curve(size, method, scale) for size in self.train_sizes for method in self.methods]

    def curve(self, train_size: int, method: str, scale: str) -> Curve:
        """The training of `method` on the first `train_size` images."""
        check_scale(scale)
        return Curve(
            label=f"figure3_{train_size}_{method}",
            overrides=(*self.overrides, f"data.train_size={train_size}", *self.methods[method]),
            learning_rates=tuple(self.learning_rates[method]),
            max_samples=self.max_samples[scale],
            snapshots=tuple(self.snapshots[scale]),
        )

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """A row for every snapshot, split and estimator; what is not yet estimated is estimated now."""
        rows = []
        for size in self.train_sizes:
            for method in self.methods:
                label = self.curve(size, method, scale).label
                if has_weights(runs.get(label)):
                    points = self.estimate_run(runs[label], self.num_datapoints[scale])
                    rows += [{"train_size": size, "method": method, "label": label} | point for point in points]
        return table_of(rows, COLUMNS)

    def estimate_run(self, directory: RunDir, num_datapoints: int) -> list[dict[str, Any]]:
        """The estimates of every snapshot of a run, and of its last weights."""
        run = load_last(directory.path)
        rate = directory.config["optimizer"].get("lr")
        estimates = Estimates(directory)
        rows = []
        for samples, file in weights_by_samples(run).items():
            for split in SPLITS:
                for role, estimator in self.estimators.items():
                    key = f"{samples}/{split}[:{num_datapoints}]/{named_by_settings(estimator)}/seed-{self.seed}"
                    make = partial(estimate_split, run, file, split, num_datapoints, estimator, self.seed)
                    row = {"samples_evaluated": samples, "split": split, "role": role, "learning_rate": rate}
                    rows.append(row | estimates.get(key, make))
        return rows

    def num_estimates(self, curve: Curve) -> int:
        """Both estimators on train and test, at every snapshot and with the last weights."""
        return len({*curve.snapshots, curve.max_samples}) * len(SPLITS) * len(self.estimators)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The paper's axes; below them, where the table covers a part of these only, that part."""
        published = figure3_published()
        reach = max(table["samples_evaluated"].tolist(), default=math.inf) / 1e6
        is_short = reach < 0.5 * max(LOOKS[size][0][1] for size in self.train_sizes)
        rows = 1 + is_short
        figure = Figure(figsize=(4.9 * len(self.train_sizes), 3.4 * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, len(self.train_sizes), squeeze=False)
        for column, size in enumerate(self.train_sizes):
            x, y = LOOKS[size]
            ours, theirs = (part(source, train_size=size) for source in (table, published))
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


def estimate_split(
    run: Run, file: Path, split: str, num_datapoints: int, estimator: Estimator, seed: int
) -> dict[str, Any]:
    """The estimate for the first datapoints of a split with the weights of `file`."""
    log.info("%s: log p(x) at %s samples, %s, %s", run.path.name, file.stem, split, estimator.label)
    load_weights(run.model, file)
    images = run.data.measured(split).images[:num_datapoints]
    model = run.model.to("cuda" if torch.cuda.is_available() else "cpu")
    entries = measure_log_likelihood(model, images, split, estimator, seed=seed)
    value = f"{split}/log_likelihood/{estimator.label}"
    return {
        "log_marginal_nats": entries[value],
        "estimator": estimator.label,
        "standard_error": entries[f"{value}_se"],
        "num_datapoints": len(images),
    }


def named_by_settings(estimator: Estimator) -> str:
    """Its label, and six hex digits of everything that it was made with."""
    settings = json.dumps(vars(estimator), sort_keys=True, default=str)
    return f"{estimator.label}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}"


def draw_panel(axes: Axes, table: pd.DataFrame, published: pd.DataFrame) -> None:
    """Published curves in pale, the paper's estimator as lines, its check as circles."""
    for method, (_, colour) in METHODS.items():
        for split, dashes in SPLITS.items():
            ours = part(table, method=method, split=split)
            for line, look in (
                (
                    part(published, method=method, split=split),
                    {"ls": dashes, "linewidth": 2.6, "alpha": 0.25},
                ),
                (part(ours, role="paper"), {"ls": dashes, "marker": ".", "markersize": 4}),
                (part(ours, role="check"), {"ls": "", "marker": "o", "ms": 5, "markerfacecolor": "none"}),
            ):
                axes.plot(line["samples_evaluated"] / 1e6, line["log_marginal_nats"], color=colour, **look)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def not_seen(method: str, table: pd.DataFrame, bottom: float) -> str:
    """Why a method's curve is not in its panel; empty if it is."""
    title = METHODS[method][0]
    rows = records(part(table, method=method, role="paper").sort_values("samples_evaluated"))
    if not rows:
        return f"{title}: no run yet"
    if any(row["log_marginal_nats"] >= bottom for row in rows):
        return ""
    last = {row["split"]: nats(row["log_marginal_nats"]) for row in rows}
    values = " / ".join(last[split] for split in SPLITS)
    return f"{title}: below the axis, {values} at {rows[-1]['samples_evaluated'] / 1e6:.2g} million"


def draw_legend(figure: Figure, table: pd.DataFrame) -> None:
    """Methods and splits, and what circles and pale lines are."""
    lines = method_lines(METHODS)
    checks = sorted({row["estimator"].replace("_", " ") for row in records(part(table, role="check"))})
    lines["published"] = Line2D([], [], color="0.5", linewidth=2.6, alpha=0.4)
    label = f"by {' or '.join(checks) or 'another estimator'}"
    lines[label] = Line2D([], [], color="0.3", ls="", marker="o", markerfacecolor="none")
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4)
