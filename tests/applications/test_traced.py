"""Networks as plain operations: what is known, what is folded, and what is refused by its name."""

import base64

import numpy as np
import pytest
import torch
from torch import nn

from vae_lab.applications.traced import Program, UnknownOperation, traced
from vae_lab.errors import ConfigError


def operations(program: Program) -> list[str]:
    return [about["op"] for about in program.operations]


def test_a_network_is_traced_into_few_operations_with_its_own_weights():
    linear = nn.Linear(6, 4)
    program = traced(nn.Sequential(nn.Flatten(), linear, nn.Tanh(), nn.Dropout()), torch.rand(1, 1, 2, 3), "it")
    assert operations(program) == ["view", "linear", "tanh"]
    weight, bias = program.constants.values()
    assert torch.equal(weight, linear.weight) and torch.equal(bias, linear.bias)
    assert program.shape == (1, 1, 2, 3) and program.outputs == [program.operations[-1]["value"]]


def test_what_does_not_depend_on_the_input_is_folded():
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.rand(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.logits.softmax(0)

    network = Shifted()
    program = traced(network, torch.rand(1, 3), "it")
    assert operations(program) == ["mul"]
    assert torch.equal(next(iter(program.constants.values())), network.logits.softmax(0))


def test_constants_are_float16_only_where_that_is_exact():
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.5, -3.0]]))
        linear.bias.fill_(0.1)
    weight, bias = traced(linear, torch.rand(1, 2), "it").plain["constants"].values()
    assert (weight["type"], bias["type"]) == ("float16", "float32")
    assert np.frombuffer(base64.b64decode(weight["bytes"]), np.float16).tolist() == [0.5, -3.0]
    assert np.frombuffer(base64.b64decode(bias["bytes"]), np.float32).tolist() == [np.float32(0.1)]


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nn.Softmax(1), "aten._softmax.default"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "aten.upsample_bilinear2d"),
        (nn.MaxPool2d(2, padding=1), "aten.max_pool2d_with_indices.default"),
        (nn.ConstantPad2d(1, 0.5), "aten.constant_pad_nd.default"),
    ],
)
def test_an_operation_that_is_not_known_is_named(network, name):
    with pytest.raises(UnknownOperation, match=f"the encoder computes {name}.*it knows .*linear"):
        traced(network, torch.rand(1, 2, 4, 4), "the encoder")


class Reducing(nn.Module):
    """A mean over all numbers or, with a type, a sum of that type."""

    def __init__(self, kind: torch.dtype | None) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean() if self.kind is None else x.sum(1, dtype=self.kind)


def test_a_mean_over_everything_is_known_and_a_sum_of_another_type_is_not():
    program = traced(Reducing(None), torch.rand(1, 2, 3), "it")
    assert operations(program) == ["view", "mean"] and program.operations[-1]["size"] == 6
    with pytest.raises(UnknownOperation, match=r"it computes aten\.sum\.dim_IntList"):
        traced(Reducing(torch.float64), torch.rand(1, 2, 3), "it")


def test_a_network_that_torch_export_cannot_follow_is_refused():
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"the encoder cannot be traced by torch.export: .*let forward"):
        traced(Deciding(), torch.rand(1, 2), "the encoder")
