"""Makes objects of a config: the only place that calls `hydra.utils.instantiate`, and where its keys are checked.

The constructor's signature is the schema: a key that it does not know, a missing one or a value of another type is
refused by name before anything is constructed. The keys of a command that belong to no component are a dataclass of
the command's, and are checked in the same way.
"""

import inspect
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, UntrustedTarget, missing, nearest, require_memory, shown
from vae_lab.wiring.dotted import walk


class Section(NamedTuple):
    """A section of a config that describes a component."""

    kind: str
    """The class that what stands there is of."""
    trusted: str
    """Packages and classes that a run directory from a stranger may name in it."""


SECTIONS = {
    "data": Section("vae_lab.data.arrays.ImageData", "vae_lab.data"),
    "model": Section("torch.nn.Module", "vae_lab.model vae_lab.networks torch.nn"),
    "likelihood": Section("torch.nn.Module", "vae_lab.networks"),
    "initialization": Section("builtins.object", "vae_lab.networks"),
    "objective": Section("vae_lab.objectives.base.Objective", "vae_lab.objectives"),
    "optimizer": Section("torch.optim.Optimizer", "vae_lab.optimizers torch.optim"),
    "schedule": Section("torch.optim.lr_scheduler.LRScheduler", "vae_lab.schedules torch.optim.lr_scheduler"),
    "trainer": Section("pytorch_lightning.Trainer", "pytorch_lightning.Trainer pytorch_lightning.trainer"),
    "evaluation": Section("pytorch_lightning.Callback", "vae_lab.callbacks vae_lab.estimators"),
    "checkpoint": Section("pytorch_lightning.Callback", "vae_lab.callbacks"),
    "early_stopping": Section("pytorch_lightning.Callback", "vae_lab.callbacks"),
    "callbacks": Section("pytorch_lightning.Callback", "vae_lab.callbacks pytorch_lightning.callbacks"),
    "logger": Section(  # the two that write to a folder: the others send to a service, in the reader's name
        "pytorch_lightning.loggers.Logger",
        "pytorch_lightning.loggers.TensorBoardLogger pytorch_lightning.loggers.tensorboard "
        "pytorch_lightning.loggers.CSVLogger pytorch_lightning.loggers.csv_logs",
    ),
    "estimator": Section("vae_lab.estimators.base.Estimator", "vae_lab.estimators"),
}
"""The components of a config by the section in which they stand; each of `callbacks` is one."""
NESTED = ("model", "evaluation")
"""Sections whose components have others in them."""
LEADS_OUT = re.compile(r"://|::|^[/\\~$]|^[A-Za-z]:|(^|[/\\])\.\.($|[/\\])")
"""An address, or a path that is absolute or climbs: what a run directory may give to no component but its data set."""

NUMBERS = BeartypeConf(is_pep484_tower=True)
"""An integer will do where a float is asked for."""
logging.getLogger("hydra.utils").addFilter(lambda record: not record.getMessage().startswith("Error getting object"))
"""`get_object` logs what it raises, and a mistake is one message."""
RESERVED = {"_target_", "_partial_", "_convert_"}
"""Hydra's words in a component. `_recursive_` would hide others in it from its constructor, and `_args_` give arguments
without names, which only a constructor of `*args` can take."""
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
        if isinstance(cause, ValueError) and not is_of_a_framework(config["_target_"]):
            raise ConfigError(str(cause) if isinstance(cause, ConfigError) else f"{key}: {cause}") from cause
        if isinstance(cause, ValueError | TypeError | RuntimeError) and is_of_a_framework(config["_target_"]):
            named = [f"{key}.{name}={shown(value)}" for name, value in config.items() if name in str(cause)]
            got = f" (got {', '.join(named)})" if named else ""
            raise ConfigError(f"{key}: {cause}{got}") from cause
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's, which does not know our keys
            raise ConfigError(f"{key}: {cause}") from cause
        raise cause from error


