"""The page about a sweep: means over seeds, the bound against the latent size, every run, samples side by side."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from vae_lab.errors import RunError
from vae_lab.figures.base import part, records
from vae_lab.figures.canvas import encoded_tile
from vae_lab.figures.run_facts import dark_on_white_by_default
from vae_lab.figures.side_by_side import bound_against_latent_dim
from vae_lab.image_grids import image_grid
from vae_lab.randomness import generator
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, grouped, read_overview
from vae_lab.reports.pages.page import Details, Picture, Section
from vae_lab.reports.pages.run_page import new_run_command
from vae_lab.reports.pages.run_parts import (
    UNREADABLE,
    Reader,
    add_picture,
    pasted,
    reason_of,
    resume,
    title,
)
from vae_lab.reports.table import Table, number
from vae_lab.reports.values import as_text, is_number
from vae_lab.wiring.terminal import duration

SIDE = 6
"""Samples along each side of a grid."""
SEED = 0
"""Of the samples: the same z for all models of a latent size."""
TILE_BYTES = 2_500_000
"""Of all grids together: in a page that is to be mailed."""
IN_NAME = ("data", "network")
"""What every series is called by."""
AVERAGED = ("latent_dim", "model.latent_dim", "seed")
"""Settings that do not make a series of their own."""
BOUND = "test/bound"
MEASURED = {BOUND: "bound", "test/kl": "kl", "test/active_units": "active"}


@dataclass(frozen=True)
class Sweep:
    """A folder of runs."""

    folder: Path
    runs: list[Overview]
    table: pd.DataFrame
    """A row for each run: its place in `runs`, series, data, network, latent_dim, seed, the values of `MEASURED`, and
    `lack`: why it does not count."""
    broken: dict[str, str]
    """Folders that are no whole run directories -> why not."""

    @property
    def counted(self) -> pd.DataFrame:
        """The rows that the means are made of."""
        return part(self.table, lack="")


def read_sweep(folder: Path, checkpoint: str | None) -> Sweep:
    """What the runs in a folder say now.

    Raises:
        RunError: there is none.
    """
    runs, broken = [], {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(read_overview(path, checkpoint))
            except RunError as error:
                broken[path.name] = str(error).removeprefix(f"{path} ")
    if not runs:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(broken.items())[:3])
        raise RunError(f"{folder} holds no whole run directory{f': {reasons}' if reasons else ''}")
    runs.sort(key=lambda run: (run.data, run.network, run.latent_dim, as_text(run.settings.get("seed")), run.path))
    return Sweep(folder, runs, sweep_table(runs), broken)


def sweep_table(runs: Sequence[Overview]) -> pd.DataFrame:
    """A row for each run."""
    frame = pd.DataFrame({"data": [run.data for run in runs], "network": [run.network for run in runs]})
    columns = Runs(runs).distinctions() | {"draws of z": [str(run.draws("test")) for run in runs]}
    names = []
    for name, texts in columns.items():
        within = frame[list(IN_NAME)].assign(text=texts).drop_duplicates()
        if name not in AVERAGED and len(within) > len(frame[list(IN_NAME)].drop_duplicates()):
            names.append(name)
            frame[name] = texts
    frame["series"] = [
        ", ".join([row["data"], row["network"], *(f"{title(name)} {row[name]}" for name in names)])
        for row in records(frame)
    ]
    frame["run"] = range(len(runs))
    frame["latent_dim"] = [run.latent_dim for run in runs]
    frame["seed"] = [run.settings.get("seed") for run in runs]
    for key, name in MEASURED.items():
        frame[name] = pd.Series([run.value(key) for run in runs], dtype=float)
    without = "finished, without a bound on the test part (no encoder, or not measured)"
    frame["lack"] = [run.lack or ("" if run.value(BOUND) is not None else without) for run in runs]
    again = (frame["lack"] == "") & frame.duplicated(["series", "latent_dim", "seed", "lack"], keep="last")
    frame["lack"] = frame["lack"].mask(again, "repeats another run: the same settings and the same seed")
    return frame


def sweep_headline(sweep: Sweep) -> str:
    """The sweep in a sentence."""
    counted = sweep.counted
    series, left = counted["series"].nunique(), len(sweep.table) - len(counted)
    rest = f"; {left} not in the means" if left else ""
    broken = f"; {len(sweep.broken)} folders that are no whole run" if sweep.broken else ""
    return f"{len(sweep.runs)} runs, {len(counted)} finished with a bound, in {series} series{rest}{broken}."


def sweep_sections(sweep: Sweep, reader: Reader) -> list[Section]:
    """Everything about a sweep."""
    return [
        means_section(sweep),
        *([missing_section(sweep)] if len(sweep.counted) < len(sweep.table) or sweep.broken else []),
        samples_section(sweep, reader),
        runs_section(sweep),
        *again_sections(sweep),
    ]


def means(sweep: Sweep) -> pd.DataFrame:
    """For every series and latent size: mean and standard error over seeds, and how many there are."""
    by_point = sweep.counted.groupby(["series", "latent_dim"], sort=False)
    frame = by_point.agg(
        data=("data", "first"),
        mean=("bound", "mean"),
        se=("bound", "sem"),
        seeds=("bound", "count"),
        kl=("kl", "mean"),
        active=("active", "mean"),
    )
    return frame.reset_index().sort_values(["data", "series", "latent_dim"], kind="stable")


def means_section(sweep: Sweep) -> Section:
    """The bound against the latent size, and the table."""
    frame = means(sweep)
    if frame.empty:
        return Section("Bound and latent size", text=["No run is finished and has a bound on the test part yet."])
    series = {row["series"]: sweep.runs[row["run"]] for row in records(sweep.counted)}
    groups = grouped(series, lambda run: (run.data, run.test_conditions))
    text, pictures = [], []
    if len(groups) > 1:
        text.append("Nats of other data, binarisation or likelihood share no axis, so they have a picture each.")
    for group in groups:
        chosen = pd.concat([part(frame, series=name) for name in group])
        bars, single = "bars: the standard error over seeds", len(part(chosen, seeds=1))
        bars += f" (none at {single} of {len(chosen)} points, which have one seed)" if single else ""
        draw = partial(bound_against_latent_dim, chosen, title=next(iter(group.values())).data)
        add_picture(pictures, text, draw, f"Mean bound on the test part against the latent size; {bars}.")
    rows = [
        [
            row["series"],
            str(row["latent_dim"]),
            number(row["mean"]),
            number(row["se"], places=3),
            str(row["seeds"]),
            number(row["kl"]),
            number(row["active"], places=1),
        ]
        for row in records(frame)
    ]
    columns = ("series", "Nz", "test bound", "s.e.", "seeds", "KL", "active units")
    caption = (
        "Means over seeds, in nats per datapoint; s.e.: the sample standard deviation over the root of their number."
    )
    return Section("Bound and latent size", text=text, pictures=pictures, tables=[Table(columns, rows, caption)])


def missing_section(sweep: Sweep) -> Section:
    """What is not in the means, and why."""
    rows = [
        [run.status, row["series"], str(run.latent_dim), as_text(row["seed"]), row["lack"], run.path.name]
        for row, run in zip(records(sweep.table), sweep.runs, strict=True)
        if row["lack"]
    ]
    broken = [[name, reason] for name, reason in sweep.broken.items()]
    tables = [
        Table(("status", "series", "Nz", "seed", "why", "directory"), rows, "Runs that do not count."),
        Table(("folder", "why"), broken, "Folders that are no whole run directory; they are left as they are."),
    ]
    return Section("Not in the means", tables=[table for table in tables if table.rows])


def samples_section(sweep: Sweep, reader: Reader) -> Section:
    """Decoder means at the same z, for one seed of every point."""
    frame = sweep.counted.sort_values(["data", "series", "latent_dim", "seed"], kind="stable")
    chosen = frame.drop_duplicates(["series", "latent_dim"])
    tiles, text, total, left_out = [], [], 0, []
    for row in records(chosen):
        run = sweep.runs[row["run"]]
        name = f"{row['series']}, Nz {run.latent_dim}"
        try:
            tile = sample_tile(run, reader)
        except UNREADABLE as error:
            text.append(f"{name}: no samples: {reason_of(error)}.")
            continue
        if total + len(tile) > TILE_BYTES:
            left_out.append(name)
            continue
        total += len(tile)
        tiles.append(Picture(tile, f"{name}: {number(row['bound'], places=1)} nats (seed {as_text(row['seed'])})"))
    if tiles:
        what = (
            f"Decoder means at {SIDE * SIDE} draws z ~ N(0, I), the same for all models of a latent size; of each point"
        )
        text.insert(0, f"{what} the run with the smallest seed, its own test bound below it.")
    if left_out:
        text.append(f"Left out, to keep the page light: {'; '.join(left_out)}.")
    if not tiles:
        text.append("There are none yet.")
    return Section("Samples", text=text, tiles=tiles)


def sample_tile(run: Overview, reader: Reader) -> bytes:
    """A small grid of samples."""
    model = reader.load(run)
    z = torch.randn(SIDE * SIDE, model.model.latent_dim, generator=generator("cpu", SEED, "report"))
    images = model.decode(z)
    return encoded_tile(image_grid(images, columns=SIDE, padding=1, dark_on_white=dark_on_white_by_default(model)))


def runs_section(sweep: Sweep) -> Section:
    """A row for each run."""
    columns = Runs(sweep.runs).distinctions()
    rows = []
    for i, run in enumerate(sweep.runs):
        values = [number(run.value(key), places=0 if name == "active" else 2) for key, name in MEASURED.items()]
        seconds = run.record.get("wall_seconds")
        took = duration(seconds) if is_number(seconds) else ""
        settings = [texts[i] for texts in columns.values()]
        rows.append([run.status, *settings, *values, f"{run.samples:,}", took, run.path.name])
    names = ("status", *map(title, columns), "test bound", "KL", "active units", "samples", "time", "directory")
    caption = "Nats per datapoint; of a run that is not finished, the last values on its curve."
    return Section("Runs", tables=[Table(names, rows, caption)])


def again_sections(sweep: Sweep) -> list[Section]:
    """How to make the sweep again, go on with it, and use it."""
    folder, whole = sweep.folder, sweep_command(sweep.folder)
    commands = [text for run in sweep.runs if (text := new_run_command(run)) is not None]
    details = [Details("Every run on its own", "\n".join(commands))] if commands else []
    open_runs = [run for run in sweep.runs if not run.is_finished]
    text = "The command skips what is finished, and goes on with what is not." if whole else "Run by run."
    load = (
        "from pathlib import Path\n\nfrom vae_lab import load_run\n\n"
        f"runs = [load_run(path.parent) for path in sorted(Path({str(folder)!r}).glob('*/run.json'))]\n"
        "bounds = {run.path.name: run.metrics.get('test/bound') for run in runs}"
    )
    return [
        Section("Reproduce", text=[text], code=[whole] if whole else [], details=details),
        Section(
            "Resume",
            text=["The same command goes on; a single run:" if open_runs else "All runs are finished."],
            code=[resume(run) for run in open_runs[:5]],
        ),
        Section("Load", text=["In Python."], code=[load, pasted("compare", f"run={folder}/*")]),
    ]


def sweep_command(folder: Path) -> str | None:
    """The command line that Hydra kept of the sweep's last invocation; None where it kept none."""
    file = folder / "multirun.yaml"
    try:
        kept: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        overrides: Mapping[str, Any] = kept["hydra"]["overrides"]
        typed = [str(text) for part in ("hydra", "task") for text in overrides[part]]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    shown = [text for text in typed if text not in ("hydra.mode=MULTIRUN", "hydra.run.dir=.")]
    return shlex.join(["vae-lab", "train", "-m", *shown])
