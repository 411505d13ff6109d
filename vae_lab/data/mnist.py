"""MNIST (LeCun, Cortes and Burges): 70,000 handwritten digits, 28 x 28, x/255."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae_lab.data.arrays import ImageData, Source, cut
from vae_lab.data.files import download, require_published, root_folder, unreadable
from vae_lab.errors import require_integer

NUM_TRAIN, NUM_TEST = 60_000, 10_000
LARGEST = NUM_TRAIN * 28 * 28
"""Values of a file, at most."""
SHA256 = {
    "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
"""The files as published, and the hash of the values each holds."""


class MNIST(ImageData):
    """The published test set; of the 60,000 others the last `validation_size` validate, the first train.

    Files are read from `root`/MNIST/raw, compressed or not, and downloaded there from torchvision's mirrors,
    with torchvision's checksums, if missing.
    """

    name = "mnist"
    image_shape = (1, 28, 28)
    divisor = 255

    def __init__(self, *, root: str, validation_size: int, **common: Any):
        require_integer("data.validation_size", validation_size, minimum=0, maximum=NUM_TRAIN - 1)
        self.folder = root_folder(root) / "MNIST" / "raw"
        self.validation_size = validation_size
        self.train_capacity = NUM_TRAIN - validation_size
        super().__init__(**common)

    def load(self) -> Source:
        """Reads or downloads the four files."""
        train_images, train_labels, test_images, test_labels = (self._read(name) for name in SHA256)
        return Source(
            images=np.concatenate([train_images, test_images]),
            labels=np.concatenate([train_labels, test_labels]),
            indices=cut(torch.arange(NUM_TRAIN + NUM_TEST), val=self.validation_size, test=NUM_TEST),
        )

    def _read(self, name: str) -> np.ndarray:
        raw, compressed = self.folder / name, self.folder / f"{name}.gz"
        path = next((file for file in (raw, compressed) if file.is_file()), None) or downloaded(compressed)
        array = read_idx(path)
        num = NUM_TRAIN if name.startswith("train") else NUM_TEST
        expected = (num, 28, 28) if "images" in name else (num,)
        if array.shape != expected:
            raise unreadable(path, f"its shape is {array.shape}, expected {expected}")
        require_published(path, array.tobytes(), SHA256[name])
        return array


def downloaded(path: Path) -> Path:
    """Puts one of the four files at `path`, from torchvision's mirrors."""
    from torchvision.datasets import MNIST as TorchvisionMNIST  # noqa: N811 - 2 s, which a file that is there saves

    return download(
        path,
        urls=[mirror + path.name for mirror in TorchvisionMNIST.mirrors],
        algorithm="md5",
        checksum=dict(TorchvisionMNIST.resources)[path.name],
    )


def read_idx(path: Path) -> np.ndarray:
    """The bytes of an IDX file (0 0 8 ndim, sizes as big-endian uint32, values), `.gz` or not."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            start = file.read(4)
            shape = struct.unpack(f">{start[3]}I", file.read(4 * start[3]))
            num = math.prod(shape)
            content = file.read(min(num, LARGEST) + 1)  # which reads on to the checksum at the end
    except (OSError, EOFError, IndexError, zlib.error, struct.error) as error:
        raise unreadable(path, error) from error
    if start[:3] != b"\0\0\x08" or len(content) != num:
        raise unreadable(path, f"its values do not make an IDX array of {shape}, with {LARGEST:,} values at most")
    return np.frombuffer(content, np.uint8).reshape(shape)
