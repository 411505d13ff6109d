"""A page as a reader finds it: the text of each section, its tables, its command lines and its pictures."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image


class Page(HTMLParser):
    """Parses the page at `path`; refuses one that is not well-formed or asks for anything outside itself."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.size = path.stat().st_size
        self.sections: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[list[str]]]] = {"": []}
        self.code: dict[str, list[str]] = {"": []}
        self.pictures: dict[str, list[Image.Image]] = {"": []}
        self._open: list[str] = []
        self._title = ""
        content = path.read_text(encoding="utf-8")
        assert "http" not in re.sub('base64,[^"]*', "", content) and "<script" not in content
        self.feed(content)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), address
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "h2":
            self._title = ""
        if tag == "table":
            self.tables[self._title].append([])
        if tag == "tr":
            self.tables[self._title][-1].append([])
        if tag in ("td", "th"):
            self.tables[self._title][-1][-1].append("")
        if tag == "pre":
            self.code[self._title].append("")
        if tag == "img":
            content = base64.b64decode(str(attributes["src"]).partition("base64,")[2])
            self.pictures[self._title].append(Image.open(io.BytesIO(content)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        if "h2" in self._open:
            self._title = data
            contents: list[tuple[dict, type]]
            contents = [(self.sections, str), (self.tables, list), (self.code, list), (self.pictures, list)]
            for content, empty in contents:
                content.setdefault(self._title, empty())
        self.sections[self._title] += data if data.strip() else " "
        if {"td", "th"} & set(self._open):
            self.tables[self._title][-1][-1][-1] += data
        if "pre" in self._open:
            self.code[self._title][-1] += data

    def rows(self, title: str, number: int = 0) -> list[dict[str, str]]:
        """The rows of a section's table by their column."""
        columns, *rows = self.tables[title][number]
        return [dict(zip(columns, row, strict=True)) for row in rows]
