"""The small files of a run directory, read fast and without PyTorch, and what is wrong with them in words.

They may be a stranger's: only regular files of a sensible size are read, and plain values of a sensible depth taken.
"""

import copy
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import yaml

from vae_lab.errors import RunError, shown
from vae_lab.runs.formats import FORMAT, migrated_config
from vae_lab.runs.identity import FIXED, changed_settings
from vae_lab.runs.result import HIGH_K_HAT, bound_keys, log_likelihood_keys
from vae_lab.wiring.arguments import override, pasted
from vae_lab.wiring.dotted import key_of, leaves

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, several times faster, where PyYAML was built with it; it makes plain values only, as the other."""
TWICE = ("model.likelihood.", "model.initialization.")
"""Components of the model that the config has at its top as well."""
WORDS = ("_settings", "_bias")
"""Endings of what a ledger says in words about a value."""
SECTIONS = ("data", "model", "trainer")
"""What every reader of a run's config needs."""
LARGEST = 2**24
"""Bytes of a small file, at most."""
LARGEST_CONFIG = 2**18
"""Bytes of config.yaml, which takes longer to read, at most."""
DEEPEST, MOST, LONGEST = 50, 10_000, 2**64
"""Limits of the values in a file: their depth, the number of keys, and what an integer is smaller than."""
STATUSES = ("planned", "running", "interrupted", "finished", "failed")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


ENTRIES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "status": (f"one of {', '.join(STATUSES)}", lambda value: value in STATUSES),
    "error": ("a text or null", lambda value: isinstance(value, str | None)),
    "choices": ("choices by group", lambda value: isinstance(value, dict)),
    "overrides": ("a list of texts or null", lambda value: value is None or _is_list_of(value, str)),
    FIXED: ("settings by key", lambda value: isinstance(value, dict)),
    "data_fingerprint": ("the fingerprint of the data", lambda value: isinstance(value, dict)),
    "data_place": (
        "a path by what was typed",
        lambda value: isinstance(value, dict) and all(isinstance(path, str) for path in value.values()),
    ),
    "samples_evaluated": ("a count", lambda value: _is_number(value) and isinstance(value, int) and value >= 0),
    "wall_seconds": ("a number", _is_number),
    "image_shape": (
        "the [channel, height, width] of the model's images",
        lambda value: _is_list_of(value, int) and len(value) == 3 and min(value) >= 1,
    ),
}
"""The entries of run.json that are read again -> what they must be, where they are there."""
DAMAGE = (yaml.YAMLError, ValueError, TypeError, RecursionError)


class Unreadable(RunError):  # noqa: N818
    """A file of a run directory is missing or damaged; `problem` says which and how."""

    def __init__(self, folder: str | os.PathLike[str], problem: str) -> None:
        super().__init__(f"{folder}: {problem}")
        self.problem = problem


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """config.yaml: plain values, nothing to resolve.

    Raises:
        Unreadable: it or run.json is missing, damaged, or of a newer version; or it was changed by hand.
    """
    return copy.deepcopy(_frozen_config(path, read_record(path)))


