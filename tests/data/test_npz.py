import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_lab.data.npz import NPZ, Header
from vae_lab.errors import ConfigError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (50, 6, 4), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (50, 6, 4, 3), dtype=np.uint8)
FLOATS = RNG.random((50, 6, 4))
LABELS = np.arange(50) % 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images.npz"


@pytest.mark.parametrize("x", [BYTES, COLOURS, FLOATS, FLOATS.astype(">f4"), FLOATS.astype(np.float16)])
def test_without_a_test_part_npz_is_split_80_10_10(path, common, check_contract, x):
    np.savez(path, x=x, y=LABELS)
    sizes = {"train": 40, "val": 5, "test": 5}
    check_contract(lambda: NPZ(path=str(path), keys=None, **common), sizes, labelled={"train", "val", "test"})


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [
        ({}, set()),
        ({"y": LABELS}, {"train", "val"}),
        ({"y": LABELS.astype(np.uint64), "y_test": LABELS[:20]}, {"train", "val", "test"}),
        ({"y_test": LABELS[:20]}, {"test"}),
    ],
)
def test_a_test_part_is_kept_whole(path, common, check_contract, labels, labelled):
    np.savez_compressed(path, x=COLOURS, x_test=COLOURS[:20], **labels)
    check_contract(lambda: NPZ(path=str(path), keys=None, **common), {"train": 45, "val": 5, "test": 20}, labelled)
    test = NPZ(path=str(path), keys=None, **common).splits["test"]
    assert torch.equal(test.images.permute(0, 2, 3, 1) * 255, torch.from_numpy(COLOURS[:20]).float())
    assert test.indices.tolist() == list(range(50, 70))


def test_labels_stay_with_their_images(path, common):
    np.savez(path, x=FLOATS, y=LABELS)
    for part in NPZ(path=str(path), keys=None, **common).splits.values():
        rows = part.indices.numpy()
        assert torch.equal(part.images[:, 0], torch.from_numpy(FLOATS[rows]).float())
        assert part.labels is not None and torch.equal(part.labels, torch.from_numpy(LABELS[rows]))


@pytest.mark.parametrize(
    ("arrays", "sizes", "labelled"),
    [
        ({"x_train": BYTES, "y_train": LABELS, "x_test": BYTES[:20]}, (45, 5, 20), {"train", "val"}),
        (
            {
                "train_images": BYTES,
                "train_labels": LABELS[:, None],
                "val_images": BYTES[:8],
                "test_images": BYTES[:20],
            },
            (50, 8, 20),
            {"train"},
        ),
        ({"X": BYTES, "x_val": BYTES[:8], "y_val": LABELS[:8]}, (45, 8, 5), {"val"}),
        ({"arr_0": BYTES}, (40, 5, 5), set()),
        ({"x": BYTES, "names": LABELS.astype(object)}, (40, 5, 5), set()),
    ],
)
def test_usual_names_are_found_and_other_arrays_do_no_harm(path, common, check_contract, arrays, sizes, labelled):
    np.savez(path, **arrays)
    check_contract(
        lambda: NPZ(path=str(path), keys=None, **common),
        dict(zip(("train", "val", "test"), sizes, strict=True)),
        labelled,
    )
    data = NPZ(path=str(path), keys=None, **common)
    assert data.num_train == sizes[0]
    again = NPZ(path=str(path), **common | data.found)
    assert again.fingerprint == data.fingerprint
    assert [len(again.splits[name].indices) for name in ("train", "val", "test")] == list(sizes)


def test_other_names_are_mapped_by_a_key_and_a_line_says_what_is_not_read(path, common):
    np.savez(path, faces=BYTES, persons=LABELS, x_test=BYTES[:20], rest=np.array([None]))
    data = NPZ(path=str(path), keys={"x": "faces", "y": "persons"}, **common)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 45, "val": 5, "test": 20}
    assert data.splits["train"].labels is not None and data.splits["test"].labels is None
    assert data.found == {"keys": {"x": "faces", "y": "persons", "x_test": "x_test"}}
    assert list(data.notes) == ["arrays x = faces, y = persons, x_test", "not read: rest"]
    for keys, message in (
        ({"x": "nobody"}, r"data\.keys\.x must be an array .*'nobody': it has faces"),
        ({"z": "faces"}, "one of x, y"),
    ):
        with pytest.raises(ConfigError, match=message):
            _ = NPZ(path=str(path), keys=keys, **common).image_shape


