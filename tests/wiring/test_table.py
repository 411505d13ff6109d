"""The table of all commands and reports: numbers to the right and whole, texts broken, signs escaped, notes below."""

import json
import math

import pandas as pd
import pytest

from vae_lab.wiring.table import Number, Table, is_number, number

LONG = "outputs/sweeps/latent_sizes/data-mnist_model-mlp_latent_dim-5_seed-0-201f73"


def table(**further) -> Table:
    rows = [[LONG, Number(-103.256, 0.0123, "a"), "failed"], ["b", "", "planned"]]
    return Table(("run", "bound", "status"), rows, "a note\nand a_second", **further)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, True) for text in ("-1.5", "1,000", "1e6", "3*", "42 s", "3:05 min", "2 of 10", "−3")),
        *((text, False) for text in ("", "a1", "2026-01-31", "2.9.1", "1.5 nats", "[16]")),
    ],
)
def test_numbers_are_recognised(text: str, expected: bool) -> None:
    assert is_number(text) is expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (number(None), ""),
        (number(math.nan), ""),
        (number(-1.0), "-1.00"),
        (number(-1.0, places=0), "-1"),
        (number(-1.23456, 0.0012), "-1.235 ± 0.001"),
        (number(-1.2, math.inf, "b"), "-1.20 b"),
        (number(2.0, 0.0), "2.00"),
    ],
)
def test_an_error_decides_how_many_places_are_shown(cell, expected: str) -> None:
    assert str(cell) == expected


def test_a_cut_table_has_all_rows_and_its_notes_once() -> None:
    whole = Table(("run", "bound"), [[str(i), number(i)] for i in range(7)], "a note")
    parts = whole.cut(3)
    assert [len(part.rows) for part in parts] == [3, 3, 1] and [part.caption for part in parts] == ["", "", "a note"]
    assert [row for part in parts for row in part.rows] == whole.rows
    assert parts[2].turned().columns == ["run", "6"]


def test_no_line_is_broken_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    table(title="a title").print()
    title, _, header, _, first, second, _, *notes = capsys.readouterr().out.splitlines()
    assert title == "a title" and notes == ["a note", "and a_second"] and LONG in first
    assert first.index(" │ failed") == second.index(" │ planned") and "bound" in header


@pytest.mark.parametrize("width", [20, 60])
def test_a_terminal_breaks_texts_and_neither_numbers_nor_paths(width: int, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich can tell
    monkeypatch.setenv("COLUMNS", str(width))
    words = "so many words that no terminal shows them in a line"
    Table(("run", "what"), [[LONG, words], ["b", ""]]).print()
    table().print()
    text = capsys.readouterr().out
    assert "-103.26 ± 0.01 a" in text and text.count(LONG) == 2 and "\x1b[1;31mfailed" in text and words not in text


def test_signs_are_escaped_and_notes_follow() -> None:
    latex, markdown = table().to_latex(), table().to_markdown()
    assert r"$-103.26 \pm 0.01$\textsuperscript{a}" in latex and r"latent\_dim" in latex and r"and a\_second" in latex
    assert r"\begin{tabular}{lrl}" in latex and markdown.splitlines()[1].startswith("|:--")
    assert Table(("a|b",), [["<x>"]]).to_markdown().splitlines()[::2] == [r"| a\|b   |", r"| \<x>   |"]


def test_programs_get_what_json_and_csv_can_say(capsys: pytest.CaptureFixture[str]) -> None:
    records = pd.DataFrame({"x": [math.inf, None, 0.1 + 0.2], "y": [[1], None, "t"]}, dtype=object)
    found = table(records=records)
    assert json.loads(found.to_json()) == [{"x": "inf", "y": [1]}, {"x": None, "y": None}, {"x": 0.1 + 0.2, "y": "t"}]
    assert found.to_csv() == "x,y\ninf,[1]\n,\n0.30000000000000004,t\n"
    counts = pd.DataFrame({"n": [2000, None, 2**60 + 1], "m": [0, 1, 2]}, dtype=object)
    assert table(records=counts).to_csv() == "n,m\n2000,0\n,1\n1152921504606846977,2\n"
    found.write("csv")
    assert capsys.readouterr().err == "a note\nand a_second\n"
