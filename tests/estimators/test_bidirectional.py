import math
from typing import Any

import pytest
import torch
from linear_gaussian import six_standard_errors

from vae_lab.estimators.base import Noise
from vae_lab.estimators.bidirectional import Bidirectional
from vae_lab.randomness import NOISE_BLOCK


def estimator(**settings) -> Bidirectional:
    defaults: dict[str, Any] = {"num_chains": 2, "num_temperatures": 10, "num_tuning_chains": 2, "num_leapfrog": 3}
    tuning: dict[str, Any] = {"initial_step_size": 0.5, "target_acceptance": 0.8}
    return Bidirectional(**(defaults | tuning | settings))


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The z and x that were simulated, block after block."""
    seen, simulated = [], Noise.simulated
    monkeypatch.setattr(Noise, "simulated", lambda self, model: seen.append(simulated(self, model)) or seen[-1])
    return seen


@pytest.mark.slow
def test_both_bounds_are_unbiased_for_what_they_bound_and_the_truth_is_between(linear_gaussian, drawn):
    estimate = estimator(num_chains=4).estimate(linear_gaussian.model, torch.zeros(2000, 1, 3, 4), seed=0)
    exact = linear_gaussian.log_marginal(torch.cat([x for _, x in drawn]))
    below, above = estimate.log_likelihood - exact, estimate.beside["upper"] - exact
    for ratio in (below.exp(), (-above).exp()):
        assert (ratio.mean() - 1).abs() < six_standard_errors(ratio)
    assert below.mean() < -six_standard_errors(below) and above.mean() > six_standard_errors(above)


def test_gap_closes_from_both_sides_with_more_temperatures(linear_gaussian):
    x = torch.zeros(250, 1, 3, 4)
    few, many = (estimator(num_temperatures=num).estimate(linear_gaussian.model, x, seed=0) for num in (5, 40))
    up, down = many.log_likelihood - few.log_likelihood, few.beside["upper"] - many.beside["upper"]
    assert up.mean() > six_standard_errors(up) and down.mean() > six_standard_errors(down)
    summary = estimator().summary(many)
    gap = many.beside["upper"] - many.log_likelihood
    assert summary["_gap"] == pytest.approx(float(gap.mean())) and summary["_gap"] > 4 * summary["_gap_se"]
    assert 6 * summary["_gap_se"] == pytest.approx(float(six_standard_errors(gap)))


def test_data_are_draws_from_the_model_and_their_z_from_the_posterior(linear_gaussian, drawn):
    estimator(num_temperatures=1).estimate(linear_gaussian.model, torch.zeros(2500, 1, 3, 4), seed=0)
    z, x = map(torch.cat, zip(*drawn, strict=True))
    assert ((x.flatten(1).mean(0) - linear_gaussian.bias).abs() <= six_standard_errors(x.flatten(1))).all()
    away = (z - linear_gaussian.posterior_mean(x)) / linear_gaussian.posterior_variance.sqrt()
    assert (away.mean(0).abs() <= six_standard_errors(away)).all()
    assert ((away.var(0) - 1).abs() <= 6 * math.sqrt(2 / len(away))).all()


def test_every_block_of_images_is_drawn_anew(linear_gaussian, drawn):
    estimator(num_temperatures=1).estimate(linear_gaussian.model, torch.zeros(500, 1, 3, 4), seed=0)
    (z, x), (other_z, other_x) = drawn
    assert len(z) == len(other_z) == NOISE_BLOCK
    assert len(torch.cat([z, other_z]).unique()) == z.numel() + other_z.numel()
    assert len(torch.cat([x, other_x]).unique()) == x.numel() + other_x.numel()


def test_no_two_chains_share_their_noise_those_that_tune_and_those_that_go_back_among_them(
    linear_gaussian, monkeypatch
):
    first, stream = [], Noise.stream

    def recorded(self, *purpose):
        first.append(stream(self, *purpose).normal(1, 3))
        return stream(self, *purpose)

    monkeypatch.setattr(Noise, "stream", recorded)
    estimator(num_chains=5, num_tuning_chains=3).estimate(linear_gaussian.model, torch.zeros(4, 1, 3, 4), seed=0)
    assert len(first) == 13 and len(torch.cat(first).unique()) == 13 * 4 * 3


@pytest.mark.slow
def test_numbers_depend_on_seed_and_index_only_and_not_on_the_images_or_memory(linear_gaussian, monkeypatch):
    x, state = linear_gaussian.sample(20), torch.get_rng_state()
    whole = estimator().estimate(linear_gaussian.model, x, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    part = estimator().estimate(linear_gaussian.model, x[:4], seed=0, first_index=16)
    monkeypatch.setattr("vae_lab.estimators.annealed_importance_sampling.rows_at_once", lambda *_: 20)
    chunked = estimator().estimate(linear_gaussian.model, x, seed=0)
    for other, rows in ((part, slice(16, 20)), (chunked, slice(0, 20))):
        torch.testing.assert_close(other.log_likelihood, whole.log_likelihood[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(other.beside["upper"], whole.beside["upper"][rows], rtol=0, atol=1e-9)
    assert not torch.equal(
        estimator().estimate(linear_gaussian.model, x, seed=1).beside["upper"], whole.beside["upper"]
    )


def test_label_names_chains_and_temperatures():
    assert estimator().label == "bidirectional_2x10"
