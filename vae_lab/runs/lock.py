"""Who may write into a folder: one process at a time, by the system's lock and by name.

The system frees its lock when the process dies. Where the file system has none (Lustre, some NFS and FUSE), and where
somebody removed the locked file, the name stands: a file with machine, process and start time of the writer.
"""

import errno
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from vae_lab.atomic import is_alive
from vae_lab.runs.small_files import Unreadable, read_json

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Answers of file systems without locks."""
POLL_SECONDS = 0.05
UNWRITTEN_SECONDS = 30.0
"""A name that cannot be read is being written now; after so long its writer died while it wrote it."""


class Held(Exception):  # noqa: N818
    """Another process has the lock; the message says what is known about it."""


class Lock:
    """The lock `file`, and beside it `file`.json, the name of the process that holds it."""

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, file.with_name(f"{file.name}.json")
        self.system = FileLock(file, fallback_to_soft=False)
        self.own: dict[str, Any] | None = None

    _tokens: ClassVar[set[str]] = set()
    """The tokens of the locks that this process holds."""

    @property
    def folder(self) -> str:
        """Where it lies, as text that every file can hold, whatever the name is."""
        return str(self.file.parent.resolve()).encode("utf-8", "backslashreplace").decode()

    @property
    def is_of_the_system(self) -> bool:
        """Whether the system guards this lock while it is held."""
        return self.system.is_locked

    def acquire(self, seconds: float = 0.0) -> None:
        """Takes the lock, waiting at most so long.

        Raises:
            Held: another process has it.
            OSError: the folder cannot be written to.
        """
        end = time.monotonic() + seconds
        try:
            self.system.acquire(timeout=seconds, poll_interval=POLL_SECONDS)
        except Timeout as error:
            raise Held(self.words(self.holder())) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            while not self.sign():
                if time.monotonic() >= end:
                    raise Held(self.words(self.holder()))
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.system.release()
            raise

    def release(self) -> None:
        """Gives the lock back."""
        if self.is_mine():
            with suppress(OSError):
                self.name.unlink()
        if self.own is not None:
            self._tokens.discard(self.own["token"])
        self.own = None
        with suppress(OSError):  # a folder that is gone
            self.system.release()

    def is_mine(self) -> bool:
        """Whether the lock's file still has the name of this holder."""
        return self.own is not None and written(self.name) == self.own

    def sign(self) -> bool:
        """Puts the name of this process there; whether it is there now, or another's is."""
        if not self.clear():
            return False
        process = os.getpid()
        self.own = {
            "host": socket.gethostname(),
            "process": process,
            "started": start_of(process),
            "folder": self.folder,
            "since": datetime.now().isoformat(timespec="seconds"),
            "locked": self.is_of_the_system,
            "token": secrets.token_hex(8),
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(self.name, flags, 0o666)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(self.own, file)
        except BaseException:
            with suppress(OSError):
                self.name.unlink()
            raise
        self._tokens.add(self.own["token"])
        return self.is_mine()

    def clear(self) -> bool:
        """Removes the name that a dead process left; returns whether there is none now."""
        found = self.holder()
        if found is not None and not self.is_stale(found):
            return False
        if os.path.lexists(self.name):
            aside = self.name.with_name(f"{self.name.name}.{secrets.token_hex(8)}")
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(self.name, aside)
                if written(aside) != (found or {}) and not self.name.exists():  # it is one that came in between
                    os.replace(aside, self.name)
                    return False
                aside.unlink()
        return True

    def holder(self) -> dict[str, Any] | None:
        """What the name says; {} while it is being written, None where there is none, or what a kill left of one."""
        if found := written(self.name):
            return found
        try:
            is_new = time.time() - self.name.lstat().st_mtime < UNWRITTEN_SECONDS
        except OSError:
            return None
        return {} if is_new and not self.name.is_symlink() else None

    def is_stale(self, found: dict[str, Any]) -> bool:
        """Whether the process of a name has ended, as far as that can be known here.

        One of another machine that had the system's lock has ended once this process has it.
        """
        if not found:
            return False
        if found.get("host") != socket.gethostname():
            return found.get("locked") is True and self.is_of_the_system
        process = found.get("process")
        if not isinstance(process, int) or not is_alive(process) or start_of(process) != found.get("started"):
            return True
        if process == os.getpid() and found.get("token") not in self._tokens:
            return True
        return found.get("folder") != self.folder  # a copy of what the process writes into

    def is_held(self) -> bool:
        """Whether a process has the lock; nothing is written for this question."""
        if self.file.is_file() and self._is_locked_by_the_system():
            return True
        found = self.holder()
        if found and found.get("host") != socket.gethostname() and found.get("locked") is True:
            return False  # the system has just said that it is free
        return found is not None and not self.is_stale(found)

    def _is_locked_by_the_system(self) -> bool:
        try:
            import fcntl
        except ImportError:  # Windows
            try:
                with self.system.acquire(blocking=False):
                    return False
            except (Timeout, PermissionError):
                return True
        try:
            descriptor = os.open(self.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # it is nobody's to lock, or gone
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # the name must do
            return False
        finally:
            os.close(descriptor)
        return False

    def words(self, found: dict[str, Any] | None) -> str:
        """Who holds it, for a message."""
        if not found:
            return "another process"
        words = f"process {found.get('process')} on {found.get('host')}, since {found.get('since')}"
        return words if found.get("locked") else f"{words}; should it have died there, delete {self.name}"


def written(name: Path) -> dict[str, Any]:
    """What a name says; {} where there is none, or half of one."""
    try:
        return read_json(name.parent, name.name)
    except Unreadable:
        return {}


def start_of(process: int) -> int | None:
    """When a process began, in the system's ticks; None where the system does not say."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
