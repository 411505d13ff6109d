"""`vae-lab verify`: results held against the paper, or runs against their presets; every verdict shown."""

import logging
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import Failed, RunError
from vae_lab.figures.needed import check_scale
from vae_lab.reproduction.claims import Row, judge
from vae_lab.reproduction.verdicts import PLATEAU, as_table, failure, reproduction_rows, write_rows
from vae_lab.runs.directory import RunDir, named_runs
from vae_lab.runs.identity import is_the_preset
from vae_lab.runs.place import require_place
from vae_lab.runs.result import draws_behind, draws_of_z, expectations

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class VerifySettings:
    """The keys of `vae-lab verify`."""

    scale: str
    root: str
    run: str | int | list[str] | None
    data_root: str | None

    def __post_init__(self) -> None:
        check_scale(self.scale)


def verify(settings: VerifySettings) -> list[Path]:
    """Judges a reproduction, or one run after the other; prints their tables and returns their CSVs.

    Raises:
        Failed: a verdict is FAIL, or nothing was reached.
        RunError: there is nothing to judge; nothing was written.
    """
    if settings.run is not None:
        judged = {run: preset_rows(run, settings.data_root) for run in named_runs(settings.run)}
    else:
        root = RunDir(settings.root)
        judged = {root: reproduction_rows(root.path, settings.data_root)}
        if not judged[root]:
            again = f"vae-lab reproduce scale={settings.scale}"
            raise RunError(
                f"{root.path} has no figures/figure2.csv, figure3.csv or {PLATEAU}.csv to judge: {again} makes them"
            )
    paths, failures = [], []
    for run, rows in judged.items():
        with run.locked():
            paths.append(write_rows(run.path / "verification.csv", rows))
        as_table(rows, str(run.path), "published" if settings.run is None else "expected").print()
        if failed := failure(rows):
            failures.append(f"{failed}: {paths[-1]}")
    if failures:
        raise Failed("; ".join(failures))
    return paths


def preset_rows(run: RunDir, data_root: str | None = None) -> list[Row]:
    """The judgement of a run by the key `expected` of its experiment; its data are not read.

    Raises:
        RunError: the preset expects nothing, the run is not the preset's, or it is not finished.
    """
    config = run.read_config()
    if data_root is not None:
        require_place(config, "data_root", data_root, run.path)
    expected = expectations(config)
    record, status = run.read_record(), run.read_status()
    name = record.get("choices", {}).get("experiment")
    if not expected:
        what = f"experiment={name} has" if name else "it was no experiment's run, and has"
        raise RunError(f"{run.path}: {what} no key `expected` to be judged by")
    given = record.get("overrides") or []
    if changed := [text for text in given if not is_the_preset(text, config)]:
        raise RunError(
            f"{run.path} is not experiment={name} as it stands but has {', '.join(changed)}: its expectation "
            "does not apply"
        )
    if status != "finished":
        go_on = run.command("train")
        raise RunError(f"{run.path} is {status}, and only a finished run can be judged: {go_on}")
    ledger = run.ledger(run.default_checkpoint)
    rows = []
    for metric, (value, tolerance) in expected.items():
        if not isinstance(ledger.get(metric), int | float):
            raise RunError(f"{run.path} has no number {metric} in its ledger: {run.command('evaluate')} measures more")
        difference = ledger[metric] - value
        verdict = judge(difference, tolerance=tolerance, surprising=tolerance)
        note = f"tolerance {tolerance:g} nats; {run.default_checkpoint}.ckpt"
        note += draws_of_z(draws_behind(ledger, metric))
        samples = ledger.get("samples_evaluated")
        rows.append(Row(f"experiment={name}", metric, samples, value, ledger[metric], difference, verdict, note))
    return rows