def test_bits_are_stored_as_bool_and_refused_as_bytes_that_training_would_divide(path, common, caplog):
    bits = BYTES > 127
    np.savez(path, x=bits)
    data = NPZ(path=str(path), keys=None, **common)
    data.refuse_constant()
    assert data.scale == "x" and data.splits["train"].images.unique().tolist() == [0, 1] and not caplog.text
    np.savez(path, x=bits.astype(np.uint8))
    NPZ(path=str(path), keys=None, **common).refuse_constant()
    assert "exceeds 0.00392" in caplog.text and "stored as bool" in caplog.text
    caplog.clear()
    NPZ(path=str(path), keys=None, **common | {"binarization": "static"}).refuse_constant()
    assert "exceeds 0.00392" in caplog.text  # though ones are drawn
    with pytest.raises(ConfigError, match=r"all are equal, with values in 0 \.\.\. 0: data\.binarization=none shows"):
        NPZ(path=str(path), keys=None, **common | {"binarization": "threshold"}).refuse_constant()


def test_shape_and_scale_are_read_off_the_header(path, common, monkeypatch):
    np.savez(path, x=COLOURS)
    monkeypatch.delattr("numpy.load")
    data = NPZ(path=str(path), keys=None, **common)
    assert (data.name, data.image_shape, data.scale) == ("images", (3, 6, 4), "x/255")
    np.savez(path, x=FLOATS)
    data = NPZ(path=str(path), keys=None, **common)
    assert (data.image_shape, data.scale) == ((1, 6, 4), "x")


def test_few_images_are_read_whole(tmp_path, common):
    np.savez(tmp_path / "few.npz", x=np.arange(12, dtype=np.uint8).reshape(3, 2, 2), y=[2, 0, 1])
    data = NPZ(path=str(tmp_path / "few.npz"), keys=None, **common)
    part = data.whole()
    assert (part.images.flatten() * 255).round().tolist() == list(range(12)) and part.labels.tolist() == [2, 0, 1]
    with pytest.raises(ConfigError, match="hold at least 10 images"):
        _ = data.splits


def test_the_split_seed_gives_the_split(path, common):
    np.savez(path, x=FLOATS)
    first, again, other = (NPZ(path=str(path), keys=None, **common | {"split_seed": seed}) for seed in (0, 0, 1))
    assert first.split_hash == again.split_hash != other.split_hash


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"faces": BYTES}, r"must hold the images x, and has faces: .*'data\.keys=\{x: faces\}'"),
        ({"x_test": BYTES, "y": LABELS}, r"must hold the images x, and has x_test, y: .*'data\.keys=\{x: NAME\}'"),
        ({"x": BYTES, "y_test": LABELS}, r"must hold the images x_test, and has x, y_test"),
        ({"x_train": BYTES, "images": BYTES}, r"data\.keys must say which of x_train, images in .* is x"),
        ({"x": BYTES.astype(int)}, r"array x in .* must be uint8, or bool or floating point in \[0, 1\], got int64"),
        ({"x": BYTES[0]}, r"must be \[n, height, width\] or .*got \[6, 4\]"),
        ({"x": BYTES[:0]}, r"must be \[n, height, width\] or .*got \[0, 6, 4\]"),
        ({"x": np.zeros((20, 3, 32, 32))}, r"channels last, got \[20, 3, 32, 32\]"),
        ({"x": BYTES[:9]}, r"hold at least 10 images, to split them, got 9"),
        ({"x": FLOATS * 255}, r"array x in .* must lie in \[0, 1\], got values in \[.*\]: rescale"),
        ({"x": np.where(FLOATS > 0.9, np.nan, FLOATS)}, r"must lie in \[0, 1\]"),
        ({"x": FLOATS, "x_test": FLOATS - 1}, r"array x_test in .* must lie in \[0, 1\]"),
        (
            {"x": BYTES, "x_test": FLOATS},
            r"array x_test in .* like those in x, \[6, 4\] uint8, got \[6, 4\] float64",
        ),
        ({"x": BYTES, "x_test": COLOURS}, r"array x_test in .* got \[6, 4, 3\] uint8"),
        (
            {"x": BYTES, "y": LABELS[:40]},
            r"array y in .* must be \[50\] integers, one an image, got \[40\] int64",
        ),
        ({"x": BYTES, "y": LABELS / 2}, r"array y in .* got \[50\] float64"),
        ({"x": BYTES, "y": LABELS.astype(object)}, r"images\.npz is .*y\.npy holds Python objects"),
    ],
)
def test_unsuitable_arrays_are_named(path, common, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message):
        _ = NPZ(path=str(path), keys=None, **common).splits


