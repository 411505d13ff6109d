import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vae_lab.data.image_folder import ImageFolder
from vae_lab.errors import ConfigError

KEYS = {
    **{"bits": None, "fit": "crop", "background": "white"},
    **{"layout": None, "test_path": None, "skip_damaged": False},
}


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
    return ImageFolder(**({"path": str(folder), "size": [6, 4], "channels": 1} | KEYS | common | changes))


def test_few_pictures_are_read_whole_with_their_files_and_labels(tmp_path, common):
    for i, name in enumerate(("b/2.png", "a/9.png", "b/1.png")):
        write(tmp_path / name, 50 * i)
    (tmp_path / "a/0.png").write_text("no picture")
    data = image_folder(tmp_path, common, skip_damaged=True)
    part = data.whole()
    assert data.file_names == [str(tmp_path / name) for name in ("a/9.png", "b/1.png", "b/2.png")]
    assert (part.images[:, 0, 0, 0] * 255).round().tolist() == [50, 100, 0] and part.labels.tolist() == [0, 1, 1]
    assert data.class_names == ["a", "b"] and data.notes[-1] == "1 damaged pictures are left out: 0.png"
    with pytest.raises(ConfigError, match="must hold at least 10 pictures"):
        _ = data.splits
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"data\.path: .*empty holds no picture"):
        image_folder(tmp_path / "empty", common).whole()


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
        _ = image_folder(folder, common, channels=None).splits


def test_damaged_pictures_are_named_together_or_left_out(folder, common):
    for name in ("cats/00.png", "dogs/brown/03.png"):
        (folder / name).write_bytes(b"no picture")
    with pytest.raises(
        ConfigError, match=r"2 of 30 pictures .*00\.png \(.*03\.png \(.*data\.skip_damaged=true"
    ) as caught:
        _ = image_folder(folder, common).splits
    assert "\n" not in str(caught.value)
    data = image_folder(folder, common, skip_damaged=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "val": 2, "test": 2}
    assert any("2 damaged pictures are left out: 00.png, 03.png" in note for note in data.notes)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_aspect_ratio_is_kept_unless_it_is_to_be_stretched(tmp_path, common, fit):
    circle = Image.new("L", (200, 100), 255)
    ImageDraw.Draw(circle).ellipse((60, 10, 140, 90), fill=0)
    for i in range(10):
        circle.save(tmp_path / f"{i}.png")
    data = image_folder(tmp_path, common, size=[50, 50], fit=fit)
    ink = (data.splits["train"].images[0, 0] < 0.5).nonzero()
    height, width = (ink.max(0).values - ink.min(0).values + 1).tolist()
    expected = {"crop": (40, 40), "pad": (20, 20), "stretch": (40, 20)}[fit]
    assert abs(height - expected[0]) <= 1 and abs(width - expected[1]) <= 1
    assert any(f"data.fit={fit}" in note for note in data.notes)
    assert data.splits["train"].images[0, 0, 0, 0] == 1  # the border is white


def test_channels_and_bits_are_found_and_those_of_the_run_are_kept(tmp_path, common):
    for i in range(10):
        write(tmp_path / f"{i}.png", 20 * i, mode="L")
    grey = image_folder(tmp_path, common, channels=None)
    assert grey.found == {"channels": 1, "bits": 8, "layout": "random"}
    write(tmp_path / "9.png", 7, mode="RGB")
    colour = image_folder(tmp_path, common, channels=None)
    assert colour.found["channels"] == 3 and colour.image_shape == (3, 6, 4)
    assert colour.num_train == len(colour.splits["train"]) and "RGB, 8 bits" in colour.notes[0]
    kept = image_folder(tmp_path, common, **grey.found)
    assert kept.image_shape == (1, 6, 4)


