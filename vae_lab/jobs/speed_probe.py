"""The process that measures how fast trainings are: `python -m vae_lab.jobs.speed_probe TODO KNOWN`, two JSON files."""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from vae_lab.atomic import write_json
from vae_lab.errors import ConfigError, Interrupted, NonFiniteDensity
from vae_lab.jobs.assemble import Assembled, assemble
from vae_lab.jobs.speed import Speed, read_speeds
from vae_lab.runs.directory import RunDir
from vae_lab.training.lit_module import LitVAE
from vae_lab.wiring.dotted import with_values

NEVER = 2**62
"""A count of samples that no training reaches."""


def measure_speed(config: Mapping[str, Any], seconds: float) -> Speed:
    """Trains for `seconds` in a folder that is thrown away, then evaluates once.

    Raises:
        Interrupted: a signal came in between.
    """
    watched_by_nobody = {"callbacks": {}, "logger": None, "evaluation.first": NEVER, "evaluation.every": None}
    config = with_values(config, {"compile": False, "checkpoint.at": [], **watched_by_nobody})
    with tempfile.TemporaryDirectory(prefix="vae-lab-speed-") as folder:
        run = RunDir(Path(folder))
        assembled = assemble(config, run)
        stopwatch = Stopwatch(seconds, assembled)
        assembled.trainer.callbacks.insert(0, stopwatch)  # pyright: ignore[reportAttributeAccessIssue]
        with suppress(NonFiniteDensity):  # as fast as any other
            assembled.trainer.fit(assembled.lit)
        if assembled.lit.interrupted and not stopwatch.is_done:
            raise Interrupted("stopped while the speed was measured: nothing is lost")
    optimizers = assembled.trainer.optimizers
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    tensors = [*assembled.lit.state_dict().values(), *(value for value in states if isinstance(value, torch.Tensor))]
    num_train = len(assembled.data.splits["train"])
    return Speed(
        stopwatch.seconds / max(1, stopwatch.samples),
        stopwatch.evaluation,
        num_train - num_train % assembled.data.batch_size,
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


class Stopwatch(pl.Callback):
    """Stops the training after some seconds; the first block only warms up, unless it takes that long itself."""

    def __init__(self, limit: float, assembled: Assembled) -> None:
        self.limit, self.bound_curve = limit, assembled.evaluation
        self.samples, self.seconds, self.evaluation = 0, 0.0, 0.0
        self.is_done = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: LitVAE) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Starts the clock."""
        self.started, self.first, self.is_warm = time.monotonic(), pl_module.samples, False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: LitVAE, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Reads the clock after a block."""
        if self.is_done:
            return
        now = time.monotonic()
        self.samples, self.seconds = pl_module.samples - self.first, now - self.started
        if self.seconds >= self.limit or pl_module.samples >= pl_module.max_samples:
            self.is_done = trainer.should_stop = True
            started = time.monotonic()
            self.bound_curve.evaluate(trainer, pl_module)
            self.evaluation = time.monotonic() - started
        elif not self.is_warm:
            self.started, self.first, self.is_warm = now, pl_module.samples, True


def main() -> None:
    """Measures trainings one after the other, and adds each to the file of known speeds as it comes."""
    todo, path = map(Path, sys.argv[1:])
    work = json.loads(todo.read_text(encoding="utf-8"))
    known = read_speeds(path)
    logging.disable(logging.INFO)
    for key, config in work["trainings"].items():
        try:
            known[key] = asdict(measure_speed(config, work["seconds"]))
        except (ConfigError, ValueError, OSError, RuntimeError, Interrupted):
            sys.exit(1)  # the training says itself what is wrong, when its turn comes
        write_json(path, known)


if __name__ == "__main__":
    main()
