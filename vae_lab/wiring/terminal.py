"""How text reaches a terminal, whoever wrote it, and how durations are said there."""

import io
import logging
import os
import sys


def printable(text: str, keep: str = "") -> str:
    """The text on one line: what a terminal would obey, and what no encoding can write, as a backslash and a number.

    Args:
        text: perhaps a stranger's.
        keep: characters that stay as they are, such as the ends of lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def put(text: str = "", end: str = "\n") -> None:
    """Text on stdout, written when this returns; a reader who has left, as `head` does, has read enough."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name on disk need not be text
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own last flush would complain


def say(who: str, what: object) -> None:
    """A message on stderr, such as why a command did nothing."""
    print(f"{who}: {printable(str(what), keep=chr(10))}", file=sys.stderr, flush=True)


def printable_record(record: logging.LogRecord) -> bool:
    """Filters nothing: lets what is logged reach the terminal as printable text."""
    record.msg, record.args = printable(record.getMessage(), keep="\n"), None
    return True


logging.getLogger("vae_lab").addFilter(printable_record)


def duration(seconds: float) -> str:
    """A time as a reader likes it: 42 s, 3:05 min, 2:10 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
