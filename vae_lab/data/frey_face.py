"""Frey Face (Roweis, Saul, Hinton): 1,965 video frames of one face, 28 x 20, x/256 as the author's code."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from scipy.io.matlab import MatReadError

from vae_lab.data.arrays import ImageData, Source, cut, shuffled
from vae_lab.data.files import download, require_published, root_folder, unreadable
from vae_lab.errors import require_choice, require_integer

URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
FILE_SHA256 = "6437ae824e6ed35c97f39ce53b7f8b5011386476a24888acc80da90e364b06b4"
PIXELS_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"
NUM_TRAIN, NUM_TEST = 1600, 365
LARGEST = 2**24
"""Bytes of the file, packed or not, at most."""
WRONG_CONTENT = (EOFError, ValueError, TypeError, IndexError, NotImplementedError, zlib.error, struct.error)
"""What scipy raises, besides its own error, for a file that is none of MATLAB's."""
PACKED = 15
"""MATLAB's number of an element that is packed."""


class FreyFace(ImageData):
    """1,600 frames train, 365 test; the last `validation_size` (0: no such split) of the 1,600 validate.

    `split` random: frames in a random order, so that neighbours in time lie on both sides. `split` blocked:
    the last 365 of the video for test, which is harder. The file is `root`/FreyFace/frey_rawface.mat,
    downloaded there if missing.
    """

    name = "frey_face"
    image_shape = (1, 28, 20)
    divisor = 256

    def __init__(self, *, root: str, split: str, validation_size: int, **common: Any):
        require_choice("data.split", split, ("random", "blocked"))
        require_integer("data.validation_size", validation_size, minimum=0, maximum=NUM_TRAIN - 1)
        self.path = root_folder(root) / "FreyFace" / "frey_rawface.mat"
        self.split = split
        self.validation_size = validation_size
        self.train_capacity = NUM_TRAIN - validation_size
        super().__init__(**common)

    def load(self) -> Source:
        """Reads or downloads the one file, and orders its frames."""
        num = NUM_TRAIN + NUM_TEST
        order = shuffled(num, self.split_seed) if self.split == "random" else torch.arange(num)
        return Source(
            images=self._frames(),
            labels=None,
            indices=cut(order, val=self.validation_size, test=NUM_TEST),
        )

    def _frames(self) -> np.ndarray:
        path = self.path
        if not path.is_file():
            path = download(path, urls=[URL], algorithm="sha256", checksum=FILE_SHA256)
        columns = _read_matlab(path)
        if columns.shape != (560, NUM_TRAIN + NUM_TEST) or columns.dtype != np.uint8:
            found = f"{columns.shape} {columns.dtype}"
            raise unreadable(path, f"ff is {found}, expected (560, {NUM_TRAIN + NUM_TEST}) uint8")
        frames = np.ascontiguousarray(columns.T).reshape(-1, 28, 20)
        require_published(path, frames.tobytes(), PIXELS_SHA256)
        return frames


def _read_matlab(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        _refuse_bombs(content)
        return scipy.io.loadmat(io.BytesIO(content), variable_names=["ff"])["ff"]
    except KeyError as error:
        raise unreadable(path, "it holds no variable ff") from error
    except (OSError, MatReadError, *WRONG_CONTENT) as error:
        raise unreadable(path, error) from error


def _refuse_bombs(content: bytes) -> None:
    """Refuses a file that is, or unpacks to, far more than the faces."""
    position, order, room = 128, ">" if content[126:128] == b"MI" else "<", LARGEST - len(content)
    while room >= 0 and position + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        position += 8
        if kind == PACKED:
            unpacker = zlib.decompressobj()
            room -= len(unpacker.decompress(content[position : position + size], room + 1))
        position += size
    if room < 0:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
