import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from vae_lab.model import VAE
from vae_lab.networks.conv import ConvDecoder, ConvEncoder
from vae_lab.networks.heads import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    FixedNoiseLikelihood,
    GaussianLikelihood,
)
from vae_lab.networks.initialization import Glorot, Normal, PyTorchDefault, TrainMean
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder

MLP = {"hidden": [300, 200], "activation": "tanh"}
CONV = {"channels": [16, 24], "hidden": 200, "activation": "silu"}


MAKERS = {"mlp": (MLPEncoder, MLPDecoder, MLP), "conv": (ConvEncoder, ConvDecoder, CONV)}
GAUSSIAN = partial(GaussianLikelihood, min_log_variance=None)
PLAIN = partial(FixedNoiseLikelihood, std=0.3)


def make(network: str, likelihood: Callable[..., nn.Module], initialization: Callable[[nn.Module], None]) -> VAE:
    encoder, decoder, choices = MAKERS[network]
    return VAE((1, 12, 9), 4, partial(encoder, **choices), partial(decoder, **choices), likelihood, initialization)


@pytest.fixture(params=["mlp", "conv"])
def model(request) -> VAE:
    return make(request.param, GAUSSIAN, PyTorchDefault())


ZEROS = {
    "encoder.head.log_variance.weight",
    "encoder.head.log_variance.bias",
    *(f"decoder.head.{part}.bias" for part in ("mean", "mean.0", "log_variance", "log_variance.0")),
}


def _check_moments(draws: torch.Tensor, std: float) -> None:
    num = draws.numel()
    assert abs(draws.mean()) < 6 * std / num**0.5
    assert abs(draws.square().mean() / std**2 - 1) < 6 * (2 / num) ** 0.5


def test_normal_draws_weights_and_hidden_biases_and_zeroes_the_rest(model):
    Normal(std=0.01, everything=False)(model)
    drawn = {name: p.detach() for name, p in model.named_parameters() if name not in ZEROS}
    zeros = {name: p.detach() for name, p in model.named_parameters() if name in ZEROS}
    assert len(zeros) == 4 and not any(p.any() for p in zeros.values())
    for draws in drawn.values():
        _check_moments(draws, 0.01)
    _check_moments(torch.cat([p.flatten() for p in drawn.values() if p.dim() > 1]), 0.01)
    _check_moments(torch.cat([p for p in drawn.values() if p.dim() == 1]), 0.01)


def test_normal_posterior_starts_with_unit_variance(model):
    Normal(std=0.01, everything=False)(model)
    assert (model.posterior(torch.rand(5, 1, 12, 9)).log_variance == 0).all()


def test_everything_draws_every_parameter(model):
    Normal(std=0.1, everything=True)(model)
    for parameter in model.parameters():
        assert parameter.all()
    _check_moments(torch.cat([p.detach().flatten() for p in model.parameters()]), 0.1)


def test_std_of_zero_is_honoured(model):
    Normal(std=0.0, everything=True)(model)
    assert not any(p.any() for p in model.parameters())


def test_same_seed_draws_the_same_parameters(model):
    twin = copy.deepcopy(model)
    for each in (model, twin):
        torch.manual_seed(3)
        Normal(std=0.01, everything=False)(each)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_pytorch_default_changes_nothing(model):
    before = [p.detach().clone() for p in model.parameters()]
    PyTorchDefault()(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_bad_std_is_refused(std):
    with pytest.raises(ValueError, match=r"initialization\.std must be a number >= 0"):
        Normal(std=std, everything=False)


def test_glorot_draws_weights_by_their_fans_and_zeroes_biases(model):
    Glorot(output_bias="zero")(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert (parameter == 0).all(), name
    weight = model.encoder.head.mean.weight
    limit = (6 / sum(weight.shape)) ** 0.5
    assert 0.9 * limit < weight.abs().max() <= limit


@pytest.mark.parametrize("initialization", [Glorot(output_bias="train_mean"), TrainMean()])
@pytest.mark.parametrize("likelihood", [GAUSSIAN, BernoulliLikelihood, ContinuousBernoulliLikelihood, PLAIN])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_output_starts_as_the_clipped_mean_training_image(network, likelihood, initialization):
    model = make(network, likelihood, initialization)
    images = torch.rand(50, *model.image_shape) * torch.linspace(0, 1, 9)
    model.adapt(images)
    with torch.no_grad():
        for name, weight in model.decoder.named_parameters():
            if name.endswith("weight"):
                weight.zero_()
    mean = model.likelihood(torch.zeros(1, 4)).mean[0]
    least = 0.0 if likelihood is PLAIN else 0.001
    expected = images.mean().expand_as(mean) if network == "conv" else images.mean(0).clamp(least, 0.999)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_nothing_but_the_output_bias_is_adapted(network):
    torch.manual_seed(3)
    adapted = make(network, GAUSSIAN, TrainMean())
    torch.manual_seed(3)
    drawn = make(network, GAUSSIAN, PyTorchDefault()).state_dict()
    adapted.adapt(torch.rand(50, *adapted.image_shape))
    changed = [name for name, value in adapted.state_dict().items() if not torch.equal(value, drawn[name])]
    assert len(changed) == 1 and changed[0].startswith("decoder.head.mean.") and changed[0].endswith(".bias")


def test_initialization_without_interest_in_data_stays_as_it_is(model):
    before = copy.deepcopy(model.state_dict())
    model.adapt(torch.rand(5, *model.image_shape))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_glorot_refuses_an_unknown_output_bias():
    with pytest.raises(ValueError, match=r"initialization\.output_bias must be one of zero, train_mean"):
        Glorot(output_bias="mean")
