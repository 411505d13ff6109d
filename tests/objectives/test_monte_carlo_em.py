from typing import Any

import pytest
import torch
from gradients import minibatch
from linear_gaussian import LinearGaussian

from vae_lab import hmc
from vae_lab.errors import NoEncoder
from vae_lab.objectives.base import TrainingState
from vae_lab.objectives.monte_carlo_em import MonteCarloEM

STATE = TrainingState(0, 1000)


def monte_carlo_em(**changes) -> MonteCarloEM:
    settings = {
        "num_leapfrog": 10,
        "num_updates": 5,
        "initial_step_size": 0.01,
        "target_acceptance": 0.9,
        "max_step_factor": 1.25,
        "minibatches": False,
        "datapoints_at_once": 5000,
        "count": "leapfrog_and_updates",
    }
    return MonteCarloEM(**settings | changes)


def prepared(oracle: LinearGaussian, num_train: int, **changes) -> MonteCarloEM:
    objective = monte_carlo_em(**changes)
    objective.prepare(oracle.model, num_train)
    return objective


def iterate(objective, model, batch, num_iterations, optimizer=None):
    for _ in range(num_iterations):
        for terms in objective.updates(model, batch, STATE):
            if optimizer is None:
                break
            optimizer.zero_grad()
            terms.loss.mean().backward()
            optimizer.step()


@pytest.mark.slow
def test_chains_sample_the_exact_posterior_at_the_target_acceptance(linear_gaussian):
    num = 2000
    objective = prepared(linear_gaussian, num)
    batch = minibatch(linear_gaussian.sample(1).expand(num, -1, -1, -1))
    iterate(objective, linear_gaussian.model, batch, 40)
    acceptances = []
    for _ in range(20):
        terms = next(objective.updates(linear_gaussian.model, batch, STATE))
        acceptances.append(terms.logged["acceptance"].mean())
    assert torch.stack(acceptances).mean() == pytest.approx(0.9, abs=0.02)
    z = objective.chain
    variance = linear_gaussian.posterior_variance
    tolerance = 6 * (variance / num).sqrt()
    assert ((z.mean(0) - linear_gaussian.posterior_mean(batch.x[:1])[0]).abs() <= tolerance).all()
    assert ((z.var(0) / variance - 1).abs() <= 6 * (2 / num) ** 0.5).all()


def test_step_size_changes_by_the_largest_factor_at_most():
    objective = monte_carlo_em()
    for acceptance, factor in [(1.0, 1.25), (0.9, 1.0), (0.8, 1 / 1.25), (0.0, 1 / 1.25)]:
        objective.step_size.fill_(0.01)
        objective.tune_step_size(torch.full((4,), acceptance))
        assert float(objective.step_size) == pytest.approx(0.01 * factor)


def test_step_size_that_is_logged_is_that_of_the_step_that_was_made(linear_gaussian):
    objective = prepared(linear_gaussian, 20, initial_step_size=0.01)
    logged = next(objective.updates(linear_gaussian.model, minibatch(linear_gaussian.sample(20)), STATE)).logged
    torch.testing.assert_close(logged["step_size"], torch.full((20,), 0.01))
    assert float(objective.step_size) != pytest.approx(0.01), "nothing was tuned, and the test is blind"


def test_five_updates_move_the_decoder_alone(linear_gaussian):
    x = linear_gaussian.sample(20)
    objective = prepared(linear_gaussian, 20)
    updates = list(objective.updates(linear_gaussian.model, minibatch(x), STATE))
    assert len(updates) == 5
    assert all(terms.moves is linear_gaussian.model.decoder for terms in updates)
    assert "bound" not in updates[0].logged
    exact = linear_gaussian.model.log_joint(x, objective.chain)
    torch.testing.assert_close(updates[0].logged["log_joint"], exact)
    assert all(not terms.logged for terms in updates[1:])


def test_chains_of_a_minibatch_move_and_the_others_stay(linear_gaussian):
    objective = prepared(linear_gaussian, 20, minibatches=True, initial_step_size=0.1)
    before = objective.chain.clone()
    batch = minibatch(linear_gaussian.sample(20))
    chosen = torch.tensor([3, 7, 5])
    next(objective.updates(linear_gaussian.model, batch._replace(x=batch.x[chosen], index=chosen), STATE))
    moved = (objective.chain != before).any(1).nonzero().flatten().tolist()
    assert moved == [3, 5, 7]


def test_every_chain_goes_on_from_where_it_is(linear_gaussian):
    objective = prepared(linear_gaussian, 20, minibatches=True, initial_step_size=1e-6)
    before, batch = objective.chain.clone(), minibatch(linear_gaussian.sample(20))
    chosen = torch.tensor([3, 7, 5])
    next(objective.updates(linear_gaussian.model, batch._replace(x=batch.x[chosen], index=chosen), STATE))
    assert not torch.equal(objective.chain, before)
    torch.testing.assert_close(objective.chain, before, rtol=0, atol=1e-3)


