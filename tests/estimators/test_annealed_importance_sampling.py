from typing import Any

import pytest
import torch
from linear_gaussian import six_standard_errors

from vae_lab.estimators.annealed_importance_sampling import AnnealedImportanceSampling
from vae_lab.estimators.base import Noise


def estimator(**settings):
    defaults: dict[str, Any] = {"num_chains": 2, "num_temperatures": 10, "num_tuning_chains": 2, "num_leapfrog": 3}
    tuning: dict[str, Any] = {"initial_step_size": 0.5, "target_acceptance": 0.8}
    return AnnealedImportanceSampling(**(defaults | tuning | settings))


@pytest.mark.slow
def test_estimate_is_unbiased_for_the_marginal_and_its_log_biased_downwards(linear_gaussian):
    x = linear_gaussian.sample(1000)
    estimate = estimator(num_chains=4, num_temperatures=20).estimate(linear_gaussian.model, x, seed=0)
    error = estimate.log_likelihood - linear_gaussian.log_marginal(x)
    ratio = error.exp()
    assert (ratio.mean() - 1).abs() < six_standard_errors(ratio)
    assert error.mean() < -six_standard_errors(error)


@pytest.mark.slow
def test_more_temperatures_bring_the_log_closer(linear_gaussian):
    x = linear_gaussian.sample(250)
    exact = linear_gaussian.log_marginal(x)
    errors = [
        (estimator(num_temperatures=n).estimate(linear_gaussian.model, x, seed=0).log_likelihood - exact).std()
        for n in (5, 20, 80)
    ]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


@pytest.mark.slow
def test_stated_variance_is_that_of_the_error(linear_gaussian):
    x = linear_gaussian.sample(250)
    estimate = estimator(num_chains=16, num_temperatures=60).estimate(linear_gaussian.model, x, seed=0)
    error = estimate.log_likelihood - linear_gaussian.log_marginal(x)
    # 250 squared errors: a relative sd of sqrt(2 / 250), more where their tails are heavier than a normal's.
    assert float(estimate.variance.mean()) == pytest.approx(float(error.square().mean()), rel=0.6)


def test_no_two_chains_share_their_noise_those_that_tune_among_them(linear_gaussian, monkeypatch):
    first, stream = [], Noise.stream

    def recorded(self, *purpose):
        first.append(stream(self, *purpose).normal(1, 3))
        return stream(self, *purpose)

    monkeypatch.setattr(Noise, "stream", recorded)
    estimator(num_chains=5, num_tuning_chains=3).estimate(linear_gaussian.model, linear_gaussian.sample(4), seed=0)
    assert len(first) == 8 and len(torch.cat(first).unique()) == 8 * 4 * 3


def test_numbers_do_not_depend_on_memory(linear_gaussian, monkeypatch):
    x = linear_gaussian.sample(20)
    whole = estimator(num_chains=5).estimate(linear_gaussian.model, x, seed=0)
    name = "vae_lab.estimators.annealed_importance_sampling.rows_at_once"
    monkeypatch.setattr(name, lambda model, device: 40)
    chunked = estimator(num_chains=5).estimate(linear_gaussian.model, x, seed=0)
    torch.testing.assert_close(chunked.log_likelihood, whole.log_likelihood, rtol=0, atol=1e-9)
    torch.testing.assert_close(chunked.variance, whole.variance)


def test_label_names_chains_and_temperatures():
    assert estimator().label == "annealed_importance_sampling_2x10"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_chains", 1),
        ("num_temperatures", 0),
        ("num_tuning_chains", 0),
        ("num_leapfrog", 0),
        ("initial_step_size", -1.0),
        ("target_acceptance", 0.0),
    ],
)
def test_impossible_settings_are_refused_by_key(key, value):
    with pytest.raises(ValueError, match=rf"estimator\.{key} must be .*>.*, got"):
        estimator(**{key: value})
