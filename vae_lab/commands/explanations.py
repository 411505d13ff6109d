"""Makes one message of an exception: which key, which rule, what was meant, what to do."""

import errno
import re

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from vae_lab.commands.typed import no_choice, unknown_key
from vae_lab.errors import ConfigError, Failed, NonFiniteDensity, install, missing, nearest
from vae_lab.wiring.arguments import in_a_shell, quoted
from vae_lab.wiring.folders import CommandLine, choices, groups
from vae_lab.wiring.keys import CommandKeys

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
            return _unreadable(str(error.override))
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


def _unreadable(override: str) -> str:
    """The message about an override that Hydra's grammar has no meaning for, without the words of its parser."""
    key, _, value = override.partition("=")
    if unclosed := [pair for pair in ("[]", "{}", "()") if value.count(pair[0]) != value.count(pair[1])]:
        reason = f"{unclosed[0][0]} and {unclosed[0][1]} are not as many; a shell cuts words at spaces"
    elif value.endswith(","):
        reason = "it ends with a comma"
    else:
        reason = "it has characters that stand for something else"
    return (
        f"cannot read the override {override!r}: {reason}; write key=value, a list as key=[1,2] without spaces, and a "
        f"text with other characters as {in_a_shell(f'{key}={quoted(value)}')}"
    )


def _missing_config(error: MissingConfigException, line: CommandLine) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    names = choices(line.folders, group)
    if not group:
        return f"there is no config {choice!r}: {nearest(choice, names)}"
    place = re.match(r"In '([^']+)': ", str(error))
    where = f" in {place[1]}.yaml" if place and place[1] != line.config_name else ""
    if group == "hydra/launcher":
        brings = f"for joblib, ray and submitit {install('sweep')}"
        return f"{group}={choice}{where} is no launcher that is installed: {brings}"
    if not names:
        return f"{group}={choice}{where}: there is no group {group!r}: {nearest(group, groups(line.folders))}"
    return no_choice(group, choice, names, where)


def _composition(error: ConfigCompositionException, line: CommandLine) -> str:
    text = str(error)
    if found := re.match(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        key = found[1]
        if key.startswith("hydra."):
            return f"{key} is no setting of Hydra: vae-lab {line.command} --cfg hydra prints them all"
        keys = CommandKeys(line.folders, line.config_name, line.overrides)
        if key in keys.keys:  # one that is null, or left open
            return f"~{key} must name a key with a value, and {key} has none: leave ~{key} out"
        return unknown_key(next((word for word in line.overrides if word.startswith(f"{key}=")), key), keys)
    if found := re.match(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found[1].partition("=")
        return f"{found[1]} names several values: add -m for one run each, or write {key}=[{value}] for a list"
    if found := re.match(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"{found[1]} is in the config already: write {found[1]}=VALUE without the +"
    if found := re.match(r"Multiple values for ([^.]+)\.", text):
        return f"{found[1]} is chosen already: write {found[1]}=CHOICE without the +, and only once"
    return _without_hints(error)


def _without_hints(error: BaseException) -> str:
    """Hydra's own words and the cause, without its search path and its links."""
    lines = str(error).split("Config search path:")[0].splitlines()
    words = " ".join(line for line in lines if not line.startswith(("See https", "To append")))
    return f"{words}: {error.__cause__}" if error.__cause__ else words
