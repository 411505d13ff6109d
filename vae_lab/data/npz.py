"""A user's own arrays in a NumPy archive: images, optional labels, validation and test images; no pickles."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vae_lab.data.arrays import ImageData, Source, split_own
from vae_lab.data.files import open_archive, unreadable
from vae_lab.errors import ConfigError, MissingFile, require_choice, require_memory

READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGE = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


BOMB_BYTES, BOMB_RATIO = 2**28, 100
"""An array of more bytes than these that is packed more tightly than so holds no pictures, but fills the memory."""
NAMES = {
    "x": ("x", "x_train", "train_x", "train_images", "images", "arr_0"),
    "y": ("y", "y_train", "train_y", "train_labels", "labels"),
    "x_val": ("x_val", "x_valid", "val_x", "val_images"),
    "y_val": ("y_val", "y_valid", "val_y", "val_labels"),
    "x_test": ("x_test", "test_x", "test_images"),
    "y_test": ("y_test", "test_y", "test_labels"),
}
"""What an array is -> the names, in small letters, by which it is found."""
IMAGES = ("x", "x_val", "x_test")
"""Those of them that are images; each may have labels, by the same name with a y."""


class Header(NamedTuple):
    """What is known of an array without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype


class NPZ(ImageData):
    """Images x, [n, height, width] or [n, height, width, channel]: uint8 (x/255), or bool or floating point in [0, 1].

    Without x_val, a random tenth of x validates, and without x_test another one tests, by `split_seed`. Labels y, y_val
    and y_test are integers; a split with a negative one counts as unlabelled. Other arrays are not read.

    Args (keys of `data`, besides those that all data sets have):
        path: the .npz file.
        keys: names of arrays in the file, by x, y, x_val, y_val, x_test or y_test; the others have the usual ones.
    """

    def __init__(self, *, path: str, keys: dict[str, str] | None, **common: Any):
        self.path = Path(path).expanduser()
        if self.path.suffix != ".npz":
            raise ConfigError(
                f"data.path must name an .npz file, got {path!r}: write one by numpy.savez_compressed(path, x=images)"
            )
        for role in keys or ():
            require_choice("a key of data.keys", role, NAMES)
        self.name = self.path.stem
        self._keys = keys
        super().__init__(**common)

    @property
    def found(self) -> dict[str, Any]:
        """The names of the arrays."""
        return {"keys": dict(self.keys)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width), from the header of x."""
        with self._looking():
            height, width, *channels = self._headers["x"].shape[1:]
        return (channels[0] if channels else 1, height, width)

    @property
    def divisor(self) -> int:
        """255 for uint8, 1 for bool and floating point."""
        return 255 if self._headers["x"].dtype == np.uint8 else 1

    @property
    def num_available(self) -> int:
        """The size of the train split, from the headers."""
        with self._looking():
            return len(self._split()["train"])

    def load(self) -> Source:
        """Reads the arrays that are used."""
        return replace(self.load_whole(), indices=self._split())

    def load_whole(self) -> Source:
        """Reads the arrays that are used, x, x_val and x_test one after the other, few images as they may be."""
        roles = list(self._headers)  # checked, before anything is read
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                arrays = {role: archive[self.keys[role]] for role in roles}
        except DAMAGE as error:
            raise self._unreadable(error) from error
        images = {role: arrays.pop(role) for role in IMAGES if role in arrays}
        for role, array in images.items():
            self._require_unit_interval(role, array)
        labels = None
        if arrays:
            unlabelled = {role: np.full(len(array), -1) for role, array in images.items()}
            given = [arrays.get(f"y{role[1:]}", none) for role, none in unlabelled.items()]
            labels = np.concatenate([array.reshape(-1).astype(np.int64) for array in given])
        names = ", ".join(role if role == name else f"{role} = {name}" for role, name in self.keys.items())
        others = [name for name in self._entries if name not in self.keys.values()]
        self.notes = [f"arrays {names}"] + [f"not read: {', '.join(others)}"] * bool(others)
        whole = images["x"] if len(images) == 1 else np.concatenate(list(images.values()))
        return Source(whole, labels, {"whole": torch.arange(len(whole))})

    def _split(self) -> dict[str, torch.Tensor]:
        sizes = [self._headers[role].shape[0] if role in self._headers else 0 for role in IMAGES]
        if sizes[0] < 10 and 0 in sizes:
            raise self._refused("x", f"hold at least 10 images, to split them, got {sizes[0]}")
        rest, val, test = torch.arange(sum(sizes)).split(sizes)
        return split_own(rest, self.split_seed, val=val, test=test)

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The names of the arrays that are used, by what they are.

        Raises:
            ConfigError: there are no images among them, or it is not clear which they are.
        """
        names, found = list(self._entries), dict(self._keys or {})
        there = ", ".join(names) or "no array"
        for role, name in found.items():
            if name not in names:
                raise ConfigError(f"data.keys.{role} must be an array in {self.path}, got {name!r}: it has {there}")
        free = [name for name in names if name not in found.values()]
        for role in NAMES.keys() - found.keys():
            own = [name for name in free if name.lower() in NAMES[role]]
            if len(own) > 1 and role not in own:
                raise ConfigError(
                    f"data.keys must say which of {', '.join(own)} in {self.path} is {role}: "
                    f"'data.keys={{{role}: {own[0]}}}'"
                )
            if own:
                found[role] = role if role in own else own[0]
        for needed in ["x", *(f"x{role[1:]}" for role in found if role.startswith("y"))]:
            if needed not in found:
                strange = [*(name for name in free if name not in found.values()), "NAME"][0]
                raise ConfigError(
                    f"data.path: {self.path} must hold the images {needed}, and has {there}: if one of these is meant, "
                    f"name it, as in 'data.keys={{{needed}: {strange}}}'"
                )
        return {role: found[role] for role in NAMES if role in found}

    @cached_property
    def _entries(self) -> list[str]:
        """The names of the arrays in the file."""
        if not self.path.is_file():
            raise MissingFile(f"data.path: there is no file {self.path}: write it, or name another one")
        try:
            with open_archive(self.path) as archive:
                return [entry.removesuffix(".npy") for entry in archive.namelist()]
        except DAMAGE as error:
            raise self._unreadable(error) from error

    @cached_property
    def _headers(self) -> dict[str, Header]:
        """Shapes and types of what is used, checked, without reading the arrays."""
        keys = self.keys
        try:
            with open_archive(self.path) as archive:
                headers = {role: _header(archive, f"{name}.npy") for role, name in keys.items()}
        except DAMAGE as error:
            raise self._unreadable(error) from error
        for role, header in headers.items():
            if role in IMAGES:
                self._check_images(role, header, headers["x"])
            else:
                self._check_labels(role, header, headers[f"x{role[1:]}"])
        images = [header for role, header in headers.items() if role in IMAGES]
        num_bytes = sum(math.prod(shape) * (4 + 2 * dtype.itemsize) for shape, dtype in images)
        require_memory(f"data.path: the images in {self.path}", num_bytes, "name a file of fewer or smaller ones")
        return headers

    def _check_images(self, role: str, header: Header, x: Header) -> None:
        shape, dtype = header
        if dtype != np.uint8 and dtype.kind not in "fb":
            raise self._refused(role, f"be uint8, or bool or floating point in [0, 1], got {dtype}")
        if len(shape) not in (3, 4) or 0 in shape:
            raise self._refused(role, f"be [n, height, width] or [n, height, width, channel], got {list(shape)}")
        if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] > 4:
            raise self._refused(role, f"have channels last, got {list(shape)}; use x.transpose(0, 2, 3, 1)")
        if (shape[1:], dtype) != (x.shape[1:], x.dtype):
            expected, got = f"{list(x.shape[1:])} {x.dtype}", f"{list(shape[1:])} {dtype}"
            raise self._refused(role, f"hold images like those in x, {expected}, got {got}")

    def _check_labels(self, role: str, header: Header, images: Header) -> None:
        if header.shape not in (images.shape[:1], (images.shape[0], 1)) or header.dtype.kind not in "iu":
            got = f"{list(header.shape)} {header.dtype}"
            raise self._refused(role, f"be {list(images.shape[:1])} integers, one an image, got {got}")

    def _require_unit_interval(self, role: str, images: np.ndarray) -> None:
        low, high = images.min(), images.max()
        if images.dtype.kind == "f" and not (low >= 0 and high <= 1):
            raise self._refused(role, f"lie in [0, 1], got values in [{low}, {high}]: rescale, or store uint8")

    def _refused(self, role: str, rule: str) -> ConfigError:
        name = self.keys[role]
        return ConfigError(f"data.path: the array {name} in {self.path} must {rule}")

    def _unreadable(self, error: Exception) -> ConfigError:
        return unreadable(self.path, error, advice="write it anew by numpy.savez_compressed, without objects")

    def _why_dark(self) -> str:
        advice = "; images of 0 and 1 are to be stored as bool" if self.divisor == 255 else ""
        return super()._why_dark() + advice


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
