"""Forks that stand in for Python: they run, fail and die as it does, and leave nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import warm_python
from training import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no warm Pythons here"),
]

COMMAND = ["-m", "vae_lab", "train", "objective._target_=mine.Objective"]
PROBE = """
import os, signal, sys, threading
print(sys.argv[1:] == {arguments}, sys.executable, os.getcwd(), os.environ["MINE"], oct(os.umask(0)))
print(signal.getsignal(signal.SIGHUP).name, signal.getsignal(signal.SIGTERM).name, threading.active_count())
print(os.getpid(), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path):
    """Starts a command that loads a part of the user's own, the source of which is given; its folder is `tmp_path`."""

    def started(source: str, python: str = "", before: Sequence[str] = (), **options) -> subprocess.Popen[str]:
        (tmp_path / "mine.py").write_text(PROBE.format(arguments=COMMAND[2:]) + source)
        return subprocess.Popen(
            [python or warm_python.python(), *before, *COMMAND],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MINE": "é"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return started


def test_fork_is_what_the_script_was_when_it_asked(start, tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    process = start("print(sys.stdin.read()); sys.exit(7)", stdin=subprocess.PIPE, umask=0o27, preexec_fn=ignore)
    out, _ = process.communicate("from here")
    facts, signals, pid, read = out.splitlines()
    assert process.returncode == 7 and read == "from here"
    assert facts == f"True {warm_python.python()} {tmp_path} é 0o27" and signals == "SIG_IGN SIG_DFL 1"
    assert int(pid) != process.pid, "it was a real interpreter"


def test_failure_has_its_traceback_and_exit_code(start):
    process = start("class Bug(BaseException): pass\nraise Bug('of mine')")
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("Traceback") == 1 and "in <module>\n    raise Bug('of mine')" in err
    assert err.splitlines()[-1] == "mine.Bug: of mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_fork_and_script_die_by_one_signal(start, number):
    if number == signal.SIGTERM:  # sent to the script
        process = start("signal.pause()")
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(number)
    else:
        process = start(f"os.kill(os.getpid(), {number})")
    process.communicate()
    assert process.returncode == -number


def test_fork_ends_with_the_script(start):
    process = start("signal.pause()")
    fork = Path("/proc", [process.stdout.readline() for _ in range(3)][-1].strip())
    assert fork.exists()
    process.kill()
    process.communicate()
    wait_until(lambda: not fork.exists())


def test_fork_of_a_job_notices_that_its_parent_died(start, tmp_path):
    source = """
import pathlib, time
while str(os.getppid()) == os.environ["VAE_LAB_PARENT"]:
    time.sleep(0.01)
pathlib.Path("noticed").touch()
"""
    starts = "import os, subprocess, sys\nos.environ['VAE_LAB_PARENT'] = str(os.getpid())\nsubprocess.run(sys.argv[1:])"
    (tmp_path / "starts.py").write_text(starts)
    process = start(source, python=sys.executable, before=["starts.py", warm_python.python()])
    for _ in range(3):
        process.stdout.readline()
    assert not (tmp_path / "noticed").exists()
    process.kill()
    process.communicate()
    wait_until((tmp_path / "noticed").exists)


def test_what_no_fork_can_be_is_a_real_interpreter():
    code = "import sys; print(sys.executable, 'torch' in sys.modules)"
    ended = subprocess.run([warm_python.python(), "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [sys.executable, "False"]
    same = {"OMP_NUM_THREADS": "2", "MINE": "x", "PATH": "/bin"}
    known = warm_python.at_import(same)
    assert warm_python.at_import(same | {"MINE": "y", "OPENBLAS_NUM_THREADS": "2"}) == known
    assert warm_python.at_import(same | {"OMP_NUM_THREADS": "1"}) == known
    for name in ("MKL_NUM_THREADS", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "MPLBACKEND"):
        assert warm_python.at_import(same | {name: "3"}) != known
    del same["OMP_NUM_THREADS"]
    assert warm_python.at_import(same) != known
