"""The keys of a command as its YAML files have them: value, and what the comment says; Hydra need not be imported.

A comment is about the key on its line, or about the one below it. Hydra alone composes configs and has the last word on
them; this is for help, completion and the words of a mistake, which are not to wait for it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vae_lab.wiring.dotted import key_of, parents_of, value_at
from vae_lab.wiring.folders import choices, groups

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
COMMENT = re.compile(r"(?:^|\s)#\s*(.*)")
NAMES = re.compile(r"[\w.,-]+")
"""One choice or several, without Hydra's further grammar."""
GLOBAL = "_global_"
OPEN = "???"
"""The value of a key that must be given."""


class YamlKey(NamedTuple):
    """What a YAML file says about a key."""

    value: str
    """The text as it is written; empty where further keys are below it."""
    comment: str
    is_section: bool


class CommandKeys:
    """The keys of a command's config, by the choices of a command line."""

    def __init__(self, folders: Sequence[Path], config_name: str, overrides: Sequence[str] = ()) -> None:
        """Reads the files.

        Args:
            folders: of configs; an earlier one hides files of a later one.
            config_name: of the command.
            overrides: the command line; of what it chooses several choices are all read.

        Raises:
            KeyError: there is no such config.
        """
        self.folders, self.groups = folders, groups(folders)
        self.chosen: dict[str, list[str]] = {}
        """The choices of every group of the command."""
        self.of_group: dict[str, dict[str, YamlKey]] = {}
        """The keys that the files of a group have; of the command's own file at the empty name."""
        self._typed = dict(self._choices_in(text.partition("=")[::2] for text in overrides))
        main = choices(folders, ".")[config_name]
        self._is_last = _entries(main)[-1:] == ["_self_"]
        """Whether the command's own file has the last word on the keys of a group."""
        for group, choice, *_ in self._defaults(main):
            if group in self.groups:
                self.chosen[group] = self._typed.get(group, choice)
        self._follow_overrides()
        self.of_group[""] = keys_in(main)
        for group in list(self.chosen):
            self._read(group, group.replace("/", "."), group)

    @cached_property
    def keys(self) -> dict[str, YamlKey]:
        """All of them with their values; what sets many keys, such as an experiment, has the last word."""
        found: dict[str, YamlKey] = {}
        files = [*self.of_group.values(), *([self.of_group[""]] if self._is_last else [])]
        for key, about in (item for keys in files for item in keys.items()):
            found[key] = about._replace(comment=about.comment or found[key].comment) if key in found else about
        return found

    def decides_elsewhere(self, key: str) -> bool:
        """Whether a key lies below one whose value is a reference or a mapping, of which only Hydra knows the keys."""
        known = self.keys
        return any(known[above].value.startswith(("${", "{")) for above in parents_of(key) if above in known)

    def _choices_in(self, items: Any) -> Iterator[tuple[str, list[str]]]:
        for name, value in items:
            group = key_of(name)
            if group in self.groups and NAMES.fullmatch(str(value)):
                yield group, [choice for choice in str(value).split(",") if choice not in ("", "null")]

    def _follow_overrides(self) -> None:
        """Lets what sets many keys choose first, then single components; what was typed stays."""
        fixed = set(self._typed)
        for is_global in (True, False):
            found: dict[str, list[str]] = {}
            for group in self.chosen:
                for file in self._files(group):
                    if (_package(file) == GLOBAL) == is_global:
                        found |= {
                            name: choice for name, choice, _, overrides in self._defaults(file, group) if overrides
                        }
                        varied = value_at(_content(file), "hydra.sweeper.params")
                        found |= self._choices_in(varied.items() if isinstance(varied, dict) else ())
            self.chosen |= {name: choice for name, choice in found.items() if name not in fixed}
            fixed |= set(found)

    def _files(self, group: str) -> list[Path]:
        """The files of the choices of a group, behind those of the same group that they build on."""
        known = choices(self.folders, group)
        found: list[Path] = []
        waiting = [known[name] for name in reversed(self.chosen.get(group, ())) if name in known]
        while waiting:
            file = waiting.pop()
            if file not in found:
                found.insert(0, file)
                waiting += [known[name] for name in _entries(file) if isinstance(name, str) and name in known]
        return found

    def _read(self, group: str, package: str, section: str) -> None:
        for file in self._files(group):
            prefix = "" if _package(file) == GLOBAL else f"{package}."
            found = self.of_group.setdefault(section, {})
            if prefix:
                found.setdefault(package, YamlKey("", "", True))
            found |= keys_in(file, prefix)
            for name, choice, place, overrides in self._defaults(file, group):
                if not overrides and name in self.groups and name != group:
                    self.chosen[name] = self._typed.get(name, choice)
                    self._read(name, f"{prefix}{place}", section)

    def _defaults(self, file: Path, group: str = "") -> Iterator[tuple[str, list[str], str, bool]]:
        """The group, choices and package of every entry in a file's list, and whether it overrides another's."""
        for entry in _entries(file):
            for name, choice in entry.items() if isinstance(entry, dict) else ():
                words = str(name).split()
                relative, _, place = words[-1].partition("@")
                is_absolute = relative.startswith("/") or not group
                whole = relative.lstrip("/") if is_absolute else f"{group}/{relative}"
                place = place or relative.lstrip("/").replace("/", ".")
                chosen = choice if isinstance(choice, list) else [] if choice is None else [choice]
                yield whole, list(map(str, chosen)), place, "override" in words


def keys_in(file: Path, prefix: str = "") -> dict[str, YamlKey]:
    """The keys of one YAML file by dotted names, without Hydra's own."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:  # which Hydra says
        return {}
    return dict(_walk(node, prefix, text)) if isinstance(node, yaml.MappingNode) else {}


def _walk(node: yaml.MappingNode, prefix: str, text: str) -> Iterator[tuple[str, YamlKey]]:
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode) or name.value.startswith("_"):
            continue
        if name.start_mark.column == 0 and name.value in ("defaults", "hydra"):
            continue
        key = f"{prefix}{name.value}"
        is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        comment = _comment(text, name.start_mark, name.end_mark if is_block else value.end_mark)
        if is_block and isinstance(value, yaml.MappingNode):
            yield key, YamlKey("", comment, True)
            yield from _walk(value, f"{key}.", text)
        else:
            yield key, YamlKey(_written(value, text), comment, False)


def _written(node: yaml.Node, text: str) -> str:
    """A value as it stands in the file, on one line."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(_written(item, text) for item in node.value)}]"
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def _comment(text: str, start: yaml.Mark, end: yaml.Mark) -> str:
    """What stands above a key, but for what opens the file, and behind it."""
    lines = text[: start.index].splitlines()[: start.line]
    above = list(takewhile(lambda line: line.startswith(f"{' ' * start.column}#"), reversed(lines)))
    is_opening = len(above) == len(lines)
    behind = COMMENT.search(text[end.index :].partition("\n")[0])
    found = [*([] if is_opening else reversed(above)), *([behind[1]] if behind else [])]
    return " ".join(line.lstrip(" #") for line in found).strip()


def _entries(file: Path) -> list[Any]:
    """The defaults list of a file."""
    entries = _content(file).get("defaults")
    return entries if isinstance(entries, list) else []


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8", errors="replace"), Loader=LOADER)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _package(file: Path) -> str:
    """The package that the head of a file names; empty: that of its group."""
    first = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.partition("@package")[2].strip()
