import sys
import time
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from vae_lab.callbacks.bound_curve import BoundCurve
from vae_lab.callbacks.progress import Progress, is_shown
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.beta_vae import BetaVAE
from vae_lab.training.lit_module import LitVAE

BETA: dict[str, Any] = {"beta": 4.0, "kl": "closed_form", "num_samples": 1, "kl_warmup_samples": 0}


@pytest.fixture
def parts() -> Any:
    trainer, lit = Mock(spec=pl.Trainer), Mock(spec=LitVAE)
    trainer.is_global_zero, trainer.callbacks = True, [Mock(spec=BoundCurve, num_samples=1, seconds=0.0)]
    lit.samples, lit.max_samples = 500, 10_000
    lit.model, lit.objective = Mock(has_encoder=True), AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=0)
    lit.latest = {"train/bound_running": -91.234, "val/bound": -92.5, "val/kl": 7.0, "learning_rate": 1e-3}
    return trainer, lit


def test_a_line_per_evaluation_says_samples_bounds_speed_and_time_left(parts: Any, caplog):
    trainer, lit = parts
    progress = Progress()
    progress.on_train_start(trainer, lit)
    progress.on_train_batch_end(trainer, lit)
    with caplog.at_level("INFO", "vae_lab"):
        progress.on_evaluation(trainer, lit, 1500)
    progress.on_train_end(trainer, lit)
    (line,) = caplog.messages
    assert "1,500 samples  bound: val -92.50  running mean -91.23 nats" in line
    assert line.endswith("samples/s")  # of too short a time to say how much is left


def test_time_left_counts_neither_the_first_steps_nor_evaluations(parts: Any, caplog, monkeypatch):
    trainer, lit = parts
    now, progress = [0.0], Progress()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lit.samples = 0
    progress.on_train_start(trainer, lit)
    with caplog.at_level("INFO", "vae_lab"):
        for samples, seconds, evaluation in ((100, 9.0, 0.0), (600, 1.0, 7.0), (1600, 2.0, 5.0), (2600, 2.0, 5.0)):
            progress.on_train_batch_start(trainer, lit)
            lit.samples = samples
            trainer.callbacks[0].seconds += evaluation
            now[0] += seconds + evaluation
            progress.on_train_batch_end(trainer, lit)
            if evaluation:
                progress.on_evaluation(trainer, lit, samples)
                now[0] += 3.0  # pictures
    progress.on_train_end(trainer, lit)
    ends = [line.split("nats")[1].split() for line in caplog.messages]
    assert ends == [f"500 samples/s {(10_000 - done) / 500:.0f} s left".split() for done in (600, 1600, 2600)]


def test_several_draws_of_z_are_said_once(parts: Any, caplog):
    trainer, lit = parts
    trainer.callbacks[0].num_samples = 8
    lit.latest["test/bound"] = -93.0
    progress = Progress()
    progress.on_train_start(trainer, lit)
    with caplog.at_level("INFO", "vae_lab"):
        progress.on_evaluation(trainer, lit, 1500)
    progress.on_train_end(trainer, lit)
    assert "bound (8 draws of z): test -93.00  val -92.50  running mean (1 draw of z) -91.23 nats" in caplog.messages[0]


def test_bound_of_a_training_with_another_loss_says_so(parts: Any, caplog):
    trainer, lit = parts
    lit.objective = BetaVAE(**BETA)
    progress = Progress()
    progress.on_train_start(trainer, lit)
    with caplog.at_level("INFO", "vae_lab"):
        progress.on_evaluation(trainer, lit, 1500)
    progress.on_train_end(trainer, lit)
    assert "bound (trained with beta 4): val -92.50" in caplog.messages[0]


def test_only_the_first_process_reports(parts: Any, caplog):
    trainer, lit = parts
    trainer.is_global_zero = False
    progress = Progress()
    progress.on_train_start(trainer, lit)
    with caplog.at_level("INFO", "vae_lab"):
        progress.on_evaluation(trainer, lit, 1500)
    assert not caplog.messages


def test_a_bar_is_shown_on_a_terminal_only(parts: Any, monkeypatch):
    trainer, lit = parts
    assert not is_shown(trainer)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert is_shown(trainer)
    progress = Progress()
    progress.on_train_start(trainer, lit)
    lit.samples = 1500
    progress.on_train_batch_end(trainer, lit)
    task = progress.bar.tasks[0]
    assert (task.completed, task.total) == (1500, 10_000)
    assert task.description.startswith("bound: running mean -91.23  1,500 samples")
    trainer.callbacks[0].num_samples, lit.objective = 8, BetaVAE(**BETA)
    progress.on_train_batch_end(trainer, lit)
    said = "bound (trained with beta 4): running mean (1 draw of z) -91.23  "
    assert progress.bar.tasks[0].description.startswith(said)
    progress.on_exception(trainer, lit, RuntimeError())
    assert not progress.bar.live.is_started
    trainer.is_global_zero = False
    assert not is_shown(trainer)


def test_an_exception_before_the_start_is_no_trouble(parts: Any):
    Progress().on_exception(parts[0], parts[1], RuntimeError())
