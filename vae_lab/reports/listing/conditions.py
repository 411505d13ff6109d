"""What `where` asks of a run: a key, a sign and a value."""

import re
from dataclasses import dataclass
from typing import Any

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.entries import Entry
from vae_lab.reports.listing.keys import Keys, as_text, is_number, order

CONDITION = re.compile(r"([^=<>!]+)(>=|<=|!=|=|<|>)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """A `where`, its key by the full name."""

    key: str
    sign: str
    value: str

    def holds(self, entry: Entry) -> bool:
        """Whether a run fulfils it; one without the key fulfils `!=` and `=null` only."""
        value = entry.values.get(self.key)
        if self.sign in ("=", "!="):
            return is_equal(value, self.value) == (self.sign == "=")
        number = as_number(self.value)
        if value is None or is_number(value) != (number is not None):
            return False
        one, other = order(value), order(self.value if number is None else number)
        return {">": one > other, "<": one < other, ">=": one >= other, "<=": one <= other}[self.sign]


def read_condition(text: str, keys: Keys) -> Condition:
    """A `where` as typed.

    Raises:
        ConfigError: it has no sign, or names no key of the runs.
    """
    found = CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(
            "where must be a condition such as status=finished, model.latent_dim>=5 or optimizer.lr!=0.01, "
            f"got {text!r}"
        )
    name, sign, value = (part.strip() for part in found.groups())
    return Condition(keys.resolve(name, f"where={text}"), sign, value)


def is_equal(value: Any, text: str) -> bool:
    """Whether a value is what was typed: 0.001 is 1e-3."""
    number = as_number(text)
    if is_number(value) and number is not None:
        return float(value) == number
    return as_text(value) == text.replace(" ", "" if isinstance(value, list) else " ")


def as_number(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        return float(text)
    except ValueError:
        return None
