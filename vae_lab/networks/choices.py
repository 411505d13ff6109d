"""What a network's YAML may say: activations by name, and widths; the rest is refused, naming its key."""

from collections.abc import Sequence

from torch import nn

from vae_lab.errors import ConfigError, require_choice

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def activation_class(key: str, name: str) -> type[nn.Module]:
    """The module class called `name`."""
    require_choice(key, name, ACTIVATIONS)
    return ACTIVATIONS[name]


def check_widths(key: str, values: Sequence[int], advice: str) -> None:
    """Refuses a list that holds anything but integers >= 1."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(map(is_width, values)):
        raise ConfigError(f"{key} must be a list of integers >= 1, got {values!r}: {advice}")


def is_width(value: object) -> bool:
    """Whether `value` is an integer >= 1 (True is not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
