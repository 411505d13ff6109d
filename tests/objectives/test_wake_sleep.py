import pytest
import torch
from gradients import gradient_draws, minibatch, update_gradients
from linear_gaussian import LinearGaussian, six_standard_errors

from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.objectives.base import TrainingState
from vae_lab.objectives.wake_sleep import WakeSleep

STATE = TrainingState(0, 1000)


@pytest.fixture
def wake_sleep() -> WakeSleep:
    return WakeSleep(num_samples=1, sleep_inputs="sampled")


def test_each_step_of_wake_sleep_leaves_the_other_network_without_gradient(wake_sleep, linear_gaussian):
    model = linear_gaussian.model
    wake, sleep = wake_sleep.updates(model, minibatch(linear_gaussian.sample(10)), STATE)
    assert wake.moves is model.decoder
    assert sleep.moves is model.encoder
    for gradients, network in zip(
        update_gradients(wake_sleep, model, linear_gaussian.sample(10)), ("decoder", "encoder"), strict=True
    ):
        for name, gradient in gradients.items():
            assert (gradient is not None) == name.startswith(network), name


def test_wake_gradient_is_that_of_the_expected_log_joint(wake_sleep, make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    x = oracle.sample(20)
    draws = gradient_draws(wake_sleep, oracle.model, x, 400)
    posterior = oracle.model.posterior(x)
    mean, variance = posterior.mean.detach(), posterior.variance.detach()
    second_moment = mean.T @ mean + variance.sum(0).diag()
    centred = x.flatten(1) - oracle.bias
    exact = {
        "decoder.head.mean.0.weight": oracle.weight @ second_moment - centred.T @ mean,
        "decoder.head.mean.0.bias": oracle.weight @ mean.sum(0) - centred.sum(0),
    }
    for name, gradient in exact.items():
        error = draws[name].mean(0) - gradient / oracle.noise_std**2 / len(x)
        assert (error.abs() <= six_standard_errors(draws[name])).all()


def test_sleep_gradient_is_that_of_log_posterior_under_the_model(wake_sleep, make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False)
    head = oracle.model.encoder.head
    with torch.no_grad():
        head.log_variance.weight.zero_()
    draws = gradient_draws(wake_sleep, oracle.model, oracle.sample(100), 400, update=1)
    weight, bias = head.mean.weight.detach(), head.mean.bias.detach()
    precision = (-head.log_variance.bias.detach()).exp()
    covariance = oracle.weight @ oracle.weight.T + oracle.noise_std**2 * torch.eye(12)
    second_moment = covariance + torch.outer(oracle.bias, oracle.bias)
    missing = oracle.weight.T - weight @ second_moment - torch.outer(bias, oracle.bias)
    exact = {
        "encoder.head.mean.weight": -precision[:, None] * missing,
        "encoder.head.mean.bias": precision * (weight @ oracle.bias + bias),
    }
    for name, gradient in exact.items():
        error = draws[name].mean(0) - gradient
        assert (error.abs() <= six_standard_errors(draws[name])).all()


def test_sleep_gradient_vanishes_on_average_where_posterior_is_exact(wake_sleep, linear_gaussian):
    draws = gradient_draws(wake_sleep, linear_gaussian.model, linear_gaussian.sample(100), 300, update=1)
    for gradient in draws.values():
        assert (gradient.mean(0).abs() <= six_standard_errors(gradient)).all()


def test_sleep_step_dreams_with_the_decoder_just_updated(wake_sleep, linear_gaussian):
    model = linear_gaussian.model
    updates = wake_sleep.updates(model, minibatch(linear_gaussian.sample(10)), STATE)
    next(updates)
    with torch.no_grad():
        model.decoder.head.mean[0].bias += 10
    torch.manual_seed(1)
    sleep = next(updates)
    torch.manual_seed(1)
    z = model.prior().sample((10,))
    torch.testing.assert_close(-sleep.loss, model.posterior(model.likelihood(z).sample()).log_prob(z))


@pytest.mark.parametrize(("sleep_inputs", "is_binary"), [("sampled", True), ("mean", False)])
def test_sleep_inputs_of_a_bernoulli_are_as_the_option_says(sleep_inputs, is_binary, linear_gaussian):
    model = linear_gaussian.model
    model.decoder.head = BernoulliLikelihood(model.decoder.trunk).double()
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective = WakeSleep(num_samples=1, sleep_inputs=sleep_inputs)
    list(objective.updates(model, minibatch(torch.rand(10, 1, 3, 4).double()), STATE))
    assert ((seen[1] == 0) | (seen[1] == 1)).all() == is_binary


def test_bound_reported_by_wake_sleep_is_log_marginal_where_posterior_is_exact(wake_sleep, linear_gaussian):
    x = linear_gaussian.sample(50)
    wake = next(wake_sleep.updates(linear_gaussian.model, minibatch(x), STATE))
    torch.testing.assert_close(wake.logged["bound"], linear_gaussian.log_marginal(x))
    torch.testing.assert_close(wake.logged["bound"], wake.logged["reconstruction"] - wake.logged["kl"])


@pytest.mark.slow
def test_training_by_wake_sleep_reaches_likelihood_and_posterior(wake_sleep):
    truth = LinearGaussian()
    model = LinearGaussian(exact_posterior=False, exact_decoder=False, dtype=torch.float32).model
    train, test = truth.sample(2000).float(), truth.sample(1000, seed=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    num_steps = 1000
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        batch = minibatch(train[torch.randint(len(train), (100,))])
        for terms in wake_sleep.updates(model, batch, STATE):
            optimizer.zero_grad()
            terms.loss.mean().backward()
            optimizer.step()
        schedule.step()
    wake = next(wake_sleep.updates(model, minibatch(test.float()), STATE))
    gap = truth.log_marginal(test) - wake.logged["bound"]
    assert -0.02 < gap.mean() < 0.06


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_samples": 0, "sleep_inputs": "mean"}, "num_samples"),
        ({"num_samples": 1, "sleep_inputs": "grey"}, "sleep_inputs"),
    ],
)
def test_wake_sleep_refuses_by_key(settings, key):
    with pytest.raises(ValueError, match=rf"objective\.{key} must be"):
        WakeSleep(**settings)
