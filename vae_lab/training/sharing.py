"""Several trainings in one process, on one device: while one waits for the device, the others give it work.

A GPU is far from full with one network of the paper. Each training has a thread here, and on a GPU a stream, a captured
step and a state of the noise generator of its own, so that the kernels of several run at once and every training draws
the noise that it draws alone. Only one thread at a time does anything else than wait, so nothing else may interfere.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import clear_frames
from typing import Any, TypeVar

import torch

from vae_lab.errors import ConfigError

T = TypeVar("T")
MOST = 16
"""Trainings that may share a process: each takes two of the 32 streams that torch has for a device."""


class Turns:
    """One thread at a time, in the order in which they asked."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.queue: deque[object] = deque()

    def take(self, who: object) -> None:
        """Returns when it is `who`'s turn."""
        with self.condition:
            self.queue.append(who)
            self.condition.wait_for(lambda: self.queue[0] is who)

    def pass_on(self) -> None:
        """Ends the turn of the one whose it is."""
        with self.condition:
            self.queue.popleft()
            self.condition.notify_all()


class Share:
    """A training's part in the turns and in the device: what it finds there whenever its turn comes.

    Args:
        turns: of all the trainings of this process.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.stream = None
        if torch.cuda.is_available():
            torch.cuda.init()  # before which there are no generators
            self.stream = torch.cuda.Stream()
            self.generator = torch.cuda.default_generators[torch.cuda.current_device()]
            self.noise = self.generator.clone_state()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The training, which gives its turn away only in `others_turn`."""
        self.turns.take(self)
        try:
            self.use_own_noise()
            CURRENT.set(self)
            with torch.cuda.stream(self.stream):
                yield
        finally:
            self.turns.pass_on()

    def use_own_noise(self) -> None:
        """From now on noise comes from this training's own state, which its captured step holds as well."""
        if self.stream is not None:
            self.generator.graphsafe_set_state(self.noise)


def check_runs_per_process(key: str, value: object) -> None:
    """Raises ConfigError unless so many trainings can share a process."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise ConfigError(f"{key} must be a whole number from 1 to {MOST}, got {value!r}")


def why_alone(trainer: Mapping[str, Any]) -> str:
    """Why a training with these settings of the Trainer shares its process with no other; empty if it can."""
    if (trainer["devices"], trainer["num_nodes"]) != (1, 1):
        return f"trainer.devices={trainer['devices']} on {trainer['num_nodes']} nodes is not one device"
    return ""


CURRENT: ContextVar[Share | None] = ContextVar("share", default=None)
"""The share of the training that runs in this thread; None: it is alone in its process."""


@contextmanager
def others_turn() -> Iterator[None]:
    """Around what only waits for the device: the other trainings of this process, if there are any, go on meanwhile."""
    share = CURRENT.get()
    if share is None:
        yield
        return
    share.turns.pass_on()
    try:
        yield
    finally:
        share.turns.take(share)
        share.use_own_noise()


def share_device(trainings: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Runs the trainings together to their ends; returns for each what it returned, or the exception that ended it.

    An exception in this thread, such as that of a signal's handler, leaves the trainings to the end of the process.
    """
    turns = Turns()
    shares = [Share(turns) for _ in trainings]  # before a thread puts its own noise in the place of the default one
    results: list[T | Exception] = [RuntimeError("did not begin")] * len(trainings)

    def work(i: int) -> None:
        with shares[i].turn():
            try:
                results[i] = trainings[i]()
            except Exception as error:  # the boundary of a training: the others go on
                clear_frames(error.__traceback__)  # which would keep its model on the device
                results[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(trainings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
