import signal
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from vae_lab.callbacks.stop_on_signal import StopOnSignal
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.signals import STOPPING, as_ctrl_c

NUMBERS = tuple(STOPPING)


@pytest.fixture
def parts() -> Any:
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trainer, lit = Mock(spec=pl.Trainer), Mock(spec=LitVAE)
    trainer.should_stop, lit.samples, lit.max_samples, lit.interrupted = False, 100, 1000, False
    trainer.strategy = Mock(reduce_boolean_decision=lambda decision, all: decision)
    yield trainer, lit
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_stops_the_training_at_the_next_block(parts: Any, number):
    trainer, lit = parts
    callback = StopOnSignal()
    callback.on_train_start(trainer, lit)
    callback.on_train_batch_end(trainer, lit)
    assert not trainer.should_stop
    signal.raise_signal(number)
    assert not trainer.should_stop
    callback.on_train_batch_end(trainer, lit)
    assert trainer.should_stop and lit.interrupted


def test_a_second_ctrl_c_is_the_systems_own(parts: Any):
    callback = StopOnSignal()
    callback.on_train_start(*parts)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_in_the_last_block_interrupts_nothing(parts: Any):
    trainer, lit = parts
    callback = StopOnSignal()
    callback.on_train_start(trainer, lit)
    lit.samples = lit.max_samples
    signal.raise_signal(signal.SIGTERM)
    callback.on_train_batch_end(trainer, lit)
    assert not lit.interrupted


@pytest.mark.parametrize("ends_well", [True, False])
def test_handlers_of_before_are_put_back(parts: Any, ends_well):
    before = {number: signal.getsignal(number) for number in NUMBERS}
    callback = StopOnSignal()
    callback.on_exception(parts[0], parts[1], RuntimeError())  # before the start
    callback.on_train_start(*parts)
    signal.raise_signal(signal.SIGTERM)
    if ends_well:
        callback.on_train_end(*parts)
    else:
        callback.on_exception(parts[0], parts[1], RuntimeError())
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def test_a_signal_that_is_ignored_stays_ignored(parts: Any):
    trainer, lit = parts
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    callback = StopOnSignal()
    callback.on_train_start(trainer, lit)
    signal.raise_signal(signal.SIGHUP)
    callback.on_train_batch_end(trainer, lit)
    assert not trainer.should_stop


@pytest.mark.parametrize("number", NUMBERS)
def test_outside_of_the_blocks_every_signal_is_a_ctrl_c(number):
    ours = signal.signal(number, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), as_ctrl_c():
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL
    signal.signal(number, ours)
