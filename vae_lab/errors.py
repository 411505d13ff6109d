"""What can go wrong without being a bug, and the words for it: key, rule, value, nearest names, what to do.

The command line prints these errors as one message; everything else is a bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence

LISTED = 20
"""Up to so many valid names are listed in a message, not only the likely ones."""


class ConfigError(ValueError):
    """A user's mistake, found before any work: exit code 2."""


class RunError(ConfigError):
    """A run directory that is missing, not whole, in use, or not fit for the request: exit code 2."""


class MissingFile(ConfigError, FileNotFoundError):  # noqa: N818
    """A data set's file that is not there and cannot be had: exit code 2."""


class NoEncoder(ConfigError):  # noqa: N818
    """The request needs q(z|x), and the model was trained without one: exit code 2."""


class UntrustedTarget(ConfigError):  # noqa: N818
    """A run directory names code that nobody has allowed: exit code 2."""


class NonFiniteDensity(ArithmeticError):  # noqa: N818
    """A density became NaN or infinite, and the training stopped: exit code 1."""


class Failed(Exception):  # noqa: N818
    """The work was done, and a part or a result of it is a failure: exit code 1."""


class Interrupted(Exception):  # noqa: N818
    """A signal ended the work in good order, and it can be continued: exit code 130."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A phrase like "did you mean 'mnist'? (digits, frey_face, mnist)"; without a likely name all of them."""
    names = sorted({str(choice) for choice in choices})
    if not names:
        return "there are none"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(map(repr, close))}?"
    if close and len(names) > LISTED:
        return guess
    return f"{guess} ({', '.join(names)})" if close else f"choose one of {', '.join(names)}"


def missing(keys: Sequence[str]) -> str:
    """The message about keys that have no value."""
    return (
        f"{', '.join(keys)} must be given, the config leaves {'them' if len(keys) > 1 else 'it'} open: "
        f"add {' '.join(f'{key}=VALUE' for key in keys)}"
    )
