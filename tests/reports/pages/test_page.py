"""Self-contained pages: nothing outside the file, text escaped, numbers to the right."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from vae_lab.reports.pages.page import Picture, Section, write_page
from vae_lab.wiring.table import Table, number

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class Elements(HTMLParser):
    """Every element with its attributes, and whether all were closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> str:
    tones = {"FAIL": "bad", "PASS": "good"}
    table = Table(("run", "bound", "verdict"), [("a<b", "-103.20", "FAIL"), ("c", "", "PASS")], "A caption.", tones)
    sections = [
        Section("One & two", text=["<script>alert(1)</script>"], pictures=[Picture(PNG, "it", True)]),
        Section("Three", tables=[table], code=["vae-lab verify scale=quick"]),
        Section("Four"),
    ]
    path = write_page(tmp_path / "index.html", "A page", sections, summary="In short.")
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_and_needs_nothing_from_outside(page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    addresses = [
        value
        for _, attributes in elements.found
        for name, value in attributes.items()
        if name in ("src", "href") and value is not None
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "script" not in {tag for tag, _ in elements.found} and "http" not in page
    (image,) = (attributes for tag, attributes in elements.found if tag == "img")
    assert image["alt"] == "it" and ("figure", {"class": "wide"}) in elements.found


def test_text_is_escaped_and_links_reach_their_sections(page: str) -> None:
    assert "&lt;script&gt;" in page and "a&lt;b" in page
    assert (
        set(re.findall(r'href="#([^"]+)"', page))
        == set(re.findall(r'id="([^"]+)"', page))
        == {
            "one-two",
            "three",
            "four",
        }
    )


def test_cells_stand_out_and_numbers_stand_right(page: str) -> None:
    assert '<td class="bad">FAIL</td>' in page and '<td class="good">PASS</td>' in page
    assert '<td class="number">-103.20</td>' in page and '<th scope="col" class="number">bound</th>' in page
    assert '<th scope="row" class="">a&lt;b</th>' in page


def test_values_stand_below_each_other_whatever_follows_and_can_be_downloaded(tmp_path: Path) -> None:
    records = pd.DataFrame({"bound": [-25.0, -25.01]})
    table = Table(("run", "bound"), [["a", number(-25.0)], ["b", number(-25.01, 0.03, "a")]], records=records)
    page = write_page(tmp_path / "index.html", "A page", [Section("One", tables=[table])]).read_text(encoding="utf-8")
    for value, rest in (("-25.00", ""), ("-25.01", " ± 0.03 a")):
        assert f'<td class="number">{value}<span class="error" style="width: 9ch">{rest}</span></td>' in page
    (csv,) = re.findall('download="one.csv" href="data:text/csv;base64,([^"]*)"', page)
    assert base64.b64decode(csv).decode() == "bound\n-25.0\n-25.01\n"


def test_turned_table_has_a_column_for_each_row() -> None:
    turned = Table(("run", "bound", "time"), [["A", "-1.0", "3 s"], ["B", "-2.0", "4 s"]]).turned()
    assert (turned.columns, turned.rows) == (["run", "A", "B"], [["bound", "-1.0", "-2.0"], ["time", "3 s", "4 s"]])


def test_names_of_a_sweeps_runs_may_be_broken_and_short_texts_not(tmp_path: Path) -> None:
    name = "data-mnist_model-mlp_latent_dim-5_seed-0-201f73"
    table = Table(("data", "directory"), [["frey_face", name]])
    page = write_page(tmp_path / "index.html", "A page", [Section("One", tables=[table])]).read_text(encoding="utf-8")
    assert f'<td class="long">{name}</td>' in page and 'class="">frey_face</th>' in page


def test_small_pictures_stand_side_by_side_and_long_texts_are_folded(tmp_path: Path) -> None:
    tiles = [Picture(PNG, "one"), Picture(b"\xff\xd8\xff", "two")]
    section = Section("One", tiles=tiles, details={"All of it": "a: <b>"})
    page = write_page(tmp_path / "index.html", "A page", [section]).read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(page)
    assert elements.open == [] and ("div", {"class": "tiles"}) in elements.found
    images = [attributes for tag, attributes in elements.found if tag == "img"]
    kinds = [str(image["src"]).partition(";")[0] for image in images]
    assert kinds == ["data:image/png", "data:image/jpeg"] and [image["alt"] for image in images] == ["one", "two"]
    assert "<summary>All of it</summary>" in page and "a: &lt;b&gt;" in page
