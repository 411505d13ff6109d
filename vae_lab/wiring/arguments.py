"""One grammar for lists and paths on every command line, and the arguments of commands that need no Hydra.

`key=value` is cut at its first `=`. The value of a list key is cut at its commas (not at those in quotation marks, nor,
but for paths, at those inside of brackets), and [a,b] is the same list; a list key may also be repeated, and the lists
are joined. A value that as a whole names an existing path is that path, commas and all: among several paths, one with
a comma is given in quotation marks, or by a `key=` of its own. A path may be a pattern, such as 'outputs/sweeps/x/*'.
"""

import glob
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from vae_lab.errors import ConfigError, nearest

QUOTES = "'\""
TEXTS = (
    *("run", "root", "run_dir", "output_root", "name", "out"),
    *("data_root", "data.root", "data.path", "data.test_path"),
)
"""Keys of Hydra's commands whose values are names and paths."""
PLAIN = re.compile(r"[\w./-]+", re.ASCII)
SEVERAL = re.compile(r"[^\s,()\[\]{}'\"$=]+(,[^\s,()\[\]{}'\"$=]+)+")
NO_TEXT = re.compile(r"[-+\d._e]+|true|false|[-+]?(inf|nan)", re.IGNORECASE)
NO_WORD = re.compile(r"([\\()\[\]{}:=, \t])")
"""What Hydra's grammar reads as a text, what it reads as several values, what it reads as neither, and signs that
it takes for its own in the name of an entry."""
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Key:
    """What the key of a plain command means, and what its values may be."""

    meaning: str
    choices: tuple[str, ...] = ()
    """The only values that it may have; empty: any."""
    is_list: bool = False
    is_path: bool = False


def key(meaning: str, default: Any, *, choices: tuple[str, ...] = (), is_path: bool = False) -> Any:
    """A field of the dataclass with a plain command's keys; one whose default is a list takes several values."""
    is_list = isinstance(default, list)
    about = {"key": Key(meaning, choices, is_list, is_path)}
    if is_list:
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


def keys_of(kind: type[Any]) -> dict[str, Key]:
    """The keys of a plain command by name: its own, then those that it shares with others."""
    found = {each.name: each.metadata["key"] for each in fields(kind)}
    return {name: found[name] for name in sorted(found, key=lambda name: name not in vars(kind)["__annotations__"])}


def read_arguments(command: str, arguments: Sequence[str], kind: type[Settings]) -> Settings:
    """The keys of a plain command as its dataclass, whose fields are made by `key`.

    Raises:
        ConfigError: one is not of the form key=value, unknown, empty, no choice of its key, or given twice.
    """
    keys = keys_of(kind)
    place = next((name for name, about in keys.items() if about.is_path and about.is_list), "")
    given: dict[str, list[str]] = {}
    wrong = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if place and not sign and argument not in keys and not argument.startswith("-"):  # a folder alone
            name, value = place, argument
        elif argument.startswith("-") or not sign:
            wrong.append(
                f"cannot read {argument!r}: arguments are written key=value, with the keys {', '.join(keys)}; "
                f"vae-lab {command} --help explains them"
            )
            continue
        if name not in keys:
            wrong.append(f"{name} is no key of vae-lab {command}: {nearest(name, keys)}")
            continue
        if name in given and not keys[name].is_list:
            raise ConfigError(f"{name} takes one value, and was given twice: {given[name][0]} and {value}")
        given.setdefault(name, []).extend(_values(name, value, keys[name]))
    if wrong:
        raise ConfigError("; ".join(wrong))
    hints = get_type_hints(kind)
    return kind(
        **{name: texts if keys[name].is_list else _number(texts[0], hints[name]) for name, texts in given.items()}
    )


