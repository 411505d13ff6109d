"""The paper's model: p(z) = N(0, I), p(x|z) from the decoder, q(z|x) from the encoder (sections 2, 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.distributions import DiagonalGaussian, Distribution
from vae_lab.errors import ConfigError, NoEncoder, require_integer
from vae_lab.networks.choices import is_width
from vae_lab.networks.heads import GaussianPosterior
from vae_lab.networks.initialization import DataDependent

Images = Float[Tensor, "batch channel height width"]
Latents = Float[Tensor, "batch latent"]
PerDatapoint = Float[Tensor, " batch"]
"""A number for every datapoint of a batch, most often in nats."""


class VAE(nn.Module):
    """Generative model and recognition model, in three densities: prior, likelihood, posterior.

    Args:
        image_shape: (channel, height, width) of the data.
        latent_dim: Size of z (the paper's J, N_z).
        encoder: image_shape -> trunk, a module with `out_features`.
        decoder: (latent_dim, image_shape) -> trunk, a module with `readout()`.
        likelihood: decoder trunk -> head, a module from features to a `Distribution` over images.
        initialization: Called with the finished model.
        log_variance_factor: Of the weights of q(z|x)'s log-variance (`GaussianPosterior`).
        has_encoder: Whether there is a q(z|x). If not, the decoder still starts as it does beside an encoder, which
            is drawn first, so that runs with equal seeds start from equal decoders.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        likelihood: Callable[..., nn.Module],
        initialization: Callable[[nn.Module], None],
        *,
        log_variance_factor: float = 1.0,
        has_encoder: bool = True,
    ) -> None:
        require_integer("model.latent_dim", latent_dim, minimum=1, advice="z needs at least one dimension")
        if len(image_shape) != 3 or not all(map(is_width, image_shape)):
            raise ConfigError(f"image_shape must be (channel, height, width), each >= 1, got {image_shape}")
        super().__init__()
        self.image_shape = (image_shape[0], image_shape[1], image_shape[2])
        self.latent_dim = latent_dim
        trunk: Any = encoder(self.image_shape)
        self.encoder = Network(trunk, GaussianPosterior(trunk.out_features, latent_dim, log_variance_factor))
        trunk = decoder(latent_dim, self.image_shape)
        self.decoder = Network(trunk, likelihood(trunk))
        initialization(self)
        self.has_encoder = has_encoder
        if not has_encoder:
            del self.encoder
        self._initialization = initialization

    def adapt(self, images: Float[Tensor, "num channel height width"]) -> None:
        """Shows the training images to an initialisation that wants to see them; once, before any training."""
        if isinstance(self._initialization, DataDependent):
            self._initialization.adapt(self, images)

    def prior(self) -> DiagonalGaussian:
        """p(z) = N(0, I) over [latent]."""
        like = next(self.parameters())
        zeros = torch.zeros(self.latent_dim, dtype=like.dtype, device=like.device)
        return DiagonalGaussian(zeros, zeros, event_dims=1)

    def posterior(self, x: Images) -> DiagonalGaussian:
        """q(z|x) over [batch, latent].

        Raises:
            NoEncoder: The model was trained without one.
        """
        if not self.has_encoder:
            raise NoEncoder(
                "the model has no encoder, for its objective trains none: there is no q(z|x), no bound, no KL and "
                "no reconstruction; log p(x) is measured by estimator=annealed_importance_sampling, "
                "posterior_density or quadrature"
            )
        return self.encoder(x)

    def likelihood(self, z: Float[Tensor, "*sample batch latent"]) -> Distribution:
        """p(x|z) over [*sample, batch, channel, height, width]."""
        if z.dim() == 2:
            return self.decoder(z)
        return self.decoder(z.flatten(0, -2)).unflatten(z.shape[:-1])

    def log_joint(self, x: Images, z: Float[Tensor, "*sample batch latent"]) -> Float[Tensor, "*sample batch"]:
        """The sum log p(x, z) = log p(x|z) + log p(z), nats per datapoint."""
        return self.likelihood(z).log_prob(x) + self.prior().log_prob(z)

    def weights(self) -> list[nn.Parameter]:
        """Weight matrices and kernels of both networks, no biases: what section 5's prior N(0, I) is on."""
        return [parameter for parameter in self.parameters() if parameter.dim() > 1]


class Network(nn.Module):
    """The encoder, x -> q(z|x), or the decoder, z -> p(x|z): a trunk and its head."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, given: Float[Tensor, "batch ..."]) -> Distribution:
        """The posterior of a batch of images, or the likelihood of a batch of latents."""
        return self.head(self.trunk(given))
