"""Files that are either the old one or the new one, whatever is killed and whenever."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes `path`'s place when the block ends without an error, after its data is on disk."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)
    if os.name == "nt":  # where a folder is no file that could be waited for
        return
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces the file by this text, in UTF-8."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Replaces the file by `content` as JSON; NaN and infinity are refused, for readers could not parse them."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
