"""Verdicts: what passes, fails, asks for an explanation, and what is not reached."""

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from training import composed

from vae_lab.cli import main
from vae_lab.commands.verify import VerifySettings, verify
from vae_lab.errors import ConfigError, Failed, RunError
from vae_lab.figures.base import select
from vae_lab.figures.section5 import figure2_published, figure3_published
from vae_lab.reproduction import claims
from vae_lab.reproduction.claims import EXPLAIN, FAIL, OPEN, PASS, value_at_count
from vae_lab.reproduction.verdicts import plateau_ends, reproduction_rows, train_bound
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.wiring.build import settings


def curve(**points: float) -> pd.DataFrame:
    return pd.DataFrame({"samples_evaluated": [float(x[1:]) for x in points], "y": list(points.values())})


def panel(dataset: str, latent_dim: int, method: str, split: str, points: dict[float, float]) -> pd.DataFrame:
    table = pd.DataFrame({"samples_evaluated": list(points), "bound_nats": list(points.values())})
    label = f"{dataset}_{latent_dim}_{method}"
    return table.assign(
        dataset=dataset, latent_dim=latent_dim, method=method, split=split, label=label, learning_rate=0.02
    )


def shifted_figure2(by: float) -> pd.DataFrame:
    published = figure2_published()
    label = published["dataset"] + "_" + published["latent_dim"].astype(str) + "_" + published["method"]
    return published.assign(bound_nats=published["bound_nats"] + by, label=label, learning_rate=0.02)


def shifted_figure3(by: float) -> pd.DataFrame:
    published = figure3_published()
    return published.assign(log_marginal_nats=published["log_marginal_nats"] + by, role="paper", label="x")


def unknown(label: str, count: float) -> None:
    return None


def test_values_are_interpolated_in_the_logarithm_of_the_samples() -> None:
    line = curve(_1e5=-150.0, _1e7=-100.0)
    assert value_at_count(line, "y", 1e6) == pytest.approx(-125)
    assert value_at_count(line, "y", 1e7) == -100
    assert value_at_count(line, "y", 1.01e7) == -100  # a step that does not divide the count
    assert value_at_count(line, "y", 2e7) is None and value_at_count(line, "y", 1e4) is None
    assert value_at_count(line.iloc[:0], "y", 1e6) is None


def test_published_tables_give_the_values_of_the_paper() -> None:
    rows = {
        (row.claim, row.samples): row for row in claims.figure2_values(shifted_figure2(0), figure2_published(), unknown)
    }
    expected = {
        ("MNIST Nz = 20, AEVB, test", 1e6): -124.2,
        ("MNIST Nz = 20, AEVB, test", 1e7): -104.8,
        ("MNIST Nz = 20, wake-sleep, train", 1e8): -104.1,
        ("MNIST Nz = 3, AEVB, train", 1e6): -155.3,
        ("Frey Face Nz = 10, AEVB, test", 1e8): 1307,
    }
    for key, value in expected.items():
        assert rows[key].published == pytest.approx(value, abs=0.002 * abs(value))
        assert rows[key].difference == pytest.approx(0, abs=1e-9)
    assert len(rows) == 9 * 2 * 2 * 3


@pytest.mark.parametrize(
    ("shift", "early", "late", "frey"),
    [
        (-1.9, PASS, PASS, PASS),
        (-2.1, PASS, FAIL, PASS),
        (-4.1, FAIL, FAIL, PASS),
        (-31, FAIL, FAIL, FAIL),
        (9.9, PASS, PASS, PASS),
        (10.1, EXPLAIN, EXPLAIN, PASS),
        (31, EXPLAIN, EXPLAIN, EXPLAIN),
        (float("nan"), FAIL, FAIL, FAIL),
    ],
)
def test_tolerances_of_figure_2(shift: float, early: str, late: str, frey: str) -> None:
    ours = shifted_figure2(0)
    ours["bound_nats"] += shift
    rows = list(claims.figure2_values(ours, figure2_published(), unknown))
    for row in rows:
        expected = frey if row.claim.startswith("Frey") else early if row.samples == 1e6 else late
        assert row.verdict == expected, row
        assert ("known causes" in row.note) == (row.verdict == EXPLAIN)
        assert ("tried" in row.note) == (
            row.verdict == FAIL
            and any(f"Nz = {size}, wake-sleep" in row.claim for size in (20, 200))
            and "MNIST" in row.claim
        )


