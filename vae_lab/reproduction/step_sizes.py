"""The step size of a run, by short probes on the measured train bound: section 5's early training performance."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from vae_lab.atomic import write_text
from vae_lab.figures.needed import NeededRun
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.runs.result import one_draw_bound
from vae_lab.wiring.arguments import override
from vae_lab.wiring.dotted import with_values

log = logging.getLogger("vae_lab")

COLUMNS = ["label", "learning_rate", "samples", "train_bound", "verdict"]
STEP_SIZE = "optimizer.lr"


@dataclass(frozen=True)
class Probe:
    """A short training of a needed run with one of its candidates."""

    label: str
    learning_rate: float
    job: Job


@dataclass(frozen=True)
class Choice:
    """The step size of a run, or why there is none."""

    learning_rate: float | None
    reason: str = ""


def plan_probes(needed: NeededRun, planned: Mapping[str, Any], folder: Path) -> list[Probe]:
    """A probe for every candidate of a run, planned in `folder`.

    Args:
        needed: what it is for.
        planned: arguments of `plan_job`, the config with the budget of a probe.
        folder: holds the probes.
    """
    return [
        Probe(
            needed.label,
            rate,
            plan_job(folder / f"{needed.label}-lr{rate:g}", **with_step_size(planned, rate)),
        )
        for rate in needed.learning_rates
    ]


def with_step_size(planned: Mapping[str, Any], learning_rate: float) -> dict[str, Any]:
    """The arguments of `plan_job`, config and entries of run.json, with this step size."""
    config = with_values(planned["config"], {STEP_SIZE: learning_rate})
    return {**planned, "config": config, "overrides": [*planned["overrides"], override(STEP_SIZE, learning_rate)]}


def choose(probes: Sequence[Probe], outcomes: Sequence[Outcome]) -> tuple[Choice, list[dict[str, Any]]]:
    """The candidate with the highest train bound, and the rows of probes.csv.

    A candidate with non-finite densities is rejected; one that failed otherwise leaves the choice open.
    """
    rows: list[dict[str, Any]] = []
    open_because = ""
    for probe, outcome in zip(probes, outcomes, strict=True):
        run, bound, verdict = probe.job.run, None, ""
        if outcome.is_good:
            bound = one_draw_bound(run.ledger(run.default_checkpoint), "train")
            if bound is None:
                again = run.command("evaluate", "splits=[train]", "num_samples=1")
                open_because = f"its probe {probe.job.name} has no train/bound with one draw of z: {again}"
        elif probe.job.is_hopeless:
            verdict = "rejected: non-finite"
        else:
            open_because = f"its probe {probe.job.name} {outcome.status}: {outcome.reason}"
        samples = run.read_record().get("samples_evaluated", 0)
        facts = (probe.label, probe.learning_rate, samples, bound, verdict)
        rows.append(dict(zip(COLUMNS, facts, strict=True)))
    measured = [row for row in rows if row["train_bound"] is not None]
    if open_because:
        return Choice(None, open_because), rows
    if not measured:
        return Choice(None, "every step size made a density non-finite"), rows
    best = max(measured, key=itemgetter("train_bound"))
    best["verdict"] = "chosen"
    return Choice(best["learning_rate"]), rows


def write_probes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """probes.csv; rows about other runs stay in it."""
    new = pd.DataFrame(list(rows), columns=COLUMNS, dtype=object)
    known = read_probes(path)
    write_text(path, pd.concat([known[~known["label"].isin(new["label"])], new]).to_csv(index=False))


def read_probes(path: Path) -> pd.DataFrame:
    """The rows of probes.csv as text; none where it is not there or damaged, for the probes themselves can tell."""
    none = pd.DataFrame(columns=COLUMNS, dtype=object)
    try:
        found = pd.read_csv(path, dtype=object, keep_default_na=False) if path.is_file() else none
    except ValueError as error:
        log.warning("%s cannot be read, and is written anew: %s", path, error)
        return none
    return found if list(found) == COLUMNS else none
