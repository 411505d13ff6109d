"""The densities of the lab, in nats: Bernoulli on [0, 1], diagonal Gaussian, KL to N(0, I) (appendices B, C).

Parameters in half precision are promoted to float32, so that densities are never computed in bfloat16. Noise
comes from torch's global stream, which the training loop seeds for every step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

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


class Bernoulli(Distribution):
    """Independent pixels, log p(x) = sum x log y + (1 - x) log(1 - y), y = sigmoid(logits) (appendix C.1).

    `x` may be any number in [0, 1], as the grey pixels of the paper's MNIST are; then this is no normalised
    density but the paper's objective. Written in logits, it is exact where sigmoid saturates.
    """

    def __init__(self, logits: Float[Tensor, "..."], event_dims: int) -> None:
        self.logits = _at_least_float32(logits)
        self.event_dims = event_dims

    @property
    def mean(self) -> Float[Tensor, "..."]:
        """sigmoid(logits)."""
        return torch.sigmoid(self.logits)

    def sample(self) -> Float[Tensor, "..."]:
        """Binary draws, as floats."""
        return torch.bernoulli(self.mean.detach())

    def log_prob(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The sum of x * logits - softplus(logits), in nats."""
        logits = self.logits
        if x.shape != logits.shape:
            x, logits = torch.broadcast_tensors(x, logits)
        terms: Tensor = _BernoulliTerms.apply(logits, x)  # pyright: ignore[reportAssignmentType]
        return _sum_event(terms, self.event_dims)

    def unflatten(self, batch_shape: Sequence[int]) -> "Bernoulli":
        """The same density with its first dimension split into `batch_shape`."""
        return Bernoulli(self.logits.unflatten(0, tuple(batch_shape)), self.event_dims)


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


class _BernoulliTerms(torch.autograd.Function):
    """x * logits - softplus(logits) for every pixel, with softplus(l) = max(l, 0) - log sigmoid(|l|).

    Twice as fast on CPU as `binary_cross_entropy_with_logits`, forward and backward together, because log1p
    is slow there. Exact to rounding for any finite logit, and so is the gradient; automatic differentiation
    would get that wrong at 0, where the kinks of the two parts cancel.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        # In this order nothing is lost where x is 0 or 1: two lines then give 0 or -|logits| exactly.
        terms = x * logits
        terms -= logits.clamp(min=0)
        terms += logits.abs().sigmoid_().log_()
        return terms

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, x = ctx.saved_tensors
        grad = grad_outputs[0]
        return (x - logits.sigmoid()) * grad, logits * grad if ctx.needs_input_grad[1] else None
