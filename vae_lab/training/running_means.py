"""Means of what is measured during training, since the last evaluation: the paper's train curve."""

from collections.abc import Mapping

import torch
from pytorch_lightning.strategies import Strategy


class RunningMeans:
    """Sums over minibatches, in float64.

    Args:
        sums: to go on from, as `sums` returned them.
    """

    def __init__(self, sums: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.so_far = dict(sums or {})

    def add(self, sums: Mapping[str, float], count: int) -> None:
        """Adds one minibatch: sums over its `count` datapoints."""
        for name, total in sums.items():
            before, presented = self.so_far.get(name, (0.0, 0))
            self.so_far[name] = before + total, presented + count

    def sums(self, strategy: Strategy) -> dict[str, tuple[float, int]]:
        """The sums over all ranks: name -> (sum, number of datapoints)."""
        sums = {}
        for name, so_far in self.so_far.items():
            pair = torch.tensor(so_far, dtype=torch.float64, device=strategy.root_device)
            total, count = strategy.reduce(pair, reduce_op="sum").tolist()
            sums[name] = (total, round(count))
        return sums
