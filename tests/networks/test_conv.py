from typing import Any

import pytest
import torch
from torch import nn

from vae_lab.networks.conv import ConvDecoder, ConvEncoder

SHAPES = [(1, 28, 28), (1, 28, 20), (1, 8, 8), (3, 32, 32), (1, 9, 13), (2, 31, 4), (1, 7, 64)]
CHOICES = {"channels": [4, 6], "hidden": 10, "activation": "silu"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [[4], [4, 6]])
def test_readout_of_the_decoder_has_the_size_of_the_image(shape, channels):
    choices: dict[str, Any] = CHOICES | {"channels": channels}
    encoder, decoder = ConvEncoder(shape, **choices), ConvDecoder(3, shape, **choices)
    assert encoder(torch.rand(2, *shape)).shape == (2, encoder.out_features)
    assert decoder.readout()(decoder(torch.randn(2, 3))).shape == (2, *shape)


def test_decoder_mirrors_the_encoder():
    encoder = ConvEncoder((3, 32, 32), channels=[4, 6, 8], hidden=10, activation="relu")
    decoder = ConvDecoder(3, (3, 32, 32), channels=[4, 6, 8], hidden=10, activation="relu")
    down = [(m.in_channels, m.out_channels) for m in encoder.layers if isinstance(m, nn.Conv2d)]
    up = [m for m in [*decoder.layers, decoder.readout()] if isinstance(m, nn.ConvTranspose2d)]
    assert down == [(3, 4), (4, 6), (6, 8)]
    assert [(m.out_channels, m.in_channels) for m in reversed(up)] == down


def test_every_pixel_depends_on_the_latent_and_reaches_the_features():
    shape = (1, 9, 13)
    choices: dict[str, Any] = CHOICES | {"activation": "softplus"}  # smooth, so that no gradient is zero by chance
    encoder, decoder = ConvEncoder(shape, **choices), ConvDecoder(3, shape, **choices)
    x = torch.rand(1, *shape, requires_grad=True)
    # The halvings round down, and a padding of 1 lets the last, odd column still be seen by the 4x4 kernel.
    encoder(x).square().sum().backward()
    assert (x.grad != 0).all()
    images = decoder.readout()(decoder(torch.randn(2, 3)))
    assert (images[0] != images[1]).all()


def test_too_many_halvings_are_refused():
    message = r"model\.encoder\.channels must list between 1 and 3 convolutions for 28x8 images, got \[1, 1, 1, 1\]"
    with pytest.raises(ValueError, match=message):
        ConvEncoder((1, 28, 8), channels=[1, 1, 1, 1], hidden=5, activation="relu")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channels": []}, r"decoder\.channels must list between 1 and 4"),
        ({"channels": [4, 0]}, r"decoder\.channels must be a list of integers >= 1, got \[4, 0\]"),
        ({"hidden": 0}, r"decoder\.hidden must be an integer >= 1, got 0"),
        ({"activation": "rellu"}, r"decoder\.activation must be one of .*did you mean relu\?"),
    ],
)
def test_bad_choices_are_refused_with_their_key(changed, message):
    with pytest.raises(ValueError, match=message):
        ConvDecoder(3, (1, 28, 28), **(CHOICES | changed))
    with pytest.raises(ValueError, match=message.replace("decoder", "encoder")):
        ConvEncoder((1, 28, 28), **(CHOICES | changed))
