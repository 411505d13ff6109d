"""From a config to objects: the only place that calls `hydra.utils.instantiate`, and where its keys are checked.

The constructor's signature is the schema: a key that it does not know, a missing one or a value of another type is
refused by name before anything is constructed. The keys of a command that belong to no component are a dataclass of
the command's, and are checked in the same way.
"""

import inspect
import logging
import os
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, UntrustedTarget, missing, nearest, shown
from vae_lab.wiring.dotted import walk

TRUSTED = (
    "vae_lab.callbacks",
    "vae_lab.data",
    "vae_lab.estimators",
    "vae_lab.model",
    "vae_lab.networks",
    "vae_lab.objectives",
    "vae_lab.optimizers",
    "vae_lab.schedules",
    "torch.nn",
    "torch.optim",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.trainer",
)
"""Packages whose classes a run directory from a stranger may name."""

ALIASES = {"pytorch_lightning.Trainer": "pytorch_lightning.trainer.Trainer"}
NUMBERS = BeartypeConf(is_pep484_tower=True)
"""An integer will do where a float is asked for."""
logging.getLogger("hydra.utils").addFilter(lambda record: not record.getMessage().startswith("Error getting object"))
"""`get_object` logs what it raises, and a mistake is one message."""
RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
WORDS = {int: ["an integer"], float: ["a number"], bool: ["true", "false"], str: ["a text"], NoneType: ["null"]}
EXAMPLES = {int: "[1,2]", float: "[0.5,1]", str: "[a,b]"}
Settings = TypeVar("Settings")


def instantiate(config: Any, key: str, **given: Any) -> Any:
    """The object that `config` describes; `key` is where it stands in the whole config, for the messages.

    Args:
        config: a mapping of plain values with `_target_`s, resolved.
        key: its path in the whole config.
        given: constructor arguments that come from the program instead of the config.

    Raises:
        ConfigError: a key, type or value that the constructor refuses.
    """
    try:
        return hydra_instantiate(checked(config, key, given), _convert_="all", **given)
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, ImportError):
            raise ConfigError(f"{key}: {error}") from error
        if isinstance(cause, ValueError):
            raise ConfigError(str(cause)) from cause
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's, which does not know our keys
            raise ConfigError(f"{key}: {cause}") from cause
        raise cause from error


def settings(kind: type[Settings], config: Mapping[str, Any] | DictConfig, group: str = "") -> Settings:
    """Those keys of a config that a dataclass has, as its object; the others belong to components, or to the user.

    Args:
        kind: the dataclass; its annotations are the types, and its `__post_init__` checks the ranges.
        config: of a command, or a group of it.
        group: where that stands in the whole config, for the messages.

    Raises:
        ConfigError: a key is missing, or its value refused.
    """
    values: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    keys = {name: f"{group}.{name}" if group else name for name in inspect.signature(kind).parameters}
    if absent := [key for name, key in keys.items() if name not in values and not hasattr(kind, name)]:
        raise ConfigError(missing(absent))
    hints = type_hints(kind)
    return kind(**{name: of_type(values[name], hints[name], key) for name, key in keys.items() if name in values})


def checked(config: Any, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, its keys and types, and those of every component in it, held against the constructors.

    A whole number written as a float, as in 1e6, becomes an integer where one is asked for.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{key} must describe a component by its keys, {key}._target_ among them, got {config!r}")
    if "_target_" not in config:
        raise ConfigError(f"{key} must name its class in {key}._target_, got the keys {sorted(config)}")
    target = locate(config["_target_"], key)
    parameters = inspect.signature(target).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in config:
            if name not in parameters and name not in RESERVED:
                raise ConfigError(f"{key}.{name} is no setting of {target.__name__}: {nearest(name, parameters)}")
    if not config.get("_partial_"):
        for name, parameter in parameters.items():
            is_positional_or_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if parameter.default is parameter.empty and is_positional_or_keyword and name not in {*config, *given}:
                raise ConfigError(f"{key}.{name} is missing: {target.__name__} needs it; add {key}.{name}=VALUE")
    hints = type_hints(target)
    return {
        name: checked(value, f"{key}.{name}", {})
        if isinstance(value, Mapping) and "_target_" in value
        else of_type(value, hints.get(name, Any), f"{key}.{name}")
        for name, value in config.items()
    }


def type_hints(target: Any) -> dict[str, Any]:
    """The annotations of a constructor of ours or of a user's; the frameworks check their own."""
    if target.__module__.split(".")[0] in ("torch", "pytorch_lightning", "optuna"):
        return {}
    return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)


