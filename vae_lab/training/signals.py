"""The wish that a process ends in good order: signals, and the death of the process that started it."""

import signal
from types import FrameType
from typing import Any

PARENT = "VAE_LAB_PARENT"
"""Environment variable: the process without which this training is to stop."""


class StopRequest:
    """The wish that this process ends in good order; signals belong to the process, and so does this."""

    def __init__(self) -> None:
        self.received = False
        self.before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on the first SIGINT or SIGTERM is the wish; a second one is the system's own."""
        self.received = False
        self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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
