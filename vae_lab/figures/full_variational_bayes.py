"""Appendix F with the network of figure 3: what a posterior over the decoder's parameters is worth.

The paper gives formulas and no experiment. Here full variational Bayes and AEVB are trained on the same few images,
and both are measured by the predictive bound: for the one a mean over draws of the parameters, for the other its bound.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.errors import ConfigError, require_integer
from vae_lab.figures.base import Arrays, records, select
from vae_lab.figures.canvas import (
    GREY,
    SPLITS,
    Method,
    legend_below,
    method_lines,
    nats,
    pale_grid,
    styled,
    write_above,
)
from vae_lab.figures.snapshots import SnapshotFigure
from vae_lab.measurement import evaluating, measure_bound, summarise
from vae_lab.model import VAE
from vae_lab.objectives.base import Objective
from vae_lab.randomness import derived_seed
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_objective
from vae_lab.runs.measured import Measurement

METHODS = {"full": Method("Full variational Bayes", "tab:purple"), "plain": Method("AEVB", "tab:red")}
PARAMETER_KL = "parameter_kl"
"""KL(q(theta) || p(theta)) / N, beside `train_bound` and `test_bound` a quantity of the table."""
KL_COLUMN = "train/parameter_kl_running"
"""Where metrics.csv has it: the mean over the minibatches since the evaluation before."""
BOUNDS, DIVERGENCES = (-260, -60), (5, 2000)
"""Nats: the axes of the bounds and of the KL, the same for all training sets."""
FIRST = 10_000
"""Where the axis of training samples begins."""


@dataclass(kw_only=True, eq=False)
class FullVariationalBayesFigure(SnapshotFigure):
    """A column for each training set size: the predictive bounds above, KL(q(theta) || p(theta)) / N below.

    The train bound less this KL bounds log p(X) / N, the parameters integrated out. The methods are those with
    (`full`) and without (`plain`) the posterior over the parameters.

    Args:
        num_draws: of the parameters, for a predictive bound.
    """

    name, prefix, value = "full_variational_bayes", "full_vb", "nats"
    columns = (
        *("train_size", "method", "quantity", "samples_evaluated", "nats", "standard_error"),
        *("num_draws", "learning_rate", "label"),
    )

    num_draws: int

    def __post_init__(self) -> None:
        for key, names in (("methods", self.methods), ("learning_rates", self.learning_rates)):
            if sorted(names) != sorted(METHODS):
                raise ConfigError(f"figure.{key} must name {' and '.join(METHODS)}, got {', '.join(names) or 'none'}")
        super().__post_init__()
        require_integer("figure.num_draws", self.num_draws, minimum=2, advice="one draw shows no standard error")

    def measurements(self, scale: str) -> list[tuple[dict[str, Any], Measurement]]:
        """The predictive bounds."""
        return [
            (
                {"quantity": f"{split}_bound", "num_draws": self.num_draws},
                predictive_bound(split, self.num_draws, self.seed),
            )
            for split in SPLITS
        ]

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """The bounds, and the KL at every evaluation where the parameters have a posterior."""
        rate = run.read_config()["optimizer"].get("lr")
        kls = [
            {
                "quantity": PARAMETER_KL,
                "samples_evaluated": int(row["samples_evaluated"]),
                "nats": row[KL_COLUMN],
                "learning_rate": rate,
            }
            for row in read_rows(run.curve_file)
            if KL_COLUMN in row
        ]
        return super().rows_of(run, scale) + kls

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The same axes for all training sets; the last bounds stand above each panel, also where they are off it."""
        figure = Figure(figsize=(3.6 * len(self.train_sizes) + 0.6, 6.2), layout="constrained")
        grid = figure.subplots(2, len(self.train_sizes), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 2))
        for column, size in enumerate(self.train_sizes):
            bounds, divergence = grid[:, column]
            ours = select(table, train_size=size)
            draw_bounds(bounds, ours)
            bounds.set_title(f"$N_{{\\mathrm{{train}}}} = {size}$", pad=32)
            for method, (_, colour, _) in METHODS.items():
                line = select(ours, method=method, quantity=PARAMETER_KL)
                divergence.plot(line["samples_evaluated"], line["nats"], color=colour)
            divergence.set(xscale="log", yscale="log", xlabel="# Training samples evaluated")
            pale_grid(bounds)
            pale_grid(divergence)
        end = max(table["samples_evaluated"].tolist(), default=10 * FIRST)
        grid[0, 0].set(xlim=(FIRST, 1.1 * end), ylim=BOUNDS, ylabel="Predictive bound (nats per datapoint)")
        grid[1, 0].set(ylim=DIVERGENCES, ylabel="$\\mathrm{KL}(q(\\theta)\\,||\\,p(\\theta))/N$  (nats)")
        legend_below(figure, method_lines(METHODS), 4)
        return figure


def draw_bounds(axes: Axes, table: pd.DataFrame) -> None:
    """Train and test with and without the posterior, and the last values in words."""
    texts = []
    for method, (title, colour, _) in reversed(METHODS.items()):
        last = []
        for split, dashes in SPLITS.items():
            points = select(table, method=method, quantity=f"{split}_bound")
            axes.plot(points["samples_evaluated"], points["nats"], dashes, color=colour, marker=".", markersize=4)
            last += records(points)[-1:]
        values = " / ".join(nats(point["nats"]) for point in last)
        texts.append((f"{title}: {values}", colour) if last else (f"{title}: no run yet", GREY))
    write_above(axes, texts, spacing=0.07, size=8)


def predictive_bound(split: str, num_draws: int, seed: int) -> Measurement:
    """The predictive bound of a whole split with the weights of a checkpoint, and the posterior over them."""

    def make(run: Run, images: Tensor, name: str) -> dict[str, Any]:
        device = next(run.model.parameters()).device
        objective = load_objective(run, RunDir(run.path).checkpoint_path(run.checkpoint)).to(device)
        images = images.to(device)
        bound, error = measure_predictive_bound(run.model, objective, images, num_draws=num_draws, seed=seed)
        key = f"{name}/{quantity}"
        return {key: bound, f"{key}_se": error, f"{key}_num_datapoints": len(images)}

    quantity = f"predictive_bound_{num_draws}"
    return Measurement(quantity, split, None, {"seed": seed}, make)


def measure_predictive_bound(
    model: VAE,
    objective: Objective,
    images: Float[Tensor, "num channel height width"],
    *,
    num_draws: int,
    seed: int,
) -> tuple[float, float]:
    """E_q(theta)[ELBO(x; theta)] in nats per datapoint, and its Monte Carlo standard error with the data held fixed.

    By Jensen it bounds log E_q(theta)[p_theta(x)], the log density that q(theta) predicts with. The bound with the
    posterior mean in the place of theta does not: it knows nothing of the spread. Where the parameters have no
    posterior, the predictive bound is the bound. Every draw is one theta for all images, with one z each; every draw
    of z counts also where theta does not vary.
    """
    bounds = []
    for draw in range(num_draws):
        with evaluating(model, images.device, seed, "parameters", draw):
            drawn = objective.predictive_model(model)
        sums = measure_bound(drawn, images, num_samples=1, seed=derived_seed(seed, "predictive", draw))
        bounds.append(summarise(sums, num_samples=1)["bound"])
    return statistics.fmean(bounds), statistics.stdev(bounds) / math.sqrt(num_draws)
