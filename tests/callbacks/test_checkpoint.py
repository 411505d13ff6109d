import json
import time
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from vae_lab.atomic import give_name
from vae_lab.callbacks.checkpoint import AtomicCheckpointIO, Checkpoint
from vae_lab.errors import NonFiniteDensity
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import best_bound, take_back_best
from vae_lab.training.lit_module import LitVAE


@pytest.fixture
def folder(tmp_path):
    """The checkpoints of a run directory."""
    path = tmp_path / "checkpoints"
    path.mkdir()
    return path


@pytest.fixture
def saved(folder):
    """A callback at the start of a training, the trainer and module it sees, and what it saved, in order."""
    run = RunDir(folder.parent)
    callback = Checkpoint(at=[100, 130], every_seconds=60, run=run)
    trainer, lit, names = Mock(spec=pl.Trainer), Mock(spec=LitVAE), []
    trainer.strategy = Mock(reduce_boolean_decision=lambda decision, all: decision)
    trainer.should_stop, trainer.loggers, trainer.is_global_zero = False, [], True

    def save_checkpoint(path, weights_only):
        names.append(str(path.relative_to(folder)))
        path.parent.mkdir(exist_ok=True)
        AtomicCheckpointIO(RunDir(folder.parent)).save_checkpoint(
            {"state_dict": {}, "vae_lab": {"samples": lit.samples, "latest": lit.latest}}, path
        )

    trainer.save_checkpoint = save_checkpoint
    lit.parameters = nn.Linear(1, 1).parameters
    lit.samples, lit.block_start, lit.latest = 50, 0, {}
    callback.on_train_start(trainer, lit)
    return callback, trainer, lit, names


def save(path, samples: int, bound: float) -> None:
    torch.save({"state_dict": {}, "vae_lab": {"samples": samples, "latest": {"val/bound": bound}}}, path)


def test_nothing_is_saved_between_the_marks(saved):
    callback, trainer, lit, names = saved
    callback.on_train_batch_end(trainer, lit)
    assert names == []


def test_last_is_saved_when_the_last_save_is_long_ago(saved):
    callback, trainer, lit, names = saved
    callback.saved_at = time.monotonic() - 61
    callback.on_train_batch_end(trainer, lit)
    callback.on_train_batch_end(trainer, lit)
    assert names == ["last.ckpt"]


def test_last_is_saved_when_the_training_stops(saved):
    callback, trainer, lit, names = saved
    trainer.should_stop = True
    callback.on_train_batch_end(trainer, lit)
    assert names == ["last.ckpt"]


def test_evaluation_writes_the_best_once_for_both_names(saved, folder):
    callback, trainer, lit, names = saved
    run = RunDir(folder.parent)
    for bound in (-90.0, -95.0, -90.0, -80.0):
        lit.latest = {"val/bound": bound}
        callback.on_evaluation(trainer, lit, 50)
    assert names == ["best.ckpt", "last.ckpt", "last.ckpt", "best.ckpt"]
    assert (folder / "last.ckpt").samefile(folder / "best.ckpt")
    lit.latest = {"val/bound": -81.0}
    callback.on_evaluation(trainer, lit, 50)
    assert best_bound(run) == -80
    assert torch.load(folder / "last.ckpt")["vae_lab"]["latest"]["val/bound"] == -81


def test_the_bound_to_beat_survives_a_restart(saved, folder):
    callback, trainer, lit, names = saved
    run = RunDir(folder.parent)
    assert best_bound(run) == float("-inf")
    save(folder / "best.ckpt", 100, -85.0)
    callback.on_train_start(trainer, lit)
    lit.latest = {"val/bound": -86.0}
    callback.on_evaluation(trainer, lit, 150)
    assert names == ["last.ckpt"]


def test_a_snapshot_is_saved_once_for_the_counts_that_a_block_passed(saved):
    callback, trainer, lit, names = saved
    assert [callback.next_mark(at) for at in (0, 99, 100, 130)] == [100, 100, 130, None]
    for start in range(0, 200, 50):
        lit.block_start, lit.samples = start, start + 50
        callback.save_snapshot(trainer, lit)
        callback.save_snapshot(trainer, lit)
    assert names == ["at/100.ckpt", "at/150.ckpt"]


def test_what_was_measured_with_weights_goes_with_them(saved, folder):
    callback, trainer, lit, _ = saved
    run = RunDir(folder.parent)
    (folder / "at").mkdir()
    for count in (50, 100):
        (folder / "at" / f"{count}.json").write_text("{}")
    lit.block_start, lit.samples = 50, 100
    callback.save_snapshot(trainer, lit)
    assert {file.name for file in (folder / "at").iterdir()} == {"50.json", "100.ckpt"}

    def measured(*names: str) -> set[str]:
        for name in names:
            run.ledger_path(name).write_text(json.dumps({"samples_evaluated": lit.samples}))
        return {name for name in ("best", "last") if run.ledger(name)}

    measured("last")  # which is read by default before there is a best one
    lit.latest = {"val/bound": -90.0}
    callback.on_evaluation(trainer, lit, 100)
    assert measured() == set() and measured("best", "last") == {"best", "last"}
    lit.latest = {"val/bound": -91.0}
    callback.on_evaluation(trainer, lit, 100)
    assert measured() == {"best"} and measured("last") == {"best", "last"}
    lit.latest = {"val/bound": -89.0}
    callback.on_evaluation(trainer, lit, 100)
    assert measured() == set() and measured("best", "last") == {"best", "last"}
    take_back_best(run, lambda at: False)
    assert not run.ledger_path("best").exists()


def test_non_finite_weights_are_not_saved(saved):
    callback, trainer, lit, names = saved
    lit.parameters = lambda: [torch.tensor([1.0, float("nan")])]
    with pytest.raises(NonFiniteDensity, match="a weight became non-finite by 50 samples"):
        callback.save(trainer, lit, "last.ckpt")
    assert names == []


def test_a_best_checkpoint_that_is_refused_gives_way_to_the_one_before(folder):
    run, best = RunDir(folder.parent), folder / "best.ckpt"
    save(best, 100, -90.0)
    give_name(best, run.best_before)
    AtomicCheckpointIO(run).save_checkpoint(
        {"state_dict": {}, "vae_lab": {"samples": 120, "latest": {"val/bound": -85.0}}}, best
    )
    take_back_best(run, lambda at: True)
    assert best_bound(run) == -85
    take_back_best(run, lambda at: at <= 100)
    assert best_bound(run) == -90
    take_back_best(run, lambda at: False)
    assert not best.exists()
    assert list(folder.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(folder):
    path = folder / "last.ckpt"
    AtomicCheckpointIO(RunDir(folder.parent)).save_checkpoint({"samples": 1}, path)
    with pytest.raises(AttributeError, match="pickle"):
        AtomicCheckpointIO(RunDir(folder.parent)).save_checkpoint({"samples": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"samples": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": [100, 0]}, r"checkpoint\.at must hold counts >= 1, got \[100, 0\]"),
        ({"every_seconds": 0}, r"checkpoint\.every_seconds must be a number > 0, got 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        Checkpoint(**{"at": [], "every_seconds": 60, "run": RunDir(tmp_path)} | settings)
