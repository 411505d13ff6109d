"""The arguments of plain commands: those that only read, and need neither a config nor Hydra.

`key=value` is cut at its first `=`. The value of a list key is cut at its commas (not at those inside of brackets, but
for paths); a list key may also be repeated, and the lists are joined. A value that as a whole names an existing path is
that path, commas and all: among several paths, one with a comma is given by a `key=` of its own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vae_lab.errors import ConfigError, nearest


@dataclass(frozen=True)
class Key:
    """What a plain command may be told. A plain command's module holds `KEYS`, a dictionary of these by name."""

    meaning: str
    default: str = ""
    """As it would be typed; empty: none."""
    choices: tuple[str, ...] = ()
    """The only values that it may have; empty: any."""
    is_list: bool = False
    is_path: bool = False


class Arguments:
    """The values of a plain command's keys, by name; what was not given has its default."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self.values = dict(values)

    def all(self, key: str) -> list[str]:
        """Every value of a list key."""
        return self.values[key]

    def one(self, key: str) -> str:
        """The value of a key; empty where it was not given and has no default."""
        return next(iter(self.values[key]), "")

    def whole(self, key: str, at_least: int) -> int:
        """The value of a key as a whole number.

        Raises:
            ConfigError: it is none, or too small.
        """
        text = self.one(key)
        if not text.removeprefix("-").isdecimal() or int(text) < at_least:
            raise ConfigError(f"{key} must be an integer >= {at_least}, got {text!r}")
        return int(text)


def read_arguments(command: str, arguments: Sequence[str], keys: Mapping[str, Key]) -> Arguments:
    """The arguments of a plain command.

    Raises:
        ConfigError: one is not of the form key=value, unknown, empty, no choice of its key, or given twice.
    """
    given: dict[str, list[str]] = {}
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if argument.startswith("-") or not sign:
            raise ConfigError(
                f"cannot read {argument!r}: arguments are written key=value, with the keys {', '.join(keys)}; "
                f"vae-lab {command} --help explains them"
            )
        if name not in keys:
            raise ConfigError(f"{name} is no key of vae-lab {command}: {nearest(name, keys)}")
        if name in given and not keys[name].is_list:
            raise ConfigError(f"{name} takes one value, and was given twice: {given[name][0]} and {value}")
        given.setdefault(name, []).extend(_values(name, value, keys[name]))
    defaults = {name: _values(name, key.default, key) if key.default else [] for name, key in keys.items()}
    return Arguments(defaults | given)


def _values(name: str, text: str, key: Key) -> list[str]:
    is_whole = not key.is_list or (key.is_path and os.path.exists(os.path.expanduser(text)))
    brackets = ("", "") if key.is_path else ("[({", "])}")
    values = [text] if is_whole else list(_items(text, *brackets))
    for value in values:
        if not value:
            raise ConfigError(f"{name} must not be empty{f', got {name}={text}' if text else ''}: leave it out")
        if key.choices and value not in key.choices:
            raise ConfigError(f"{name}={value} is no choice of {name}: {nearest(value, key.choices)}")
    return values


def _items(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between the commas outside of brackets; [a,b] is a list as well, as in a config."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    depth = start = 0
    for i, sign in enumerate(text):
        depth += (sign in opening) - (sign in closing)
        if sign == "," and depth <= 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]
