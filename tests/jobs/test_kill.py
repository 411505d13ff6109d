"""Real processes, killed at named points that are reached by watching the run directory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import warm_python
from training import TINY, assert_same_training, finish, run_to_end, vae_lab

from vae_lab.runs.directory import RunDir

pytestmark = pytest.mark.slow

SETTINGS = (
    *TINY,
    "trainer.max_epochs=15",
    "model.encoder.hidden=[200]",
    "checkpoint.every_seconds=0.01",
    "steps_per_execution=1",
    "seed=3",
)
"""4,500 samples in 90 steps, and a checkpoint after nearly every one."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> RunDir:
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    run_to_end("train", f"run_dir={path}", *SETTINGS)
    return RunDir(path)


def has_begun(run: RunDir) -> bool:
    """Before the first checkpoint: the config is frozen, and the training may or may not have started."""
    return run.exists() and run.log.is_file() and "budget" in run.log.read_text()


def is_being_saved(run: RunDir) -> bool:
    """While a checkpoint is being written, over one that is complete."""
    return any(run.checkpoints.glob(".last.ckpt.*.tmp")) and (run.checkpoints / "last.ckpt").exists()


def is_in_an_epoch(run: RunDir) -> bool:
    """Between two evaluations: some rows, and not the last."""
    return run.curve_file.is_file() and run.curve_file.read_text().count("\n") >= 5


def is_evaluated(run: RunDir) -> bool:
    """During an evaluation: a new row is there, and the checkpoint that belongs to it not yet."""
    rows = run.curve_file.read_bytes().count(b"\n") if run.curve_file.is_file() else 0
    return rows >= 2 and any(run.checkpoints.glob(".best.ckpt.*.tmp"))


def is_at_the_end(run: RunDir) -> bool:
    """During the last evaluation or soon after: every row is written, the ledger is not."""
    return run.curve_file.is_file() and "\n4500," in run.curve_file.read_text()


def wait_for(process: subprocess.Popen[str], run: RunDir, point: Callable[[RunDir], bool]) -> None:
    """Until the point is reached; fails if the process ends before or minutes pass."""
    deadline = time.monotonic() + 400  # as `finish`
    while not point(run):
        assert process.poll() is None, f"ended before the point: {process.communicate()}"
        assert time.monotonic() < deadline, "the point was not reached"
        time.sleep(0.0002 if run.log.exists() else 0.02)  # it needs seconds to begin, and the points are short


def start_and_signal(
    path: Path, point: Callable[[RunDir], bool], number: int, executable: str = sys.executable
) -> subprocess.Popen[str]:
    process = vae_lab("train", f"run_dir={path}", *SETTINGS, executable=executable)
    try:
        wait_for(process, RunDir(path), point)
        held = json.loads((path / ".lock.json").read_text())
    except BaseException:
        process.kill()
        raise
    os.kill(held["process"], number)  # the training itself, where a fork trains for the process that was started
    return process


def interpreter(real: bool) -> str:
    """What trains is a real interpreter in one case of each test; else a fork, which need not import PyTorch."""
    return sys.executable if real else warm_python.python()


@pytest.mark.parametrize("point", [has_begun, is_being_saved, is_in_an_epoch, is_evaluated, is_at_the_end])
def test_a_killed_run_goes_on_to_the_same_result(undisturbed, tmp_path, point):
    run = RunDir(tmp_path / "run")
    process = start_and_signal(run.path, point, signal.SIGKILL, interpreter(point == is_in_an_epoch))
    finish(process, -signal.SIGKILL)
    assert run.read_record()["status"] == "running" and run.read_status() == "interrupted"
    out, _ = run_to_end("train", f"run_dir={run.path}")
    assert out.splitlines()[-1] == str(run.path)
    assert run.read_status() == "finished"
    assert_same_training(run, undisturbed)
    assert not list(run.path.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_command_to_go_on(undisturbed, tmp_path, number):
    run = RunDir(tmp_path / "run")
    executable = interpreter(number == signal.SIGINT)
    _, err = finish(start_and_signal(run.path, is_in_an_epoch, number, executable), 130)
    assert f"vae-lab train run_dir={run.path}" in err and "Traceback" not in err
    assert run.read_record()["status"] == "interrupted" and run.read_record()["error"] is None
    assert (run.checkpoints / "last.ckpt").is_file()
    run_to_end("train", f"run_dir={run.path}")
    assert_same_training(run, undisturbed)


def test_ctrl_c_before_the_first_step_says_how_to_go_on(tmp_path):
    run = RunDir(tmp_path / "run")
    _, err = finish(start_and_signal(run.path, has_begun, signal.SIGINT, warm_python.python()), 130)
    assert f"vae-lab train run_dir={run.path}" in err and "Traceback" not in err
    assert run.read_record()["status"] == "interrupted"


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4])
def test_ctrl_c_while_the_program_is_being_read_ends_in_one_line(tmp_path, seconds):
    process = vae_lab("train", f"run_dir={tmp_path / 'run'}", *SETTINGS)
    time.sleep(seconds + 0.05)  # Python itself begins with a traceback for whoever is faster
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert "Traceback" not in err and err.splitlines()[-1].startswith("vae-lab") and "interrupted" in err
    assert not (tmp_path / "run" / "config.yaml").exists()
