"""Convolutional networks for images of any size: strided 4x4 convolutions and their transposed mirror.

Every convolution halves height and width, rounding down; the mirror doubles them and adds the lost row or
column back, so that 28x28, 28x20 and odd sizes come out as they went in.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.errors import ConfigError, require_integer
from vae_lab.networks.choices import activation_class, check_widths


class ConvEncoder(nn.Module):
    """Images -> features: a 4x4 stride-2 convolution for every entry of `channels`, then one dense layer.

    Args:
        image_shape: (channel, height, width); both sides at least 2^len(channels).
        channels: Channels from the image inward.
        hidden: Width of the dense layer.
        activation: A name in `networks.choices.ACTIVATIONS`, used after every layer.
    """

    def __init__(self, image_shape: Sequence[int], *, channels: Sequence[int], hidden: int, activation: str) -> None:
        make_activation = _checked("model.encoder", image_shape, channels, hidden, activation)
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip([image_shape[0], *channels[:-1]], channels, strict=True):
            layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1), make_activation()]
        flat = channels[-1] * math.prod(_halved_sizes(image_shape, len(channels))[-1])
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), make_activation())
        self.out_features = hidden

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch features"]:
        """The features of a batch of images."""
        return self.layers(x)


class ConvDecoder(nn.Module):
    """Latent -> feature maps of half the image's size: the encoder's mirror, but for the readout.

    Args:
        latent_dim: Size of z.
        image_shape: (channel, height, width); both sides at least 2^len(channels).
        channels: Channels from the image inward, as the encoder's; used here in reverse.
        hidden: Width of the dense layer.
        activation: A name in `networks.choices.ACTIVATIONS`, used after every layer.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        *,
        channels: Sequence[int],
        hidden: int,
        activation: str,
    ) -> None:
        make_activation = _checked("model.decoder", image_shape, channels, hidden, activation)
        super().__init__()
        sizes = _halved_sizes(image_shape, len(channels))
        smallest = (channels[-1], *sizes[-1])
        layers: list[nn.Module] = [nn.Linear(latent_dim, hidden), make_activation()]
        layers += [nn.Linear(hidden, math.prod(smallest)), make_activation(), nn.Unflatten(1, smallest)]
        for i in range(len(channels) - 1, 0, -1):
            layers += [_upsampling(channels[i], channels[i - 1], sizes[i]), make_activation()]
        self.layers = nn.Sequential(*layers)
        self._readout = (channels[0], image_shape[0], sizes[0])

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch maps half_height half_width"]:
        """The feature maps of a batch of latents."""
        return self.layers(z)

    def readout(self) -> nn.Module:
        """A fresh transposed convolution from the feature maps to [batch, channel, height, width]."""
        return _upsampling(*self._readout)


def _checked(
    key: str, image_shape: Sequence[int], channels: Sequence[int], hidden: int, activation: str
) -> type[nn.Module]:
    check_widths(f"{key}.channels", channels, "give one number of channels for every convolution, as in [32, 64]")
    require_integer(f"{key}.hidden", hidden, minimum=1, advice="the dense layer needs at least one unit")
    most = int(math.log2(min(image_shape[1:])))
    if not 1 <= len(channels) <= most:
        height, width = image_shape[1:]
        raise ConfigError(
            f"{key}.channels must list between 1 and {most} convolutions for {height}x{width} images, got "
            f"{list(channels)}: each halves the image; change the list or use model=mlp"
        )
    return activation_class(f"{key}.activation", activation)


def _halved_sizes(image_shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(height, width) of the image and after each of `times` halvings."""
    _, height, width = image_shape
    return [(height >> i, width >> i) for i in range(times + 1)]


def _upsampling(channels_in: int, channels_out: int, size: tuple[int, int]) -> nn.ConvTranspose2d:
    """Doubles the maps to `size`: output padding gives back what halving an odd side lost."""
    lost = (size[0] % 2, size[1] % 2)
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, output_padding=lost)
