"""The loop that one would write by hand in PyTorch: tensors in memory, fused Adam, nothing else."""

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.conditions import Conditions
from benchmarks.sides import Throughput

Networks = tuple[nn.Module, nn.Module]
"""x -> mean and log-variance of q(z|x), side by side; z -> the likelihood's parameters."""
Loss = Callable[[nn.Module, nn.Module, Tensor], Tensor]


class HandWritten(Throughput):
    """Samples per second of the plain training loop.

    Args:
        name: as for every side.
        networks: makes encoder and decoder.
        loss: encoder, decoder and a minibatch -> the mean loss.
        images: in [0, 1].
        conditions: threads and device.
        batch_size: datapoints in a minibatch.
        half: computes under autocast to bfloat16.
        binarize: draws binary pixels anew for every minibatch.
    """

    def __init__(
        self,
        name: str,
        networks: Callable[[], Networks],
        loss: Loss,
        images: Tensor,
        conditions: Conditions,
        *,
        batch_size: int = 100,
        half: bool = False,
        binarize: bool = False,
    ) -> None:
        super().__init__(name, unit=batch_size)
        self.networks, self.loss, self.images, self.conditions = networks, loss, images, conditions
        self.half, self.binarize = half, binarize

    def prepare(self, seconds: float) -> None:
        """Networks and optimiser, which all measurements go on with."""
        torch.manual_seed(0)
        device = self.conditions.device
        self.images = self.images.to(device)
        self.encoder, self.decoder = (network.to(device) for network in self.networks())
        self.make_optimizers()
        super().prepare(seconds)

    def make_optimizers(self) -> None:
        """One for everything."""
        self.optimizer = adam(self.encoder, self.decoder)

    def work(self, amount: int) -> float:
        """So many samples, in a new random order."""
        per_epoch = len(self.images) // self.unit
        self.conditions.synchronize()
        started = time.perf_counter()
        for step in range(amount // self.unit):
            if step % per_epoch == 0:
                order = torch.randperm(len(self.images), device=self.images.device)
            begin = step % per_epoch * self.unit
            x = self.images[order[begin : begin + self.unit]]
            self.step(torch.bernoulli(x) if self.binarize else x)
        self.conditions.synchronize()
        return time.perf_counter() - started

    def step(self, x: Tensor) -> None:
        """One update."""
        with self.autocast():
            loss = self.loss(self.encoder, self.decoder, x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def autocast(self):
        """Half precision where it is asked for."""
        return torch.autocast(self.conditions.device, dtype=torch.bfloat16) if self.half else nullcontext()


def adam(*networks: nn.Module) -> torch.optim.Adam:
    """Fused Adam with its usual numbers."""
    return torch.optim.Adam([weight for network in networks for weight in network.parameters()], lr=1e-3, fused=True)


def bernoulli_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """-ELBO for pixels in [0, 1], KL in closed form."""
    mean, log_variance = encoder(x).float().chunk(2, dim=-1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    logits = decoder(z).flatten(1)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return (reconstruction + kl) / len(x)
