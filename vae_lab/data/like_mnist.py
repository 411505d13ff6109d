"""Data sets in MNIST's format that torchvision has: Fashion-MNIST, KMNIST and EMNIST, 28 x 28, x/255."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torchvision.datasets import EMNIST, KMNIST, FashionMNIST

from vae_lab.data.arrays import ImageData, Source, cut
from vae_lab.data.files import root_folder, unreadable
from vae_lab.errors import ConfigError, MissingFile, require_choice, require_integer

KINDS: Mapping[str, Callable[..., Any]] = {
    "fashion_mnist": FashionMNIST,
    "kmnist": KMNIST,
    "emnist_balanced": partial(EMNIST, split="balanced"),
    "emnist_letters": partial(EMNIST, split="letters"),
}


class LikeMNIST(ImageData):
    """The published test set; of the others the last `validation_size` validate, the first train.

    Files are read from `root`/FashionMNIST/raw, KMNIST/raw or EMNIST/raw as torchvision leaves them there, not
    compressed, and downloaded by torchvision, with its checksums, if missing.

    Args (keys of `data`, besides those that all data sets have):
        dataset: fashion_mnist, kmnist, emnist_balanced (47 classes) or emnist_letters (26).
        root: the folder of the data sets.
        validation_size: images that validate; 0: none.
    """

    image_shape = (1, 28, 28)
    divisor = 255

    def __init__(self, *, dataset: str, root: str, validation_size: int, **common: Any):
        require_choice("data.dataset", dataset, KINDS)
        require_integer("data.validation_size", validation_size, minimum=0)
        self.name, self.root, self.validation_size = dataset, root_folder(root), validation_size
        super().__init__(**common)

    def load(self) -> Source:
        """Reads or downloads the files of both parts."""
        train, test = (self._part(is_train) for is_train in (True, False))
        self.class_names = train.classes
        num = len(train.data)
        if self.validation_size >= num:
            raise ConfigError(f"data.validation_size must be < {num}, got {self.validation_size}: the others train")
        images = torch.cat([train.data, test.data])
        if self.name.startswith("emnist"):  # whose files have them on their sides
            images = images.transpose(1, 2).contiguous()
        return Source(
            images=images.numpy(),
            labels=torch.cat([train.targets, test.targets]).numpy().astype(np.int64),
            indices=cut(torch.arange(len(images)), val=self.validation_size, test=len(test.data)),
        )

    def _part(self, is_train: bool) -> Any:
        kind = KINDS[self.name]
        folder = self.root / getattr(kind, "func", kind).__name__ / "raw"
        try:
            part = kind(self.root, train=is_train, download=True)
        except (RuntimeError, OSError, AssertionError, ValueError, LookupError) as error:  # torchvision's, of all kinds
            raise MissingFile(
                f"data.root: {folder} must hold the files of {self.name}, unpacked, and they are missing and cannot "
                f"be downloaded, or are damaged ({' '.join(str(error).split()) or 'no IDX array'}): put torchvision's "
                "there by hand, or set data.root (or the environment variable VAE_LAB_DATA) to a folder that has them "
                "at the same place below"
            ) from error
        if part.data.shape[1:] != (28, 28) or len(part.data) != len(part.targets):
            shapes = f"{tuple(part.data.shape)} with {len(part.targets)} labels"
            raise unreadable(folder, f"its images are {shapes}, expected 28 x 28, each with one")
        return part
