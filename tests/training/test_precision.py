"""What a training computes in: bfloat16 only where that is native and faster, and it is said."""

import pytest
import torch
from training import train_more, train_tiny

from vae_lab.errors import ConfigError
from vae_lab.training import machine, precision
from vae_lab.training.precision import choose_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A machine of which nothing is known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(monkeypatch, *, native: bool, ratio: float) -> None:
    monkeypatch.setattr(precision, "is_native", lambda device: native)
    monkeypatch.setattr(precision, "speed_ratio", lambda: ratio)


@pytest.mark.parametrize(
    ("native", "ratio", "chosen"),
    [(True, 1.5, "bf16-mixed"), (True, 1.05, "32-true"), (True, 0.5, "32-true"), (False, 1.5, "32-true")],
)
def test_auto_takes_bfloat16_where_it_is_native_and_faster(monkeypatch, caplog, native, ratio, chosen):
    caplog.set_level("INFO", logger="vae_lab")
    found(monkeypatch, native=native, ratio=ratio)
    assert choose_precision("auto", CPU) == chosen
    assert f"precision: {chosen}" in caplog.text
    found(monkeypatch, native=native, ratio=99.0)
    assert choose_precision("auto", CPU) == chosen  # measured once


@pytest.mark.parametrize(("ratio", "warns"), [(0.1, True), (1.3, False)])
def test_bfloat16_that_was_asked_for_and_is_slower_gets_a_warning_with_the_factor(monkeypatch, caplog, ratio, warns):
    found(monkeypatch, native=False, ratio=ratio)
    assert choose_precision("bf16-mixed", CPU) == "bf16-mixed"
    assert ("takes 10.0 times as long as 32-true" in caplog.text) == warns


def test_float32_measures_nothing(monkeypatch):
    monkeypatch.setattr(precision, "speed_ratio", lambda: 1 / 0)
    assert choose_precision("32-true", CPU) == "32-true"
    with pytest.raises(ConfigError, match="must be 32-true, bf16-mixed or auto, got '16-mixed'"):
        choose_precision("16-mixed", CPU)


def test_measuring_finds_a_ratio():
    state = torch.get_rng_state()
    assert 0.001 < precision.speed_ratio(repeats=1) < 100
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("flags", "native"), [(["avx2"], False), (["avx512_bf16"], True), (["amx_bf16"], True)])
def test_native_is_what_the_processor_says(monkeypatch, flags, native):
    monkeypatch.setattr(precision, "instructions", lambda: flags)
    assert precision.is_native(CPU) == native


def test_instructions_are_those_of_this_processor():
    assert machine.instructions() == sorted(machine.instructions())
    assert machine.busy_cores(0.02) >= 0


@pytest.mark.slow
def test_a_run_stays_with_the_precision_that_it_began_with(tmp_path, monkeypatch):
    found(monkeypatch, native=True, ratio=2.0)
    run = train_tiny(tmp_path / "run", "trainer.precision=auto", "max_samples=300")
    assert run.read_record()["precision"] == "bf16-mixed"
    found(monkeypatch, native=False, ratio=0.1)
    train_more(run.path, "max_samples=600")
    assert run.read_record()["precision"] == "bf16-mixed"
    assert run.read_config()["trainer"]["precision"] == "auto"
