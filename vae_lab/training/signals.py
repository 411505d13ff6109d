"""The wish that a process ends in good order: signals, and the death of the process that started it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

PARENT = "VAE_LAB_PARENT"
"""Environment variable: the process without which this training is to stop."""


STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]
"""Signals that end work in good order: a person's, a closed terminal's, a cluster's."""


def heard() -> dict[int, Any]:
    """The signals to listen to, and their handlers now; one that is ignored, as SIGHUP under nohup, stays so."""
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}
    always = (signal.SIGINT, signal.SIGTERM)
    return {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN or number in always}


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """While the block runs, every signal to stop raises KeyboardInterrupt; only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = heard()
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class StopRequest:
    """The wish that this process ends in good order; signals belong to the process, and so does this."""

    def __init__(self) -> None:
        self.received = False
        self.before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on the first of each signal to stop is the wish; a second one is the system's own."""
        self.received = False
        self.before = heard()
        for number in self.before:
            signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remembers the wish, and gives the signal its default meaning back."""
        self.received = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def ignore(self) -> None:
        """Puts the handlers back that were there before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before, self.received = {}, False


STOP = StopRequest()
