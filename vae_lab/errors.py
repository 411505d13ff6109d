"""What can go wrong without being a bug, and the words to say it: key, rule, value, nearest valid names, what to do.

The command line prints these errors as one message without a traceback; everything else is a bug and keeps its own.
"""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A user's mistake, found before any work: exit code 2."""


class RunError(ConfigError):
    """A run directory that is not there, not whole, in use, or not fit for what is asked of it: exit code 2."""


class UntrustedTarget(ConfigError):
    """A run directory names code that nobody has allowed: exit code 2."""


class NonFiniteDensity(ArithmeticError):
    """A density became NaN or infinite, and the training stopped: exit code 1."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """ "did you mean 'mnist'? (digits, frey_face, mnist)": the likely name, and all of them unless they are many."""
    names = sorted(str(choice) for choice in choices)
    if not names:
        return "there are none"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    listing = ", ".join(names)
    if not guess:
        return f"choose one of {listing}"
    return f"{guess} ({listing})" if len(names) <= 20 else guess