def test_train_is_judged_by_running_means_and_the_weights_of_the_moment_stand_beside() -> None:
    for shift, verdict in ((0, PASS), (-100, FAIL)):
        rows = list(claims.figure2_values(shifted_figure2(shift), figure2_published(), lambda label, count: 5000.0))
        assert {row.verdict for row in rows} == {verdict}, "whatever the weights of the moment give"
        assert all(("5000.0 with the weights of that moment" in row.note) == ("train" in row.claim) for row in rows)
    noted = claims.figure2_values(shifted_figure2(0), figure2_published(), unknown)
    assert not any(row.note for row in noted)


def test_published_curve_without_one_of_ours_is_not_reached() -> None:
    ours: Any = shifted_figure2(0)
    is_short = (ours["dataset"] == "mnist") & (ours["latent_dim"] == 3) & (ours["samples_evaluated"] > 5e6)
    ours = ours[(ours["label"] != "mnist_5_aevb") & ~is_short]
    open_rows = [row for row in claims.figure2_values(ours, figure2_published(), unknown) if row.verdict == OPEN]
    notes = {(row.claim, row.samples): row.note for row in open_rows}
    assert len(open_rows) == len(notes) == 2 + 4, "a row for each curve"
    assert notes["MNIST Nz = 5, AEVB, test", 1e6] == "no run of ours; nor at 10,000,000, 100,000,000"
    note = notes["MNIST Nz = 3, wake-sleep, train", 1e7]
    assert note.startswith("ours ends at ") and note.endswith("; nor at 100,000,000")
    assert all(row.published is not None and row.ours is row.difference is None for row in open_rows)
    without: Any = shifted_figure3(0)
    without = without[without["method"] != "mcem"]
    rows = [row for row in claims.figure3_values(without, figure3_published()) if row.verdict == OPEN]
    assert {row.claim.split(",")[-2] for row in rows} == {" MCEM"} and len(rows) == 4


