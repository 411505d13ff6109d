import math

import mpmath
import numpy as np
import pytest
import torch
from linear_gaussian import six_standard_errors
from scipy import special, stats

from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian, kl_to_standard_normal

EXTREME_LOGITS = [-1e6, -1e4, -100.0, -30.0, -5.0, -1e-8, 0.0, 1e-8, 5.0, 30.0, 100.0, 1e4, 1e6]


both_bernoullis = pytest.mark.parametrize("kind", [Bernoulli, ContinuousBernoulli])


def test_bernoulli_equals_torch_on_binary_pixels():
    logits, x = 4 * torch.randn(5, 2, 3, 4), torch.randint(2, (5, 2, 3, 4)).float()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli(logits, event_dims=3).log_prob(x), expected)


def test_bernoulli_equals_scipy_on_grey_pixels():
    logits, x = 4 * torch.randn(7, 11, dtype=torch.float64), torch.rand(7, 11, dtype=torch.float64)
    y = special.expit(logits.numpy())
    expected = (special.xlogy(x.numpy(), y) + special.xlog1py(1 - x.numpy(), -y)).sum(-1)
    np.testing.assert_allclose(Bernoulli(logits, event_dims=1).log_prob(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_bernoulli_is_exact_and_finite_at_extreme_logits(x):
    logits = torch.tensor(EXTREME_LOGITS, requires_grad=True)
    log_prob = Bernoulli(logits, event_dims=0).log_prob(torch.full_like(logits, x))
    exact = np.array(EXTREME_LOGITS)
    expected = x * special.log_expit(exact) + (1 - x) * special.log_expit(-exact)
    np.testing.assert_allclose(log_prob.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    log_prob.sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), x - special.expit(exact), atol=1e-7)


def test_bernoulli_in_float32_equals_float64_over_an_image():
    logits, x = 6 * torch.randn(50, 784) - 4, torch.rand(50, 784).round()
    exact = Bernoulli(logits.double(), event_dims=1).log_prob(x.double())
    log_prob = Bernoulli(logits, event_dims=1).log_prob(x)
    torch.testing.assert_close(log_prob.double(), exact, rtol=1e-6, atol=0)


@both_bernoullis
def test_bernoulli_gradients_of_first_and_second_order_are_right(kind):
    logits = torch.randn(3, 4, dtype=torch.float64)
    logits[0] = torch.tensor([0.0, 1e-4, -0.2, 20.0])
    logits.requires_grad_()
    x = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)

    def log_prob(logits, x):
        return kind(logits, event_dims=1).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(log_prob, (logits, x))


@both_bernoullis
def test_bernoulli_gradients_per_datapoint_come_from_vmap(kind):
    logits, x = torch.randn(5, 4), torch.rand(5, 4)
    gradient = torch.func.grad(lambda logits, x: kind(logits, event_dims=1).log_prob(x))
    torch.testing.assert_close(torch.func.vmap(gradient)(logits, x), x - kind(logits, event_dims=1).mean)


@both_bernoullis
def test_bernoulli_broadcasts_several_draws_against_one_batch(kind):
    logits = torch.randn(6, 5, 2, 3, 4, requires_grad=True)
    x = torch.rand(5, 2, 3, 4)
    log_prob = kind(logits, event_dims=3).log_prob(x)
    assert log_prob.shape == (6, 5)
    torch.testing.assert_close(log_prob[2], kind(logits[2], event_dims=3).log_prob(x))
    log_prob.sum().backward()
    assert logits.grad.shape == logits.shape


def test_bernoulli_on_grey_pixels_is_highest_where_the_mean_is_the_pixel():
    x = torch.tensor([0.1, 0.5, 0.8])
    logits = torch.logit(x).requires_grad_()
    log_prob = Bernoulli(logits, event_dims=1).log_prob(x)
    entropy = special.entr(x.numpy()).sum() + special.entr(1 - x.numpy()).sum()
    assert log_prob.item() == pytest.approx(-entropy, rel=1e-6)
    log_prob.backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3), atol=1e-6, rtol=0)


