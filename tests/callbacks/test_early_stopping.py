from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from vae_lab.callbacks.early_stopping import EarlyStopping
from vae_lab.errors import ConfigError
from vae_lab.runs.curve import append_row
from vae_lab.training.lit_module import LitVAE


def make(tmp_path, bounds, patience, min_delta=0.0) -> EarlyStopping:
    for i, bound in enumerate(bounds):
        append_row(tmp_path / "metrics.csv", {"samples_evaluated": 100 * (i + 1), "val/bound": bound})
    return EarlyStopping(patience=patience, min_delta=min_delta, curve_file=tmp_path / "metrics.csv")


@pytest.mark.parametrize(
    ("bounds", "patience", "min_delta", "over"),
    [
        ([], 1, 0.0, False),
        ([-90], 1, 0.0, False),
        ([-90, -91], 1, 0.0, True),
        ([-90, -90], 1, 0.0, True),
        ([-90, -91], 2, 0.0, False),
        ([-90, -91, -89], 2, 0.0, False),
        ([-90, -91, -90.5], 2, 0.0, True),
        ([-90, -89, -88, -87], 1, 0.0, False),
        ([-90, -89.5, -89.2], 2, 1.0, True),
        ([-90, -89.5, -88.9], 2, 1.0, False),
        ([-90, -91, -92, -93], None, 0.0, False),
    ],
)
def test_training_is_over_after_patience_evaluations_without_a_rise(tmp_path, bounds, patience, min_delta, over):
    assert make(tmp_path, bounds, patience, min_delta).is_over() is over


@pytest.mark.parametrize("over", [False, True])
def test_all_ranks_do_what_the_first_one_decides(tmp_path, over):
    callback = make(tmp_path, [-90, -91], patience=1)
    trainer, lit = Mock(spec=pl.Trainer), Mock(spec=LitVAE)
    trainer.is_global_zero, trainer.should_stop, lit.stopped_early = False, False, False
    trainer.strategy = Mock(broadcast=lambda own: over)
    callback.on_evaluation(trainer, lit, 200)
    assert trainer.should_stop is over and lit.stopped_early is over


def test_waiting_for_a_bound_that_nobody_measures_is_refused(tmp_path):
    callback = make(tmp_path, [], patience=2)
    with pytest.raises(ConfigError, match=r"early_stopping\.patience must be null without a validation split, got 2"):
        callback.check(["train", "test"], ["val", "test"])
    with pytest.raises(ConfigError, match=r"evaluation\.splits must hold val where .* is 2, got \['test'\]"):
        callback.check(["train", "val", "test"], ["test"])
    callback.check(["train", "val", "test"], ["val"])
    make(tmp_path, [], patience=None).check(["train", "test"], ["test"])


@pytest.mark.parametrize(("key", "value"), [("patience", 0), ("min_delta", -0.1)])
def test_wrong_settings_are_refused(tmp_path, key, value):
    settings = {"patience": 1, "min_delta": 0.0} | {key: value}
    with pytest.raises(ValueError, match=rf"early_stopping\.{key} must be .*got {value}"):
        EarlyStopping(**settings, curve_file=tmp_path / "metrics.csv")
