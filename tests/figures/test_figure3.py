import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from training import evaluate_tiny

from vae_lab.errors import RunError
from vae_lab.estimators.base import Estimator
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.estimators.posterior_density import PosteriorDensity
from vae_lab.estimators.quadrature import Quadrature
from vae_lab.figures.base import records, select
from vae_lab.figures.canvas import save
from vae_lab.figures.figure3 import METHODS, Figure3, not_seen
from vae_lab.figures.section5 import AEVB, figure3_published
from vae_lab.runs.directory import RunDir

SCALES = ("quick", "standard", "paper")


def figure3(**changes):
    hmc = {"num_leapfrog": 4, "initial_step_size": 0.1, "target_acceptance": 0.9}
    settings = {
        "train_sizes": [1000, 50000],
        "overrides": ["experiment=mnist_paper"],
        "methods": {"aevb": ["objective=aevb"], "wake_sleep": [], "mcem": ["optimizer.warmup_steps=10"]},
        "learning_rates": {"aevb": [0.01, 0.02], "wake_sleep": [0.01], "mcem": []},
        "max_samples": dict.fromkeys(SCALES, 200),
        "snapshots": {scale: [100, 200] for scale in SCALES},
        "num_datapoints": dict.fromkeys(SCALES, 20),
        "paper_estimator": PosteriorDensity(num_samples=50, num_starts=20, burn_in=5, **hmc),
        "check_estimator": Quadrature(num_nodes=4),
        "seed": 0,
    }
    return Figure3(**(settings | changes))


@pytest.fixture(scope="module")
def canned():
    """The published curves up to 5e6, raised by a nat, and their check; wake-sleep at 50,000 is not there."""
    table = figure3_published().query("samples_evaluated <= 5e6")
    table = table[(table["train_size"] == 1000) | (table["method"] == "aevb")]
    table = table.assign(log_marginal_nats=table["log_marginal_nats"] + 1, standard_error=0.1, label="a")
    paper = table.assign(role="paper", estimator="posterior_density_50")
    return pd.concat([paper, table.assign(role="check", estimator="importance_sampling_500")])


def test_runs_are_every_method_on_every_training_set():
    runs = {needed.label: needed for needed in figure3().needed_runs("quick")}
    assert len(runs) == 6
    mcem = runs["figure3_50000_mcem"]
    assert mcem.overrides == ("experiment=mnist_paper", "data.train_size=50000", "optimizer.warmup_steps=10")
    assert (mcem.learning_rates, mcem.snapshots) == ((), (100, 200))


def measured(figure: Figure3, **runs: RunDir) -> pd.DataFrame:
    """The table once everything is measured that it shows."""
    assert figure.measure(runs, "quick") == {}
    return figure.collect(runs, "quick")


def ledgers(run: RunDir) -> dict[str, bytes]:
    """Every ledger of a run, byte for byte."""
    return {str(file): file.read_bytes() for file in run.path.rglob("*.json") if file.name != "run.json"}


@pytest.fixture
def estimates(monkeypatch) -> list[str]:
    """The label of every estimator that has estimated anything."""
    made: list[str] = []

    def watch(kind: type[Estimator]) -> None:
        def estimate(self, *args, **settings):
            made.append(self.label)
            return Estimator.estimate(self, *args, **settings)

        monkeypatch.setattr(kind, "estimate", estimate)

    watch(PosteriorDensity)
    watch(Quadrature)
    return made