def test_bernoulli_samples_are_binary_with_the_right_mean():
    likelihood = Bernoulli(torch.tensor([-2.0, 0.0, 3.0], requires_grad=True).expand(20_000, 3), event_dims=1)
    draws = likelihood.sample()
    assert not draws.requires_grad and set(draws.unique().tolist()) == {0.0, 1.0}
    assert ((draws.mean(0) - likelihood.mean[0]).abs() < six_standard_errors(draws)).all()


def test_continuous_bernoulli_equals_torch():
    logits, x = 4 * torch.randn(5, 40, dtype=torch.float64), torch.rand(5, 40, dtype=torch.float64)
    logits[0] /= 1000  # around y = 0.5
    density = ContinuousBernoulli(logits, event_dims=1)
    expected = torch.distributions.ContinuousBernoulli(logits=logits)
    torch.testing.assert_close(density.log_prob(x), expected.log_prob(x).sum(-1))
    torch.testing.assert_close(density.mean, expected.mean)


@pytest.mark.parametrize("logit", [-300.0, -1.0, -1e-3, 0.0, 0.2, 30.0])
def test_continuous_bernoulli_integrates_to_one_over_grey_pixels(logit):
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(200))
    x = (nodes + 1) / 2
    density = ContinuousBernoulli(torch.full_like(x, logit), event_dims=0)
    share = weights / 2 * density.log_prob(x).exp()
    assert share.sum().item() == pytest.approx(1, abs=1e-10)
    assert (share * x).sum().item() == pytest.approx(density.mean[0].item(), abs=1e-10)


@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_continuous_bernoulli_is_exact_and_finite_at_extreme_logits_and_near_one_half(x):
    values = [*EXTREME_LOGITS, -0.3, -0.2, -1e-3, 1e-4, 0.01, 0.249, 0.251]
    logits = torch.tensor(values, requires_grad=True)
    log_prob = ContinuousBernoulli(logits, event_dims=0).log_prob(torch.full_like(logits, x))
    log_prob.sum().backward()
    assert logits.grad is not None
    with mpmath.workdps(60):
        exact = [mpmath.mpf(value) for value in logits.tolist()]
        norms = [mpmath.log(mpmath.expm1(t) / t) if t else mpmath.mpf(0) for t in exact]
        expected = [float(x * t - norm) for t, norm in zip(exact, norms, strict=True)]
        slopes = [float(x - 1 / -mpmath.expm1(-t) + 1 / t) if t else x - 0.5 for t in exact]
    np.testing.assert_allclose(log_prob.detach().numpy(), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(logits.grad.numpy(), slopes, atol=5e-7)


def test_continuous_bernoulli_samples_are_grey_with_the_right_mean_and_spread():
    logits = torch.tensor([-200.0, -2.0, 0.0, 3.0, 200.0], requires_grad=True)
    density = ContinuousBernoulli(logits.expand(20_000, 5), event_dims=1)
    draws, mean = density.sample(), ContinuousBernoulli(logits, event_dims=1).mean
    (variance,) = torch.autograd.grad(mean.sum(), logits)  # as of every exponential family
    assert not draws.requires_grad and draws.min() >= 0 and draws.max() <= 1
    assert ((draws.mean(0) - mean).abs() < six_standard_errors(draws)).all()
    squares = (draws - mean.detach()).square()
    assert ((squares.mean(0) - variance).abs() < six_standard_errors(squares)).all()


def test_continuous_bernoulli_is_found_by_its_mean():
    mean = torch.tensor([1e-6, 0.001, 0.3, 0.5, 0.500001, 0.999], dtype=torch.float64)
    logits = ContinuousBernoulli.logits_of(mean)
    torch.testing.assert_close(ContinuousBernoulli(logits, event_dims=0).mean, mean, rtol=1e-12, atol=0)


def test_gaussian_equals_torch_and_scipy():
    mean, log_variance, x = (torch.randn(5, 2, 3, dtype=torch.float64) for _ in range(3))
    density = DiagonalGaussian(mean, 3 * log_variance, event_dims=2)
    std = (1.5 * log_variance).exp()
    expected = torch.distributions.Independent(torch.distributions.Normal(mean, std), 2).log_prob(x)
    torch.testing.assert_close(density.log_prob(x), expected)
    np.testing.assert_allclose(density.log_prob(x), stats.norm.logpdf(x, mean, std).sum((1, 2)))
    torch.testing.assert_close(density.std, std)
    torch.testing.assert_close(density.variance, std**2)


@pytest.mark.parametrize("log_variance", [-20.0, -8.0, 0.0, 8.0, 20.0])
def test_gaussian_equals_scipy_at_extreme_variances(log_variance):
    std = math.exp(log_variance / 2)
    x = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64) * std
    density = DiagonalGaussian(torch.zeros_like(x), torch.full_like(x, log_variance), event_dims=0)
    np.testing.assert_allclose(density.log_prob(x), stats.norm.logpdf(x, 0, std))


