"""`vae-lab runs`: the runs below a folder, what they differ in and what was measured; or means over seeds."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vae_lab.errors import ConfigError
from vae_lab.reports.overview import Overview, find_runs
from vae_lab.reports.values import counted
from vae_lab.wiring.arguments import key, named_paths
from vae_lab.wiring.table import Table
from vae_lab.wiring.terminal import say

if TYPE_CHECKING:  # the settings are read before pandas is imported
    from vae_lab.reports.listing.runs import Runs

UNKNOWN_DATA = "data set unknown"
MAKE_ONE = "vae-lab train experiment=quickstart"


@dataclass(frozen=True)
class RunsSettings:
    """The keys of `vae-lab runs`."""

    root: list[str] = key("the folders, or patterns, below which runs are looked for", ["outputs"], is_path=True)
    where: list[str] = key(
        "conditions, all of which hold: status=finished, model.latent_dim>=5, optimizer.lr!=0.01, test/bound>-105 (a "
        "shell wants < and > in quotation marks), on any key of config.yaml, run.json and metrics.json",
        [],
    )
    sort: list[str] = key("keys, the first decides: best first where higher is better; sort=-key turns it round", [])
    show: list[str] = key("further keys as columns: test/kl, test/active_units, git_commit", [])
    group: list[str] = key("mean ± standard error of the finished runs that agree in these keys; with over=", [])
    over: list[str] = key("what is averaged over; without group=: the groups are all else that differs", [])
    format: str = key(
        "csv and json have full keys and full precision, the others are for readers",
        "table",
        choices=("table", "csv", "json", "markdown", "latex"),
    )


def runs(settings: RunsSettings) -> None:
    """Lists runs on stdout; what went without saying goes to stderr.

    Raises:
        ConfigError: a root is no folder, or a key is none of the runs'.
    """
    from vae_lab.reports.listing.runs import Runs

    roots = folders_of(settings.root)
    every = Runs(find_runs(roots))
    chosen = every.that_have(settings.where)
    if not chosen.runs:
        where = " and ".join(settings.where)
        many = f"none of {counted(len(every.runs))} below {', '.join(roots)} has {where}"
        none = f"there is no run below {', '.join(roots)}: {MAKE_ONE} makes one"
        say("vae-lab runs", many if every.runs else none)
    form = settings.format
    if chosen.runs:
        for table in make_tables(chosen, every, settings, roots, _title(roots, every.runs, chosen.runs)):
            table.write(form)
    elif form in ("csv", "json"):
        Table().write(form)


def folders_of(roots: Sequence[str | Path]) -> list[str]:
    """The folders that the values of the key `root` name, each once.

    Raises:
        ConfigError: a pattern matches nothing, or there is no such folder.
    """
    folders = list(map(str, named_paths("root", list(map(str, roots)))))
    if absent := [folder for folder in folders if not os.path.isdir(folder)]:
        raise ConfigError(f"root={absent[0]} must be a folder, and there is none: {MAKE_ONE} makes a run in outputs")
    return folders


def make_tables(
    runs: "Runs", every: "Runs", settings: RunsSettings, roots: Sequence[str], title: str
) -> Iterator[Table]:
    """A row for each run, for readers in one table for each data set, or for each group.

    Keys may be those of every run that was found.
    """
    from vae_lab.reports.listing.rows import Groups, list_of_runs
    from vae_lab.reports.listing.runs import Runs

    sort = [_sort_key(name, every) for name in settings.sort]
    show, group, over = (
        [every.resolve(name, f"{key}={name}") for name in getattr(settings, key)] for key in ("show", "group", "over")
    )
    shown = [*show, *(name.removeprefix("-") for name in sort)]
    if not group and not over:
        root = roots[0] if len(roots) == 1 else None
        names = [run.values.get("data.name", UNKNOWN_DATA) for run in runs.runs]
        is_one = settings.format in ("csv", "json") or len(set(names)) == 1
        for name in [""] if is_one else sorted(set(names)):
            block = runs if is_one else Runs([run for run, data in zip(runs.runs, names, strict=True) if data == name])
            heading = "" if is_one else f"{name}: {counted(len(block.runs))}"
            yield list_of_runs(block, shown, sort, "\n".join(filter(None, [title, heading])), root=root)
            title = ""
        return
    over = over or ["seed"]
    if not group:
        group = [key for key in runs.finished.differing() if key not in over]
    yield Groups(runs, group, over, [key for key in shown if key not in group], sort).table(title)


def _sort_key(name: str, every: "Runs") -> str:
    sign = "-" if name.startswith("-") else ""
    return sign + every.resolve(name.removeprefix("-"), f"sort={name}")


def _title(roots: Sequence[str], found: Sequence[Overview], chosen: Sequence[Overview]) -> str:
    counts = Counter(run.status for run in chosen)
    statuses = ", ".join(f"{num} {status}" for status, num in counts.items())
    how_many = f"{len(chosen)} of " if len(chosen) < len(found) else ""
    return f"{', '.join(roots)}: {how_many}{counted(len(found))} ({statuses})"
