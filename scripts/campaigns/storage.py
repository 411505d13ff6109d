"""Storage that fails: full disks, quotas, read-only and vanishing folders, file systems without flock or fsync."""

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable

from campaigns import forks
from campaigns.forks import Ended, Fork, limited_file_size
from campaigns.trials import TINY, Trial, copy_of, expect, judge, result_of, run
from vae_lab.runs.directory import RunDir

SETTINGS = [*TINY, "trainer.max_epochs=12", "steps_per_execution=1"]


def refusing(function: str, number: int) -> Callable[[], None]:
    """Serves as `prepare`: a call of the system answers with an error, for folders (fsync) or always (flock)."""

    def replace() -> None:
        if function == "flock":
            import fcntl

            def flock(file: int, operation: int) -> None:
                raise OSError(number, os.strerror(number))

            fcntl.flock = flock
        else:
            real = os.fsync

            def fsync(file: int) -> None:
                if os.path.isdir(f"/proc/self/fd/{file}"):
                    raise OSError(number, os.strerror(number))
                real(file)

            os.fsync = fsync

    return replace


def a_file_system_without(trial: Trial, function: str, number: int) -> str:
    """Trains, goes on and evaluates there."""
    run_dir = RunDir(trial.folder / "run")
    for arguments in (
        ["train", f"run_dir={run_dir.path}", *TINY, "trainer.max_epochs=2"],
        ["train", f"run_dir={run_dir.path}", "trainer.max_epochs=3"],
        ["evaluate", f"run={run_dir.path}", "num_samples=2", "estimator.num_samples=5", "threads=1"],
    ):
        judge(forks.run(arguments, trial.folder, refusing(function, number)), [0])
    return f"{function} answers {errno.errorcode[number]}"


def a_full_disk(trial: Trial) -> str:
    """Files can grow to a limit only; afterwards the same run goes on to the same result."""
    limit = trial.random.choice([500, 2_000, 10_000, 30_000, 100_000, 200_000])
    run_dir = RunDir(trial.folder / "run")
    ended = forks.run(["train", f"run_dir={run_dir.path}", *SETTINGS], trial.folder, limited_file_size(limit))
    judge(ended, [0, 1, 2])
    expect(ended.code == 0 or "space" in ended.output or "large" in ended.output, "the message says what to do", ended)
    return goes_on(trial, run_dir, ended, f"files of at most {limit} bytes")


def goes_on(trial: Trial, run_dir: RunDir, ended: Ended, what: str) -> str:
    """The run trains to the result of one that nothing happened to."""
    if run_dir.exists():
        run(trial, "train", f"run_dir={run_dir.path}", codes=[0])
        whole = RunDir(trial.folder / "whole")
        run(trial, "train", f"run_dir={whole.path}", *SETTINGS, codes=[0])
        expect(result_of(run_dir) == result_of(whole), f"{what}: must go on to the undisturbed result", ended)
    return what


def a_folder_that_vanishes(trial: Trial) -> str:
    """The run directory is renamed, or a part of it deleted, during training."""
    run_dir = RunDir(trial.folder / "run")
    part = trial.random.choice(
        ["", "", "checkpoints", "tensorboard", "metrics.csv", "run.json", "config.yaml", "log.txt"]
    )
    fork = Fork(["train", f"run_dir={run_dir.path}", *SETTINGS[:-1], "steps_per_execution=1"], trial.folder)
    deadline = time.monotonic() + 20
    while not run_dir.has_checkpoint and time.monotonic() < deadline:
        time.sleep(0.005)
    path = run_dir.path / part
    if not part:
        run_dir.path.rename(trial.folder / "renamed")
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    judge(fork.wait(), [0, 1, 2])
    return f"{part or 'the run directory'} vanishes"


def without_privileges() -> None:
    """Serves as `prepare`: root obeys the permissions of files as everyone else does."""
    libc = ctypes.CDLL(None, use_errno=True)
    version, dac_override, dac_read_search = 0x20080522, 1, 2
    header, sets = (ctypes.c_uint32 * 2)(version, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for each in range(3):  # effective, permitted, inheritable
        sets[each] &= ~(1 << dac_override | 1 << dac_read_search)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def a_read_only_run(trial: Trial) -> str:
    """Evaluated without being written; nothing is measured in vain."""
    run_dir = copy_of(trial, "plain")
    quick = ["num_samples=2", "estimator.num_samples=5", "threads=1"]
    for path in (*run_dir.path.rglob("*"), run_dir.path):
        path.chmod(0o555 if path.is_dir() else 0o444)
    judge(forks.run(["evaluate", f"run={run_dir.path}", *quick, "save=false"], trial.folder, without_privileges), [0])
    judge(
        forks.run(["evaluate", f"run={run_dir.path}", *quick, "num_samples=3"], trial.folder, without_privileges), [2]
    )
    for path in (run_dir.path, *run_dir.path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return "a read-only run"


def storage(trial: Trial) -> str:
    """One fault of the storage."""
    faults: list[Callable[[Trial], str]] = [
        lambda t: a_file_system_without(t, "fsync", t.random.choice([errno.EINVAL, errno.ENOTSUP])),
        lambda t: a_file_system_without(t, "flock", t.random.choice([errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])),
        *[a_full_disk] * 3,
        *[a_folder_that_vanishes] * 3,
        a_read_only_run,
    ]
    return trial.random.choice(faults)(trial)
