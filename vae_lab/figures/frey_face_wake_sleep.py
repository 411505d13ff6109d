"""Wake-sleep on Frey Face by initialisation and step size: what keeps it on the plateau of figure 2, what does not.

A finding beside figure 2, whose published wake-sleep curves stay at what a Gaussian that ignores z scores.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Arrays, PaperFigure, check_by_scale, records, select
from vae_lab.figures.canvas import GREY, PUBLISHED, SPLITS, draw_splits, legend_below, styled, write_above
from vae_lab.figures.figure2 import BASELINES, THIN
from vae_lab.figures.needed import NeededRun
from vae_lab.figures.section5 import BOUND_LABEL, WAKE_SLEEP, bound_points, figure2_published, last_values
from vae_lab.runs.directory import RunDir

PIXELS = "independent_pixels"
"""What a model without a latent variable scores on test: the column, and its name in a ledger."""
COLOURS = (WAKE_SLEEP, "tab:olive", "tab:cyan", "tab:purple", "tab:brown")


@dataclass(kw_only=True, eq=False)
class FreyFaceWakeSleep(PaperFigure):
    """A panel for each latent size, a pair of curves for each setting.

    Args:
        overrides: of every training.
        latent_dims: a panel for each.
        settings: by name, the overrides in which they differ.
        max_samples: the budget at each scale.
    """

    name = "frey_face_wake_sleep"
    columns = (
        "latent_dim",
        "setting",
        "split",
        "samples_evaluated",
        "bound_nats",
        "learning_rate",
        "std",
        PIXELS,
        "label",
    )

    overrides: list[str]
    latent_dims: list[int]
    settings: dict[str, list[str]]
    max_samples: dict[str, int]

    def __post_init__(self) -> None:
        if not self.latent_dims or not 0 < len(self.settings) <= len(COLOURS):
            raise ConfigError(
                f"figure.latent_dims must hold a size and figure.settings 1 to {len(COLOURS)} settings, got "
                f"{self.latent_dims} and {', '.join(self.settings) or 'none'}"
            )
        check_by_scale(max_samples=self.max_samples)

    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """Every setting with every latent size."""
        return {
            NeededRun(
                label=f"{self.name}_{size}_{setting}",
                overrides=(*self.overrides, f"model.latent_dim={size}", *overrides),
                max_samples=self.max_samples[scale],
            ): {"latent_dim": size, "setting": setting}
            for size in self.latent_dims
            for setting, overrides in self.settings.items()
        }

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """Every evaluation, train as in figure 2."""
        std = run.read_config()["initialization"].get("std")
        facts = {"std": std, PIXELS: run.ledger("last").get(f"test/baseline/{PIXELS}")}
        return [facts | point for point in bound_points(run)]

    @styled
    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        """The panels in a row; the published curve of the same latent size behind."""
        published = select(figure2_published(), dataset="frey_face", method="wake_sleep")
        figure = Figure(figsize=(4.2 * len(self.latent_dims), 3.9), layout="constrained")
        panels = figure.subplots(1, len(self.latent_dims), squeeze=False, sharey=True)[0]
        for axes, size in zip(panels, self.latent_dims, strict=True):
            self._draw_panel(axes, select(table, latent_dim=size), select(published, latent_dim=size))
            axes.set_title(f"Frey Face, wake-sleep, $N_z={size}$", pad=8 + 11 * len(self.settings))
        panels[0].set_ylabel(**BOUND_LABEL)
        lines = {split: Line2D([], [], color="0.3", ls=dashes) for split, dashes in SPLITS.items()}
        lines["published"] = Line2D([], [], color=WAKE_SLEEP, **PUBLISHED)
        lines["independent pixels (test)"] = Line2D([], [], ls=BASELINES[PIXELS], **THIN)
        legend_below(figure, lines, 4)
        return figure

    def _draw_panel(self, axes: Axes, table: pd.DataFrame, published: pd.DataFrame) -> None:
        draw_splits(axes, published, "bound_nats", color=WAKE_SLEEP, **PUBLISHED)
        for score in sorted(set(table[PIXELS].dropna())) if PIXELS in table else ():
            axes.axhline(score, ls=BASELINES[PIXELS], **THIN)
        texts = []
        for setting, colour in zip(self.settings, COLOURS, strict=False):
            ours = select(table, setting=setting)
            draw_splits(axes, ours, "bound_nats", color=colour, linewidth=1.3)
            rows = records(ours.sort_values("samples_evaluated"))
            text = f"{setting}: no run yet"
            if rows:
                first = rows[0]
                text = f"initial s.d. {first['std']}, step size {first['learning_rate']}: {last_values(rows)}"
            texts.append((text, colour if rows else GREY))
        write_above(axes, texts[::-1], spacing=0.055, size=8)
        longest = max(table["samples_evaluated"].tolist(), default=1e6)
        axes.set(xscale="log", xlim=(1e5, max(longest, 2e5)), ylim=(500, 1000), xlabel="# Training samples evaluated")
        axes.xaxis.set_minor_formatter(NullFormatter())
