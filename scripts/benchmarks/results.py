"""What was measured, as tables for a reader and as plain values for a JSON file."""

import sys
from typing import Any

from rich.table import Table

from benchmarks.sides import Outcome, Spread
from vae_lab.wiring.terminal import print_table


def print_outcome(name: str, outcome: Outcome) -> None:
    """The sides of a case and how they compare, each by its median and its range."""
    table = Table(
        "side", "median", "from", "to", "besides", title=f"{name}: {outcome.case.summary}, {outcome.case.unit}"
    )
    for side, spread in outcome.sides.items():
        facts = next(one.facts for one in outcome.case.sides if one.name == side)
        table.add_row(side, *shown(spread), ", ".join(f"{fact} {value:.3g}" for fact, value in facts.items()))
    print_table(table)
    if outcome.comparisons:
        table = Table("comparison", "median", "from", "to", "limit", "")
        for comparison in outcome.case.comparisons:
            if comparison.name in outcome.comparisons:
                spread = outcome.comparisons[comparison.name]
                verdict = {True: "held", False: "missed", None: ""}[comparison.holds(spread.median)]
                table.add_row(comparison.name, *shown(spread), comparison.limit, verdict)
        print_table(table)
    for side, reason in outcome.left_out.items():
        print(f"without {side}: {reason}")
    sys.stdout.flush()


def shown(spread: Spread) -> list[str]:
    """Median and range, with three digits at least."""
    return [number(value) for value in (spread.median, min(spread.values), max(spread.values))]


def number(value: float) -> str:
    """With thousands separated, or three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def plain(outcome: Outcome) -> dict[str, Any]:
    """A case as JSON has it."""
    case = outcome.case
    comparisons = {}
    for comparison in case.comparisons:
        if comparison.name in outcome.comparisons:
            spread = outcome.comparisons[comparison.name]
            limits = {"at_least": comparison.at_least, "at_most": comparison.at_most}
            comparisons[comparison.name] = plain_spread(spread) | limits | {"held": comparison.holds(spread.median)}
    return {
        "summary": case.summary,
        "unit": case.unit,
        "sides": {
            side.name: plain_spread(outcome.sides[side.name]) | ({"facts": side.facts} if side.facts else {})
            for side in case.sides
            if side.name in outcome.sides
        },
        "comparisons": comparisons,
        "left_out": outcome.left_out,
    }


def plain_spread(spread: Spread) -> dict[str, Any]:
    """All values and what sums them up."""
    low, high = min(spread.values), max(spread.values)
    return {"median": spread.median, "min": low, "max": high, "values": list(spread.values)}
