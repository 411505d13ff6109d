import json

import pytest

from vae_lab.atomic import atomic_file, write_json, write_text


def test_the_file_is_the_old_one_until_the_block_ends(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "old")
    with atomic_file(path) as file:
        file.write(b"new, and longer")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new, and longer"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="stopped"), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("stopped")
    assert path.read_text() == "old"
    write_text(path, "new")  # over what the failed attempt left
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_holds_no_number_that_a_reader_cannot_parse(tmp_path, value):
    path = tmp_path / "file.json"
    write_json(path, {"a": 0, "b": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 0, "b": None}
