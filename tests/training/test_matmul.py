"""The library behind float32 products: accuracy before speed, decided once, kept in the run."""

import json

import pytest

from vae_lab.atomic import write_json
from vae_lab.errors import ConfigError
from vae_lab.training import machine, matmul
from vae_lab.training.matmul import MKLDNN, choose_backend, is_exact, product, use_backend


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache and a process that have measured nothing yet; the process's backend comes back afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choose_backend.cache_clear()
    before = MKLDNN.matmul.fp32_precision
    yield
    MKLDNN.matmul.fp32_precision = before
    choose_backend.cache_clear()


def measured(monkeypatch, *, exact: bool, speed_ratio: float) -> None:
    monkeypatch.setattr(matmul, "is_exact", lambda: exact)
    monkeypatch.setattr(matmul, "speed_ratio", lambda: speed_ratio)


@pytest.mark.parametrize(
    ("exact", "speed_ratio", "chosen"),
    [(True, 2.0, "onednn"), (True, 1.2, "onednn"), (True, 1.19, "default"), (False, 2.0, "default")],
)
def test_auto_asks_for_accuracy_first_then_for_a_fifth_more_speed(monkeypatch, exact, speed_ratio, chosen):
    measured(monkeypatch, exact=exact, speed_ratio=speed_ratio)
    assert choose_backend("auto") == chosen


def test_measurement_is_made_once_a_machine(monkeypatch, tmp_path):
    measured(monkeypatch, exact=True, speed_ratio=1.5)
    assert choose_backend("auto") == "onednn"
    (entry,) = json.loads((tmp_path / "vae_lab" / "matmul.json").read_text()).values()
    assert entry == {"exact": True, "speed_ratio": 1.5}
    choose_backend.cache_clear()
    measured(monkeypatch, exact=False, speed_ratio=0.5)
    assert choose_backend("auto") == "onednn"


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", '{"KEY": 3}', '{"KEY": {"exact": true}}', '{"KEY": {"exact": 1, "speed_ratio": "x"}}']
)
def test_a_damaged_cache_is_measured_anew_and_replaced(monkeypatch, tmp_path, damaged):
    measured(monkeypatch, exact=True, speed_ratio=1.5)
    monkeypatch.setattr(machine, "processor", lambda: "this one")
    path = tmp_path / "vae_lab" / "matmul.json"
    path.parent.mkdir()
    path.write_text(damaged.replace("KEY", f"this one, torch {matmul.torch.__version__}"))
    assert choose_backend("auto") == "onednn"
    assert list(json.loads(path.read_text()).values()) == [{"exact": True, "speed_ratio": 1.5}]


def test_a_user_without_a_home_keeps_no_measurement(monkeypatch, tmp_path, caplog):
    measured(monkeypatch, exact=True, speed_ratio=1.5)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert choose_backend("auto") == "onednn"
    assert not list(tmp_path.iterdir())


def test_processes_that_measure_at_once_keep_each_others_entries(monkeypatch, tmp_path):
    measured(monkeypatch, exact=True, speed_ratio=1.5)
    path = tmp_path / "vae_lab" / "matmul.json"

    def meanwhile() -> float:
        write_json(path, {"another processor": {"exact": True, "speed_ratio": 1.0}})
        return 1.5

    monkeypatch.setattr(matmul, "speed_ratio", meanwhile)
    assert choose_backend("auto") == "onednn"
    assert len(json.loads(path.read_text())) == 2


def test_both_backends_compute_in_float32_or_onednn_is_known_not_to():
    x, weight = matmul.matrices()
    exact = x.double() @ weight.double()
    worst = {name: float((product(name, x, weight) - exact).abs().max() / exact.abs().max()) for name in matmul.SWITCH}
    assert worst["default"] < 2e-6
    assert (worst["onednn"] < 1e-5) == is_exact()


def test_measuring_finds_a_ratio_and_leaves_the_backend_alone():
    use_backend("default")
    assert 0.05 < matmul.speed_ratio(repeats=1) < 20
    assert MKLDNN.matmul.fp32_precision == "none"


def test_onednn_is_refused_and_not_used_where_it_rounds_to_bfloat16(monkeypatch, caplog):
    measured(monkeypatch, exact=False, speed_ratio=2.0)
    with pytest.raises(ConfigError, match=r"must be default on this processor, got onednn.*bf16-mixed"):
        choose_backend("onednn")
    use_backend("onednn")
    assert MKLDNN.matmul.fp32_precision == "none"
    assert "default is used instead" in caplog.text


def test_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="must be one of auto, default, onednn, got 'mkl'"):
        choose_backend("mkl")