@pytest.mark.parametrize("keep", [0, 10, 1000, 3600])
def test_a_truncated_file_is_named(path, common, keep):
    np.savez_compressed(path, x=COLOURS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"images\.npz is truncated, corrupt"):
        _ = NPZ(path=str(path), keys=None, **common).splits


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_corrupt_file_is_named(path, common, write):
    write(path, x=COLOURS)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.npz is truncated, corrupt"):
        _ = NPZ(path=str(path), keys=None, **common).splits


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/vae_lab_pickle_was_run"),))


def test_pickles_are_never_run(path, common):
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"images\.npz is truncated, corrupt"):
        _ = NPZ(path=str(path), keys=None, **common).splits
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"images\.npz is truncated, corrupt"):
        _ = NPZ(path=str(path), keys=None, **common).splits
    assert not Path("/tmp/vae_lab_pickle_was_run").exists()


def test_a_missing_file_and_another_format_are_refused(tmp_path, common):
    with pytest.raises(FileNotFoundError, match=r"data\.path: there is no file .*none\.npz"):
        _ = NPZ(path=str(tmp_path / "none.npz"), keys=None, **common).image_shape
    with pytest.raises(ValueError, match=r"data\.path must name an \.npz file, got 'images\.npy'"):
        NPZ(path="images.npy", keys=None, **common)


def npy(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """An .npy file whose header promises this shape of uint8."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


BOMBS = {
    "a header of terabytes": lambda path: hostile(path, npy((2**20, 2**10, 2**10), bytes(100))),
    "a header of less than nothing": lambda path: hostile(path, npy((-4, 5, 5), bytes(100))),
    "a header of fewer bytes than there are": lambda path: hostile(path, npy((2, 2, 2), bytes(100))),
    "a header that does not end": lambda path: hostile(path, b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535),
    "a bomb": lambda path: hostile(path, npy((2**10, 2**10, 2**9), bytes(2**29))),
    "a million entries": lambda path: hostile(path, *[b""] * 20_000),
}


def hostile(path: Path, *arrays: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i, content in enumerate(arrays):
            archive.writestr("x.npy" if not i else f"some_longer_name_{i}.npy", content)


@pytest.mark.slow
@pytest.mark.parametrize("write", BOMBS.values(), ids=BOMBS)
def test_an_archive_that_would_fill_the_memory_is_refused_by_its_headers(path, common, write, monkeypatch):
    write(path)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it is read"))
    with pytest.raises(ConfigError, match=r"images\.npz is truncated, corrupt or of the wrong kind"):
        _ = NPZ(path=str(path), keys=None, **common).image_shape


def test_images_that_no_memory_holds_are_refused_with_the_number(path, common, monkeypatch):
    header = Header((2**20, 2**10, 2**10), np.dtype(np.uint8))
    monkeypatch.setattr("vae_lab.data.npz._header", lambda *_: header)
    np.savez(path, x=np.zeros((1, 1, 1)))
    with pytest.raises(ConfigError, match=r"images in .*images\.npz would take 6,144 GB of memory"):
        _ = NPZ(path=str(path), keys=None, **common).image_shape