def test_figure_without_a_row_is_not_reached(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name, table in (("figure2", shifted_figure2(0)), ("figure3", shifted_figure3(0))):
        table.head(0).to_csv(tmp_path / "figures" / f"{name}.csv", index=False)
    rows = reproduction_rows(tmp_path)
    assert len(rows) > 40 and {row.verdict for row in rows} == {OPEN}


def test_statement_says_how_many_comparisons_it_rests_on_and_what_was_not_compared() -> None:
    published, one_panel = figure2_published(), select(shifted_figure2(0), dataset="mnist", latent_dim=20)
    frey, reached, absent = sorted(claims.aevb_above_wake_sleep(one_panel, published, {}), key=lambda row: row.claim)
    assert (reached.verdict, absent.verdict, frey.verdict) == (PASS, OPEN, OPEN)
    count = int(reached.note.split()[0])
    assert reached.note.startswith(f"{count} comparisons; smallest margin: Nz = 20 at") and count > 10
    assert absent.note == "not compared: Nz = 3, Nz = 5, Nz = 10, Nz = 200" and absent.claim == reached.claim
    assert frey.note == "not compared: Nz = 2, Nz = 5, Nz = 10, Nz = 20"


def test_plateau_is_the_score_of_independent_pixels_and_its_kl_is_near_zero() -> None:
    (row,) = claims.plateau_without_latent({2: (574.7, 0.002, 574.6), 10: (572.0, 0.01, 574.6)})
    assert row.verdict == PASS and row.note.startswith("4 comparisons") and row.difference == pytest.approx(0.09)
    for end in ((571.5, 0.002, 574.6), (577.7, 0.002, 574.6), (574.6, 0.2, 574.6), (math.nan, 0.0, 574.6)):
        row, absent = claims.plateau_without_latent({2: end, 10: None})
        assert (row.verdict, absent.verdict, absent.note) == (FAIL, OPEN, "not compared: Nz = 10")


def test_plateau_is_measured_with_the_runs_that_stay_on_it(finished_run: RunDir, tmp_path: Path) -> None:
    shutil.copytree(finished_run.path, tmp_path / "runs" / "a")
    (tmp_path / "figures").mkdir()
    rows = [{"latent_dim": 2, "setting": "as_published", "label": "a"}, {"latent_dim": 2, "setting": "x", "label": "b"}]
    rows += [{"latent_dim": 10, "setting": "as_published", "label": "gone"}]
    rows += [{"latent_dim": 20, "setting": "x", "label": "a"}]
    table = pd.DataFrame(rows)
    ends = plateau_ends(table, tmp_path, None)
    ledger = RunDir(tmp_path / "runs" / "a").ledger("last")
    keys = ("test/bound", "test/kl", "test/baseline/independent_pixels")
    assert ends == {2: tuple(ledger[key] for key in keys), 10: None, 20: None}
    for checkpoint in (tmp_path / "runs" / "a" / "checkpoints").glob("*.ckpt"):
        checkpoint.unlink()
    assert plateau_ends(table, tmp_path, None) == ends, "a run that is kept without its weights has its ledger"
    table.to_csv(tmp_path / "figures" / "frey_face_wake_sleep.csv", index=False)
    judged = reproduction_rows(tmp_path)
    assert [row.verdict for row in judged if "plateau" in row.claim] == [FAIL, OPEN], "the digits' is no plateau"


def test_figure_3_is_judged_by_the_paper_estimator_and_mcem_from_3e7_on() -> None:
    table = pd.concat([shifted_figure3(-3.9), shifted_figure3(-100).assign(role="check")])
    rows = list(claims.figure3_values(table, figure3_published()))
    assert {row.verdict for row in rows} == {PASS}
    assert {row.verdict for row in claims.figure3_values(shifted_figure3(-4.1), figure3_published())} == {FAIL}
    assert min(row.samples or 0 for row in rows if row.claim.startswith("N = 50,000, MCEM")) == 3e7


@pytest.mark.slow
def test_order_of_figure_3_holds_for_the_paper_and_fails_when_turned() -> None:
    published = figure3_published()
    assert [row.verdict for row in claims.figure3_order(shifted_figure3(0), published)] == [PASS, PASS]
    turned: Any = shifted_figure3(0)
    turned["method"] = turned["method"].map({"aevb": "wake_sleep", "wake_sleep": "aevb", "mcem": "mcem"})
    verdicts = [row.verdict for row in claims.figure3_order(turned, published)]
    assert [verdict for verdict in verdicts if verdict != OPEN] == [FAIL, FAIL], "the curves begin at other counts"
    early: Any = shifted_figure3(0)
    late = (early["train_size"] == 1000) & (early["method"] == "mcem") & (early["samples_evaluated"] < 4e6)
    early.loc[late & (early["split"] == "train"), "log_marginal_nats"] -= 20
    small, large = claims.figure3_order(early, published)
    assert (small.verdict, large.verdict) == (FAIL, PASS), "an early crossing on one split is seen"
    assert "MCEM above wake-sleep at 2,000,000 on train" in small.note and "on test" not in small.note


def test_statements_of_figure_2_hold_for_the_paper() -> None:
    ours: Any = shifted_figure2(0)
    ours = ours[~((ours["dataset"] == "mnist") & (ours["samples_evaluated"] > 1.5e8))]
    statements = [
        *claims.aevb_above_wake_sleep(ours, figure2_published(), {}),
        *claims.larger_latent_spaces(ours, figure2_published()),
        *claims.wake_sleep_on_frey_face(ours, figure2_published(), {}),
    ]
    assert len(statements) == 2 + 4 + 1
    assert {row.verdict for row in statements} == {PASS}, statements


def test_aevb_must_be_above_wake_sleep_from_1e6_on() -> None:
    low = [panel("mnist", 5, "aevb", "test", {1e5: -200, 1e6: -120, 2e6: -110})]
    high = [panel("mnist", 5, "wake_sleep", "test", {1e5: -150, 1e6: -125, 2e6: -109})]
    published = select(figure2_published(), dataset="mnist", latent_dim=5)
    (row,) = claims.aevb_above_wake_sleep(pd.concat(low + high), published, {})
    assert (row.verdict, row.difference) == (FAIL, pytest.approx(-1.0)) and "2,000,000" in row.note
    (row,) = claims.aevb_above_wake_sleep(pd.concat(low), published, {})
    assert row.verdict == OPEN
    start: dict[str, Any] = {"seed": 0, "model": 1, "data": 2}
    configs = {"mnist_5_aevb": start, "mnist_5_wake_sleep": {**start, "seed": 1}}
    (row,) = claims.aevb_above_wake_sleep(pd.concat(low + high), published, configs)
    assert "different weights" in row.note


def test_larger_latent_space_may_be_a_little_below() -> None:
    small = panel("mnist", 5, "aevb", "test", {1e6: -120, 1e7: -110})
    for value, expected in ((-110.9, PASS), (-111.1, FAIL)):
        large = panel("mnist", 20, "aevb", "test", {1e6: -150, 1e7: value})
        rows = list(claims.larger_latent_spaces(pd.concat([small, large]), figure2_published()))
        row, absent = (row for row in rows if row.claim.startswith("MNIST, AEVB"))
        others = [other for other in rows if other not in (row, absent)]
        assert (row.verdict, absent.verdict) == (expected, OPEN) and row.note.startswith("1 comparison;")
        assert {other.verdict for other in others} == {OPEN} and len(others) == 3
        assert absent.note == (
            "not compared: Nz = 3 at 10,000,000, Nz = 10 at 10,000,000, Nz = 200 at 10,000,000, "
            "Nz = 3 at 100,000,000, ..."
        )
    assert {row.verdict for row in claims.larger_latent_spaces(small, figure2_published())} == {OPEN}


def test_wake_sleep_above_the_plateau_names_its_setting() -> None:
    ours = panel("frey_face", 2, "wake_sleep", "test", {5e5: 569, 1e6: 700})
    config = {"initialization": {"std": 0.1}, "optimizer": {"lr": 0.02, "warmup_steps": 100}}
    row, absent = claims.wake_sleep_on_frey_face(ours, figure2_published(), {"frey_face_2_wake_sleep": config})
    assert absent.verdict == OPEN and "Nz = 2 at 10,000,000" in absent.note
    assert row.verdict == PASS and "standard deviation 0.1, step size 0.02, 100 warm-up" in row.note
    ours["bound_nats"] -= 200
    row, _ = claims.wake_sleep_on_frey_face(ours, figure2_published(), {})
    assert row.verdict == FAIL


@pytest.mark.slow
def test_command_writes_the_table_and_fails_on_a_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    ours = shifted_figure2(0)
    ours[ours["samples_evaluated"] < 1e7].to_csv(figures / "figure2.csv", index=False)
    with composed("verify", f"root={tmp_path}") as cfg:
        (path,) = verify(settings(VerifySettings, cfg))
    written = pd.read_csv(path)
    assert list(written) == ["figure", "claim", "samples", "published", "ours", "difference", "verdict", "note"]
    assert set(written["verdict"]) == {PASS, OPEN} and "PASS" in capsys.readouterr().out
    shifted_figure3(-50).to_csv(figures / "figure3.csv", index=False)
    with composed("verify", f"root={tmp_path}") as cfg, pytest.raises(Failed, match="verdicts are FAIL"):
        verify(settings(VerifySettings, cfg))


def test_nothing_reached_is_no_success(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "figures").mkdir()
    ours = shifted_figure2(0)
    ours[ours["samples_evaluated"] < 9e5].to_csv(tmp_path / "figures" / "figure2.csv", index=False)
    assert main(["verify", f"root={tmp_path}"]) == 1
    written = pd.read_csv(tmp_path / "verification.csv")
    assert set(written["verdict"]) == {OPEN} and "nothing was reached that could be judged" in capfd.readouterr().err
    notes = written.set_index("claim")["note"]
    assert "reproduce figures=[figure3]" in notes["everything that figure3 shows"]


def test_nothing_to_judge_says_what_makes_it(tmp_path: Path) -> None:
    with composed("verify", f"root={tmp_path}") as cfg, pytest.raises(RunError, match="vae-lab reproduce scale=quick"):
        verify(settings(VerifySettings, cfg))
    assert reproduction_rows(tmp_path) == []


@pytest.mark.slow
def test_train_bound_comes_from_the_ledger_or_from_a_snapshot(finished_run: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "runs" / "a"))
    shutil.rmtree(run.checkpoints)
    shutil.copytree(finished_run.checkpoints, run.checkpoints)
    samples = run.read_record()["samples_evaluated"]
    (run.checkpoints / "best.ckpt").unlink(missing_ok=True)
    (run.checkpoints / "at").mkdir(exist_ok=True)
    shutil.copy(run.checkpoints / "last.ckpt", run.checkpoints / "at" / "500.ckpt")
    measured = train_bound(tmp_path, "a", 500)
    assert measured is not None and measured < 0
    assert train_bound(tmp_path, "a", 300) is None and train_bound(tmp_path, "b", 500) is None
    with pytest.raises(ConfigError, match="data_root must be left out"):
        train_bound(tmp_path, "a", 500, data_root="elsewhere")
    ledger = {"test/bound": -1.0, "train/bound": -2.5, "samples_evaluated": samples}
    run.update_ledger("last", ledger)
    assert train_bound(tmp_path, "a", samples) == -2.5
    assert train_bound(tmp_path, "a", 500) == measured
    run.update_ledger("last", ledger | {"train/bound_num_samples": 8})  # another quantity than the published
    assert train_bound(tmp_path, "a", samples) is None


