from typing import Any

import torch
from sklearn.datasets import load_digits

from vae_lab.data.digits import Digits


def test_digits_keep_the_contract(common, check_contract):
    sizes = {"train": 1297, "val": 250, "test": 250}
    check_contract(lambda: Digits(**common), sizes, labelled={"train", "val", "test"})


def test_digits_are_the_librarys_over_16(common):
    library: Any = load_digits()
    data = Digits(**common)
    assert data.scale == "x/16"
    for part in data.splits.values():
        rows = part.indices.numpy()
        assert torch.equal(part.images[:, 0] * 16, torch.from_numpy(library.images[rows]).float())
        assert part.labels is not None and torch.equal(part.labels, torch.from_numpy(library.target[rows]).long())


def test_the_split_seed_gives_the_split(common):
    other = Digits(**common | {"split_seed": 1})
    assert other.split_hash != Digits(**common).split_hash
