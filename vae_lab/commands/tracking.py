"""The bar of a command that goes through its work block by block: on a terminal, on stderr, gone at its end."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Block = TypeVar("Block")


def tracked(what: str) -> Callable[[Sequence[Block]], Iterable[Block]]:
    """What goes through blocks of work and shows how far it is.

    Args:
        what: stands beside the bar, such as `encoding`.
    """
    console = Console(stderr=True)
    return lambda blocks: track(blocks, what, console=console, transient=True, disable=not console.is_terminal)
