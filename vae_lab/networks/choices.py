"""What a network's YAML may say: activations by name, and widths; the rest is refused, naming its key."""

from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn

from vae_lab.errors import ConfigError

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
    if name not in ACTIVATIONS:
        nearest = get_close_matches(str(name).lower(), ACTIVATIONS, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}?" if nearest else "choose one of them"
        raise ConfigError(f"{key} must be one of {', '.join(ACTIVATIONS)}, got {name!r}: {advice}")
    return ACTIVATIONS[name]


def check_width(key: str, value: int, advice: str) -> None:
    """Refuses what is not a whole number >= 1."""
    if not is_width(value):
        raise ConfigError(f"{key} must be a whole number >= 1, got {value!r}: {advice}")


def check_widths(key: str, values: Sequence[int], advice: str) -> None:
    """Refuses a list that holds anything but whole numbers >= 1."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(map(is_width, values)):
        raise ConfigError(f"{key} must be a list of whole numbers >= 1, got {values!r}: {advice}")


def is_width(value: object) -> bool:
    """Whether `value` is a whole number >= 1 (True is not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
