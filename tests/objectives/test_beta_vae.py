"""Other weights of the KL: beta-VAE and free bits."""

from typing import Any

import pytest
import torch
from gradients import gradient_draws, minibatch, update_gradients
from linear_gaussian import six_standard_errors

from vae_lab.elbo import sgvb_b
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Objective, Terms, TrainingState
from vae_lab.objectives.beta_vae import BetaVAE
from vae_lab.objectives.free_bits import FreeBits

PLAIN = AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=0)


def beta_vae(beta: float, **settings) -> BetaVAE:
    return BetaVAE(**{"beta": beta, "kl": "closed_form", "num_samples": 1, "kl_warmup_samples": 0} | settings)


def free_bits(threshold: float) -> FreeBits:
    return FreeBits(free_bits=threshold, num_samples=1)


def only_update(objective: Objective, oracle, x: torch.Tensor, samples: int = 0) -> Terms:
    """Its update, by the same noise as every other."""
    torch.manual_seed(7)
    (terms,) = objective.updates(oracle.model, minibatch(x), TrainingState(samples, 1000))
    return terms


@pytest.fixture
def wrong(make_linear_gaussian):
    """An oracle whose posterior is wrong, so that every KL and every gradient is at work."""
    return make_linear_gaussian(exact_posterior=False, exact_decoder=False)


def test_beta_of_one_gives_the_same_bits_as_the_plain_bound(wrong):
    x = wrong.sample(20)
    for kl, warmup in (("closed_form", 0), ("sampled", 0), ("closed_form", 100)):
        settings: dict[str, Any] = {"kl": kl, "kl_warmup_samples": warmup, "num_samples": 1}
        plain = AEVB(**settings)
        for samples in (0, 30, 1000):
            ours = only_update(beta_vae(1, **settings), wrong, x, samples)
            assert torch.equal(ours.loss, only_update(plain, wrong, x, samples).loss)
    torch.manual_seed(7)
    (ours,) = update_gradients(beta_vae(1), wrong.model, x)
    torch.manual_seed(7)
    (theirs,) = update_gradients(PLAIN, wrong.model, x)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("samples", "weight"), [(0, 0.0), (250, 1.0), (1000, 4.0), (5000, 4.0)])
def test_beta_weighs_the_kl_of_the_loss_and_of_no_bound(linear_gaussian, samples, weight):
    x = linear_gaussian.sample(5)
    terms = only_update(beta_vae(4, kl_warmup_samples=1000), linear_gaussian, x, samples)
    torch.testing.assert_close(terms.loss, weight * terms.logged["kl"] - terms.logged["reconstruction"])
    assert torch.equal(terms.logged["bound"], only_update(PLAIN, linear_gaussian, x).logged["bound"])


def test_beta_gives_the_optimal_posterior_in_closed_form(make_linear_gaussian):
    # of beta KL - E[log p(x|z)]: the precision of p(z|x) with the noise's variance times beta
    oracle, beta = make_linear_gaussian(), 4.0
    head = oracle.model.encoder.head
    precision = 1 + oracle.weight.square().sum(0) / (beta * oracle.noise_std**2)
    gain = oracle.weight.T / (beta * oracle.noise_std**2) / precision[:, None]
    with torch.no_grad():
        head.mean.weight.copy_(gain)
        head.mean.bias.copy_(-gain @ oracle.bias)
        head.log_variance.bias.copy_(-precision.log())
    x = oracle.sample(100)
    ours, plain = (gradient_draws(each, oracle.model, x, 100) for each in (beta_vae(beta), PLAIN))
    for name in ("encoder.head.mean.weight", "encoder.head.mean.bias", "encoder.head.log_variance.bias"):
        assert (ours[name].mean(0).abs() <= six_standard_errors(ours[name])).all(), name
        assert (plain[name].mean(0).abs() > six_standard_errors(plain[name])).any(), name


def test_free_bits_are_the_plain_bound_where_every_kl_exceeds_the_threshold(wrong):
    x = wrong.sample(20)
    kl = sgvb_b(wrong.model, x).kl_terms.mean(0).detach()
    below = 0.9 * kl.min().item()
    torch.manual_seed(7)
    (ours,) = update_gradients(free_bits(below), wrong.model, x)
    torch.manual_seed(7)
    (theirs,) = update_gradients(PLAIN, wrong.model, x)
    torch.testing.assert_close(ours, theirs)
    terms, plain = (only_update(objective, wrong, x) for objective in (free_bits(below), PLAIN))
    torch.testing.assert_close(terms.loss.mean(), plain.loss.mean())
    assert torch.equal(terms.logged["bound"], plain.logged["bound"])


def test_free_bits_compare_the_mean_over_the_minibatch_of_each_dimension_with_the_threshold(wrong):
    x = wrong.sample(20)
    terms = only_update(free_bits(threshold := 0.5), wrong, x)
    kl = sgvb_b(wrong.model, x).kl_terms.detach()
    per_dimension = kl.mean(0)
    assert per_dimension.min() < threshold < per_dimension.max() and (kl[:, per_dimension.argmax()] < threshold).any()
    expected = sum(max(threshold, value) for value in per_dimension.tolist()) - terms.logged["reconstruction"].mean()
    torch.testing.assert_close(terms.loss.mean(), expected)


def test_dimension_below_the_threshold_is_not_drawn_to_the_prior(wrong):
    x = wrong.sample(20)
    terms = only_update(free_bits(100.0), wrong, x)
    kl_loss = terms.loss + terms.logged["reconstruction"]
    parameters = list(wrong.model.encoder.parameters())
    gradients = torch.autograd.grad(kl_loss.mean(), parameters, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_what_the_loss_has_and_the_bounds_have_not_is_said():
    assert beta_vae(4).describe() == "KL weight: 4 in the loss, 1 in every bound that is shown"
    assert "rising from 0 over the first 1,000 samples" in beta_vae(4, kl_warmup_samples=1000).describe()
    assert "0.25 nats a dimension" in free_bits(0.25).describe()
    assert free_bits(0.25).traits.single_process_because


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e308])
def test_wrong_weights_are_refused(value):
    with pytest.raises(ValueError, match=r"objective\.beta must be a number >= 0"):
        beta_vae(value)
    with pytest.raises(ValueError, match=r"objective\.free_bits must be a number >= 0"):
        free_bits(value)
