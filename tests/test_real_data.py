"""Smoke runs on real MNIST and real Frey Face, found through VAE_LAB_DATA."""

import math
import os
from dataclasses import replace

import pytest
import torch
from training import evaluate_tiny, train_more

from vae_lab.data.arrays import Source
from vae_lab.data.frey_face import FreyFace
from vae_lab.distributions import DiagonalGaussian
from vae_lab.runs.baselines import measure_baselines
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


class AllFrames(FreyFace):
    def load(self) -> Source:
        source = super().load()
        return replace(source, indices={"train": torch.arange(len(source.images))})


def all_frames(divisor: int) -> AllFrames:
    common = {"batch_size": 100, "binarization": "none", "train_size": None, "split_seed": 0}
    data = AllFrames(root=os.environ["VAE_LAB_DATA"], split="blocked", validation_size=0, **common)
    data.divisor = divisor
    return data


@pytest.mark.parametrize(("divisor", "expected"), [(256, 576.99), (255, 574.80)])
def test_independent_pixels_of_all_frames_have_the_known_score(divisor: int, expected: float):
    frames = all_frames(divisor)
    score = measure_baselines(frames, frames.splits["train"].images, DiagonalGaussian, 560)[
        "baseline/independent_pixels"
    ]
    assert score == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("latent_dim", "known"), [(2, [555.8, 681.7]), (5, [667.7, 781.9]), (10, [754.6, 873.0]), (20, [861.6])]
)
def test_linear_models_of_all_frames_have_the_known_scores(latent_dim: int, known: list[float]):
    frames = all_frames(255)
    scores = measure_baselines(frames, frames.splits["train"].images, DiagonalGaussian, latent_dim)
    linear = [scores[f"baseline/{name}"] for name in ("probabilistic_pca", "factor_analysis")]
    assert linear[: len(known)] == pytest.approx(known, abs=0.1)


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
