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
        self.totals = {name: total for name, (total, _) in (sums or {}).items()}
        self.counts = {name: count for name, (_, count) in (sums or {}).items()}

    def add(self, sums: Mapping[str, float], count: int) -> None:
        """Adds one minibatch: sums over its `count` datapoints."""
        for name, total in sums.items():
            self.totals[name] = self.totals.get(name, 0.0) + total
            self.counts[name] = self.counts.get(name, 0) + count

    def sums(self, strategy: Strategy) -> dict[str, tuple[float, int]]:
        """Over all ranks: name -> (sum, number of datapoints)."""
        sums = {}
        for name, total in self.totals.items():
            pair = torch.tensor([total, self.counts[name]], dtype=torch.float64, device=strategy.root_device)
            total, count = strategy.reduce(pair, reduce_op="sum").tolist()
            sums[name] = (total, round(count))
        return sums
