"""Tiny real runs on the digits, under the labels that figures look for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from training import train_tiny

from vae_lab.runs.directory import RunDir

SHORT = ("max_samples=200", "evaluation.splits=[test]", "checkpoint.at=[100,200]", "checkpoint.every_seconds=1000")
"""Two evaluations and two snapshots: at 100 and 200 samples."""


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDir]:
    """Makes a short run at a path, and only once for the same overrides: `short_run(path, *overrides)`."""
    trained: dict[tuple[str, ...], RunDir] = {}

    def make(path: Path, *overrides: str) -> RunDir:
        if overrides not in trained:
            trained[overrides] = train_tiny(tmp_path_factory.mktemp("short") / "run", *SHORT, *overrides)
        shutil.copytree(trained[overrides].path, path)
        return RunDir(path)

    return make
