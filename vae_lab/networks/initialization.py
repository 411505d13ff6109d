"""How the parameters start: PyTorch's default, or the paper's N(0, 0.01) (section 5)."""

import math

import torch
from torch import nn


class PyTorchDefault:
    """Leaves the parameters as PyTorch's layers drew them."""

    def __call__(self, model: nn.Module) -> None:
        """Changes nothing."""


class Normal:
    """Weights and hidden biases ~ N(0, std^2), zeros elsewhere: the paper's, as the author's code reads it.

    Zeros are the weights and biases of the encoder's log-variance, so that q(z|x) starts with unit variance,
    and the biases of the decoder's outputs.

    Args:
        std: The standard deviation; N(0, 0.01) of section 5 is a standard deviation of 0.01.
        everything: Draw every parameter, and set none to zero.
    """

    def __init__(self, *, std: float, everything: bool) -> None:
        if not (std >= 0 and math.isfinite(std)):
            raise ValueError(f"initialization.std must be >= 0 and finite, got {std}: the paper uses 0.01")
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


def _starts_at_zero(name: str) -> bool:
    output_bias = name.startswith("decoder.head.") and name.endswith(".bias")
    return output_bias or name.startswith("encoder.head.log_variance.")
