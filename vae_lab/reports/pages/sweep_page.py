"""The page about a sweep: bound and log p(x) against the latent size, curves and samples side by side, every run."""

import glob
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vae_lab.data.image_grids import image_grid
from vae_lab.errors import RunError
from vae_lab.figures.canvas import encoded_tile
from vae_lab.figures.run_pictures import dark_on_white_by_default
from vae_lab.figures.side_by_side import against_latent_dim
from vae_lab.randomness import generator
from vae_lab.reports.listing.measured import DRAWS, SPLIT, TITLES
from vae_lab.reports.listing.rows import Groups, list_of_runs
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, read_overviews
from vae_lab.reports.pages.command_lines import new_run, resume, sweep_again
from vae_lab.reports.pages.comparison import curves_section
from vae_lab.reports.pages.page import UNREADABLE, Picture, Section, reason_of
from vae_lab.reports.pages.reading import Reader
from vae_lab.reports.values import as_text, enumerated, letters
from vae_lab.runs.result import draws_behind, draws_of_z, loss_of, trained_with
from vae_lab.wiring.arguments import override, pasted
from vae_lab.wiring.table import Table, number

SIDE = 6
"""Samples along each side of a grid."""
SEED = 0
"""The seed of the samples: all models of a latent size decode the same z."""
TILE_BYTES = 2_500_000
"""The most that all grids together may take in a page that is to be mailed."""
BOUND = "test/bound"
SHOWN = ("test/kl", "test/active_units")
"""What is measured besides the bound."""
LATENT_DIM = ("latent_dim", "model.latent_dim")
"""The names of the axis of the picture, which is in the name of no series."""


@dataclass(frozen=True)
class Sweep:
    """A folder of runs."""

    folder: Path
    runs: list[Overview]
    broken: Mapping[str, str]
    """Folders that are no whole run directories, and why not."""

    @cached_property
    def groups(self) -> Groups:
        """The finished runs with a bound on the test split, in groups that differ in the seed alone."""
        runs = Runs([run for run in self.runs if run.is_finished and run.value(BOUND) is not None])
        group = [key for key in runs.differing() if key not in ("seed", "model.latent_dim")]
        show = [key for key in SHOWN if any(run.value(key) is not None for run in runs.runs)]
        return Groups(runs, [*group, "model.latent_dim"], ["seed"], show)

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row for each group: its first run, series, data and latent_dim."""
        runs = self.groups.runs
        names = runs.names(without=("data", "seed", *LATENT_DIM))
        rows = []
        for (first, *_), facts in zip(self.groups.members, self.groups.facts.to_dict("records"), strict=True):
            run, known = runs.runs[first], [f"{name} {fact}" for name, fact in facts.items() if fact]
            rows.append((run, ", ".join(filter(None, [run.data, names[first], *known])), run.data, run.latent_dim))
        return pd.DataFrame(rows, columns=["run", "series", "data", "latent_dim"])

    def means(self, quantity: str = "bound") -> pd.DataFrame:
        """The points with mean, se and the yardstick of the mean, where there is one."""
        frame: Any = self.groups.measured.frame[quantity]
        means = frame[["value", "error"]].astype(float).set_axis(["mean", "se"], axis=1)
        return self.points.join(means).join(frame["yardstick"]).dropna(subset="mean")

    @property
    def left_out(self) -> list[tuple[str, str, str]]:
        """Directory, status and reason of each run that is not in the means."""
        again = dict.fromkeys(
            (self.groups.runs.runs[i].path for i in self.groups.repeated),
            "repeats another run: the same settings and the same seed",
        )
        without = "finished, without a bound on the test split (no encoder, or not measured)"
        reasons = [
            (run, run.lack or (without if run.value(BOUND) is None else again.get(run.path, ""))) for run in self.runs
        ]
        return [(run.path.name, run.status, reason) for run, reason in reasons if reason]

    @property
    def headline(self) -> str:
        """The sweep in a sentence."""
        series, left = self.means()["series"].nunique(), len(self.left_out)
        rest = f"; {left} not in the means" if left else ""
        broken = f"; {len(self.broken)} folders that are no whole run" if self.broken else ""
        return (
            f"{len(self.runs)} runs, {len(self.runs) - left} finished with a bound, in {series} series{rest}{broken}."
        )


def read_sweep(folder: Path, checkpoint: str | None) -> Sweep:
    """What the runs in a folder say now.

    Raises:
        RunError: there is none.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    runs, errors = read_overviews(paths, checkpoint)
    broken = {path.name: str(error).removeprefix(f"{path} ") for path, error in errors.items()}
    if not runs:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(broken.items())[:3])
        raise RunError(f"{folder} holds no whole run directory{f': {reasons}' if reasons else ''}")
    runs.sort(key=lambda run: (run.data, run.network, run.latent_dim, as_text(run.settings.get("seed")), run.path))
    return Sweep(folder, runs, broken)


def sweep_sections(sweep: Sweep, reader: Reader) -> list[Section]:
    """Everything about a sweep."""
    labelled = {letters(i): run for i, run in enumerate(sweep.runs)}
    table = list_of_runs(Runs(sweep.runs), SHOWN, labels=list(labelled), root=str(sweep.folder))
    return [
        means_section(sweep),
        *missing_sections(sweep),
        curves_section(labelled),
        samples_section(sweep, reader),
        Section("Runs", tables=[table]),
        *again_sections(sweep),
    ]