def of_type(value: Any, hint: Any, key: str) -> Any:
    """The value, if it has the annotated type; a whole float becomes an integer where only that fits."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    is_good = is_bearable(value, hint, conf=NUMBERS)
    if isinstance(value, bool):  # which Python takes for an integer
        is_good = is_good and not {bool, Any, object}.isdisjoint(kinds)
    if is_good:
        return value
    if isinstance(value, float) and value.is_integer() and is_bearable(int(value), hint, conf=NUMBERS):
        return int(value)
    *words, last = [word for kind in kinds for word in in_words(kind)]
    expected = f"{', '.join(words)} or {last}" if words else last
    raise ConfigError(f"{key} must be {expected}, got {shown(value)}")


def in_words(kind: Any) -> list[str]:
    """A type as a reader of YAML calls it."""
    items = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return list(map(str, items))
    if typing.get_origin(kind) in (list, Sequence) and items[0] in EXAMPLES:
        return [f"a list such as {EXAMPLES[items[0]]}"]
    name = kind.__name__ if inspect.isclass(kind) and not items else str(kind)
    return WORDS.get(kind) or [f"of type {name.replace('collections.abc.', '').replace('typing.', '')}"]


def locate(target: str, key: str) -> Any:
    """The class or function that a `_target_` names."""
    try:
        found = get_object(target)
    except Exception as error:  # whatever an import of a user's module raises
        raise ConfigError(f"{key}._target_ must name an importable class, got {target!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{key}._target_ must name a class, got {target!r}, which is a {type(found).__name__}")
    return found


def find_own_classes() -> None:
    """Lets a user's own `_target_` be found in the working folder; last, so that it hides nothing."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def refuse_untrusted(config: Mapping[str, Any], allow: Collection[str]) -> None:
    """Refuses a config, read from a run directory, that names code outside vae_lab's components and its frameworks.

    The name is judged before anything is imported, and the object that it resolves to by its own module: a path
    that begins in an allowed package can still lead to `os.system`.

    Raises:
        UntrustedTarget: naming the `_target_`, its place and what allows it.
    """
    for key, value in walk(config):
        if isinstance(value, str) and "${" in value:
            raise UntrustedTarget(f"{key} holds the interpolation {value!r}: a frozen config has none; refused")
        if key.rsplit(".", 1)[-1] != "_target_":
            continue
        packages = (*TRUSTED, *allow)
        trusted = isinstance(value, str) and _lies_in(ALIASES.get(value, value), packages)
        if trusted:
            found = locate(value, key.rsplit(".", 1)[0])
            trusted = inspect.isclass(found) and _lies_in(found.__module__, packages)
        if not trusted:
            package = str(value).split(".")[0]
            raise UntrustedTarget(
                f"{key}={value!r} is not one of vae_lab's components, torch.nn, torch.optim or Lightning's trainer, "
                f"loggers and callbacks; a run directory may hold anybody's code. If you trust it: allow=[{package}] "
                f'on the command line, load_run(path, allow=["{package}"]) in Python'
            )


def foreign_packages(config: Mapping[str, Any]) -> list[str]:
    """The packages besides the trusted ones that a config's `_target_`s name: what `allow` must name to continue it."""
    targets = [value for key, value in walk(config) if key.rsplit(".", 1)[-1] == "_target_"]
    names = [ALIASES.get(target, target) for target in map(str, targets)]
    return sorted({name.partition(".")[0] for name in names if not _lies_in(name, TRUSTED)})


def _lies_in(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(package + ".") for package in packages)
