"""Pareto k-hat of importance weights: whether an estimate from them, and its stated error, can be trusted.

A generalised Pareto distribution is fitted to the largest weights (Vehtari, Simpson, Gelman, Yao and Gabry, 2024). Its
shape k says which moments the weights have: their variance is finite for k < 1/2, and above k = 0.7 no number of
samples that anybody takes is enough, while the standard error, of the weights that were seen, still looks small.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

HIGH = 0.7
"""The k-hat from which on an estimate cannot be trusted."""
_FEWEST = 5
"""Weights that a tail is fitted to, at least."""
_PRIOR_SHAPE, _PRIOR_WEIGHT = 0.5, 10
"""The fit counts as many further weights of this shape, which steadies it where the tail is short (their appendix)."""
_EQUAL = 1e-3
"""Nats: where the largest log weights differ by less they are equal, but for the rounding of float32."""
_SMALLEST = 1e-300
"""The smallest exceedance, as a share of the largest: weights that underflow have a logarithm all the same."""


class WeightTail:
    """The largest M = min(K/5, 3 sqrt(K)) of K log weights per datapoint, and the one below them; streamed.

    Args:
        num_samples: K, of all chunks together.
    """

    def __init__(self, num_samples: int) -> None:
        self._length = math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))
        self._kept: list[Tensor] = []
        self._waiting = 0

    def add(self, log_weights: Float[Tensor, "sample batch"]) -> None:
        """Takes further log weights of the same datapoints."""
        self._kept.append(log_weights.double())
        self._waiting += len(log_weights)
        if self._waiting > self._length:
            self._choose()

    def _choose(self) -> Float[Tensor, "sample batch"]:
        known = torch.cat(self._kept)
        largest = known.topk(min(self._length + 1, len(known)), dim=0).values
        self._kept, self._waiting = [largest], 0
        return largest

    @property
    def k_hat(self) -> Float[Tensor, " batch"]:
        """The shape of the tail: -inf where its weights are all equal, NaN where they are fewer than 5."""
        largest = self._choose()
        if self._length < _FEWEST:
            return torch.full_like(largest[0], math.nan)
        weights = (largest - largest[0]).exp()
        exceedances = (weights[:-1] - weights[-1]).flip(0)
        num, equal = self._length, largest[0] - largest[-1] < _EQUAL
        shape = generalised_pareto_shape(exceedances.where(~equal, 1.0))
        shape = (num * shape + _PRIOR_WEIGHT * _PRIOR_SHAPE) / (num + _PRIOR_WEIGHT)
        return shape.where(~equal, -math.inf)


def untrusted(k_hat: Float[Tensor, " batch"]) -> Bool[Tensor, " batch"] | None:
    """Which estimates cannot be trusted: of a high k-hat, or without one for their weights are no numbers.

    None where no datapoint has a k-hat: so few samples show no tail.
    """
    return None if k_hat.isnan().all() else ~(k_hat <= HIGH)


def generalised_pareto_shape(ascending: Float[Tensor, "exceedance batch"]) -> Float[Tensor, " batch"]:
    """The shape k of the density (1 + k x / s)^(-1/k - 1) / s that exceedances x > 0 are drawn from.

    By Zhang and Stephens (2009): theta = -k/s is averaged over points between the data's limits with the profile
    likelihood as weight, and k is the best one given that theta.
    """
    x = (ascending / ascending[-1]).clamp(min=_SMALLEST)  # the shape does not depend on the scale
    num, num_points = len(x), 30 + math.isqrt(len(x))
    steps = 1 - (num_points / (torch.arange(num_points).to(x) + 0.5)).sqrt()
    thetas = 1 + steps[:, None] / (3 * x[int(num / 4 + 0.5) - 1])
    shapes = torch.stack([torch.log1p(-theta * x).mean(0) for theta in thetas])
    profile = num * ((-thetas / shapes).log() - shapes - 1)
    theta = (profile.softmax(0) * thetas).sum(0)
    return torch.log1p(-theta * x).mean(0)
