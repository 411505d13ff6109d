"""The laboratory for "Auto-Encoding Variational Bayes" (Kingma & Welling, arXiv 1312.6114)."""

import gc
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vae_lab import runs as _package

if TYPE_CHECKING:
    from vae_lab.commands.calls import (
        Run,
        classify,
        encode,
        evaluate,
        explore,
        export,
        inpaint,
        load_run,
        runs,
        sample,
        score,
        train,
    )

if "OMP_WAIT_POLICY" not in os.environ:
    # How long a thread waits for the others of a product before it lets go of its core: by default longer than products
    # take, so that two processes on the same cores hold each other up a hundredfold. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.2.0"

__all__ = [
    "Run",
    "classify",
    "encode",
    "evaluate",
    "explore",
    "export",
    "inpaint",
    "load_run",
    "runs",
    "sample",
    "score",
    "train",
]


def collect_garbage_rarely() -> None:
    """Suits a command, whose first seconds are imports: these make half a million objects that stay.

    By default Python's collector goes through them again and again, for a tenth of these seconds.
    """
    gc.set_threshold(100_000, 20, 20)


if sys.argv[:1] == ["-m"] and any(word.split(".")[0] == __name__ for word in sys.orig_argv):
    # Python looks for a module of this package to run
    collect_garbage_rarely()


def __getattr__(name: str) -> Any:
    """Imports a call when it is asked for, so that `vae-lab --help` need not wait for torch."""
    if name in __all__:
        from vae_lab.commands import calls

        return getattr(calls, name)
    raise AttributeError(f"module 'vae_lab' has no attribute {name!r}")


class _ListsRuns(ModuleType):
    """The package `vae_lab.runs`, which is also the call of that name: `vae_lab.runs("outputs")`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from vae_lab.commands import calls

        return calls.runs(*args, **kwargs)


_package.__class__ = _ListsRuns  # pyright: ignore[reportAttributeAccessIssue]
