"""A user's own arrays in a NumPy archive: x, optional y, x_test, y_test; no pickles."""

import math
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vae_lab.data.arrays import ImageData, Source, cut, shuffled
from vae_lab.data.files import open_archive, unreadable
from vae_lab.errors import ConfigError, MissingFile, require_choice, require_memory

READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGE = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


BOMB_BYTES, BOMB_RATIO = 2**28, 100
"""An array of more bytes than these that is packed more tightly than so holds no pictures, but fills the memory."""


class Header(NamedTuple):
    """What is known of an array without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype


class NPZ(ImageData):
    """Images x, [n, height, width] or [n, height, width, channel], uint8 (x/255) or floating point in [0, 1].

    Without x_test a random 80/10/10 split, else a random 90/10 of x to train and validate, by `split_seed`.
    Labels y and y_test are integers; a split with a negative one counts as unlabelled.
    """

    def __init__(self, *, path: str, **common: Any):
        self.path = Path(path).expanduser()
        if self.path.suffix != ".npz":
            raise ConfigError(
                f"data.path must name an .npz file, got {path!r}: write one by numpy.savez_compressed(path, x=images)"
            )
        self.name = self.path.stem
        super().__init__(**common)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width), from the header of x."""
        with self._looking():
            height, width, *channels = self._headers["x"].shape[1:]
        return (channels[0] if channels else 1, height, width)

    @property
    def divisor(self) -> int:
        """255 for uint8, 1 for floating point."""
        return 255 if self._headers["x"].dtype == np.uint8 else 1

    def load(self) -> Source:
        """Reads the arrays."""
        names = list(self._headers)
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in names}
        except DAMAGE as error:
            raise self._unreadable(error) from error
        image_names = [name for name in ("x", "x_test") if name in arrays]
        for name in image_names:
            self._require_unit_interval(name, arrays[name])
        labels = None
        if "y" in arrays or "y_test" in arrays:
            unlabelled = {name: np.full(len(arrays[name]), -1) for name in image_names}
            found = [arrays.get(name.replace("x", "y", 1), unlabelled[name]) for name in image_names]
            labels = np.concatenate([part.astype(np.int64) for part in found])
        images = np.concatenate([arrays[name] for name in image_names])
        return Source(images, labels, self._split(num=len(arrays["x"]), total=len(images)))

    def _split(self, *, num: int, total: int) -> dict[str, torch.Tensor]:
        tenth = num // 10
        if not tenth:
            raise self._refused("x", f"hold at least 10 images, to split them, got {num}")
        order = torch.cat([shuffled(num, self.split_seed), torch.arange(num, total)])
        test = total - num or tenth
        return cut(order, train=total - tenth - test, val=tenth, test=test)

    @cached_property
    def _headers(self) -> dict[str, Header]:
        """Shapes and types, checked, without reading the arrays."""
        if not self.path.is_file():
            raise MissingFile(f"data.path: there is no file {self.path}: write it, or name another one")
        try:
            with open_archive(self.path) as archive:
                headers = {entry.removesuffix(".npy"): _header(archive, entry) for entry in archive.namelist()}
        except DAMAGE as error:
            raise self._unreadable(error) from error
        for name in headers:
            require_choice(f"data.path: an array in {self.path}", name, ("x", "y", "x_test", "y_test"))
        for needed in ["x", *(["x_test"] if "y_test" in headers else [])]:
            if needed not in headers:
                raise self._refused(needed, f"be there, got only {', '.join(headers) or 'an empty archive'}")
        for name, header in headers.items():
            if name.startswith("x"):
                self._check_images(name, header, headers["x"])
            else:
                self._check_labels(name, header, headers[name.replace("y", "x", 1)])
        num_values = sum(math.prod(header.shape) for header in headers.values())
        require_memory(f"data.path: the images in {self.path}", 4 * num_values, "name a file of fewer or smaller ones")
        return headers

    def _check_images(self, name: str, header: Header, x: Header) -> None:
        shape, dtype = header
        if dtype != np.uint8 and dtype.kind != "f":
            raise self._refused(name, f"be uint8 or floating point in [0, 1], got {dtype}")
        if len(shape) not in (3, 4) or 0 in shape:
            raise self._refused(name, f"be [n, height, width] or [n, height, width, channel], got {list(shape)}")
        if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] > 4:
            raise self._refused(name, f"have channels last, got {list(shape)}; use x.transpose(0, 2, 3, 1)")
        if (shape[1:], dtype) != (x.shape[1:], x.dtype):
            expected, got = f"{list(x.shape[1:])} {x.dtype}", f"{list(shape[1:])} {dtype}"
            raise self._refused(name, f"hold images like those in x, {expected}, got {got}")

    def _check_labels(self, name: str, header: Header, images: Header) -> None:
        if header.shape != images.shape[:1] or header.dtype.kind not in "iu":
            got = f"{list(header.shape)} {header.dtype}"
            raise self._refused(name, f"be {list(images.shape[:1])} integers, one an image, got {got}")

    def _require_unit_interval(self, name: str, images: np.ndarray) -> None:
        low, high = images.min(), images.max()
        if images.dtype != np.uint8 and not (low >= 0 and high <= 1):
            raise self._refused(name, f"lie in [0, 1], got values in [{low}, {high}]: rescale, or store uint8")

    def _refused(self, name: str, rule: str) -> ConfigError:
        return ConfigError(f"data.path: the array {name} in {self.path} must {rule}")

    def _unreadable(self, error: Exception) -> ConfigError:
        return unreadable(self.path, error, advice="write it anew by numpy.savez_compressed, without objects")


def _header(archive: zipfile.ZipFile, entry: str) -> Header:
    with archive.open(entry) as file:
        shape, _, dtype = READ_HEADER[np.lib.format.read_magic(file)](file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f"the array {entry} holds Python objects, that is, pickles")
    about, size = archive.getinfo(entry), math.prod(shape) * dtype.itemsize
    if about.file_size != start + size:
        raise ValueError(f"the array {entry} is said to have {size:,} bytes, and has {about.file_size - start:,}")
    if size > max(BOMB_BYTES, BOMB_RATIO * about.compress_size):
        raise ValueError(f"the array {entry} has {size:,} bytes, packed into {about.compress_size:,}")
    return Header(shape, dtype)
