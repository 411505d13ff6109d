"""Smoke runs on real MNIST and real Frey Face, found through VAE_LAB_DATA."""

import math
import os

import pytest
from training import evaluate_tiny, train_more

from vae_lab.runs.curve import read_rows
from vae_lab.runs.load import load_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("VAE_LAB_DATA" not in os.environ, reason="VAE_LAB_DATA names no folder with real data"),
]

SETTINGS = (
    "threads=1",
    "callbacks=none",
    "model.encoder.hidden=[50]",
    "trainer.max_epochs=null",
    "evaluation.first=1000",
)


def test_mnist_trains_and_is_evaluated(tmp_path):
    run = train_more(tmp_path / "run", "data=mnist", *SETTINGS, "max_samples=10000")
    rows = read_rows(run.curve_file)
    assert rows[-1]["test/bound"] > rows[0]["test/bound"] + 50 and rows[-1]["test/bound"] > -230
    assert run.ledger("best")["scale"] == "x/255" and run.ledger("best")["likelihood"] == "BernoulliLikelihood"
    counts = [run.ledger("best")[f"{split}/num_datapoints"] for split in ("train", "val", "test")]
    assert counts == [50_000, 10_000, 10_000]
    evaluate_tiny(run, "num_datapoints=100")
    assert load_run(run.path).sample(3).shape == (3, 1, 28, 28)


@pytest.mark.parametrize("split", ["random", "blocked"])
def test_frey_face_trains_and_is_evaluated(tmp_path, split):
    run = train_more(tmp_path / "run", "data=frey_face", *SETTINGS, "max_samples=10000", f"data.split={split}")
    rows = read_rows(run.curve_file)
    assert rows[-1]["test/bound"] > rows[0]["test/bound"] + 100 and rows[-1]["test/bound"] > 200
    assert "val/bound" not in rows[0] and run.default_checkpoint == "last"
    ledger = run.ledger("last")
    assert ledger["scale"] == "x/256" and ledger["likelihood"] == "GaussianLikelihood"
    assert [ledger[f"{part}/num_datapoints"] for part in ("train", "test")] == [1600, 365]
    evaluate_tiny(run, "num_datapoints=100")
    assert math.isfinite(run.ledger("last")["test[:100]/log_likelihood/importance_sampling_5"])
