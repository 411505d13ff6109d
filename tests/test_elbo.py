"""The two SGVB estimators and the measured bound, held against the linear-Gaussian oracle."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from linear_gaussian import six_standard_errors

from vae_lab.distributions import kl_to_standard_normal
from vae_lab.elbo import Bound, log_mean_exp, log_weights, sgvb_a, sgvb_b
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.measurement import (
    ACTIVE_UNIT_VARIANCE,
    evaluating,
    measure_bound,
    measure_log_likelihood,
    summarise,
)
from vae_lab.randomness import NOISE_BLOCK


def test_every_test_refuses_wrong_shapes_also_where_the_same_function_had_right_ones():
    for _ in range(2):
        Bound(torch.zeros(3, 2), torch.zeros(2, 5))
        with pytest.raises(TypeCheckError, match="kl_terms"):
            Bound(torch.zeros(3, 2), torch.zeros(3, 5))
        log_mean_exp(torch.zeros(3, 2))
        with pytest.raises(TypeCheckError, match="values"):
            log_mean_exp(torch.zeros(3))


@pytest.mark.parametrize("estimator", [sgvb_a, sgvb_b])
def test_bound_equals_log_marginal_when_posterior_is_exact(linear_gaussian, estimator):
    x = linear_gaussian.sample(4)
    draws = torch.stack([estimator(linear_gaussian.model, x, 16).total for _ in range(500)]).detach()
    error = (draws.mean(0) - linear_gaussian.log_marginal(x)).abs()
    assert (error <= six_standard_errors(draws) + 1e-9).all()


def test_estimator_a_is_log_marginal_at_every_draw_when_posterior_is_exact(linear_gaussian):
    x = linear_gaussian.sample(10)
    torch.testing.assert_close(sgvb_a(linear_gaussian.model, x).total, linear_gaussian.log_marginal(x))


@pytest.mark.parametrize("estimator", [sgvb_a, sgvb_b])
def test_bound_is_below_log_marginal_when_posterior_is_wrong(make_linear_gaussian, estimator):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(5)
    draws = torch.stack([estimator(oracle.model, x, 16).total for _ in range(300)]).detach()
    assert (draws.mean(0) + six_standard_errors(draws) < oracle.log_marginal(x)).all()


def test_gap_to_log_marginal_is_the_kl_to_the_true_posterior(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(3)
    q = oracle.model.posterior(x)
    mean, variance = oracle.posterior_mean(x), oracle.posterior_variance
    ratio = q.variance / variance
    gap = 0.5 * (ratio + (q.mean - mean).square() / variance - 1 - ratio.log()).sum(-1)
    draws = torch.stack([sgvb_b(oracle.model, x, 16).total for _ in range(500)]).detach()
    error = (draws.mean(0) - (oracle.log_marginal(x) - gap)).abs()
    assert (error <= six_standard_errors(draws)).all()


def test_estimators_a_and_b_agree_in_their_means(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(4)
    a = torch.stack([sgvb_a(oracle.model, x, 16).total for _ in range(500)]).detach()
    b = torch.stack([sgvb_b(oracle.model, x, 16).total for _ in range(500)]).detach()
    tolerance = (six_standard_errors(a).square() + six_standard_errors(b).square()).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= tolerance).all()
    assert not torch.equal(a, b)


def test_estimator_b_takes_another_likelihood_and_a_kl_that_is_known(make_linear_gaussian):
    oracle, other = make_linear_gaussian(), make_linear_gaussian(seed=1)
    x, noise = other.sample(4), torch.randn(2, 4, 3, dtype=torch.float64)
    posterior = other.model.posterior(x)
    expected = sgvb_b(other.model, x, 2, noise=noise)
    given = {"posterior": posterior, "kl_terms": kl_to_standard_normal(posterior), "noise": noise}
    found = sgvb_b(oracle.model, x, 2, likelihood=other.model.likelihood, **given)
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=0, atol=0)
    assert found.kl_terms is given["kl_terms"] and torch.equal(found.total, expected.total)
    assert (sgvb_b(oracle.model, x, 2, **given).total - expected.total).abs().min() > 0.1


def test_bound_is_reconstruction_minus_kl(linear_gaussian):
    bound = sgvb_b(linear_gaussian.model, linear_gaussian.sample(7), 3)
    assert bound.reconstruction.shape == bound.kl.shape == (7,)
    assert torch.equal(bound.total, bound.reconstruction - bound.kl)


def test_mean_of_the_log_weights_is_estimator_a_and_their_log_mean_lies_above_it(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(20)
    posterior = oracle.model.posterior(x)
    torch.manual_seed(0)
    weights = log_weights(oracle.model, x, posterior.rsample((7,)), posterior)
    torch.manual_seed(0)
    torch.testing.assert_close(weights.mean(0), sgvb_a(oracle.model, x, 7).total)
    torch.testing.assert_close(log_mean_exp(weights), weights.exp().mean(0).log())
    assert (log_mean_exp(weights) >= weights.mean(0)).all()


# ---- measured over a data set ----


def test_measured_bound_is_the_log_marginal_of_the_oracle(linear_gaussian):
    x = linear_gaussian.sample(2 * NOISE_BLOCK + 7)
    summary = summarise(measure_bound(linear_gaussian.model, x, num_samples=64, seed=0), num_samples=64)
    assert summary["num_datapoints"] == len(x)
    assert abs(summary["bound"] - linear_gaussian.log_marginal(x).mean()) <= 6 * summary["bound_se"]


def test_measured_bound_counts_every_datapoint_once_over_all_ranks(linear_gaussian):
    x = linear_gaussian.sample(5 * NOISE_BLOCK + 3)
    whole = measure_bound(linear_gaussian.model, x, num_samples=2, seed=3)
    for num_ranks in (2, 3, 8):
        shares = [
            measure_bound(linear_gaussian.model, x, num_samples=2, seed=3, rank=rank, num_ranks=num_ranks)
            for rank in range(num_ranks)
        ]
        torch.testing.assert_close(sum(shares), whole, rtol=1e-12, atol=0)
        assert sum(share[4].item() for share in shares) == len(x)


def test_measured_bound_of_a_datapoint_depends_on_seed_and_index_only(linear_gaussian):
    x = linear_gaussian.sample(2 * NOISE_BLOCK)
    model = linear_gaussian.model
    both = measure_bound(model, x, num_samples=1, seed=0)
    torch.manual_seed(123)
    assert torch.equal(measure_bound(model, x, num_samples=1, seed=0), both)
    assert not torch.equal(measure_bound(model, x, num_samples=1, seed=1), both)
    first = measure_bound(model, x[:NOISE_BLOCK], num_samples=1, seed=0)
    second = measure_bound(model, x, num_samples=1, seed=0, rank=1, num_ranks=2)
    torch.testing.assert_close(first + second, both, rtol=1e-12, atol=0)


def test_noise_of_several_draws_does_not_depend_on_how_many_datapoints_are_asked_for(linear_gaussian):
    x = linear_gaussian.sample(NOISE_BLOCK + 40)
    until = [measure_bound(linear_gaussian.model, x[:num], num_samples=3, seed=0) for num in (7, 8, 30, 31, 270, 271)]
    for fewer, more, at in zip(until[::2], until[1::2], (7, 30, 270), strict=True):
        with evaluating(linear_gaussian.model, x.device, 0, "bound", at // NOISE_BLOCK):
            posterior = linear_gaussian.model.posterior(x[at : at + 1])
            noise = torch.randn(3, NOISE_BLOCK, 3, dtype=x.dtype)[:, at % NOISE_BLOCK, None]
            alone = sgvb_b(linear_gaussian.model, x[at : at + 1], 3, posterior=posterior, noise=noise)
        assert float((more - fewer)[0]) == pytest.approx(float(alone.total), abs=1e-9)


def test_measuring_leaves_mode_and_random_state_alone(linear_gaussian):
    model = linear_gaussian.model.train()
    state = torch.get_rng_state()
    measure_bound(model, linear_gaussian.sample(3), num_samples=2, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    with pytest.raises(RuntimeError, match="inside"), evaluating(model, torch.device("cpu"), 0):
        assert not model.training
        raise RuntimeError("inside")
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_standard_error_and_spread_of_the_measured_bound_are_right(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(300)
    summaries = [summarise(measure_bound(oracle.model, x, num_samples=8, seed=s), num_samples=8) for s in range(200)]
    means = torch.tensor([summary["bound"] for summary in summaries], dtype=torch.float64)
    claimed = math.sqrt(sum(summary["bound_se"] ** 2 for summary in summaries) / len(summaries))
    # the variance of a sample variance of n normal draws is 2 / (n - 1)
    assert (means.var().item() / claimed**2 - 1) == pytest.approx(0, abs=6 * math.sqrt(2 / (len(means) - 1)))
    with evaluating(oracle.model, x.device, 0):
        per_datapoint = torch.stack([sgvb_b(oracle.model, x, 8).total for _ in range(50)])
    expected = per_datapoint.std(1, correction=0)
    assert abs(summaries[0]["bound_sd"] - expected.mean()) <= 6 * expected.std()


def test_a_single_draw_has_no_standard_error(linear_gaussian):
    summary = summarise(
        measure_bound(linear_gaussian.model, linear_gaussian.sample(5), num_samples=1, seed=0), num_samples=1
    )
    assert "bound_se" not in summary and "bound_sd" in summary


def test_kl_per_dimension_and_active_units_are_those_of_the_posterior(linear_gaussian):
    x = linear_gaussian.sample(400)
    head = linear_gaussian.model.encoder.head
    with torch.no_grad():  # the last dimension says nothing: its posterior is the prior
        head.mean.weight[2], head.mean.bias[2] = 0.0, 0.0
        head.log_variance.weight[2], head.log_variance.bias[2] = 0.0, 0.0
        posterior = linear_gaussian.model.posterior(x)
        kl = kl_to_standard_normal(posterior).mean(0)
    summary = summarise(measure_bound(linear_gaussian.model, x, num_samples=1, seed=0), num_samples=1)
    assert summary["kl_per_dimension"] == pytest.approx(kl.tolist(), abs=1e-12)
    assert summary["kl_per_dimension"][2] == 0
    assert summary["kl"] == pytest.approx(kl.sum().item())
    assert summary["bound"] == pytest.approx(summary["reconstruction"] - summary["kl"])
    assert summary["active_units"] == 2 == int((posterior.mean.var(0) > ACTIVE_UNIT_VARIANCE).sum())


def test_a_unit_whose_posterior_mean_is_far_from_0_but_the_same_for_every_image_is_not_active(linear_gaussian):
    head = linear_gaussian.model.encoder.head
    with torch.no_grad():
        head.mean.weight[2], head.mean.bias[2] = 0.0, 5.0
    summary = summarise(
        measure_bound(linear_gaussian.model, linear_gaussian.sample(400), num_samples=1, seed=0), num_samples=1
    )
    assert summary["active_units"] == 2


def test_standard_error_of_the_log_likelihood_is_the_spread_of_its_mean_over_seeds(linear_gaussian):
    with torch.no_grad():
        linear_gaussian.model.encoder.head.log_variance.bias += 0.5
    estimator, x = ImportanceSampling(num_samples=50, samples_per_chunk=None), linear_gaussian.sample(25)
    key = f"test/log_likelihood/{estimator.label}"
    ledgers = [measure_log_likelihood(linear_gaussian.model, x, "test", estimator, seed=seed) for seed in range(200)]
    means = torch.tensor([ledger[key] for ledger in ledgers], dtype=torch.float64)
    claimed = sum(ledger[f"{key}_se"] ** 2 for ledger in ledgers) / len(ledgers)
    assert (means.var().item() / claimed - 1) == pytest.approx(0, abs=6 * math.sqrt(2 / (len(means) - 1)))
    assert ledgers[0][f"{key}_sd"] == pytest.approx(float(linear_gaussian.log_marginal(x).std(correction=0)), rel=0.05)