@pytest.mark.slow
def test_table_has_every_snapshot_twice_and_nothing_is_estimated_again(tmp_path, short_run, estimates):
    run = short_run(tmp_path / "figure3_1000_aevb")
    assert figure3().collect({"figure3_1000_aevb": run}, "quick").empty, "collecting measures nothing"
    table = measured(figure3(), figure3_1000_aevb=run)
    assert tuple(table) == Figure3.columns
    assert len(table) == len(estimates) == 2 * 2 * 2
    assert set(table["samples_evaluated"]) == {100, 200}
    assert set(table["num_datapoints"]) == {20}
    assert set(select(table, role="paper")["estimator"]) == {"posterior_density_50"}
    assert set(select(table, role="check")["estimator"]) == {"quadrature_4"}
    for samples in (100, 200):
        for split in ("train", "test"):
            paper, check = records(select(table, samples_evaluated=samples, split=split))
            assert paper["log_marginal_nats"] == pytest.approx(check["log_marginal_nats"], abs=1.0)
    test = select(table, split="test", role="check")["log_marginal_nats"].tolist()
    assert test[1] > test[0], "it has learned between the snapshots"
    known = ledgers(run)
    again = measured(figure3(), figure3_1000_aevb=RunDir(run.path))
    pd.testing.assert_frame_equal(again, table)
    assert (len(estimates), ledgers(run)) == (8, known)
    measured(figure3(check_estimator=Quadrature(num_nodes=6)), figure3_1000_aevb=run)
    assert estimates[8:] == ["quadrature_6"] * 4


EVALUATE = (
    *("num_datapoints=20", "splits=[train,test]", "estimators=[posterior_density,quadrature]"),
    *("estimator=posterior_density", "estimator.num_samples=50", "estimator.num_starts=20"),
)
"""What the command measures then is what the figure shows, with the command's own choice of nodes."""
NODES = Quadrature(num_nodes=20)


@pytest.mark.slow
def test_what_evaluate_has_measured_is_found_by_the_figure(tmp_path, short_run, estimates):
    run = short_run(tmp_path / "figure3_1000_aevb")
    for count in (100, 200):
        evaluate_tiny(run, f"checkpoint={count}", *EVALUATE)
    known = ledgers(run)
    assert len(estimates) == 8
    assert len(measured(figure3(check_estimator=NODES), figure3_1000_aevb=run)) == 8
    assert (len(estimates), ledgers(run)) == (8, known)


@pytest.mark.slow
def test_what_the_figure_has_measured_is_found_by_evaluate(tmp_path, short_run, estimates):
    run = short_run(tmp_path / "figure3_1000_aevb")
    table = measured(figure3(check_estimator=NODES), figure3_1000_aevb=run)
    assert evaluate_tiny(run, "checkpoint=200", *EVALUATE) == run.checkpoints / "at" / "200.json"
    assert len(estimates) == 8
    ledger = run.ledger("200")
    (row,) = records(select(table, samples_evaluated=200, split="test", role="paper"))
    assert ledger["test[:20]/log_likelihood/posterior_density_50"] == row["log_marginal_nats"]
    assert "test[:20]/bound" in ledger, "which the figure had not asked for"


@pytest.mark.slow
def test_what_was_estimated_before_an_error_is_kept(tmp_path, short_run, monkeypatch):
    run = short_run(tmp_path / "figure3_1000_aevb")

    def fail(*_, **__):
        raise FloatingPointError("lost")

    monkeypatch.setattr(Quadrature, "estimate", fail)
    with pytest.raises(FloatingPointError):
        figure3().measure({"figure3_1000_aevb": run}, "quick")
    assert set(run.ledger("100")) > {
        f"train[:20]/log_likelihood/posterior_density_50{end}" for end in ("", "_settings")
    }
    assert not run.ledger("200")


