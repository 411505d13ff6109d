"""Where the YAML files are: beside the package in a checkout, inside it in an installed wheel."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from vae_lab.errors import ConfigError

SAVE_IT = "save it as UTF-8 without such a mark"


def package_configs() -> Path:
    """The folder of the configs that come with vae_lab."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"the configs of vae_lab are not beside {package}: install the package again")


def require_text(folder: Path) -> None:
    """Refuses a folder of configs with a file that YAML would read otherwise than its writer.

    Raises:
        ConfigError: naming the file.
    """
    for file in sorted(folder.rglob("*.yaml")):
        content = file.read_bytes() if file.is_file() else b""
        if content.startswith(BOM_UTF8):
            raise ConfigError(
                f"{file} must begin with its first character, and begins with a byte-order mark: {SAVE_IT}"
            )
        try:
            content.decode()
        except ValueError as error:
            raise ConfigError(f"{file} must be text in UTF-8, and is not ({error}): {SAVE_IT}") from error


def groups(folders: Sequence[Path]) -> list[str]:
    """Every config group, that is every folder with YAML files, as "data" or "experiment/paper"."""
    names = {file.parent.relative_to(folder).as_posix() for folder in folders for file in folder.glob("*/**/*.yaml")}
    return sorted(name for name in names if name.split("/")[0] != "hydra")


def choices(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """The choices of a group by name; a file in an earlier folder hides its namesake in a later one."""
    found = {file.stem: file for folder in reversed(folders) for file in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def headline(file: Path) -> str:
    """What a YAML file says about itself: its opening comment up to the command; empty if there is none."""
    return " ".join(takewhile(lambda line: not line.startswith("vae-lab"), opening_comment(file)))


def opening_comment(file: Path) -> Iterator[str]:
    """The lines of the comment that opens a YAML file, without its `#`."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            return
        comment = line.lstrip("#").strip()
        if comment and not comment.startswith("@package"):
            yield comment


class CommandLine(NamedTuple):
    """What a message needs to know about the command that failed."""

    command: str
    config_name: str
    folders: Sequence[Path]
    overrides: Sequence[str]
