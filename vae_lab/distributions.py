"""The densities of the lab, in nats: two Bernoullis on [0, 1], diagonal Gaussian, KL to N(0, I) (appendices B, C).

Parameters in half precision are promoted to float32, so that densities are never computed in bfloat16. Noise
comes from torch's global stream, which the training loop seeds for every step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


class Distribution(ABC):
    """A density over events: the last `event_dims` dimensions of the parameters; the others are a batch."""

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "..."]:
        """E[x], of the parameters' shape."""

    @abstractmethod
    def sample(self) -> Float[Tensor, "..."]:
        """One draw for every batch element; no gradient."""

    @abstractmethod
    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The log density of `x` in nats, summed over the event; `x` and the parameters broadcast."""

    @abstractmethod
    def unflatten(self, batch_shape: Sequence[int]) -> "Distribution":
        """The same density with its first dimension split into `batch_shape`."""


@runtime_checkable
class IndependentPixels(Protocol):
    """A density that is a product over the entries of its event: what each of them contributes is known."""

    def log_prob_terms(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The log density of every entry in nats; their sum over the event is `log_prob`."""
        ...


class _LogitPixels(Distribution):
    """Independent pixels, each with one parameter, its logit, and a density that is exponential in x * logit."""

    def __init__(self, logits: Float[Tensor, "..."], event_dims: int) -> None:
        self.logits = _at_least_float32(logits)
        self.event_dims = event_dims

    @abstractmethod
    def _terms(self, x: Float[Tensor, "*shape"], logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The log density of every pixel."""

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The sum over the event, in nats."""
        return _sum_event(self.log_prob_terms(x), self.event_dims)

    def log_prob_terms(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The log density of every pixel."""
        logits = self.logits
        if x.shape != logits.shape:
            x, logits = torch.broadcast_tensors(x, logits)
        return self._terms(x, logits)

    def unflatten(self, batch_shape: Sequence[int]) -> "_LogitPixels":
        """The same density with its first dimension split into `batch_shape`."""
        return type(self)(self.logits.unflatten(0, tuple(batch_shape)), self.event_dims)


class Bernoulli(_LogitPixels):
    """Independent pixels, log p(x) = sum x log y + (1 - x) log(1 - y), y = sigmoid(logits) (appendix C.1).

    `x` may be any number in [0, 1], as the grey pixels of the paper's MNIST are; then this is no normalised
    density but the paper's objective. Written in logits, it is exact where sigmoid saturates.
    """

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """sigmoid(logits)."""
        return torch.sigmoid(self.logits)

    def sample(self) -> Float[Tensor, "..."]:
        """Binary draws, as floats."""
        return torch.bernoulli(self.mean.detach())

    def _terms(self, x: Float[Tensor, "*shape"], logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The difference x * logits - softplus(logits)."""
        return _BernoulliTerms.apply(logits, x)  # pyright: ignore[reportReturnType]


class ContinuousBernoulli(_LogitPixels):
    """Independent pixels of a density on [0, 1], log p(x) = sum x * logits - log int_0^1 exp(t * logits) dt.

    It is the Bernoulli's formula with the constant that makes it integrate to 1 over grey pixels (Loaiza-Ganem and
    Cunningham, 2019, who write y = sigmoid(logits) for lambda). As a density it may exceed 1, and a bound 0.
    """

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """E[x] = 1 / (1 - exp(-logits)) - 1 / logits, which is not sigmoid(logits)."""
        return _continuous_bernoulli_mean(self.logits)

    @torch.no_grad()
    def sample(self) -> Float[Tensor, "..."]:
        """Draws of grey pixels, by the inverse of the distribution function."""
        size = self.logits.abs().clamp(min=_NEARLY_ZERO)
        x = (-torch.log1p(torch.rand_like(size) * torch.expm1(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - x, x)

    def _terms(self, x: Float[Tensor, "*shape"], logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return _ContinuousBernoulliTerms.apply(logits, x)  # pyright: ignore[reportReturnType]

    @staticmethod
    def logits_of(mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The logits of the density with this mean, which lies between 0 and 1: the fit by maximum likelihood."""
        wanted = mean.double()
        low, high = -1 / wanted, 1 / (1 - wanted)  # since E[x] < 1 / |logit| where the logit is negative
        for _ in range(100):
            middle = (low + high) / 2
            is_above = _continuous_bernoulli_mean(middle) > wanted
            low, high = torch.where(is_above, low, middle), torch.where(is_above, middle, high)
        return low.to(mean.dtype)


class DiagonalGaussian(Distribution):
    """N(mean, diag(exp(log_variance))), constants included (appendix C.2)."""

    def __init__(self, mean: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"], event_dims: int) -> None:
        self._mean = _at_least_float32(mean)
        self.log_variance = _at_least_float32(log_variance)
        self.event_dims = event_dims

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """The mean, as given."""
        return self._mean

    @property
    def variance(self) -> Float[Tensor, "..."]:
        """exp(log_variance)."""
        return self.log_variance.exp()

    @property
    def std(self) -> Float[Tensor, "..."]:
        """exp(log_variance / 2)."""
        return (0.5 * self.log_variance).exp()

    def detach(self) -> "DiagonalGaussian":
        """The density as a function of its argument alone: no gradient reaches its parameters."""
        return DiagonalGaussian(self._mean.detach(), self.log_variance.detach(), self.event_dims)

    def rsample(
        self, sample_shape: Sequence[int] = (), noise: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."]:
        """A draw mean + std * noise that gradients pass through, eq. (4): [*sample_shape, *shape].

        `noise`, standard normal and of the draw's shape, is drawn here where none is given.
        """
        if noise is None:
            shape = (*sample_shape, *self._mean.shape)
            noise = torch.randn(shape, dtype=self._mean.dtype, device=self._mean.device)
        return torch.addcmul(self._mean, self.std, noise)

    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "..."]:
        """`rsample` without its gradient: the same stream, the same numbers."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """-1/2 sum (log 2 pi + log_variance + (x - mean)^2 / variance), in nats."""
        squares = (x - self._mean).square() * (-self.log_variance).exp()
        size = math.prod(self._mean.shape[self._mean.dim() - self.event_dims :])
        return -0.5 * (_sum_event(squares + self.log_variance, self.event_dims) + size * math.log(2 * math.pi))

    def log_prob_terms(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The log density of every entry."""
        squares = (x - self._mean).square() * (-self.log_variance).exp()
        return -0.5 * (squares + self.log_variance + math.log(2 * math.pi))

    def unflatten(self, batch_shape: Sequence[int]) -> "DiagonalGaussian":
        """The same density with its first dimension split into `batch_shape`."""
        shape = tuple(batch_shape)
        mean, log_variance = self._mean.unflatten(0, shape), self.log_variance.unflatten(0, shape)
        return DiagonalGaussian(mean, log_variance, self.event_dims)


def kl_to_standard_normal(q: DiagonalGaussian) -> Float[Tensor, "*batch latent"]:
    """KL(q || N(0, I)) = 1/2 (mean^2 + variance - 1 - log variance), nats per dimension (appendix B)."""
    # expm1 keeps the digits that exp(.) - 1 loses where the posterior is near the prior.
    return 0.5 * (q.mean.square() + torch.expm1(q.log_variance) - q.log_variance)


def _at_least_float32(parameter: Tensor) -> Tensor:
    return parameter.float() if parameter.dtype in (torch.bfloat16, torch.float16) else parameter


def _sum_event(terms: Tensor, event_dims: int) -> Tensor:
    return terms.sum(dim=tuple(range(-event_dims, 0))) if event_dims else terms


class _LogitTerms(torch.autograd.Function):
    """x * logits - log of the integral of exp(x * logits) for every pixel, whose gradient is (x - mean, logits)."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)


class _BernoulliTerms(_LogitTerms):
    """x * logits - softplus(logits) for every pixel, with softplus(l) = max(l, 0) - log sigmoid(|l|).

    Twice as fast on CPU as `binary_cross_entropy_with_logits`, forward and backward together, because log1p
    is slow there. Exact to rounding for any finite logit, and so is the gradient; automatic differentiation
    would get that wrong at 0, where the kinks of the two parts cancel.
    """

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        # In this order nothing is lost where x is 0 or 1: two lines then give 0 or -|logits| exactly.
        terms = x * logits
        terms -= logits.clamp(min=0)
        terms += logits.abs().sigmoid_().log_()
        return terms

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return _logit_gradients(ctx, torch.sigmoid, *grad_outputs)


class _ContinuousBernoulliTerms(_LogitTerms):
    """x * l - log((exp(l) - 1) / l) for every pixel, the logarithm as max(l, 0) + log((1 - exp(-|l|)) / |l|).

    Exact to rounding for any finite logit, and so is the gradient x - E[x], whose digits automatic differentiation
    would lose near l = 0.
    """

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        size = logits.abs().clamp(min=_NEARLY_ZERO)
        return x * logits - logits.clamp(min=0) - torch.log(-torch.expm1(-size) / size)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return _logit_gradients(ctx, _continuous_bernoulli_mean, *grad_outputs)


def _logit_gradients(ctx: Any, mean: Callable[[Tensor], Tensor], grad: Tensor) -> tuple[Tensor, Tensor | None]:
    logits, x = ctx.saved_tensors
    return (x - mean(logits)) * grad, logits * grad if ctx.needs_input_grad[1] else None


_NEARLY_ZERO = 1e-20
"""Stands in place of a logit of 0, by which nothing can be divided."""
_LANGEVIN = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555)
"""The coefficients of u, u^3, ... u^9 in the series of coth(u) - 1 / u."""


def _continuous_bernoulli_mean(logits: Tensor) -> Tensor:
    """1 / (1 - exp(-l)) - 1 / l = 1/2 + (coth(l/2) - 2/l) / 2, by its series where the difference loses digits.

    Where exp(-l) is so large that its reciprocal adds nothing it is cut, which keeps derivatives finite.
    """
    is_small = logits.abs() < 0.25
    large = torch.where(is_small, 1.0, logits)
    half = torch.where(is_small, logits / 2, 0.0)
    square, series = half.square(), torch.zeros_like(half)
    for coefficient in reversed(_LANGEVIN):
        series = coefficient + square * series
    return torch.where(is_small, 0.5 + half * series / 2, -1 / torch.expm1((-large).clamp(max=40)) - 1 / large)
