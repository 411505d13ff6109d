import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from training import weights

from vae_lab.errors import RunError
from vae_lab.figures.base import select
from vae_lab.figures.canvas import save
from vae_lab.figures.full_variational_bayes import FullVariationalBayesFigure
from vae_lab.measurement import measure_bound, summarise
from vae_lab.objectives.full_variational_bayes import FullVariationalBayes
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_objective, load_run

SCALES = ("quick", "standard", "paper")
FULL = ("objective=full_variational_bayes", "objective.initial_std=0.3", "optimizer.lr=0.01")


def full_vb_figure(**changes):
    settings = {
        "train_sizes": [100, 1000],
        "overrides": ["experiment=mnist_paper"],
        "methods": {"full": ["objective=full_variational_bayes"], "plain": ["objective=aevb"]},
        "learning_rates": {"full": [], "plain": [0.01, 0.02]},
        "max_samples": dict.fromkeys(SCALES, 200),
        "snapshots": {scale: [100, 200] for scale in SCALES},
        "num_draws": 4,
        "seed": 0,
    }
    return FullVariationalBayesFigure(**(settings | changes))


@pytest.fixture(scope="module")
def canned():
    """Both methods on 100 images; full variational Bayes alone on 1,000."""
    rows = []
    for size, method in ((100, "full"), (100, "plain"), (1000, "full")):
        for samples, share in ((20_000, 0.0), (1_000_000, 1.0)):
            values = {"train_bound": -240 + 80 * share, "test_bound": -400 + 200.04 * share}
            if method == "full":
                values["parameter_kl"] = 1000 - 900 * share
            facts = {"train_size": size, "method": method, "samples_evaluated": samples}
            rows += [facts | {"quantity": quantity, "nats": value} for quantity, value in values.items()]
    return pd.DataFrame(rows, columns=list(FullVariationalBayesFigure.columns))


def test_runs_are_both_methods_on_every_training_set():
    runs = {needed.label: needed for needed in full_vb_figure().needed_runs("quick")}
    assert list(runs) == [f"full_vb_{size}_{method}" for size in (100, 1000) for method in ("full", "plain")]
    full = runs["full_vb_100_full"]
    assert full.overrides == ("experiment=mnist_paper", "data.train_size=100", "objective=full_variational_bayes")
    assert (full.learning_rates, full.snapshots) == ((), (100, 200))
    assert runs["full_vb_1000_plain"].learning_rates == (0.01, 0.02)


def measured(figure: FullVariationalBayesFigure, runs: dict[str, RunDir]) -> pd.DataFrame:
    """The table once everything is measured that it shows."""
    assert figure.measure(runs, "quick") == {}
    return figure.collect(runs, "quick")


def counts(figure: FullVariationalBayesFigure, runs: dict[str, RunDir]) -> dict[str, int]:
    """How many values are to be measured with each of the runs."""
    needed = {needed.label: needed for needed in figure.needed_runs("quick")}
    return {label: figure.num_estimates(needed[label], run, "quick") for label, run in runs.items()}


@pytest.mark.slow
def test_draws_of_the_snapshots_are_measured_and_kept(tmp_path, short_run):
    runs = {
        "full_vb_100_full": short_run(tmp_path / "full_vb_100_full", *FULL),
        "full_vb_100_plain": short_run(tmp_path / "full_vb_100_plain"),
    }
    counted = counts(full_vb_figure(), runs)
    table = measured(full_vb_figure(), runs)
    assert set(counts(full_vb_figure(), runs).values()) == {0}
    assert tuple(table) == FullVariationalBayesFigure.columns
    assert set(table["samples_evaluated"]) == {100, 200}
    for method, quantities in (
        ("full", {"train_bound", "test_bound", "parameter_kl"}),
        ("plain", {"train_bound", "test_bound"}),
    ):
        rows = select(table, method=method)
        assert set(rows["quantity"]) == quantities
        assert len(rows) == 2 * len(quantities)
    bounds = table[table["quantity"] != "parameter_kl"]
    assert set(bounds["num_draws"]) == {4}
    assert bounds.groupby("label").size().to_dict() == counted
    assert min(bounds["standard_error"]) > 0
    curve = [row["train/parameter_kl_running"] for row in read_rows(runs["full_vb_100_full"].curve_file)]
    assert select(table, quantity="parameter_kl")["nats"].tolist() == curve

    key = "test/predictive_bound_4"
    (row,) = select(table, method="full", quantity="test_bound", samples_evaluated=100).to_dict("records")
    ledger = runs["full_vb_100_full"].ledger("100")
    assert (ledger[key], ledger[f"{key}_se"], ledger[f"{key}_seed"]) == (row["nats"], row["standard_error"], 0)
    files = [file for run in runs.values() for file in (run.checkpoints / "at").glob("*.json")]
    known = [file.read_bytes() for file in files]
    again = measured(full_vb_figure(), {label: RunDir(run.path) for label, run in runs.items()})
    pd.testing.assert_frame_equal(again, table)
    assert (len(files), [file.read_bytes() for file in files]) == (4, known), "nothing is measured again"
    measured(full_vb_figure(num_draws=5), runs)
    assert "test/predictive_bound_5" in runs["full_vb_100_full"].ledger("100")