@pytest.mark.parametrize(("draws", "expected"), [(1, -3.5), (8, None)])
def test_train_bound_of_a_curve_counts_where_it_has_one_draw_of_z(draws, expected, finished_run, tmp_path) -> None:
    run = RunDir(shutil.copytree(finished_run.path, tmp_path / "runs" / "a"))
    config = run.read_config()
    run.write_config(config | {"evaluation": config["evaluation"] | {"num_samples": draws}})
    run.curve_file.write_text("samples_evaluated,train/bound\n1000,-3.5\n")
    assert train_bound(tmp_path, "a", 1000) == expected


EXPECTED = {"test/bound": {"value": -104.1, "tolerance": 1.0}}


def preset_run(path: Path, bound: float, **record: Any) -> Path:
    given = str(record.get("overrides"))
    config = {"seed": 0, "data": {}, "model": {}, "trainer": {}, "expected": EXPECTED}
    config |= {"callbacks": {"mine": {"_target_": "my.Callback"}}} if "callbacks" in given else {}
    facts = {
        "choices": {"experiment": "mnist"},
        "overrides": ["experiment=mnist", "seed=3", "threads=2", "trainer.devices=1"],
    }
    run = plan_run(path, config, **(facts | record))
    run.update_record(status="finished")
    run.update_ledger("last", {"test/bound": bound, "samples_evaluated": 1_000_000})
    return path


