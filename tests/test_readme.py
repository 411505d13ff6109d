"""The README is short, its links lead somewhere, and its example of a user's own network works as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = ("README.md", "SECURITY.md", *(f"{folder}/README.md" for folder in ("configs", "outputs", "vae_lab")))


def test_readme_fits_on_130_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_files_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link
    for file in re.findall(r"`((?:vae_lab|configs|tests|scripts)/[\w/.]+)`", text):
        assert (ROOT / file).exists(), file


@pytest.mark.slow
def test_readme_example_of_an_own_network_trains_and_evaluates(tmp_path):
    text = README.read_text(encoding="utf-8")
    for name, content in re.findall(r"```(?:python|yaml)\n# (my_[\w/.]+)\n(.*?)```", text, flags=re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    commands = re.findall(r"^vae-lab (.*(?:my_configs|my_networks).*)$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    small = {
        "train": ["smoke=on", "run_dir=RUN", "threads=1"],
        "evaluate": ["estimator.num_samples=10", "threads=1"],
    }
    for command in commands:
        arguments = command.split()
        process = subprocess.run(
            [sys.executable, "-m", "vae_lab", *arguments, *small[arguments[0]]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert process.returncode == 0, process.stderr
    refused = subprocess.run(
        [sys.executable, "-m", "vae_lab", "evaluate", "run=RUN"], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "my_networks" in refused.stderr and "allow=" in refused.stderr
