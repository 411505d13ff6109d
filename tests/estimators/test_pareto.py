import math

import numpy as np
import pytest
import torch
from linear_gaussian import six_standard_errors
from scipy.stats import genpareto

from vae_lab.estimators.pareto import WeightTail, generalised_pareto_shape


def exceedances(shape: float, num: int, batch: int) -> torch.Tensor:
    """Ascending draws of a known shape and an odd scale."""
    return torch.from_numpy(np.sort(genpareto.rvs(shape, scale=30.0, size=(num, batch), random_state=0), axis=0))


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3, 0.7, 1.5])
def test_known_shape_is_found(shape):
    found = generalised_pareto_shape(exceedances(shape, 2000, 300))
    # the estimator is biased by less than the error of a single fit, (1 + k) / sqrt(n) for k > -1/2
    assert (found.mean() - shape).abs() < six_standard_errors(found) + 0.2 * (1 + shape) / math.sqrt(2000)
    assert float(found.std()) == pytest.approx((1 + shape) / math.sqrt(2000), rel=0.3)


def test_fit_is_near_the_maximum_of_the_likelihood_that_scipy_finds():
    draws = exceedances(0.4, 3000, 3)
    best = [genpareto.fit(column.numpy(), floc=0)[0] for column in draws.T]
    assert generalised_pareto_shape(draws).tolist() == pytest.approx(best, abs=0.2 * 1.4 / math.sqrt(3000))


def test_shape_does_not_depend_on_the_scale():
    draws = exceedances(0.4, 50, 4)
    torch.testing.assert_close(generalised_pareto_shape(draws * 1e-200), generalised_pareto_shape(draws))


@pytest.mark.parametrize("chunk", [1, 7, 97, 1001])
def test_k_hat_is_that_of_the_largest_weights_however_they_come(chunk):
    log_weights = torch.randn(1001, 5, dtype=torch.float64) * 2 - 1e4
    tail = WeightTail(1001)
    for piece in log_weights.split(chunk):
        tail.add(piece)
    num = math.ceil(3 * math.sqrt(1001))
    weights = (log_weights + 1e4).exp().sort(0).values
    shape = generalised_pareto_shape(weights[-num:] - weights[-num - 1])
    torch.testing.assert_close(tail.k_hat, (num * shape + 10 * 0.5) / (num + 10))


@pytest.mark.slow
@pytest.mark.parametrize("excess", [0.2, 0.5, 0.9])
def test_k_hat_of_a_proposal_that_is_too_narrow_is_its_known_shape(excess):
    """Weights of N(0, 1) by N(0, s^2) have the tail index 1 - s^2: draws beyond x have weights of this power."""
    std = math.sqrt(1 - excess)
    x = torch.randn(200_000, 50, dtype=torch.float64) * std
    tail = WeightTail(len(x))
    tail.add(-0.5 * x.square() + 0.5 * x.square() / std**2)
    # the tail is a power times a root of a logarithm, which bends k-hat downwards by some hundredths
    assert float(tail.k_hat.mean()) == pytest.approx(excess, abs=0.12)


def test_equal_weights_have_no_tail_and_few_show_none():
    tail, short = WeightTail(100), WeightTail(20)
    tail.add(torch.tensor([0.0, 1e-4]) * torch.randn(100, 2).round())  # as float32 rounds
    short.add(torch.randn(20, 2))
    assert tail.k_hat.tolist() == [-math.inf, -math.inf]
    assert short.k_hat.isnan().all()


def test_weights_that_underflow_are_a_heavy_tail():
    tail = WeightTail(100)
    tail.add(-100.0 * torch.arange(100.0)[:, None])
    assert tail.k_hat > 10
