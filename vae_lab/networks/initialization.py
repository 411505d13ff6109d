"""How the parameters start: PyTorch's default, alone or at the mean image, the paper's (section 5), or Glorot's."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.distributions import ContinuousBernoulli
from vae_lab.errors import require_choice, require_number
from vae_lab.networks.heads import ContinuousBernoulliLikelihood, FixedNoiseLikelihood

OUTPUT_BIASES = ("zero", "train_mean")


@runtime_checkable
class DataDependent(Protocol):
    """An initialisation with a second step, for which it wants to see the training images."""

    def adapt(self, model: nn.Module, images: Float[Tensor, "num channel height width"]) -> None:
        """Called once where a training is set up; never where a trained model is loaded."""
        ...


class PyTorchDefault:
    """Leaves the parameters as PyTorch's layers drew them."""

    def __call__(self, model: nn.Module) -> None:
        """Changes nothing."""


class TrainMean(PyTorchDefault):
    """PyTorch's own, but for the decoder's output, which starts as the mean training image."""

    def adapt(self, model: nn.Module, images: Float[Tensor, "num channel height width"]) -> None:
        """Sets the output bias."""
        start_at_mean_image(model, images)


class Normal:
    """Weights and hidden biases ~ N(0, std^2), zeros elsewhere: the paper's, as the author's code reads it.

    Zeros are the weights and biases of the encoder's log-variance, so that q(z|x) starts with unit variance,
    and the biases of the decoder's outputs.

    Args:
        std: The standard deviation; N(0, 0.01) of section 5 is a standard deviation of 0.01.
        everything: Draw every parameter, and set none to zero.
    """

    def __init__(self, *, std: float, everything: bool) -> None:
        require_number("initialization.std", std, at_least=0, advice="the paper uses 0.01")
        self.std = std
        self.everything = everything

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Draws every parameter of a VAE anew, in the order of `named_parameters`."""
        for name, parameter in model.named_parameters():
            if self.everything or not _starts_at_zero(name):
                nn.init.normal_(parameter, std=self.std)
            else:
                nn.init.zeros_(parameter)


class Glorot:
    """Weights uniform in +-sqrt(6 / (inputs + outputs)) (Glorot & Bengio, 2010), biases zero.

    Args:
        output_bias: `zero`, or `train_mean`: the decoder's output starts as the mean training image.
    """

    def __init__(self, *, output_bias: str) -> None:
        require_choice("initialization.output_bias", output_bias, OUTPUT_BIASES)
        self.output_bias = output_bias

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Draws every weight of a VAE anew, in the order of `named_parameters`."""
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def adapt(self, model: nn.Module, images: Float[Tensor, "num channel height width"]) -> None:
        """Sets the output bias, unless it is to stay zero."""
        if self.output_bias == "train_mean":
            start_at_mean_image(model, images)


@torch.no_grad()
def start_at_mean_image(model: nn.Module, images: Float[Tensor, "num channel height width"]) -> None:
    """Sets the decoder's output bias to the mean image or, below a sigmoid, its logit (Burda et al., 2016).

    That is the logit of the mean clipped to [0.001, 0.999]; for a continuous Bernoulli the one that has this mean.
    Where the output is a convolution, every channel has one for all its pixels.
    """
    mean = images.mean(0)
    modules = list(model.modules())
    is_plain = any(isinstance(module, FixedNoiseLikelihood) for module in modules)
    is_continuous = any(isinstance(module, ContinuousBernoulliLikelihood) for module in modules)
    logits_of = ContinuousBernoulli.logits_of if is_continuous else torch.logit
    for name, bias in model.named_parameters():
        if name.startswith(_MEANS) and name.endswith(".bias"):
            means = mean.flatten() if bias.numel() == mean.numel() else mean.mean((1, 2))
            bias.copy_(means if is_plain else logits_of(means.clamp(0.001, 0.999)))


_MEANS = ("decoder.head.logits.", "decoder.head.mean.")
"""Layers whose output is the likelihood's mean, for most likelihoods below a sigmoid."""


def _starts_at_zero(name: str) -> bool:
    output_bias = name.startswith("decoder.head.") and name.endswith(".bias")
    return output_bias or name.startswith("encoder.head.log_variance.")