@pytest.mark.parametrize(("bound", "verdict"), [(-104.5, PASS), (-103.5, PASS), (-105.2, FAIL), (-103.0, EXPLAIN)])
def test_run_is_judged_by_its_preset(bound: float, verdict: str, tmp_path: Path) -> None:
    path = preset_run(tmp_path / "run", bound)
    with composed("verify", f"run={path}") as cfg:
        if verdict == FAIL:
            with pytest.raises(Failed):
                verify(settings(VerifySettings, cfg))
        else:
            verify(settings(VerifySettings, cfg))
    assert list(pd.read_csv(path / "verification.csv")["verdict"]) == [verdict]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"overrides": ["experiment=mnist", "model.latent_dim=3"]}, "model.latent_dim=3"),
        ({"overrides": ["experiment=mnist", "+callbacks.mine._target_=my.Callback"]}, "callbacks.mine"),
        ({"overrides": ["experiment=mnist", "max_samples=3"]}, "does not apply"),
        ({"overrides": ["experiment=mnist", "trainer.max_epochs=3"]}, "trainer.max_epochs=3"),
    ],
)
def test_changed_preset_is_not_judged(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = preset_run(tmp_path / "run", -104.0, **record)
    with composed("verify", f"run={path}") as cfg, pytest.raises(RunError, match=message):
        verify(settings(VerifySettings, cfg))


def test_run_without_expectation_or_unfinished_is_refused(tmp_path: Path) -> None:
    plan_run(tmp_path / "none", {"seed": 0, "data": {}, "model": {}, "trainer": {}})
    with composed("verify", f"run={tmp_path / 'none'}") as cfg, pytest.raises(RunError, match="expected"):
        verify(settings(VerifySettings, cfg))
    path = preset_run(tmp_path / "run", -104.0)
    RunDir(path).update_record(status="interrupted")
    with composed("verify", f"run={path}") as cfg, pytest.raises(RunError, match="interrupted"):
        verify(settings(VerifySettings, cfg))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (5, "expected must be a mapping such as"),
        ({"test/bound": -23}, "expected.test/bound must have value and tolerance"),
        ({"test/bound": {"value": -23}}, "expected.test/bound must have value and tolerance"),
        ({"test/bound": {"value": "x", "tolerance": 1}}, "expected.test/bound.value must be a number"),
        ({"test/bound": {"value": -23, "tolerance": -1}}, "expected.test/bound.tolerance must be a number >= 0"),
        ({"checkpoint": {"value": -23, "tolerance": 1}}, "has no number checkpoint in its ledger"),
    ],
)
def test_expectation_of_another_form_is_refused(expected: Any, message: str, tmp_path: Path) -> None:
    path = preset_run(tmp_path / "run", -104.0)
    run = RunDir(path)
    run.write_config(run.read_config() | {"expected": expected})
    run.update_ledger("last", {"checkpoint": "last", "samples_evaluated": 1_000_000})
    with composed("verify", f"run={path}") as cfg, pytest.raises(ConfigError, match=message):
        verify(settings(VerifySettings, cfg))


