import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vae_lab.data.image_folder import ImageFolder
from vae_lab.errors import ConfigError


def write(path: Path, value: int, *, size: tuple[int, int] = (10, 7), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value, value, value)[: len(mode)] if mode == "RGB" else value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 flat pictures of several kinds and sizes in two subfolders; picture i is grey 8 i."""
    for i in range(30):
        suffix = ("png", "PNG", "bmp")[i % 3]
        name = ("cats", "dogs/brown")[i % 2]
        write(
            tmp_path / "pets" / name / f"{i:02d}.{suffix}",
            8 * i,
            size=(5 + i, 40 - i),
            mode=("L", "RGB")[i % 2],
        )
    (tmp_path / "pets" / "README.txt").write_text("no picture")
    (tmp_path / "pets" / ".hidden").mkdir()
    (tmp_path / "pets" / ".hidden" / "thumbnail.png").write_text("no picture")
    return tmp_path / "pets"


def image_folder(folder: Path, common: dict[str, Any], **changes: Any) -> ImageFolder:
    return ImageFolder(**({"path": str(folder), "size": [6, 4], "channels": 1} | common | changes))


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_keeps_the_contract(folder, common, check_contract, channels):
    sizes = {"train": 24, "val": 3, "test": 3}
    check_contract(lambda: image_folder(folder, common, channels=channels), sizes, {"train", "val", "test"})
    data = image_folder(folder, common, channels=channels)
    assert (data.name, data.image_shape, data.scale) == ("pets", (channels, 6, 4), "x/255")


def test_pictures_come_in_the_order_of_their_names_with_their_subfolders_number(folder, common):
    in_order = [*range(0, 30, 2), *range(1, 30, 2)]
    for part in image_folder(folder, common, channels=3).splits.values():
        values = torch.tensor(in_order)[part.indices]
        assert torch.equal((part.images[:, 0, 0, 0] * 255).round().long(), 8 * values)
        assert part.labels is not None and torch.equal(part.labels, values % 2)


def test_resizing_averages(tmp_path, common):
    checkerboard = (np.indices((60, 40)).sum(0) % 2 * 255).astype(np.uint8)
    for i in range(10):
        Image.fromarray(checkerboard).save(tmp_path / f"{i}.png")
    images = image_folder(tmp_path, common).splits["train"].images
    assert (images - 0.5).abs().max() < 0.02


def test_a_flat_folder_has_no_labels(tmp_path, common):
    for i in range(10):
        write(tmp_path / f"{i}.png", 20 * i)
    assert image_folder(tmp_path, common).splits["train"].labels is None


def test_pictures_beside_subfolders_are_refused(folder, common):
    write(folder / "stray.png", 3)
    with pytest.raises(ValueError, match=r"all pictures or none must lie in subfolders.*stray\.png"):
        _ = image_folder(folder, common).splits


@pytest.mark.parametrize("keep", [0, 20, 45])
def test_unreadable_pictures_are_named(folder, common, keep):
    picture = folder / "cats" / "00.png"
    picture.write_bytes(picture.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"00\.png is truncated, corrupt.*remove it"):
        _ = image_folder(folder, common).splits


def test_more_than_8_bits_are_refused(folder, common):
    Image.fromarray(np.full((5, 5), 40_000, np.uint16)).save(folder / "cats" / "00.png")
    with pytest.raises(ValueError, match=r"00\.png is .*more than 8 bits"):
        _ = image_folder(folder, common).splits


def test_too_few_pictures_or_no_folder_are_refused(tmp_path, common):
    with pytest.raises(ValueError, match=r"must hold at least 10 pictures, to split them, got 0"):
        _ = image_folder(tmp_path, common).splits
    with pytest.raises(FileNotFoundError, match=r"data\.path: there is no folder .*nowhere"):
        _ = image_folder(tmp_path / "nowhere", common).splits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [8]}, r"data\.size must be \[height, width\], got \[8\]"),
        ({"size": [8, 0]}, r"each of data\.size must be an integer >= 1, got 0"),
        ({"channels": 4}, r"data\.channels must be 1 or 3, got 4"),
    ],
)
def test_impossible_keys_are_refused_before_loading(common, changes, message):
    with pytest.raises(ValueError, match=message):
        image_folder(Path("nowhere"), common, **changes)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [9000, 13_000, 40_000, 2**31 - 1])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(folder, common, side, monkeypatch):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file = folder / "cats" / "00.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"00\.png is truncated, corrupt .*(pixels|Image size)"):
        _ = image_folder(folder, common).splits


def test_a_file_of_another_kind_is_no_picture_whatever_its_name(folder, common, monkeypatch):
    file = folder / "cats" / "00.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("another program reads it"))
    with pytest.raises(ValueError, match=r"00\.png is truncated, corrupt"):
        _ = image_folder(folder, common).splits


def test_pictures_of_a_size_that_no_memory_holds_are_refused_with_the_number(folder, common):
    with pytest.raises(ConfigError, match=r"data\.size: .* pictures would take [\d,]+ GB of memory"):
        _ = image_folder(folder, common, size=[10**6, 10**6]).splits
