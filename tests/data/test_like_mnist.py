"""Fashion-MNIST, KMNIST and EMNIST from files in their format, which the tests write: there is no network."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import FashionMNIST

from vae_lab.data.like_mnist import LikeMNIST
from vae_lab.errors import ConfigError, MissingFile

SIZES = {"train": 30, "test": 10}
FILES = {
    "fashion_mnist": ("FashionMNIST", {"train": "train", "test": "t10k"}),
    "kmnist": ("KMNIST", {"train": "train", "test": "t10k"}),
    "emnist_balanced": ("EMNIST", {part: f"emnist-balanced-{part}" for part in SIZES}),
    "emnist_letters": ("EMNIST", {part: f"emnist-letters-{part}" for part in SIZES}),
}
PIXELS = {part: np.random.default_rng(num).integers(0, 256, (num, 28, 28), np.uint8) for part, num in SIZES.items()}


def write(root: Path, name: str) -> Path:
    """The four files, as torchvision leaves them; the labels of a part are 1, 2, 3, 1, ..."""
    folder, prefixes = FILES[name]
    (root / folder / "raw").mkdir(parents=True)
    for part, prefix in prefixes.items():
        images, labels = PIXELS[part], (np.arange(len(PIXELS[part])) % 3 + 1).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (root / folder / "raw" / f"{prefix}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return root / folder / "raw"


@pytest.mark.parametrize(("name", "label"), [("fashion_mnist", "Trouser"), ("kmnist", "ki"), ("emnist_letters", "a")])
def test_files_as_torchvision_leaves_them_keep_the_contract(tmp_path, common, check_contract, name, label):
    write(tmp_path, name)
    make = lambda: LikeMNIST(dataset=name, root=str(tmp_path), validation_size=5, **common)  # noqa: E731
    check_contract(make, {"train": 25, "val": 5, "test": 10}, labelled={"train", "val", "test"})
    data = make()
    labels = data.splits["train"].labels
    assert labels is not None and data.class_names[int(labels[0])] == label
    upright = data.splits["test"].images[:, 0] * 255
    stored = torch.from_numpy(PIXELS["test"]).float()
    assert torch.equal(upright.round(), stored.transpose(1, 2) if name.startswith("emnist") else stored)


def test_balanced_letters_have_47_classes_and_all_may_train(tmp_path, common):
    write(tmp_path, "emnist_balanced")
    data = LikeMNIST(dataset="emnist_balanced", root=str(tmp_path), validation_size=0, **common)
    assert list(data.splits) == ["train", "test"] and len(data.class_names) == 47
    too_many = LikeMNIST(dataset="emnist_balanced", root=str(tmp_path), validation_size=30, **common)
    with pytest.raises(ConfigError, match=r"data\.validation_size must be < 30, got 30"):
        _ = too_many.splits


def test_missing_and_damaged_files_are_named(tmp_path, common, monkeypatch):
    monkeypatch.setattr(FashionMNIST, "mirrors", ["file:///nowhere/"])
    make = lambda: LikeMNIST(dataset="fashion_mnist", root=str(tmp_path), validation_size=0, **common)  # noqa: E731
    with pytest.raises(MissingFile, match=r"FashionMNIST/raw must hold the files .*VAE_LAB_DATA"):
        _ = make().splits
    (tmp_path / "FashionMNIST" / "raw").rmdir()
    file = write(tmp_path, "fashion_mnist") / "t10k-images-idx3-ubyte"
    for content in (b"<html>" * 9, file.read_bytes()[:5000]):
        file.write_bytes(content)
        with pytest.raises(MissingFile, match=r"FashionMNIST/raw must hold .* or are damaged"):
            _ = make().splits
