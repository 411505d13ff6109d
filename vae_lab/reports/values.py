"""Values of configs, records and ledgers in a report: as text, as numbers, in order."""

from collections.abc import Sequence
from typing import Any, TypeGuard

ABSENT = "–"
"""The text of a value that a run does not have."""
LARGEST = 1e300


def as_text(value: Any) -> str:
    """A value as it is typed; NaN is how a table of runs says that there is none."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, float):
        if value != value:
            return ABSENT
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
    return str(value)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number, and neither true or false nor endless nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def number_or_none(value: Any) -> float | None:
    """The value if it is a number, else None."""
    return value if is_number(value) else None


def order(value: Any) -> tuple[int, float, str]:
    """What values are sorted by: numbers by size, before texts."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, as_text(value))


def letters(i: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return (letters(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def counted(num: int) -> str:
    """A number of runs in words."""
    return f"{num} run{'' if num == 1 else 's'}"


def enumerated(texts: Sequence[str]) -> str:
    """The texts in a sentence: A, B and C."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
