"""`python -m vae_lab` is `vae-lab`."""

import os
import signal
import sys
import threading
from types import FrameType

from vae_lab import collect_garbage_rarely

WAIT_SECONDS = 0.02


def main() -> int:
    """The command; until a training listens itself, a Ctrl-C is `CtrlC`'s."""
    collect_garbage_rarely()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, CtrlC())
    from vae_lab.cli import main as command

    return command()


class CtrlC:
    """Handles SIGINT as Python does, but waits until an import ends, or a config or a command line is read.

    There an exception becomes another one, or leaves a library broken.
    """

    waits = comes_again = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt, or comes again soon; a second Ctrl-C in the meantime ends the process at once."""
        while frame is not None and not is_delicate(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is None:
            self.waits = False
            raise KeyboardInterrupt
        if self.waits and not self.comes_again:
            os.write(2, b"vae-lab: interrupted\n")
            os._exit(130)  # `errors.INTERRUPTED`; nothing can be imported here
        self.waits, self.comes_again = True, False
        timer = threading.Timer(WAIT_SECONDS, self.come_again)
        timer.daemon = True
        timer.start()

    def come_again(self) -> None:
        """Runs in the timer's thread; the main thread handles it, also where it waits for the system."""
        self.comes_again = True
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)


def is_delicate(file: str) -> bool:
    """Whether code of this file must not be interrupted: Python's import or argparse, OmegaConf, Hydra's composing."""
    folder, name = os.path.split(file)
    return (
        file.startswith("<frozen importlib")
        or os.path.basename(folder) == "omegaconf"
        or name in ("config_loader_impl.py", "argparse.py")
    )


if __name__ == "__main__":
    sys.exit(main())
