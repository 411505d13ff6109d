"""The wish that a process ends in good order: signals, and the death of the process that started it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn

PARENT = "VAE_LAB_PARENT"
"""Environment variable: the process without which this training is to stop."""


STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]
"""Signals that end work in good order: a person's, a closed terminal's, a cluster's."""


@contextmanager
def listening(receive: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """While the block runs, `receive` gets every signal to stop; only the main thread can listen.

    One that is ignored, as SIGHUP under nohup, stays so.
    """
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}
    always, is_main = (signal.SIGINT, signal.SIGTERM), threading.current_thread() is threading.main_thread()
    heard = [number for number in STOPPING if is_main and (handlers[number] != signal.SIG_IGN or number in always)]
    for number in heard:
        signal.signal(number, receive)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, handlers[number])


def as_ctrl_c() -> AbstractContextManager[None]:
    """While the block runs, every signal to stop raises KeyboardInterrupt."""
    return listening(_interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class StopRequest:
    """The wish that this process ends in good order; signals belong to the process, and so does this."""

    def __init__(self) -> None:
        self.received = False
        self.listening = ExitStack()

    def listen(self) -> None:
        """Takes the first of each signal to stop as the wish; a second one is the system's own."""
        self.received = False
        self.listening.enter_context(listening(self.receive))

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remembers the wish, and gives the signal its default meaning back."""
        self.received = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def ignore(self) -> None:
        """Puts the handlers back that were there before."""
        self.listening.close()
        self.received = False


STOP = StopRequest()
