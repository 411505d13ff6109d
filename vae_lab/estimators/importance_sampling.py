"""Importance sampling: log p(x) ~ log 1/K sum p(x, z_k) / q(z_k|x), z_k ~ q(z|x).

Unbiased for p(x), so its logarithm lies below log p(x) on average, for large K by Var(w) / (2 K p(x)^2): half
of the variance that it states. Where q(z|x) misses a part of p(z|x), neither is seen: few large weights decide, and
the largest have not come yet. The effective sample size and Pareto k-hat of every datapoint tell.
"""

import math
from dataclasses import dataclass

import torch

from vae_lab import elbo
from vae_lab.errors import require_integer
from vae_lab.estimators.base import Estimate, Estimator, LogMean, Noise, rows_at_once
from vae_lab.estimators.pareto import WeightTail, untrusted
from vae_lab.model import VAE, Images, PerDatapoint

NOISE_CHUNK = 50
"""Samples that share one generator. A constant, so that `samples_per_chunk` changes no noise."""


@dataclass(kw_only=True)
class ImportanceSampling(Estimator):
    """log p(x) from K samples of the posterior q(z|x).

    Args:
        num_samples: K.
        samples_per_chunk: Samples of a datapoint that go through the decoder at once; None chooses by the
            image size. It moves time and memory, not the noise.
    """

    needs_encoder = True
    beside = ("ess_share", "k_hat")

    num_samples: int
    samples_per_chunk: int | None

    def __post_init__(self) -> None:
        advice = "one has no standard error, and is the bound that `evaluate` reports anyway; more than these never end"
        require_integer("estimator.num_samples", self.num_samples, minimum=2, maximum=10**9, advice=advice)
        at_once = self.samples_per_chunk
        require_integer("estimator.samples_per_chunk", at_once, minimum=1, optional=True, advice="null: chosen")

    @property
    def label(self) -> str:
        """`importance_sampling_K`."""
        return f"importance_sampling_{self.num_samples}"

    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, ...]:
        """The log of the mean weight, its variance, the effective sample size by K, and Pareto k-hat."""
        posterior = model.posterior(x)
        mean, std = posterior.mean, posterior.std
        at_once = self.samples_per_chunk or max(1, rows_at_once(model, x.device) // len(x))
        log_mean, tail = LogMean(), WeightTail(self.num_samples)
        for chunk in range(math.ceil(self.num_samples / NOISE_CHUNK)):
            count = min(NOISE_CHUNK, self.num_samples - chunk * NOISE_CHUNK)
            for normal in noise.stream(chunk).normal(NOISE_CHUNK, model.latent_dim)[:count].split(at_once):
                z = torch.addcmul(mean, std, normal)
                log_weights = elbo.log_weights(model, x, z, posterior)
                log_mean.add(log_weights)
                tail.add(log_weights)
        return log_mean.value, log_mean.variance, log_mean.ess_share, tail.k_hat

    def summary(self, estimate: Estimate) -> dict[str, float]:
        """What is added: the mean effective sample size by K, and the share of datapoints in doubt by their k-hat.

        That counts those without a k-hat, whose weights are no numbers. Fewer than 21 samples show no tail of any
        datapoint, and then there is no such share.
        """
        shares = {"_ess_share": float(estimate.beside["ess_share"].mean())}
        if (doubtful := untrusted(estimate.beside["k_hat"])) is not None:
            shares["_high_k_hat"] = float(doubtful.double().mean())
        return super().summary(estimate) | shares
