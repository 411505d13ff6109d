"""How fast a training is on this machine, from a second of it: what plans estimate their time with."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vae_lab.atomic import read_cache, write_json
from vae_lab.runs.identity import Fact, Kind, config_hash, keys_of
from vae_lab.training.marks import next_evaluation
from vae_lab.training.signals import PARENT
from vae_lab.wiring.dotted import value_at, with_values


@dataclass(frozen=True)
class Speed:
    """How fast one training is, alone on the machine."""

    per_sample: float
    """Seconds for a training sample evaluated."""
    per_evaluation: float
    """Seconds for an evaluation of the bound."""
    samples_per_epoch: int
    checkpoint_bytes: int
    """The size of weights and optimiser's state together."""

    def seconds(self, samples: int, evaluations: int) -> float:
        """The time of a training, without the start of its process."""
        return samples * self.per_sample + evaluations * self.per_evaluation


class Speeds:
    """Measured speeds, kept in a file: a repeated command need not measure again."""

    def __init__(self, path: Path, *, threads: int, measure_for: float) -> None:
        self.path, self.threads, self.measure_for = path, threads, measure_for
        self.known = read_speeds(path)
        self.failed: dict[str, None] = {}

    def of(self, config: Mapping[str, Any]) -> Speed | None:
        """The speed of this training, whatever its budget and step size; None where it cannot be tried."""
        self.measure([config])
        known = self.known.get(self.key(config))
        return Speed(**known) if known else None

    def measure(self, configs: Iterable[Mapping[str, Any]]) -> None:
        """Measures those that are not known, in a process of its own, which may run out of memory or worse."""
        keyed = {self.key(config): {**config, "threads": self.threads} for config in configs}
        while missing := {key: config for key, config in keyed.items() if key not in self.known | self.failed}:
            with tempfile.TemporaryDirectory(prefix="vae-lab-speed-") as folder:
                todo = Path(folder) / "trainings.json"
                write_json(todo, {"trainings": missing, "seconds": self.measure_for})
                probe = [sys.executable, "-m", "vae_lab.jobs.speed_probe", str(todo), str(self.path)]
                subprocess.run(probe, env={**os.environ, PARENT: str(os.getpid())}, check=False)
            self.known |= read_speeds(self.path)
            # it goes through them in order: the first one without a speed is what it failed at
            self.failed |= dict.fromkeys([key for key in missing if key not in self.known][:1])

    def key(self, config: Mapping[str, Any]) -> str:
        """What trainings of one speed have in common."""
        alike = with_values(config, dict.fromkeys(keys_of(Fact.ANY_SPEED)))
        speed = [value_at(config, key) for key in (*keys_of(Kind.SPEED), *keys_of(Kind.DEVICES))]
        return f"{config_hash(alike | {'speed': speed})}-{self.threads}"

    def of_start(self) -> float:
        """Seconds that a process needs before it trains: Python and the frameworks."""
        if "start" not in self.known:
            started = time.monotonic()
            subprocess.run([sys.executable, "-c", "import vae_lab.jobs.execute"], check=True)
            self.known["start"] = time.monotonic() - started
            write_json(self.path, self.known)
        return self.known["start"]


def read_speeds(path: Path) -> dict[str, Any]:
    """The whole entries of a file of measured speeds; what is damaged is measured anew."""
    names = {field.name for field in fields(Speed)}

    def is_whole(key: str, entry: Any) -> bool:
        numbers = {"start": entry} if key == "start" else entry
        is_complete = isinstance(numbers, dict) and set(numbers) in ({"start"}, names)
        return is_complete and all(isinstance(number, int | float) for number in numbers.values())

    return {key: entry for key, entry in read_cache(path).items() if is_whole(key, entry)}


def count_evaluations(config: Mapping[str, Any], samples: int) -> int:
    """The evaluations of a training with this budget, and the ledger's at its end."""
    marks = {key: config["evaluation"][key] for key in ("first", "per_decade", "every")}
    count, position = 1, 0
    while position < samples:
        position = next_evaluation(position, **marks)
        count += 1
    return count