def test_run_at_work_is_left_alone_and_named(tmp_path, short_run, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.directory.WRITING_SECONDS", 0.1)
    run = short_run(tmp_path / "figure3_1000_aevb")
    run.update_record(status="running")
    with run.locked():
        assert measured(figure3(), figure3_1000_aevb=run).empty
        (reason,) = {entry.reason for entry in figure3().missing({run.path.name: run}, "quick", tmp_path)} - {"no run"}
    assert reason == "still running"
    run.update_record(status="finished")
    with run.locked(), pytest.raises(RunError, match="is being written by another process"):
        figure3().measure({"figure3_1000_aevb": run}, "quick")
    assert ledgers(run).keys() == {str(run.path / "metrics.json")}


@pytest.mark.slow
def test_last_weights_are_estimated_where_they_are_no_snapshot(tmp_path, short_run):
    run = short_run(tmp_path / "figure3_1000_aevb")
    (run.checkpoints / "at" / "200.ckpt").unlink()
    table = measured(figure3(), figure3_1000_aevb=run)
    assert set(table["samples_evaluated"]) == {100, 200}


@pytest.mark.slow
def test_model_without_an_encoder_is_checked_by_quadrature(tmp_path, short_run):
    run = short_run(tmp_path / "figure3_1000_mcem")
    for file in run.checkpoints.rglob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        weights = content["state_dict"].items()
        content["state_dict"] = {name: value for name, value in weights if not name.startswith("model.encoder.")}
        torch.save(content, file)
    table = measured(figure3(), figure3_1000_mcem=run)
    assert set(select(table, role="check")["estimator"]) == {"quadrature_4"}
    assert set(table["samples_evaluated"]) == {100, 200}


def test_run_without_weights_is_left_out(tmp_path, short_run):
    run = short_run(tmp_path / "figure3_1000_aevb")
    shutil.rmtree(run.checkpoints)
    run.ledger_path("last").unlink()
    assert measured(figure3(), figure3_1000_aevb=run).empty


def test_figure_has_the_papers_axes_and_below_them_the_part_that_was_run(canned):
    picture = figure3().draw(canned, {})
    left, right, left_part, right_part = picture.axes
    assert (left.get_xlim(), left.get_ylim()) == ((0, 60), (-160, -100))
    assert (right.get_xlim(), right.get_ylim()) == ((0, 68), (-160, -125))
    assert left_part.get_ylim() == left.get_ylim()
    assert left_part.get_xlim()[1] == right_part.get_xlim()[1] < 6
    assert left.get_title() == "$N_{\\mathrm{train}} = 1000$"
    (note,) = [text.get_text() for text in right.texts]
    assert note == "Wake-Sleep: no run yet\nMCEM: no run yet"


def test_whole_range_needs_no_second_row(canned):
    assert len(figure3().draw(canned.assign(samples_evaluated=canned["samples_evaluated"] * 10), {}).axes) == 2


def test_panel_has_published_curves_estimates_and_their_checks(canned):
    axes = figure3().draw(canned, {}).axes[0]
    aevb = [line for line in axes.lines if line.get_color() == AEVB]
    assert [(line.get_linestyle(), line.get_marker()) for line in aevb] == [
        *[("-", "None"), ("--", "None")],
        *[("-", "o"), ("--", "o")],
        *[("None", "o")] * 2,
    ]
    assert [line.get_markerfacecolor() == "none" for line in aevb[2:]] == [False, False, True, True]
    assert np.max(aevb[0].get_xdata()) > 50 > 6 > np.max(aevb[2].get_xdata())


def test_methods_are_told_apart_without_colours(canned):
    picture = figure3().draw(canned, {})
    (legend,) = picture.legends
    assert len({str(line.get_marker()) for line in legend.get_lines()[:6]}) == len(METHODS)
    for method in METHODS.values():
        marks = [line.get_marker() for line in picture.axes[0].lines if line.get_color() == method.colour]
        assert marks == ["None"] * 2 + [method.marks["marker"]] * 4


def test_curve_below_the_axis_is_stated():
    rows = [
        {"method": "mcem", "role": "paper", "split": split, "samples_evaluated": 4.5e6, "log_marginal_nats": value}
        for split, value in (("train", -204.04), ("test", -205.06))
    ]
    assert not_seen("mcem", pd.DataFrame(rows), -160) == "MCEM: below the axis, −204.0 / −205.1 at 4.5 million"
    assert not_seen("mcem", pd.DataFrame(rows), -210) == ""


@pytest.mark.slow
def test_figure_without_a_run_is_drawn(tmp_path):
    png, pdf = save(figure3().draw(pd.DataFrame(columns=list(Figure3.columns)), {}), tmp_path / "figure3")
    assert png.stat().st_size > 10_000
    assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_sizes": [10]}, r"figure\.train_sizes must name some of 1000, 50000, got \[10\]"),
        ({"methods": {"vae": []}}, rf"figure\.methods must name some of {', '.join(METHODS)}, got \['vae'\]"),
        ({"max_samples": {"quick": 1}}, r"figure\.max_samples must have a value for each of quick"),
        (
            {"check_estimator": ImportanceSampling(num_samples=5, samples_per_chunk=None)},
            "must measure log p.* got posterior_density_50 and importance_sampling_5",
        ),
    ],
)
def test_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        figure3(**changes)
