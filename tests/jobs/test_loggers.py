"""Further loggers: what they wrote is read back, without a network or an account."""

import csv

import pytest
from training import composed, train_tiny

from vae_lab.commands.evaluate import EvaluateSettings, evaluate
from vae_lab.errors import ConfigError
from vae_lab.jobs import assemble
from vae_lab.runs.curve import read_rows, series
from vae_lab.wiring.build import settings

SHORT = ("max_samples=300",)


def bounds(run) -> list[float]:
    return series(read_rows(run.curve_file), "test/bound")[1]


def test_csv_has_the_curve_and_the_kl_of_every_latent_dimension(tmp_path):
    run = train_tiny(tmp_path / "run", *SHORT, "logger=csv")
    with open(run.tensorboard / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test/bound"]) for row in rows] == pytest.approx(bounds(run), rel=1e-6)
    assert "kl_per_dimension/test/002" in rows[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what others deprecate of each other
def test_wandb_writes_offline_and_its_run_is_read_without_it(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CONSOLE", "off")  # it would go on hearing what later tests print, after its end
    try:
        run = train_tiny(tmp_path / "run", *SHORT, "logger=wandb", f"output_root={tmp_path}")
    finally:
        wandb.teardown()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = file.read_bytes()  # records of its own kind, which no public function reads
    assert all(repr(value).encode() in written for value in bounds(run)) and b"kl_per_dimension" in written
    with composed("evaluate", f"run={run.path}", "estimator.num_samples=2", "num_datapoints=5", "threads=1") as cfg:
        assert evaluate(settings(EvaluateSettings, cfg)) == [run.ledger_path("best")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what others deprecate of each other
def test_mlflow_writes_all_runs_to_one_database(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    runs = [train_tiny(tmp_path / name, *SHORT, "logger=mlflow", f"output_root={tmp_path}") for name in ("a", "b")]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("vae_lab")
    found = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    for run in runs:
        history = client.get_metric_history(found[str(run.path)], "test/bound")
        assert [point.value for point in sorted(history, key=lambda point: point.step)] == pytest.approx(bounds(run))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_names_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install '.\[{name}\]'"):
        train_tiny(tmp_path / "run", *SHORT, f"logger={name}")
    assert not (tmp_path / "run").exists()
