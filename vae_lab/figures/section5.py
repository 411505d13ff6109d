"""What the figures of section 5 share: their trainings, the points of a bound curve, and the published curves.

These are numbers read from the vector paths of the paper's figures 2 and 3, to about ±0.1 nat (MNIST) and ±0.5 nat
(Frey Face), thinned to some 60 points a curve, also beyond the axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vae_lab.errors import ConfigError
from vae_lab.figures.base import check_by_scale
from vae_lab.figures.canvas import SPLITS, nats
from vae_lab.figures.needed import NeededRun, check_scale
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir

REFERENCE = Path(__file__).parent / "reference"
FIGURE2 = ("dataset", "latent_dim", "method", "split", "samples_evaluated", "bound_nats")
FIGURE3 = ("train_size", "method", "split", "samples_evaluated", "log_marginal_nats")
KEYS = {"train": "train/bound_running", "test": "test/bound"}
"""What figure 2 shows of a curve: on train a running mean, on test what is measured there."""
AEVB, WAKE_SLEEP, MCEM = "#D55E00", "#009E73", "#0072B2"
"""The colours of the methods: the paper's red, green and blue, as Okabe and Ito (2008) choose them for all eyes."""
BOUND_LABEL: dict[str, Any] = {"ylabel": "$\\mathcal{L}$  (nats per datapoint)", "math_fontfamily": "stix"}
"""The font that has this letter, which Matplotlib would otherwise take from there with a notice."""


@dataclass(kw_only=True, eq=False)
class Section5:
    """How the paper trained.

    Args:
        data_sets: overrides for each data set: its experiment, and the choices that the paper leaves open.
        panels: further overrides for single panels, `<data set>_<latent size>`: choices that the paper leaves open.
        methods: overrides for each method; all else is the same for both methods of a panel.
        evaluation: overrides for all: when the bound is measured.
        learning_rates: the step sizes to choose from.
        max_samples: the budget of each data set's curves at each scale.
        snapshots: counts of training samples at which weights are kept, as far as the budget reaches.
    """

    data_sets: dict[str, list[str]]
    panels: dict[str, list[str]]
    methods: dict[str, list[str]]
    evaluation: list[str]
    learning_rates: list[float]
    max_samples: dict[str, dict[str, int]]
    snapshots: list[int]

    def __post_init__(self) -> None:
        for panel in self.panels:
            data_set, _, latent_dim = panel.rpartition("_")
            if data_set not in self.data_sets or not latent_dim.isdigit():
                raise ConfigError(
                    f"figure.training.panels must name panels such as {next(iter(self.data_sets))}_20, got {panel!r}"
                )
        if sorted(self.max_samples) != sorted(self.data_sets):
            raise ConfigError(
                f"figure.training.max_samples must name the data sets {', '.join(self.data_sets)}, got "
                f"{', '.join(self.max_samples)}: add or remove entries"
            )
        check_by_scale(**{f"training.max_samples.{name}": budgets for name, budgets in self.max_samples.items()})

    def needed_run(self, data_set: str, latent_dim: int, method: str, scale: str) -> NeededRun:
        """The training of `data_set` with `latent_dim` latent dimensions by `method`."""
        check_scale(scale)
        for key, name, known in (("data_sets", data_set, self.data_sets), ("methods", method, self.methods)):
            if name not in known:
                raise ConfigError(f"figure.training.{key} must hold {name!r}, which is drawn, got {', '.join(known)}")
        panel, budget = f"{data_set}_{latent_dim}", self.max_samples[data_set][scale]
        own = [*self.data_sets[data_set], f"model.latent_dim={latent_dim}", *self.panels.get(panel, [])]
        return NeededRun(
            label=f"{panel}_{method}",
            overrides=(*own, *self.methods[method], *self.evaluation),
            learning_rates=tuple(self.learning_rates),
            max_samples=budget,
            snapshots=tuple(count for count in self.snapshots if count <= budget),
        )


def bound_points(run: RunDir) -> list[dict[str, Any]]:
    """The points of a run's bound curve, train first."""
    rows = read_rows(run.curve_file)
    return [
        {
            "split": split,
            "samples_evaluated": int(row["samples_evaluated"]),
            "bound_nats": row[key],
            "learning_rate": row["learning_rate"],
        }
        for split, key in KEYS.items()
        for row in rows
        if key in row
    ]


def last_values(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last values of a curve, train / test: stated also where they are off the axes."""
    count = f"{rows[-1]['samples_evaluated']:.1e}".replace("e+0", "e").replace(".0e", "e")
    last = {row["split"]: nats(row["bound_nats"]) for row in rows}
    return f"at {count}: {' / '.join(last.get(split, '–') for split in SPLITS)}"


def figure2_published() -> pd.DataFrame:
    """The paper's figure 2, with the columns `FIGURE2`, its panels in the paper's order."""
    table = pd.read_csv(REFERENCE / "figure2_published.csv")
    return table.sort_values(["dataset", "latent_dim"], ascending=[False, True], kind="stable", ignore_index=True)


def figure3_published() -> pd.DataFrame:
    """The paper's figure 3, with the columns `FIGURE3`."""
    return pd.read_csv(REFERENCE / "figure3_published.csv")
