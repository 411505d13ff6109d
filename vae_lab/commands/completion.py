"""Completion for shells: `eval "$(vae-lab --completion bash)"`, and so for zsh; in fish, `... | source`.

The script asks `vae-lab --complete LINE` at every Tab, which reads YAML files and folders; neither Hydra nor PyTorch.
"""

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from vae_lab.commands.help import Command
from vae_lab.wiring.arguments import TEXTS, keys_of
from vae_lab.wiring.folders import choices, package_configs
from vae_lab.wiring.keys import CommandKeys

SCRIPTS = {
    # bash cuts words at = and :, and puts only the last piece in the place of the word
    "bash": r"""
_vae_lab() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} found
    local word=${line##*[[:space:]]}
    [[ $COMP_WORDBREAKS == *"${current:-x}"* ]] && current=
    local before=${word%"$current"}
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$before"}")
    done < <("$1" --complete "$line" 2>/dev/null)
}
complete -o nospace -F _vae_lab vae-lab
""".lstrip(),
    "zsh": r"""
_vae_lab() {
    local -a found=("${(@f)$($words[1] --complete "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    compadd -Q -S '' -- "${(@)found:#}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i -D; }
compdef _vae_lab vae-lab
""".lstrip(),
    # fish adds the blank itself
    "fish": r"""
complete -c vae-lab -f -a '(vae-lab --complete (commandline -cp) 2>/dev/null | string trim --right)'
""".lstrip(),
}
"""What a shell reads, by its name."""
FLAGS = ("--help", "--cfg", "--config-dir", "--info", "--multirun")


def candidates(line: str, commands: Mapping[str, Command]) -> list[str]:
    """What the last word of a line may become; a blank at its end says that it is whole."""
    *words, last = line.split(" ")
    words = [word for word in words if word]
    if len(words) < 2:
        own = [*commands, "help", "version"] if not last.startswith("-") else ["--help", "--version", "--completion"]
        return [f"{name} " for name in own if name.startswith(last)]
    name, *typed = words[1:]
    if name == "help" or name not in commands:
        return [f"{command} " for command in commands if name == "help" and command.startswith(last)]
    if last.startswith("-"):
        return [f"{flag} " for flag in FLAGS if flag.startswith(last) and not commands[name].plain]
    known = plain_values(name, commands[name]) if commands[name].plain else yaml_values(name, typed)
    key, sign, value = last.partition("=")
    if sign:
        return list(values(key, value, known.get(key)))
    found = list(dict.fromkeys(next_part(each, last) for each in known if each.startswith(last)))
    return [*found, *(paths(last, "") if "run" in known and last and not found else ())]


def yaml_values(name: str, typed: list[str]) -> dict[str, list[str] | None]:
    """The keys and groups of a command -> their values; None: a path."""
    keys = CommandKeys([package_configs()], name, typed)
    found: dict[str, list[str] | None] = {group: [*choices(keys.folders, group)] for group in keys.chosen}
    for key, about in keys.keys.items():
        if not about.is_section:
            values = ["true", "false"] if about.value in ("true", "false") else [about.value]
            is_path = key in TEXTS and key != "name"
            found[key] = None if is_path else [value for value in values if value and "$" not in value]
    return found


def plain_values(name: str, command: Command) -> dict[str, list[str] | None]:
    """The keys of a plain command -> their values; None: a path."""
    kind = getattr(import_module(command.plain), f"{name.title()}Settings")
    return {key: None if about.is_path else list(about.choices) for key, about in keys_of(kind).items()}


def next_part(key: str, typed: str) -> str:
    """A key as far as the dot behind what was typed; whole, its value follows."""
    dot = key.find(".", len(typed))
    return key[: dot + 1] if dot >= 0 else f"{key}="


def values(key: str, typed: str, known: list[str] | None) -> Iterator[str]:
    """The words `key=value` that begin with what was typed; behind a comma another value begins."""
    before, comma, last = typed.rpartition(",")
    start = f"{key}={before}{comma}"
    if known is None:
        yield from paths(last, start, with_latest=key == "run", with_arrays=key in ("data.path", "data_root"))
        return
    yield from (f"{start}{value} " for value in known if value.startswith(last))


def paths(typed: str, start: str, *, with_latest: bool = False, with_arrays: bool = False) -> Iterator[str]:
    """The folders, and .npz files, that a path may become: these, and run directories, as whole words."""
    if with_latest and "latest".startswith(typed):
        yield f"{start}latest "
    parent, name = os.path.split(typed)
    place = Path(parent or ".").expanduser()
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        is_array = with_arrays and path.suffix == ".npz" and path.is_file()
        if path.name.startswith(name) and (name or not path.name.startswith(".")) and (is_array or path.is_dir()):
            is_whole = is_array or (path / "run.json").is_file()
            yield f"{start}{os.path.join(parent, path.name)}{' ' if is_whole else '/'}"
