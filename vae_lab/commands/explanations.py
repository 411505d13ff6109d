"""From an exception to one message: which key, which rule, what was meant, what to do."""

import difflib
import errno
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from vae_lab.errors import ConfigError, Failed, NonFiniteDensity, missing, nearest
from vae_lab.wiring.arguments import in_a_shell, quoted
from vae_lab.wiring.folders import CommandLine, choices, groups

SYSTEM = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR}
"""Refusals of the operating system that say all by themselves."""

NO_HOME = "Could not determine home directory"
"""What pathlib says of a `~` that stands for nobody's folder."""


def needs_no_traceback(error: BaseException) -> bool:
    """Whether the message of `error` is all that helps: it is a mistake of the user, or a known end."""
    return is_mistake(error) or isinstance(error, NonFiniteDensity | Failed)


def is_mistake(error: BaseException) -> bool:
    """Whether `error` is about the command, its config or the files it names, and no bug."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return isinstance(error.__cause__, ImportError) or is_mistake(error.__cause__)
    if isinstance(error, ConfigError | HydraException | OmegaConfBaseException | yaml.YAMLError):
        return True
    if (isinstance(error, OSError) and error.errno in SYSTEM) or str(error).startswith(NO_HOME):
        return True
    # Lightning's; importing it would import torch
    return type(error).__name__ == "MisconfigurationException"


def explain(error: BaseException, line: CommandLine) -> str:
    """The message for a user, in one line."""
    return " ".join(_explanation(error, line).split())


def _explanation(error: BaseException, line: CommandLine) -> str:
    match error:
        case OverrideParseException():
            key, _, value = str(error.override).partition("=")
            reason = error.message.splitlines()[0].removeprefix(f"Error parsing override '{error.override}'")
            return (
                f"cannot read the override {error.override!r}: {reason or error.message.splitlines()[1]}; "
                "write key=value, a list as key=[1,2] without spaces, and a text with other signs as "
                + in_a_shell(f"{key}={quoted(value)}")
            )
        case RuntimeError() if str(error).startswith(NO_HOME):
            return "a path begins with ~, and that user has no home folder here: set HOME, or write the whole path"
        case MissingConfigException():
            return _missing_config(error, line)
        case ConfigCompositionException():
            return _composition(error, line)
        case yaml.YAMLError():
            return f"{error}: YAML is indented by spaces, and names a key once"
        case MissingMandatoryValue():
            return missing([str(error.full_key)])
        case InstantiationException() if error.__cause__ is not None:
            return f"{error.__cause__} ({str(error).splitlines()[-1]})"
        case OmegaConfBaseException():
            return f"{error.full_key}: {str(error).splitlines()[0]}" if error.full_key else str(error)
        case HydraException():
            return _without_hints(error)
        case _:
            return str(error) or type(error).__name__


def _missing_config(error: MissingConfigException, line: CommandLine) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    names = choices(line.folders, group)
    if not group:
        return f"there is no config {choice!r}: {nearest(choice, names)}"
    place = re.match(r"In '([^']+)': ", str(error))
    where = f" in {place[1]}.yaml" if place and place[1] != line.config_name else ""
    if not names:
        return f"{group}={choice}{where}: there is no group {group!r}: {nearest(group, groups(line.folders))}"
    return f"{group}={choice}{where} is no choice of {group}: {nearest(choice, names)}"


def _composition(error: ConfigCompositionException, line: CommandLine) -> str:
    text = str(error)
    if found := re.match(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        if found[1] in valid_keys(line):  # one that is null, or left open
            return f"~{found[1]} must name a key with a value, and {found[1]} has none: leave ~{found[1]} out"
        return unknown_key(found[1], line)
    if found := re.match(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found[1].partition("=")
        return f"{found[1]} names several values: add -m for one run each, or write {key}=[{value}] for a list"
    if found := re.match(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"{found[1]} is in the config already: write {found[1]}=VALUE without the +"
    if found := re.match(r"Multiple values for ([^.]+)\.", text):
        return f"{found[1]} is chosen already: write {found[1]}=CHOICE without the +, and only once"
    return _without_hints(error)


def unknown_key(key: str, line: CommandLine) -> str:
    """The message about a key that is not in the config: likely names come from the config as composed."""
    if key.startswith("hydra."):
        return f"{key} is no setting of Hydra: vae-lab {line.command} --cfg hydra prints them all"
    keys = valid_keys(line)
    namesakes = [valid for valid in keys if valid.split(".")[-1] == key.split(".")[-1]]
    close = namesakes[:3] or difflib.get_close_matches(key, keys, n=2, cutoff=0.7)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    parent = key
    while parent and parent not in keys:
        parent = parent.rpartition(".")[0]
    siblings = [valid.rpartition(".")[2] for valid in keys if valid.rpartition(".")[0] == parent]
    listing = f"{parent or 'the config'} has {', '.join(siblings) or 'no keys of its own'}; "
    if close and not parent:
        listing = ""  # too many to help
    return f"{key} is no key of the config: {guess}{listing}to add a key of your own write +{key}=VALUE"


def valid_keys(line: CommandLine) -> list[str]:
    """Every key of the config that the choices of the command line make, and the names of all groups."""
    known = groups(line.folders)
    chosen = [override for override in line.overrides if override.split("=")[0].lstrip("+") in known]
    first = [override.split(",")[0] for override in chosen]  # of a sweep over choices
    searchpath = [f"file://{folder.resolve()}" for folder in line.folders[:-1]]
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(line.folders[-1]), version_base="1.3"):
        for overrides in (first, []):
            try:
                config = compose(line.config_name, [*overrides, f"hydra.searchpath=[{','.join(searchpath)}]"])
            except HydraException:  # a second mistake, in the choices; the defaults know most keys
                continue
            return list(dict.fromkeys([*_dotted(config, ""), *known]))
    return known


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    for name, value in node.items_ex(resolve=False):
        if not str(name).startswith("_"):
            yield f"{prefix}{name}"
            yield from _dotted(value, f"{prefix}{name}.")


def _without_hints(error: BaseException) -> str:
    """Hydra's own words and the cause, without its search path and its links."""
    lines = str(error).split("Config search path:")[0].splitlines()
    words = " ".join(line for line in lines if not line.startswith(("See https", "To append")))
    return f"{words}: {error.__cause__}" if error.__cause__ else words