def test_pictures_of_16_bits_are_read_as_they_are(tmp_path, common):
    for i in range(10):
        Image.fromarray(np.full((5, 5), 6000 * i + 1, np.uint16)).save(tmp_path / f"{i}.png")
    write(tmp_path / "9.png", 255, mode="L")
    data = image_folder(tmp_path, common, channels=None)
    assert (data.found["channels"], data.found["bits"], data.scale) == (1, 16, "x/65535")
    for split in data.splits.values():
        values = [65535 if i == 9 else 6000 * i + 1 for i in split.indices.tolist()]
        assert torch.equal((split.images[:, 0, 0, 0] * 65535).round().long(), torch.tensor(values))
    for_colours = image_folder(tmp_path, common, channels=3, bits=8).splits["train"].images
    assert (for_colours[:, 0] == for_colours[:, 2]).all() and (for_colours * 255 % 1).abs().max() < 1e-3


@pytest.mark.parametrize("suffix", ["png", "ppm"])
def test_colours_of_16_bits_are_read_with_8_and_a_line_says_so(tmp_path, common, suffix):
    values = np.random.default_rng(0).integers(0, 2**16, (4, 6, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    for i in range(9):
        content = png if suffix == "png" else b"P6\n6 4\n65535\n" + values.tobytes()
        (tmp_path / f"{i}.{suffix}").write_bytes(content)
    write(tmp_path / "9.png", 7)
    data = image_folder(tmp_path, common, size=[4, 6], channels=None, layout="random")
    assert (data.found["channels"], data.found["bits"], data.scale) == (3, 8, "x/255")
    image = data.splits["train"].images[:2].amax(0).movedim(0, -1).numpy()  # the last one is dark
    assert np.abs(image - values / 65535).max() < 1 / 255
    assert "9 of them have colours of 16 bits, and are read with 8: data=npz" in data.notes[-1]


@pytest.mark.parametrize(("background", "value"), [("white", 1), ("black", 0)])
def test_transparent_pictures_lie_on_the_background(tmp_path, common, background, value):
    glyph = Image.new("LA", (20, 20), (0, 0))
    ImageDraw.Draw(glyph).rectangle((5, 5, 14, 14), fill=(128, 255))
    for i in range(10):
        glyph.save(tmp_path / f"{i}.png")
    data = image_folder(tmp_path, common, channels=None, size=[20, 20], background=background)
    image = data.splits["train"].images[0, 0]
    assert image[0, 0] == value and image[10, 10] == pytest.approx(128 / 255)
    assert any(f"10 of them are transparent: on {background} (data.background={background})" in n for n in data.notes)


def test_glyphs_in_the_colour_of_the_background_are_refused_with_the_other_one(tmp_path, common):
    for i in range(10):
        glyph = Image.new("LA", (20, 20), (0, 0))
        ImageDraw.Draw(glyph).rectangle((i, 5, 14, 14), fill=(0, 255))
        glyph.save(tmp_path / f"{i}.png")
    image_folder(tmp_path, common).refuse_constant()
    with pytest.raises(ConfigError, match=r"all are equal, with values in 0 \.\.\. 0: .*data\.background=white"):
        image_folder(tmp_path, common, background="black").refuse_constant()


def test_links_are_followed_without_going_round_in_circles_and_thumbnails_are_no_pictures(tmp_path, common):
    for i in range(10):
        write(tmp_path / "elsewhere" / "birds" / f"{i}.png", 20 * i)
        write(tmp_path / "pets" / "cats" / f"{i}.png", 20 * i)
        write(tmp_path / "pets" / "cats" / "@eaDir" / f"{i}.png" / "SYNOPHOTO_THUMB_M.jpg", 3)
    (tmp_path / "pets" / "birds").symlink_to(tmp_path / "elsewhere" / "birds")
    (tmp_path / "pets" / "cats" / "again").symlink_to(tmp_path / "pets")
    (tmp_path / "pets" / "cats" / "feathered").symlink_to(tmp_path / "elsewhere" / "birds")
    data = image_folder(tmp_path / "pets", common)
    assert list(data.class_names) == ["birds", "cats"]
    assert sum(len(split) for split in data.splits.values()) == 20
    assert any("2 classes, by folder: birds, cats" in note for note in data.notes)
    assert data.notes[-1].endswith(
        f"not followed: {', '.join(f'{tmp_path}/pets/cats/{n}' for n in ('again', 'feathered'))}"
    )


def test_a_link_to_another_class_mixes_no_classes(tmp_path, common):
    for i in range(10):
        write(tmp_path / "cats" / f"{i}.png", 20 * i)
        write(tmp_path / "dogs" / f"{i}.png", 20 * i)
    (tmp_path / "cats" / "as well").symlink_to(tmp_path / "dogs")
    data = image_folder(tmp_path, common)
    labels = torch.cat([split.labels for split in data.splits.values() if split.labels is not None])
    assert labels.bincount().tolist() == [10, 10] and data.notes[-1].endswith(
        "not followed: " + str(tmp_path / "cats" / "as well")
    )


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        (("train", "test"), {"train": 18, "val": 2, "test": 10}),
        (("Train", "valid", "testing"), {"train": 20, "val": 10, "test": 10}),
    ],
)
def test_folders_named_for_splits_are_the_splits(tmp_path, common, splits, sizes):
    for split in splits:
        for i in range(20 if split.lower() == "train" else 10):
            write(tmp_path / split / ("cat", "dog")[i % 2] / f"{i}.png", 10 * i)
    data = image_folder(tmp_path, common)
    assert {name: len(split) for name, split in data.splits.items()} == sizes
    assert data.found["layout"] == "folders" and list(data.class_names) == ["cat", "dog"]
    assert data.num_train == sizes["train"] and "by folder" in data.notes[-1]
    together = image_folder(tmp_path, common, layout="random")
    assert list(together.class_names) == sorted(splits) and len(together.splits["train"]) == sum(sizes.values()) * 0.8


