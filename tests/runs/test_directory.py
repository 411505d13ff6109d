"""The parts of a run directory: its own, and no link's."""

import json
import os
import shutil
from pathlib import Path

import pytest
from training import train_more

from vae_lab.errors import RunError
from vae_lab.reports.overview import read_overview
from vae_lab.runs.directory import RunDir, named_folders, named_runs
from vae_lab.runs.load import load_run

NAMES = ("checkpoints", "images", "tensorboard", "log.txt", "metrics.csv", "output.txt", "config.yaml", "run.json")


@pytest.fixture
def run(finished_run, tmp_path) -> RunDir:
    return RunDir(shutil.copytree(finished_run.path, tmp_path / "runs" / "run"))


def lead_out(path: Path, outside: Path) -> None:
    """Puts a link in the place of a part; what was there lies outside now."""
    if path.exists():
        shutil.move(path, outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", [*NAMES, ".lock", "metrics.json", "checkpoints/best.ckpt", "tensorboard/hparams.yaml"])
def test_a_part_that_is_a_link_out_of_the_run_is_refused_by_readers_and_writers(run, tmp_path, name):
    outside = tmp_path / "outside"
    lead_out(run.path / name, outside)
    before = outside.read_bytes() if outside.is_file() else outside.exists()
    message = f"{name} is a link that leads out of the folder, to {outside.resolve()}"
    with pytest.raises(RunError, match=message):
        load_run(run.path)
    with pytest.raises(RunError, match=message), run.locked():
        pass
    with pytest.raises(RunError, match=message):
        train_more(run.path, "trainer.max_epochs=5")
    assert (outside.read_bytes() if outside.is_file() else outside.exists()) == before


def test_every_part_that_is_asked_for_by_name_is_looked_at(run, tmp_path):
    for name in ("checkpoints", "images", "tensorboard", "log.txt", "metrics.csv", "output.txt"):
        lead_out(run.path / name, tmp_path / name)
    for part in ("checkpoints", "last", "images", "tensorboard", "log", "curve_file", "output", "default_checkpoint"):
        with pytest.raises(RunError, match="is a link that leads out of the folder"):
            getattr(run, part)


def test_a_link_within_the_run_and_a_run_behind_a_link_are_fine(run, tmp_path):
    os.rename(run.path / "images" if run.images.exists() else run.path / "log.txt", run.path / "pictures")
    (run.path / "more").symlink_to("pictures")
    (tmp_path / "linked").symlink_to(run.path)
    (tmp_path / "folder").symlink_to(run.path.parent)
    for path in (tmp_path / "linked", tmp_path / "folder" / "run"):
        assert load_run(path).samples == 1200
        with RunDir(path).locked():
            assert RunDir(path).inside("more").exists()


@pytest.fixture
def several(tmp_path, monkeypatch) -> list[Path]:
    """Run directories below `outputs`, each later than the one before: two finished, one interrupted, one broken."""
    monkeypatch.chdir(tmp_path)
    paths = [Path("outputs", name) for name in ("mnist/a", "mnist/b", "c", "d")]
    contents = [json.dumps({"status": status}) for status in ("finished", "finished", "interrupted")]
    for i, (path, content) in enumerate(zip(paths, [*contents, "{"], strict=True)):
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("seed: 0\n")
        (path / "run.json").write_text(content)
        os.utime(path / "run.json", (i, i))
    return paths


def test_latest_is_the_newest_finished_run_unless_a_folder_is_called_so(several):
    assert [run.path for run in named_runs("latest")] == [several[1]]
    assert named_folders(["latest", "outputs/mnist/a"]) == {several[1]: False, several[0]: False}
    (several[1] / "run.json").unlink()
    (several[0] / "run.json").unlink()
    with pytest.raises(RunError, match="run=latest must be a run below outputs that is finished, and there is none"):
        named_runs("latest")
    several[0].rename("latest")
    assert named_folders(["latest"]) == {Path("latest"): False}


@pytest.mark.parametrize("read", [named_runs, load_run, read_overview])
def test_a_folder_of_runs_names_them(several, read):
    with pytest.raises(
        RunError, match="outputs is no run directory: it holds outputs/c, outputs/d, outputs/mnist/a and 1"
    ):
        read(Path("outputs") if read is read_overview else "outputs")
    with pytest.raises(
        RunError, match=r"among outputs/mnist is none; it holds .*a pattern such as run='outputs/mnist/\*'"
    ):
        named_runs("outputs/mn*")
