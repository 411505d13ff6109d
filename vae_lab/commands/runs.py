"""`vae-lab runs`: the runs below a folder, what they differ in and what was measured; or means over seeds."""

import os
import sys
from collections import Counter
from collections.abc import Sequence

from vae_lab.errors import ConfigError
from vae_lab.reports.listing.columns import aliases, sorted_entries
from vae_lab.reports.listing.conditions import read_condition
from vae_lab.reports.listing.entries import Entry, find_entries
from vae_lab.reports.listing.formats import FORMATS, WITH_NOTES, print_table
from vae_lab.reports.listing.group_rows import table_of_groups
from vae_lab.reports.listing.keys import Keys, differing
from vae_lab.reports.listing.rows import list_of_runs
from vae_lab.reports.listing.table import Table, counted
from vae_lab.wiring.arguments import Arguments, Key

KEYS = {
    "root": Key("the folders below which runs are looked for", default="outputs", is_list=True, is_path=True),
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
        choices=("table", *FORMATS),
    ),
}
MAKE_ONE = "vae-lab train experiment=quickstart"


def runs(arguments: Arguments) -> None:
    """Lists runs on stdout; what went without saying goes to stderr.

    Raises:
        ConfigError: a root is no folder, or a key is none of the runs'.
    """
    roots = arguments.all("root")
    for root in roots:
        if not os.path.isdir(os.path.expanduser(root)):
            raise ConfigError(f"root={root} must be a folder, and there is none: {MAKE_ONE} makes a run in outputs")
    found = find_entries(roots)
    keys = Keys(found, aliases(found))
    chosen = found
    if found:
        conditions = [read_condition(text, keys) for text in arguments.all("where")]
        chosen = [entry for entry in found if all(condition.holds(entry) for condition in conditions)]
    if not chosen:
        where = " and ".join(arguments.all("where"))
        many = f"none of {counted(len(found))} below {', '.join(roots)} has {where}"
        none = f"there is no run below {', '.join(roots)}: {MAKE_ONE} makes one"
        print(f"vae-lab runs: {many if found else none}", file=sys.stderr)
    table = make_table(chosen, keys, arguments, _title(roots, found, chosen)) if chosen else Table("", 0)
    form = arguments.one("format")
    if form == "table":
        if chosen:
            print_table(table)
        return
    if chosen or form not in WITH_NOTES:
        sys.stdout.write(FORMATS[form](table))
    if form not in WITH_NOTES:
        for note in table.notes:
            print(note, file=sys.stderr)


def make_table(entries: Sequence[Entry], keys: Keys, arguments: Arguments, title: str) -> Table:
    """A row for each run, or for each group."""
    sort = [_sort_key(name, keys) for name in arguments.all("sort")]
    show = [keys.resolve(name, f"show={name}") for name in arguments.all("show")]
    group = [keys.resolve(name, f"group={name}") for name in arguments.all("group")]
    over = [keys.resolve(name, f"over={name}") for name in arguments.all("over")]
    shown = [*show, *(name.removeprefix("-") for name in sort)]
    if not group and not over:
        return list_of_runs(sorted_entries(entries, sort), shown, title)
    finished = [entry for entry in entries if entry.status == "finished"]
    over = over or ["seed"]
    group = group or [key for key in differing(finished, Keys(finished)) if key not in over]
    return table_of_groups(entries, group, over, [key for key in shown if key not in group], sort, title)


def _sort_key(name: str, keys: Keys) -> str:
    sign = "-" if name.startswith("-") else ""
    return sign + keys.resolve(name.removeprefix("-"), f"sort={name}")


def _title(roots: Sequence[str], found: Sequence[Entry], chosen: Sequence[Entry]) -> str:
    counts = Counter(entry.status for entry in chosen)
    statuses = ", ".join(f"{num} {status}" for status, num in counts.items())
    how_many = f"{len(chosen)} of " if len(chosen) < len(found) else ""
    return f"{', '.join(roots)}: {how_many}{counted(len(found))} ({statuses})"
