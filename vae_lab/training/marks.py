"""Sample counts at which something happens: functions of the count alone, never of the budget."""

import math


def next_evaluation(samples: int, *, first: int, per_decade: int, every: int | None) -> int:
    """The smallest mark above `samples` of the logarithmic series or, where `every` is given, multiple of that."""
    mark = next_log_mark(samples, first=first, per_decade=per_decade)
    return mark if every is None else min(mark, next_multiple(samples, every))


def next_log_mark(samples: int, *, first: int, per_decade: int) -> int:
    """The smallest mark above `samples` of a logarithmic series of two significant digits, `first` being the first.

    With 5 per decade: 10,000, 16,000, 25,000, 40,000, 63,000, 100,000, ...
    """
    if samples < first:
        return first
    step = math.floor(per_decade * math.log10(samples)) - 1
    while (mark := _log_mark(step, per_decade)) <= samples:
        step += 1
    return mark


def _log_mark(step: int, per_decade: int) -> int:
    """10^(step / per_decade), rounded to two significant digits."""
    decade, rest = divmod(step, per_decade)
    return round(10**decade * round(10 ** (rest / per_decade), 1))


def next_multiple(samples: int, every: int) -> int:
    """The smallest multiple of `every` above `samples`."""
    return (samples // every + 1) * every


def is_passed(mark: int | None, before: int, now: int) -> bool:
    """Whether `mark` lies in (before, now]."""
    return mark is not None and before < mark <= now
