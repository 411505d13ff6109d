"""`vae-lab runs`: the runs below a folder, what they differ in and what was measured; or means over seeds."""

import os
import sys
from collections import Counter
from collections.abc import Sequence

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.measured import aliases
from vae_lab.reports.listing.rows import Groups, list_of_runs
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, find_runs
from vae_lab.reports.table import Table
from vae_lab.reports.values import counted
from vae_lab.wiring.arguments import Arguments, Key, named_paths

KEYS = {
    "root": Key(
        "the folders, or patterns, below which runs are looked for", default="outputs", is_list=True, is_path=True
    ),
    "where": Key(
        "conditions, all of which hold: status=finished, model.latent_dim>=5, optimizer.lr!=0.01, test/bound>-105 (a "
        "shell wants < and > in quotation marks), on any key of config.yaml, run.json and metrics.json",
        is_list=True,
    ),
    "sort": Key("keys, the first decides: best first where higher is better; sort=-key turns it round", is_list=True),
    "show": Key("further keys as columns: test/kl, test/active_units, git_commit", is_list=True),
    "group": Key("mean ± standard error of the finished runs that agree in these keys; with over=", is_list=True),
    "over": Key("what is averaged over; without group=: the groups are all else that differs", is_list=True),
    "format": Key(
        "csv and json have full keys and full precision, the others are for readers",
        default="table",
        choices=("table", "csv", "json", "markdown", "latex"),
    ),
}
MAKE_ONE = "vae-lab train experiment=quickstart"


def runs(arguments: Arguments) -> None:
    """Lists runs on stdout; what went without saying goes to stderr.

    Raises:
        ConfigError: a root is no folder, or a key is none of the runs'.
    """
    roots = list(map(str, named_paths("root", arguments.all("root"))))
    for root in roots:
        if not os.path.isdir(root):
            raise ConfigError(f"root={root} must be a folder, and there is none: {MAKE_ONE} makes a run in outputs")
    every = Runs(find_runs(roots))
    every.aliases = aliases(every.runs)
    chosen = every
    if every.runs:
        conditions = [every.where(text) for text in arguments.all("where")]
        if conditions:
            chosen = every.chosen([i for i in range(len(every.runs)) if all(holds[i] for holds in conditions)])
    if not chosen.runs:
        where = " and ".join(arguments.all("where"))
        many = f"none of {counted(len(every.runs))} below {', '.join(roots)} has {where}"
        none = f"there is no run below {', '.join(roots)}: {MAKE_ONE} makes one"
        print(f"vae-lab runs: {many if every.runs else none}", file=sys.stderr)
    form = arguments.one("format")
    if chosen.runs:
        make_table(chosen, every, arguments, _title(roots, every.runs, chosen.runs)).write(form)
    elif form in ("csv", "json"):
        Table().write(form)


def make_table(runs: Runs, every: Runs, arguments: Arguments, title: str) -> Table:
    """A row for each run, or for each group; keys may be those of every run that was found."""
    sort = [_sort_key(name, every) for name in arguments.all("sort")]
    show, group, over = (
        [every.resolve(name, f"{key}={name}") for name in arguments.all(key)] for key in ("show", "group", "over")
    )
    shown = [*show, *(name.removeprefix("-") for name in sort)]
    if not group and not over:
        return list_of_runs(runs, shown, sort, title)
    over = over or ["seed"]
    if not group:
        finished = runs.chosen([i for i, run in enumerate(runs.runs) if run.is_finished])
        group = [key for key in finished.differing() if key not in over]
    return Groups(runs, group, over, [key for key in shown if key not in group], sort).table(title)


def _sort_key(name: str, every: Runs) -> str:
    sign = "-" if name.startswith("-") else ""
    return sign + every.resolve(name.removeprefix("-"), f"sort={name}")


def _title(roots: Sequence[str], found: Sequence[Overview], chosen: Sequence[Overview]) -> str:
    counts = Counter(run.status for run in chosen)
    statuses = ", ".join(f"{num} {status}" for status, num in counts.items())
    how_many = f"{len(chosen)} of " if len(chosen) < len(found) else ""
    return f"{', '.join(roots)}: {how_many}{counted(len(found))} ({statuses})"