def read_settings(path: str | os.PathLike[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """config.yaml by dotted keys; a list is one value.

    Args:
        path: the run directory.
        record: its run.json.

    Raises:
        Unreadable: it is missing, no YAML, not the config of a run, or was changed by hand.
    """
    settings = dict(leaves(_frozen_config(path, record)))
    for key in [key for key in settings if key.startswith(TWICE)]:
        if settings.get(key.removeprefix("model.")) == settings[key]:
            del settings[key]
    return settings


def _frozen_config(path: str | os.PathLike[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """config.yaml as the present format has it; what runs share is parsed once, and one object in all of them."""
    text = read_text(path, "config.yaml", LARGEST_CONFIG)
    config: dict[str, Any] = {}
    try:
        try:
            for section in re.split(r"^(?=\w)", text, flags=re.MULTILINE):  # a block for each key at the top
                config.update(_section(section))
        except DAMAGE:  # once more, as one text
            config = plain_mapping(text)
        _require_plain(config)
    except DAMAGE as error:
        raise Unreadable(path, f"config.yaml is no YAML of settings: {_in_one_line(error)}") from error
    require_keys(path, {key: value for key, value in config.items() if isinstance(value, Mapping)}, SECTIONS)
    refuse_changed(path, config, record)
    return migrated_config(config, format_of(record))


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


def check_record(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Refuses a run.json with an entry that nothing can be done with; a list of runs shows what there is.

    Raises:
        Unreadable: naming the entry.
    """
    for name, (kind, is_good) in ENTRIES.items():
        if name in record and not is_good(record[name]):
            raise Unreadable(path, f"run.json: {name} must be {kind}, got {shown(record[name])}")


def read_ledger(path: str | os.PathLike[str], name: str = "metrics.json") -> dict[str, Any]:
    """The ledger; {} where nothing was measured yet.

    Raises:
        Unreadable: it is no JSON, or a value in it that may stand for the run is no number.
    """
    ledger = read_json(path, name) if os.path.exists(os.path.join(path, name)) else {}
    for key in (*bound_keys(ledger), *log_likelihood_keys(ledger)):
        for entry in (key, f"{key}_se", f"{key}_num_samples", f"{key}{HIGH_K_HAT}"):
            if not isinstance(value := ledger.get(entry, 0.0), int | float):
                raise Unreadable(path, f"{name}: {entry} must be a number, got {shown(value)}")
    return ledger


def inside(folder: str | os.PathLike[str], *names: str) -> str:
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


def check_ledger(path: str | os.PathLike[str], name: str, ledger: Mapping[str, Any]) -> None:
    """Refuses a ledger in which something else that was measured is no number; a list of runs leaves it out.

    Raises:
        Unreadable: naming the entry.
    """
    for key, value in ledger.items():
        if key.endswith("/kl_per_dimension"):
            if not isinstance(value, list) or not all(map(_is_number, value)):
                raise Unreadable(path, f"{name}: {key} must be a list of numbers, got {shown(value)}")
        elif (key == "samples_evaluated" or "/" in key) and not key.endswith(WORDS) and not _is_number(value):
            raise Unreadable(path, f"{name}: {key} must be a number, got {shown(value)}")


def read_text(path: str | os.PathLike[str], name: str, largest: int = LARGEST) -> str:
    """The text of a file of a folder.

    Raises:
        Unreadable: it is missing, no regular file, too large, or no text.
    """
    file = inside(path, name)
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ValueError("it is no regular file")
        with open(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as opened:
            content = opened.read(largest + 1)
        if len(content) <= largest:
            return content.decode()
        size = os.path.getsize(file)
    except FileNotFoundError as error:
        raise Unreadable(path, f"no {name}") from error
    except (OSError, ValueError) as error:
        raise Unreadable(path, f"{name} cannot be read: {_in_one_line(error)}") from error
    raise Unreadable(path, f"{name} has {size:,} bytes, and such a file has {largest:,} at most")


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
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= FORMAT:
        raise Unreadable(
            path, f"run.json has format {number!r}, and this version reads 1 to {FORMAT}: a newer vae_lab reads it"
        )
    return number


def refuse_changed(path: str | os.PathLike[str], config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuses a config whose settings are not those that the run computed with; older runs do not say these.

    Raises:
        Unreadable: naming what was changed, and the command of a new run with it.
    """
    check_record(path, {name: record[name] for name in (FIXED, "overrides") if name in record})
    fixed = record.get(FIXED, {})
    require_keys(path, config, dict.fromkeys(key.partition(".")[0] for key in fixed if "." in key))
    changed = changed_settings(config, fixed) if fixed else {}
    if not changed:
        return
    is_and_was = [f"{key} is {shown(now)}, and was {shown(before)}" for key, (now, before) in changed.items()]
    typed = [text for text in record.get("overrides") or [] if key_of(text) not in ("run_dir", *changed)]
    command = pasted("train", *typed, *(override(key, now) for key, (now, _) in changed.items()))
    raise Unreadable(
        path,
        f"config.yaml was changed by hand after the run was planned: {'; '.join(is_and_was[:3])}"
        f"{f'; and {len(changed) - 3} more' if len(changed) > 3 else ''}. Put back what it was; a new run with the "
        f"change is planned by {command}",
    )


def require_keys(path: str | os.PathLike[str], config: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuses a frozen config without one of these keys.

    Raises:
        Unreadable: naming all that are absent.
    """
    if absent := [key for key in keys if config.get(key) is None]:
        raise Unreadable(path, f"config.yaml is no frozen config of a run: it lacks {', '.join(absent)}")


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


_section = lru_cache(maxsize=10_000)(plain_mapping)


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
            raise ValueError(f"it has more than {MOST:,} keys")
        if not below:
            return
        level = below
    raise ValueError(f"its values lie more than {DEEPEST} deep")


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
