"""`scripts/bench`: how fast the lab is, beside other ways to do the same work, measured in one run and in turn."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from vae_lab.atomic import write_json
from vae_lab.cli import run_plain_command
from vae_lab.commands.help import Command
from vae_lab.errors import ConfigError, nearest, require_integer, require_number
from vae_lab.wiring.arguments import key


class Place(NamedTuple):
    """The module with the function of that name, the devices on which it is measured by default, and those that can."""

    module: str
    default_on: Sequence[str]
    only_on: Sequence[str] = ("cpu", "cuda")


BOTH, CPU, GPU, ON_REQUEST = ("cpu", "cuda"), ("cpu",), ("cuda",), ()
CASES = {
    **dict.fromkeys(("mlp", "mlp_bf16", "conv", "frey_face", "wake_sleep", "iwae"), Place("training_cases", BOTH)),
    **dict.fromkeys(("full_variational_bayes", "monte_carlo_em"), Place("training_cases", CPU, CPU)),
    **dict.fromkeys(("importance_sampling", "hmc"), Place("estimators", BOTH)),
    **dict.fromkeys(("startup", "listing", "memory", "jobs"), Place("processes", CPU)),
    **dict.fromkeys(("whole_run", "sweep", "quickstart"), Place("processes", ON_REQUEST, CPU)),
    **dict.fromkeys(("evaluation", "growth", "precision", "time_to_bound"), Place("lab", ON_REQUEST)),
    "cuda_graph": Place("training_cases", GPU, GPU),
    "shared_jobs": Place("processes", GPU, GPU),
}
DEFAULT, ALL = "default", "all"
BUSY = 0.25
"""The share of the cores that are at work already, above which a measurement is not to be trusted."""


@dataclass(frozen=True)
class BenchSettings:
    """The keys of `scripts/bench`."""

    case: list[str] = key(f"what is measured: {ALL}, or some of {', '.join(CASES)}", [DEFAULT])
    repeats: int | None = key(
        "how often each side of a case works, in turn with the others; without it: 7, or fewer where one takes long",
        None,
    )
    seconds: float = key("about how long each time", 0.7)
    threads: int | None = key("of the CPU; without it: all cores", None)
    device: str = key("what computes", "cpu", choices=("cpu", "cuda"))
    output: str | None = key("a new JSON file; without it: outputs/bench/<date_time>.json", None, is_path=True)

    def __post_init__(self) -> None:
        require_integer("repeats", self.repeats, minimum=1, optional=True)
        require_number("seconds", self.seconds)
        require_integer("threads", self.threads, minimum=1, optional=True)


def bench(given: BenchSettings) -> Path:
    """Measures the cases one after the other, prints a table of each; returns the JSON file, written after every case.

    Raises:
        ConfigError: an argument is refused, or the data is not there; nothing was measured.
    """
    repeats, seconds, device = given.repeats, given.seconds, given.device
    names = chosen(given.case, device)
    path = Path(given.output or f"outputs/bench/{datetime.now():%Y-%m-%d_%H-%M-%S}.json").expanduser()
    if path.exists():
        raise ConfigError(f"output={path} exists already: measurements are never overwritten; name another file")

    import torch

    from benchmarks.conditions import Conditions, cores, machine, quiet
    from benchmarks.sides import measure_case, print_case
    from vae_lab.runs.provenance import available_cores

    threads = given.threads or available_cores()
    if threads > available_cores():
        raise ConfigError(
            f"threads must be <= {available_cores()}, the cores that this process may use, got {threads}: ask for fewer"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device must be cpu on this machine, got cuda: PyTorch finds no GPU")
    settings = {"repeats": repeats, "seconds": seconds, "threads": threads, "device": device}
    report: dict[str, Any] = {"date": datetime.now().astimezone().isoformat(timespec="seconds"), "settings": settings}
    report |= {"machine": machine(device), "cases": {}}
    if (load := report["machine"].get("load_average", 0)) > BUSY * (os.cpu_count() or 1):
        print(f"note: other processes are busy (load average {load:.1f}): ratios will be off", file=sys.stderr)
    started = time.monotonic()
    with cores(threads), tempfile.TemporaryDirectory(prefix="vae-lab-bench-") as folder, quiet():
        conditions = Conditions(threads, device, Path(folder))
        for name, case in [(name, make_case(name, conditions)) for name in names]:
            begun = time.monotonic()
            found = measure_case(case, repeats=repeats, seconds=seconds, neutral=conditions.neutral)
            print_case(name, found)
            report["cases"][name] = found | {"seconds": round(time.monotonic() - begun, 1)}
            report["seconds"] = round(time.monotonic() - started, 1)
            write_json(path, report)
    return path


def chosen(names: Sequence[str], device: str) -> list[str]:
    """The names of the cases to measure, in the order of the table.

    Raises:
        ConfigError: an unknown name, or a case that this device cannot answer.
    """
    for name in names:
        if name not in (*CASES, DEFAULT, ALL):
            raise ConfigError(f"case={name} is no case of scripts/bench: {nearest(name, [*CASES, DEFAULT, ALL])}")
        if name in CASES and device not in CASES[name].only_on:
            raise ConfigError(f"case={name} must be measured with device={CASES[name].only_on[0]}, got device={device}")
    every = {name for name, place in CASES.items() if ALL in names and device in place.only_on}
    default = {name for name, place in CASES.items() if DEFAULT in names and device in place.default_on}
    return [name for name in CASES if name in {*names, *every, *default}]


def make_case(name: str, conditions: Any) -> Any:
    """The case of this name, its data in memory; nothing is imported before a case is chosen."""
    make = getattr(import_module(f"benchmarks.{CASES[name].module}"), name)
    case = make(conditions)
    case.summary = make.__doc__.splitlines()[0].rstrip(".")
    return case


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns its exit code."""
    this = Command("how fast the lab is beside other ways to do the same work", "case=mlp", plain="benchmarks.bench")
    return run_plain_command("bench", this, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
