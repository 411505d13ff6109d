"""What can go wrong without being a bug, and the words for it: key, rule, value, nearest names, what to do.

The command line prints these errors as one message; everything else is a bug and keeps its traceback.
"""

import difflib
import errno
import json
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

FAILURE, MISTAKE, INTERRUPTED = 1, 2, 130
"""Exit codes, of commands and of the processes that train; what each of the errors below ends with."""
DIVERGED = (
    "try a smaller optimizer.lr, gradient_clip_norm=100, or a floor likelihood.min_log_variance for a Gaussian; "
    "the checkpoint from before is kept"
)
"""What to do about a training that became non-finite."""
STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system answers where there is no room for a file: disk, quota, or a limit on the size of one file."""
LARGEST = 2**63 - 1
"""The largest integer that a file or torch takes."""
MOST_THREADS = 4096
LISTED = 20
"""The most valid names that a message lists in full; of more it has the likely ones only."""


class ConfigError(ValueError):
    """A user's mistake, found before any work: exit code 2."""


class RunError(ConfigError):
    """A run directory that is missing, not whole, in use, or not fit for the request: exit code 2."""


class MissingFile(ConfigError, FileNotFoundError):  # noqa: N818
    """A data set's file that is not there and cannot be had: exit code 2."""


class StorageError(ConfigError, OSError):
    """There is no room for a file, which stays as it was: exit code 2."""


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


def is_about_storage(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether the system has no room, and nobody has said so in words yet."""
    return isinstance(error, OSError) and error.errno in STORAGE and not isinstance(error, StorageError)


def no_room(path: str | os.PathLike[str], error: OSError) -> StorageError:
    """The message about a file or folder that there is no room for."""
    return StorageError(
        f"{path} cannot be written ({os.strerror(error.errno or 0)}): free space there, or raise the quota or the "
        "limit on file sizes; what was there before is whole, and the same command goes on from it"
    )


def nearest(name: str, choices: Iterable[str]) -> str:
    """A phrase like "did you mean 'mnist'? (digits, frey_face, mnist)"; without a likely name all of them."""
    names = sorted({str(choice) for choice in choices})
    if not names:
        return "there are none"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(map(repr, close))}?"
    if close and len(names) > LISTED:
        return guess
    listed = ", ".join(names[:LISTED]) + (f", ... ({len(names)} in all)" if len(names) > LISTED else "")
    return f"{guess} ({listed})" if close else f"choose one of {listed}"


def install(extra: str) -> str:
    """What brings the packages of an extra."""
    return f"pip install '.[{extra}]' in the folder of vae_lab's README brings it"


def missing(keys: Sequence[str]) -> str:
    """The message about keys that have no value."""
    return (
        f"{', '.join(keys)} must be given, the config leaves {'them' if len(keys) > 1 else 'it'} open: "
        f"add {' '.join(f'{key}=VALUE' for key in keys)}"
    )


def require_integer(
    key: str,
    value: Any,
    *,
    minimum: int,
    maximum: int | None = None,
    optional: bool = False,
    advice: str = "choose such a number",
) -> None:
    """Refuses what is not an integer in the range; with `optional`, null will do."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    is_good = is_integer and minimum <= value <= (LARGEST if maximum is None else maximum)
    if not is_good and not (optional and value is None):
        is_huge = is_integer and value > LARGEST
        rule = f">= {minimum}{' and < 2^63' * is_huge}" if maximum is None else f"in {minimum} ... {maximum}"
        raise ConfigError(f"{key} must be an integer {rule}{' or null' * optional}, got {shown(value)}: {advice}")


def require_threads(threads: Any) -> None:
    """Refuses what is no number of threads of the CPU; null will do."""
    require_integer("threads", threads, minimum=1, maximum=MOST_THREADS, optional=True)


def require_number(
    key: str,
    value: Any,
    *,
    at_least: float | None = None,
    at_most: float = math.inf,
    below: float = math.inf,
    optional: bool = False,
    advice: str = "choose such a number",
) -> None:
    """Refuses what is not a finite number > 0, or >= `at_least`, in these limits; with `optional`, null will do."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    is_good = (
        is_number and (value > 0 if at_least is None else value >= at_least) and value <= at_most and value < below
    )
    if not is_good and not (optional and value is None):
        rule = "> 0" if at_least is None else f">= {at_least}"
        rule += f" and <= {at_most:g}" * (at_most < math.inf) + f" and < {below:g}" * (below < math.inf)
        raise ConfigError(f"{key} must be a number {rule}{' or null' * optional}, got {shown(value)}: {advice}")


def require_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Refuses what is not one of the names, and says which is nearest."""
    names = list(choices)
    if value not in names:
        close = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]}?" if close else "choose one of them"
        raise ConfigError(f"{key} must be one of {', '.join(names)}, got {shown(value)}: {advice}")


def require_memory(what: str, num_bytes: float, advice: str) -> None:
    """Refuses what the memory of this machine cannot hold, before anything is made."""
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if num_bytes > memory:
            raise ConfigError(
                f"{what} would take {num_bytes / 2**30:,.0f} GB of memory, and this machine has "
                f"{memory / 2**30:,.0f} GB: {advice}"
            )


def shown(value: object) -> str:
    """A value as it stands in a config."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
