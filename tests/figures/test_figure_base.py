import shlex
from typing import Any

import pytest

from vae_lab.errors import ConfigError
from vae_lab.figures.base import PaperFigure, check_by_scale, records, select
from vae_lab.figures.needed import NeededRun, check_scale
from vae_lab.figures.section5 import FIGURE2, FIGURE3, Section5, figure2_published, figure3_published
from vae_lab.runs.directory import RunDir, plan_run

CURVE = NeededRun("a_2", ("data=digits", "evaluation.splits=[test]"), 2000, (0.01, 0.02), (500, 1000))
BUDGET = {"quick": 1000, "standard": 2000, "paper": 3000}


class OneCurve(PaperFigure):
    name, columns = "one", ("size", "label", "value")

    def trainings(self, scale):
        return {CURVE: {"size": 2}}

    def rows_of(self, run, scale):
        return [{"value": value} for value in (1, 2)]

    def draw(self, table, arrays):
        raise NotImplementedError


def planned(path, **record):
    config = {"seed": 0, "data": {}, "model": {}, "trainer": {}, "max_samples": 2000}
    run = plan_run(path, config)
    run.update_record(**record)
    return run


def missing(folder):
    figure = OneCurve()
    return figure.missing(figure.find_runs(folder, "quick"), "quick", folder)


def section5(**changes):
    settings = {
        "data_sets": {"mnist": ["experiment=mnist_paper"]},
        "panels": {},
        "methods": {"aevb": ["objective=aevb"], "wake_sleep": ["objective=wake_sleep"]},
        "evaluation": ["evaluation.first=50000"],
        "learning_rates": [0.01, 0.02],
        "max_samples": {"mnist": BUDGET},
        "snapshots": [1000, 2000, 5000],
    }
    return Section5(**(settings | changes))


def test_command_can_be_pasted_and_holds_budget_and_snapshots(tmp_path):
    words = shlex.split(CURVE.command(tmp_path / "a b"))
    assert words[:3] == ["vae-lab", "train", f"run_dir='{tmp_path / 'a b'}'"]  # quoted for the shell and for Hydra
    assert words[3:] == [*CURVE.overrides, "checkpoint.at=[500,1000]", "max_samples=2000"]


def test_label_that_is_no_folder_name_is_refused():
    with pytest.raises(ValueError, match="label must be of letters"):
        NeededRun("a/b", (), 1)


def test_missing_run_is_named_with_the_command_that_makes_it(tmp_path):
    (entry,) = missing(tmp_path)
    assert (entry.label, entry.reason) == ("a_2", "no run")
    assert entry.command == CURVE.command(tmp_path / "a_2")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "planned"),
        ({"status": "running", "samples_evaluated": 1000}, "interrupted at 1,000 samples"),
        ({"status": "failed", "error": "NonFiniteDensity: nan"}, "failed: NonFiniteDensity: nan"),
    ],
)
def test_run_that_is_not_whole_is_continued_by_its_command(tmp_path, record, reason):
    run = planned(tmp_path / "a_2", **record)
    (entry,) = missing(tmp_path)
    assert (entry.reason, entry.command) == (reason, f"vae-lab train run_dir={run.path}")


def test_run_being_trained_is_waited_for(tmp_path):
    run = planned(tmp_path / "a_2", status="running")
    with run.locked():
        (entry,) = missing(tmp_path)
    assert entry.reason == "still running"


def test_finished_run_is_not_missing_unless_its_budget_is_smaller(tmp_path):
    run = planned(tmp_path / "a_2", status="finished")
    assert missing(tmp_path) == []
    run.write_config(run.read_config() | {"max_samples": 1500})
    (entry,) = missing(tmp_path)
    assert entry.reason == "ends at 1,500 of 2,000 samples"
    assert entry.command == f"vae-lab train run_dir={run.path} max_samples=2000"


def test_scales_are_checked():
    with pytest.raises(ConfigError, match="did you mean quick"):
        check_scale("quik")
    with pytest.raises(ValueError, match=r"figure\.max_samples must have a value for each of quick, standard"):
        check_by_scale(max_samples={"quick": 1})


def test_table_has_its_columns_without_a_row_and_parts_by_value(tmp_path):
    assert list(OneCurve().collect({}, "quick")) == ["size", "label", "value"]
    table = OneCurve().collect({"a_2": RunDir(tmp_path)}, "quick")
    assert records(select(table, size=2, value=1)) == [{"size": 2, "label": "a_2", "value": 1}]


def test_published_curves_have_their_columns_and_known_values():
    figure2, figure3 = figure2_published(), figure3_published()
    assert (tuple(figure2), tuple(figure3)) == (FIGURE2, FIGURE3)
    best: Any = select(figure2, dataset="mnist", latent_dim=20, method="aevb", split="test")["bound_nats"].max()
    assert best == pytest.approx(-99.3, abs=0.3)  # thinned
    assert sorted(set(figure3["method"])) == ["aevb", "mcem", "wake_sleep"]


def test_section5_curves_differ_between_methods_by_the_method_only():
    training = section5()
    aevb, wake_sleep = (training.needed_run("mnist", 20, method, "standard") for method in training.methods)
    assert (aevb.label, wake_sleep.label) == ("mnist_20_aevb", "mnist_20_wake_sleep")
    assert set(aevb.overrides) ^ set(wake_sleep.overrides) == {"objective=aevb", "objective=wake_sleep"}
    assert (aevb.max_samples, aevb.learning_rates) == (2000, (0.01, 0.02))


def test_section5_panel_has_overrides_of_its_own_for_both_methods():
    training = section5(panels={"mnist_2": ["initialization.std=0.1"]})
    for method in training.methods:
        own, plain = (set(training.needed_run("mnist", size, method, "quick").overrides) for size in (2, 20))
        assert own ^ plain == {"model.latent_dim=2", "initialization.std=0.1", "model.latent_dim=20"}
    after = training.needed_run("mnist", 2, "aevb", "quick").overrides
    assert after.index("initialization.std=0.1") > after.index("experiment=mnist_paper"), "the later one wins"


def test_section5_keeps_snapshots_as_far_as_the_budget_reaches():
    kept = {scale: section5().needed_run("mnist", 2, "aevb", scale).snapshots for scale in BUDGET}
    assert kept == {"quick": (1000,), "standard": (1000, 2000), "paper": (1000, 2000)}
    assert section5(snapshots=[]).needed_run("mnist", 2, "aevb", "quick").snapshots == ()


@pytest.mark.parametrize("panel", ["frey_face_2", "mnist", "mnist_two"])
def test_section5_refuses_a_panel_that_it_cannot_have(panel):
    with pytest.raises(ValueError, match=rf"panels must name panels such as mnist_20, got '{panel}'"):
        section5(panels={panel: ["initialization.std=0.1"]})


def test_figure_that_only_reads_makes_no_estimate():
    assert OneCurve().num_estimates(CURVE, RunDir("none"), "quick") == 0


def test_section5_refuses_unknown_names_and_budgets_that_do_not_fit():
    with pytest.raises(ValueError, match="must hold 'frey_face', which is drawn, got mnist"):
        section5().needed_run("frey_face", 2, "aevb", "quick")
    with pytest.raises(ValueError, match="must name the data sets mnist, got digits"):
        section5(max_samples={"digits": BUDGET})


def test_find_runs_leaves_out_what_is_not_there(tmp_path):
    assert OneCurve().find_runs(tmp_path, "quick") == {}
    planned(tmp_path / "a_2")
    found = OneCurve().find_runs(tmp_path, "quick")
    assert list(found) == ["a_2"]
    assert isinstance(found["a_2"], RunDir)
