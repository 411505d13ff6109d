"""What pages about runs share: their values as text, commands that may be pasted, pictures or the reason for none."""

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vae_lab.errors import ConfigError
from vae_lab.figures.canvas import encoded
from vae_lab.reports.overview import Overview
from vae_lab.reports.pages.page import Picture, Section, write_page
from vae_lab.runs.continuation import quoted
from vae_lab.runs.load import Run, load_run
from vae_lab.wiring.arguments import Arguments, Key

UNREADABLE = (OSError, ValueError, RuntimeError, KeyError)
"""What reading the weights or the data of a broken directory raises; `CannotDrawError` and ours are among them."""
TITLES = {"latent_dim": "Nz", "lr": "step size"}
"""Settings as they are printed."""
KINDS = ("data", "model", "objective", "optimizer", "likelihood")
"""Settings whose values say what they are."""
PLAIN = re.compile(r"[\w./-]+", re.ASCII)
NO_TEXT = re.compile(r"[-+\d._e]+|null|true|false|[-+]?(inf|nan)", re.IGNORECASE)
"""What Hydra's grammar reads as text, and what it would take for something else, without quotation marks."""

READING_KEYS = {
    "checkpoint": Key("whose values and pictures; without it: best where there is one", choices=("best", "last")),
    "data_root": Key("where the data set lies now, if not where the run found it", is_path=True),
    "allow": Key("packages whose classes the run's config may name, besides vae_lab's own", is_list=True),
}
"""Keys of the commands that read runs."""


@dataclass(frozen=True)
class Reader:
    """How weights are read: the settings of `load_run`."""

    checkpoint: str | None = None
    data_root: str | None = None
    allow: Collection[str] = ()

    @classmethod
    def of(cls, arguments: Arguments) -> "Reader":
        """The reader that `READING_KEYS` describe."""
        return cls(arguments.one("checkpoint") or None, arguments.one("data_root") or None, arguments.all("allow"))

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for, as arguments of `load_run`."""
        given = {"checkpoint": self.checkpoint, "data_root": self.data_root, "allow": list(self.allow)}
        return {name: value for name, value in given.items() if value}

    def load(self, run: Overview) -> Run:
        """The trained model.

        Raises:
            RunError: there are no weights yet, or they are broken; any of `UNREADABLE` for the data.
        """
        if self.allow:
            from vae_lab.wiring.build import find_own_classes

            find_own_classes()
        return load_run(run.path, allow=self.allow, checkpoint=self.checkpoint, data_root=self.data_root)

    def models(self, runs: dict[str, Overview]) -> tuple[dict[str, Run], dict[str, str]]:
        """The labelled runs that can be read, and of the others why not."""
        models, reasons = {}, {}
        for label, run in runs.items():
            try:
                models[label] = self.load(run)
            except UNREADABLE as error:
                reasons[label] = reason_of(error)
        return models, reasons


def reason_of(error: Exception) -> str:
    """An error as part of a sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigError | FileNotFoundError) or not text:
        return text or type(error).__name__
    return text if type(error).__module__.startswith("vae_lab") else f"{type(error).__name__}: {text}"


def drawn(draw: Callable[[], Figure]) -> bytes | str:
    """The picture as a file's content, or why there is none."""
    try:
        return encoded(draw())
    except UNREADABLE as error:
        return reason_of(error)


def add_picture(pictures: list[Picture], text: list[str], draw: Callable[[], Figure], caption: str = "") -> None:
    """Adds the picture, or the reason why there is none."""
    content = drawn(draw)
    if isinstance(content, bytes):
        pictures.append(Picture(content, caption))
    else:
        text.append(f"A picture is missing: {content}.")


def title(setting: str) -> str:
    """A setting as it is printed."""
    return TITLES.get(setting, setting)


def in_words(columns: Mapping[str, Sequence[str]], i: int) -> str:
    """What the columns say of run i, as `conv, Nz 10, seed 2`."""
    return ", ".join(texts[i] if name in KINDS else f"{title(name)} {texts[i]}" for name, texts in columns.items())


def listed(texts: Sequence[str]) -> str:
    """In a sentence: A, B and C."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def pasted(*arguments: str) -> str:
    """A command line as a shell reads it."""
    return shlex.join(["vae-lab", *arguments])


def override(key: str, value: str | Path) -> str:
    """`key=value` as Hydra's grammar reads any text."""
    text = str(value)
    if PLAIN.fullmatch(text) and not NO_TEXT.fullmatch(text):
        return f"{key}={text}"
    return f"{key}={quoted(text)}"


def resume(run: Overview) -> str:
    """The command that goes on with a run."""
    return pasted("train", override("run_dir", run.path))


def write(path: Path, title: str, sections: Sequence[Section], *, summary: str) -> Path:
    """Writes the page.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        return write_page(path, title, sections, summary=summary)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): name another out=FILE.html") from error
