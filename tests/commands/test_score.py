import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_run import DIGITS, make_drawn_run
from PIL import Image
from sklearn.metrics import roc_auc_score
from training import composed, evaluate_tiny

from vae_lab.cli import main
from vae_lab.commands.score import ScoreSettings, score, without_common_folder
from vae_lab.errors import ConfigError
from vae_lab.estimators.pareto import WeightTail
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.build import settings

FEW = ("threads=1", "estimator.num_samples=30", "num_samples=2")


@pytest.fixture
def run(finished_run: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))


def scored(run: RunDir, out: Path, *overrides: str) -> Any:
    with composed("score", f"run={run.path}", f"out={out}", *FEW, *overrides) as cfg:
        assert score(settings(ScoreSettings, cfg))[0] == out
    return pd.read_csv(out)


@pytest.mark.slow
def test_means_are_those_that_evaluate_writes_to_the_ledger(run, tmp_path):
    table = scored(run, tmp_path / "s.csv", "seed=3")
    evaluate_tiny(run, *FEW, "seed=3")
    ledger = run.ledger("best")
    key = "test/log_likelihood/importance_sampling_30"
    for column, name in (
        ("log_likelihood", key),
        *((name, f"test/{name}") for name in ("bound", "reconstruction", "kl")),
    ):
        assert table[column].mean() == pytest.approx(ledger[name], abs=1e-9), name
    assert np.sqrt((table["standard_error"] ** 2).sum()) / len(table) == pytest.approx(ledger[f"{key}_se"])
    assert table["ess_share"].mean() == pytest.approx(ledger[f"{key}_ess_share"])
    assert (table["k_hat"] > 0.7).mean() == pytest.approx(ledger[f"{key}_high_k_hat"])
    first = scored(run, tmp_path / "first.csv", "seed=3", "num_datapoints=120")
    pd.testing.assert_frame_equal(first, table[:120], rtol=1e-6)


@pytest.mark.slow
def test_least_likely_images_are_a_picture_beside_the_table(run, tmp_path, capfd):
    out = tmp_path / "s.csv"
    assert main(["score", f"run={run.path}", f"out={out}", *FEW, "top=13", "num_datapoints=30"]) == 0
    assert capfd.readouterr().out.splitlines() == [str(out), str(tmp_path / "s.png")]
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 1000
    out.unlink()
    with pytest.raises(ConfigError, match=r"out: .*s\.png exists"):
        scored(run, out, "top=3")
    assert not out.exists()


def test_images_whose_log_p_has_a_high_k_hat_or_none_are_counted(run, tmp_path, caplog, monkeypatch):
    high = int((scored(run, tmp_path / "s.csv", "num_datapoints=60")["k_hat"] > 0.7).sum())
    k_hats = torch.tensor([0.9, math.nan, 0.7, -math.inf])
    monkeypatch.setattr(WeightTail, "k_hat", property(lambda _: k_hats.repeat(5)))
    scored(run, tmp_path / "none.csv", "num_datapoints=20")
    said = [message for message in caplog.messages if "not to be trusted" in message]
    reason = "is not to be trusted: its k-hat is above 0.7 or missing"
    assert 0 < high < 60 and said == [
        f"log p(x) of {high} of 60 images {reason}",
        f"log p(x) of 10 of 20 images {reason}",
    ]


def test_pictures_of_the_same_name_are_told_apart_by_their_folders():
    assert without_common_folder(["photos/circle/1.png", "photos/square/1.png"]) == ["circle/1.png", "square/1.png"]
    assert without_common_folder(["photos/1.png", "photos/2.png"]) == ["1.png", "2.png"]
    assert without_common_folder(["1.png", "a/1.png"]) == ["1.png", "a/1.png"]


@pytest.mark.slow
def test_classes_that_were_left_out_are_found_by_three_marks(tmp_path, capfd):
    run = make_drawn_run(tmp_path / "run", data=DIGITS | {"classes": [0, 1, 2, 3, 4]})
    table = scored(run, tmp_path / "s.csv", "classes=all")
    shown = capfd.readouterr().out
    others = table["label"] > 4
    assert f"finding the {others.sum()} images of classes that it was not trained on" in " ".join(shown.split())
    for name, values in (("-log p(x)", -table["log_likelihood"]), ("KL", table["kl"])):
        line = next(line for line in shown.splitlines() if name in line)
        assert f"{roc_auc_score(others, values):.3f}" in line
    scored(run, tmp_path / "own.csv")
    assert "AUROC" not in capfd.readouterr().out


def test_run_without_an_encoder_is_scored_by_log_p_alone(tmp_path):
    run = make_drawn_run(tmp_path / "run", has_encoder=False)
    with composed(
        "score", f"run={run.path}", f"out={tmp_path}/s.csv", "threads=1", "estimator=quadrature", "num_datapoints=9"
    ) as cfg:
        score(settings(ScoreSettings, cfg))
    table = pd.read_csv(tmp_path / "s.csv")
    assert list(table.columns) == ["image", "label", "log_likelihood", "standard_error"] and len(table) == 9
    with pytest.raises(ConfigError, match="estimator must be one that needs no encoder"):
        scored(run, tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["top=0"], "top must be an integer in 1 ... 500 or null, got 0"),
        (["num_samples=0"], "num_samples must be an integer >= 1, got 0"),
        (["device=gpu"], "device must be one of auto, cpu, cuda, got 'gpu'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(run, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        scored(run, tmp_path / "s.csv", *overrides)
    assert not (tmp_path / "s.csv").exists()


def test_estimator_of_simulated_images_scores_none(run, tmp_path):
    arguments = ["score", f"run={run.path}", f"out={tmp_path}/s.csv", "estimator=bidirectional"]
    with composed(*arguments) as cfg, pytest.raises(ConfigError, match="estimator must be of log p"):
        score(settings(ScoreSettings, cfg))
