"""The verdicts on a reproduction, row by row, as a table, a file and a text."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vae_lab.atomic import write_text
from vae_lab.figures.base import load_last, select
from vae_lab.figures.section5 import figure2_published, figure3_published
from vae_lab.reproduction import claims
from vae_lab.reproduction.claims import EXPLAIN, FAIL, OPEN, PASS, Row
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.measured import baseline, bound
from vae_lab.runs.result import one_draw_bound
from vae_lab.wiring.table import Table

PLATEAU = "frey_face_wake_sleep"
"""The figure whose runs stay on wake-sleep's plateau."""
TONES = {PASS: "good", FAIL: "bad", EXPLAIN: "warn", OPEN: "dim"}
"""The verdicts, and how they stand out in a table."""
FORMS = {"published": ".1f", "ours": ".1f", "difference": "+.1f"}
"""How numbers of a column are written in a table."""
COLUMNS = [field.name for field in fields(Row)]


def reproduction_rows(root: Path, data_root: str | None = None) -> list[Row]:
    """Every judgement of the figures in `root`: values first, then statements; `data_root`: where the data lie now.

    A figure that is not there is not reached, unless none is, and nothing is to be judged.
    """
    paths = {name: root / "figures" / f"{name}.csv" for name in ("figure2", "figure3", PLATEAU)}
    tables = {name: pd.read_csv(path) if path.is_file() else None for name, path in paths.items()}
    if all(table is None for table in tables.values()):
        return []
    values, statements = [], []
    for name, table in tables.items():
        figure = "figure 3" if name == "figure3" else "figure 2"
        if table is None:
            note = f"figures/{name}.csv is not there: vae-lab reproduce figures=[{name}]"
            statements.append(Row(figure, f"everything that {name} shows", note=note))
        elif name == PLATEAU:
            statements += claims.plateau_without_latent(plateau_ends(table, root, data_root))
        elif name == "figure3":
            values += claims.figure3_values(table, figure3_published())
            statements += claims.figure3_order(table, figure3_published())
        else:
            published, configs = figure2_published(), configs_of(table, root / "runs")
            values += claims.figure2_values(table, published, partial(train_bound, root, data_root=data_root))
            statements += claims.aevb_above_wake_sleep(table, published, configs)
            statements += claims.larger_latent_spaces(table, published)
            statements += claims.wake_sleep_on_frey_face(table, published, configs)
    return [*values, *statements]


def failure(rows: Sequence[Row]) -> str | None:
    """Why judgements are no success, in words: one is FAIL, or nothing was reached; None where neither is so."""
    if failed := sum(row.verdict == FAIL for row in rows):
        return f"{failed} of {len(rows)} verdicts are FAIL"
    if rows and all(row.verdict == OPEN for row in rows):
        return f"nothing was reached that could be judged: {len(rows)} of {len(rows)} verdicts are '{OPEN}'"
    return None


def plateau_ends(
    table: pd.DataFrame, root: Path, data_root: str | None
) -> dict[int, tuple[float, float, float] | None]:
    """What the runs with the setting that keeps wake-sleep on its plateau end with, by latent size: see `claims`."""
    own = select(table, setting="as_published")
    labels = dict(zip(own["latent_dim"], own["label"].astype(str), strict=True))
    ends = {}
    for latent_dim in dict.fromkeys(table["latent_dim"]):
        directory = RunDir(root / "runs" / labels.get(latent_dim, ""), data_root)
        ends[latent_dim] = plateau_end(directory) if latent_dim in labels and directory.exists() else None
    return ends


def plateau_end(directory: RunDir) -> tuple[float, float, float] | None:
    """Bound, KL and the closed form of independent pixels on test: from the ledger, or measured with the weights."""
    ledger = directory.ledger("last")
    value, kl = one_draw_bound(ledger, "test"), ledger.get("test/kl")
    closed_form = ledger.get("test/baseline/independent_pixels")
    if value is not None and kl is not None and closed_form is not None:
        return value, kl, closed_form
    if not directory.has_checkpoint:
        return None
    run = load_last(directory)
    reached = bound("test", num_samples=1, seed=run.config["seed"]).of(run)
    return reached.value, reached.entries["test/kl"], baseline("test").of(run).value


def configs_of(table: pd.DataFrame, folder: Path) -> dict[str, dict[str, Any]]:
    """The frozen configs of the runs in a table, by label, as far as they are there."""
    runs = {label: RunDir(folder / label) for label in dict.fromkeys(table["label"].astype(str))}
    return {label: run.read_config() for label, run in runs.items() if run.exists()}


def train_bound(root: Path, label: str, count: float, data_root: str | None = None) -> float | None:
    """The train bound with a run's weights at a count: from its ledger, its curve or a snapshot; None without these."""
    run = RunDir(root / "runs" / label, data_root)
    if not run.exists():
        return None
    ledger = run.ledger("last")
    is_reached = abs(ledger.get("samples_evaluated", 0) - count) <= (1 - claims.REACHED) * count
    if is_reached and (value := one_draw_bound(ledger, "train")) is not None:
        return value
    if run.read_config()["evaluation"]["num_samples"] == 1:
        curve = pd.DataFrame(read_rows(run.curve_file))
        if "train/bound" in curve:
            return claims.value_at_count(curve.dropna(subset="train/bound"), "train/bound", count)
    snapshots = [at for at in run.snapshots if 0 <= at - count <= 0.02 * count]
    if not snapshots:
        return None
    weights = load_last(run).at(snapshots[0])
    weights.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return bound("train", num_samples=1, seed=weights.config["seed"]).of(weights).value


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """The judgements as a CSV; returns its path."""
    write_text(path, pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))
    return path


def as_table(rows: Sequence[Row], title: str, claimed: str = "published") -> Table:
    """The judgements for a terminal; `claimed` says what ours are held against."""
    table = with_columns(rows, COLUMNS[:-1], "nats per datapoint; notes are in verification.csv")
    columns = [claimed if name == "published" else name for name in table.columns]
    return replace(table, columns=columns, title=f"{title}: {counted(rows)}")


def with_columns(rows: Sequence[Row], columns: Sequence[str], caption: str) -> Table:
    """The judgements with these of their columns."""
    cells = [[cell(name, getattr(row, name)) for name in columns] for row in rows]
    return Table(columns, cells, caption, TONES)


def cell(column: str, value: Any) -> str:
    """An entry of a judgement for a reader; empty where there is none."""
    if column == "samples" and value is not None:
        return f"{value:.3g}".replace("e+0", "e")
    return "" if value is None else f"{value:{FORMS.get(column, '')}}"


def counted(rows: Sequence[Row]) -> str:
    """How many of each verdict: `12 PASS, 1 FAIL`."""
    verdicts = [row.verdict for row in rows]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in TONES if verdict in verdicts]
    return ", ".join(counts) or "nothing to judge"
