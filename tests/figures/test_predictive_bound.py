import math

import pytest
import torch
from linear_gaussian import LinearGaussian

from vae_lab.figures.full_variational_bayes import measure_predictive_bound
from vae_lab.measurement import measure_bound, summarise
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.full_variational_bayes import FullVariationalBayes

BIAS = "head.mean.0.bias"


def full_vb(model, initial_std):
    objective = FullVariationalBayes(num_samples=1, initial_std=initial_std)
    objective.prepare(model, 10)
    return objective.to(torch.float64)


@pytest.mark.slow
def test_predictive_bound_is_below_the_bound_of_the_mean_by_what_the_spread_of_the_offset_costs():
    """With theta = b alone, E over b ~ N(mu, s^2 I) of the bound is that of mu less pixels * s^2 / (2 noise^2)."""
    oracle = LinearGaussian()
    oracle.model.decoder.get_parameter("head.mean.0.weight").requires_grad_(False)
    x, std, num_draws = oracle.sample(500), 0.2, 200
    objective = full_vb(oracle.model, std)
    mean, error = measure_predictive_bound(oracle.model, objective, x, num_draws=num_draws, seed=0)
    cost = len(oracle.bias) * std**2 / (2 * oracle.noise_std**2)
    exact = float(oracle.log_marginal(x).mean()) - cost  # the encoder is exact: the bound at mu is log p(x)
    assert mean == pytest.approx(exact, abs=6 * error)
    assert 6 * error < cost, "the bound of the mean would not pass"


def test_without_a_posterior_it_is_the_bound_of_the_model(linear_gaussian):
    x, aevb = linear_gaussian.sample(300), AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=0)
    assert aevb.predictive_model(linear_gaussian.model) is linear_gaussian.model
    bound, error = measure_predictive_bound(linear_gaussian.model, aevb, x, num_draws=30, seed=0)
    reference = summarise(measure_bound(linear_gaussian.model, x, num_samples=30, seed=1), num_samples=30)
    assert bound == pytest.approx(reference["bound"], abs=6 * math.hypot(error, reference["bound_se"]))
    # draws of z that are all the same would state no error: it has a relative s.d. of 1 / sqrt(2 (n - 1))
    assert error == pytest.approx(reference["bound_se"], rel=6 / math.sqrt(2 * 29))


def test_same_seed_gives_the_same_bits_and_model_and_random_state_stay(linear_gaussian):
    model, x = linear_gaussian.model, linear_gaussian.sample(20)
    objective = full_vb(model, 0.5)
    before = [parameter.clone() for parameter in model.parameters()], torch.get_rng_state()
    first, second, other = (measure_predictive_bound(model, objective, x, num_draws=3, seed=seed) for seed in (0, 0, 1))
    assert first == second != other
    torch.testing.assert_close(([*model.parameters()], torch.get_rng_state()), before, rtol=0, atol=0)


@pytest.mark.slow
def test_predictive_model_is_a_draw_from_the_posterior(linear_gaussian):
    model = linear_gaussian.model
    objective = full_vb(model, 0.3)
    drawn = torch.stack([objective.predictive_model(model).decoder.get_parameter(BIAS) for _ in range(2000)])
    posterior = objective.parameter_posterior(model)[BIAS]
    standard_error = posterior.std / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - posterior.mean).abs() <= 6 * standard_error).all()
    torch.testing.assert_close(drawn.std(0), posterior.std, rtol=6 / math.sqrt(2 * len(drawn)), atol=0)
    encoders = (objective.predictive_model(model).encoder.parameters(), model.encoder.parameters())
    torch.testing.assert_close(*map(list, encoders), rtol=0, atol=0)
