import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_lab.data.mnist import MNIST, SHA256, read_idx


def offline(*_: object, **__: object) -> None:
    raise OSError("no network")


@pytest.mark.slow
def test_mnist_keeps_the_contract(real_root, common, check_contract):
    sizes = {"train": 50_000, "val": 10_000, "test": 10_000}
    check_contract(
        lambda: MNIST(root=real_root, validation_size=10_000, **common),
        sizes,
        labelled={"train", "val", "test"},
    )


def test_mnist_is_split_in_its_own_order(real_root, common):
    splits = MNIST(root=real_root, validation_size=10_000, **common).splits
    assert torch.equal(torch.cat([part.indices for part in splits.values()]), torch.arange(70_000))
    assert splits["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert splits["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert splits["train"].images.max() == 1 and abs(splits["train"].images.mean() - 0.1307) < 1e-3


def test_without_validation_everything_trains(real_root, common):
    splits = MNIST(root=real_root, validation_size=0, **common).splits
    assert {name: len(part) for name, part in splits.items()} == {"train": 60_000, "test": 10_000}


def test_extracted_files_are_read_from_a_folder_that_cannot_be_written(real_root, common, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in SHA256:
        source = Path(real_root) / "MNIST" / "raw" / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(source.read_bytes()))
    before = sorted(folder.iterdir())
    folder.chmod(0o555)
    data = MNIST(root=str(tmp_path), validation_size=10_000, **common)
    assert len(data.splits["train"]) == 50_000
    assert sorted(folder.iterdir()) == before


def test_missing_files_are_downloaded_with_torchvisions_checksums(real_root, common, tmp_path, monkeypatch):
    raw = Path(real_root).resolve() / "MNIST" / "raw"
    mirrors = ["file:///nowhere/", f"{raw.as_uri()}/"]
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", mirrors)
    assert len(MNIST(root=str(tmp_path), validation_size=0, **common).splits["train"]) == 60_000
    stored = sorted(file.name for file in (tmp_path / "MNIST" / "raw").iterdir())
    assert stored == sorted(f"{name}.gz" for name in SHA256)


def test_offline_and_missing_says_what_to_do(common, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_lab.data.files.urlopen", offline)
    data = MNIST(root=str(tmp_path), validation_size=0, **common)
    with pytest.raises(FileNotFoundError) as caught:
        _ = data.splits
    for needed in (
        str(tmp_path / "MNIST/raw/train-images-idx3-ubyte.gz"),
        "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
        "md5 f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "no network",
    ):
        assert needed in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_damaged_files_are_named(real_root, common, tmp_path, damage):
    shutil.copytree(Path(real_root) / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    (tmp_path / "MNIST" / "raw").chmod(0o755)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz is truncated, corrupt"):
        _ = MNIST(root=str(tmp_path), validation_size=0, **common).splits


@pytest.mark.parametrize("shape", [(60_000, 27, 28), (60_000, 28, 28)])
def test_files_of_another_shape_or_content_are_named(common, tmp_path, shape):
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", *shape) + bytes(int(np.prod(shape))))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is .*(\(60000, 27, 28\)|SHA-256)"):
        _ = MNIST(root=str(tmp_path), validation_size=0, **common).splits


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x02\x05", b"\0\0\x09\x01\0\0\0\x01\x05", b"<html>" * 9]
)
def test_what_is_no_idx_array_is_refused(tmp_path, content):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="labels is truncated, corrupt"):
        read_idx(path)


def test_an_idx_array_is_read_as_written(tmp_path):
    path = tmp_path / "array.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02" + struct.pack(">2I", 2, 3) + bytes(range(6))))
    assert np.array_equal(read_idx(path), np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("size", [-1, 60_000])
def test_impossible_validation_sizes_are_refused(common, size):
    with pytest.raises(ValueError, match=rf"data\.validation_size must be an integer in 0 \.\.\. 59999, got {size}"):
        MNIST(root="nowhere", validation_size=size, **common)


def test_a_train_size_beyond_the_train_part_is_refused_before_loading(common):
    with pytest.raises(ValueError, match=r"data\.train_size must be <= 50000, got 50001"):
        MNIST(root="nowhere", validation_size=10_000, **common | {"train_size": 50_001})


@pytest.mark.parametrize(
    ("shape", "num"), [((60_000, 28, 28), 2**28), ((2**32 - 1,), 2**28), ((2**32 - 1,) * 255, 10), ((2,), 2**28)]
)
def test_a_packed_file_is_not_unpacked_beyond_what_mnist_has(tmp_path, shape, num, monkeypatch):
    path = tmp_path / "bomb.gz"
    with gzip.GzipFile(path, "wb", compresslevel=1) as file:
        file.write(b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
        for _ in range(max(1, num // 2**20)):
            file.write(bytes(min(num, 2**20)))
    unpacked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda file, size: unpacked.append(size) or read(file, size))
    with pytest.raises(ValueError, match=r"bomb\.gz is truncated, corrupt"):
        read_idx(path)
    assert sum(unpacked) < 5e7