def test_gaussian_log_prob_includes_the_constants():
    zeros = torch.zeros(1, 784)
    log_prob = DiagonalGaussian(zeros, zeros, event_dims=1).log_prob(zeros)
    assert log_prob.item() == pytest.approx(-392 * math.log(2 * math.pi))


def test_rsample_is_mean_plus_std_times_noise_with_its_gradient():
    mean = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    log_variance = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    density = DiagonalGaussian(mean, log_variance, event_dims=1)
    torch.manual_seed(5)
    z = density.rsample()
    torch.manual_seed(5)
    noise = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(z, mean + (log_variance / 2).exp() * noise)
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_variance.grad, 0.5 * density.std.detach() * noise)


def test_sample_is_rsample_without_gradient():
    mean = torch.randn(4, 3, requires_grad=True)
    density = DiagonalGaussian(mean, torch.zeros(4, 3), event_dims=1)
    torch.manual_seed(5)
    expected = density.rsample((2,))
    torch.manual_seed(5)
    draws = density.sample((2,))
    assert draws.shape == (2, 4, 3) and not draws.requires_grad
    assert torch.equal(draws, expected)


def test_gaussian_samples_have_the_right_moments():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    draws = DiagonalGaussian(mean, log_variance, event_dims=1).sample((20_000,))[:, 0]
    assert ((draws.mean(0) - mean).abs() < six_standard_errors(draws)).all()
    squares = (draws - mean).square()
    assert ((squares.mean(0) - log_variance.exp()).abs() < six_standard_errors(squares)).all()


def test_kl_equals_torch_in_every_dimension():
    q = DiagonalGaussian(torch.randn(5, 3), 2 * torch.randn(5, 3), event_dims=1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(q.mean, q.std), normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(q), expected)


def test_kl_is_zero_at_the_prior_and_positive_near_it():
    zeros = torch.zeros(1, 2)
    assert kl_to_standard_normal(DiagonalGaussian(zeros, zeros, event_dims=1)).tolist() == [[0.0, 0.0]]
    near = kl_to_standard_normal(DiagonalGaussian(zeros, zeros + 1e-2, event_dims=1))
    torch.testing.assert_close(near, torch.full_like(near, 1e-4 / 4), rtol=5e-3, atol=0)


def test_kl_is_the_mean_of_the_log_ratio():
    q = DiagonalGaussian(torch.tensor([[0.7, -1.0]]), torch.tensor([[-1.0, 0.5]]), event_dims=1)
    prior = DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2), event_dims=1)
    z = q.sample((50_000,))
    ratio = (q.log_prob(z) - prior.log_prob(z))[:, 0]
    assert (ratio.mean() - kl_to_standard_normal(q).sum()).abs() < six_standard_errors(ratio)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_is_promoted_and_double_is_kept(given, kept):
    parameters = torch.randn(2, 3).to(given)
    x = torch.rand(2, 3).to(given)
    gaussian = DiagonalGaussian(parameters, parameters, event_dims=1)
    for kind in (Bernoulli, ContinuousBernoulli):
        assert kind(parameters, event_dims=1).log_prob(x).dtype == kept
    assert gaussian.log_prob(x).dtype == gaussian.rsample().dtype == kept
    assert kl_to_standard_normal(gaussian).dtype == kept


def test_unflatten_splits_the_batch_in_order():
    parameters, x = torch.randn(6, 4), torch.rand(6, 4)
    gaussian = DiagonalGaussian(parameters, parameters, event_dims=1)
    for density in (Bernoulli(parameters, event_dims=1), ContinuousBernoulli(parameters, event_dims=1), gaussian):
        split = density.unflatten((2, 3)).log_prob(x.unflatten(0, (2, 3)))
        torch.testing.assert_close(split, density.log_prob(x).unflatten(0, (2, 3)))
