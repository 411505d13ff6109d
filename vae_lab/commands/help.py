"""What `vae-lab --help` and `vae-lab COMMAND --help` print, read from the YAML files themselves."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vae_lab.wiring.arguments import keys_of
from vae_lab.wiring.folders import choices, headline

WIDTH = 110

FIRST = ("experiment", "data", "model", "likelihood", "objective")
"""The groups that a reader looks for; the others follow as in the defaults list."""

FLAGS = {
    "key=value": "override anything: data=mnist model.latent_dim=20; +key=value adds a key, ~key removes one",
    "-m": "one run for every combination: -m model=mlp,conv model.latent_dim=2,5,10",
    "--cfg job": "print the whole config and stop; --resolve fills in the references",
    "--config-dir DIR": "a folder of your own YAML files, searched before those of vae_lab",
    "--info defaults": "which YAML files the config is made of",
    "--hydra-help": "the other flags",
}


class Command(NamedTuple):
    """A line of the table of commands."""

    summary: str
    example: str
    plain: str = ""
    """The module of a plain command's function and settings. Empty: a Hydra app, its module has its name."""


def overview(commands: dict[str, Command]) -> str:
    """The help of the program: every command with an example."""
    lines = ["vae-lab COMMAND [overrides]: the laboratory for Auto-Encoding Variational Bayes", ""]
    for name, command in commands.items():
        lines += [f"  {name:10}{command.summary}", f"  {'':10}  vae-lab {name} {command.example}"]
    lines += ["", "vae-lab COMMAND --help lists the choices of a command, vae-lab --version the version."]
    return "\n".join(lines)


def command_help(name: str, command: Command, folders: Sequence[Path]) -> str:
    """The help of one command: its groups with every choice, and the flags."""
    lines = [f"vae-lab {name}: {command.summary}", "", f"  vae-lab {name} {command.example}"]
    for group, default in _default_choices(folders, name).items():
        found = choices(folders, group)
        if found:
            lines += ["", f"{group}="]
            width = max(map(len, found)) + 2
            for choice, file in found.items():
                mark = "*" if choice == default else " "
                lines += _entry(f"{mark} {choice}", headline(file), width + 2)
    lines += ["", "* = the default. Also:"]
    for flag, meaning in FLAGS.items():
        lines += _entry(f"  {flag}", meaning, max(map(len, FLAGS)) + 4)
    lines += ["", f"Every single key with its value: vae-lab {name} --cfg job"]
    return "\n".join(lines)


def plain_help(name: str, command: Command, kind: type[Any]) -> str:
    """The help of a plain command: its keys with their defaults and choices."""
    keys, defaults = keys_of(kind), kind()
    lines = [f"vae-lab {name}: {command.summary}", "", f"  vae-lab {name} {command.example}", ""]
    values = {key: getattr(defaults, key) or "" for key in keys}
    shown = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in values.items()}
    titles = {key: f"  {key}={'|'.join(about.choices) or shown[key]}" for key, about in keys.items()}
    for key, about in keys.items():
        default = f" (default: {shown[key]})" if about.choices and shown[key] else ""
        lines += _entry(titles[key], about.meaning + default, max(map(len, titles.values())) + 2)
    several = [key for key, about in keys.items() if about.is_list]
    if several:
        first = several[0]
        lines += [
            "",
            f"Several values: {first}=a,b or {first}=[a,b] or {first}=a {first}=b; so for {', '.join(several)}.",
        ]
    return "\n".join(lines)


def _entry(name: str, text: str, width: int) -> list[str]:
    first, *rest = textwrap.wrap(text, WIDTH - width - 2) or [""]
    return [f"  {name:{width}}{first}".rstrip(), *(f"  {'':{width}}{line}" for line in rest)]


def _default_choices(folders: Sequence[Path], command: str) -> dict[str, str | None]:
    """The groups of a command's defaults list, with what is chosen unless the user says otherwise."""
    file = choices(folders, ".")[command]
    entries: list[Any] = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    defaults = {
        group.removeprefix("optional ").split("@")[0]: choice
        for entry in entries
        if isinstance(entry, dict)
        for group, choice in entry.items()
        if not group.startswith("override ") and not group.startswith("hydra")
    }
    first = [group for group in FIRST if group in defaults]
    return {group: defaults[group] for group in [*first, *defaults]}
