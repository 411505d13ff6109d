"""The small files of a run directory, read fast and without PyTorch, and what is wrong with them in words."""

import json
import os
import re
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
    text = read_text(path, "config.yaml")
    try:
        config = _mapping(text)
    except DAMAGE as error:
        raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
    require_keys(path, {key: value for key, value in config.items() if isinstance(value, Mapping)}, SECTIONS)
    return migrated_config(config, written)


def read_settings(path: str | os.PathLike[str], written: int = FORMAT) -> dict[str, Any]:
    """config.yaml by dotted keys; a list is one value. What runs share is parsed once.

    Raises:
        Unreadable: it is missing, no YAML, or not the config of a run.
    """
    text = read_text(path, "config.yaml")
    settings: dict[str, Any] = {}
    try:
        for section in re.split(r"^(?=\w)", text, flags=re.MULTILINE):  # a block for each key at the top
            settings.update(_settings(section))
    except DAMAGE:  # once more, as one text
        try:
            settings = dict(_settings(text))
        except DAMAGE as error:
            raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
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


def read_text(path: str | os.PathLike[str], name: str) -> str:
    """The text of a file of a folder.

    Raises:
        Unreadable: it is missing, or no text.
    """
    try:
        with open(os.path.join(path, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise Unreadable(path, f"no {name}") from error
    except (OSError, ValueError) as error:
        raise Unreadable(path, f"{name} cannot be read: {_in_one_line(error)}") from error


def read_json(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """The entries of a JSON file of a folder.

    Raises:
        Unreadable: it is missing, or holds something else.
    """
    text = read_text(path, name)
    try:
        content = json.loads(text)
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
    return dict(_leaves(_mapping(text), ""))


def _mapping(text: str) -> dict[str, Any]:
    content = yaml.load(text, Loader=LOADER)
    if not isinstance(content, dict | None):
        raise TypeError(f"it holds {type(content).__name__} instead of keys")
    return content or {}


def _leaves(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
