"""The bound against training samples evaluated: the curves of the paper's figure 2."""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from vae_lab.data.arrays import ImageData
from vae_lab.errors import DIVERGED, ConfigError, NonFiniteDensity, require_integer
from vae_lab.estimators.base import Estimator
from vae_lab.measurement import measure_bound, measure_log_likelihood, subset_name, summarise
from vae_lab.model import VAE
from vae_lab.runs.curve import append_row, read_rows
from vae_lab.runs.result import BESIDE
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.marks import is_passed, next_evaluation
from vae_lab.training.running_means import RunningMeans

SPLITS = ("train", "val", "test")
CHARTS = {
    "bound and its terms": {
        name: ["Multiline", [rf"^(train|val|test)/{name}(_running)?$"]] for name in ("bound", "reconstruction", "kl")
    }
}
"""TensorBoard's custom scalars: all splits in one chart."""


class BoundCurve(pl.Callback):
    """Measures the bound at logarithmically spaced counts, writes metrics.csv and TensorBoard, tells the others.

    A model without an encoder has no bound: log p(x) of the first datapoints of each split takes its place.

    Args:
        first: training samples at the first evaluation.
        per_decade: evaluations per factor of ten from there on.
        every: besides, an evaluation at every multiple of this many samples; null: none.
        splits: those that are measured, those of them that the data set has.
        num_samples: draws of z per datapoint of an evaluation.
        num_datapoints: without an encoder, log p(x) is measured on the first so many of each split.
        estimator: what then measures it.
        seed: names the evaluation's noise, which depends on (seed, datapoint) only.
        curve_file: the CSV file.
    """

    def __init__(
        self,
        *,
        first: int,
        per_decade: int,
        every: int | None,
        splits: list[str],
        num_samples: int,
        num_datapoints: int,
        estimator: Estimator,
        seed: int,
        curve_file: Path,
    ) -> None:
        advice = "counts of two significant digits have no more than 90 marks"
        require_integer("evaluation.per_decade", per_decade, minimum=1, maximum=90, advice=advice)
        for key, value in (("first", first), ("num_samples", num_samples), ("num_datapoints", num_datapoints)):
            require_integer(f"evaluation.{key}", value, minimum=1)
        if estimator.needs_encoder or estimator.quantity != "log_likelihood":
            raise ConfigError(
                "evaluation.estimator must measure log p(x) of the data and need no encoder, got "
                f"{type(estimator).__name__}: "
                "choose annealed importance sampling, or another that works where there is no encoder"
            )
        require_integer("evaluation.every", every, minimum=1, optional=True, advice="null switches it off")
        if unknown := set(splits).difference(SPLITS):
            raise ConfigError(f"evaluation.splits must name some of {', '.join(SPLITS)}, got {sorted(unknown)}")
        self.first, self.per_decade, self.every = first, per_decade, every
        self.splits, self.num_samples, self.seed, self.curve_file = splits, num_samples, seed, curve_file
        self.num_datapoints, self.estimator = num_datapoints, estimator
        self.seconds = 0.0  # spent on measuring
        self.written: float | None = None  # samples at the last row

    def next_mark(self, samples: int) -> int:
        """The smallest count above `samples` at which the bound is measured."""
        return next_evaluation(samples, first=self.first, per_decade=self.per_decade, every=self.every)

    def is_mark(self, samples: int, samples_per_step: int) -> bool:
        """Whether a training that counts `samples_per_step` a step evaluates at this count."""
        return is_passed(self.next_mark(samples - samples_per_step), samples - samples_per_step, samples)

    def marks_until(self, samples: int, samples_per_step: int) -> list[int]:
        """The counts up to `samples` at which a training that counts `samples_per_step` a step has evaluated."""
        marks, at = [], 0
        while (at := -(-self.next_mark(at) // samples_per_step) * samples_per_step) <= samples:
            marks.append(at)
        return marks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers where the curve ends."""
        rows = read_rows(self.curve_file) if trainer.is_global_zero else []
        self.written = rows[-1]["samples_evaluated"] if rows else None
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero and not rows:
                logger.experiment.add_custom_scalars(CHARTS)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Evaluates at a mark, and at the end of the budget.

        At an end that is no mark the running means go on, so that a longer run passes through here unchanged.
        """
        lit = pl_module
        is_mark = self.is_mark(lit.samples, lit.samples_per_step)
        if is_mark or lit.samples >= lit.max_samples:
            self.evaluate(trainer, lit)
            if is_mark:
                lit.running = RunningMeans()
            for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
                if hasattr(callback, "on_evaluation"):
                    callback.on_evaluation(trainer, lit, lit.samples)

    def evaluate(self, trainer: pl.Trainer, lit: LitVAE) -> None:
        """One row of the curve, measured over all ranks and written by the first."""
        row: dict[str, float] = {"samples_evaluated": lit.samples}
        for name, (total, count) in lit.running.sums(trainer.strategy).items():
            row[f"train/{name}_running"] = total / count
        per_dimension = {}
        started = time.monotonic()
        for split in [split for split in self.splits if split in lit.data.splits]:
            if not lit.model.has_encoder:
                measured = self.log_likelihood(lit.model, lit.data, split)
                rest = tuple(ending for ending in BESIDE if ending != "_se")  # of the ledger; no curves
                row |= {name: value for name, value in measured.items() if not name.endswith(rest)}
                continue
            sums = measure_bound(
                lit.model,
                lit.images(split),
                num_samples=self.num_samples,
                seed=self.seed,
                rank=lit.global_rank,
                num_ranks=trainer.world_size,
            )
            entries = summarise(trainer.strategy.reduce(sums, reduce_op="sum"), num_samples=self.num_samples)
            for name in ("bound", "reconstruction", "kl", "active_units"):
                row[f"{split}/{name}"] = entries[name]
            per_dimension[f"kl_per_dimension/{split}"] = torch.tensor(entries["kl_per_dimension"])
        self.seconds += time.monotonic() - started
        row["learning_rate"] = lit.learning_rate()
        refuse_non_finite(row)
        lit.latest = row
        if trainer.is_global_zero:
            append_row(self.curve_file, row, after=self.written)
            self.written = lit.samples
            for logger in trainer.loggers:
                values = {name: value for name, value in row.items() if name != "samples_evaluated"}
                if isinstance(logger, TensorBoardLogger):
                    for name, kl in per_dimension.items():
                        logger.experiment.add_histogram(name, kl, global_step=lit.samples)
                else:  # which have no chart for each scalar
                    values |= {
                        f"{name}/{i:03d}": v for name, kl in per_dimension.items() for i, v in enumerate(kl.tolist())
                    }
                logger.log_metrics(values, step=lit.samples)

    def log_likelihood(self, model: VAE, data: ImageData, split: str) -> dict[str, float]:
        """The log p(x) that stands for the bound where there is no encoder, by its names in the ledger."""
        images = data.measured(split).images[: self.num_datapoints]
        name = subset_name(split, len(images), len(data.splits[split]))
        return measure_log_likelihood(model, images, name, self.estimator, seed=self.seed)


def refuse_non_finite(row: dict[str, float | int]) -> None:
    """Stops the training where a measured value is NaN or infinite."""
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        at = f"{row['samples_evaluated']:,} samples"
        raise NonFiniteDensity(f"{', '.join(bad)} became non-finite at {at}: {DIVERGED}")
