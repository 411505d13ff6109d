from typing import Any

import pytest
import torch
from linear_gaussian import LinearGaussian, six_standard_errors

from vae_lab.estimators.base import Estimate, LogMean
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.estimators.pareto import WeightTail


@pytest.fixture(scope="module")
def inexact():
    """The oracle with a posterior that is wider than the truth and off its centre."""
    oracle = LinearGaussian()
    with torch.no_grad():
        head: Any = oracle.model.encoder.head
        head.mean.bias += 0.1
        head.log_variance.bias += 0.5
    return oracle


def test_estimate_is_unbiased_for_the_marginal(inexact):
    x = inexact.sample(4000)
    estimate = ImportanceSampling(num_samples=7, samples_per_chunk=None).estimate(inexact.model, x, seed=0)
    ratio = (estimate.log_likelihood - inexact.log_marginal(x)).exp()
    assert (ratio.mean() - 1).abs() < six_standard_errors(ratio)


def test_bias_of_the_log_is_negative_and_falls_as_one_over_num_samples(inexact):
    x = inexact.sample(10_000)
    exact = inexact.log_marginal(x)
    bias, tolerance = [], []
    for num_samples in (10, 40):
        estimator = ImportanceSampling(num_samples=num_samples, samples_per_chunk=None)
        error = estimator.estimate(inexact.model, x, seed=3).log_likelihood - exact
        bias.append(error.mean())
        tolerance.append(six_standard_errors(error))
    assert bias[0] < -tolerance[0]
    assert (bias[0] - 4 * bias[1]).abs() < (tolerance[0] ** 2 + 16 * tolerance[1] ** 2).sqrt() + 0.1 * bias[0].abs()


@pytest.mark.slow
def test_stated_variance_is_that_of_the_log_over_seeds(inexact):
    x = inexact.sample(20)
    estimator = ImportanceSampling(num_samples=500, samples_per_chunk=None)
    estimates = [estimator.estimate(inexact.model, x, seed=seed) for seed in range(40)]
    seen = torch.stack([estimate.log_likelihood for estimate in estimates]).var(0).mean()
    stated = torch.stack([estimate.variance for estimate in estimates]).mean()
    # The variance of 40 draws, averaged over 20 datapoints: a relative sd of sqrt(2 / 800).
    assert (seen / stated - 1).abs() < 6 * (2 / 800) ** 0.5


def test_exact_posterior_gives_exact_answer_without_variance(linear_gaussian):
    x = linear_gaussian.sample(30)
    estimate = ImportanceSampling(num_samples=2, samples_per_chunk=None).estimate(linear_gaussian.model, x, seed=0)
    torch.testing.assert_close(estimate.log_likelihood, linear_gaussian.log_marginal(x))
    assert estimate.variance.max() < 1e-20


@pytest.mark.parametrize("samples_per_chunk", [1, 7, 50, 1000])
def test_numbers_do_not_depend_on_chunk_size(inexact, samples_per_chunk):
    x = inexact.sample(30)
    whole = ImportanceSampling(num_samples=123, samples_per_chunk=None).estimate(inexact.model, x, seed=0)
    chunked = ImportanceSampling(num_samples=123, samples_per_chunk=samples_per_chunk)
    estimate = chunked.estimate(inexact.model, x, seed=0)
    torch.testing.assert_close(estimate.log_likelihood, whole.log_likelihood, rtol=0, atol=1e-12)
    torch.testing.assert_close(estimate.variance, whole.variance)


@pytest.mark.parametrize("num_samples", [49, 50, 51, 101])
def test_no_remainder_is_dropped(inexact, num_samples, monkeypatch):
    decoded = []
    likelihood = inexact.model.likelihood
    monkeypatch.setattr(inexact.model, "likelihood", lambda z: decoded.append(len(z)) or likelihood(z))
    ImportanceSampling(num_samples=num_samples, samples_per_chunk=8).estimate(inexact.model, inexact.sample(20), seed=0)
    assert sum(decoded) == num_samples


def test_effective_sample_size_and_k_hat_are_those_of_the_weights_in_any_chunks(inexact, monkeypatch):
    x = inexact.sample(30)
    sampling, seen, add = ImportanceSampling(num_samples=500, samples_per_chunk=7), [], LogMean.add
    monkeypatch.setattr(LogMean, "add", lambda self, log_weights: seen.append(log_weights) or add(self, log_weights))
    estimate, log_weights = sampling.estimate(inexact.model, x, seed=0), torch.cat(seen)
    weights = log_weights.exp()
    assert weights.shape == (500, 30)
    torch.testing.assert_close(estimate.beside["ess_share"], weights.sum(0) ** 2 / weights.square().sum(0) / 500)
    tail = WeightTail(500)
    tail.add(log_weights)
    torch.testing.assert_close(estimate.beside["k_hat"], tail.k_hat)
    summary = sampling.summary(estimate)
    assert summary["_ess_share"] == pytest.approx(float(estimate.beside["ess_share"].mean()))
    assert summary["_high_k_hat"] == float((tail.k_hat > 0.7).double().mean())


def test_narrow_posterior_is_told_by_k_hat_where_the_error_does_not_tell():
    oracle = LinearGaussian()
    with torch.no_grad():
        head: Any = oracle.model.encoder.head
        head.log_variance.bias -= 3.0
    x = oracle.sample(500)
    sampling = ImportanceSampling(num_samples=500, samples_per_chunk=None)
    estimate = sampling.estimate(oracle.model, x, seed=0)
    error = float((estimate.log_likelihood - oracle.log_marginal(x)).mean())
    summary = sampling.summary(estimate)
    assert error < -6 * summary["_se"], "the stated error is too small"
    assert summary["_high_k_hat"] > 0.5 and summary["_ess_share"] < 0.1


def test_good_posterior_is_trusted_and_few_samples_say_nothing_of_their_tail(linear_gaussian, inexact):
    exact = ImportanceSampling(num_samples=100, samples_per_chunk=None)
    summary = exact.summary(exact.estimate(linear_gaussian.model, linear_gaussian.sample(50), seed=0))
    assert summary["_high_k_hat"] == 0 and summary["_ess_share"] == pytest.approx(1)
    few = ImportanceSampling(num_samples=20, samples_per_chunk=None)
    summary = few.summary(few.estimate(inexact.model, inexact.sample(50), seed=0))
    assert "_high_k_hat" not in summary and 1 / 20 <= summary["_ess_share"] < 1


def test_datapoint_without_a_k_hat_is_not_trusted_and_hides_no_other():
    beside = {"k_hat": torch.tensor([0.9, float("nan"), 0.1, 0.2]), "ess_share": torch.ones(4)}
    estimate = Estimate(torch.zeros(4), torch.ones(4), beside)
    assert ImportanceSampling(num_samples=50, samples_per_chunk=None).summary(estimate)["_high_k_hat"] == 0.5


def test_label_names_the_number_of_samples():
    assert ImportanceSampling(num_samples=500, samples_per_chunk=None).label == "importance_sampling_500"


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("num_samples", {"num_samples": 1, "samples_per_chunk": None}),
        ("samples_per_chunk", {"num_samples": 5, "samples_per_chunk": 0}),
    ],
)
def test_impossible_settings_are_refused_by_key(key, settings):
    with pytest.raises(ValueError, match=rf"estimator\.{key} must be an integer (>=|in) .*, got"):
        ImportanceSampling(**settings)
