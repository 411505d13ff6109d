"""The small files of a run directory, read fast and without PyTorch, and what is wrong with them in words.

They may be a stranger's: only regular files of a sensible size are read, and plain values of a sensible depth taken.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from vae_lab.errors import RunError, shown
from vae_lab.runs.formats import FORMAT, migrated_config
from vae_lab.runs.result import bound_keys, log_likelihood_keys

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, several times faster, where PyYAML was built with it; it makes plain values only, as the other."""
TWICE = ("model.likelihood.", "model.initialization.")
"""Components of the model that the config has at its top as well."""
SECTIONS = ("data", "model", "trainer")
"""What every reader of a run's config needs."""
LARGEST = 2**24
"""Bytes of a small file, at most."""
LARGEST_CONFIG = 2**18
"""Bytes of config.yaml, which takes longer to read, at most."""
DEEPEST, MOST, LONGEST = 50, 10_000, 2**64
"""Of the values in a file: how deep they may lie, how many keys there may be, and what an integer is smaller than."""
TOO_MANY = f"it has more than {MOST:,} keys"
DAMAGE = (yaml.YAMLError, ValueError, TypeError, RecursionError)


class Unreadable(RunError):  # noqa: N818
    """A file of a run directory is missing or damaged; `problem` says which and how."""

    def __init__(self, folder: str | os.PathLike[str], problem: str) -> None:
        super().__init__(f"{folder}: {problem}")
        self.problem = problem


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """config.yaml: plain values, nothing to resolve.

    Raises:
        Unreadable: it or run.json is missing, damaged, or of a newer version.
    """
    written = format_of(read_record(path))
    text = read_text(path, "config.yaml", LARGEST_CONFIG)
    try:
        config = plain_mapping(text)
    except DAMAGE as error:
        raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
    require_keys(path, {key: value for key, value in config.items() if isinstance(value, Mapping)}, SECTIONS)
    return migrated_config(config, written)


def read_settings(path: str | os.PathLike[str], written: int = FORMAT) -> dict[str, Any]:
    """config.yaml by dotted keys; a list is one value. What runs share is parsed once.

    Raises:
        Unreadable: it is missing, no YAML, or not the config of a run.
    """
    text = read_text(path, "config.yaml", LARGEST_CONFIG)
    settings: dict[str, Any] = {}
    try:
        for section in re.split(r"^(?=\w)", text, flags=re.MULTILINE):  # a block for each key at the top
            settings.update(_settings(section))
    except DAMAGE:  # once more, as one text
        try:
            settings = dict(_settings(text))
        except DAMAGE as error:
            raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
    if len(settings) > MOST:
        raise Unreadable(path, f"config.yaml is no YAML of settings: {TOO_MANY}")
    require_keys(path, {key.partition(".")[0]: {} for key in settings if "." in key}, SECTIONS)
    for key in [key for key in settings if key.startswith(TWICE)]:
        if settings.get(key.removeprefix("model.")) == settings[key]:
            del settings[key]
    return migrated_config(settings, written)


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """run.json.

    Raises:
        Unreadable: it is missing, no JSON, has no status, or is of a newer version.
    """
    record = read_json(path, "run.json")
    if not isinstance(record.get("status"), str):
        raise Unreadable(path, "run.json has no status")
    format_of(record, path)
    return record


def read_ledger(path: str | os.PathLike[str], name: str = "metrics.json") -> dict[str, Any]:
    """The ledger; {} where nothing was measured yet.

    Raises:
        Unreadable: it is no JSON, or a value in it that may stand for the run is no number.
    """
    ledger = read_json(path, name) if os.path.exists(os.path.join(path, name)) else {}
    for key in (*bound_keys(ledger), *log_likelihood_keys(ledger)):
        for entry in (key, f"{key}_se"):
            if not isinstance(value := ledger.get(entry, 0.0), int | float):
                raise Unreadable(path, f"{name}: {entry} must be a number, got {shown(value)}")
    return ledger


