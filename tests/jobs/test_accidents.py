"""A training whose disk is full, whose directory goes away, or that Lightning ends: one message, nothing lost."""

import errno
import logging
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import assert_equal, assert_same_training, checkpoint, train_more, train_tiny, weights

from vae_lab.callbacks.checkpoint import Checkpoint
from vae_lab.errors import ConfigError, Interrupted, RunError, StorageError
from vae_lab.jobs.assemble import cluster
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir

SETTINGS = "trainer.max_epochs=4"
"""Those of `finished_run`."""


@pytest.fixture(autouse=True)
def other_tests_handlers_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of another test's command line may write to a stream that is closed by now."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


def cut(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def once_after_three_evaluations(monkeypatch: pytest.MonkeyPatch, accident: Callable[[], Any]) -> None:
    """Lets it happen when 250 samples are evaluated and saved."""
    original = Checkpoint.on_evaluation

    def on_evaluation(self: Checkpoint, trainer: Any, lit: Any, samples: int) -> None:
        original(self, trainer, lit, samples)
        if samples == 250:
            accident()

    monkeypatch.setattr(Checkpoint, "on_evaluation", on_evaluation)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accident", "message"),
    [
        (
            lambda run: run.path.rename(run.path.with_name("moved")),
            "was moved, renamed or deleted while it was written",
        ),
        (lambda run: (run.path / "run.json").rename(run.path.with_name("moved")), r"run\.json vanished"),
        (lambda run: (run.path / "metrics.csv").rename(run.path.with_name("moved")), r"metrics\.csv vanished"),
        (
            lambda run: (run.path / "checkpoints").rename(run.path.with_name("moved")),
            r"best\.ckpt, .*last\.ckpt vanished",
        ),
    ],
    ids=["directory", "record", "curve", "checkpoints"],
)
def test_what_moves_away_during_a_training_ends_it_and_once_put_back_it_goes_on(
    tmp_path, finished_run, monkeypatch, capfd, accident, message
):
    run = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(RunError, match=message):
        once_after_three_evaluations(patch, lambda: accident(run))
        train_tiny(run.path, SETTINGS)
    moved, parts = tmp_path / "moved", ("run.json", "metrics.csv", "checkpoints")
    assert not run.path.exists() or not list(run.path.glob("*.tmp"))
    assert "Traceback" not in capfd.readouterr().err
    gone = [name for name in parts if run.path.exists() and not (run.path / name).exists()]
    moved.rename(run.path.joinpath(*gone))
    train_more(run.path)
    assert_same_training(run, finished_run)


def test_a_file_that_vanishes_between_two_looks_ends_a_training_with_its_name(tmp_path, monkeypatch):
    def vanishing(original: Path, to: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(original))

    monkeypatch.setattr("vae_lab.callbacks.checkpoint.give_name", vanishing)
    with pytest.raises(RunError, match=r"best\.ckpt vanished while the run was written: continue: vae-lab train"):
        train_tiny(tmp_path / "run", SETTINGS)


@pytest.mark.slow
def test_what_stumbles_after_a_ctrl_c_is_an_interruption_that_goes_on(tmp_path, finished_run, monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    def closed(*_: Any) -> None:
        raise OSError("Writer is closed")

    run = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="interrupted; continue: vae-lab train"):
        once_after_three_evaluations(patch, interrupted)
        patch.setattr("pytorch_lightning.loggers.TensorBoardLogger.finalize", closed)
        train_tiny(run.path, SETTINGS)
    assert run.read_status() == "interrupted"
    train_more(run.path)
    assert_same_training(run, finished_run)


def test_rows_that_vanish_from_the_curve_during_a_training_end_it(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "run")
    once_after_three_evaluations(monkeypatch, lambda: cut(run.curve_file))
    with pytest.raises(RunError, match=r"metrics\.csv was changed or deleted .* it ended at 250 samples"):
        train_tiny(run.path, SETTINGS)
    assert [row["samples_evaluated"] for row in read_rows(run.curve_file)] == [100, 200]


@pytest.mark.parametrize(
    ("damage", "missing"),
    [(lambda file: file.unlink(), "6 of the 6 .* first at 100 samples"), (cut, "1 of the 6 .* first at 1,000 samples")],
)
def test_rows_that_are_missing_behind_the_checkpoint_are_named(tmp_path, finished_run, caplog, damage, missing):
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))
    cut(run.curve_file)  # the last one, at the end of the budget, which a longer run has not
    damage(run.curve_file)
    train_more(run.path, "trainer.max_epochs=5")
    (warning,) = [record.getMessage() for record in caplog.records if "lacks" in record.getMessage()]
    assert re.search(missing, warning)
    assert warning in run.log.read_text()


