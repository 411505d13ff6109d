"""index.html of a reproduction: figures, verdicts, settings, step sizes, times and versions in one file."""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vae_lab.figures.base import Drawn
from vae_lab.figures.canvas import compressed
from vae_lab.reports.listing.rows import list_of_runs
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, find_runs
from vae_lab.reports.pages.page import Picture, Section, write_page
from vae_lab.reproduction.claims import Row
from vae_lab.reproduction.plan import ReproduceSettings
from vae_lab.reproduction.verdicts import COLUMNS, counted, with_columns
from vae_lab.wiring.arguments import pasted
from vae_lab.wiring.table import Table, number
from vae_lab.wiring.terminal import duration

CAPTIONS = {
    "figure2": (
        "Figure 2: the bound against training samples evaluated. Red AEVB, green with dots wake-sleep; solid train "
        "(a running mean), dashed test; pale: the published curves; thin: models without a network, on Frey Face."
    ),
    "figure3": (
        "Figure 3: log p(x) against training samples evaluated, by the paper's estimator. Circles AEVB, squares "
        "wake-sleep, triangles Monte Carlo EM; hollow: the same datapoints by another estimator; pale: the published "
        "curves."
    ),
    "figure4": "Figure 4: the decoder's mean over the unit square, through the inverse normal CDF.",
    "figure5": "Figure 5: decoder means at draws from the prior.",
    "frey_face_wake_sleep": (
        "Wake-sleep on Frey Face: the published curves (pale) stay at what a Gaussian that ignores z scores. That "
        "belongs to initialisation and step size, and not to the algorithm."
    ),
    "full_variational_bayes": (
        "Full variational Bayes (appendix F) and AEVB on few images: above, the predictive bound, a mean over draws of "
        "the decoder's parameters, solid train, dashed test; below, KL(q(theta) || p(theta)) / N. Train bound less KL "
        "bounds log p(X) / N. Above each panel: the last values, train / test."
    ),
}
SHOWN = ("objective", "model.latent_dim", "optimizer.lr", "initialization.std", "train/bound")
"""What the table of runs has besides what every such table has."""
WIDE = ("figure2", "figure3", "full_variational_bayes")
"""Figures of many panels."""


def write_index(
    root: Path,
    settings: ReproduceSettings,
    drawn: Mapping[str, Drawn],
    rows: Sequence[Row],
    failures: Sequence[str],
    *,
    seconds: float,
) -> Path:
    """Writes <root>/index.html; returns its path.

    Args:
        root: the folder of the reproduction.
        settings: of `vae-lab reproduce`.
        drawn: the figures by name.
        rows: the judgements.
        failures: what failed, in words.
        seconds: this command took.
    """
    runs = find_runs([root / "runs"]) if (root / "runs").is_dir() else []
    values = [row for row in rows if row.published is not None]
    statements = [row for row in rows if row.published is None]
    total = sum(run.record.get("wall_seconds", 0.0) for run in runs)
    sections = [
        *([Section("What failed", text=list(failures))] if failures else []),
        *figure_sections(drawn),
        Section(
            "Verification",
            text=[
                "Statements of the paper, judged on the test split, and the order of figure 3's methods on both; the "
                "difference is the smallest margin by which one holds. Then every published value: on train, running "
                "means of the minibatches, in the paper and here."
            ],
            tables=[
                with_columns(statements, ("figure", "claim", "difference", "verdict", "note"), "Nats per datapoint."),
                with_columns(values, COLUMNS, "Nats per datapoint."),
            ],
        ),
        Section("Runs", tables=[runs_table(runs)]),
        *step_size_sections(root / "probes.csv"),
        Section(
            "Times and versions",
            text=[f"All runs together took {duration(total)}; this command took {duration(seconds)}. {machine(runs)}"],
            tables=[versions_table(runs)],
        ),
        Section(
            "Again",
            text=["What is finished is kept; the command goes on where it stopped."],
            code=[pasted(*sys.argv[1:])],
        ),
    ]
    summary = f"Scale {settings.scale}: {len(runs)} runs. Verdicts: {counted(rows)}."
    title = "Auto-Encoding Variational Bayes, reproduced"
    return write_page(root / "index.html", title, sections, summary=summary)


def figure_sections(drawn: Mapping[str, Drawn]) -> Iterator[Section]:
    """A section for every figure, with what it lacks."""
    for name, files in drawn.items():
        others = [path for path in files.extras if path.suffix in (".gif", ".png")]
        found = {path: path.read_bytes() for path in (files.png, *others)}
        contents = [compressed(content) if path.suffix == ".png" else content for path, content in found.items()]
        pictures = [Picture(content, CAPTIONS.get(name, name), name in WIDE) for content in contents]
        missing = [f"Without {entry.label} ({entry.reason})." for entry in files.missing]
        title = name.replace("figure", "Figure ").replace("_", " ")
        yield Section(title[0].upper() + title[1:], text=missing, pictures=pictures)


def runs_table(runs: Sequence[Overview]) -> Table:
    """Settings and results of every run."""
    table = list_of_runs(Runs(runs), SHOWN, labels=[run.path.name for run in runs])
    return replace(table, caption=f"{table.caption}\nEverything about a run is in runs/<run>/config.yaml.")


def step_size_sections(path: Path) -> list[Section]:
    """The probes, if there were any."""
    if not path.is_file():
        return []
    probes = pd.read_csv(path, dtype={"learning_rate": str}).fillna({"verdict": ""})
    probes["samples"] = probes["samples"].map("{:,}".format)
    rows = probes.assign(train_bound=probes["train_bound"].map(number)).astype(object).to_numpy().tolist()
    what = "Chosen for each curve by the bound on the training split after a short probe, as the paper did."
    table = Table([name.replace("_", " ") for name in probes], rows, "Nats per datapoint.", {"chosen": "good"})
    return [Section("Step sizes", text=[what], tables=[table])]


def machine(runs: Sequence[Overview]) -> str:
    """Where the runs were made."""
    devices = sorted({str(run.record["device"]) for run in runs if "device" in run.record})
    threads = sorted({str(run.settings.get("threads") or "all") for run in runs})
    return f"Device: {', '.join(devices) or 'none'}; threads a run: {', '.join(threads) or '-'}; {platform.platform()}."


def versions_table(runs: Sequence[Overview]) -> Table:
    """Every combination of versions that runs were made with, and how many runs have it."""
    rows = [
        {"python": run.record.get("python"), **run.record.get("versions", {}), "git": run.record.get("git_commit")}
        for run in runs
    ]
    versions = pd.DataFrame(rows).fillna("-").map(lambda version: str(version)[:12])
    found = versions.value_counts(sort=False).reset_index(name="runs").astype(str)
    return Table(list(found), found.to_numpy().tolist())