def test_pieces_in_memory_change_neither_chains_nor_gradients(make_linear_gaussian):
    results = []
    for datapoints_at_once in (50, 7):
        oracle = make_linear_gaussian()
        torch.manual_seed(1)
        objective = prepared(oracle, 50, datapoints_at_once=datapoints_at_once)
        optimizer = torch.optim.SGD(oracle.model.parameters(), lr=0.01)
        iterate(objective, oracle.model, minibatch(oracle.sample(50)), 3, optimizer)
        results.append([objective.chain, objective.step_size, *oracle.model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_training_by_monte_carlo_em_reaches_maximum_likelihood():
    """Probabilistic PCA (Tipping & Bishop, 1999): W = U (L - s^2)^1/2 of the leading eigenvectors."""
    oracle = LinearGaussian(latent_dim=2, image_shape=(1, 2, 3), exact_decoder=False)
    truth = LinearGaussian(latent_dim=2, image_shape=(1, 2, 3))
    x = truth.sample(300)
    flat, noise = x.flatten(1), truth.noise_std**2
    values, vectors = torch.linalg.eigh(torch.cov(flat.T, correction=0))
    scaled = vectors[:, -2:] * (values[-2:] - noise).sqrt()
    best = scaled @ scaled.T + noise * torch.eye(6)
    objective = prepared(oracle, 300, num_leapfrog=5)
    optimizer = torch.optim.Adagrad(oracle.model.parameters(), lr=0.2)
    iterate(objective, oracle.model, minibatch(x), 120, optimizer)
    head: Any = oracle.model.decoder.head
    readout = head.mean[0]
    covariance = readout.weight @ readout.weight.T + noise * torch.eye(6)
    learned = torch.distributions.MultivariateNormal(readout.bias, covariance).log_prob(flat).mean()
    maximum = torch.distributions.MultivariateNormal(flat.mean(0), best).log_prob(flat).mean()
    assert 0 <= maximum - learned < 0.02
    torch.testing.assert_close(covariance, best, atol=0.15, rtol=0)


def test_state_dict_holds_chains_and_step_size(make_linear_gaussian):
    oracle = make_linear_gaussian()
    objective = prepared(oracle, 20)
    batch = minibatch(oracle.sample(20))
    iterate(objective, oracle.model, batch, 3)
    other = monte_carlo_em()
    other.prepare(oracle.model, 20)
    assert not torch.equal(other.chain, objective.chain)
    other.load_state_dict(objective.state_dict())
    for each in (objective, other):
        torch.manual_seed(1)
        iterate(each, oracle.model, batch, 2)
    torch.testing.assert_close(other.chain, objective.chain, rtol=0, atol=0)
    assert other.step_size == objective.step_size


def test_samples_are_counted_by_the_named_rule():
    assert monte_carlo_em().samples_per_step(batch_size=100, num_train=1000) == 15 * 1000
    assert monte_carlo_em(minibatches=True).samples_per_step(batch_size=100, num_train=1000) == 15 * 100
    assert monte_carlo_em(count="datapoints").samples_per_step(batch_size=100, num_train=1000) == 1000
    assert "leapfrog_and_updates" in monte_carlo_em().describe()
    assert "15" in monte_carlo_em().describe()


def test_model_without_encoder_refuses_its_posterior(make_linear_gaussian):
    linear_gaussian = make_linear_gaussian(has_encoder=False)
    with pytest.raises(NoEncoder, match="estimator="):
        linear_gaussian.model.posterior(linear_gaussian.sample(1))


def test_diverged_weights_stop_the_training(linear_gaussian):
    objective = prepared(linear_gaussian, 5)
    with torch.no_grad():
        linear_gaussian.model.decoder.head.mean[0].weight.fill_(torch.nan)
    terms = next(objective.updates(linear_gaussian.model, minibatch(linear_gaussian.sample(5)), STATE))
    assert terms.loss.isinf().all()  # which ends the training


def test_a_chain_where_only_the_gradient_is_lost_stops_the_training_too(linear_gaussian, monkeypatch):
    objective, evaluate = prepared(linear_gaussian, 5), hmc.evaluate

    def without_a_gradient(log_density, position):
        state = evaluate(log_density, position)
        state.gradient[2] = torch.nan
        return state

    monkeypatch.setattr(hmc, "evaluate", without_a_gradient)
    terms = next(objective.updates(linear_gaussian.model, minibatch(linear_gaussian.sample(5)), STATE))
    assert terms.loss.isinf().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_leapfrog", 0),
        ("num_updates", 0),
        ("initial_step_size", 0.0),
        ("target_acceptance", 1.0),
        ("max_step_factor", 0.5),
        ("datapoints_at_once", 0),
        ("count", "updates"),
    ],
)
def test_monte_carlo_em_refuses_by_key(key, value):
    with pytest.raises(ValueError, match=rf"objective\.{key} must be"):
        monte_carlo_em(**{key: value})
