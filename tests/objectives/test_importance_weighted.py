import math
from typing import Any

import pytest
import torch
from gradients import gradient_draws, minibatch, update_gradients
from linear_gaussian import LinearGaussian, six_standard_errors

from vae_lab.elbo import sgvb_a
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import TrainingState
from vae_lab.objectives.importance_weighted import ImportanceWeighted

STATE = TrainingState(0, 1000)


@pytest.fixture
def wide() -> LinearGaussian:
    """An oracle whose q(z|x) is shifted and wider than p(z|x), so that importance weights are bounded."""
    oracle = LinearGaussian()
    head: Any = oracle.model.encoder.head
    with torch.no_grad():
        head.mean.bias += 0.1
        head.log_variance.bias += math.log(2.0)
    return oracle


def iwae(num_samples: int, gradient: str = "reparameterised") -> ImportanceWeighted:
    return ImportanceWeighted(num_samples=num_samples, gradient=gradient)


def parts(objective, oracle, x):
    (terms,) = objective.updates(oracle.model, minibatch(x), STATE)
    return {name: value.detach() for name, value in terms.logged.items()}


def test_one_sample_gives_the_sampled_elbo_and_its_gradient(wide):
    x = wide.sample(20)
    torch.manual_seed(1)
    (gradient,) = update_gradients(iwae(1), wide.model, x)
    torch.manual_seed(1)
    wide.model.zero_grad()
    bound = sgvb_a(wide.model, x).total
    (-bound.mean()).backward()
    for name, parameter in wide.model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad)
    torch.manual_seed(1)
    for value in parts(iwae(1), wide, x).values():
        torch.testing.assert_close(value, bound.detach())


def test_one_sample_has_the_expected_gradient_of_the_closed_form_elbo(wide):
    x = wide.sample(20)
    closed_form = AEVB(kl="closed_form", num_samples=100, kl_warmup_samples=0)
    ours = gradient_draws(iwae(1), wide.model, x, 300)
    elbo = gradient_draws(closed_form, wide.model, x, 100)
    for name in ours:
        tolerance = (six_standard_errors(ours[name]).square() + six_standard_errors(elbo[name]).square()).sqrt()
        assert ((ours[name].mean(0) - elbo[name].mean(0)).abs() <= tolerance).all(), name


def test_mean_weight_is_unbiased_for_the_marginal(wide):
    x = wide.sample(1).expand(20000, -1, -1, -1)
    ratio = (parts(iwae(5), wide, x)["importance_weighted_bound"] - wide.log_marginal(x)).exp()
    assert (ratio.mean() - 1).abs() <= six_standard_errors(ratio)


def test_bound_rises_with_k_to_the_log_marginal_as_one_over_k(wide):
    x = wide.sample(1).expand(30000, -1, -1, -1)
    exact = wide.log_marginal(x[:1])
    gaps, errors = [], []
    for num_samples in (1, 4, 16):
        gap = exact - parts(iwae(num_samples), wide, x)["importance_weighted_bound"]
        gaps.append(float(gap.mean()))
        errors.append(float(six_standard_errors(gap)))
    for i in range(2):
        assert gaps[i] - errors[i] > gaps[i + 1] + errors[i + 1]
    assert gaps[2] > errors[2]
    # the next order of the bias is 1 / k^2
    assert abs(4 * gaps[2] - gaps[1]) <= 4 * errors[2] + errors[1] + gaps[1] / 4


def test_elbo_beside_the_bound_does_not_depend_on_k(wide):
    x = wide.sample(1).expand(4000, -1, -1, -1)
    one, many = (parts(iwae(k), wide, x)["bound"] for k in (1, 20))
    tolerance = six_standard_errors(one) + six_standard_errors(many)
    assert (one.mean() - many.mean()).abs() <= tolerance


@pytest.mark.slow
def test_doubly_reparameterised_gradient_is_unbiased_with_less_variance(wide):
    x = wide.sample(5)
    plain = gradient_draws(iwae(8), wide.model, x, 1000)
    doubly = gradient_draws(iwae(8, "doubly_reparameterised"), wide.model, x, 1000)
    for name in plain:
        tolerance = (six_standard_errors(plain[name]).square() + six_standard_errors(doubly[name]).square()).sqrt()
        assert ((plain[name].mean(0) - doubly[name].mean(0)).abs() <= tolerance).all(), name
    for name in (name for name in plain if name.startswith("encoder")):
        assert doubly[name].var(0).sum() < 0.5 * plain[name].var(0).sum(), name


def test_doubly_reparameterised_gradient_of_the_decoder_is_the_plain_one(wide):
    x, gradients = wide.sample(5), []
    for gradient in ("reparameterised", "doubly_reparameterised"):
        torch.manual_seed(1)
        gradients += update_gradients(iwae(8, gradient), wide.model, x)
    for name in (name for name in gradients[0] if name.startswith("decoder")):
        torch.testing.assert_close(gradients[0][name], gradients[1][name])


def test_doubly_reparameterised_gradient_of_the_encoder_is_zero_where_posterior_is_exact(linear_gaussian):
    (gradients,) = update_gradients(iwae(8, "doubly_reparameterised"), linear_gaussian.model, linear_gaussian.sample(5))
    for name in (name for name in gradients if name.startswith("encoder")):
        torch.testing.assert_close(gradients[name], torch.zeros_like(gradients[name]))


@pytest.mark.parametrize(("settings", "key"), [((0, "reparameterised"), "num_samples"), ((5, "dreg"), "gradient")])
def test_importance_weighted_refuses_by_key(settings, key):
    with pytest.raises(ValueError, match=rf"objective\.{key} must be"):
        iwae(*settings)
