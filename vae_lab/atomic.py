"""Files that are either the old one or the new one, whatever is killed and whenever, and never a link's target."""

import errno
import io
import json
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from typing import Any, BinaryIO

from vae_lab.errors import is_about_storage, no_room

NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""Answers of file systems (CIFS, VirtualBox, some of FUSE) that cannot wait until a folder is on disk."""
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
"""Answers of file systems without further names for a file."""
LEFT_BEHIND = 24 * 3600.0
"""Seconds after which a temporary file is nobody's, whoever wrote it."""


class _Recorded(io.FileIO):
    """A file that remembers what the system refused, which the library that writes to it may tell in other words."""

    refusal: OSError | None = None

    def write(self, content: Any) -> int:
        """Writes, as ever."""
        try:
            return super().write(content)
        except OSError as error:
            self.refusal = error
            raise


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, new_folder: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes `path`'s place when the block ends without an error, after its data is on disk.

    Args:
        path: the file; a link of that name is replaced, not followed.
        new_folder: whether its folder is made where there is none.

    Raises:
        StorageError: there is no room for it; the old file stays.
    """
    target = Path(path)
    if new_folder:
        target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    temporary = temporary_name(target)
    try:
        descriptor = os.open(temporary, _EXCLUSIVELY, 0o666)
        with _Recorded(descriptor, "wb") as raw:
            try:
                with io.BufferedWriter(raw) as file:
                    yield file
                    file.flush()
                    _wait_for(raw.fileno())
            except Exception as error:
                if raw.refusal is not None and is_about_storage(raw.refusal):
                    raise raw.refusal from error
                raise
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if is_about_storage(error):
            raise no_room(target, error) from error
        raise
    folder_is_on_disk(target.parent)


_EXCLUSIVELY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def temporary_name(target: Path) -> Path:
    """A name beside `target` that nobody can foresee; it says which machine and process write there."""
    return target.with_name(f".{target.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.tmp")


def remove_leftovers(target: Path) -> None:
    """Removes the temporary files of `target` that a killed process left: of this machine, or old ones."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{8}})-(\d{{1,10}})-[0-9a-f]{{16}}\.tmp")
    with suppress(OSError):  # a folder that cannot be listed, or another process was faster
        for name in os.listdir(target.parent):
            if not (found := pattern.fullmatch(name)):
                continue
            file = target.with_name(name)
            is_dead = found[1] == _machine() and not is_alive(int(found[2]))
            if is_dead or time.time() - file.lstat().st_mtime > LEFT_BEHIND:
                file.unlink()


def is_alive(process: int) -> bool:
    """Whether there is a process of this number; assumed where the system gives no harmless way to ask."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def folder_is_on_disk(folder: Path) -> bool:
    """Waits until the names in a folder are on disk; False where the file system cannot do that."""
    if os.name == "nt":  # where a folder is no file that could be waited for
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one that may be written to and not be read
        return False
    try:
        return _wait_for(descriptor)
    finally:
        os.close(descriptor)


def give_name(file: Path, name: Path) -> None:
    """Gives `file` a further name, which stays with its content when `file` is replaced; a copy where none can be had.

    Raises:
        StorageError: there is no room for the copy.
    """
    remove_leftovers(name)
    temporary = temporary_name(name)
    try:
        os.link(file, temporary)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with file.open("rb") as source, atomic_file(name, new_folder=False) as copy:
            shutil.copyfileobj(source, copy)
        return
    os.replace(temporary, name)
    with suppress(FileNotFoundError):  # it stays where both are names of one file
        temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str, *, new_folder: bool = True) -> None:
    """Replaces the file by this text, in UTF-8."""
    with atomic_file(path, new_folder=new_folder) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike[str], content: Any, *, new_folder: bool = True) -> None:
    """Replaces the file by `content` as JSON; NaN and infinity are refused, for readers could not parse them."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n", new_folder=new_folder)


def read_cache(path: Path) -> dict[str, Any]:
    """The entries of a JSON file that only saves work: none where it is missing or damaged, and made anew then."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _machine() -> str:
    return f"{zlib.crc32(node().encode()):08x}"


def _wait_for(descriptor: int) -> bool:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        return False
    return True
