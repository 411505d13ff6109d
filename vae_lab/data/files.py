"""Published files: found where `data.root` says, or downloaded whole, verified, or not at all."""

import hashlib
import struct
import zipfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from vae_lab.atomic import atomic_file
from vae_lab.errors import ConfigError, MissingFile

LARGEST_CONTENTS = 2**20
"""Bytes of an archive's table of contents, at most: some ten thousand entries."""
TIMEOUT = 30
"""Seconds without an answer after which a download counts as failed."""


def root_folder(root: str) -> Path:
    """The folder that the key `data.root` names, with `~` expanded."""
    if not root:
        raise ConfigError(
            "data.root must name a folder, got an empty text: set data.root (or the environment variable VAE_LAB_DATA)"
        )
    return Path(root).expanduser()


def download(path: Path, *, urls: Sequence[str], algorithm: str, checksum: str) -> Path:
    """Puts the published file at `path`, from the first of `urls` that delivers it with the right checksum.

    The file appears under its name only when it is complete, verified and on disk.

    Raises:
        MissingFile: it could not be had, or not be stored; says what to do.
    """
    failures = []
    for url in urls:
        try:
            with urlopen(Request(url, headers={"User-Agent": "vae_lab"}), timeout=TIMEOUT) as response:
                content = response.read()
        except (OSError, HTTPException) as error:
            failures.append(f"{url} ({error or type(error).__name__})")
            continue
        found = hashlib.new(algorithm, content).hexdigest()
        if found != checksum:
            failures.append(f"{url} (delivered other bytes, {algorithm} {found})")
            continue
        try:
            with atomic_file(path) as file:
                file.write(content)
            return path
        except OSError as error:
            failures.append(f"{url} (delivered, but it cannot be stored: {error})")
    raise MissingFile(
        f"data.root: {path} is missing and could not be downloaded from {' nor from '.join(failures)}: put "
        f"the file with {algorithm} {checksum} there by hand, or set data.root (or the environment variable "
        f"VAE_LAB_DATA) to a folder that holds it at the same place below"
    )


def require_published(path: Path, content: bytes, sha256: str) -> None:
    """Refuses a file whose content is readable, but not the published one."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise unreadable(path, f"its content has SHA-256 {found}, the published one {sha256}")


def unreadable(path: Path, reason: object, *, advice: str = "delete it to have it downloaded again") -> ConfigError:
    """The error for a file that is there, but is truncated, corrupt or not what its name says."""
    return ConfigError(f"{path} is truncated, corrupt or of the wrong kind ({reason}): {advice}, or name another place")


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip file whose table of contents, which is read at once, is small.

    Raises:
        ValueError: it has too many entries.
    """
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 98))
        end = file.read()
    place = end.rfind(b"PK\5\6")
    size = struct.unpack_from("<I", end, place + 12)[0] if 0 <= place <= len(end) - 22 else 0
    if place >= 76 and end[place - 76 :].startswith(b"PK\6\6"):  # of more than 4 GB
        size = max(size, struct.unpack_from("<Q", end, place - 36)[0])
    if size > LARGEST_CONTENTS:
        raise ValueError(f"its table of contents has {size:,} bytes, and {LARGEST_CONTENTS:,} at most are read")
    return zipfile.ZipFile(path)
