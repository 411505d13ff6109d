import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from vae_lab.data.arrays import ImageData, Split


@pytest.fixture
def common() -> dict[str, Any]:
    """The keys that every data set has."""
    return {"batch_size": 5, "binarization": "none", "train_size": None, "split_seed": 0}


@pytest.fixture
def check_contract() -> Callable[..., None]:
    """What holds for every data set, given the sizes of its splits and the names of those with labels."""

    def check(make: Callable[[], ImageData], sizes: dict[str, int], labelled: set[str]) -> None:
        data = make()
        assert {name: len(part) for name, part in data.splits.items()} == sizes
        for name, part in data.splits.items():
            assert part.images.shape == (len(part), *data.image_shape)
            assert part.images.dtype == torch.float32 and part.images.is_contiguous()
            assert part.images.min() >= 0 and part.images.max() <= 1 and part.images.std() > 0
            assert (part.labels is not None) == (name in labelled)
            if part.labels is not None:
                assert part.labels.dtype == torch.int64 and len(part.labels) == len(part)
        indices = torch.cat([part.indices for part in data.splits.values()])
        assert len(indices.unique()) == len(indices)
        assert data.split_hash == make().split_hash and len(data.split_hash) == 12

    return check


@pytest.fixture
def grey_split() -> Split:
    """103 datapoints of 1 x 2 x 3 distinguishable grey pixels."""
    images = torch.linspace(0, 1, 103 * 6).view(103, 1, 2, 3)
    return Split(images, labels=None, indices=torch.arange(103))


@pytest.fixture(scope="session")
def real_root() -> str:
    """The folder of the real data sets."""
    if not os.environ.get("VAE_LAB_DATA"):
        pytest.skip("VAE_LAB_DATA does not name the folder of the real data sets")
    return os.environ["VAE_LAB_DATA"]
