"""The small files of a run directory, read fast and without PyTorch, and what is wrong with them in words."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from vae_lab.errors import RunError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, several times faster, where PyYAML was built with it; it makes plain values only, as the other."""
TWICE = ("model.likelihood.", "model.initialization.")
"""Components of the model that the config has at its top as well."""
DAMAGE = (yaml.YAMLError, ValueError, TypeError, RecursionError)


class Unreadable(RunError):  # noqa: N818
    """A file of a run directory is missing or damaged; `problem` says which and how."""

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(f"{folder}: {problem}")
        self.problem = problem


def read_settings(path: str) -> dict[str, Any]:
    """config.yaml by dotted keys; a list is one value.

    Raises:
        Unreadable: it is missing, no YAML, or not the config of a run.
    """
    text = _text(path, "config.yaml")
    settings: dict[str, Any] = {}
    try:
        for section in _sections(text):
            settings.update(_settings(section))
    except DAMAGE:  # once more, as one text
        try:
            settings = dict(_settings(text))
        except DAMAGE as error:
            raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
    absent = [name for name in ("data", "model", "trainer") if not any(key.startswith(f"{name}.") for key in settings)]
    if absent:
        raise Unreadable(path, f"config.yaml is no frozen config of a run: it lacks {', '.join(absent)}")
    for key in [key for key in settings if key.startswith(TWICE)]:
        if settings.get(key.removeprefix("model.")) == settings[key]:
            del settings[key]
    return settings


def read_record(path: str) -> dict[str, Any]:
    """run.json.

    Raises:
        Unreadable: it is missing, no JSON, or has no status.
    """
    record = _json(path, "run.json")
    if not isinstance(record.get("status"), str):
        raise Unreadable(path, "run.json has no status")
    return record


def read_ledger(path: str, name: str = "metrics.json") -> dict[str, Any]:
    """The ledger; {} where nothing was measured yet.

    Raises:
        Unreadable: it is no JSON.
    """
    return _json(path, name) if os.path.exists(os.path.join(path, name)) else {}


def _text(path: str, name: str) -> str:
    try:
        with open(os.path.join(path, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise Unreadable(path, f"no {name}") from error
    except (OSError, ValueError) as error:
        raise Unreadable(path, f"{name} cannot be read: {_in_one_line(error)}") from error


def _json(path: str, name: str) -> dict[str, Any]:
    text = _text(path, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(path, f"{name} is no JSON: {_in_one_line(error)}") from error
    if not isinstance(content, dict):
        raise Unreadable(path, f"{name} holds {type(content).__name__} instead of entries")
    return content


def _sections(text: str) -> list[str]:
    """A block of YAML for each key at the top: runs share most of these, and each is parsed once."""
    return re.split(r"^(?=\w)", text, flags=re.MULTILINE)


@lru_cache(maxsize=10_000)
def _settings(text: str) -> Mapping[str, Any]:
    """The dotted keys of a YAML mapping; an empty text has none."""
    content = yaml.load(text, Loader=LOADER)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise TypeError(f"it holds {type(content).__name__} instead of keys")
    return dict(_leaves(content, ""))


def _leaves(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
