"""Models without a network: against SciPy, against known values, and in the ledger of every run."""

import math
import shutil
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import LinearGaussian
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis
from training import evaluate_tiny, train_more

from vae_lab.data.digits import Digits
from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian
from vae_lab.runs.baselines import fitted, kind_of_likelihood, measure_baselines
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.runs.measured import baseline
from vae_lab.runs.result import baseline_keys


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(batch_size=100, binarization="none", train_size=None, split_seed=0)


def test_independent_bernoulli_pixels_are_the_means_of_train_by_the_rule_of_succession(digits: Digits) -> None:
    train, test = (digits.splits[name].images.double().flatten(1).numpy() for name in ("train", "test"))
    mean = (train.sum(0) + 1) / (len(train) + 2)
    expected = (test * np.log(mean) + (1 - test) * np.log1p(-mean)).sum(1).mean()
    scores = measure_baselines(digits, digits.splits["test"].images, Bernoulli, 5)
    assert scores == {"baseline/independent_pixels": pytest.approx(expected, abs=1e-9)}
    assert (train.min(0) == train.max(0)).any(), "a pixel that is always black costs no infinity"


def test_independent_grey_pixels_are_a_density_with_these_means(digits: Digits) -> None:
    train, test = (digits.splits[name].images.double().flatten(1).numpy() for name in ("train", "test"))
    mean = (train.sum(0) + 1) / (len(train) + 2)
    logits = ContinuousBernoulli.logits_of(torch.from_numpy(mean)).numpy()
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(1 / -np.expm1(-logits) - 1 / logits, mean, rtol=1e-9)
    expected = (test * logits - np.log(np.expm1(logits) / logits)).sum(1).mean()
    scores = measure_baselines(digits, digits.splits["test"].images, ContinuousBernoulli, 5)
    assert scores == {"baseline/independent_pixels": pytest.approx(expected, rel=1e-9)}


def test_gaussian_baselines_are_scikit_learns_and_normalised_densities(digits: Digits) -> None:
    train, test = (digits.splits[name].images.double().flatten(1).numpy() for name in ("train", "test"))
    least = 1 / (12 * 16**2)
    scores = measure_baselines(digits, digits.splits["test"].images, DiagonalGaussian, 3)
    variance = np.maximum(train.var(0), least)
    expected = -0.5 * (np.log(2 * np.pi * variance) + (test - train.mean(0)) ** 2 / variance).sum(1).mean()
    assert scores["baseline/independent_pixels"] == pytest.approx(expected, abs=1e-9)
    pca = PCA(3, svd_solver="full").fit(train)
    assert scores["baseline/probabilistic_pca"] == pytest.approx(pca.score(test), abs=2e-3)
    analysis = FactorAnalysis(3, random_state=0).fit(train)
    covariance = analysis.components_.T @ analysis.components_ + np.diag(np.maximum(analysis.noise_variance_, least))
    expected = multivariate_normal(train.mean(0), covariance).logpdf(test).mean()
    assert scores["baseline/factor_analysis"] == pytest.approx(expected, abs=1e-9)


def test_probabilistic_pca_is_the_maximum_of_its_likelihood_on_train(digits: Digits) -> None:
    images = digits.splits["train"].images
    best = measure_baselines(digits, images, DiagonalGaussian, 3)["baseline/probabilistic_pca"]
    density = fitted(digits, DiagonalGaussian, 3)["probabilistic_pca"]
    for shift, scale in ((0.0, 1.001), (0.0, 0.999), (0.001, 1.0), (-0.001, 1.0)):
        moved = density((images.double() - shift) / scale).mean() - images[0].numel() * math.log(scale)
        assert float(moved) < best, "no shift and no scale of it is better"


def test_a_latent_space_as_large_as_the_data_has_no_linear_baseline(digits: Digits) -> None:
    assert set(fitted(digits, DiagonalGaussian, 64)) == {"independent_pixels"}
    assert set(fitted(digits, DiagonalGaussian, 63)) > {"probabilistic_pca", "factor_analysis"}


def test_kind_of_likelihood_is_asked_of_the_model_and_changes_nothing_of_it() -> None:
    model = LinearGaussian().model
    model.train()
    assert kind_of_likelihood(model) is DiagonalGaussian and model.training
    model.likelihood = partial(lambda z: None)  # pyright: ignore[reportAttributeAccessIssue]
    assert kind_of_likelihood(model) is None, "of another kind there are none"


def test_ledger_of_every_training_has_the_baselines_of_every_split(finished_run: RunDir) -> None:
    ledger, run = finished_run.ledger("best"), load_run(finished_run.path)
    assert baseline_keys(ledger) == [f"{split}/baseline/independent_pixels" for split in ("train", "val", "test")]
    for split in ("train", "val", "test"):
        images = run.data.splits[split].images
        expected = measure_baselines(run.data, images, Bernoulli, 2)["baseline/independent_pixels"]
        assert ledger[f"{split}/baseline/independent_pixels"] == expected


def test_evaluate_adds_them_to_an_older_run_and_shows_them(finished_run: RunDir, tmp_path, capsys) -> None:
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))
    path = run.ledger_path(run.default_checkpoint)
    before = run.ledger(run.default_checkpoint)
    path.unlink()
    run.update_ledger(run.default_checkpoint, {key: before[key] for key in before if "baseline" not in key})
    evaluate_tiny(run, "num_datapoints=20", "splits=[test]")
    ledger = run.ledger(run.default_checkpoint)
    assert baseline_keys(ledger) == ["test[:20]/baseline/independent_pixels"]
    assert "baseline/independent_pixels" in capsys.readouterr().out
    loaded = load_run(run.path)
    assert baseline("test", num_datapoints=20).of(loaded).value == ledger["test[:20]/baseline/independent_pixels"]
    assert baseline("test").of(loaded).value == before["test/baseline/independent_pixels"]


@pytest.mark.slow
def test_linear_vae_with_fixed_noise_converges_to_probabilistic_pca_and_never_exceeds_it(tmp_path) -> None:
    at = [5000, 50_000, 100_000]
    run = train_more(tmp_path / "run", "experiment=linear", "threads=1", "max_samples=100000", f"checkpoint.at={at}")
    loaded = load_run(run.path, checkpoint="last")
    train = loaded.data.splits["train"].images.double().flatten(1)

    def log_likelihood(checkpoint: int) -> float:
        head: Any = loaded.at(checkpoint).model.decoder.head
        weight, bias = (parameter.detach().double() for parameter in head.mean[0].parameters())
        covariance = weight @ weight.T + head.log_variance.exp() * torch.eye(64).double()
        return float(torch.distributions.MultivariateNormal(bias, covariance).log_prob(train).mean())

    maximum = loaded.metrics["train/baseline/probabilistic_pca"]
    values = [log_likelihood(count) for count in at]
    assert values == sorted(values) and maximum - 0.05 < values[-1] <= maximum
    error = 6 * math.sqrt(loaded.model.latent_dim / 2 / len(train))
    assert values[-1] - 0.3 < loaded.metrics["train/bound"] < values[-1] + error, "linear q(z|x) is as good as exact"
