"""What `out=` means to every command that has it: refused before any work, written atomically, never over another's.

An array file (.npz) holds arrays as they are, a table (.csv, .parquet) their columns, a picture (.png) a grid of
images, a folder one picture for each.
"""

import importlib.util
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vae_lab.atomic import atomic_file
from vae_lab.commands.run_settings import RunSettings
from vae_lab.errors import ConfigError, install
from vae_lab.figures.canvas import pixels_of, png_of, write
from vae_lab.runs.directory import only_writer

FOLDER = ""
"""The suffix of a folder."""


@dataclass(frozen=True)
class OutSettings(RunSettings):
    """Where a command writes what came of one run."""

    out: str
    overwrite: bool

    suffixes: ClassVar[Sequence[str]]
    """What `out` may end with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        suffix = Path(self.out).suffix
        if not self.out or suffix not in self.suffixes:
            kinds = ", ".join(each or "a folder (no suffix)" for each in self.suffixes)
            raise ConfigError(f"out must be of one of the kinds {kinds}, got {self.out!r}: its suffix says which")
        if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(f"out={self.out} needs pyarrow: {install('export')}, or write .csv or .npz")
        require_free(self.path, overwrite=self.overwrite)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.out).expanduser()

    def require_room_beside(self) -> None:
        """Refuses a place for a picture beside the file, as that for the file itself is refused."""
        require_free(self.path.with_suffix(".png"), overwrite=self.overwrite)

    def with_picture_beside(self, picture: Figure) -> list[Path]:
        """Writes a picture of the same name beside the file; returns both paths."""
        with only_writer(self.path):
            return [self.path, *write({".png": png_of(picture)}, self.path.with_suffix(""))]


def require_free(path: Path, *, overwrite: bool) -> None:
    """Refuses a place where something else lies that is not to be replaced, or where nothing can be written."""
    is_folder = path.suffix == FOLDER
    if path.is_dir() != is_folder and path.exists():
        raise ConfigError(f"out must name a {'folder' if is_folder else 'file'}, got {path}: it is none")
    if not overwrite and (any(path.iterdir()) if path.is_dir() else os.path.lexists(path)):
        what = "holds files already" if is_folder else "exists"
        raise ConfigError(f"out: {path} {what}: name another place, or let overwrite=true replace what has its name")
    require_writable(path if path.is_dir() else path.absolute().parent)
    with only_writer(path):
        pass


def require_writable(folder: Path) -> None:
    """Refuses a folder that may not be written to, or cannot be made."""
    above = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not above.is_dir():
        raise ConfigError(f"out: {folder} cannot be made, for {above} is no folder: name another place")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"out: {folder} cannot be written to, for {above} may not be: name another place")


@contextmanager
def out_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place once it is whole, as `atomic_file` has it, under the lock that belongs to it."""
    with only_writer(path), atomic_file(path) as file:
        yield file


class Blocks(NamedTuple):
    """An array that is made piece by piece while it is written."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray | Blocks]) -> None:
    """Writes an .npz file, an array after the other; the same bytes for the same arrays."""
    with out_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            shape, dtype, pieces = array if isinstance(array, Blocks) else Blocks(array.shape, array.dtype, [array])
            about = zipfile.ZipInfo(f"{name}.npy")
            about.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(about, "w", force_zip64=True) as entry:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(entry, header)
                for piece in pieces:
                    entry.write(np.ascontiguousarray(piece, dtype).tobytes())


def channels_last(images: Tensor) -> np.ndarray:
    """[..., height, width], or [..., height, width, channel] for several channels."""
    return (images.squeeze(-3) if images.shape[-3] == 1 else images.movedim(-3, -1)).numpy()


def write_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes a row for each datapoint as .csv or .parquet, or the arrays as .npz.

    Args:
        path: the file.
        columns: [num] or, for several columns `name_0`, `name_1`, ..., [num, width].
    """
    if path.suffix == ".npz":
        write_arrays(path, columns)
        return
    table = pd.DataFrame(
        {
            name if values.ndim == 1 else f"{name}_{i}": column
            for name, values in columns.items()
            for i, column in enumerate(values[None] if values.ndim == 1 else values.T)
        }
    )
    with out_file(path) as file:
        if path.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)


def write_picture(path: Path, image: Float[Tensor, "channel height width"]) -> None:
    """Writes an image with values in [0, 1], those beyond cut, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(image.clamp(0, 1).cpu())).save(buffer, "PNG", optimize=True)
    with out_file(path) as file:
        file.write(buffer.getvalue())
