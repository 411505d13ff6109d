"""The points of a run's bound curve as figure 2 shows them: on train a running mean, on test what is measured there."""

from collections.abc import Mapping, Sequence
from typing import Any

from vae_lab.figures.canvas import SPLITS
from vae_lab.figures.run_facts import nats
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir

KEYS = {"train": "train/bound_running", "test": "test/bound"}
BOUND_LABEL: dict[str, Any] = {"ylabel": "$\\mathcal{L}$  (nats per datapoint)", "math_fontfamily": "stix"}
"""In the font that has this letter, which Matplotlib would otherwise take from there with a notice."""


def bound_points(run: RunDir) -> list[dict[str, object]]:
    """The points of a run, train first."""
    rows = read_rows(run.curve)
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