def model(config: Any, *, copies: int, **given: Any) -> Any:
    """The model that `config` describes, once it is known that this machine's memory holds it.

    Args:
        config: the section `model`.
        copies: numbers to be kept for each weight: 4 in a training, with its gradient and Adam's two means.
        given: constructor arguments that come from the program instead of the config.

    Raises:
        ConfigError: the config is refused, or the model is too large.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes without numbers
            outline = instantiate(config, "model", **given)
    except (RuntimeError, NotImplementedError):  # a network of one's own that looks at its numbers tells nothing
        pass
    else:
        num_bytes = sum(weight.numel() * weight.element_size() for weight in outline.parameters())
        require_memory("the model's weights", copies * num_bytes, "choose a smaller model.latent_dim or hidden")
    return instantiate(config, "model", **given)


def settings(kind: type[Settings], config: Mapping[str, Any] | DictConfig, group: str = "") -> Settings:
    """Those keys of a config that a dataclass has, as its object; the others belong to components, or to the user.

    One value, where several are meant, is a list of one.

    Args:
        kind: the dataclass; its annotations are the types, and its `__post_init__` checks the ranges. A key that is a
            word of Python, as `from`, is the field `from_`.
        config: of a command, or a group of it.
        group: where that stands in the whole config, for the messages.

    Raises:
        ConfigError: a key is missing, or its value refused.
    """
    values: Any = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    keys = {name: name.removesuffix("_") for name in inspect.signature(kind).parameters}
    prefix = f"{group}." if group else ""
    if absent := [prefix + key for name, key in keys.items() if key not in values and not hasattr(kind, name)]:
        raise ConfigError(missing(absent))
    hints = type_hints(kind)
    given = {name: values[key] for name, key in keys.items() if key in values}
    for name in given.keys() & list_keys(kind):
        if given[name] != "" and not _fits(given[name], hints[name]) and _fits([given[name]], hints[name]):
            given[name] = [given[name]]
    return kind(**{name: of_type(value, hints[name], prefix + keys[name]) for name, value in given.items()})


def list_keys(kind: type[Any]) -> set[str]:
    """The keys of a dataclass of settings that take several values."""
    hints = type_hints(kind).items()
    return {name for name, hint in hints if any(typing.get_origin(each) in (list, Sequence) for each in _kinds(hint))}


def checked(config: Any, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, its keys and types, and those of every component in it, held against the constructors.

    A whole number written as a float, as in 1e6, becomes an integer where one is asked for.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{key} must describe a component by its keys, {key}._target_ among them, got {config!r}")
    if "_target_" not in config:
        raise ConfigError(f"{key} must name its class in {key}._target_, got the keys {sorted(config)}")
    target = locate(config["_target_"], key)
    require_kind(target, key)
    parameters = inspect.signature(target).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if (inspect.Parameter.VAR_POSITIONAL not in kinds and "_args_" in config) or "_recursive_" in config:
        word = "_recursive_" if "_recursive_" in config else "_args_"
        raise ConfigError(f"{key}.{word} is refused: name each setting of {target.__name__} by its own key")
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in config:
            if name not in parameters and name not in RESERVED | {"_args_"}:
                raise ConfigError(f"{key}.{name} is no setting of {target.__name__}: {nearest(name, parameters)}")
    if not config.get("_partial_"):
        for name, parameter in parameters.items():
            is_positional_or_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if parameter.default is parameter.empty and is_positional_or_keyword and name not in {*config, *given}:
                raise ConfigError(f"{key}.{name} is missing: {target.__name__} needs it; add {key}.{name}=VALUE")
    hints = type_hints(target)
    return {name: _checked_value(value, hints.get(name, Any), f"{key}.{name}") for name, value in config.items()}


def _checked_value(value: Any, hint: Any, key: str) -> Any:
    """An argument, and the components in it: Hydra would make them before their owner could refuse them."""
    if isinstance(value, Mapping) and "_target_" in value:
        target = locate(value["_target_"], key)
        if inspect.isclass(target) and not any(_makes(target, value, kind) for kind in _kinds(hint)):
            raise ConfigError(f"{key} must be {_expected(hint)}, got the component {value['_target_']}")
        return checked(value, key, {})
    if isinstance(value, list | dict) and any(name.endswith("_target_") for name, _ in walk(value)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        item_hints = [(typing.get_args(kind) or (Any,))[-1] for kind in _kinds(hint) if _holds(kind, type(value))]
        if not item_hints:
            raise ConfigError(f"{key} must be {_expected(hint)}, got components")
        found = {name: _checked_value(item, item_hints[0], f"{key}.{name}") for name, item in items}
        return found if isinstance(value, dict) else list(found.values())
    return of_type(value, hint, key)


def _makes(target: type, config: Mapping[str, Any], kind: Any) -> bool:
    """Whether a class gives what is annotated: an object of it or, where the owner is to call it, the class itself."""
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    is_open = bool(config.get("_partial_"))
    if kind in (Any, object):
        return True
    if is_open != (origin is Callable):
        return origin is Callable and "__call__" in dir(target)
    made = origin if not is_open else arguments[-1] if arguments else object
    return not inspect.isclass(made) or issubclass(target, made)


def _holds(kind: Any, container: type) -> bool:
    origin = typing.get_origin(kind) or kind
    return kind in (Any, object) or (inspect.isclass(origin) and origin is not str and issubclass(container, origin))


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def is_of_a_framework(name: str) -> bool:
    """Whether a class is theirs, who check their own arguments."""
    return name.split(".")[0] in ("torch", "pytorch_lightning", "optuna")


def type_hints(target: Any) -> dict[str, Any]:
    """The annotations of a constructor of ours or of a user's; the frameworks check their own."""
    if is_of_a_framework(target.__module__):
        return {}
    return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)


