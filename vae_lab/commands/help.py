"""What `vae-lab --help` and `vae-lab COMMAND --help` print, read from the YAML files themselves."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from vae_lab.wiring.arguments import keys_of
from vae_lab.wiring.folders import choices, headline
from vae_lab.wiring.keys import OPEN, CommandKeys, YamlKey

WIDTH = 110

FIRST = ("experiment", "data", "model", "likelihood", "objective")
"""The groups that a reader looks for; the others follow as in the defaults list."""

FLAGS = {
    "key=value": "override any of these keys; +key=value adds one, ~key takes one away",
    "-m": "one run for every combination: -m model=mlp,conv model.latent_dim=2,5,10",
    "--cfg job": "print the whole config and stop; --resolve fills in the references",
    "--config-dir DIR": "a folder of your own YAML files, searched before those of vae_lab",
    "--info defaults": "which YAML files the config is made of",
    "--hydra-help": "the other flags",
}
ALWAYS = ("--cfg job", "--hydra-help")
"""Flags that mean something to a command without groups, too."""
WIDEST = 44
"""The widest that a column of names, such as keys with their defaults, may be."""
ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+),'?([^'}]*)'?\}")
REFERENCE = re.compile(r"\$\{\.*([\w.]+)\}")


class Command(NamedTuple):
    """A line of the table of commands."""

    summary: str
    example: str
    doing: str = ""
    """What it says that it does, before the words of the command line; empty: it is quick, and says nothing."""
    plain: str = ""
    """The module of a plain command's function and settings. Empty: a Hydra app, its module has its name."""
    loads_pytorch: bool = True
    """Whether it needs PyTorch first of all; what plans trainings leaves it to these."""


def overview(commands: dict[str, Command]) -> str:
    """The help of the program: every command with an example."""
    lines = ["vae-lab COMMAND [overrides]: the laboratory for Auto-Encoding Variational Bayes", ""]
    for name, command in commands.items():
        lines += [f"  {name:10}{command.summary}", f"  {'':10}  vae-lab {name} {command.example}"]
    lines += [
        "",
        "vae-lab COMMAND --help shows the keys of a command with their defaults, vae-lab --version the version.",
        'Tab completes commands, keys, choices and runs after: eval "$(vae-lab --completion bash)" (or zsh, fish).',
    ]
    return "\n".join(lines)


def command_help(name: str, command: Command, keys: CommandKeys) -> str:
    """The help of one command: its keys, its groups with every choice, the keys of those chosen, and the flags."""
    lines = [f"vae-lab {name}: {command.summary}", "", f"  vae-lab {name} {command.example}"]
    of_command = keys.of_group[""].items()
    own = {key: about for key, about in of_command if key not in keys.of_group.get(key.partition(".")[0], {})}
    lines += ["", "Keys, with their defaults:", *_keys(own, keys)]
    first = [group for group in FIRST if group in keys.chosen]
    groups = [group for group in (*first, *keys.chosen) if "/" not in group]
    for group in dict.fromkeys(groups):
        if found := choices(keys.folders, group):
            marked = {f"{' *'[choice in keys.chosen[group]]} {choice}": file for choice, file in found.items()}
            lines += ["", f"{group}=", *_in_columns({name: headline(file) for name, file in marked.items()})]
        own = keys.of_group.get(group, {})
        lines += _keys({key: about for key, about in own.items() if key.startswith(f"{group}.")}, keys)
    lines += ["", "* = what is chosen, with its keys below. Also:" if groups else "Also:"]
    shown = [flag for flag in FLAGS if (groups or flag in ALWAYS) and (flag != "-m" or name == "train")]
    lines += _in_columns({f"  {flag}": FLAGS[flag] for flag in shown})
    others = (
        f"{group}={choice}"
        for group in ("model", *groups)
        if group in groups
        for choice in choices(keys.folders, group)
        if choice not in keys.chosen[group]
    )
    if other := next(others, ""):
        lines += ["", f"The keys of another choice: vae-lab {name} {other} --help"]
    return "\n".join(lines)


def _keys(shown: Mapping[str, YamlKey], keys: CommandKeys) -> list[str]:
    """A line for each key: its default, as the choices have it, and what it is."""
    entries = {}
    for key, about in shown.items():
        if not about.is_section:
            entries[f"  {key}={_default(keys.keys[key].value)}"] = keys.keys[key].comment
        elif about.comment:
            entries[f"  {key}."] = about.comment
    return _in_columns(entries)


def _default(value: str) -> str:
    """A default for a reader: a reference as the name of what it refers to, a variable of the environment as such."""
    if value == OPEN:
        return "..."
    if found := ENVIRONMENT.fullmatch(value):
        return f"${found[1]}, else {found[2]}"
    return REFERENCE.sub(r"<\1>", value)


def plain_help(name: str, command: Command, kind: type[Any]) -> str:
    """The help of a plain command: its keys with their defaults and choices."""
    keys, defaults = keys_of(kind), kind()
    lines = [f"vae-lab {name}: {command.summary}", "", f"  vae-lab {name} {command.example}", ""]
    values = {key: getattr(defaults, key) or "" for key in keys}
    shown = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in values.items()}
    titles = {key: f"  {key}={'|'.join(about.choices) or shown[key]}" for key, about in keys.items()}
    of_choices = {key: f" (default: {shown[key]})" for key, about in keys.items() if about.choices and shown[key]}
    lines += _in_columns({titles[key]: about.meaning + of_choices.get(key, "") for key, about in keys.items()})
    if several := [key for key, about in keys.items() if about.is_list]:
        examples = "{0}=a,b or {0}=[a,b] or {0}=a {0}=b".format(several[0])
        lines += ["", f"Several values: {examples}; so for {', '.join(several)}."]
    return "\n".join(lines)


def _in_columns(entries: Mapping[str, str]) -> list[str]:
    """Names and what they are, below each other."""
    width = min(max(map(len, entries), default=0), WIDEST) + 2
    return [line for name, text in entries.items() for line in _entry(name, text, width)]


def _entry(name: str, text: str, width: int) -> list[str]:
    """A name and what it is, in columns; a name that is too wide has a line to itself."""
    if len(name) > width - 1 and text:
        return [f"  {name}", *_entry("", text, width)]
    first, *rest = textwrap.wrap(text, WIDTH - width - 2) or [""]
    return [f"  {name:{width}}{first}".rstrip(), *(f"  {'':{width}}{line}" for line in rest)]
