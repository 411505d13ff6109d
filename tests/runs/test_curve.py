import pytest

from vae_lab.errors import RunError
from vae_lab.runs.curve import append_row, keep_rows, read_rows


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "metrics.csv"


def test_rows_come_back_as_they_were_written(path):
    rows = [{"samples_evaluated": 100, "val/bound": -1 / 3}, {"samples_evaluated": 200, "val/bound": 1e-17}]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    assert path.read_text().splitlines()[0] == "samples_evaluated,val/bound"


def test_an_absent_file_has_no_rows(path):
    assert read_rows(path) == []
    keep_rows(path, lambda at: True)
    assert not path.exists()


def test_a_new_name_becomes_a_column_and_an_absent_value_stays_absent(path):
    append_row(path, {"samples_evaluated": 1, "a": 1.0})
    append_row(path, {"samples_evaluated": 2, "b": 2.0})
    append_row(path, {"samples_evaluated": 3, "a": 0.0, "b": 3.0})
    expected = [
        {"samples_evaluated": 1, "a": 1.0},
        {"samples_evaluated": 2, "b": 2.0},
        {"samples_evaluated": 3, "a": 0.0, "b": 3.0},
    ]
    assert read_rows(path) == expected
    assert path.read_text().splitlines()[0] == "samples_evaluated,a,b"


def test_keep_rows_removes_what_is_refused_and_nothing_else(path):
    for samples in (100, 200, 300):
        append_row(path, {"samples_evaluated": samples, "a": samples / 7})
    kept = path.read_text().splitlines()[:3]
    keep_rows(path, lambda at: at <= 200)
    assert path.read_text().splitlines() == kept


def test_rows_can_follow_when_none_was_kept(path):
    append_row(path, {"samples_evaluated": 100, "a": 1.0})
    keep_rows(path, lambda at: False)
    assert read_rows(path) == []
    append_row(path, {"samples_evaluated": 50, "b": 1.0})
    assert read_rows(path) == [{"samples_evaluated": 50, "b": 1.0}]


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_a_line_that_a_kill_cut_short_is_removed(path, cut):
    append_row(path, {"samples_evaluated": 100, "a": 1.25})
    whole = path.read_bytes()
    append_row(path, {"samples_evaluated": 200, "a": 1.25})
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_rows(path) == [{"samples_evaluated": 100, "a": 1.25}]
    keep_rows(path, lambda at: True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"\xff\n\xfe\n", b"a\n1\n", b"samples_evaluated,a\n1,x\n", b"samples_evaluated\n1,2,3\n"]
)
def test_a_damaged_curve_is_named(path, content):
    path.write_bytes(content)
    for read in (read_rows, lambda file: keep_rows(file, bool)):
        with pytest.raises(RunError, match=r"metrics\.csv must have a column samples_evaluated"):
            read(path)
