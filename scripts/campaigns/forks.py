"""Real processes that need not wait for imports: forks of this one, each of which runs one command line."""

import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

IMPORTED = (
    "vae_lab.jobs.execute",
    "vae_lab.cli",
    "vae_lab.commands.task",
    "vae_lab.commands.train",
    "vae_lab.commands.evaluate",
    "vae_lab.commands.plot",
    "vae_lab.commands.runs",
    "vae_lab.commands.report",
    "vae_lab.commands.compare",
    "vae_lab.reports.pages.comparison",
    "vae_lab.reports.pages.run_page",
    "vae_lab.reports.pages.sweep_page",
    "hydra",
    "sklearn.datasets",
    "torch.utils.tensorboard",
)
"""What would take most of a command's time; this process computes nothing, so that it has no threads to lose."""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    arguments: Sequence[str]
    code: int
    """Its exit code, -N if signal N killed it."""
    output: str
    """What it printed, both streams in the order of writing."""
    seconds: float
    megabytes: float
    """The peak of its resident memory."""


class Fork:
    """A command line in a process of its own.

    Args:
        arguments: of `vae-lab`.
        folder: its working folder.
        prepare: is called in the new process first.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> None:
        self.arguments, self.started = [str(argument) for argument in arguments], time.monotonic()
        self.output = folder / f".output-{time.monotonic_ns()}"
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(folder, prepare)

    def _become(self, folder: Path, prepare: Callable[[], None] | None) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            file = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), file, file)):
                os.dup2(descriptor, number)
            sys.argv[:] = ["vae-lab", *self.arguments]
            if prepare is not None:
                prepare()
            runpy.run_module("vae_lab", run_name="__main__", alter_sys=True)
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def signal(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> Ended:
        """How it ended; what takes longer is killed."""
        while True:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            taken = time.monotonic() - self.started
            if pid:
                break
            if taken > seconds:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        self.output.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(status)
        if taken > seconds:
            text += f"\n[killed after {taken:.0f} s]"
        return Ended(self.arguments, code, text, taken, used.ru_maxrss / 1024)


def run(arguments: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> Ended:
    """A command line from start to end."""
    return Fork(arguments, folder, prepare).wait()


def limited_file_size(num_bytes: int) -> Callable[[], None]:
    """Serves as `prepare`: a file that grows beyond this ends in EFBIG, as a full disk or quota would."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    return limit