def test_a_whole_curve_lacks_nothing(tmp_path, finished_run, caplog):
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))
    train_more(run.path, "trainer.max_epochs=5")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.slow
def test_no_room_ends_a_training_with_one_message_and_it_goes_on_to_the_same_bits(tmp_path, finished_run, capfd):
    run = RunDir(tmp_path / "run")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"best\.ckpt cannot be written \(File too large\): free space"):
            train_tiny(run.path, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Traceback" not in capfd.readouterr().err
    assert run.read_status() in ("failed", "interrupted") and not list(run.path.rglob("*.tmp"))
    train_more(run.path)
    assert_same_training(run, finished_run)


@pytest.mark.slow
def test_no_room_for_the_events_of_tensorboards_thread_is_said_likewise(tmp_path, finished_run, monkeypatch, capfd):
    from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run, hook = RunDir(tmp_path / "run"), threading.excepthook
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"run cannot be written \(No space left on"):
        patch.setattr(LocalFileSystem, "append", full)
        train_tiny(run.path, SETTINGS)
    assert "Traceback" not in capfd.readouterr().err and threading.excepthook is hook
    train_more(run.path)
    assert_same_training(run, finished_run)


TIMER = ("+callbacks.timer._target_=pytorch_lightning.callbacks.Timer", "+callbacks.timer.interval=step")


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["before", "after"])
def test_what_lightning_ends_is_interrupted_with_a_checkpoint_and_goes_on(tmp_path, finished_run, monkeypatch, ends):
    from pytorch_lightning.callbacks import Timer

    def is_over(self: Timer, trainer: Any) -> None:
        trainer.should_stop = trainer.should_stop or getattr(trainer.lightning_module, "samples", 0) >= 450

    monkeypatch.setattr(Timer, "_check_time_remaining", is_over)
    settings = (
        (*TIMER, "+callbacks.timer.duration=01:00:00:00") if ends == "before" else ("+trainer.max_time=01:00:00:00",)
    )
    run = RunDir(tmp_path / "run")
    with pytest.raises(Interrupted, match=f"stopped at 600 samples; continue: vae-lab train run_dir={run.path}"):
        train_tiny(run.path, SETTINGS, *settings)
    assert run.read_status() == "interrupted" and checkpoint(run)["vae_lab"]["samples"] == 600
    assert "Timer" not in checkpoint(run)["callbacks"]
    monkeypatch.undo()
    train_more(run.path)
    assert run.read_status() == "finished" and run.curve_file.read_text() == finished_run.curve_file.read_text()
    assert_equal(weights(run), weights(finished_run))  # and all else but the identity, to which the timer belongs
    assert os.environ.get("VAE_LAB_RUN_DIR") is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_slurms_signals_end_a_training_with_the_labs_checkpoint_and_without_lightnings_requeue(
    tmp_path, finished_run, monkeypatch, number
):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\ntouch {tmp_path / 'requeued'}\n")
    scontrol.chmod(0o755)
    slurm = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    more = {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    for name, value in (slurm | more).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning_fabric.plugins.environments.slurm.shutil.which", lambda name: None)  # no srun
    assert [getattr(environment, "auto_requeue", None) for environment in cluster()] == [False]
    run = RunDir(tmp_path / "run")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="stopped at 250 samples; continue"):
        once_after_three_evaluations(patch, lambda: signal.raise_signal(number))
        train_tiny(run.path, SETTINGS)
    assert run.read_status() == "interrupted" and signal.getsignal(number) is before
    assert not list(run.path.rglob("hpc_ckpt*")) and not (tmp_path / "requeued").exists()
    train_more(run.path)
    assert_same_training(run, finished_run)


def test_a_shell_within_an_allocation_trains_as_one_process_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setattr("lightning_fabric.plugins.environments.slurm.shutil.which", lambda name: None)  # no srun
    run = train_tiny(tmp_path / "run", SETTINGS)
    assert run.read_status() == "finished" and "srun started none of them here: one process" in caplog.text


def test_tasks_that_no_process_was_started_for_are_refused(monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning_fabric.plugins.environments.slurm.shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"Slurm's variables do not fit: .*ntasks.*srun starts a process for each"):
        cluster()
