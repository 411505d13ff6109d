"""Self-contained HTML pages: one template, pictures inside the file, readable on a phone and without a network."""

import base64
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from vae_lab.atomic import write_text
from vae_lab.errors import ConfigError, StorageError
from vae_lab.figures.canvas import encoded, pdf_of
from vae_lab.runs.directory import only_writer
from vae_lab.wiring.table import Table

KINDS = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif", b"%PDF": "application/pdf"}
"""How a file begins -> its kind; all others are tables."""
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError)
"""What reading the weights or the data of a broken directory raises; `CannotDrawError` and ours are among them."""


@dataclass(frozen=True)
class Picture:
    """The content of an image file, and what it shows."""

    content: bytes
    caption: str = ""
    wide: bool = False
    """Whether it is as wide as the page, and on a narrow screen larger than that, to be moved by hand."""
    alt: str = ""
    """What is seen, for those who do not see it, where the caption does not say that."""
    pdf: bytes = b""
    """The same for a paper, to be downloaded."""


@dataclass
class Section:
    """A heading with what stands below it, in this order."""

    title: str
    text: list[str] = field(default_factory=list)
    """Paragraphs."""
    code: Sequence[str] = ()
    """Command lines."""
    pictures: list[Picture] = field(default_factory=list)
    tiles: Sequence[Picture] = ()
    """Small pictures, side by side."""
    tables: Sequence[Table] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    """Titles and the long texts that are shown when they are clicked."""

    @property
    def anchor(self) -> str:
        """Its name within the page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    def draw(
        self,
        draw: Callable[[], Figure],
        caption: str = "",
        *,
        alt: str = "",
        pdf: bool = False,
        otherwise: str = "A picture is missing",
    ) -> None:
        """Adds the picture, perhaps with its PDF, or the reason why there is none."""
        try:
            figure = draw()
            content = pdf_of(figure) if pdf else b""
            self.pictures.append(Picture(encoded(figure), caption, alt=alt, pdf=content))
        except UNREADABLE as error:
            self.text.append(f"{otherwise}: {reason_of(error)}.")


def data_uri(content: bytes) -> str:
    """A file as an address that holds it."""
    kind = next((kind for start, kind in KINDS.items() if content.startswith(start)), "text/csv")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def reason_of(error: Exception) -> str:
    """An error as a clause of a sentence."""
    text = " ".join(str(error).split())
    is_plain = isinstance(error, ConfigError | FileNotFoundError) or type(error).__module__.startswith("vae_lab")
    return text if is_plain and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def write_page(path: Path, title: str, sections: Sequence[Section], *, summary: str = "") -> Path:
    """Replaces the file by the page, without script or address outside of it; text is escaped. Returns its path.

    Raises:
        ConfigError: it cannot be written there.
    """
    return write_html(
        path, "page.html", {"title": title, "sections": sections, "summary": summary, "data_uri": data_uri}
    )


def write_html(path: Path, template: str, facts: Mapping[str, Any]) -> Path:
    """Replaces the file by a template of this folder with its facts; text is escaped. Returns its path.

    Raises:
        ConfigError: it cannot be written there; a `RunError` where that is a run directory.
    """
    look = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), **look)
    page = environment.get_template(template).render(facts)
    with _place_of(path):
        write_text(path, page.encode(errors="backslashreplace").decode())  # a name on disk need not be text
    return path


def require_page(path: Path) -> None:
    """Refuses a place where no page can be written, before the work for it; raises what `write_html` would."""
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    with _place_of(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        TemporaryFile(dir=above).close()


@contextmanager
def _place_of(path: Path) -> Iterator[None]:
    try:
        with only_writer(path):
            yield
    except StorageError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): name another out=FILE.html") from error