@pytest.mark.slow
def test_predictive_bound_is_the_mean_over_draws_and_not_the_bound_of_the_posterior_mean(tmp_path, short_run):
    run = short_run(tmp_path / "full_vb_100_full", *FULL)
    figure = full_vb_figure(num_draws=40)
    rows = measured(figure, {"full_vb_100_full": run})
    (row,) = select(rows, quantity="test_bound", samples_evaluated=200).to_dict("records")
    # directly: the decoder of the checkpoint moved by its own standard deviations
    state, model = weights(run), load_run(run.path, checkpoint="last").model
    x = load_run(run.path).data.measured("test").images
    bound_of_mean = summarise(measure_bound(model, x, num_samples=20, seed=1), num_samples=20)["bound"]
    means = {name: parameter.detach().clone() for name, parameter in model.decoder.named_parameters()}
    log_variances = [value for name, value in state.items() if name.startswith("objective.log_variances.")]
    bounds = []
    for _ in range(40):
        with torch.no_grad():
            for (name, mean), log_variance in zip(means.items(), log_variances, strict=True):
                std = (0.5 * log_variance).exp()
                model.decoder.get_parameter(name).copy_(mean + std * torch.randn_like(mean))
        bounds.append(summarise(measure_bound(model, x, num_samples=1, seed=len(bounds)), num_samples=1)["bound"])
    direct = torch.tensor(bounds)
    error = (direct.var() / 40 + row["standard_error"] ** 2).sqrt()
    assert row["nats"] == pytest.approx(float(direct.mean()), abs=float(6 * error))
    assert row["nats"] < bound_of_mean - float(6 * error)


def test_objective_is_loaded_as_it_was_at_the_snapshot(tmp_path, short_run):
    run = short_run(tmp_path / "full_vb_100_full", *FULL)
    loaded = load_run(run.path, checkpoint="last")
    states = {}
    for samples in (100, 200):
        objective = load_objective(loaded, run.checkpoints / "at" / f"{samples}.ckpt")
        assert isinstance(objective, FullVariationalBayes)
        states[samples] = objective.log_variances[0].detach()
        expected = weights(run, f"at/{samples}")["objective.log_variances.0"]
        torch.testing.assert_close(states[samples], expected, rtol=0, atol=0)
    assert not states[100].equal(states[200])


def test_what_was_measured_before_an_error_is_kept(tmp_path, short_run):
    run = short_run(tmp_path / "full_vb_100_plain")
    (run.checkpoints / "at" / "200.ckpt").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"200\.ckpt must hold tensors"):
        full_vb_figure().measure({"full_vb_100_plain": run}, "quick")
    assert {"train/predictive_bound_4", "test/predictive_bound_4_se"} < set(run.ledger("100"))


def test_run_without_weights_has_no_bounds(tmp_path, short_run):
    run = short_run(tmp_path / "full_vb_100_full", *FULL)
    shutil.rmtree(run.checkpoints)
    assert set(measured(full_vb_figure(), {"full_vb_100_full": run})["quantity"]) == {"parameter_kl"}


def test_panels_have_bounds_above_and_the_divergence_below(canned):
    picture = full_vb_figure().draw(canned, {})
    bounds, _, divergence, _ = picture.axes
    assert bounds.get_title() == "$N_{\\mathrm{train}} = 100$"
    assert (bounds.get_xscale(), divergence.get_yscale()) == ("log", "log")
    looks = [(line.get_color(), line.get_linestyle()) for line in bounds.lines]
    assert looks == [("tab:red", "-"), ("tab:red", "--"), ("tab:purple", "-"), ("tab:purple", "--")]
    with_posterior, without = divergence.lines
    assert (with_posterior.get_color(), np.asarray(with_posterior.get_ydata()).tolist()) == ("tab:purple", [1000, 100])
    assert np.asarray(without.get_ydata()).size == 0


def test_last_values_stand_above_a_panel_and_an_absent_run_is_named(canned):
    left, right, *_ = full_vb_figure().draw(canned, {}).axes
    values = "−160.0 / −200.0"
    assert [text.get_text() for text in left.texts] == [f"AEVB: {values}", f"Full variational Bayes: {values}"]
    assert [text.get_text() for text in right.texts] == ["AEVB: no run yet", f"Full variational Bayes: {values}"]


@pytest.mark.slow
def test_figure_is_saved_also_without_a_run(tmp_path, canned):
    for name, table in (
        ("canned", canned),
        ("nothing", pd.DataFrame(columns=list(FullVariationalBayesFigure.columns))),
    ):
        png, pdf = save(full_vb_figure().draw(table, {}), tmp_path / name)
        assert png.stat().st_size > 10_000
        assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"full": []}}, r"figure\.methods must name full and plain, got full"),
        ({"learning_rates": {}}, r"figure\.learning_rates must name full and plain, got none"),
        ({"train_sizes": []}, r"figure\.train_sizes must hold a training set size"),
        ({"num_draws": 1}, r"figure\.num_draws must be an integer >= 2, got 1"),
        ({"max_samples": {"quick": 1}}, r"figure\.max_samples must have a value for each of quick"),
    ],
)
def test_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        full_vb_figure(**changes)
