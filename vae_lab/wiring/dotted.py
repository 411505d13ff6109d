"""Values of nested configs by their dotted keys."""

import copy
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def target_at(config: Mapping[str, Any], component: str) -> Any:
    """The class of a component in a config, nested or by dotted keys; None where there is none."""
    key = f"{component}._target_"
    return config.get(key) or value_at(config, key)


def key_of(override: str) -> str:
    """The key of an override such as `+key@package=value`, without the signs of Hydra's grammar."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def parents_of(key: str) -> Iterator[str]:
    """The keys of the sections in which a dotted key lies, the nearest first."""
    while key := key.rpartition(".")[0]:
        yield key


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config with other values at dotted keys, whose folders exist."""
    changed = copy.deepcopy(dict(config))
    for key, value in values.items():
        *folders, name = key.split(".")
        reduce(getitem, folders, changed)[name] = value
    return changed


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested config with its dotted key; what stands behind `_target_` is one, whatever it is."""
    if key.rsplit(".", 1)[-1] == "_target_":
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from walk(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from walk(value, f"{key}.{i}")
    else:
        yield key, node


def leaves(node: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested config by dotted keys; a list is one value, and so is a mapping without keys."""
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