def own_part(folder: str | os.PathLike[str], *names: str) -> str:
    """The path of a part of a folder; where it, or a folder above it, is a link, that must stay within the folder.

    Raises:
        Unreadable: it leads out.
    """
    part = os.fspath(folder)
    for name in names:
        part = os.path.join(part, name)
        if os.path.islink(part):
            root, found = os.path.realpath(folder), os.path.realpath(part)
            if os.path.commonpath([root, found]) != root:
                raise Unreadable(
                    folder,
                    f"{'/'.join(names)} is a link that leads out of the folder, to {found}, and is neither read nor "
                    "written: put the thing itself in its place",
                )
    return part


def read_text(path: str | os.PathLike[str], name: str, largest: int = LARGEST) -> str:
    """The text of a file of a folder.

    Raises:
        Unreadable: it is missing, no regular file, too large, or no text.
    """
    file = own_part(path, name)
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise Unreadable(path, f"{name} cannot be read: it is no regular file")
        with open(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as opened:
            content = opened.read(largest + 1)
        if len(content) > largest:
            size = os.path.getsize(file)
            raise Unreadable(path, f"{name} has {size:,} bytes, and such a file has {largest:,} at most")
        return content.decode()
    except FileNotFoundError as error:
        raise Unreadable(path, f"no {name}") from error
    except Unreadable:
        raise
    except (OSError, ValueError) as error:
        raise Unreadable(path, f"{name} cannot be read: {_in_one_line(error)}") from error


def settings_text(config: Mapping[str, Any]) -> str:
    """The text of config.yaml: plain values in the config's order."""
    return yaml.dump(dict(config), Dumper=PlainDumper, sort_keys=False, allow_unicode=True)


class PlainDumper(yaml.SafeDumper):
    """Writes every value out wherever it stands, so that no file needs references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never a reference."""
        return True


def read_json(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """The entries of a JSON file of a folder.

    Raises:
        Unreadable: it is missing, or holds something else.
    """
    text = read_text(path, name)
    try:
        content = json.loads(text)
        _require_plain(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable(path, f"{name} is no JSON: {_in_one_line(error)}") from error
    if not isinstance(content, dict):
        raise Unreadable(path, f"{name} holds {type(content).__name__} instead of entries")
    return content


def format_of(record: Mapping[str, Any], path: str | os.PathLike[str] = "") -> int:
    """The format number of a run directory.

    Raises:
        Unreadable: a newer version of vae_lab wrote it.
    """
    number = record.get("format", 1)
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise Unreadable(
            path, f"run.json has format {number!r}, and this version reads 1 to {FORMAT}: a newer vae_lab reads it"
        )
    return number


def require_keys(path: str | os.PathLike[str], config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuses a frozen config without one of these keys.

    Raises:
        Unreadable: naming all that are absent.
    """
    if absent := [key for key in keys if config.get(key) is None]:
        raise Unreadable(path, f"config.yaml is no frozen config of a run: it lacks {', '.join(absent)}")


@lru_cache(maxsize=10_000)
def _settings(text: str) -> Mapping[str, Any]:
    """The dotted keys of a YAML mapping; an empty text has none."""
    return dict(_leaves(plain_mapping(text), ""))


def plain_mapping(text: str) -> dict[str, Any]:
    """The keys of a YAML text, which hold plain values; none of an empty text.

    Raises:
        Any of `DAMAGE`: it holds something else.
    """
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
        raise ValueError("it refers to itself by an alias, which may stand for anything of any size")
    content = yaml.load(text, Loader=LOADER)
    if not isinstance(content, dict | None):
        raise TypeError(f"it holds {type(content).__name__} instead of keys")
    _require_plain(content)
    return content or {}


def _require_plain(content: Any) -> None:
    """Refuses what no config, record or ledger holds, and what reads it stumbles over."""
    level, num_keys = [content], 0
    for _ in range(DEEPEST):
        below = []
        for node in level:
            if isinstance(node, dict):
                num_keys += len(node)
                below += [*node, *node.values()]
            elif isinstance(node, list):
                below += node
            elif isinstance(node, str):
                if not node.isascii():
                    node.encode()
            elif isinstance(node, int):
                if abs(node) >= LONGEST:
                    raise ValueError("it holds an integer of more than 64 bits")
            elif not isinstance(node, float | None):
                raise ValueError(f"it holds a {type(node).__name__}, and only texts and numbers may stand there")
        if num_keys > MOST:
            raise ValueError(TOO_MANY)
        if not below:
            return
        level = below
    raise ValueError(f"its values lie more than {DEEPEST} deep")


def _leaves(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
