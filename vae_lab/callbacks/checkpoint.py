"""Checkpoints: last.ckpt to continue from, best.ckpt by the validation bound, at/<samples>.ckpt snapshots."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vae_lab.atomic import atomic_file, give_name
from vae_lab.errors import DIVERGED, ConfigError, NonFiniteDensity, require_number
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import fixed_hash
from vae_lab.runs.load import best_bound, read_checkpoint
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.marks import is_passed


class Checkpoint(pl.Callback):
    """Saves at every evaluation, at the counts `at`, and at least every `every_seconds`.

    Args:
        at: counts of training samples at which weights-only snapshots are kept.
        every_seconds: the longest time between two saves of last.ckpt.
        run: whose they are.
    """

    def __init__(self, *, at: list[int], every_seconds: float, run: RunDir) -> None:
        if any(count < 1 for count in at):
            raise ConfigError(f"checkpoint.at must hold counts >= 1, got {at}: they are training samples")
        require_number("checkpoint.every_seconds", every_seconds)
        self.at, self.every_seconds, self.run = sorted(at), every_seconds, run

    def next_mark(self, samples: int) -> int | None:
        """The next count at which a snapshot is due."""
        return min((count for count in self.at if count > samples), default=None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock, and takes the score to beat from best.ckpt itself."""
        self.saved_at, self.saved_samples = time.monotonic(), pl_module.samples
        self.best_bound = best_bound(self.run)
        self.snapshot_at = 0

    def on_evaluation(self, trainer: pl.Trainer, lit: LitVAE, samples: int) -> None:
        """Saves; the best so far is written once, for both names.

        `best` comes first, so that a kill in between repeats this evaluation instead of forgetting it.
        """
        self.save_snapshot(trainer, lit)
        bound = lit.latest.get("val/bound")
        if bound is None or bound <= self.best_bound:
            self.save(trainer, lit, self.run.last)
            return
        self.best_bound, best = bound, self.run.best
        if trainer.is_global_zero:
            self.run.drop_ledger("last")  # before there is a best: the ledger read by default is then last's
            if best.is_file():
                give_name(best, self.run.best_before)
        self.save(trainer, lit, best)
        if trainer.is_global_zero:
            give_name(best, self.run.last)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Saves a snapshot that is due, and last.ckpt where the last save was long ago or the training stops."""
        lit = pl_module
        self.save_snapshot(trainer, lit)
        overdue = time.monotonic() - self.saved_at > self.every_seconds
        if trainer.strategy.reduce_boolean_decision(overdue or trainer.should_stop, all=False):
            self.save(trainer, lit, self.run.last)

    def on_train_end(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Saves what another callback, after this one, has ended."""
        if self.saved_samples < pl_module.samples < pl_module.max_samples:
            self.save(trainer, pl_module, self.run.last)

    def save_snapshot(self, trainer: pl.Trainer, lit: LitVAE) -> None:
        """The weights alone, where the block just run reached a count of `at`."""
        is_due = is_passed(self.next_mark(lit.block_start), lit.block_start, lit.samples)
        if is_due and lit.samples != self.snapshot_at:  # not by looking for the file: ranks would see it or not
            self.snapshot_at = lit.samples
            trainer.save_checkpoint(self.run.snapshot_path(lit.samples), weights_only=True)

    def save(self, trainer: pl.Trainer, lit: LitVAE, file: Path) -> None:
        """Everything that continues the run; events are on disk before it."""
        if not all(parameter.isfinite().all() for parameter in lit.parameters()):
            raise NonFiniteDensity(f"a weight became non-finite by {lit.samples:,} samples: {DIVERGED}")
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(file, weights_only=False)
        self.saved_at, self.saved_samples = time.monotonic(), lit.samples


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written so that a kill never leaves half of one, and known as this run's.

    Args:
        run: whose files they are; nothing is written where it has gone.
        config: of the run; None: its checkpoints may be any run's.
    """

    def __init__(self, run: RunDir, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.run, self.config = run, config

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Replaces `path` once the new file is whole and on disk; what was measured with the old weights goes."""
        self.run.require_whole()
        if self.config is not None:
            checkpoint["vae_lab"]["identity"] = fixed_hash(self.config)
        self.run.drop_ledger(Path(path).stem)
        with atomic_file(path) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """The content, with its tensors on the CPU; Lightning moves them."""
        return read_checkpoint(Path(path), self.config)
