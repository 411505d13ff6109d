"""Sides that do the same work, measured in turn (A B C A B C ...), what follows from them, and their tables."""

import operator
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.conditions import Conditions
from vae_lab.wiring.table import Table

REPEATS = 7
"""How often each side works where nothing else is asked for."""
Values = dict[str, list[float]]
"""What every side measured, by its name, in the order of the repeats."""


class Side(ABC):
    """One way to do the work of a case."""

    absent_because = ""
    """Why it is left out."""

    def __init__(self, name: str, conditions: Conditions) -> None:
        self.name, self.conditions = name, conditions
        self.facts: dict[str, float] = {}
        """What else is worth knowing, such as the seconds of a compilation; it is not compared."""

    def prepare(self, seconds: float) -> None:  # noqa: B027  (many have nothing to prepare)
        """Pays what is paid once; a measurement will take about `seconds`."""

    @abstractmethod
    def measure(self, seconds: float) -> float:
        """Works for about `seconds`, or as long as it takes; returns what came of it in the unit of the case."""


class Throughput(Side):
    """A side whose work can be cut to any multiple of `unit`, and is measured as amount per second."""

    def __init__(self, name: str, conditions: Conditions, *, unit: int) -> None:
        super().__init__(name, conditions)
        self.unit = self.amount = unit

    @abstractmethod
    def do(self, amount: int) -> None:
        """The work itself."""

    def work(self, amount: int) -> float:
        """Does so much work; returns the seconds that count."""
        self.conditions.synchronize()
        started = time.perf_counter()
        self.do(amount)
        self.conditions.synchronize()
        return time.perf_counter() - started

    def prepare(self, seconds: float) -> None:
        """Works once to get warm, then more and more until it is known how much takes about `seconds`."""
        self.work(self.unit)
        amount = self.unit
        while (taken := self.work(amount)) < seconds / 5:
            amount *= 4
        self.amount = self.amount_for(seconds, amount / taken)

    def measure(self, seconds: float) -> float:
        """Amount per second; the next amount follows the speed, should others slow the machine down."""
        speed = self.amount / self.work(self.amount)
        self.amount = self.amount_for(seconds, speed)
        return speed

    def amount_for(self, seconds: float, speed: float) -> int:
        """Whole units, at least one."""
        return max(1, round(speed * seconds / self.unit)) * self.unit


def lacking(*packages: str) -> str:
    """Why what needs these packages is left out; empty where they are there."""
    missing = [package for package in packages if find_spec(package) is None]
    return f"{' and '.join(missing)} not found: pip install .[bench]" if missing else ""


@dataclass(frozen=True)
class Comparison:
    """A number for every repeat, none where a side is not there, and the limit that its median is held against."""

    name: str
    operation: Callable[..., float]
    """Compares neighbours of one repeat."""
    compared: Sequence[str | Sequence[Side]]
    """Whose numbers; of several sides the one with the highest median counts."""
    at_least: float | None = None
    at_most: float | None = None

    def of(self, values: Values) -> list[float]:
        """Its numbers."""
        names = [[one] if isinstance(one, str) else [side.name for side in one] for one in self.compared]
        found = [[values[name] for name in some if values.get(name)] for some in names]
        return list(map(self.operation, *(max(some, key=statistics.median, default=[]) for some in found)))

    def holds(self, median: float) -> bool | None:
        """Whether the limit is kept; None: there is none."""
        if self.at_least is not None:
            return median >= self.at_least
        return None if self.at_most is None else median <= self.at_most


def ratio(over: str | Sequence[Side], under: str | Sequence[Side], name: str = "", **limit: float | None) -> Comparison:
    """Neighbours of one repeat, divided."""
    return Comparison(name or f"{over} / {under}", operator.truediv, [over, under], **limit)


def difference(one: str, other: str, name: str = "", **limit: float) -> Comparison:
    """Neighbours of one repeat, subtracted."""
    return Comparison(name or f"{one} - {other}", operator.sub, [one, other], **limit)


def time_for(amount: float, side: str, **limit: float) -> Comparison:
    """Seconds for a larger amount at the measured speed: an extrapolation."""
    return Comparison(f"seconds for {amount:g}, extrapolated", partial(operator.truediv, amount), [side], **limit)


def value_of(side: str, **limit: float) -> Comparison:
    """What a side measured, held against a limit."""
    return Comparison(side, float, [side], **limit)


@dataclass
class Case:
    """A question about speed: sides that do the same work, and what follows from them."""

    sides: Sequence[Side]
    comparisons: Sequence[Comparison] = ()
    unit: str = "samples/s"
    most_repeats: int = REPEATS
    """Where one repeat takes long, whatever `seconds` says, and nobody asks for more."""
    longer: float = 1.0
    """Times `seconds`, where the first ones would be an exception."""
    summary: str = ""


def measure_case(case: Case, *, repeats: int | None, seconds: float, neutral: Callable[[], None]) -> dict[str, Any]:
    """Prepares every side, then lets each work once in every repeat, in turn; returns the case as JSON has it.

    `neutral` is called before a side works, so that none finds the settings of its neighbour.
    """
    sides, seconds = [side for side in case.sides if not side.absent_because], seconds * case.longer
    for side in sides:
        neutral()
        side.prepare(seconds)
    values: Values = {side.name: [] for side in sides}
    for _ in range(repeats or case.most_repeats):
        for side in sides:
            neutral()
            values[side.name].append(side.measure(seconds))
    compared = [(comparison, spread(found)) for comparison in case.comparisons if (found := comparison.of(values))]
    return {
        **{"summary": case.summary, "unit": case.unit},
        "sides": {one.name: spread(values[one.name]) | ({"facts": one.facts} if one.facts else {}) for one in sides},
        "comparisons": {
            one.name: found | {"at_least": one.at_least, "at_most": one.at_most, "held": one.holds(found["median"])}
            for one, found in compared
        },
        "left_out": {side.name: side.absent_because for side in case.sides if side.absent_because},
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """All values of a side or a comparison, and what sums them up."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}


def print_case(name: str, case: dict[str, Any]) -> None:
    """The sides of a measured case and how they compare, each by its median and its range."""

    def numbers(found: dict[str, Any]) -> list[str]:
        return [f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}" for x in (found["median"], found["min"], found["max"])]

    rows = []
    for side, found in case["sides"].items():
        facts = [f"{fact} {value:.5g}" for fact, value in found.get("facts", {}).items()]
        rows.append([side, *numbers(found), ", ".join(facts)])
    title = f"{name}: {case['summary']}, {case['unit']}"
    Table(("side", "median", "from", "to", "besides"), rows, title=title).print()
    rows = []
    for comparison, found in case["comparisons"].items():
        limits = {">=": found["at_least"], "<=": found["at_most"]}
        limit = " ".join(f"{sign} {value:g}" for sign, value in limits.items() if value is not None)
        rows.append([comparison, *numbers(found), limit, {True: "held", False: "missed", None: ""}[found["held"]]])
    if rows:
        Table(("comparison", "median", "from", "to", "limit", ""), rows).print()
    for side, reason in case["left_out"].items():
        print(f"without {side}: {reason}")
    sys.stdout.flush()
