import math
from typing import Any

import pytest
import torch
from gradients import minibatch
from linear_gaussian import LinearGaussian, six_standard_errors
from torch.distributions import MultivariateNormal

from vae_lab.distributions import kl_to_standard_normal
from vae_lab.elbo import sgvb_b
from vae_lab.objectives.base import TrainingState
from vae_lab.objectives.full_variational_bayes import FullVariationalBayes


def full_vb(model, num_train, **changes) -> FullVariationalBayes:
    objective = FullVariationalBayes(**{"num_samples": 1, "initial_std": 0.1} | changes)
    objective.prepare(model, num_train)
    return objective.to(torch.float64)


def parts(objective, model, x, num_train) -> dict[str, torch.Tensor]:
    (terms,) = objective.updates(model, minibatch(x), TrainingState(0, num_train))
    return {"loss": terms.loss.detach()} | {name: value.detach() for name, value in terms.logged.items()}


def fit(objective, model, x, num_steps, lr) -> None:
    """Trains on all data at once, the step size falling to nothing."""
    (terms,) = objective.updates(model, minibatch(x), TrainingState(0, len(x)))
    moved = [parameter for parameter in terms.moves.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(moved, lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, num_steps)
    for _ in range(num_steps):
        (terms,) = objective.updates(model, minibatch(x), TrainingState(0, len(x)))
        optimizer.zero_grad()
        terms.loss.mean().backward()
        optimizer.step()
        schedule.step()


@pytest.fixture(scope="module")
def offset():
    """An oracle with W known, an unknown offset b ~ N(0, I) and an unknown encoder, fitted to 30 datapoints.

    W reaches the first three pixels only, one latent each. For the others, b is independent of every z given the
    data, and the mean-field posterior is exact; for the first three its mean is, but its variance is too small.
    """
    torch.manual_seed(0)
    oracle = LinearGaussian(latent_dim=3, image_shape=(1, 2, 3), exact_decoder=False)
    oracle.weight = torch.eye(6, 3).double() * torch.tensor([2.0, 1.0, 0.5])
    oracle.posterior_variance = 1 / (1 + oracle.weight.square().sum(0) / oracle.noise_std**2)
    decoder_head: Any = oracle.model.decoder.head
    head: Any = oracle.model.encoder.head
    readout = decoder_head.mean[0]
    with torch.no_grad():
        readout.weight.copy_(oracle.weight)
        readout.bias.zero_()
        head.mean.weight.copy_(oracle._gain())
        head.mean.bias.zero_()
        head.log_variance.weight.zero_()
        head.log_variance.bias.copy_(oracle.posterior_variance.log())
    readout.weight.requires_grad_(False)
    x = oracle.sample(30)
    objective = full_vb(oracle.model, len(x), num_samples=5)
    fit(objective, oracle.model, x, num_steps=400, lr=0.05)
    return oracle, objective, x


def exact_offset(oracle, x):
    """Mean and covariance of p(b|X), and log p(X), in closed form."""
    flat, dim = x.flatten(1), len(oracle.bias)
    covariance = oracle.weight @ oracle.weight.T + oracle.noise_std**2 * torch.eye(dim)
    precision = torch.eye(dim) + len(flat) * covariance.inverse()
    mean = torch.linalg.solve(precision, covariance.inverse() @ flat.sum(0))
    # Bayes' rule at b = mean: p(X) = p(X|b) p(b) / p(b|X)
    log_evidence = (
        MultivariateNormal(mean, covariance).log_prob(flat).sum()
        + MultivariateNormal(torch.zeros(dim).double(), torch.eye(dim).double()).log_prob(mean)
        - MultivariateNormal(mean, precision.inverse()).log_prob(mean)
    )
    return mean, precision.inverse(), log_evidence


@pytest.mark.slow
def test_posterior_of_the_offset_is_recovered(offset):
    oracle, objective, x = offset
    mean, covariance, _ = exact_offset(oracle, x)
    posterior = objective.parameter_posterior(oracle.model)["head.mean.0.bias"]
    torch.testing.assert_close(posterior.mean, mean, atol=0.02, rtol=0)
    torch.testing.assert_close(posterior.std[3:], covariance.diag()[3:].sqrt(), atol=0, rtol=0.05)
    mean_field = torch.full((6,), (1 + len(x) / oracle.noise_std**2) ** -0.5).double()
    torch.testing.assert_close(posterior.std, mean_field, atol=0, rtol=0.05)


def test_bound_lies_below_the_exact_evidence_by_what_mean_field_loses(offset):
    oracle, objective, x = offset
    *_, log_evidence = exact_offset(oracle, x)
    draws = torch.stack([parts(objective, oracle.model, x, len(x))["full_bound"].sum() for _ in range(200)])
    assert draws.mean() <= log_evidence + six_standard_errors(draws)
    # KL(q || p(b, z|X)) of the best factorised Gaussian: half the log of diag(precision) against its determinant
    noise, square = oracle.noise_std**2, oracle.weight.square().sum(0)
    lost = 0.5 * torch.log((1 + len(x) / noise) / (1 + len(x) / (noise + square))).sum()
    assert (draws.mean() - (log_evidence - lost)).abs() <= six_standard_errors(draws) + 0.1 * lost


@pytest.mark.slow
def test_bound_of_a_scalar_weight_lies_below_the_quadrature_of_its_evidence():
    oracle = LinearGaussian(latent_dim=1, image_shape=(1, 1, 1), exact_decoder=False, exact_posterior=False)
    head: Any = oracle.model.decoder.head
    readout = head.mean[0]
    with torch.no_grad():
        readout.weight.fill_(0.5)
        readout.bias.fill_(0.0)
    readout.bias.requires_grad_(False)
    noise = oracle.noise_std**2
    x = torch.randn(20, 1, 1, 1).double() * math.sqrt(1.5**2 + noise)
    objective = full_vb(oracle.model, len(x), num_samples=5)
    fit(objective, oracle.model, x, num_steps=300, lr=0.05)
    weight = torch.linspace(-8, 8, 4001).double()
    variance = weight.square() + noise
    log_joint = -0.5 * (len(x) * (2 * math.pi * variance).log() + x.square().sum() / variance)
    log_joint += -0.5 * (math.log(2 * math.pi) + weight.square())
    log_evidence = log_joint.logsumexp(0) + (weight[1] - weight[0]).log()
    draws = torch.stack([parts(objective, oracle.model, x, len(x))["full_bound"].sum() for _ in range(200)])
    assert draws.mean() <= log_evidence + six_standard_errors(draws)
    # one of two equal modes costs log 2; what is left is the mean field's
    assert draws.mean() > log_evidence - math.log(2) - 2


@pytest.mark.slow
def test_loss_of_minibatches_is_unbiased_for_the_loss_of_all(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(8)
    objective = full_vb(oracle.model, 8)
    whole = torch.stack([parts(objective, oracle.model, x, 8)["loss"].mean() for _ in range(400)])
    halves = torch.stack([parts(objective, oracle.model, half, 8)["loss"].mean() for half in x.split(4) * 200])
    tolerance = six_standard_errors(whole) + six_standard_errors(halves.view(-1, 2).mean(1))
    assert (whole.mean() - halves.mean()).abs() <= tolerance


def test_loss_holds_each_share_once(linear_gaussian):
    model, x = linear_gaussian.model, linear_gaussian.sample(10)
    values = parts(full_vb(model, 10, initial_std=0.3), model, x, num_train=1000)
    decoder = torch.cat([parameter.detach().flatten() for parameter in model.decoder.parameters()])
    kl = 0.5 * (decoder.square() + 0.09 - 1 - math.log(0.09)).sum() / 1000
    torch.testing.assert_close(values["parameter_kl"], kl.expand(10))
    torch.testing.assert_close(values["kl"], kl_to_standard_normal(model.posterior(x)).sum(-1).detach())
    torch.testing.assert_close(values["loss"], values["kl"] - values["reconstruction"] + kl)
    torch.testing.assert_close(values["full_bound"], -values["loss"])


def test_parameters_without_spread_leave_the_elbo(linear_gaussian):
    model, x = linear_gaussian.model, linear_gaussian.sample(10)
    objective = full_vb(model, 10, initial_std=1e-12)
    torch.manual_seed(1)
    ours = parts(objective, model, x, 10)["bound"]
    # what the closed form and the same noise of z give: theta's noise is drawn first
    torch.manual_seed(1)
    objective.sample_parameters(model)
    torch.testing.assert_close(ours, sgvb_b(model, x).total.detach(), atol=1e-8, rtol=0)


def test_update_moves_encoder_means_and_variances(linear_gaussian):
    model = linear_gaussian.model
    objective = full_vb(model, 10)
    (terms,) = objective.updates(model, minibatch(linear_gaussian.sample(10)), TrainingState(0, 10))
    terms.loss.mean().backward()
    moved = set(terms.moves.parameters())
    assert moved == {*model.parameters(), *objective.parameters()}
    assert all(parameter.grad is not None for parameter in moved)


@pytest.mark.parametrize(("key", "value"), [("num_samples", 0), ("initial_std", 0.0)])
def test_full_variational_bayes_refuses_by_key(key, value):
    with pytest.raises(ValueError, match=rf"objective\.{key} must be"):
        FullVariationalBayes(**{"num_samples": 1, "initial_std": 0.1} | {key: value})
