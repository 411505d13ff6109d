"""A user's own folder of pictures, of any sizes, brought to one size; labels from subfolders."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from vae_lab.data.arrays import ImageData, Source, split_own
from vae_lab.data.files import unreadable
from vae_lab.errors import ConfigError, MissingFile, require_choice, require_integer, require_memory

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The names of pictures end so, as torchvision has it."""
DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a picture may be, whatever its name says: Pillow would have other programs read some kinds."""
LARGEST = 2**26
"""Pixels of a picture, at most."""
NO_PICTURES = {"@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
"""Folders, besides hidden ones, in which file servers and archives keep thumbnails and what was deleted."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders that are splits, in small letters."""
GREY_MODES = ("1", "L", "LA", "La")
LISTED = 10
"""Damaged pictures that a message names."""
FITTED = {"crop": "cropped in the middle to", "pad": "with a border to make them", "stretch": "stretched to"}
"""How pictures become the size that is asked for."""


class Picture(NamedTuple):
    """A file, the split whose folder it lies in (empty: to be drawn) and the subfolder there that is its label."""

    file: Path
    split: str
    label: str


class ImageFolder(ImageData):
    """All pictures below `path`, in the order of their names, brought to `size` = [height, width].

    A picture's label is its first-level subfolder; without subfolders there are none. Links are followed, but for those
    back into the folder.

    Args (keys of `data`, besides those that all data sets have):
        path: the folder.
        size: [height, width].
        channels: 1 (grey), 3 (RGB) or null: 3 where a picture has colours.
        bits: 8 (x/255), 16 (x/65535) or null: 16 where a grey picture has more than 8. Of colours 8 a channel are read.
        fit: crop or pad, which keep the aspect ratio, or stretch.
        background: what transparent pictures lie on, and the border of `pad`: white, black, or none, which takes the
            colours of transparent pixels as they are.
        layout: folders (the folders of `path` are the splits train, val, test), random (80/10/10, by `split_seed`) or
            null: folders where all pictures lie in folders of such names, refused where some do. Without val or test,
            tenths of train are.
        test_path: a folder of pictures that are the test split.
        skip_damaged: leaves damaged pictures out; else they are refused, all in one message.
    """

    def __init__(
        self,
        *,
        path: str,
        size: list[int],
        channels: int | None,
        bits: int | None,
        fit: str,
        background: str,
        layout: str | None,
        test_path: str | None,
        skip_damaged: bool,
        **common: Any,
    ):
        if not isinstance(size, list) or len(size) != 2:
            raise ConfigError(f"data.size must be [height, width], got {size!r}: write, for example, data.size=[28,28]")
        for side in size:
            require_integer("each of data.size", side, minimum=1)
        if channels not in (1, 3, None):
            raise ConfigError(f"data.channels must be 1 (grey), 3 (RGB) or null, got {channels!r}: null finds it")
        if bits not in (8, 16, None):
            raise ConfigError(f"data.bits must be 8, 16 or null, got {bits!r}: null finds it")
        require_choice("data.fit", fit, FITTED)
        require_choice("data.background", background, ("white", "black", "none"))
        if layout is not None:
            require_choice("data.layout", layout, ("folders", "random"))
        self.path = Path(path).expanduser()
        self.name = self.path.resolve().name
        self.size = (size[0], size[1])
        self.fit, self.background, self.skip_damaged = fit, background, skip_damaged
        self.test_path = None if test_path is None else Path(test_path).expanduser()
        self._channels, self._bits, self._layout = channels, bits, layout
        super().__init__(**common)

    @property
    def found(self) -> dict[str, Any]:
        """Channels, bits and layout; the place of the test pictures as a whole path."""
        place = {} if self.test_path is None else {"test_path": os.path.abspath(self.test_path)}
        return {"channels": self.channels, "bits": self.bits, "layout": self.layout, **place}

    @property
    def channels(self) -> int:
        """The channels that are asked for, or 3 where a picture has colours."""
        return self._channels or (3 if "colour" in self._modes else 1)

    @property
    def bits(self) -> int:
        """The bits that are asked for, or 16 where a picture has more than 8 a channel."""
        return self._bits or (16 if "deep" in self._modes else 8)

    @property
    def layout(self) -> str:
        """The layout that is asked for, or what the names of the folders say.

        Raises:
            ConfigError: train and test, say, are there beside other folders: it is not clear whether these are splits.
        """
        if self._layout:
            return self._layout
        splits = {_split_of(name): name for name in self._tops if _split_of(name)}
        if "train" in splits and len(splits) > 1 and (others := [name for name in self._tops if not _split_of(name)]):
            besides = next((f"the folder {name}" for name in others if name), "pictures")
            raise ConfigError(
                f"data.layout must be given: {self.path} holds the splits {', '.join(sorted(splits.values()))} and, "
                f"besides, {besides}: move what is of no split elsewhere, or let data.layout=random take all of these "
                "folders for classes"
            )
        return "folders" if self._has_splits else "random"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channel, height, width); the first from the headers of the files, where it is to be found."""
        with self._looking():
            return (self.channels, *self.size)

    @property
    def divisor(self) -> int:
        """255 or 65535."""
        return 2**self.bits - 1

    @property
    def class_names(self) -> Sequence[str]:
        """The subfolders, in the order of their names."""
        return sorted({picture.label for picture in self._pictures} - {""})

    @property
    def num_available(self) -> int:
        """The size of the train split, damaged pictures included."""
        with self._looking():
            return len(self._indices(self._pictures)["train"])

    def load(self) -> Source:
        """Reads the pictures."""
        self._indices(self._pictures)  # refuses too few before they are read
        return self._read(is_split=True)

    def load_whole(self) -> Source:
        """Reads the pictures, which may be fewer than can be split."""
        if not self._pictures:
            raise ConfigError(f"data.path: {self.path} holds no picture ({', '.join(SUFFIXES)}): name another one")
        return self._read(is_split=False)

    def _read(self, is_split: bool) -> Source:
        pictures = self._pictures
        num, shape = len(pictures), (*self.size, *([3] if self.channels == 3 else []))
        num_bytes = (4 + self.bits // 8) * num * math.prod(shape)
        require_memory(f"data.size: {num:,} pictures", num_bytes, "choose a smaller data.size, or fewer pictures")
        images = np.empty((num, *shape), np.uint8 if self.bits == 8 else np.uint16)
        damaged: dict[Path, Exception] = {}
        sizes, num_transparent, num_reduced = set(), 0, 0
        for row, picture in enumerate(pictures):
            try:
                with _opened(picture.file) as opened:
                    is_reduced = _has_deep_colours(opened)
                    images[row] = self._pixels(ImageOps.exif_transpose(opened))
                    sizes.add(opened.size)
                    num_transparent += opened.has_transparency_data
                    num_reduced += is_reduced
            except DAMAGE as error:
                damaged[picture.file] = error
        if damaged:
            self._refuse_or_skip(damaged, num)
            kept = [row for row, picture in enumerate(pictures) if picture.file not in damaged]
            images, pictures = images[kept], [pictures[row] for row in kept]
        self.file_names = [str(picture.file) for picture in pictures]
        indices = self._indices(pictures) if is_split else {"whole": torch.arange(len(pictures))}
        self.notes = self._described(pictures, sizes, num_transparent)
        if is_split:
            self.notes.append(self._split_note(pictures, indices))
        if num_reduced:
            advice = "data=npz takes all, as floating point"
            self.notes.append(f"{num_reduced:,} of them have colours of 16 bits, and are read with 8: {advice}")
        if damaged:
            self.notes.append(f"{len(damaged)} damaged pictures are left out: {_some([file.name for file in damaged])}")
        if links := [str(link) for _, again in self._found.values() for link in again]:
            self.notes.append(f"links to folders that are read where they are, not followed: {_some(links)}")
        return Source(images, self._labels(pictures), indices)

    @cached_property
    def _pictures(self) -> list[Picture]:
        if self.layout == "folders":
            if not self._has_splits:
                raise ConfigError(
                    f"data.layout must be random or null, got folders: not all pictures in {self.path} lie in folders "
                    "train, val or test, train among them"
                )
            pictures = [_picture(self.path / file, _split_of(file.parts[0]), file.parts[1:]) for file in self._files]
        else:
            pictures = [_picture(self.path / file, "", file.parts) for file in self._files]
        if self.test_path is not None:
            if any(picture.split == "test" for picture in pictures):
                raise ConfigError(
                    f"data.test_path must be null, got {str(self.test_path)!r}: {self.path} has test pictures, too"
                )
            places = self.path.resolve(), self.test_path.resolve()
            if os.path.commonpath(places) in map(str, places):
                raise ConfigError(
                    f"data.test_path must lie outside of data.path, got {str(self.test_path)!r}: test pictures "
                    "would be trained on"
                )
            further, _ = self._found[self.test_path]
            pictures += [_picture(self.test_path / file, "test", file.parts) for file in further]
        for split in dict.fromkeys(picture.split for picture in pictures):
            own = [picture for picture in pictures if picture.split == split]
            stray = next((picture.file for picture in own if not picture.label), None)
            if stray is not None and any(picture.label for picture in own):
                raise ConfigError(
                    "data.path: all pictures or none must lie in subfolders, for these are the labels, "
                    f"got {stray}: move it"
                )
        return pictures

    @cached_property
    def _found(self) -> dict[Path, tuple[list[Path], list[Path]]]:
        places = {"data.path": self.path, "data.test_path": self.test_path}
        return {place: _files_below(place, key) for key, place in places.items() if place is not None}

    @property
    def _files(self) -> list[Path]:
        return self._found[self.path][0]

    @property
    def _tops(self) -> list[str]:
        """The folders in which the pictures lie; an empty name for those that lie in none."""
        return list(dict.fromkeys(file.parts[0] if len(file.parts) > 1 else "" for file in self._files))

    @property
    def _has_splits(self) -> bool:
        splits = set(map(_split_of, self._tops))
        return "train" in splits and "" not in splits

    @cached_property
    def _modes(self) -> set[str]:
        """What the headers of the pictures say: grey, deep or colour."""
        modes = set()
        for picture in self._pictures:
            try:
                with _opened(picture.file) as opened:
                    modes.add("deep" if _is_deep(opened) else "grey" if opened.mode in GREY_MODES else "colour")
            except DAMAGE:  # named when it is read
                continue
        return modes

    def _indices(self, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """The positions of each split: those that have a folder, and tenths of the others for those that have none."""
        rest, val, test = (
            torch.tensor([i for i, p in enumerate(pictures) if p.split in splits], dtype=torch.int64)
            for splits in (("", "train"), ("val",), ("test",))
        )
        if len(rest) < (1 if len(val) and len(test) else 10):
            raise ConfigError(
                f"data.path: {self.path} must hold at least 10 pictures, to split them, got {len(rest)}: "
                f"add some ({', '.join(SUFFIXES)}), or name another data.path"
            )
        return split_own(rest, self.split_seed, val=val, test=test)

    def _labels(self, pictures: Sequence[Picture]) -> np.ndarray | None:
        numbers = {name: i for i, name in enumerate(self.class_names)}
        return np.array([numbers.get(picture.label, -1) for picture in pictures]) if numbers else None

    def _pixels(self, picture: Image.Image) -> np.ndarray:
        """A picture as it is stored in memory, averaged over the area that a new pixel covers."""
        mode = "L" if self.channels == 1 else "RGB"
        if _is_deep(picture):
            values = np.asarray(picture)
            if values.min() < 0 or values.max() >= 2**16:
                raise ValueError(f"it has values in {values.min()} ... {values.max()}, and 0 ... 65535 are read")
            fitted = np.asarray(self._fitted(Image.fromarray(values.astype(np.float32))))
            grey = (fitted / (257 if self.bits == 8 else 1)).round().astype(np.uint16)
            return grey if mode == "L" else np.repeat(grey[..., None], 3, axis=-1)
        if picture.has_transparency_data and self.background != "none":
            ground = Image.new("RGBA", picture.size, self.background)
            ground.alpha_composite(picture.convert("RGBA"))
            picture = ground
        pixels = np.asarray(self._fitted(picture.convert(mode)))
        return pixels if self.bits == 8 else pixels.astype(np.uint16) * 257

    def _fitted(self, picture: Image.Image) -> Image.Image:
        (height, width), how = self.size, Image.Resampling.BILINEAR
        if self.fit == "crop":
            return ImageOps.fit(picture, (width, height), how)
        if self.fit == "stretch":
            return picture.resize((width, height), how)
        light: Any = 0 if self.background != "white" else 65535 if picture.mode == "F" else 255
        return ImageOps.pad(picture, (width, height), how, color=(light,) * 3 if picture.mode == "RGB" else light)

    def _refuse_or_skip(self, damaged: dict[Path, Exception], num: int) -> None:
        if self.skip_damaged:
            return
        if len(damaged) == 1:
            ((file, error),) = damaged.items()
            raise unreadable(file, error, advice="replace or remove it, or let data.skip_damaged=true leave it out")
        named = "; ".join(f"{file} ({error})" for file, error in list(damaged.items())[:LISTED])
        more = f"; and {len(damaged) - LISTED} more" if len(damaged) > LISTED else ""
        raise ConfigError(
            f"{len(damaged)} of {num} pictures are truncated, corrupt or no pictures: {named}{more}: replace or remove "
            "them, or let data.skip_damaged=true leave them out"
        )

    def _described(self, pictures: Sequence[Picture], sizes: set[tuple[int, int]], num_transparent: int) -> list[str]:
        """What was read, in sentences."""
        height, width = self.size
        colour, classes = "RGB" if self.channels == 3 else "grey", self.class_names
        between = " to ".join(f"{size[0]} x {size[1]}" for size in dict.fromkeys((min(sizes), max(sizes))))
        kept = f", {FITTED[self.fit]} {width} x {height} (data.fit={self.fit})" if sizes != {(width, height)} else ""
        notes = [f"{len(pictures):,} pictures of {between}, {colour}, {self.bits} bits{kept}"]
        if num_transparent and self.background != "none":
            ground = f"on {self.background} (data.background={self.background})"
            notes.append(f"{num_transparent:,} of them are transparent: {ground}")
        if classes:
            notes.append(f"{len(classes)} classes, by folder: {_some(classes)}")
        return notes

    def _split_note(self, pictures: Sequence[Picture], indices: dict[str, torch.Tensor]) -> str:
        how = "at random" if self.layout == "random" and self.test_path is None else "by folder"
        drawn = [name for name in ("val", "test") if not any(picture.split == name for picture in pictures)]
        how += f", {' and '.join(drawn)} at random from train" if drawn and how == "by folder" else ""
        return f"{', '.join(f'{name} {len(rows):,}' for name, rows in indices.items())}: split {how}"

    def _why_dark(self) -> str:
        other = {"white": "black", "black": "white"}.get(self.background)
        advice = f"; of transparent pictures in the colour of the background, data.background={other}" if other else ""
        return super()._why_dark() + advice


def _files_below(folder: Path, key: str) -> tuple[list[Path], list[Path]]:
    """The pictures below a folder, relative to it, in the order of their names, and the links that are not followed.

    These lead back into the folder, or to where another link has led.
    """
    if not folder.is_dir():
        raise MissingFile(f"{key}: there is no folder {folder}: make it, or name another {key}")
    root, found, again = folder.resolve(), [], []
    waiting, seen = [folder], {root}
    for place in waiting:
        for entry in sorted(place.iterdir()):
            if entry.name.startswith(".") or entry.name.lower() in NO_PICTURES:
                continue
            if entry.is_dir():
                target = entry.resolve()
                is_back = entry.is_symlink() and (target.is_relative_to(root) or root.is_relative_to(target))
                if is_back or target in seen:
                    again.append(entry)
                else:
                    seen.add(target)
                    waiting.append(entry)
            elif entry.suffix.lower() in SUFFIXES and entry.is_file():
                found.append(entry)
    return sorted(file.relative_to(folder) for file in found), again


def _split_of(name: str) -> str:
    return SPLITS.get(name.lower(), "")


def _picture(file: Path, split: str, below: Sequence[str]) -> Picture:
    """A file by its path below the folder of its split."""
    return Picture(file, split, below[0] if len(below) > 1 else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + ", ..." * (len(names) > LISTED)


def _is_deep(picture: Image.Image) -> bool:
    """Whether it has more than 8 bits, all of which Pillow reads."""
    return picture.mode.startswith("I")


def _has_deep_colours(picture: Image.Image) -> bool:
    """Whether its colours, or transparent greys, have 16 bits, of which Pillow reads 8: by its header, once opened."""
    if not isinstance(picture, ImageFile) or not picture.tile or _is_deep(picture):
        return False
    codec, _, _, how = picture.tile[0]
    return ";16" in str(how) or (codec.startswith("ppm") and isinstance(how, tuple) and how[-1] > 255)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """A picture whose header has been read.

    Raises:
        Any of `DAMAGE`: it is none, or larger than is read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = Image.open(file, formats=FORMATS)
    with opened:
        if math.prod(opened.size) > LARGEST:
            raise ValueError(f"it has {math.prod(opened.size):,} pixels, and {LARGEST:,} at most are read")
        if opened.mode == "F":
            raise ValueError("its values are floating point: store such images in an .npz file, for data=npz")
        yield opened
