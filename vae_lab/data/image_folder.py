"""A user's own folder of pictures, of any sizes, brought to one size; labels from subfolders."""

import math
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from vae_lab.data.arrays import ImageData, Source, cut, shuffled
from vae_lab.data.files import unreadable
from vae_lab.errors import ConfigError, MissingFile, require_integer, require_memory

DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a picture may be, whatever its name says: Pillow would have other programs read some kinds."""
LARGEST = 2**26
"""Pixels of a picture, at most."""


class ImageFolder(ImageData):
    """All pictures below `path`, in the order of their names, resized to `size` = [height, width], x/255.

    A random 80/10/10 split given by `split_seed`. `channels` 1 is grey, 3 is RGB. A picture's label is the
    number of its first-level subfolder, in the order of their names; without subfolders there are none.
    """

    divisor = 255

    def __init__(self, *, path: str, size: list[int], channels: int, **common: Any):
        if not isinstance(size, list) or len(size) != 2:
            raise ConfigError(f"data.size must be [height, width], got {size!r}: write, for example, data.size=[28,28]")
        for side in size:
            require_integer("each of data.size", side, minimum=1)
        if channels not in (1, 3):
            raise ConfigError(f"data.channels must be 1 or 3, got {channels!r}: choose 1 for grey, 3 for colour")
        self.path = Path(path).expanduser()
        self.name = self.path.resolve().name
        self.image_shape = (channels, size[0], size[1])
        super().__init__(**common)

    def load(self) -> Source:
        """Reads and resizes the pictures."""
        num = len(self._files)
        tenth = num // 10
        if not tenth:
            raise ConfigError(
                f"data.path: {self.path} must hold at least 10 pictures, to split them, got {num}: "
                f"add some ({', '.join(IMG_EXTENSIONS)}), or name another data.path"
            )
        channels, height, width = self.image_shape
        num_bytes = 5 * num * math.prod(self.image_shape)
        require_memory(f"data.size: {num:,} pictures", num_bytes, "choose a smaller data.size, or fewer pictures")
        images = np.empty((num, height, width) if channels == 1 else (num, height, width, channels), np.uint8)
        for row, file in enumerate(self._files):
            images[row] = _read(file, "L" if channels == 1 else "RGB", (width, height))
        return Source(
            images,
            labels=self._labels(),
            indices=cut(shuffled(num, self.split_seed), train=num - 2 * tenth, val=tenth, test=tenth),
        )

    @cached_property
    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise MissingFile(f"data.path: there is no folder {self.path}: make it, or name another data.path")
        files = (file.relative_to(self.path) for file in self.path.rglob("*") if file.is_file())
        visible = (f for f in files if not any(part.startswith(".") for part in f.parts))
        return [self.path / f for f in sorted(visible) if f.suffix.lower() in IMG_EXTENSIONS]

    def _labels(self) -> np.ndarray | None:
        folders = [file.relative_to(self.path).parts[:-1] for file in self._files]
        if not any(folders):
            return None
        if not all(folders):
            stray = self._files[folders.index(())]
            raise ConfigError(
                "data.path: all pictures or none must lie in subfolders, for these are the labels, "
                f"got {stray}: move it"
            )
        return np.unique([folder[0] for folder in folders], return_inverse=True)[1]


def _read(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """One picture in 8 bits, averaged over the area that a new pixel covers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=FORMATS)
        with opened as picture:
            if math.prod(picture.size) > LARGEST:
                raise ValueError(f"it has {math.prod(picture.size):,} pixels, and {LARGEST:,} at most are read")
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"it has more than 8 bits a channel, mode {picture.mode}")
            return np.asarray(ImageOps.exif_transpose(picture).convert(mode).resize(size, Image.Resampling.BILINEAR))
    except DAMAGE as error:
        raise unreadable(path, error, advice="replace it by an 8-bit picture, or remove it") from error
