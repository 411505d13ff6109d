"""The bar of what goes through its work block by block: on a terminal or in a notebook, gone at its end; else lines."""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

log = logging.getLogger("vae_lab")

Block = TypeVar("Block")
SECONDS = 10.0
"""The shortest time between two lines."""


def tracked(what: str) -> Callable[[Sequence[Block]], Iterable[Block]]:
    """What goes through blocks of work and shows how far it is.

    Args:
        what: stands beside the bar, such as `encoding`.
    """
    console = Console(stderr=True)
    has_widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None  # rich draws by them there
    if console.is_terminal or has_widgets:
        return lambda blocks: track(blocks, what, console=console, transient=True)
    return lambda blocks: in_lines(blocks, what)


def in_lines(blocks: Sequence[Block], what: str) -> Iterator[Block]:
    """Goes through blocks, and says now and then how far it is."""
    said = time.monotonic()
    for done, block in enumerate(blocks):
        if time.monotonic() - said >= SECONDS:
            log.info("%s: %.0f %%", what, 100 * done / len(blocks))
            said = time.monotonic()
        yield block
