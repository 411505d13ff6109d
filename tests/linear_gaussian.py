"""The oracle: a VAE whose log p(x) and p(z|x) are known in closed form.

z ~ N(0, I), x = W z + b + noise, noise ~ N(0, noise_std^2 I), the columns of W orthogonal, so that
p(z|x) = N(mean(x), diag(variance)) is a diagonal Gaussian, which the encoder can represent exactly.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vae_lab.model import VAE
from vae_lab.networks.heads import FixedNoiseLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder


class LinearGaussian:
    """A linear-Gaussian model of images, as a real `VAE`, beside its exact answers.

    Args:
        latent_dim: Size of z.
        image_shape: (channel, height, width), at least `latent_dim` pixels.
        noise_std: Standard deviation of every pixel given z.
        exact_posterior: Give the encoder p(z|x); else it keeps PyTorch's initialisation, a wrong posterior.
        exact_decoder: Give the decoder W and b; else it keeps PyTorch's initialisation, to be trained.
        has_encoder: Whether the model has one.
        dtype: Of model and data.
        seed: Of W and of the initialisation.

    Attributes:
        model, weight [pixels, latent], bias [pixels], posterior_variance [latent].
    """

    def __init__(
        self,
        *,
        latent_dim: int = 3,
        image_shape: tuple[int, int, int] = (1, 3, 4),
        noise_std: float = 0.5,
        exact_posterior: bool = True,
        exact_decoder: bool = True,
        has_encoder: bool = True,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> None:
        self.latent_dim, self.image_shape = latent_dim, image_shape
        self.noise_std, self.dtype = noise_std, dtype
        pixels = math.prod(image_shape)
        noise = torch.Generator().manual_seed(seed)
        columns = torch.linalg.qr(torch.randn(pixels, latent_dim, dtype=torch.float64, generator=noise)).Q
        # From a latent that says much about the image to one that says little.
        self.weight = columns * torch.linspace(2.0, 0.5, latent_dim, dtype=torch.float64)
        self.bias = torch.linspace(-0.5, 1.0, pixels, dtype=torch.float64)
        self.posterior_variance = 1 / (1 + self.weight.square().sum(0) / noise_std**2)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = VAE(
                image_shape,
                latent_dim,
                encoder=partial(MLPEncoder, hidden=[], activation="tanh"),
                decoder=partial(MLPDecoder, hidden=[], activation="tanh"),
                likelihood=partial(FixedNoiseLikelihood, std=noise_std),
                initialization=PyTorchDefault(),
                has_encoder=has_encoder,
            ).to(dtype)
        if exact_decoder:
            readout: Any = self.model.decoder.head.mean
            readout = readout[0]
            _assign(readout, self.weight, self.bias)
        if exact_posterior and has_encoder:
            head: Any = self.model.encoder.head
            gain = self._gain()
            _assign(head.mean, gain, -gain @ self.bias)
            _assign(head.log_variance, torch.zeros_like(gain), self.posterior_variance.log())

    def sample(self, num: int, seed: int = 1) -> Tensor:
        """`num` images from the model."""
        noise = torch.Generator().manual_seed(seed)
        z = torch.randn(num, self.latent_dim, dtype=torch.float64, generator=noise)
        pixels = torch.randn(num, len(self.bias), dtype=torch.float64, generator=noise)
        x = z @ self.weight.T + self.bias + self.noise_std * pixels
        return x.unflatten(1, self.image_shape).to(self.dtype)

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) [batch], exact, in float64."""
        covariance = self.weight @ self.weight.T + self.noise_std**2 * torch.eye(len(self.bias)).double()
        return torch.distributions.MultivariateNormal(self.bias, covariance).log_prob(x.flatten(1).double())

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z|x] [batch, latent], exact, in float64; the covariance is diag(`posterior_variance`)."""
        return (x.flatten(1).double() - self.bias) @ self._gain().T

    def _gain(self) -> Tensor:
        return self.posterior_variance[:, None] * self.weight.T / self.noise_std**2


@torch.no_grad()
def _assign(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def six_standard_errors(draws: Tensor, dims: Any = 0) -> Tensor:
    """Tolerance for the mean of independent draws along `dims`."""
    count = draws.numel() / draws.mean(dims).numel()
    return 6 * draws.std(dims) / math.sqrt(count)
