"""What is measured once on a machine and kept in its user's cache: for this processor, by this version of torch."""

import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vae_lab.atomic import read_cache, write_json

log = logging.getLogger("vae_lab")


def cache_folder() -> Path:
    """Where what saves work is kept; a user without a home has none, and nothing is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache if os.path.isabs(cache) else os.devnull) / "vae_lab"


def known_once(name: str, like: Mapping[str, type], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` finds: from the cache, where this machine has been measured before.

    Args:
        name: of the file in the cache.
        like: the names and types of the entries; what is damaged is measured anew.
        measure: takes the time.
    """
    if not (known := known_of(name, like)):
        keep(name, known := measure())
    return known


def known_of(name: str, like: Mapping[str, type]) -> dict[str, Any]:
    """What is known of this machine under a name: nothing where it has not been measured, or is damaged."""
    known = read_cache(cache_folder() / f"{name}.json").get(this_machine())
    if not isinstance(known, dict) or any(type(known.get(entry)) is not kind for entry, kind in like.items()):
        return {}
    return known


def keep(name: str, entries: Mapping[str, Any]) -> None:
    """Keeps what was measured of this machine; where that is not possible it is measured again next time."""
    path = cache_folder() / f"{name}.json"
    try:
        write_json(path, read_cache(path) | {this_machine(): dict(entries)})
    except OSError as error:
        log.info("%s is measured again next time: %s", name, error)


def this_machine() -> str:
    """The processor and torch's version."""
    return f"{processor()}, torch {torch.__version__}"


def processor() -> str:
    """The processor's name and model, as far as the system tells them."""
    facts = _cpuinfo()
    named = [facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts]
    return " ".join(named) or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The sets of instructions that the processor has, by Linux's names; none where the system does not tell."""
    facts = _cpuinfo()
    return sorted(facts.get("flags", facts.get("Features", "")).split())


def times_as_fast(slow: Callable[[], Any], fast: Callable[[], Any], *, repeats: int) -> float:
    """How many times as fast as the one work the other is: the median of alternated pairs."""
    ratios = []
    for _ in range(repeats + 2):  # the first ones make the libraries ready
        began = time.perf_counter()
        slow()
        between = time.perf_counter()
        fast()
        ratios.append((between - began) / (time.perf_counter() - between))
    return statistics.median(ratios[2:])


def busy_cores(seconds: float = 0.1) -> float:
    """How many cores of this machine others use at this moment; 0 where the system does not say.

    This process waits meanwhile.
    """

    def ticks() -> tuple[int, int]:
        fields = [int(number) for number in stat.read_text(encoding="ascii").split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # idle, waiting for a disk

    if not (stat := Path("/proc/stat")).is_file():
        return 0.0
    total, idle = ticks()
    time.sleep(seconds)
    later, idle_later = ticks()
    return (os.cpu_count() or 1) * (1 - (idle_later - idle) / max(1, later - total))


def _cpuinfo() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
