"""A model's densities as plain tensors: what exporters and tracers take, and which density p(x|z) is."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vae_lab.model import VAE


class Parameters(nn.Module):
    """x -> parameters of q(z|x), each [batch, latent]; or z -> those of p(x|z), [batch, channel, height, width].

    Args:
        model: whose networks.
        density: which of the two.
        outputs: the parameters by their names, such as mean and std.
    """

    def __init__(self, model: VAE, density: Literal["posterior", "likelihood"], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.density, self.outputs = model, density, outputs

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """The parameters, in the order of `outputs`."""
        density = getattr(self.model, self.density)(given)
        return tuple(getattr(density, name) for name in self.outputs)


@torch.no_grad()
def likelihood_of(model: VAE) -> Any:
    """p(x|z) at the prior's mean, one image: what is asked of its kind."""
    return model.likelihood(torch.zeros(1, model.latent_dim).to(next(model.parameters())))
