import math

import pytest
import torch

from vae_lab.distributions import DiagonalGaussian
from vae_lab.estimators.quadrature import Quadrature, posterior_moments


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.parametrize("noise_std", [0.05, 0.5, 3.0])
def test_estimate_equals_the_exact_marginal(make_linear_gaussian, latent_dim, noise_std):
    """From posteriors 1/40 as wide as the prior to almost the prior itself."""
    oracle = make_linear_gaussian(latent_dim=latent_dim, noise_std=noise_std)
    x = oracle.sample(10)
    estimate = Quadrature(num_nodes=20).estimate(oracle.model, x, seed=0)
    torch.testing.assert_close(estimate.log_likelihood, oracle.log_marginal(x), rtol=0, atol=1e-6)
    assert estimate.variance.sqrt().max() < 1e-3


def test_moments_are_those_of_the_posterior_with_a_wider_covariance(linear_gaussian):
    x = linear_gaussian.sample(10)
    center, factor = posterior_moments(linear_gaussian.model, x)
    torch.testing.assert_close(center, linear_gaussian.posterior_mean(x), rtol=0, atol=1e-3)
    variance = (factor @ factor.mT).diagonal(dim1=-2, dim2=-1)
    ratio = variance / linear_gaussian.posterior_variance
    assert ratio.min() > 1.2
    assert ratio.max() < 1.5


def test_posterior_of_two_peaks_is_covered_and_the_error_told(linear_gaussian, monkeypatch):
    """p(x|z) that depends on |z_1 - 0.2| only: p(z|x) has peaks at -0.8 and 1.2 that are 0.25 wide."""

    def likelihood(z):
        first = (z[..., :1] - 0.2).abs()[..., None, None].expand(*z.shape[:-1], 1, 1, 1)
        return DiagonalGaussian(first, torch.full_like(first, 2 * math.log(0.25)), event_dims=3)

    monkeypatch.setattr(linear_gaussian.model, "likelihood", likelihood)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    width = math.sqrt(1 + 0.25**2)
    exact = math.log(sum(math.exp(-0.5 * (peak / width) ** 2) for peak in (1.2, -0.8)) / width)
    exact -= 0.5 * math.log(2 * math.pi)
    estimate = Quadrature(num_nodes=40).estimate(linear_gaussian.model, x, seed=0)
    error = abs(float(estimate.log_likelihood) - exact)
    assert error < 0.02
    assert error < 3 * float(estimate.variance.sqrt()) + 1e-3


def test_error_of_the_mean_does_not_shrink_with_the_number_of_datapoints(make_linear_gaussian):
    """The same image many times has the same error each time, and so has the mean."""
    oracle, quadrature = make_linear_gaussian(noise_std=0.05), Quadrature(num_nodes=4)
    one = oracle.sample(1)
    first, many = (
        quadrature.summary(quadrature.estimate(oracle.model, x, seed=0)) for x in (one, one.expand(100, 1, 3, 4))
    )
    assert many["_se"] == pytest.approx(first["_se"]) and first["_se"] > 0


def test_more_than_three_dimensions_are_refused_before_any_work(make_linear_gaussian):
    oracle = make_linear_gaussian(latent_dim=4)
    with pytest.raises(ValueError, match=r"model\.latent_dim must be <= 3 for estimator=quadrature, got 4"):
        Quadrature(num_nodes=8).estimate(oracle.model, oracle.sample(1), seed=0)


@pytest.mark.parametrize("num_nodes", [2, 7, 102])
def test_impossible_settings_are_refused_by_key(num_nodes):
    with pytest.raises(ValueError, match=rf"estimator\.num_nodes must be .*, got {num_nodes}"):
        Quadrature(num_nodes=num_nodes)


def test_label_names_the_nodes_per_dimension():
    assert Quadrature(num_nodes=20).label == "quadrature_20"
