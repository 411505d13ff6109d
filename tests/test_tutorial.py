"""The tutorial runs from data to the paper's four figures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

TUTORIAL = Path(__file__).parents[1] / "scripts" / "tutorial.py"


@pytest.mark.slow
def test_tutorial_runs_and_draws_the_figures(tmp_path):
    small = {"VAE_LAB_TUTORIAL_SAMPLES": "5000", "VAE_LAB_TUTORIAL_FOLDER": str(tmp_path), "MPLBACKEND": "Agg"}
    process = subprocess.run([sys.executable, str(TUTORIAL)], capture_output=True, text=True, env=os.environ | small)
    assert process.returncode == 0, process.stderr
    for name in ("data", "figure2", "figure3", "figure4", "figure5_2", "figure5_5", "figure5_10"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(set(picture.convert("L").tobytes())) > 20, f"{name} is empty"
    (table,) = re.findall(r"data\.name.*", process.stdout, re.DOTALL)
    assert len(table.splitlines()) == 1 + 3 + 3 + 6, "a row for each training"


def test_tutorial_has_fifteen_cells():
    cells = re.findall(r"^# %% (\d+)\. .+\n# .+|^# %% 1\. .+", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(cells) == 15
