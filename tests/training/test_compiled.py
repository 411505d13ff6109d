"""Compiled training steps: the same training to float32 rounding, refused where they cannot be."""

import os
import subprocess
import sys

import pytest
from training import TINY, assert_same_training, finish, train_tiny, vae_lab

from vae_lab.errors import ConfigError
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["objective=aevb", "optimizer=adagrad", "optimizer.warmup_steps=5", "parameter_prior=true"],
        [
            "objective=aevb",
            "schedule=cosine",
            "schedule.T_max=18",
            "gradient_clip_norm=5",
            "objective.kl_warmup_samples=500",
        ],
        ["objective=importance_weighted", "objective.num_samples=5", "likelihood=gaussian"],
    ],
    ids=["adagrad", "adam", "iwae"],
)
def test_compiled_training_is_the_same_to_rounding(tmp_path, settings):
    curves = []
    for key in ("false", "true"):  # in processes without the tests' checks of shapes, which cannot be compiled
        run = RunDir(tmp_path / key)
        overrides = [*TINY, "data=digits", *settings, "trainer.max_epochs=3", f"compile={key}"]
        finish(vae_lab("train", f"run_dir={run.path}", *overrides))
        curves.append(read_rows(run.curve))
    plain, compiled = curves
    assert [row["samples_evaluated"] for row in compiled] == [row["samples_evaluated"] for row in plain]
    for name in ("train/bound_running", "test/bound"):
        assert [row[name] for row in compiled] == pytest.approx([row[name] for row in plain], rel=1e-5)
    assert compiled != plain  # it was compiled


@pytest.mark.parametrize(
    ("override", "reason"),
    [("objective=wake_sleep", "several updates"), ("trainer.devices=2", "2 processes exchange")],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(tmp_path, override, reason):
    with pytest.raises(ConfigError, match=f"compile must be false, got true: .*{reason}"):
        train_tiny(tmp_path / "run", "compile=true", override)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_second_training_of_a_process_is_compiled_anew(tmp_path):
    common = [*TINY[:-1], "data=digits", "trainer.max_epochs=2", "compile=true", "steps_per_execution=4"]
    other = ["model=conv", "model.encoder.channels=[4]", "model.decoder.channels=[4]", "seed=1"]
    conv = [text for text in common if "hidden" not in text] + other
    lines = [["train", f"run_dir={tmp_path / 'first'}", *common], ["train", f"run_dir={tmp_path / 'second'}", *conv]]
    code = f"from vae_lab.cli import main; assert [main(line) for line in {lines!r}] == [0, 0]"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    finish(vae_lab("train", f"run_dir={tmp_path / 'alone'}", *conv))
    again, alone = (read_rows(RunDir(tmp_path / name).curve) for name in ("second", "alone"))
    assert again == alone


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_continued_compiled_training_is_the_undisturbed_one(tmp_path, optimizer):
    common = [*TINY, "data=digits", f"optimizer={optimizer}", "compile=true", "trainer.max_epochs=null"]
    whole, halves = RunDir(tmp_path / "whole"), RunDir(tmp_path / "halves")
    finish(vae_lab("train", f"run_dir={whole.path}", "max_samples=1600", *common))
    finish(vae_lab("train", f"run_dir={halves.path}", "max_samples=1000", *common))
    finish(vae_lab("train", f"run_dir={halves.path}", "max_samples=1600"))
    assert_same_training(halves, whole)
