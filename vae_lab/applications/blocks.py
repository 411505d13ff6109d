"""How work on many images is cut: into the blocks by which noise is drawn, gone through by whoever shows progress."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vae_lab.randomness import NOISE_BLOCK

Watch = Callable[[Sequence[Any]], Iterable[Any]]
"""Goes through blocks of work, in their order, and may show how far it is; `iter` shows nothing."""


def blocks_of(num: int) -> list[slice]:
    """The places 0 ... num - 1 in blocks of `NOISE_BLOCK`."""
    return [slice(first, min(first + NOISE_BLOCK, num)) for first in range(0, num, NOISE_BLOCK)]
