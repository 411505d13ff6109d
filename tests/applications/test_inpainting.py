import math
from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import LinearGaussian, six_standard_errors
from torch.distributions import MultivariateNormal

from vae_lab.applications.inpainting import (
    Chains,
    effective_sample_size,
    inpaint,
    log_marginal,
    mask_of,
    require_independent_pixels,
)
from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian, Distribution
from vae_lab.errors import ConfigError

SHAPE = (1, 3, 4)


@pytest.fixture(scope="module")
def inexact() -> LinearGaussian:
    """The oracle with a posterior that is wider than the truth and off its centre."""
    oracle = LinearGaussian()
    with torch.no_grad():
        head: Any = oracle.model.encoder.head
        head.mean.bias += 0.3
        head.log_variance.bias += 0.5
    return oracle


def conditional(oracle: LinearGaussian, x: torch.Tensor, missing: torch.Tensor) -> MultivariateNormal:
    """The density p(x_missing | x_observed), exact."""
    hidden = missing.flatten()
    covariance = oracle.weight @ oracle.weight.T + oracle.noise_std**2 * torch.eye(len(oracle.bias)).double()
    gain = covariance[hidden][:, ~hidden] @ covariance[~hidden][:, ~hidden].inverse()
    mean = oracle.bias[hidden] + gain @ (x.flatten()[~hidden] - oracle.bias[~hidden])
    return MultivariateNormal(mean, covariance[hidden][:, hidden] - gain @ covariance[~hidden][:, hidden])


@torch.no_grad()
def drawn(
    oracle: LinearGaussian, x: torch.Tensor, missing: torch.Tensor, *, metropolis: int = 0, hmc: int = 0
) -> torch.Tensor:
    """The missing pixels of 4,000 chains after pseudo-Gibbs and so many steps of each exact kind."""
    chains = Chains(oracle.model, x, missing, 4000)
    for _ in range(30):
        chains.pseudo_gibbs()
    for _ in range(metropolis):
        chains.metropolis()
    for i in range(2 * hmc):
        chains.hamiltonian(tune=i < hmc)
    return chains.x[:, missing[None]]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [{"metropolis": 60}, {"hmc": 12}, {"metropolis": 10, "hmc": 6}])
def test_draws_have_the_exact_conditional_moments_though_the_encoder_is_wrong(inexact, steps):
    missing = mask_of("right_half", SHAPE, seed=0)
    for x in inexact.sample(2):
        exact = conditional(inexact, x, missing)
        pixels = drawn(inexact, x, missing, **steps)
        assert ((pixels.mean(0) - exact.mean).abs() < six_standard_errors(pixels)).all()
        away = pixels - exact.mean
        products = away[:, :, None] * away[:, None]
        assert ((products.mean(0) - exact.covariance_matrix).abs() < six_standard_errors(products)).all()


def test_pseudo_gibbs_alone_has_not(inexact):
    missing = mask_of("right_half", SHAPE, seed=0)
    (x,) = inexact.sample(1)
    pixels = drawn(inexact, x, missing)
    assert ((pixels.mean(0) - conditional(inexact, x, missing).mean).abs() > six_standard_errors(pixels)).any()


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["top_half", "center", "random_30"])
def test_log_density_of_what_is_missing_is_the_exact_one(inexact, mask):
    missing = mask_of(mask, SHAPE, seed=0)
    for i, x in enumerate(inexact.sample(3)):
        found = inpaint(
            inexact.model, x, missing, num=8, num_pseudo_gibbs=5, num_steps=60, num_samples=4000, seed=0, index=i
        )
        exact = conditional(inexact, x, missing).log_prob(x[:, missing].flatten())
        assert abs(found.log_conditional - exact) < 6 * found.standard_error < 0.5
        assert found.k_hat < 0.7 and 8 < found.effective_sample_size <= 240 * math.log10(240)
        assert 0.2 < found.acceptance < 0.95 and 0.5 < found.hmc_acceptance < 1
        assert torch.equal(found.draws[:, :, ~missing], x[:, ~missing].expand(8, -1, -1)), "what is observed stays"
        assert (
            torch.equal(found.mean[:, ~missing], x[:, ~missing]) and len(found.draws[:, 0, missing].unique(dim=0)) == 8
        )


@pytest.mark.slow
def test_mean_over_the_chains_is_the_exact_conditional_mean(inexact):
    missing = mask_of("left_half", SHAPE, seed=0)
    (x,) = inexact.sample(1)
    settings = {"num": 50, "num_pseudo_gibbs": 5, "num_steps": 400, "num_samples": 100, "seed": 0, "index": 0}
    found = inpaint(inexact.model, x, missing, **settings)
    exact = conditional(inexact, x, missing)
    tolerance = 6 * exact.stddev / found.effective_sample_size**0.5
    assert ((found.mean[:, missing][0] - exact.mean).abs() < tolerance).all()
    again, other = (inpaint(inexact.model, x, missing, **settings | {"index": i}) for i in (0, 1))
    assert torch.equal(again.draws, found.draws) and again.log_conditional == found.log_conditional
    assert not torch.equal(other.draws, found.draws)


