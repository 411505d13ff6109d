"""Child processes that end in good order: a signal to this process, or its death, is one to them."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

from vae_lab.errors import INTERRUPTED
from vae_lab.training.signals import PARENT

log = logging.getLogger("vae_lab")

T = TypeVar("T")


class Children:
    """The child processes that run now, and the wish to stop them.

    Each has a session of its own, so that a Ctrl-C of the terminal reaches it once, through `stop`. A child that
    trains ends by itself, after a checkpoint, where this process is killed.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.RLock()  # a signal may interrupt the thread that holds it

    def run(self, arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> int:
        """Runs a process to its end, its output appended to a file; returns its exit code, -N if signal N killed it."""
        with open(output, "ab") as file:
            with self.lock:
                if self.stopping.is_set():
                    return INTERRUPTED
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment, PARENT: str(os.getpid())},
                    start_new_session=True,
                )
                self.running.add(process)
            try:
                return process.wait()
            finally:
                with self.lock:
                    self.running.discard(process)

    def stop(self) -> None:
        """Asks every process to end after a checkpoint, and lets no other begin; a second time: to end at once."""
        self.stopping.set()
        with self.lock:
            for process in self.running:
                process.send_signal(signal.SIGINT)

    def receive(self, number: int, frame: Any) -> None:
        """Handles a signal to stop."""
        if not self.stopping.is_set():
            log.info("stopping: the running jobs save a checkpoint first (once more: they end at once)")
        self.stop()


def called_in_child(function: Callable[..., T], *arguments: Any, method: str = "spawn") -> T:
    """What a function returns that a process of its own calls; a Ctrl-C is for this process, and ends the other.

    Args:
        function: of a module, as its arguments can be sent to another process.
        arguments: of the function.
        method: by which multiprocessing starts the process.
    """
    with _ended_by_ctrl_c(), ProcessPoolExecutor(1, get_context(method), _follow_parent) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """While the block runs, every Ctrl-C ends the processes begun in it first: a pool waits for its own at its end."""
    known, handler = set(active_children()), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return

    def end(number: int, frame: Any) -> None:
        for process in set(active_children()) - known:
            process.terminate()
        handler(number, frame)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def called_with_torch(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns that needs PyTorch: called here where that is loaded, else in a process of its own.

    A process that only waits for trainings is not to load it.
    """
    return function(*arguments) if "torch" in sys.modules else called_in_child(function, *arguments)


def _follow_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(INTERRUPTED)

    threading.Thread(target=follow, daemon=True).start()
