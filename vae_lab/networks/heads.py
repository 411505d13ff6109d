"""Heads: features -> distribution, orthogonal to the network that made the features (appendix C)."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian
from vae_lab.errors import ConfigError, require_number


@runtime_checkable
class DecoderTrunk(Protocol):
    """What a likelihood needs of a decoder's trunk."""

    def readout(self) -> nn.Module:
        """A fresh linear map from the features to [batch, channel, height, width]."""
        ...


class GaussianPosterior(nn.Module):
    """q(z|x) = N(mean, diag(exp(log_variance))), both linear in the features: the encoder's head.

    Args:
        in_features: The number of features.
        latent_dim: Size of z.
        log_variance_factor: Of the log-variance's weights. With 0.1, as in the author's code, the variance follows x
            ten times as slowly under Adagrad or Adam, whose steps no factor of a gradient changes; its bias is free.
    """

    def __init__(self, in_features: int, latent_dim: int, log_variance_factor: float = 1.0) -> None:
        advice = "1 is the plain linear map, the author's code has 0.1"
        require_number("model.log_variance_factor", log_variance_factor, advice=advice)
        super().__init__()
        self.mean = nn.Linear(in_features, latent_dim)
        self.log_variance = nn.Linear(in_features, latent_dim)
        self.log_variance_factor = log_variance_factor

    def forward(self, features: Float[Tensor, "batch features"]) -> DiagonalGaussian:
        """The posterior over [batch, latent]."""
        if self.log_variance_factor == 1:
            log_variance = self.log_variance(features)
        else:
            weight = self.log_variance_factor * self.log_variance.weight
            log_variance = nn.functional.linear(features, weight, self.log_variance.bias)
        return DiagonalGaussian(self.mean(features), log_variance, event_dims=1)


class BernoulliLikelihood(nn.Module):
    """p(x|z) of pixels in [0, 1], y = sigmoid(logits) (appendix C.1)."""

    density: type[Bernoulli | ContinuousBernoulli] = Bernoulli

    def __init__(self, trunk: DecoderTrunk) -> None:
        super().__init__()
        self.logits = trunk.readout()

    def forward(self, features: Float[Tensor, "batch ..."]) -> Bernoulli | ContinuousBernoulli:
        """The likelihood over [batch, channel, height, width]."""
        return self.density(self.logits(features), event_dims=3)


class ContinuousBernoulliLikelihood(BernoulliLikelihood):
    """p(x|z) of grey pixels as a normalised density on [0, 1], from the logits of the Bernoulli."""

    density = ContinuousBernoulli


class GaussianLikelihood(nn.Module):
    """p(x|z) = N(mean, diag(exp(log_variance))), the mean through a sigmoid, both functions of z (C.2).

    Args:
        trunk: The decoder's trunk.
        min_log_variance: A lower limit, or None for the paper's unbounded log-variance.
    """

    def __init__(self, trunk: DecoderTrunk, *, min_log_variance: float | None) -> None:
        if min_log_variance is not None and not math.isfinite(min_log_variance):
            raise ConfigError(
                f"likelihood.min_log_variance must be a finite number or null, got {min_log_variance}: "
                "null leaves the log-variance unbounded, as in the paper"
            )
        super().__init__()
        self.min_log_variance = min_log_variance
        self.mean = trunk.readout()
        self.log_variance = trunk.readout()

    def forward(self, features: Float[Tensor, "batch ..."]) -> DiagonalGaussian:
        """The likelihood over [batch, channel, height, width]."""
        log_variance = self.log_variance(features)
        if self.min_log_variance is not None:
            log_variance = log_variance.clamp(min=self.min_log_variance)
        return DiagonalGaussian(torch.sigmoid(self.mean(features)), log_variance, event_dims=3)


class FixedNoiseLikelihood(nn.Module):
    """p(x|z) = N(mean, std^2 I), the mean a plain linear function of the features: probabilistic PCA's, if z is these.

    Args:
        trunk: The decoder's trunk.
        std: The standard deviation of every pixel.
    """

    log_variance: Tensor

    def __init__(self, trunk: DecoderTrunk, *, std: float) -> None:
        require_number("likelihood.std", std, advice="it is the noise of a pixel whose range is [0, 1]")
        super().__init__()
        self.mean = trunk.readout()
        self.register_buffer("log_variance", torch.tensor(2 * math.log(std), dtype=torch.float64), persistent=False)

    def forward(self, features: Float[Tensor, "batch ..."]) -> DiagonalGaussian:
        """The likelihood over [batch, channel, height, width]."""
        mean = self.mean(features)
        return DiagonalGaussian(mean, self.log_variance.to(mean.dtype).expand_as(mean), event_dims=3)
