"""Self-contained HTML pages: one template, pictures inside the file, readable on a phone and without a network."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vae_lab.atomic import write_text
from vae_lab.reports.table import Table

TEMPLATES = Path(__file__).parent
KINDS = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif"}
"""How a file begins -> its kind."""


@dataclass(frozen=True)
class Picture:
    """An image file or its content, and what it shows."""

    source: Path | bytes
    caption: str = ""
    wide: bool = False
    """Whether a narrow screen shows it larger than itself, to be moved by hand."""

    @property
    def data_uri(self) -> str:
        """The file itself, as an address."""
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        kind = next((kind for start, kind in KINDS.items() if content.startswith(start)), "application/octet-stream")
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Details:
    """A long text, shown when its title is clicked."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it, in this order."""

    title: str
    text: Sequence[str] = ()
    """Paragraphs."""
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    code: Sequence[str] = ()
    """Command lines."""
    tiles: Sequence[Picture] = ()
    """Small pictures, side by side."""
    details: Sequence[Details] = ()

    @property
    def anchor(self) -> str:
        """Its name within the page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def render_page(title: str, sections: Sequence[Section], *, summary: str = "") -> str:
    """The page as HTML: no script, no address outside the file; text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(title=title, sections=sections, summary=summary)


def write_page(path: Path, title: str, sections: Sequence[Section], *, summary: str = "") -> Path:
    """Replaces the file by the page; returns its path."""
    write_text(path, render_page(title, sections, summary=summary))
    return path
