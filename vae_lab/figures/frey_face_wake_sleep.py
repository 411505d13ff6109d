"""Wake-sleep on Frey Face by initialisation and step size: what keeps it on the plateau of figure 2, what does not.

A finding beside figure 2, whose published wake-sleep curves stay at what a Gaussian that ignores z scores.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Curve, PaperFigure, check_by_scale, check_scale, part, records, table_of
from vae_lab.figures.bound_points import BOUND_LABEL, bound_points, last_values
from vae_lab.figures.canvas import GREY, SPLITS, styled
from vae_lab.figures.published import figure2_published
from vae_lab.runs.directory import RunDir

COLUMNS = ("latent_dim", "setting", "split", "samples_evaluated", "bound_nats", "learning_rate", "std", "label")
COLOURS = ("tab:green", "tab:olive", "tab:cyan", "tab:purple", "tab:brown")


class FreyFaceWakeSleep(PaperFigure):
    """A panel for each latent size, a pair of curves for each setting.

    Args:
        overrides: of every training.
        latent_dims: a panel for each.
        settings: by name, the overrides in which they differ.
        max_samples: the budget at each scale.
    """

    name = "frey_face_wake_sleep"

    def __init__(
        self,
        *,
        overrides: list[str],
        latent_dims: list[int],
        settings: dict[str, list[str]],
        max_samples: dict[str, int],
    ) -> None:
        if not latent_dims or not 0 < len(settings) <= len(COLOURS):
            raise ConfigError(
                f"figure.latent_dims must hold a size and figure.settings 1 to {len(COLOURS)} settings, got "
                f"{latent_dims} and {', '.join(settings) or 'none'}"
            )
        check_by_scale("figure.max_samples", max_samples)
        self.overrides, self.latent_dims, self.settings = overrides, latent_dims, settings
        self.max_samples = max_samples

    def curves(self, scale: str) -> list[Curve]:
        """Every setting with every latent size."""
        return [self.curve(size, setting, scale) for size in self.latent_dims for setting in self.settings]

    def curve(self, latent_dim: int, setting: str, scale: str) -> Curve:
        """The training of `setting` with `latent_dim` latent dimensions."""
        check_scale(scale)
        return Curve(
            label=f"{self.name}_{latent_dim}_{setting}",
            overrides=(*self.overrides, f"model.latent_dim={latent_dim}", *self.settings[setting]),
            learning_rates=(),
            max_samples=self.max_samples[scale],
        )

    def collect(self, runs: Mapping[str, RunDir], scale: str) -> pd.DataFrame:
        """Every evaluation, train as in figure 2."""
        rows: list[dict[str, Any]] = []
        for size in self.latent_dims:
            for setting in self.settings:
                label = self.curve(size, setting, scale).label
                if label in runs:
                    std = runs[label].config["initialization"].get("std")
                    own = {"latent_dim": size, "setting": setting, "std": std, "label": label}
                    rows += [own | point for point in bound_points(runs[label])]
        return table_of(rows, COLUMNS)

    @styled
    def draw(self, table: pd.DataFrame) -> Figure:
        """The panels in a row; the published curve of the same latent size behind."""
        published = part(figure2_published(), dataset="frey_face", method="wake_sleep")
        figure = Figure(figsize=(4.2 * len(self.latent_dims), 3.9), layout="constrained")
        grid = figure.subplots(1, len(self.latent_dims), squeeze=False, sharey=True)[0]
        for axes, size in zip(grid, self.latent_dims, strict=True):
            self._draw_panel(axes, part(table, latent_dim=size), part(published, latent_dim=size))
            axes.set_title(f"Frey Face, wake-sleep, $N_z={size}$", pad=8 + 11 * len(self.settings))
        grid[0].set_ylabel(**BOUND_LABEL)
        lines = {split: Line2D([], [], color="0.3", ls=dashes) for split, dashes in SPLITS.items()}
        lines["published"] = Line2D([], [], color="tab:green", linewidth=2.6, alpha=0.25)
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3)
        return figure

    def _draw_panel(self, axes: Axes, table: pd.DataFrame, published: pd.DataFrame) -> None:
        for split, dashes in SPLITS.items():
            theirs = part(published, split=split)
            look = {"color": "tab:green", "linewidth": 2.6, "alpha": 0.25}
            axes.plot(theirs["samples_evaluated"], theirs["bound_nats"], dashes, **look)
        for line, (setting, colour) in enumerate(zip(self.settings, COLOURS, strict=False)):
            ours = part(table, setting=setting)
            for split, dashes in SPLITS.items():
                points = part(ours, split=split)
                axes.plot(points["samples_evaluated"], points["bound_nats"], dashes, color=colour, linewidth=1.3)
            rows = records(ours.sort_values("samples_evaluated"))
            text = f"{setting}: no run yet"
            if rows:
                first = rows[0]
                text = f"initial s.d. {first['std']}, step size {first['learning_rate']}: {last_values(rows)}"
            place = (0, 1.02 + 0.055 * (len(self.settings) - 1 - line))
            axes.text(*place, text, color=colour if rows else GREY, transform=axes.transAxes, size=8)
        longest = max(table["samples_evaluated"].tolist(), default=1e6)
        axes.set(xscale="log", xlim=(1e5, max(longest, 2e5)), ylim=(500, 1000), xlabel="# Training samples evaluated")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(which="major", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
