"""`compile=auto`: decided from what a training takes and what compiling takes, and kept in the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from training import TINY, composed, train_more, train_tiny

from vae_lab.jobs import execute, settle
from vae_lab.jobs.assemble import assemble
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import frozen_config


@pytest.fixture
def assembled(tmp_path):
    """A training of 1,200 steps of 50 datapoints."""
    with composed("train", *TINY, "trainer.max_epochs=200") as cfg:
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        yield assemble(frozen_config(config), RunDir(tmp_path / "run"))
    torch.set_num_threads(1)


def times(monkeypatch, *, step: float, cold: float, is_there: bool = False) -> None:
    monkeypatch.setattr(settle, "seconds_of_step", lambda *_: step)
    monkeypatch.setattr(settle, "cold_seconds", lambda: cold)
    path = Path(__file__) if is_there else Path("nowhere")
    monkeypatch.setattr(settle, "compiled_file", lambda *_: path)


@pytest.mark.parametrize(
    ("threads", "step", "cold", "is_there", "chosen", "words"),
    [
        (1, 0.001, 10.0, False, False, "compile: no"),  # 1.2 s
        (1, 0.001, 10.0, True, False, "whole training takes about 1 s without"),
        (1, 0.01, 10.0, True, 0, "by the step that was compiled before"),
        (1, 0.01, 10.0, False, False, "12 s without"),  # 12 s, 10 of which would be compiling
        (1, 0.1, 10.0, False, 0, "from the start; the training takes about 120 s without"),
        (2, 0.1, 10.0, False, 5000, "from 5,000 samples on"),  # 100 steps meanwhile
        (2, 0.1, 1000.0, False, False, "compile: no"),
    ],
)
def test_auto_compiles_where_that_saves_time(
    assembled, monkeypatch, caplog, threads, step, cold, is_there, chosen, words
):
    caplog.set_level("INFO", logger="vae_lab")
    torch.set_num_threads(threads)
    times(monkeypatch, step=step, cold=cold, is_there=is_there)
    found = settle.choose_compile(assembled, 0)
    assert found == chosen and isinstance(found, bool) == isinstance(chosen, bool)
    assert words in caplog.text and torch.get_num_threads() == threads


def test_trying_the_speed_changes_neither_weights_nor_noise(assembled):
    lit = assembled.lit
    before = [tensor.clone() for tensor in (*lit.parameters(), torch.get_rng_state())]
    eager, batch = settle.trial(lit)
    assert settle.seconds_of_step(eager, batch) > 0
    assert all(map(torch.equal, before, (*lit.parameters(), torch.get_rng_state())))
    assert eager.model is not lit.model


@pytest.mark.slow
def test_a_run_keeps_what_auto_decided_and_a_short_one_trains_eagerly(tmp_path):
    run = train_tiny(tmp_path / "run", "max_samples=300")
    assert run.read_config()["compile"] is False
    train_more(run.path, "max_samples=600")
    assert run.read_config()["compile"] is False


@pytest.mark.parametrize(("busy", "threads", "warns"), [(1.6, 2, True), (0.3, 2, False), (1.6, 1, False)])
def test_a_busy_machine_is_named_with_the_advice(monkeypatch, caplog, busy, threads, warns):
    monkeypatch.setattr(execute, "busy_cores", lambda: busy)
    monkeypatch.setattr(execute, "os", SimpleNamespace(cpu_count=lambda: 2))
    execute.warn_if_busy(threads)
    assert ("others use 1.6 of the 2 cores" in caplog.text and "threads=1 shares" in caplog.text) == warns


def test_a_step_that_fails_is_left_to_the_training_which_records_it(assembled, monkeypatch):
    def fail(*_):
        raise RuntimeError("of an objective of one's own")

    monkeypatch.setattr(assembled.lit.objective, "updates", fail)
    assert settle.choose_compile(assembled, 0) is False
