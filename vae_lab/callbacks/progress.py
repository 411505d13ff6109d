"""Progress: bound in nats, samples per second and time left; plain lines where there is no terminal."""

import logging
import time
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vae_lab.callbacks.bound_curve import BoundCurve
from vae_lab.runs.result import draws_of_z, loss_of, other_draws, results, trained_with
from vae_lab.training.lit_module import LitVAE

log = logging.getLogger("vae_lab")

BRIEF = 0.5
"""Seconds of training after which the time that is left is known well enough."""


class Progress(pl.Callback):
    """A line for every evaluation, and on a terminal a bar below them."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts clock and bar."""
        self.started, self.samples = time.monotonic(), pl_module.samples
        self.since: tuple[float, int] | None = (self.started, self.samples)
        """When the training went on after the last line, and with how many samples."""
        self.blocks, self.seconds = 0, 0.0
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=Console(stderr=True), disable=not is_shown(trainer), transient=True)
        self.task = self.bar.add_task("", total=pl_module.max_samples, completed=pl_module.samples)
        self.bar.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock of a line: behind evaluations, and behind the first steps, which make libraries ready."""
        self.blocks += 1
        if self.since is None or self.blocks == 2:
            self.since = (time.monotonic(), pl_module.samples)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves the bar, which draws itself a few times per second."""
        if self.bar.disable:
            return
        lit = pl_module
        speed = (lit.samples - self.samples) / (time.monotonic() - self.started)
        bound = f"bound{trained_by(lit)}: {mean}  " if (mean := running_mean(trainer, lit)) else ""
        text = f"{bound}{lit.samples:,} samples  {speed:,.0f}/s"
        self.bar.update(self.task, completed=lit.samples, description=text)

    def on_evaluation(self, trainer: pl.Trainer, lit: LitVAE, samples: int) -> None:
        """One line: samples, the bound of every split in nats, speed."""
        if not trainer.is_global_zero:
            return
        curve = curve_of(trainer)
        since, before = self.since or (self.started, self.samples)
        training = time.monotonic() - since - (curve.seconds - self.seconds)
        speed = (samples - before) / max(training, 1e-9)
        is_known = self.blocks > 1 and training >= BRIEF
        left = f"  {(lit.max_samples - samples) / speed:4.0f} s left" if is_known and speed else ""
        self.since, self.seconds = None, curve.seconds
        values = [f"{result.key.partition('/')[0]} {result.value:.2f}" for result in results(lit.latest)]
        values += filter(None, [running_mean(trainer, lit)])
        what = f"bound{draws_of_z(curve.num_samples)}{trained_by(lit)}" if lit.model.has_encoder else "log p(x)"
        values = f"{what}: {'  '.join(values)} nats"
        log.info("%11s samples  %s  %6.0f samples/s%s", f"{samples:,}", values, speed, left)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the bar away."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Takes the bar away."""
        if hasattr(self, "bar"):
            self.bar.stop()


def curve_of(trainer: pl.Trainer) -> BoundCurve:
    """What measures the bounds of this training."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, BoundCurve))  # pyright: ignore[reportAttributeAccessIssue]


def trained_by(lit: LitVAE) -> str:
    """The loss in words, where it is not the bound that is shown."""
    return trained_with(loss_of({"objective": vars(lit.objective)}))


def running_mean(trainer: pl.Trainer, lit: LitVAE) -> str:
    """The running mean of the bound on train, and its draws of z if the bounds have others; empty without a bound."""
    if "train/bound_running" not in lit.latest:
        return ""
    config = {"objective": vars(lit.objective), "evaluation": vars(curve_of(trainer))}
    return f"running mean{other_draws(config)} {lit.latest['train/bound_running']:.2f}"


def is_shown(trainer: pl.Trainer) -> bool:
    """Whether a bar can be drawn: on a terminal, by the first process."""
    return trainer.is_global_zero and Console(stderr=True).is_terminal
