"""The laboratory for "Auto-Encoding Variational Bayes" (Kingma & Welling, arXiv 1312.6114)."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_lab.runs.load import Run, load_run

if "OMP_WAIT_POLICY" not in os.environ:
    # How long a thread waits for the others of a product before it lets go of its core: by default longer than products
    # take, so that two processes on the same cores hold each other up a hundredfold. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.2.0"

__all__ = ["Run", "load_run"]


def __getattr__(name: str) -> Any:
    """Imports `load_run` and `Run` when they are asked for, so that `vae-lab --help` need not wait for torch."""
    if name in __all__:
        from vae_lab.runs import load

        return getattr(load, name)
    raise AttributeError(f"module 'vae_lab' has no attribute {name!r}")