def test_bound_with_several_draws_of_z_is_named_in_the_note(tmp_path: Path) -> None:
    path = preset_run(tmp_path / "run", -104.0)
    RunDir(path).update_ledger("last", {"test/bound_num_samples": 8, "samples_evaluated": 1_000_000})
    with composed("verify", f"run={path}") as cfg:
        verify(settings(VerifySettings, cfg))
    (note,) = pd.read_csv(path / "verification.csv")["note"].tolist()
    assert note.endswith("last.ckpt (8 draws of z)")


@pytest.mark.parametrize("typed", [["run={0},{1}"], ["run=[{0},{1}]"], ["run={0}", "run={1}"], ["run={2}/*"]])
def test_several_runs_are_judged_one_after_the_other(
    typed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, good = preset_run(tmp_path / "a", -120.0), preset_run(tmp_path / "b", -104.0)
    (tmp_path / "no run").mkdir()
    assert main(["verify", *(text.format(bad, good, tmp_path) for text in typed)]) == 1
    assert [pd.read_csv(path / "verification.csv")["verdict"][0] for path in (bad, good)] == [FAIL, PASS]
    shown = capfd.readouterr()
    assert "1 FAIL" in shown.out and "1 PASS" in shown.out and "1 of 1 verdicts are FAIL" in shown.err


@pytest.mark.slow
def test_nothing_is_written_into_a_folder_that_another_process_writes(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    shifted_figure2(0).to_csv(tmp_path / "figures" / "figure2.csv", index=False)
    run = preset_run(tmp_path / "run", -104.0)
    for typed, folder in ((f"root={tmp_path}", tmp_path), (f"run={run}", run)):
        lock = FileLock(folder / ".lock")
        with lock, composed("verify", typed) as cfg, pytest.raises(RunError, match="another process"):
            verify(settings(VerifySettings, cfg))
        assert not (folder / "verification.csv").exists()
