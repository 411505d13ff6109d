"""What was measured from the snapshots of a run, kept beside the weights that it belongs to, so made once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae_lab.atomic import write_json
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run

ESTIMATES = "estimates.json"
"""In a run directory."""


class Estimates:
    """The estimates made from one run's snapshots: a JSON file, written after every one of them."""

    def __init__(self, directory: RunDir) -> None:
        self.path = directory.path / ESTIMATES
        self.known: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The estimate of that name, which says all that it depends on; made if not known."""
        if key not in self.known:
            self.known[key] = make()
            write_json(self.path, self.known)
        return self.known[key]


def weights_by_samples(run: Run) -> dict[int, Path]:
    """The snapshots of a run and the checkpoint that it was loaded from, by training samples, in order."""
    directory = RunDir(run.path)
    files = {int(file.stem): file for file in (directory.checkpoints / "at").glob("*.ckpt")}
    files.setdefault(run.samples, directory.checkpoint_path(run.checkpoint))
    return dict(sorted(files.items()))
