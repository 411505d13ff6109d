"""Multi-layer perceptrons: the paper's networks (appendix C) have one hidden layer of tanh units."""

import itertools
import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.networks.choices import activation_class, check_widths


class MLPEncoder(nn.Module):
    """Images -> features: h = activation(W x + b), once for every width in `hidden`.

    Args:
        image_shape: (channel, height, width).
        hidden: Widths from the image inward; an empty list hands on the pixels.
        activation: A name in `networks.choices.ACTIVATIONS`.
    """

    def __init__(self, image_shape: Sequence[int], *, hidden: Sequence[int], activation: str) -> None:
        make_activation = _checked("model.encoder", hidden, activation)
        super().__init__()
        widths = [math.prod(image_shape), *hidden]
        self.out_features = widths[-1]
        self.layers = nn.Sequential(nn.Flatten(), *_layers(widths, make_activation))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch features"]:
        """The features of a batch of images."""
        return self.layers(x)


class MLPDecoder(nn.Module):
    """Latent -> features, the encoder's mirror.

    Args:
        latent_dim: Size of z.
        image_shape: (channel, height, width).
        hidden: Widths from the image inward, as the encoder's; used here in reverse.
        activation: A name in `networks.choices.ACTIVATIONS`.
    """

    def __init__(self, latent_dim: int, image_shape: Sequence[int], *, hidden: Sequence[int], activation: str) -> None:
        make_activation = _checked("model.decoder", hidden, activation)
        super().__init__()
        self.image_shape = tuple(image_shape)
        widths = [latent_dim, *reversed(hidden)]
        self.out_features = widths[-1]
        self.layers = nn.Sequential(*_layers(widths, make_activation))

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch features"]:
        """The features of a batch of latents."""
        return self.layers(z)

    def readout(self) -> nn.Module:
        """A fresh linear map from the features to [batch, channel, height, width]."""
        linear = nn.Linear(self.out_features, math.prod(self.image_shape))
        return nn.Sequential(linear, nn.Unflatten(1, self.image_shape))


def _checked(key: str, hidden: Sequence[int], activation: str) -> type[nn.Module]:
    check_widths(f"{key}.hidden", hidden, "give one width for every hidden layer, as in [500]")
    return activation_class(f"{key}.activation", activation)


def _layers(widths: Sequence[int], make_activation: type[nn.Module]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), make_activation()]
    return layers