def _number(text: str, hint: Any) -> Any:
    """The number, where one is asked for and the text is one; the dataclass refuses what is none, or out of range."""
    for kind in (int, float):
        if kind in (hint, *get_args(hint)):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def _values(name: str, text: str, key: Key) -> list[str]:
    if key.is_path and os.path.exists(os.path.expanduser(text)):
        values = [text]
    elif key.is_list:
        values = [unquoted(item) for item in _items(text, *(("", "") if key.is_path else ("[({", "])}")))]
    else:
        values = [unquoted(text) if key.is_path else text]
    for value in values:
        if not value:
            raise ConfigError(
                f"{name} must not be empty{f', got {name}={text}' if text else ''}: give it a value, or leave it out"
            )
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
        if i == start and sign == " ":
            start += 1
            continue
        if mark or (i == start and sign in QUOTES):
            is_escaped = (i - len(text[:i].rstrip("\\"))) % 2
            mark = "" if sign == mark and not is_escaped else mark or sign
            continue
        depth += (sign in opening) - (sign in closing)
        if sign == "," and depth <= 0:
            yield text[start:i].rstrip(" ")
            start = i + 1
    yield text[start:].rstrip(" ")


def unquoted(text: str) -> str:
    """What stands in quotation marks; a text without them as it is."""
    if len(text) < 2 or text[0] not in QUOTES or text[0] != text[-1]:
        return text
    return re.sub(rf"(\\+)({text[0]}|$)", lambda found: found[1][: len(found[1]) // 2] + found[2], text[1:-1])


def quoted(text: str) -> str:
    """The text in quotation marks, as Hydra's grammar reads any text: a backslash is one but before such a mark."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + "\\'" * bool(found[2]), text) + "'"


def pasted(*arguments: str) -> str:
    """A command line as a shell reads it."""
    return shlex.join(["vae-lab", *arguments])


def override(key: str, value: object) -> str:
    """`key=value` as Hydra's grammar reads any value, and that of the other commands any text."""
    return f"{key}={typed(value)}"


def typed(value: Any) -> str:
    """A value as a command line has it; what is none of a config's values is a text, as a path."""
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Real):
        return repr(value)
    if isinstance(value, Mapping):
        names = [NO_WORD.sub(r"\\\1", name) if isinstance(name, str) else typed(name) for name in value]
        return f"{{{','.join(f'{name}:{typed(item)}' for name, item in zip(names, value.values(), strict=True))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed, value))}]"
    text = str(value)
    is_plain = PLAIN.fullmatch(text) and text.lower() != "null" and not NO_TEXT.fullmatch(text)
    return text if is_plain else quoted(text)


def in_a_shell(argument: str) -> str:
    """An argument as it is typed: in double quotation marks, where these do."""
    return shlex.quote(argument) if set('"$`\\!') & set(argument) else f'"{argument}"'


def with_texts(overrides: Sequence[str]) -> list[str]:
    """A command line for Hydra in which names and paths are the texts that were typed: 1e3 and true are no values."""
    return [
        f"{key}={','.join(quoted(part) if NO_TEXT.fullmatch(part) else part for part in value.split(','))}"
        if sign and key.lstrip("+") in TEXTS and value[:1] not in ("'", '"')
        else text
        for text, (key, sign, value) in ((text, text.partition("=")) for text in overrides)
    ]


def paths_of(overrides: Sequence[str], name: str) -> list[str]:
    """All paths of a list key on a command line for Hydra; none where a reference is, which is Hydra's to resolve."""
    own = [text.partition("=")[2] for text in overrides if text.startswith(f"{name}=")]
    if any("${" in text for text in own):
        return []
    return [path for text in own for path in _values(name, text, Key("", is_list=True, is_path=True))]


def with_one_list(overrides: Sequence[str], name: str) -> list[str]:
    """A command line for Hydra in which all paths of a list key are one list in Hydra's grammar, at its end."""
    if not (paths := paths_of(overrides, name)):
        return list(overrides)
    others = [text for text in overrides if not text.startswith(f"{name}=")]
    return [*others, f"{name}=[{','.join(map(quoted, paths))}]"]


def with_brackets(overrides: Sequence[str], takes_list: Callable[[str], bool]) -> list[str]:
    """A command line for Hydra in which several values of keys that take lists are a list: a,b is [a,b]."""
    return [
        f"{key}=[{value}]" if SEVERAL.fullmatch(value) and takes_list(key) else text
        for text, (key, _, value) in ((text, text.partition("=")) for text in overrides)
    ]


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
                before, by_pattern = found.get(path.resolve(), (path, True))
                found[path.resolve()] = (before, by_pattern and is_pattern)
    return dict(found.values())
