"""Objectives of the hand-written loop: Gaussian pixels, the importance-weighted bound, wake-sleep in two steps."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.hand_written import HandWritten, adam

LOG_TWO_PI = math.log(2 * math.pi)


class WakeSleepLoop(HandWritten):
    """The hand-written loop of wake-sleep: the decoder on what the encoder sees, then the encoder on dreams."""

    def make_optimizers(self) -> None:
        """One for each network."""
        self.wake, self.sleep = adam(self.decoder), adam(self.encoder)

    def step(self, x: Tensor) -> None:
        """Two updates."""
        with torch.no_grad():
            mean, log_variance = self.encoder(x).chunk(2, dim=-1)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        loss = F.binary_cross_entropy_with_logits(self.decoder(z), x.flatten(1), reduction="sum") / len(x)
        self.wake.zero_grad()
        loss.backward()
        self.wake.step()

        with torch.no_grad():
            z = torch.randn_like(z)
            dreamed = torch.bernoulli(self.decoder(z).sigmoid())
        loss = -gaussian(z, *self.encoder(dreamed).chunk(2, dim=-1)).sum() / len(x)
        self.sleep.zero_grad()
        loss.backward()
        self.sleep.step()


def gaussian_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """-ELBO for Gaussian pixels with means in (0, 1), KL in closed form."""
    mean, log_variance = encoder(x).chunk(2, dim=-1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    logits, pixel_log_variance = decoder(z).chunk(2, dim=-1)
    reconstruction = gaussian(x.flatten(1), logits.sigmoid(), pixel_log_variance).sum()
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return (kl - reconstruction) / len(x)


def importance_weighted_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor, num_samples: int = 50) -> Tensor:
    """-log 1/k sum of k importance weights, with every term sampled."""
    mean, log_variance = encoder(x).chunk(2, dim=-1)
    z = mean + (0.5 * log_variance).exp() * torch.randn(num_samples, *mean.shape, device=x.device)
    logits = decoder(z)
    pixels = x.flatten(1).expand_as(logits)
    likelihood = -F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
    prior = -0.5 * (z.square() + LOG_TWO_PI).sum(-1)
    log_weights = likelihood + prior - gaussian(z, mean, log_variance).sum(-1)
    return (math.log(num_samples) - log_weights.logsumexp(0)).mean()


def gaussian(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log density of every element."""
    return -0.5 * (LOG_TWO_PI + log_variance + (x - mean).square() * (-log_variance).exp())
