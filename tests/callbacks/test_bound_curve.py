import math

import pytest
from training import composed

from vae_lab.callbacks.bound_curve import BoundCurve, refuse_non_finite
from vae_lab.errors import ConfigError, NonFiniteDensity
from vae_lab.wiring import build


def make(tmp_path, *overrides: str) -> BoundCurve:
    settings = [f"evaluation.{override}" for override in ("first=100", *overrides)]
    with composed("train", *settings) as cfg:
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(cfg.evaluation, resolve=True)
    return build.instantiate(config, "evaluation", seed=0, curve_file=tmp_path / "metrics.csv")


def test_marks_are_logarithmic_and_at_the_multiples(tmp_path):
    curve = make(tmp_path, "every=150")
    marks, at = [], 0
    while at < 700:
        marks.append(at := curve.next_mark(at))
    assert marks == [100, 150, 160, 250, 300, 400, 450, 600, 630, 750]


def test_a_count_is_a_mark_if_its_step_passed_one(tmp_path):
    curve = make(tmp_path)
    assert [at for at in range(0, 700, 50) if curve.is_mark(at, 50)] == [100, 200, 250, 400, 650]
    assert not make(tmp_path, "first=1").is_mark(0, 50)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_is_named_with_its_count(value):
    row = {"samples_evaluated": 25_000, "val/bound": value, "val/kl": 1.0}
    with pytest.raises(NonFiniteDensity, match=r"^val/bound became non-finite at 25,000 samples"):
        refuse_non_finite(row)
    refuse_non_finite(row | {"val/bound": -1e30})


@pytest.mark.parametrize("setting", ["first=0", "per_decade=0", "num_samples=0", "every=0"])
def test_counts_below_one_are_refused(tmp_path, setting):
    key = setting.split("=")[0]
    with pytest.raises(ConfigError, match=rf"evaluation\.{key} must be an integer (>= 1|in 1 \.\.\. 90).*got 0"):
        make(tmp_path, setting)


@pytest.mark.parametrize("count", ["91", "1e30"])
def test_more_marks_than_two_digits_tell_apart_are_refused(tmp_path, count):
    with pytest.raises(ConfigError, match=r"evaluation\.per_decade must be an integer in 1 \.\.\. 90, got"):
        make(tmp_path, f"per_decade={count}")


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluation\.splits must name some of train, val, test, got \['tset'\]"):
        make(tmp_path, "splits=[test,tset]")
