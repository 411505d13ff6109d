"""Ctrl-C, a signal of the terminal or the cluster, or the death of its sweep end a training after a checkpoint."""

import os
import threading
from typing import Any

import pytorch_lightning as pl

from vae_lab.training.lit_module import LitVAE
from vae_lab.training.signals import PARENT, STOP


class StopOnSignal(pl.Callback):
    """Ends a training at the end of a block once that is wished for.

    Outside the main thread, where Python lets nobody listen, only the death of the parent is noticed.
    """

    listens = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listens from the first block on (Lightning has set its own handlers by then)."""
        self.listens = threading.current_thread() is threading.main_thread()
        if self.listens:
            STOP.listen()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Stops all ranks at the same block."""
        orphaned = trainer.is_global_zero and os.environ.get(PARENT, str(os.getppid())) != str(os.getppid())
        if trainer.strategy.reduce_boolean_decision(STOP.received or orphaned, all=False):
            pl_module.interrupted = pl_module.samples < pl_module.max_samples
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the handlers back that were there before."""
        if self.listens:
            STOP.ignore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Puts the handlers back that were there before."""
        self.on_train_end(trainer, pl_module)
