"""A run whose objective trains no encoder: nothing about q(z|x) is written, and what needs it refuses."""

import json

import pytest
from training import assert_equal, evaluate_tiny, train_more, train_tiny, weights

from vae_lab.callbacks.bound_curve import BoundCurve
from vae_lab.errors import ConfigError, NoEncoder
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command

MONTE_CARLO_EM = (
    "objective=monte_carlo_em",
    "data.train_size=50",
    "trainer.max_epochs=null",
    "evaluation.first=1500",
    "evaluation.per_decade=3",
    "evaluation.splits=[val,test]",
    "evaluation.num_datapoints=5",
    "evaluation.estimator.num_temperatures=4",
)
"""An iteration counts for 15 * 50 = 750 samples."""
LABEL = "test[:5]/log_likelihood/annealed_importance_sampling_4x4"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    return train_tiny(tmp_path_factory.mktemp("mcem") / "run", *MONTE_CARLO_EM, "max_samples=6000")


@pytest.mark.slow
def test_curve_and_ledger_hold_log_likelihood_and_nothing_of_an_encoder(run):
    rows = read_rows(run.curve_file)
    assert [row["samples_evaluated"] for row in rows] == [1500, 2250, 5250, 6000]
    ledger = json.loads((run.path / "metrics.json").read_text())
    for names in (*rows, ledger):
        assert {LABEL, f"{LABEL}_se"} <= set(names)
        assert not [name for name in names for word in ("bound", "kl", "active", "recon") if word in name]
    assert ledger["checkpoint"] == "last"
    assert ledger[LABEL] == pytest.approx(rows[-1][LABEL])
    assert rows[-1][LABEL] > rows[0][LABEL] + 1


def test_rule_that_counts_samples_is_logged(run):
    assert "samples evaluated (leapfrog_and_updates): 15 per datapoint and iteration" in run.log.read_text()


def test_loaded_run_has_no_posterior(run):
    loaded = load_run(run.path)
    assert loaded.sample(3).shape == (3, 1, 8, 8)
    with pytest.raises(NoEncoder, match="estimator="):
        loaded.encode(loaded.data.splits["test"].images[:1])


def test_evaluate_refuses_what_needs_an_encoder_and_names_what_does_not(run):
    with pytest.raises(NoEncoder, match="estimator=annealed_importance_sampling"):
        evaluate_tiny(run)


@pytest.mark.slow
def test_evaluate_measures_without_a_bound(run):
    settings = ("estimator=posterior_density", "num_datapoints=5", "estimator.num_samples=50")
    ledger = json.loads(evaluate_tiny(run, *settings).read_text())
    assert {LABEL, "test[:5]/log_likelihood/posterior_density_50"} <= set(ledger)
    assert not [name for name in ledger if "bound" in name]


@pytest.mark.slow
def test_continued_chains_are_those_of_the_undisturbed_run(run, tmp_path):
    other = train_tiny(tmp_path / "run", *MONTE_CARLO_EM, "max_samples=3000")
    train_more(other.path, "max_samples=6000")
    assert "objective.chain" in weights(other)
    assert_equal(weights(run), weights(other))
    assert run.curve_file.read_text() == other.curve_file.read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("early_stopping.patience=2", "early_stopping.patience must be null for MonteCarloEM, got 2"),
        ("trainer.devices=2", "trainer.devices must be 1 for MonteCarloEM, got 2 processes"),
        ("max_samples=700", "max_samples must be >= 750, the samples of one step, got 700"),
    ],
)
def test_training_without_encoder_refuses(setting, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train_tiny(tmp_path / "run", *MONTE_CARLO_EM, "max_samples=6000", setting)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["quickstart", None])
def test_smoke_has_budget_for_an_iteration(experiment, tmp_path):
    chosen = [f"experiment={experiment}"] if experiment else []
    run = train_more(tmp_path / "run", *chosen, "objective=monte_carlo_em", "smoke=on", "threads=1", "callbacks=none")
    assert (run.read_status(), run.read_record()["samples_evaluated"]) == ("finished", 1500)
    assert {"val[:10]/log_likelihood/annealed_importance_sampling_4x50"} <= set(run.ledger("last"))


@pytest.mark.parametrize("name", ["importance_sampling", "bidirectional"])
def test_curve_refuses_an_estimator_that_needs_an_encoder_or_data_of_its_own(name, tmp_path):
    config = compose_command("evaluate", ["run=none", f"estimator={name}"])[0]
    estimator = build.instantiate(config["estimator"], "estimator")
    with pytest.raises(ValueError, match=r"evaluation\.estimator must measure .* need no encoder, got [BI]"):
        BoundCurve(
            first=1,
            per_decade=1,
            every=None,
            splits=["test"],
            num_samples=1,
            num_datapoints=1,
            estimator=estimator,
            seed=0,
            curve_file=tmp_path / "metrics.csv",
        )
