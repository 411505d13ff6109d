"""The classic example: torchvision's MNIST, item by item through a picture and `ToTensor`, in a `DataLoader`."""

import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from benchmarks.conditions import Conditions
from benchmarks.hand_written import HandWritten, Loss, Networks


class ItemByItem(HandWritten):
    """The hand-written loop, its minibatches collected from single items by the process that trains."""

    def __init__(
        self, name: str, networks: Callable[[], Networks], loss: Loss, images: Tensor, conditions: Conditions
    ) -> None:
        super().__init__(name, networks, loss, images, conditions)
        self.loader = DataLoader(Pictures(images), batch_size=self.unit, shuffle=True, num_workers=0)

    def work(self, amount: int) -> float:
        """So many samples."""
        started = time.perf_counter()
        left = amount // self.unit
        while left > 0:
            for x in self.loader:
                self.step(x.to(self.conditions.device))
                left -= 1
                if left == 0:
                    break
        self.conditions.synchronize()
        return time.perf_counter() - started


class Pictures(Dataset[Tensor]):
    """What torchvision's MNIST does for an item, without its labels: bytes -> picture -> tensor in [0, 1]."""

    def __init__(self, images: Tensor) -> None:
        self.bytes = (images.squeeze(1) * 255).round().to(torch.uint8)
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.bytes[index].numpy()))
