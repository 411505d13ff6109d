import math
from typing import Any

import pytest
import torch
from linear_gaussian import six_standard_errors

from vae_lab.errors import ConfigError
from vae_lab.estimators.base import Noise
from vae_lab.estimators.posterior_density import (
    PosteriorDensity,
    kernel_log_density,
    variance_by_batch_means,
)


def estimator(**settings):
    defaults: dict[str, Any] = {"num_samples": 50, "num_starts": 20, "burn_in": 10, "num_leapfrog": 4}
    tuning: dict[str, Any] = {"initial_step_size": 0.1, "target_acceptance": 0.9}
    return PosteriorDensity(**(defaults | tuning | settings))


@pytest.mark.slow
def test_reciprocal_is_unbiased_and_the_log_biased_upwards_by_half_the_variance(linear_gaussian):
    x = linear_gaussian.sample(2000)
    estimate = estimator(num_samples=50, burn_in=30).estimate(linear_gaussian.model, x, seed=0)
    error = estimate.log_likelihood - linear_gaussian.log_marginal(x)
    reciprocal = (-error).exp()
    assert (reciprocal.mean() - 1).abs() < six_standard_errors(reciprocal)
    assert error.mean() > six_standard_errors(error)
    assert float(error.mean()) == pytest.approx(float(error.var() / 2), rel=0.5)


@pytest.mark.slow
def test_bias_of_the_log_falls_with_more_samples(linear_gaussian):
    x = linear_gaussian.sample(250)
    exact = linear_gaussian.log_marginal(x)
    bias = [
        (estimator(num_samples=n).estimate(linear_gaussian.model, x, seed=0).log_likelihood - exact).mean()
        for n in (50, 300)
    ]
    assert bias[0] > 2 * bias[1] > 0


@pytest.mark.parametrize(
    ("latent_dim", "num_samples", "refused"),
    [
        (5, 500, "latent_dim must be <= 4"),
        (4, 49, "num_samples must be .*>= 50"),
        (3, 49, "num_samples must be .*>= 50"),
        (2, 15, "num_samples must be .*>= 16"),
    ],
)
def test_fits_that_are_nats_away_are_refused(make_linear_gaussian, latent_dim, num_samples, refused):
    linear_gaussian = make_linear_gaussian(latent_dim=latent_dim, image_shape=(1, 4, 4))
    with pytest.raises(ConfigError, match=refused):
        estimator(num_samples=num_samples).estimate(linear_gaussian.model, linear_gaussian.sample(1), seed=0)


def test_chain_held_by_one_of_two_peaks_misses_the_other_and_no_error_tells(make_linear_gaussian):
    one_peak = make_linear_gaussian(latent_dim=1)
    x = one_peak.sample(1000)
    x = x[one_peak.posterior_mean(x)[:, 0] > 6 * one_peak.posterior_variance[0].sqrt()]
    decoder = one_peak.model.decoder
    decoder.register_forward_pre_hook(lambda _, z: z[0].abs())  # -z makes the same image: as much again in p(x)
    estimate = estimator(burn_in=30).estimate(one_peak.model, x, seed=0)
    missed = one_peak.log_marginal(x) + math.log(2) - estimate.log_likelihood
    assert (missed.mean() - math.log(2)).abs() < six_standard_errors(missed) < 0.5
    assert missed.mean() > 6 * estimator().summary(estimate)["_se"] and estimator().bias == "either way"


@pytest.mark.slow
def test_stated_variance_is_that_of_the_error(linear_gaussian):
    """Somewhat below it: the few stretches of a short chain are themselves not independent."""
    x = linear_gaussian.sample(500)
    estimate = estimator(num_samples=200, burn_in=30).estimate(linear_gaussian.model, x, seed=0)
    error = estimate.log_likelihood - linear_gaussian.log_marginal(x)
    assert 0.4 < estimate.variance.mean() / error.var() < 1.2


def test_same_seed_gives_the_same_numbers_and_another_seed_others(linear_gaussian):
    x = linear_gaussian.sample(5)
    first, again, other = (
        estimator().estimate(linear_gaussian.model, x, seed=seed).log_likelihood for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_chains_start_near_the_posterior_from_the_best_of_many_prior_draws(linear_gaussian):
    x = linear_gaussian.sample(1).expand(250, 1, 3, 4)
    start = estimator(num_starts=300)._start(linear_gaussian.model, x, Noise(x, ("start",), 0, 250))
    away = (start - linear_gaussian.posterior_mean(x)) / linear_gaussian.posterior_variance.sqrt()
    assert ((away.square().mean(0) - 1).abs() <= 6 * math.sqrt(2 / 250)).all()
    assert 1 / linear_gaussian.posterior_variance[0] > 1 + 6 * math.sqrt(2 / 250), "draws of the prior would pass"


def test_kernel_density_is_normalised():
    points = torch.randn(20, 3, 2, dtype=torch.float64) * torch.tensor([0.1, 2.0]) + 3
    side = torch.linspace(-1, 1, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(side * 1.5, side * 15) + 3
    density = kernel_log_density(points, grid[:, None].expand(-1, 3, -1)).exp()
    integral = density.sum(0) * (0.01 * 1.5) * (0.01 * 15)
    torch.testing.assert_close(integral, torch.ones(3, dtype=torch.float64), rtol=1e-3, atol=0)


def test_kernel_density_approaches_the_density_of_its_points():
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    truth = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    points, new = truth.sample((500, 10)), truth.sample((500, 10))
    divergence = (truth.log_prob(new) - kernel_log_density(points, new)).mean()
    assert 0 < divergence < 0.05


def test_kernel_density_is_not_misled_by_repeated_points():
    points = torch.randn(12, 5, 2, dtype=torch.float64)
    new = torch.randn(50, 5, 2, dtype=torch.float64)
    single = kernel_log_density(points, new)
    repeated = kernel_log_density(points.repeat(2, 1, 1), new)
    torch.testing.assert_close(repeated, single, rtol=0.2, atol=0.3)


def test_chain_that_never_moved_has_a_finite_density():
    points = torch.zeros(10, 2, 3, dtype=torch.float64)
    assert kernel_log_density(points, points).isfinite().all()


def test_batch_means_see_that_successive_ratios_depend():
    """An autoregression with correlation 0.8: its mean has 9 times the variance of independent draws."""
    noise = torch.randn(900, 4000, dtype=torch.float64)
    values = [noise[0]]
    for row in noise[1:]:
        values.append(0.8 * values[-1] + math.sqrt(1 - 0.8**2) * row)
    log_ratio = (1 + 0.01 * torch.stack(values)).log()
    assert variance_by_batch_means(log_ratio).mean() == pytest.approx(9 * 0.01**2 / 900, rel=0.2)


def test_label_names_the_number_of_samples():
    assert estimator().label == "posterior_density_50"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_samples", 7),
        ("num_starts", 0),
        ("burn_in", -1),
        ("num_leapfrog", 0),
        ("initial_step_size", 0.0),
        ("target_acceptance", 1.0),
    ],
)
def test_impossible_settings_are_refused_by_key(key, value):
    with pytest.raises(ValueError, match=rf"estimator\.{key} must be .*>.*, got"):
        estimator(**{key: value})
