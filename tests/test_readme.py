"""The README is short, its links lead somewhere, and its example of a user's own network works as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from training import run_to_end

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
def test_readme_example_of_an_own_network_trains_and_evaluates(tmp_path, monkeypatch):
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
    monkeypatch.chdir(tmp_path)
    for command in commands:
        arguments = command.split()
        run_to_end(*arguments, *small[arguments[0]])
    _, refusal = run_to_end("evaluate", "run=RUN", returncode=2)
    assert "my_networks" in refusal and "allow=" in refusal


@pytest.mark.slow
def test_quickstart_is_one_process_that_says_first_what_it_does(tmp_path):
    python, started = tmp_path / "bin" / "python", tmp_path / "started"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho >>"{started}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    sums = subprocess.run(["cksum"], input=(ROOT / "pyproject.toml").read_bytes(), capture_output=True, check=True)
    (tmp_path / ".installed").write_text(f"{sums.stdout.decode().strip()} {ROOT}\n\n")

    def quickstart(*overrides: str) -> subprocess.CompletedProcess[str]:
        command, there = [str(ROOT / "scripts/quickstart"), *overrides], {"VENV": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | there)

    process = quickstart("smoke=on", f"output_root={tmp_path}/runs")
    assert process.returncode == 0, process.stderr
    assert len(started.read_text().splitlines()) == 1
    first, *lines = process.stdout.splitlines()
    (run,) = tmp_path.glob("runs/quickstart/*")
    assert "two latent dimensions" in first and any("test bound -" in line for line in lines)
    assert f"pictures:   {run}/images" in lines and (run / "images/manifold.png").stat().st_size > 0
    assert any(line.endswith(f"vae-lab verify run={run}") for line in lines)
    assert "test/log_likelihood/importance_sampling_500" in (run / "metrics.json").read_text()
    mistake = quickstart("seeed=1")
    assert mistake.returncode == 2 and "seeed" in mistake.stderr and "did you mean" in mistake.stderr
