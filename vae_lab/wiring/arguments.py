"""One grammar for lists and paths on every command line, and the arguments of commands that need no Hydra.

`key=value` is cut at its first `=`. The value of a list key is cut at its commas (not at those in quotation marks, nor,
but for paths, at those inside of brackets), and [a,b] is the same list; a list key may also be repeated, and the lists
are joined. A value that as a whole names an existing path is that path, commas and all: among several paths, one with
a comma is given in quotation marks, or by a `key=` of its own. A path may be a pattern, such as 'outputs/sweeps/x/*'.
"""

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import ConfigError, nearest

QUOTES = "'\""


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
    values = [text] if is_whole else [_unquoted(item) for item in _items(text, *brackets)]
    for value in values:
        if not value:
            raise ConfigError(f"{name} must not be empty{f', got {name}={text}' if text else ''}: leave it out")
        if key.choices and value not in key.choices:
            raise ConfigError(f"{name}={value} is no choice of {name}: {nearest(value, key.choices)}")
    return values


def _items(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between the commas outside of brackets and quotation marks; [a,b] is a list as well."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    depth = start = 0
    mark = ""
    for i, sign in enumerate(text):
        if mark or (i == start and sign in QUOTES):
            mark = "" if sign == mark and text[i - 1] != "\\" else mark or sign
            continue
        depth += (sign in opening) - (sign in closing)
        if sign == "," and depth <= 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]


def _unquoted(text: str) -> str:
    """What stands in quotation marks; a text without them as it is."""
    if len(text) < 2 or text[0] not in QUOTES or text[0] != text[-1]:
        return text
    return text[1:-1].replace(f"\\{text[0]}", text[0])


def quoted(text: str) -> str:
    """The text in quotation marks, as Hydra's grammar reads any text: a backslash is one but before such a mark."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + "\\'" * bool(found[2]), text) + "'"


def with_one_list(overrides: Sequence[str], name: str) -> list[str]:
    """A command line for Hydra in which all paths of a list key are one list in Hydra's grammar, at its end."""
    own = [text for text in overrides if text.startswith(f"{name}=")]
    if not own or any("${" in text for text in own):  # a reference is Hydra's to resolve
        return list(overrides)
    paths = [
        path for text in own for path in _values(name, text.partition("=")[2], Key("", is_list=True, is_path=True))
    ]
    return [*(text for text in overrides if text not in own), f"{name}=[{','.join(map(quoted, paths))}]"]


def named_paths(name: str, values: Sequence[str]) -> dict[Path, bool]:
    """The paths that the values of a key name, each once -> whether it is a folder that only a pattern found.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    found: dict[Path, tuple[Path, bool]] = {}
    for value in values:
        text = os.path.expanduser(value)
        is_pattern = glob.has_magic(text) and not os.path.lexists(text)
        paths = sorted(map(Path, glob.glob(text))) if is_pattern else [Path(text)]
        if not paths:
            raise ConfigError(f"{name}={value} matches nothing: name folders, or a pattern that finds some")
        for path in paths:
            if not is_pattern or path.is_dir():
                found.setdefault(path.resolve(), (path, is_pattern))
    return dict(found.values())
