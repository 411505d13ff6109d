"""Early stopping by the validation bound; a function of the curve on disk, so that it survives a restart."""

from pathlib import Path

import pytorch_lightning as pl

from vae_lab.curve import read_rows
from vae_lab.lit_module import LitVAE


class EarlyStopping(pl.Callback):
    """Stops where the validation bound has not risen by `min_delta` nats in `patience` evaluations.

    Args:
        patience: evaluations to wait for a better one; null: never stop early.
        min_delta: a rise by less than this many nats does not count.
        curve: the CSV file of the evaluations.
    """

    def __init__(self, *, patience: int | None, min_delta: float, curve: Path) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"early_stopping.patience must be >= 1 or null, got {patience}: null switches it off")
        if min_delta < 0:
            raise ValueError(f"early_stopping.min_delta must be >= 0, got {min_delta}: it is a rise in nats")
        self.patience, self.min_delta, self.curve = patience, min_delta, curve

    def on_fit_start(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuses a data set without a validation part."""
        if self.patience is not None and "val" not in pl_module.data.parts:
            raise ValueError(
                "early_stopping.patience needs a validation part, and the data set has none: "
                "set data.validation_size or early_stopping.patience=null"
            )

    def on_evaluation(self, trainer: pl.Trainer, lit: LitVAE, samples: int) -> None:
        """Stops all ranks together."""
        if self.patience is None:
            return
        bounds = [row["val/bound"] for row in read_rows(self.curve)] if trainer.is_global_zero else []
        if trainer.strategy.broadcast(self.is_over(bounds)):
            lit.stopped_early = True
            trainer.should_stop = True

    def is_over(self, bounds: list[float]) -> bool:
        """Whether the last rise lies `patience` evaluations or more before the end."""
        best, last_rise = float("-inf"), 0
        for i, bound in enumerate(bounds):
            if bound > best + self.min_delta:
                best, last_rise = bound, i
        return self.patience is not None and len(bounds) - 1 - last_rise >= self.patience