@pytest.mark.parametrize("besides", ["extra/a.png", "stray.png"])
def test_splits_beside_what_is_of_no_split_are_refused_unless_all_are_to_be_classes(tmp_path, common, besides):
    for split in ("train", "test"):
        for i in range(10):
            write(tmp_path / split / f"{i}.png", 20 * i)
    write(tmp_path / besides, 3)
    with pytest.raises(ConfigError, match=r"data\.layout must be given: .* the splits test, train and, besides, "):
        _ = image_folder(tmp_path, common).image_shape, image_folder(tmp_path, common).found
    if "/" in besides:
        assert list(image_folder(tmp_path, common, layout="random").class_names) == ["extra", "test", "train"]


def test_a_folder_train_among_others_is_a_class_and_layouts_that_are_not_there_are_refused(folder, tmp_path, common):
    for i in range(10):
        write(folder / "train" / f"{i}.png", 20 * i)
    assert list(image_folder(folder, common).class_names) == ["cats", "dogs", "train"]
    with pytest.raises(ConfigError, match=r"data\.layout must be random or null, got folders"):
        _ = image_folder(folder, common, layout="folders").splits


def test_the_test_split_may_lie_elsewhere(folder, tmp_path, common, monkeypatch):
    for i in range(4):
        write(tmp_path / "further" / "dogs" / f"{i}.png", 20 * i)
    monkeypatch.chdir(tmp_path)
    data = image_folder(folder, common, test_path="further")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 27, "val": 3, "test": 4}
    labels = data.splits["test"].labels
    assert labels is not None and labels.tolist() == [1] * 4 and list(data.class_names) == ["cats", "dogs"]
    assert data.found["test_path"] == str(tmp_path / "further")
    with pytest.raises(FileNotFoundError, match=r"data\.test_path: there is no folder nowhere"):
        _ = image_folder(folder, common, test_path="nowhere").splits
    with pytest.raises(ConfigError, match=r"data\.test_path must lie outside of data\.path"):
        _ = image_folder(folder, common, test_path=str(folder / "dogs")).splits


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
        ({"channels": 4}, r"data\.channels must be 1 \(grey\), 3 \(RGB\) or null, got 4"),
        ({"bits": 12}, r"data\.bits must be 8, 16 or null, got 12"),
        ({"fit": "squeeze"}, r"data\.fit must be one of crop, pad, stretch"),
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
