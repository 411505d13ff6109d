"""What follows from the sides of a case: ratios, differences and values, one for every repeat, and their limits."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Values = dict[str, list[float]]
"""What every side measured, by its name, in the order of the repeats."""


@dataclass(frozen=True)
class Comparison:
    """A number for every repeat, and what its median is held against."""

    name: str
    of: Callable[[Values], list[float]]
    """[] where a side is not there."""
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, median: float) -> bool | None:
        """Whether the limit is kept; None: there is none."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or median >= self.at_least
        return above and (self.at_most is None or median <= self.at_most)

    @property
    def limit(self) -> str:
        """For a reader: >= 1.4."""
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}" if self.at_most else ""


def ratio(
    over: str | Sequence[str],
    under: str | Sequence[str],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    name: str = "",
) -> Comparison:
    """Neighbours of one repeat, divided. Of several sides the one with the highest median counts."""

    def of(values: Values) -> list[float]:
        first, second = highest(values, over), highest(values, under)
        return [a / b for a, b in zip(first, second, strict=True)] if first and second else []

    return Comparison(name or f"{spoken(over)} / {spoken(under)}", of, at_least, at_most)


def difference(one: str, other: str, *, at_most: float | None = None, name: str = "") -> Comparison:
    """Neighbours of one repeat, subtracted."""

    def of(values: Values) -> list[float]:
        return [a - b for a, b in zip(values.get(one, []), values.get(other, []), strict=True)]

    return Comparison(name or f"{one} - {other}", of, at_most=at_most)


def time_for(amount: float, side: str, *, at_most: float | None = None, name: str = "") -> Comparison:
    """Seconds for a larger amount at the measured speed: an extrapolation."""

    def of(values: Values) -> list[float]:
        return [amount / speed for speed in values.get(side, [])]

    return Comparison(name or f"s for {amount:g}, extrapolated", of, at_most=at_most)


def value_of(side: str, *, at_most: float | None = None, name: str = "") -> Comparison:
    """What a side measured, held against a limit."""
    return Comparison(name or side, lambda values: list(values.get(side, [])), at_most=at_most)


def highest(values: Values, names: str | Sequence[str]) -> list[float]:
    """The values of the side with the highest median among those that are there; [] if none is."""
    there = [values[name] for name in ([names] if isinstance(names, str) else names) if values.get(name)]
    return max(there, key=statistics.median, default=[])


def spoken(names: str | Sequence[str]) -> str:
    """The name of a side, or of the highest of several."""
    return names if isinstance(names, str) else f"highest of ({', '.join(names)})"
