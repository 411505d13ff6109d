"""Sides that do the same work, measured in turn: A B C A B C ..., each by its median and its spread."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from benchmarks.comparisons import Comparison, Values

REPEATS = 7
"""How often each side works, unless it is said."""


@dataclass(frozen=True)
class Spread:
    """What was measured, once in every repeat."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, or the mean of the two in the middle."""
        return statistics.median(self.values)


class Side(ABC):
    """One way to do the work of a case.

    Args:
        name: in the table, the JSON file and the comparisons of its case.
        packages: that it needs and that not everybody has; without them it is left out.
    """

    def __init__(self, name: str, *, packages: Sequence[str] = ()) -> None:
        self.name = name
        self.facts: dict[str, float] = {}
        """What else is worth telling, such as the seconds of a compilation; no part of what is compared."""
        missing = [package for package in packages if find_spec(package) is None]
        self.absent_because = f"{' and '.join(missing)} not found: pip install .[bench]" if missing else ""
        """Empty: it can be measured."""

    @abstractmethod
    def prepare(self, seconds: float) -> None:
        """Pays what is paid once; a measurement will take about `seconds`."""

    @abstractmethod
    def measure(self, seconds: float) -> float:
        """Works for about `seconds`; returns what came of it in the unit of the case."""


class Throughput(Side):
    """A side whose work can be cut to any amount, and is measured as amount per second.

    Args:
        name: as for every side.
        unit: the least amount, of which every other is a multiple.
        packages: as for every side.
    """

    def __init__(self, name: str, *, unit: int, packages: Sequence[str] = ()) -> None:
        super().__init__(name, packages=packages)
        self.unit = unit
        self.amount = unit
        """Of one measurement, once prepared."""

    @abstractmethod
    def work(self, amount: int) -> float:
        """Does so much work; returns the seconds that count."""

    def prepare(self, seconds: float) -> None:
        """Decides on the amount; what a side makes once is made before."""
        self.calibrate(seconds)

    def calibrate(self, seconds: float) -> None:
        """Once to get warm, then more and more until the speed is known; `amount` takes about `seconds`."""
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


@dataclass
class Case:
    """A question about speed: sides that do the same work, and what follows from them."""

    summary: str
    unit: str
    sides: Sequence[Side]
    comparisons: Sequence[Comparison] = ()
    most_repeats: int | None = None
    """Where one repeat takes long, whatever `seconds` says, and nobody asks for more."""
    longer: float = 1.0
    """Times `seconds`, where the first ones would be an exception."""


@dataclass(frozen=True)
class Outcome:
    """A measured case."""

    case: Case
    sides: dict[str, Spread]
    comparisons: dict[str, Spread] = field(default_factory=dict)
    """By name; a comparison with a side that was left out is absent."""

    @property
    def left_out(self) -> dict[str, str]:
        """The sides that could not be measured, and why."""
        return {side.name: side.absent_because for side in self.case.sides if side.absent_because}


def measure_case(case: Case, *, repeats: int | None, seconds: float, neutral: Callable[[], None]) -> Outcome:
    """Prepares every side, then lets each work once in every repeat, in turn.

    Args:
        case: what is measured.
        repeats: how often each side works; None: `REPEATS`, or fewer where one takes long.
        seconds: about how long each time.
        neutral: called before a side works, so that none finds the settings of its neighbour.
    """
    sides, seconds = [side for side in case.sides if not side.absent_because], seconds * case.longer
    for side in sides:
        neutral()
        side.prepare(seconds)
    values: Values = {side.name: [] for side in sides}
    for _ in range(repeats or min(REPEATS, case.most_repeats or REPEATS)):
        for side in sides:
            neutral()
            values[side.name].append(side.measure(seconds))
    compared = {comparison.name: comparison.of(values) for comparison in case.comparisons}
    return Outcome(
        case,
        {name: Spread(tuple(measured)) for name, measured in values.items()},
        {name: Spread(tuple(measured)) for name, measured in compared.items() if measured},
    )
