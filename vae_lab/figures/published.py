"""The paper's published curves as numbers, read from the vector paths of its figures 2 and 3.

About ±0.1 nat (MNIST) and ±0.5 nat (Frey Face), thinned to some 60 points a curve, also beyond the axes.
"""

from pathlib import Path

import pandas as pd

REFERENCE = Path(__file__).parent / "reference"

FIGURE2 = ("dataset", "latent_dim", "method", "split", "samples_evaluated", "bound_nats")
FIGURE3 = ("train_size", "method", "split", "samples_evaluated", "log_marginal_nats")


def figure2_published() -> pd.DataFrame:
    """Figure 2, with the columns `FIGURE2`."""
    return pd.read_csv(REFERENCE / "figure2_published.csv")


def figure3_published() -> pd.DataFrame:
    """Figure 3, with the columns `FIGURE3`."""
    return pd.read_csv(REFERENCE / "figure3_published.csv")
