"""A Python that has imported PyTorch already: forks of one process stand in for `python -m vae_lab ...` in tests.

Most of a short command's time is its imports. For a child process that is not killed, and whose start is not what is
tested, a test takes `python()` in the place of `sys.executable` (`training.run_to_end`, the fixture `warm_jobs`): a
script that sends its arguments, environment, working folder and streams to the *server* of the test run, which forks.
The fork goes on as the interpreter would have; the script passes signals on to it and ends as it does. What a fork
cannot be is left to a real interpreter, which the script becomes: other modules and options, an environment that
differs in what is read at import, and everything where there is no server.

Unlike a real process, a fork has a session of its own and the hash seed of all others, and what it needs is imported
before it listens to signals.
"""

import marshal
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

VARIABLE = "VAE_LAB_WARM_PYTHON"
"""Environment variable: the script, while a test run has a server."""
PARENT = "VAE_LAB_PARENT"
"""Environment variable of a job: the process without which it is to stop (`training.signals`)."""
MODULES = ("vae_lab", "vae_lab.jobs.execute", "vae_lab.jobs.speed_probe", "campaigns.campaign")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
AT_IMPORT = (
    *("PYTHON", "LD_", "LC_", "LANG", "TZ", "HOME", "XDG_", "TMPDIR", "OMP_", "MKL_", "OPENBLAS_", "GOMP_", "KMP_"),
    *("ATEN_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_", "MPL", "TQDM_", "NUMPY_", "NPY_", "SCIPY_", "SKLEARN_"),
)
"""How the names begin of variables that are read at import."""
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


def python() -> str:
    """What stands in for `sys.executable`: that itself where there is no server."""
    return os.environ.get(VARIABLE, sys.executable)


def start() -> Callable[[], None]:
    """Starts the server, which imports nothing until it is asked; returns what ends it, as does this process's end."""
    import subprocess
    import tempfile

    if not hasattr(os, "pidfd_open"):  # not on Linux
        return lambda: None
    folder = tempfile.mkdtemp(prefix="vae-lab-python-")
    script, address = f"{folder}/python", f"{folder}/socket"
    with open(script, "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{address}" "$0" "$@"\n')
    os.chmod(script, 0o700)

    server = subprocess.Popen(
        [sys.executable, __file__, address],
        env=os.environ | dict.fromkeys(THREADS, "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # which nobody reads: a fork has streams of its own, as little seekable as these
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.environ[VARIABLE] = script

    def end() -> None:
        del os.environ[VARIABLE]
        with server:  # which closes its stdin, and waits
            pass

    return end


def ask(address: str, script: str, arguments: list[str]) -> NoReturn:
    """The script: lets a fork do the work, or becomes a real interpreter."""
    if arguments[:1] == ["-m"] and arguments[1] in MODULES:
        umask = os.umask(0)
        os.umask(umask)
        request = {
            "arguments": [script, *arguments],
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "umask": umask,
            "parent": os.getppid(),
            "ignored": [int(number) for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN],
        }
        connection, fork = socket.socket(socket.AF_UNIX), b""
        with suppress(OSError):
            connection.connect(address)
            socket.send_fds(connection, [b"3"], [0, 1, 2])
            with connection.makefile("wb") as file:
                marshal.dump(request, file)
            fork = connection.recv(4)
        if fork:
            follow(int.from_bytes(fork, sys.byteorder), connection, request["ignored"])
    os.execv(sys.executable, [sys.executable, *arguments])


def follow(pid: int, connection: socket.socket, ignored: list[int]) -> NoReturn:
    """Passes signals on to the fork, and ends as it does; a job whose parent died lets its fork alone with that."""

    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in set(PASSED_ON).difference(ignored):
        signal.signal(number, pass_on)
    if PARENT in os.environ:
        parent = os.pidfd_open(os.getppid())
        if connection not in select.select([connection, parent], [], [])[0]:
            connection.send(b"orphan")
            os._exit(0)
    code = os.waitstatus_to_exitcode(int.from_bytes(connection.recv(4) or b"\xff", sys.byteorder))
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handlers
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str) -> str:
    """The server: returns in the forks alone, the module that such a one is to run."""
    import shutil

    before = dict(os.environ)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:  # the test run is over
            shutil.rmtree(os.path.dirname(address))
            os._exit(0)
        connection, _ = listener.accept()
        preload()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            return keep(connection, before)
        connection.close()


def keep(connection: socket.socket, before: Mapping[str, str]) -> str:
    """The keeper of one request: ends with its fork, and its fork with the script or the test run."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as file:
        request = marshal.load(file)
    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    request["environment"] = set_by_imports | request["environment"]
    if at_import(request["environment"]) != at_import(os.environ):
        os._exit(0)
    if (pid := os.fork()) == 0:
        connection.close()
        return become(request, streams)
    for descriptor in streams:
        os.close(descriptor)
    connection.send(pid.to_bytes(4, sys.byteorder))
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([0, connection, ended], [], [])
    if ended not in ready:
        if connection in ready and connection.recv(6):  # the fork is an orphan from now on, and may notice it
            os._exit(0)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        connection.send(status.to_bytes(4, sys.byteorder))
    os._exit(0)


def at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment is read at import; a count of threads for all libraries can be set later."""
    read = {name: value for name, value in environment.items() if name.startswith(AT_IMPORT)}
    counts = {read.pop(name, environment.get(THREADS[0], "")) for name in THREADS}
    return read if len(counts) == 1 and counts.pop().isdigit() else read | {"threads": "no single count"}


def preload() -> None:
    """Imports what most of a command's time would go to; nothing is computed, so that there are no threads to lose."""
    if "torch" not in sys.modules:
        import gc
        import importlib

        sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir, "scripts"))
        from campaigns.forks import IMPORTED

        from vae_lab import collect_garbage_rarely

        collect_garbage_rarely()
        for name in (*MODULES, *IMPORTED):
            importlib.import_module(name)
        del sys.path[0]
        gc.freeze()  # else every fork would copy all memory where its objects are, to look at them as it ends


def become(request: Mapping[str, Any], streams: list[int]) -> str:
    """Makes a fork what the script was when it asked; returns the module to run."""
    import numpy as np
    import torch

    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in PASSED_ON:
        own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else own)
    os.umask(request["umask"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if os.environ.get(PARENT) == str(request["parent"]):
        os.environ[PARENT] = str(os.getppid())  # the keeper, which lives as long as it is wanted
    script, _, module, *arguments = request["arguments"]
    sys.executable, sys.orig_argv[:], sys.argv[:] = script, request["arguments"], [module, *arguments]
    sys.path[0] = request["folder"]
    if module != "vae_lab":
        del sys.modules[module]  # or to run it would warn that it is there already
    np.random.seed()
    torch.set_num_threads(int(os.environ[THREADS[0]]))
    return module


if __name__ == "__main__":
    if len(sys.argv) > 2:
        ask(sys.argv[1], sys.argv[2], sys.argv[3:])
    module = serve(sys.argv[1])
    import runpy

    runpy.run_module(module, run_name="__main__", alter_sys=True)
