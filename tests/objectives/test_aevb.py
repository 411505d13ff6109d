import pytest
import torch
from gradients import gradient_draws, update_gradients
from linear_gaussian import six_standard_errors

from vae_lab.elbo import sgvb_b
from vae_lab.measurement import measure_bound, summarise
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch, TrainingState
from vae_lab.objectives.importance_weighted import ImportanceWeighted


def make(**settings) -> AEVB:
    return AEVB(**{"kl": "closed_form", "num_samples": 1, "kl_warmup_samples": 0} | settings)


def only_update(objective, model, x, samples=0):
    (terms,) = objective.updates(model, Minibatch(x, torch.arange(len(x))), TrainingState(samples, 1000))
    return terms


@pytest.mark.parametrize("kl", ["closed_form", "sampled", "sticking_the_landing"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_loss_is_finite_and_its_gradient_reaches_every_parameter(make_linear_gaussian, kl, num_samples):
    oracle = make_linear_gaussian(exact_posterior=False, exact_decoder=False)
    terms = only_update(make(kl=kl, num_samples=num_samples), oracle.model, oracle.sample(20))
    assert terms.moves is oracle.model
    assert terms.loss.shape == (20,) and terms.loss.isfinite().all()
    terms.loss.mean().backward()
    for name, parameter in oracle.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_loss_is_minus_the_bound_that_is_logged(linear_gaussian):
    terms = only_update(make(), linear_gaussian.model, linear_gaussian.sample(5))
    torch.testing.assert_close(terms.loss, -terms.logged["bound"])
    torch.testing.assert_close(terms.logged["bound"], terms.logged["reconstruction"] - terms.logged["kl"])
    assert set(terms.logged) == {"bound", "reconstruction", "kl"}


@pytest.mark.parametrize("kl", ["closed_form", "sampled"])
def test_training_improves_the_oracle_model(make_linear_gaussian, kl):
    oracle = make_linear_gaussian(exact_posterior=False, exact_decoder=False)
    model, x = oracle.model, oracle.sample(200)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def bound() -> float:
        return summarise(measure_bound(model, x, num_samples=8, seed=0), num_samples=8)["bound"]

    before, objective = bound(), make(kl=kl)
    for _ in range(300):
        optimizer.zero_grad()
        only_update(objective, model, x).loss.mean().backward()
        optimizer.step()
    best = oracle.log_marginal(x).mean().item()  # of the true model; a fitted one may lie a little above
    assert before < best - 5
    assert best - 1 < bound() < best + 1


@pytest.mark.parametrize(("samples", "weight"), [(0, 0.0), (250, 0.25), (1000, 1.0), (5000, 1.0)])
def test_kl_weight_rises_linearly_to_one_and_stays(linear_gaussian, samples, weight):
    objective = make(kl_warmup_samples=1000)
    assert objective.kl_weight(samples) == weight
    x = linear_gaussian.sample(4)
    terms = only_update(objective, linear_gaussian.model, x, samples)
    kl, reconstruction = terms.logged["kl"], terms.logged["reconstruction"]
    torch.testing.assert_close(terms.loss, weight * kl - reconstruction)
    torch.manual_seed(7)
    logged = only_update(objective, linear_gaussian.model, x, samples).logged["bound"]
    torch.manual_seed(7)
    assert torch.equal(logged, sgvb_b(linear_gaussian.model, x).total)  # measured without the weight


@pytest.mark.slow
def test_gradient_that_sticks_the_landing_is_that_of_the_bound_on_average(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(5)
    ours = gradient_draws(make(kl="sticking_the_landing"), oracle.model, x, 500)
    closed_form = gradient_draws(make(num_samples=100), oracle.model, x, 50)
    for name in ours:
        tolerance = (six_standard_errors(ours[name]).square() + six_standard_errors(closed_form[name]).square()).sqrt()
        assert ((ours[name].mean(0) - closed_form[name].mean(0)).abs() <= tolerance).all(), name


def test_gradient_that_sticks_the_landing_has_no_variance_where_the_posterior_is_exact(linear_gaussian):
    x = linear_gaussian.sample(5)
    ours, sampled = (
        gradient_draws(make(kl=kl), linear_gaussian.model, x, 20) for kl in ("sticking_the_landing", "sampled")
    )
    for name in (name for name in ours if name.startswith("encoder")):
        torch.testing.assert_close(ours[name], torch.zeros_like(ours[name]))
        assert sampled[name].std(0).max() > 0.1, name


def test_gradient_that_sticks_the_landing_is_the_doubly_reparameterised_one_of_a_single_draw(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False, exact_decoder=False)
    x, gradients = oracle.sample(5), []
    for objective in (
        make(kl="sticking_the_landing"),
        ImportanceWeighted(num_samples=1, gradient="doubly_reparameterised"),
    ):
        torch.manual_seed(1)
        gradients += update_gradients(objective, oracle.model, x)
    torch.testing.assert_close(*gradients)


def test_kl_warmup_is_named_and_zero_switches_it_off():
    assert "1,000 samples" in make(kl_warmup_samples=1000).describe()
    assert make().describe() == ""
    assert make().kl_weight(0) == 1.0


def test_a_warmup_that_does_not_end_is_refused():
    make(kl_warmup_samples=1000).check(1000)
    with pytest.raises(ValueError, match=r"objective\.kl_warmup_samples must be <= the budget of 999 .* got 1000"):
        make(kl_warmup_samples=1000).check(999)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl": "exact"}, r"objective\.kl must be one of closed_form, sampled, sticking_the_landing, got 'exact'"),
        ({"num_samples": 0}, r"objective\.num_samples must be an integer >= 1, got 0"),
        ({"kl_warmup_samples": -1}, r"objective\.kl_warmup_samples must be an integer >= 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