def test_exact_encoder_is_always_accepted_and_its_log_density_has_no_error(linear_gaussian):
    model, (x,) = linear_gaussian.model, linear_gaussian.sample(1)
    missing = mask_of("bottom_half", SHAPE, seed=0)
    settings = {"num": 4, "num_pseudo_gibbs": 0, "num_steps": 20, "num_samples": 100, "seed": 0, "index": 0}
    assert inpaint(model, x, missing, **settings).acceptance == 1
    with torch.no_grad():
        found = log_marginal(model, x, torch.ones(SHAPE).bool(), [model.posterior(x[None])], 100)
    assert found.value == pytest.approx(float(linear_gaussian.log_marginal(x[None])), abs=1e-9)
    assert found.variance < 1e-18


def test_effective_sample_size_is_that_of_an_autoregression(fixed_noise):
    steps, chains, share = 4000, 4, 0.8
    noise = torch.randn(steps, chains, 2).double() * (1 - share**2) ** 0.5
    trace = torch.randn(chains, 2).double().repeat(steps, 1, 1)
    for step in range(1, steps):
        trace[step, :, 0] = share * trace[step - 1, :, 0] + noise[step, :, 0]
        trace[step, :, 1] = noise[step, :, 1]
    correlated, independent = effective_sample_size(trace).tolist()
    assert correlated == pytest.approx(steps * chains * (1 - share) / (1 + share), rel=0.2)
    assert independent == pytest.approx(steps * chains, rel=0.1)
    stuck = torch.randn(1, chains, 1).expand(100, -1, -1)
    assert effective_sample_size(stuck) <= 2 * chains and effective_sample_size(stuck[:, :1]) == 1


def test_masks_hide_what_their_names_say(tmp_path):
    def hidden(name: str, seed: int = 0) -> list[list[int]]:
        return mask_of(name, (3, 4, 5), seed=seed).int().tolist()

    assert hidden("right_half") == [[0, 0, 1, 1, 1]] * 4 and hidden("left_half") == [[1, 1, 0, 0, 0]] * 4
    assert hidden("top_half") == [[1] * 5] * 2 + [[0] * 5] * 2 == hidden("bottom_half")[::-1]
    assert hidden("center") == [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0] * 5]
    assert sum(map(sum, hidden("random_50"))) == 10 and hidden("random_50") != hidden("random_50", seed=1)
    own = np.arange(20).reshape(4, 5) % 3
    np.save(tmp_path / "own.npy", own)
    assert hidden(str(tmp_path / "own.npy")) == (own != 0).astype(int).tolist()
    np.save(tmp_path / "wide.npy", np.ones((4, 6)))
    (tmp_path / "text.npy").write_text("no array")
    for name, message in (
        ("right", "mask must be one of right_half, left_half, .* got 'right'"),
        ("random_0", "mask must hide some pixels and not all, got random_0, which hides 0"),
        ("random_100", "mask must hide some pixels and not all"),
        (f"{tmp_path}/wide.npy", r"must hold numbers of the shape \[4, 5\], got \[4, 6\] float64"),
        (f"{tmp_path}/text.npy", r"text\.npy must be an array that numpy\.save wrote"),
        (f"{tmp_path}/none.npy", r"none\.npy must be an array that numpy\.save wrote"),
    ):
        with pytest.raises(ConfigError, match=message):
            mask_of(name, (1, 4, 5), seed=0)


def test_terms_of_every_density_sum_to_it():
    parameter, x = torch.randn(5, 1, 3, 4), torch.rand(5, 1, 3, 4)
    for density in (
        Bernoulli(parameter, 3),
        ContinuousBernoulli(parameter, 3),
        DiagonalGaussian(parameter, parameter.flip(0), 3),
    ):
        torch.testing.assert_close(density.log_prob_terms(x).sum((1, 2, 3)), density.log_prob(x))
        assert density.log_prob_terms(x[0]).shape == parameter.shape


class Mixed(Distribution):
    """Pixels that depend on each other, as those of a likelihood of somebody's own may."""

    mean = sample = log_prob = unflatten = None  # pyright: ignore


def test_likelihood_without_independent_pixels_is_refused_by_name(linear_gaussian, monkeypatch):
    require_independent_pixels(linear_gaussian.model, "RUN")
    monkeypatch.setattr(linear_gaussian.model, "likelihood", lambda z: Mixed())
    with pytest.raises(ConfigError, match="pixels that are independent given z, got Mixed in RUN"):
        require_independent_pixels(linear_gaussian.model, "RUN")
