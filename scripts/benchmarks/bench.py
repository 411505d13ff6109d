"""`scripts/bench`: how fast the lab is, beside other ways to do the same work, measured in one run and in turn."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.catalogue import ALL, CASES, DEFAULT, chosen, make_case
from benchmarks.conditions import Conditions, cores, machine, quiet
from vae_lab.atomic import write_json
from vae_lab.cli import run_plain_command
from vae_lab.commands.help import Command
from vae_lab.errors import ConfigError
from vae_lab.wiring.arguments import Arguments, Key

if TYPE_CHECKING:
    from benchmarks.sides import Case

BUSY = 0.25
"""The share of the cores that are at work already, above which a measurement is not to be trusted."""

KEYS = {
    "case": Key(f"what is measured: {ALL}, or some of {', '.join(CASES)}", default=DEFAULT, is_list=True),
    "repeats": Key(
        "how often each side of a case works, in turn with the others; without it: 7, or fewer where one takes long",
    ),
    "seconds": Key("about how long each time", default="0.7"),
    "threads": Key("of the CPU; without it: all cores"),
    "device": Key("what computes", default="cpu", choices=("cpu", "cuda")),
    "output": Key("a new JSON file; without it: outputs/bench/<date_time>.json", is_path=True),
}


def bench(arguments: Arguments) -> Path:
    """Measures the cases one after the other, prints a table of each; returns the JSON file, written after every case.

    Raises:
        ConfigError: an argument is refused, or the data is not there; nothing was measured.
    """
    repeats = arguments.whole("repeats", at_least=1) if arguments.one("repeats") else None
    seconds = positive(arguments, "seconds")
    device = arguments.one("device")
    names = chosen(arguments.all("case"), device)
    path = new_file(arguments.one("output"))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = arguments.whole("threads", at_least=1) if arguments.one("threads") else available
    if threads > available:
        raise ConfigError(f"threads must be <= {available}, the cores that this process may use, got {threads}")
    started = time.monotonic()
    with cores(threads), tempfile.TemporaryDirectory(prefix="vae-lab-bench-") as folder, quiet():
        refuse_absent_device(device)
        warn_of_others()
        conditions = Conditions(threads, device, Path(folder))
        cases = {name: make_case(name, conditions) for name in names}
        settings = {"repeats": repeats, "seconds": seconds, "threads": threads, "device": device}
        report: dict[str, Any] = {"date": datetime.now().astimezone().isoformat(timespec="seconds")}
        report |= {"settings": settings, "machine": machine(device), "cases": {}}
        for name in names:
            report["cases"][name] = measured(name, cases.pop(name), conditions, repeats, seconds)
            report["seconds"] = round(time.monotonic() - started, 1)
            write_json(path, report)
    return path


def measured(name: str, case: "Case", conditions: Conditions, repeats: int | None, seconds: float) -> dict[str, Any]:
    """Measures a case and prints it; returns what the file says about it."""
    from benchmarks.results import plain, print_outcome
    from benchmarks.sides import measure_case

    started = time.monotonic()
    outcome = measure_case(case, repeats=repeats, seconds=seconds, neutral=conditions.neutral)
    print_outcome(name, outcome)
    return plain(outcome) | {"seconds": round(time.monotonic() - started, 1)}


def positive(arguments: Arguments, key: str) -> float:
    """The value of a key as a number > 0."""
    text = arguments.one(key)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{key} must be a number > 0, got {text!r}")
    return value


def new_file(text: str) -> Path:
    """Where the measurements go; never a file that exists."""
    path = Path(text or f"outputs/bench/{datetime.now():%Y-%m-%d_%H-%M-%S}.json").expanduser()
    if path.exists():
        raise ConfigError(f"output={path} exists already: measurements are never overwritten; name another file")
    return path


def warn_of_others() -> None:
    """Says so where other processes are at work: threads that wait for each other then suffer most."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY * (os.cpu_count() or 1):
        print(f"note: other processes are busy (load average {load:.1f}): ratios will be off", file=sys.stderr)


def refuse_absent_device(device: str) -> None:
    """Refuses a device that PyTorch does not find."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device must be cpu on this machine, got cuda: PyTorch finds no GPU")


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns its exit code."""
    this = Command("how fast the lab is beside other ways to do the same work", "case=mlp", plain="benchmarks.bench")
    return run_plain_command("bench", this, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
