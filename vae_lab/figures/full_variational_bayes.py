"""Appendix F with the network of figure 3: what a posterior over the decoder's parameters is worth.

The paper gives formulas and no experiment. Here full variational Bayes and AEVB are trained on the same few images,
and both are measured by the predictive bound: for the one a mean over draws of the parameters, for the other its bound.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
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
from vae_lab.figures.predictive_bound import measure_predictive_bound
from vae_lab.figures.run_facts import nats
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_objective, load_weights

log = logging.getLogger("vae_lab")

COLUMNS = (
    "train_size",
    "method",
    "quantity",
    "samples_evaluated",
    "nats",
    "standard_error",
    "num_draws",
    "learning_rate",
    "label",
)
METHODS = {"full": ("Full variational Bayes", "tab:purple"), "plain": ("AEVB", "tab:red")}
PARAMETER_KL = "parameter_kl"
"""KL(q(theta) || p(theta)) / N, beside `train_bound` and `test_bound` a quantity of the table."""
KL_COLUMN = "train/parameter_kl_running"
"""Where metrics.csv has it: the mean over the minibatches since the evaluation before."""
BOUNDS, DIVERGENCES = (-260, -60), (5, 2000)
"""Nats: the axes of the bounds and of the KL, the same for all training sets."""
FIRST = 10_000
"""Where the axis of training samples begins."""


class FullVariationalBayesFigure(PaperFigure):
    """A column for each training set size: the predictive bounds above, KL(q(theta) || p(theta)) / N below.

    The train bound less this KL bounds log p(X) / N, the parameters integrated out.

    Args:
        train_sizes: training sets, the first so many images of the train part.
        overrides: of every training.
        methods: further overrides with (`full`) and without (`plain`) the posterior over the parameters.
        learning_rates: for each method, the step sizes to choose from; none: as configured.
        max_samples: the budget at each scale.
        snapshots: at each scale, the counts of training samples at which the bounds are measured.
        num_draws: of the parameters, for a predictive bound.
        seed: of the measurements.
    """

    name = "full_variational_bayes"

    def __init__(
        self,
        *,
        train_sizes: list[int],
        overrides: list[str],
        methods: dict[str, list[str]],
        learning_rates: dict[str, list[float]],
        max_samples: dict[str, int],
        snapshots: dict[str, list[int]],
        num_draws: int,
        seed: int,
    ) -> None:
        for key, names in (("methods", methods), ("learning_rates", learning_rates)):
            if sorted(names) != sorted(METHODS):
                raise ConfigError(f"figure.{key} must name {' and '.join(METHODS)}, got {', '.join(names) or 'none'}")
        if not train_sizes:
            raise ConfigError("figure.train_sizes must hold a training set size, got none: nothing would be drawn")
        if num_draws < 2:
            raise ConfigError(f"figure.num_draws must be >= 2, got {num_draws}: one draw shows no standard error")
        check_by_scale("figure.max_samples", max_samples)
        check_by_scale("figure.snapshots", snapshots)
        self.train_sizes, self.overrides = train_sizes, overrides
        self.methods, self.learning_rates = methods, learning_rates
        self.max_samples, self.snapshots = max_samples, snapshots
        self.num_draws, self.seed = num_draws, seed

    def curves(self, scale: str) -> list[Curve]:
        """Both methods with every training set."""
        return [self.curve(size, method, scale) for size in self.train_sizes for method in METHODS]

    def curve(self, train_size: int, method: str, scale: str) -> Curve:
        """The training of `method` on the first `train_size` images."""
        check_scale(scale)
        return Curve(
            label=f"full_vb_{train_size}_{method}",
            overrides=(*self.overrides, f"data.train_size={train_size}", *self.methods[method]),
            learning_rates=tuple(self.learning_rates[method]),
            max_samples=self.max_samples[scale],
            snapshots=tuple(self.snapshots[scale]),
        )

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """The bounds at every snapshot, measured now where they are not known, and the KL at every evaluation."""
        rows = []
        for size in self.train_sizes:
            for method in METHODS:
                label = self.curve(size, method, scale).label
                if has_weights(runs.get(label)):
                    rate = runs[label].config["optimizer"].get("lr")
                    facts = {"train_size": size, "method": method, "learning_rate": rate, "label": label}
                    rows += [facts | point for point in self.bounds_of(runs[label]) + parameter_kls(runs[label])]
        return table_of(rows, COLUMNS)

    def bounds_of(self, directory: RunDir) -> list[dict[str, Any]]:
        """The predictive bounds of both parts at every snapshot of a run, and with its last weights."""
        run = load_last(directory.path)
        estimates = Estimates(directory)
        rows = []
        for samples, file in weights_by_samples(run).items():
            for split in SPLITS:
                key = f"{samples}/{split}/predictive_bound_{self.num_draws}/seed-{self.seed}"
                make = partial(predictive_bound, run, file, split, self.num_draws, self.seed)
                rows.append({"quantity": f"{split}_bound", "samples_evaluated": samples} | estimates.get(key, make))
        return rows

    def num_estimates(self, curve: Curve) -> int:
        """The bounds of train and test, at every snapshot and with the last weights."""
        return len({*curve.snapshots, curve.max_samples}) * len(SPLITS)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The same axes for all training sets; the last bounds stand above each panel, also where they are off it."""
        figure = Figure(figsize=(3.6 * len(self.train_sizes) + 0.6, 6.2), layout="constrained")
        grid = figure.subplots(2, len(self.train_sizes), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 2))
        for column, size in enumerate(self.train_sizes):
            bounds, divergence = grid[:, column]
            ours = part(table, train_size=size)
            draw_bounds(bounds, ours)
            bounds.set_title(f"$N_{{\\mathrm{{train}}}} = {size}$", pad=32)
            for method, (_, colour) in METHODS.items():
                line = part(ours, method=method, quantity=PARAMETER_KL)
                divergence.plot(line["samples_evaluated"], line["nats"], color=colour)
            divergence.set(xscale="log", yscale="log", xlabel="# Training samples evaluated")
            for axes in (bounds, divergence):
                axes.grid(which="major", color="0.92", linewidth=0.6)
                axes.set_axisbelow(True)
        end = max(table["samples_evaluated"].tolist(), default=10 * FIRST)
        grid[0, 0].set(xlim=(FIRST, 1.1 * end), ylim=BOUNDS, ylabel="Predictive bound (nats per datapoint)")
        grid[1, 0].set(ylim=DIVERGENCES, ylabel="$\\mathrm{KL}(q(\\theta)\\,||\\,p(\\theta))/N$  (nats)")
        lines = method_lines(METHODS)
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4)
        return figure


