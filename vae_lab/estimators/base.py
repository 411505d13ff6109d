"""What an estimator of log p(x) is: images -> nats per datapoint with their Monte Carlo variance, streamed.

Datapoints are handled in the fixed blocks of `randomness.NOISE_BLOCK`, counted over the whole data set, and
in pieces of blocks where memory asks for it. The noise of a datapoint depends on the seed and its index only.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.model import VAE, Images, Latents, PerDatapoint
from vae_lab.randomness import NOISE_BLOCK, generator, seed_global_noise


@dataclass(frozen=True)
class Estimate:
    """log p(x) of every datapoint in nats, and the Monte Carlo variance of each: float64, on the CPU."""

    log_likelihood: PerDatapoint
    variance: PerDatapoint
    beside: Mapping[str, PerDatapoint] = field(default_factory=dict)
    """What else the estimator says about every datapoint."""


class Noise:
    """The noise of some datapoints of one block: drawn for the whole block, whichever of them are asked for.

    Args:
        like: A tensor of the device and the number type wanted.
        name: Seed, estimator and block: what the streams are named by.
        first: The first datapoint's position in the block.
        count: Datapoints.
    """

    def __init__(self, like: Tensor, name: tuple[int | str, ...], first: int, count: int) -> None:
        self._like, self._name, self._rows = like, name, slice(first, first + count)

    def stream(self, *purpose: int | str) -> "Stream":
        """A stream of its own; the same purpose begins the same stream again."""
        return Stream(self._like, generator(self._like.device, *self._name, *purpose), self._rows)

    def simulated(self, model: VAE) -> tuple[Latents, Images]:
        """Draws from the model, z from the prior and x given z, in the place of the datapoints."""
        device = self._like.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_global_noise(device, *self._name, "simulated")  # a distribution draws from the global stream
            z = model.prior().sample((NOISE_BLOCK,))
            x = model.likelihood(z).sample()
        return z[self._rows], x[self._rows]


class Stream:
    """Noise drawn in turn from one generator."""

    def __init__(self, like: Tensor, generator: torch.Generator, rows: slice) -> None:
        self._options = {"generator": generator, "device": like.device, "dtype": like.dtype}
        self._rows = rows

    def normal(self, num_samples: int, dim: int) -> Float[Tensor, "sample batch dim"]:
        """The next standard normal numbers."""
        return torch.randn((num_samples, NOISE_BLOCK, dim), **self._options)[:, self._rows]

    def uniform(self, num_samples: int) -> Float[Tensor, "sample batch"]:
        """The next uniform numbers in [0, 1)."""
        return torch.rand((num_samples, NOISE_BLOCK), **self._options)[:, self._rows]


class Estimator(ABC):
    """An estimate of log p(x), per datapoint."""

    needs_encoder: ClassVar[bool]
    """Whether it uses q(z|x), which a model trained by Monte Carlo EM does not have."""
    bias: ClassVar[str] = "downwards"
    """Where its log p(x) lies on average: `downwards`, `none` or `either way`."""
    beside: ClassVar[tuple[str, ...]] = ()
    """What `estimate_batch` returns of every datapoint besides log p(x) and its variance."""
    quantity: ClassVar[str] = "log_likelihood"
    """What it is in the ledger; another name for what is not measured on the images of a split."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name in the ledger, with the number of samples that it spends: `importance_sampling_500`."""

    def check(self, model: VAE) -> None:  # noqa: B027 (most handle every model)
        """Refuses a model that it cannot handle, by a ConfigError; `estimate` asks first."""

    @abstractmethod
    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, ...]:
        """The log p(x) of at most a block of datapoints, variance, and what `beside` names, on the model's device."""

    def summary(self, estimate: Estimate) -> dict[str, float]:
        """What the ledger says beside the mean over the datapoints, by the ending of its key.

        `_se` is the Monte Carlo error of the mean with the data held fixed, from errors that are independent.
        """
        return {"_se": math.sqrt(float(estimate.variance.sum())) / len(estimate.variance)}

    @torch.no_grad()
    def estimate(
        self,
        model: VAE,
        images: Images,
        *,
        seed: int,
        first_index: int = 0,
    ) -> Estimate:
        """The log p(x) of `images`, which are the data set's datapoints from `first_index` on.

        Memory grows with the square root of the number of samples at most, and with that of datapoints by the result.
        The weights decide device and number type; `model.eval()` is the caller's choice.
        """
        self.check(model)
        like = next(model.parameters())
        results = []
        begin, end = first_index, first_index + len(images)
        while begin < end:
            block, first = divmod(begin, NOISE_BLOCK)
            count = min(end - begin, NOISE_BLOCK - first, rows_at_once(model, like.device))
            position = begin - first_index
            x = images[position : position + count].to(like.device, like.dtype)
            noise = Noise(like, (seed, type(self).__name__, block), first, count)
            results.append([part.double().cpu() for part in self.estimate_batch(model, x, noise)])
            begin += count
        if not results:
            results = [[torch.zeros(0, dtype=torch.float64)] * (2 + len(self.beside))]
        log_likelihood, variance, *beside = map(torch.cat, zip(*results, strict=True))
        return Estimate(log_likelihood, variance, dict(zip(self.beside, beside, strict=True)))


def settings_of(estimator: Estimator) -> str:
    """All that an estimator was made with, by which the ledger knows an equal request."""
    return json.dumps(vars(estimator), sort_keys=True, default=str)


class LogMean:
    """The log of 1/K sum_k w_k per datapoint, streamed, and its delta-method variance Var(w) / (K mean(w)^2).

    Keeps the weights' mean and squared deviations in float64, relative to the largest weight so far (Chan's
    update), so that nothing overflows and nearly equal weights do not cancel.
    """

    def __init__(self) -> None:
        self.count = 0
        self._scale = self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, log_weights: Float[Tensor, "sample batch"]) -> None:
        """Takes further log weights of the same datapoints."""
        log_weights = log_weights.double()
        count, largest = len(log_weights), log_weights.amax(0)
        if self.count == 0:
            self._scale = largest
            self._mean = self._squares = torch.zeros_like(largest)
        scale = torch.maximum(self._scale, largest)
        reference = scale.where(scale > -math.inf, 0.0)  # as long as all weights are 0
        shrink = (self._scale - reference).exp()
        weights = (log_weights - reference).exp()
        mean = weights.mean(0)
        old_mean, total = self._mean * shrink, self.count + count
        step = mean - old_mean
        self._squares = (
            self._squares * shrink.square()
            + (weights - mean).square().sum(0)
            + step.square() * (self.count * count / total)
        )
        self._mean = old_mean + step * (count / total)
        self._scale, self.count = scale, total

    @property
    def value(self) -> PerDatapoint:
        """The log of the mean weight."""
        return self._scale + self._mean.log()

    @property
    def variance(self) -> PerDatapoint:
        """The variance of `value` for independent weights; needs two of them."""
        return self._squares / (self.count - 1) / self.count / self._mean.square()

    @property
    def ess_share(self) -> PerDatapoint:
        """The effective sample size (sum w)^2 / sum w^2 as a share of K: 1 where all weights are equal."""
        return 1 / (1 + self._squares / self.count / self._mean.square())


def rows_at_once(model: VAE, device: torch.device) -> int:
    """Images that the decoder makes at once: bounded memory, and on a CPU where a chunk costs least."""
    elements = 2**25 if device.type == "cuda" else 2**21
    channel, height, width = model.image_shape
    return max(1, elements // (channel * height * width))
