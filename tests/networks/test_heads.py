import math

import pytest
import torch

from vae_lab.distributions import Bernoulli, DiagonalGaussian
from vae_lab.networks.heads import BernoulliLikelihood, FixedNoiseLikelihood, GaussianLikelihood, GaussianPosterior
from vae_lab.networks.mlp import MLPDecoder

SHAPE = (2, 3, 4)


@pytest.fixture
def trunk() -> MLPDecoder:
    return MLPDecoder(3, SHAPE, hidden=[7], activation="tanh")


def test_gaussian_posterior_is_linear_in_the_features():
    head = GaussianPosterior(5, 3)
    features = torch.randn(4, 5)
    q = head(features)
    assert isinstance(q, DiagonalGaussian) and q.event_dims == 1
    torch.testing.assert_close(q.mean, features @ head.mean.weight.T + head.mean.bias)
    torch.testing.assert_close(q.log_variance, features @ head.log_variance.weight.T + head.log_variance.bias)


def test_factor_of_the_log_variance_scales_its_weights_alone():
    head, features = GaussianPosterior(5, 3, 0.1), torch.randn(4, 5)
    expected = 0.1 * (features @ head.log_variance.weight.T) + head.log_variance.bias
    torch.testing.assert_close(head(features).log_variance, expected)
    torch.testing.assert_close(head(features).mean, head.mean(features))


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_factor_of_the_log_variance_that_is_no_positive_number_is_refused(factor):
    with pytest.raises(ValueError, match=r"model\.log_variance_factor must be a number > 0"):
        GaussianPosterior(5, 3, factor)


def test_bernoulli_likelihood_takes_its_logits_from_the_readout(trunk):
    head = BernoulliLikelihood(trunk)
    features = torch.randn(4, 7)
    p = head(features)
    assert isinstance(p, Bernoulli) and p.mean.shape == (4, *SHAPE)
    assert torch.equal(p.logits, head.logits(features))
    assert p.log_prob(torch.rand(4, *SHAPE)).shape == (4,)


def test_gaussian_likelihood_has_a_sigmoid_mean_and_a_log_variance_that_depends_on_z(trunk):
    head = GaussianLikelihood(trunk, min_log_variance=None)
    features = 100 * torch.randn(4, 7)
    p = head(features)
    assert torch.equal(p.mean, torch.sigmoid(head.mean(features)))
    assert torch.equal(p.log_variance, head.log_variance(features))
    assert (p.log_variance[0] != p.log_variance[1]).all()
    assert p.log_prob(torch.rand(4, *SHAPE)).shape == (4,)


def test_min_log_variance_is_a_lower_limit(trunk):
    head = GaussianLikelihood(trunk, min_log_variance=-1.5)
    log_variance = head(100 * torch.randn(4, 7)).log_variance
    assert log_variance.min() == -1.5 and log_variance.max() > 0


def test_min_log_variance_of_zero_is_honoured(trunk):
    assert GaussianLikelihood(trunk, min_log_variance=0.0)(100 * torch.randn(4, 7)).log_variance.min() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_min_log_variance_that_is_not_finite_is_refused(trunk, value):
    with pytest.raises(ValueError, match=r"likelihood\.min_log_variance must be a finite number or null"):
        GaussianLikelihood(trunk, min_log_variance=value)


def test_fixed_noise_likelihood_has_a_linear_mean_and_one_standard_deviation_and_no_more_weights(trunk):
    head = FixedNoiseLikelihood(trunk, std=0.3)
    features = 100 * torch.randn(4, 7)
    p = head(features)
    assert torch.equal(p.mean, head.mean(features)) and p.mean.abs().max() > 1, "no sigmoid"
    torch.testing.assert_close(p.std, torch.full_like(p.mean, 0.3))
    assert {name.split(".")[0] for name in head.state_dict()} == {"mean"}


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_fixed_noise_that_is_no_standard_deviation_is_refused(trunk, value):
    with pytest.raises(ValueError, match=r"likelihood\.std must be a number > 0"):
        FixedNoiseLikelihood(trunk, std=value)
