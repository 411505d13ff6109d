"""A run directory that version 0.1 wrote, kept in git: what later versions must still load, measure, continue, list."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from training import evaluate_tiny, train_more, train_tiny

from vae_lab import load_run
from vae_lab.cli import main
from vae_lab.runs.directory import RunDir
from vae_lab.runs.formats import FORMAT, FORMERLY

WRITTEN = Path(__file__).parent / "written_by_0_1"
BOUND = -43.86920773226395


@pytest.fixture
def old_run(tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(WRITTEN, tmp_path / "outputs" / "digits" / "run"))


def test_old_run_is_loaded_with_its_weights_and_its_ledger(old_run: RunDir) -> None:
    run = load_run(old_run.path)
    assert (run.checkpoint, run.samples, run.model.latent_dim) == ("best", 400, 1)
    assert run.metrics["test/bound"] == BOUND
    assert [row["samples_evaluated"] for row in run.curve] == [100, 200, 250, 400]
    images = run.data.measured("test").images[:5]
    assert run.reconstruct(images).shape == (5, 1, 8, 8)
    state = torch.load(WRITTEN / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, state[f"model.{name}"], rtol=0, atol=0)


def test_old_run_is_measured_as_it_was_when_written(old_run: RunDir) -> None:
    evaluate_tiny(old_run, "num_samples=1", "seed=3", "splits=[test]")
    ledger = old_run.ledger("best")
    assert ledger["test/bound"] == pytest.approx(BOUND, abs=1e-4)
    assert ledger["train/bound"] == -44.04942580338102
    assert "test/log_likelihood/importance_sampling_5_se" in ledger


def test_old_run_is_continued_to_a_larger_budget(old_run: RunDir) -> None:
    rows = old_run.curve_file.read_text().splitlines()
    train_more(old_run.path, "trainer.max_epochs=8")
    assert old_run.read_status() == "finished"
    assert old_run.ledger("best")["samples_evaluated"] == 800
    continued = old_run.curve_file.read_text().splitlines()
    assert continued[: len(rows)] == rows
    assert continued[-1].startswith("800,")


@pytest.mark.slow
def test_old_run_is_listed_and_reported(old_run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", f"root={old_run.path.parents[1]}"]) == 0
    listing = capsys.readouterr().out
    assert "-43.87" in listing and "finished" in listing
    assert main(["report", f"run={old_run.path}"]) == 0
    assert "-43.87" in (old_run.path / "report.html").read_text()


def test_old_run_has_the_present_format_once_it_went_on(old_run: RunDir) -> None:
    assert "format" not in old_run.read_record()
    text = (old_run.path / "config.yaml").read_text()
    (old_run.path / "config.yaml").write_text(text.replace("matmul_backend: default\n", ""))  # as before that choice
    assert old_run.read_config()["matmul_backend"] == "default"
    assert old_run.read_config()["model"]["log_variance_factor"] == 1.0
    train_more(old_run.path, "trainer.max_epochs=8")
    assert old_run.read_record()["format"] == FORMAT
    assert "matmul_backend: default\n" in (old_run.path / "config.yaml").read_text()


@pytest.mark.slow
def test_run_on_pictures_from_before_they_were_cropped_goes_on_with_stretched_ones(tmp_path: Path) -> None:
    for i in range(20):
        Image.new("LA", (9, 4 + i), (10 * i, 9 * i)).save(tmp_path / f"{i:02d}.png")
    former = ["data.fit=stretch", "data.background=none", "data.layout=random", "data.channels=1", "data.bits=8"]
    own = ["data=image_folder", f"data.path={tmp_path}", "data.size=[4,4]", *former]
    small = ["data.train_size=null", "data.batch_size=5", "trainer.max_epochs=2", "evaluation.first=10"]
    run = train_tiny(tmp_path / "run", *own, *small)
    config = run.read_config()
    later = FORMERLY["data"][config["data"]["_target_"]]
    config["data"] = {key: value for key, value in config["data"].items() if key not in later}
    run.write_config(config)
    run.update_record(format=2)
    assert run.read_config()["data"]["layout"] == "random"
    train_more(run.path, "trainer.max_epochs=4")
    assert run.read_config()["data"]["fit"] == "stretch" and run.read_record()["samples_evaluated"] == 60


@pytest.mark.slow
def test_run_of_a_newer_version_is_refused_by_whatever_reads_it(
    old_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    old_run.update_record(format=FORMAT + 1)
    for command in (["train", "run_dir={}"], ["evaluate", "run={}"], ["plot", "run={}"], ["report", "run={}"]):
        assert main([text.format(old_run.path) for text in command]) == 2
        assert f"run.json has format {FORMAT + 1}" in capsys.readouterr().err
    assert main(["runs", f"root={old_run.path.parents[1]}", "format=csv"]) == 0
    assert "a newer vae_lab reads it" in capsys.readouterr().out