def means_section(sweep: Sweep) -> Section:
    """Bound and log p(x) against the latent size, and the table."""
    section, means = Section("Bound and latent size"), sweep.means()
    if means.empty:
        section.text.append("No run is finished and has a bound on the test split yet.")
        return section
    if len(set(means["yardstick"])) > 1:
        what = "Nats of other data, binarisation, likelihood or number of draws of z"
        section.text.append(f"{what} share no axis: they have a picture each.")
    for name, title in TITLES.items():
        for yardstick, chosen in sweep.means(name).groupby("yardstick", sort=False):
            single = sum(map(math.isnan, chosen["se"]))
            bars = "bars: the standard error over seeds"
            bars += f" (none at {single} of {len(chosen)} points, which have one seed)" if single else ""
            facts: Any = dict(yardstick)  # pyright: ignore[reportArgumentType, reportCallIssue]
            what = f"{facts[SPLIT]} {title}"
            draws = draws_of_z(draws_behind(chosen["run"].iloc[0].measured, f"{facts[SPLIT]}/{name}"))
            by = f" by {facts['estimator']}" if "estimator" in facts else ""
            losses = [trained_with(loss_of(run.settings)) for run in chosen["run"]]
            trained, whose = losses[0], ""
            if len(set(losses)) > 1:
                named = [series + loss for series, loss in zip(chosen["series"], losses, strict=True) if loss]
                trained, whose = "", f" {enumerated(list(dict.fromkeys(named)))}."
            draw = partial(against_latent_dim, chosen, title=chosen["data"].iloc[0], quantity=what)
            section.draw(draw, f"Mean {what}{draws}{by}{trained} against the latent size; {bars}.{whose}", pdf=True)
    section.tables = [sweep.groups.table()]
    return section


def missing_sections(sweep: Sweep) -> list[Section]:
    """What is not in the means, and why."""
    tables = [
        Table(("directory", "status", "why"), sweep.left_out, "Runs that do not count."),
        Table(
            ("folder", "why"),
            list(sweep.broken.items()),
            "Folders that are no whole run directory; they are left as they are.",
        ),
    ]
    tables = [table for table in tables if table.rows]
    return [Section("Not in the means", tables=tables)] if tables else []


def samples_section(sweep: Sweep, reader: Reader) -> Section:
    """Decoder means at the same z, for one seed of every point."""
    section, tiles, left_out, total = Section("Samples"), [], [], 0
    for run, series in sweep.means()[["run", "series"]].itertuples(index=False):
        name = f"{series}, latent_dim {run.latent_dim}"
        try:
            tile = sample_tile(run, reader)
        except UNREADABLE as error:
            section.text.append(f"{name}: no samples: {reason_of(error)}.")
            continue
        if total + len(tile) > TILE_BYTES:
            left_out.append(name)
            continue
        total += len(tile)
        seed = as_text(run.settings.get("seed"))
        draws = "" if DRAWS in series else draws_of_z(draws_behind(run.measured, BOUND))
        bound = f"{number(run.value(BOUND), places=1)} nats{draws}{trained_with(loss_of(run.settings))}"
        tiles.append(Picture(tile, f"{name}: {bound} (seed {seed})", alt=f"{SIDE} x {SIDE} samples of {name}"))
    section.tiles = tiles
    what = f"Decoder means at {SIDE * SIDE} draws z ~ N(0, I), the same for all models of a latent size; of each point"
    what += " the run with the smallest seed, its own test bound below it."
    section.text.insert(0, what if tiles else "There are none yet.")
    if left_out:
        section.text.append(f"Left out, to keep the page light: {'; '.join(left_out)}.")
    return section


def sample_tile(run: Overview, reader: Reader) -> bytes:
    """A small grid of samples."""
    model = reader.load(run)
    z = torch.randn(SIDE * SIDE, model.model.latent_dim, generator=generator("cpu", SEED, "report"))
    images = model.decode(z)
    return encoded_tile(image_grid(images, columns=SIDE, padding=1, dark_on_white=dark_on_white_by_default(model)))


def again_sections(sweep: Sweep) -> list[Section]:
    """How to make the sweep again, go on with it, and use it."""
    folder, whole = sweep.folder, sweep_again(sweep.folder)
    commands = [text for run in sweep.runs if (text := new_run(run)) is not None]
    open_runs = [run for run in sweep.runs if not run.is_finished]
    pattern = f"{glob.escape(str(folder))}/*"
    every = override("run", pattern) if set(pattern) & set(",'\"") else f"run={pattern}"
    load = (
        "from pathlib import Path\n\nfrom vae_lab import load_run\n\n"
        f"runs = [load_run(path.parent) for path in sorted(Path({str(folder)!r}).glob('*/run.json'))]\n"
        "bounds = {run.path.name: run.metrics.get('test/bound') for run in runs}"
    )
    return [
        Section(
            "Reproduce",
            ["The command skips what is finished, and goes on with what is not." if whole else "Run by run."],
            code=[whole] if whole else [],
            details={"Every run on its own": "\n".join(commands)} if commands else {},
        ),
        Section(
            "Resume",
            ["The same command goes on; a single run:" if open_runs else "All runs are finished."],
            code=[resume(run) for run in open_runs[:5]],
        ),
        Section("Load", ["In Python."], code=[load, pasted("compare", every)]),
    ]