def of_type(value: Any, hint: Any, key: str) -> Any:
    """The value, if it has the annotated type; a whole float becomes an integer where only that fits."""
    if _fits(value, hint):
        return value
    if isinstance(value, float) and value.is_integer() and _fits(int(value), hint):
        return int(value)
    raise ConfigError(f"{key} must be {_expected(hint)}, got {shown(value)}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether it has the annotated type, every item of a list included: beartype looks at one of them, by chance."""
    return any(_is_of(value, kind) for kind in _kinds(hint))


def _is_of(value: Any, kind: Any) -> bool:
    if not is_bearable(value, kind, conf=NUMBERS):
        return False
    match value, typing.get_args(kind):
        case bool(), _:  # which Python takes for an integer
            return kind in (bool, Any, object)
        case Mapping(), (names, contents):
            return all(_fits(name, names) and _fits(content, contents) for name, content in value.items())
        case list() | tuple(), (items,):
            return all(_fits(item, items) for item in value)
    return True


def _expected(hint: Any) -> str:
    *words, last = [word for kind in _kinds(hint) for word in in_words(kind)]
    return f"{', '.join(words)} or {last}" if words else last


def in_words(kind: Any) -> list[str]:
    """A type as a reader of YAML calls it."""
    items = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return list(map(str, items))
    if typing.get_origin(kind) in (list, Sequence) and items[0] in EXAMPLES:
        return [f"a list such as {EXAMPLES[items[0]]}"]
    name = kind.__name__ if inspect.isclass(kind) and not items else str(kind)
    return WORDS.get(kind) or [f"of type {name.replace('collections.abc.', '').replace('typing.', '')}"]


def require_kind(target: Any, key: str) -> None:
    """Refuses a class that is none of its section's, such as a network in the place of a data set."""
    section, *rest = key.split(".")
    if section in SECTIONS and inspect.isclass(target) and len(rest) == (section == "callbacks"):
        kind = get_object(SECTIONS[section].kind)
        if not issubclass(target, kind):
            raise ConfigError(f"{key}._target_ must name a kind of {kind.__name__}, got {target.__name__}")


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
    """Refuses a config, read from a run directory, that names code or places which its sections may not name.

    The name is judged before anything is imported, and the object that it resolves to by its own module: a path
    that begins in an allowed package can still lead to `os.system`.

    Raises:
        UntrustedTarget: naming the key, its value and what allows it.
    """
    for package, problem in distrusted(config, allow):
        raise UntrustedTarget(
            f"{problem}; a run directory may hold anybody's code. If you trust it: allow=[{package}] "
            f'on the command line, load_run(path, allow=["{package}"]) in Python'
        )
    for place, value in walk(config):
        key, _, name = place.rpartition(".")
        if name != "_target_":
            continue
        found, section = locate(value, key), SECTIONS.get(key.split(".")[0])
        packages = (*(section.trusted.split() if section else ()), *allow)
        if not inspect.isclass(found) or not _lies_in(found.__module__, packages):
            raise UntrustedTarget(
                f"{key}._target_={value!r} leads to {found!r}, no class of {', '.join(packages)}: refused"
            )
        require_kind(found, key)


def foreign_packages(config: Mapping[str, Any]) -> list[str]:
    """The packages that `allow` must name for a config to be read from its run directory."""
    return sorted({package for package, _ in distrusted(config, ())})


def distrusted(config: Mapping[str, Any], allow: Collection[str]) -> Iterator[tuple[str, str]]:
    """What a config may not name, as a package to allow and what is wrong; judged by names, nothing is imported."""
    for key, component in _components(config):
        section = SECTIONS.get(key.split(".")[0])
        trusted = (*(section.trusted.split() if section else ()), *allow)
        for place, value, owner in _owned(component, key):
            name = value if isinstance(value, str) else ""
            if "${" in name:
                raise UntrustedTarget(f"{place} holds the interpolation {value!r}: a frozen config has none; refused")
            if place.rsplit(".", 1)[-1] == "_target_":
                is_in_place = key.split(".")[0] in NESTED or place == f"{key}._target_" or _lies_in(name, allow)
                if not (is_in_place and _lies_in(name, trusted)):
                    names = section.trusted.replace(" ", ", ") if section and is_in_place else "nothing"
                    yield str(value).split(".")[0], f"{place}={value!r} may not stand there: {key} may name {names}"
            elif section and key != "data" and LEADS_OUT.search(name) and not _lies_in(owner, allow):
                problem = f"{place}={value!r} leads out of the run directory, by an address or a path"
                yield owner.split(".")[0], problem


def _components(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The components at the top of a config, or what stands in their place, by their keys."""
    for section, content in config.items():
        if section == "callbacks" and isinstance(content, Mapping) and "_target_" not in content:
            yield from ((f"{section}.{name}", callback) for name, callback in content.items())
        else:
            yield str(section), content


def _owned(node: Any, key: str, owner: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every value with its key and the class that it is an argument of."""
    if isinstance(node, Mapping):
        owner = str(node.get("_target_", owner))
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    else:
        yield key, node, owner
        return
    for name, value in items:
        if name == "_target_":
            yield f"{key}.{name}", value, owner
        else:
            yield from _owned(value, f"{key}.{name}", owner)


def _lies_in(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(package + ".") for package in packages)
