"""`scripts/campaign`: tries to break the lab at random, counts what held, and names the command of what did not."""

import itertools
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

from vae_lab.cli import run_plain_command
from vae_lab.commands.help import Command
from vae_lab.errors import ConfigError, nearest, require_integer, require_number
from vae_lab.wiring.arguments import key
from vae_lab.wiring.table import Table

KINDS = {"kills": 2, "storage": 1, "damage": 6, "hostile": 2, "lines": 6}
"""What is tried, and how often in a round."""


@dataclass(frozen=True)
class CampaignSettings:
    """The keys of `scripts/campaign`."""

    minutes: float = key("for how long", 20.0)
    rounds: int | None = key(
        "how many rounds at most, of some trials of each kind; without it: as the time allows", None
    )
    kinds: list[str] = key(f"some of {', '.join(KINDS)}", [*KINDS])
    seed: int = key("of everything random; the number of a trial that broke is shown with it", 0)
    trial: int | None = key("only the trial of this number, of one kind, to see again what broke", None)
    out: str | None = key("a file for what broke, besides what is shown", None, is_path=True)

    def __post_init__(self) -> None:
        require_number("minutes", self.minutes)
        require_integer("rounds", self.rounds, minimum=1, optional=True)
        require_integer("seed", self.seed, minimum=0)
        require_integer("trial", self.trial, minimum=0, optional=True)
        for name in self.kinds:
            if name not in KINDS:
                raise ConfigError(f"kinds={name} is no kind of trial: {nearest(name, KINDS)}")
        if self.trial is not None and len(self.kinds) != 1:
            raise ConfigError(f"trial={self.trial} needs the kind of that trial: add kinds=KIND")


def campaign(given: CampaignSettings) -> Path | None:
    """Tries until the time is over, and prints how much was tried and held; returns the file of what broke.

    Raises:
        ConfigError: an argument is refused.
        SystemExit: something broke.
    """
    from campaigns import forks, trials

    for name in forks.IMPORTED:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="vae-lab-campaign-") as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        trials.make_runs(runs)
        tried, broken = dict.fromkeys(given.kinds, 0), dict.fromkeys(given.kinds, 0)
        reports: list[str] = []
        for name in order(given):
            number = tried[name] if given.trial is None else given.trial
            here = Path(folder) / "trial"
            here.mkdir()
            tried[name] += 1
            random = Random(f"{given.seed} {name} {number}")
            try:
                print(f"{name} {number}: {made_by(name)(trials.Trial(here, runs, random))}", flush=True)
            except Exception as failure:  # a fault of the trial itself counts, and is shown as well
                broken[name] += 1
                said = str(failure) if isinstance(failure, trials.Broken) else traceback.format_exc()
                reports.append(f"BROKEN: scripts/campaign kinds={name} seed={given.seed} trial={number}\n{said}")
                print(reports[-1], flush=True)
            shutil.rmtree(here)
    rows = [[name, str(tried[name]), str(tried[name] - broken[name])] for name in tried]
    Table(("kind", "tried", "held"), rows, f"seed {given.seed}, {given.minutes:g} minutes").print()
    path = None if given.out is None else Path(given.out)
    if path is not None:
        path.write_text("\n\n".join(reports), errors="backslashreplace")
    if reports:
        raise SystemExit(1)
    return path


def order(given: CampaignSettings) -> Iterator[str]:
    """The kinds of the trials, one after the other, as often as asked for."""
    if given.trial is not None:
        yield given.kinds[0]
        return
    end, rounds = (
        time.monotonic() + 60 * given.minutes,
        itertools.count() if given.rounds is None else range(given.rounds),
    )
    for _ in rounds:
        for name in given.kinds:
            for _ in range(KINDS[name]):
                if time.monotonic() > end:
                    return
                yield name


def made_by(name: str) -> Callable[..., str]:
    """The function that makes and judges one trial of a kind: that of the same name."""
    return getattr(import_module(f"campaigns.{name}"), name)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns its exit code."""
    this = Command("tries to break the lab at random", "minutes=20 kinds=kills,damage", plain="campaigns.campaign")
    return run_plain_command("campaign", this, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
