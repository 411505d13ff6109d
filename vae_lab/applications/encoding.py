"""What a trained model makes of images: q(z|x) of each, streamed."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.applications.blocks import Watch, blocks_of
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.measurement import evaluating
from vae_lab.model import VAE


@dataclass(frozen=True)
class Encoded:
    """q(z|x) = N(mean, diag(std^2)) of every image, and its KL to the prior in nats; on the CPU."""

    mean: Float[Tensor, "num latent"]
    std: Float[Tensor, "num latent"]
    kl_per_dimension: Float[Tensor, "num latent"]

    @property
    def kl(self) -> Float[Tensor, " num"]:
        """KL(q(z|x) || p(z)), nats per datapoint."""
        return self.kl_per_dimension.double().sum(-1)

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table: the KL, means and standard deviations."""
        return {"kl": self.kl.numpy(), "mean": self.mean.numpy(), "std": self.std.numpy()}


def encode(model: VAE, images: Float[Tensor, "num channel height width"], *, watch: Watch = iter) -> Encoded:
    """The posteriors of images.

    Raises:
        NoEncoder: the model was trained without one.
    """
    like = next(model.parameters())
    found = []
    for block in watch(blocks_of(len(images))):
        with evaluating(model, like.device, "encode", block.start):
            q = model.posterior(images[block].to(like))
            found.append([part.cpu() for part in (q.mean, q.std, kl_to_standard_normal(q))])
    return Encoded(*map(torch.cat, zip(*found, strict=True)))
