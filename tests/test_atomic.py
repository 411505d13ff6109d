"""Files that are whole whatever happens, on the file systems that people have."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vae_lab import atomic
from vae_lab.atomic import atomic_file, folder_is_on_disk, give_name, read_cache, temporary_name, write_json, write_text
from vae_lab.errors import StorageError


@pytest.fixture
def limited_size():
    """Files of at most 1,000 bytes, by the system's own limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_file_is_the_old_one_until_the_block_ends(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "old")
    with atomic_file(path) as file:
        file.write(b"new, and longer")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new, and longer"
    assert names(path.parent) == ["file.txt"]


def test_an_error_while_writing_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="stopped"), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("stopped")
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_no_name_that_waits_in_the_folder_leads_a_write_out_of_it(tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    for name in (".file.txt.tmp", "file.txt", ".file.txt.link"):
        (folder / name).symlink_to(victim)
    with atomic_file(folder / "file.txt") as file:
        assert sum(name.endswith(".tmp") for name in names(folder)) == 2
        file.write(b"new")
    assert victim.read_text() == "mine"
    assert (folder / "file.txt").read_text() == "new" and not (folder / "file.txt").is_symlink()


def test_a_temporary_name_that_is_taken_is_refused_and_not_followed(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.symlink_to(tmp_path / "victim")
    monkeypatch.setattr(atomic, "temporary_name", lambda target: taken)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "file.txt", "new")
    assert not (tmp_path / "victim").exists()


def test_leftovers_of_the_same_file_go_at_the_next_write_unless_somebody_may_be_writing_them(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path, own = tmp_path / "file.txt", temporary_name(tmp_path / "file.txt").name
    machine, process, number = own.removeprefix(".file.txt.").removesuffix(".tmp").split("-")
    killed = f".file.txt.{machine}-{dead.pid}-{number}.tmp"
    elsewhere, long_ago = (f".file.txt.00000000-{i}-{number}.tmp" for i in (1, 2))
    of_another_file = killed.replace("file", "other")
    for name in (own, killed, elsewhere, long_ago, of_another_file):
        (tmp_path / name).touch()
    os.utime(tmp_path / long_ago, (0, 0))
    write_text(path, "new")
    assert names(tmp_path) == sorted([own, elsewhere, of_another_file, "file.txt"]) and int(process) == os.getpid()


def test_many_writers_of_one_file_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "file.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_json(path, {"from": i, "text": "x" * 10_000}), range(100)))
    assert len(json.loads(path.read_text())["text"]) == 10_000 and names(tmp_path) == ["file.json"]


def test_a_folder_that_has_vanished_is_not_made_again_where_it_must_not_be(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "gone" / "file.txt", "new", new_folder=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_wait_for_a_folder_is_written_to_all_the_same(tmp_path, monkeypatch, number):
    def refused(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new" and not folder_is_on_disk(tmp_path)


def test_an_error_of_the_disk_is_not_taken_for_a_missing_feature(tmp_path, monkeypatch):
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "file.txt", "new")
    assert names(tmp_path) == []


@pytest.mark.parametrize("library", ["plain", "torch", "numpy"])
def test_no_room_is_said_with_the_path_whatever_the_library_makes_of_it(tmp_path, limited_size, library):
    import numpy as np
    import torch

    path = tmp_path / "file"
    write_text(path, "old")
    write = {
        "plain": lambda file: file.write(b"x" * 5000),
        "torch": lambda file: torch.save({f"tensor {i}": torch.rand(1000) for i in range(9)}, file),
        "numpy": lambda file: np.savez(file, x=np.random.rand(1000), y=np.random.rand(1000)),
    }[library]
    with (
        pytest.raises(StorageError, match=f"{path} cannot be written .File too large.: free space there"),
        atomic_file(path) as file,
    ):
        write(file)
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_full_quota_are_said_likewise(tmp_path, monkeypatch, number):
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_text(tmp_path / "file.txt", "new")
    assert os.strerror(number) in str(caught.value) and names(tmp_path) == []


@pytest.mark.parametrize("has_links", [True, False])
def test_a_further_name_keeps_the_content_also_without_hard_links(tmp_path, monkeypatch, has_links):
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    file, name = tmp_path / "best", tmp_path / "last"
    for content in ("one", "two"):
        write_text(file, content)
        give_name(file, name)
        give_name(file, name)  # as where both are one file already
        assert name.read_text() == content and names(tmp_path) == ["best", "last"]
    write_text(file, "three")
    assert name.read_text() == "two"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_holds_no_number_that_a_reader_cannot_parse(tmp_path, value):
    path = tmp_path / "file.json"
    write_json(path, {"a": 0, "b": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 0, "b": None}


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[]", b"\xff", b"null", b"[" * 100_000])
def test_a_damaged_cache_is_no_cache(tmp_path, content):
    path = tmp_path / "cache.json"
    assert read_cache(path) == {}
    path.write_bytes(content)
    assert read_cache(path) == {}
    path.unlink()
    path.mkdir()
    assert read_cache(path) == {}
    shutil.rmtree(path)
    write_json(path, {"a": 1})
    assert read_cache(path) == {"a": 1}
