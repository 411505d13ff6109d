"""Early stopping by the validation bound; a function of the curve on disk, so that it survives a restart."""

from collections.abc import Collection
from pathlib import Path

import pytorch_lightning as pl

from vae_lab.errors import ConfigError, require_integer, require_number
from vae_lab.runs.curve import read_rows
from vae_lab.training.lit_module import LitVAE


class EarlyStopping(pl.Callback):
    """Stops where the validation bound has not risen by `min_delta` nats in `patience` evaluations.

    Args:
        patience: evaluations to wait for a better one; null: never stop early.
        min_delta: a rise by less than this many nats does not count.
        curve_file: the CSV file of the evaluations.
    """

    def __init__(self, *, patience: int | None, min_delta: float, curve_file: Path) -> None:
        require_integer("early_stopping.patience", patience, minimum=1, optional=True, advice="null switches it off")
        require_number("early_stopping.min_delta", min_delta, at_least=0, advice="it is a rise in nats")
        self.patience, self.min_delta, self.curve_file = patience, min_delta, curve_file

    def check(self, splits: Collection[str], evaluated: Collection[str]) -> None:
        """Refuses to wait for a validation bound that nobody measures.

        Raises:
            ConfigError: the data set has no validation split, or it is not evaluated along the way.
        """
        if self.patience is None:
            return
        if "val" not in splits:
            raise ConfigError(
                f"early_stopping.patience must be null without a validation split, got {self.patience}: the data set "
                "has only a train and a test split; set data.validation_size or early_stopping.patience=null"
            )
        if "val" not in evaluated:
            raise ConfigError(
                f"evaluation.splits must hold val where early_stopping.patience is {self.patience}, "
                f"got {list(evaluated)}: add it or set early_stopping.patience=null"
            )

    def on_evaluation(self, trainer: pl.Trainer, lit: LitVAE, samples: int) -> None:
        """Stops all ranks together."""
        if trainer.strategy.broadcast(trainer.is_global_zero and self.is_over()):
            lit.stopped_early = True
            trainer.should_stop = True

    def is_over(self) -> bool:
        """Whether the curve's last rise lies `patience` evaluations or more before its end."""
        if self.patience is None:
            return False
        bounds = [row["val/bound"] for row in read_rows(self.curve_file)]
        best, last_rise = float("-inf"), 0
        for i, bound in enumerate(bounds):
            if bound > best + self.min_delta:
                best, last_rise = bound, i
        return len(bounds) - 1 - last_rise >= self.patience
