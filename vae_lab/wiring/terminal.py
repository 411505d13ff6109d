"""How things are said on a terminal: tables that are wide enough in a file as well, and durations."""

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 120


def print_table(table: Table) -> None:
    """On stdout; as wide as the terminal, or wide enough to be read in a file."""
    console = Console()
    (console if console.is_terminal else Console(width=FILE_WIDTH)).print(table)


def duration(seconds: float) -> str:
    """For a reader: 42 s, 3:05 min, 2:10 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
