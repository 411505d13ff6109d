import math
from typing import Any

import pytest
import torch

from vae_lab.networks.mlp import MLPDecoder, MLPEncoder

SHAPE = (2, 5, 3)


def test_encoder_is_the_formula_of_appendix_c():
    trunk = MLPEncoder(SHAPE, hidden=[7], activation="tanh")
    x = torch.rand(4, *SHAPE)
    linear: Any = trunk.layers[1]
    torch.testing.assert_close(trunk(x), torch.tanh(x.flatten(1) @ linear.weight.T + linear.bias))
    assert trunk.out_features == 7


def test_decoder_is_the_formula_of_appendix_c():
    trunk = MLPDecoder(3, SHAPE, hidden=[7], activation="tanh")
    z = torch.randn(4, 3)
    readout: Any = trunk.readout()
    hidden: Any = trunk.layers[0]
    output = readout[0]
    h = torch.tanh(z @ hidden.weight.T + hidden.bias)
    expected = (h @ output.weight.T + output.bias).unflatten(1, SHAPE)
    torch.testing.assert_close(readout(trunk(z)), expected)


def test_decoder_takes_the_widths_in_reverse():
    encoder = MLPEncoder(SHAPE, hidden=[9, 6], activation="relu")
    decoder = MLPDecoder(3, SHAPE, hidden=[9, 6], activation="relu")
    assert [p.shape[0] for p in encoder.parameters() if p.dim() > 1] == [9, 6]
    assert [p.shape[0] for p in decoder.parameters() if p.dim() > 1] == [6, 9]
    assert encoder.out_features == 6 and decoder.out_features == 9


def test_every_readout_is_fresh():
    trunk = MLPDecoder(3, SHAPE, hidden=[7], activation="tanh")
    first, second = (next(trunk.readout().parameters()) for _ in range(2))
    assert not torch.equal(first, second)


def test_no_hidden_layer_makes_linear_maps():
    encoder = MLPEncoder(SHAPE, hidden=[], activation="tanh")
    decoder = MLPDecoder(3, SHAPE, hidden=[], activation="tanh")
    x, z = torch.rand(4, *SHAPE), torch.randn(4, 3)
    assert encoder.out_features == math.prod(SHAPE) and torch.equal(encoder(x), x.flatten(1))
    assert decoder.out_features == 3 and torch.equal(decoder(z), z)


@pytest.mark.parametrize(
    ("hidden", "activation", "message"),
    [
        ([5, 0], "tanh", r"encoder\.hidden must be a list .*\[5, 0\]"),
        ([5], "tan", r"encoder\.activation .*tanh"),
    ],
)
def test_bad_choices_are_refused_with_their_key(hidden, activation, message):
    with pytest.raises(ValueError, match=message):
        MLPEncoder(SHAPE, hidden=hidden, activation=activation)
    with pytest.raises(ValueError, match=message.replace("encoder", "decoder")):
        MLPDecoder(3, SHAPE, hidden=hidden, activation=activation)
