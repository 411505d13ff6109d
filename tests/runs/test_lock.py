"""One writer at a time: by the system's lock, and by name where there is none or somebody removed it."""

import errno
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vae_lab.errors import RunError, StorageError
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.runs.lock import NO_LOCKS, UNWRITTEN_SECONDS, Held, Lock, start_of

HOLD = """
import sys, time
from pathlib import Path
from vae_lab.runs.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture(params=sorted(NO_LOCKS))
def without_flock(request, monkeypatch):
    """A file system that answers `flock` with this error."""

    def refused(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr("filelock._native._unix.fcntl.flock", refused)


@pytest.fixture
def holder(file):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_name(file: Path, **changes: object) -> None:
    """The name of this process, changed."""
    lock = Lock(file)
    lock.sign()
    assert lock.own is not None
    lock.name.write_text(json.dumps(lock.own | changes))


def test_a_folder_whose_name_is_no_text_is_locked_as_any_other(tmp_path):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff\xfe")))
    folder.mkdir()
    first, second = Lock(folder / ".lock"), Lock(folder / ".lock")
    first.acquire()
    assert first.is_mine()
    with pytest.raises(Held):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_one_has_it_and_nothing_is_left_but_the_locked_file(file):
    lock = Lock(file)
    lock.acquire()
    assert lock.is_mine() and lock.is_of_the_system and Lock(file).is_held()
    with pytest.raises(Held, match=f"process {os.getpid()} on {socket.gethostname()}, since 20"):
        Lock(file).acquire()
    lock.release()
    assert not Lock(file).is_held() and [entry.name for entry in file.parent.iterdir()] == [".lock"]


def test_the_question_who_holds_it_writes_nothing(file):
    assert not Lock(file).is_held()
    assert list(file.parent.iterdir()) == []


def test_without_locks_of_the_system_the_name_keeps_others_out(file, without_flock):
    lock, other = Lock(file), Lock(file)
    lock.acquire()
    assert lock.is_mine() and not lock.is_of_the_system and other.is_held()
    with pytest.raises(Held, match=r"should it have died there, delete .*\.lock\.json"):
        other.acquire(0.1)
    lock.release()
    other.acquire()
    assert other.is_mine()
    other.release()
    assert not Lock(file).is_held()


def test_a_locked_file_that_somebody_deletes_lets_nobody_in(file, holder):
    file.unlink()
    assert Lock(file).is_held()
    with pytest.raises(Held, match=f"process {holder.pid}"):
        Lock(file).acquire()
    holder.kill()
    holder.wait()
    lock = Lock(file)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize(
    "changes", [{"process": 2**22 + 1}, {"started": -1}, {"folder": "/elsewhere"}, {"process": "x"}]
)
def test_the_name_of_a_process_that_is_over_is_taken(file, without_flock, changes):
    write_name(file, **changes)
    assert not Lock(file).is_held()
    lock = Lock(file)
    lock.acquire()
    assert lock.is_mine()
    lock.release()
    assert not list(file.parent.glob(".lock.json*"))


def test_a_killed_holder_leaves_a_name_that_is_recognised(file, holder):
    name = json.loads((file.parent / ".lock.json").read_text())
    assert name["process"] == holder.pid and name["started"] == start_of(holder.pid)
    assert Lock(file).is_held()
    holder.kill()
    holder.wait()
    assert not Lock(file).is_held()
    Lock(file).acquire()


def test_the_name_of_another_machine_stands_unless_the_system_says_that_it_is_over(file, monkeypatch):
    write_name(file, host="node7", locked=True)
    assert not Lock(file).is_held()
    lock = Lock(file)
    lock.acquire()
    lock.release()
    write_name(file, host="node7", locked=False)
    assert Lock(file).is_held()
    with pytest.raises(Held, match=r"on node7, since .*should it have died there, delete"):
        Lock(file).acquire()


@pytest.mark.parametrize("content", ["", '{"host": ', "[]"])
def test_half_a_name_is_waited_for_and_then_taken(file, without_flock, content):
    name = file.with_name(".lock.json")
    name.write_text(content)
    assert Lock(file).is_held()
    with pytest.raises(Held, match="another process"):
        Lock(file).acquire()
    long_ago = time.time() - UNWRITTEN_SECONDS - 1
    os.utime(name, (long_ago, long_ago))
    lock = Lock(file)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_a_name_that_is_a_link_or_no_file_is_neither_followed_nor_waited_for(file, tmp_path, without_flock):
    victim, name = tmp_path / "victim", tmp_path / ".lock.json"
    victim.write_text("mine")
    name.symlink_to(victim)
    lock = Lock(file)
    lock.acquire()
    lock.release()
    assert victim.read_text() == "mine" and not name.is_symlink()
    os.mkfifo(name)
    long_ago = time.time() - UNWRITTEN_SECONDS - 1
    os.utime(name, (long_ago, long_ago))
    lock.acquire()
    lock.release()


def test_an_error_of_the_disk_is_no_missing_lock(file, monkeypatch):
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        Lock(file).acquire()


def test_a_run_says_once_what_is_not_guaranteed_and_who_is_at_work(tmp_path, without_flock, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.directory.folder_is_on_disk", lambda folder: False)
    run = RunDir(tmp_path / "run")
    with run.locked():
        first, second = run.limits()
        assert "file system without locks" in first and "cannot wait for its folders" in second
        with pytest.raises(RunError, match=f"another process.*process {os.getpid()} on "), RunDir(run.path).locked():
            pass


def test_a_full_disk_is_said_where_the_lock_is_taken(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(StorageError, match="free space there"), RunDir(tmp_path / "run").locked():
        pass
    assert not list(tmp_path.rglob("*.json"))


@pytest.fixture
def run(tmp_path) -> RunDir:
    return plan_run(tmp_path / "run", {"seed": 0})


def test_a_directory_that_moves_or_loses_a_part_while_it_is_written_ends_the_writing(run):
    with run.locked():
        run.curve_file.write_text("samples_evaluated\n")
        run.require_whole()
        run.curve_file.unlink()
        with pytest.raises(RunError, match=r"metrics\.csv vanished while the run was written"):
            run.require_whole()
        run.curve_file.write_text("samples_evaluated\n")
        os.rename(run.path, run.path.with_name("renamed"))
        with pytest.raises(RunError, match="was moved, renamed or deleted while it was written"):
            run.require_whole()
        shutil.copytree(run.path.with_name("renamed"), run.path, ignore=shutil.ignore_patterns(".lock*"))
        with RunDir(run.path).locked(), pytest.raises(RunError, match="was taken by another process"):
            run.require_whole()
    assert run.exists()


def test_locks_that_are_swept_away_are_put_back(run):
    with run.locked():
        for file in run.path.glob(".lock*"):
            file.unlink()
        run.require_whole()
        assert run.is_locked()
    assert not run.is_locked()