def predictive_bound(run: Run, file: Path, split: str, num_draws: int, seed: int) -> dict[str, Any]:
    """The predictive bound of a whole part with the weights, and the posterior over them, of `file`."""
    log.info("%s: predictive bound at %s samples, %s", run.path.name, file.stem, split)
    load_weights(run.model, file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, objective = run.model.to(device), load_objective(run, file).to(device)
    images = run.data.measured(split).images.to(device)
    bound, error = measure_predictive_bound(model, objective, images, num_draws=num_draws, seed=seed)
    return {"nats": bound, "standard_error": error, "num_draws": num_draws}


def parameter_kls(directory: RunDir) -> list[dict[str, Any]]:
    """KL(q(theta) || p(theta)) / N at every evaluation; nothing where the parameters have no posterior."""
    return [
        {"quantity": PARAMETER_KL, "samples_evaluated": int(row["samples_evaluated"]), "nats": row[KL_COLUMN]}
        for row in read_rows(directory.curve)
        if KL_COLUMN in row
    ]


def draw_bounds(axes: Axes, table: pd.DataFrame) -> None:
    """Train and test with and without the posterior, and the last values in words."""
    for line, (method, (title, colour)) in enumerate(reversed(METHODS.items())):
        last = []
        for split, dashes in SPLITS.items():
            points = part(table, method=method, quantity=f"{split}_bound")
            axes.plot(points["samples_evaluated"], points["nats"], dashes, color=colour, marker=".", markersize=4)
            last += records(points)[-1:]
        text = f"{title}: {' / '.join(nats(point['nats']) for point in last)}" if last else f"{title}: no run yet"
        place = (0, 1.02 + 0.07 * line)
        axes.text(*place, text, color=colour if last else GREY, transform=axes.transAxes, size=8)
