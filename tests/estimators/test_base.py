import math

import pytest
import torch

from vae_lab.estimators.base import Estimator, LogMean


class MeanOfNoise(Estimator):
    """Its 'estimate' is the noise itself, to see which noise each datapoint got."""

    needs_encoder = False

    @property
    def label(self):
        return "mean_of_noise"

    def estimate_batch(self, model, x, noise):
        return noise.stream("z").normal(2, 1).squeeze(-1)[1], noise.stream("u", 3).uniform(3)[2]


def estimate(oracle, x, **where):
    return MeanOfNoise().estimate(oracle.model, x, **where)


def test_noise_depends_on_seed_and_datapoint_only(linear_gaussian):
    x = linear_gaussian.sample(600)
    whole = estimate(linear_gaussian, x, seed=0)
    part = estimate(linear_gaussian, x[240:263], seed=0, first_index=240)
    assert torch.equal(part.log_likelihood, whole.log_likelihood[240:263])
    assert torch.equal(part.variance, whole.variance[240:263])
    assert len(whole.log_likelihood.unique()) == 600
    assert not torch.equal(estimate(linear_gaussian, x, seed=1).log_likelihood, whole.log_likelihood)


def test_noise_does_not_depend_on_the_pieces_that_memory_asks_for(linear_gaussian, monkeypatch):
    x = linear_gaussian.sample(300)
    whole = estimate(linear_gaussian, x, seed=0)
    monkeypatch.setattr("vae_lab.estimators.base.rows_at_once", lambda model, device: 7)
    assert torch.equal(estimate(linear_gaussian, x, seed=0).log_likelihood, whole.log_likelihood)


def test_no_datapoints_give_an_empty_estimate(linear_gaussian):
    assert len(estimate(linear_gaussian, linear_gaussian.sample(0), seed=0).log_likelihood) == 0


def test_results_are_float64_and_the_callers_random_stream_is_untouched(make_linear_gaussian):
    oracle = make_linear_gaussian(dtype=torch.float32)
    before = torch.get_rng_state()
    assert estimate(oracle, oracle.sample(3), seed=0).log_likelihood.dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("offset", [0.0, -1e5, 1e4])
def test_log_mean_equals_the_two_pass_formula_at_any_scale(offset):
    log_weights = torch.randn(1001, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    log_mean = LogMean()
    for chunk in (log_weights + offset).split(97):
        log_mean.add(chunk)
    weights = log_weights.exp()
    torch.testing.assert_close(log_mean.value, weights.mean(0).log() + offset, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_mean.variance, weights.var(0) / 1001 / weights.mean(0) ** 2, rtol=1e-6, atol=0)


def test_log_mean_counts_weights_of_zero_wherever_they_come():
    log_weights = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_weights[:10] = log_weights[20:30, 0] = -math.inf
    log_mean = LogMean()
    for chunk in log_weights.split(10):
        log_mean.add(chunk)
    weights = log_weights.exp()
    torch.testing.assert_close(log_mean.value, weights.mean(0).log())
    torch.testing.assert_close(log_mean.variance, weights.var(0) / 40 / weights.mean(0) ** 2)


def test_log_mean_keeps_the_variance_of_nearly_equal_weights():
    small = torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-10
    log_mean = LogMean()
    for chunk in small.split(10):
        log_mean.add(chunk)
    torch.testing.assert_close(log_mean.variance, small.var(0) / 1000, rtol=1e-4, atol=0)
