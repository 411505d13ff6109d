"""A run directory that exists: continued as it was planned, extended by a larger budget, else refused."""

import shutil

import pytest
import warm_python
from training import (
    TINY,
    assert_same_training,
    checkpoint,
    evaluate_tiny,
    scalars,
    train_more,
    train_tiny,
    vae_lab,
    weights,
)

from vae_lab.cli import main
from vae_lab.errors import ConfigError, RunError
from vae_lab.runs.continuation import overrides_with
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run


@pytest.fixture
def copied_run(finished_run, tmp_path) -> RunDir:
    shutil.copytree(finished_run.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


def contents(run: RunDir) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_four_epochs_equal_two_and_two_more(finished_run, tmp_path):
    train_tiny(tmp_path / "run", "trainer.max_epochs=2")
    extended = train_more(tmp_path / "run", "trainer.max_epochs=4")
    assert_same_training(extended, finished_run)
    assert extended.read_record()["config_hash"] == finished_run.read_record()["config_hash"]
    assert extended.read_config() == finished_run.read_config()
    typed = extended.read_record()["overrides"]
    assert [text for text in typed if text.startswith("trainer.max_epochs")] == ["trainer.max_epochs=4"]
    assert "data.batch_size=50" in typed


@pytest.mark.slow
def test_four_epochs_equal_two_and_two_more_when_the_best_was_in_between(tmp_path):
    worse_later = ("schedule=stages", "schedule.milestones=[12]", "schedule.gamma=3000", "optimizer.lr=0.001")
    whole = train_tiny(tmp_path / "whole", *worse_later, "trainer.max_epochs=4")
    half = train_tiny(tmp_path / "half", *worse_later, "trainer.max_epochs=2")
    assert checkpoint(half, "best")["vae_lab"]["samples"] == 600  # the end, which is no mark
    extended = train_more(tmp_path / "half", "trainer.max_epochs=4")
    assert checkpoint(whole, "best")["vae_lab"]["samples"] < 600
    assert_same_training(extended, whole)


@pytest.mark.slow
def test_values_of_other_weights_leave_the_ledger_when_a_run_goes_on(tmp_path):
    run = train_tiny(tmp_path / "run", "max_samples=200")
    evaluate_tiny(run)
    evaluate_tiny(run, "checkpoint=last")
    assert all("test/log_likelihood/importance_sampling_5" in run.ledger(name) for name in ("best", "last"))
    earlier = run.ledger_path("last").read_text()
    train_more(run.path, "max_samples=400")
    assert run.ledger("last") == {}
    run.ledger_path("last").write_text(earlier)  # as versions left it that did not remove it
    assert load_run(run.path, checkpoint="last").metrics == {}
    ledger = run.ledger("best")
    assert ledger["samples_evaluated"] == 400
    assert not [key for key in ledger if "log_likelihood" in key or key.endswith("bound_se")]


def test_what_was_typed_is_kept_with_what_a_continuation_changed():
    before = {"max_samples": 3000, "data": {"root": "here", "batch_size": 50}, "trainer": {"max_epochs": None}}
    now = {"max_samples": None, "data": {"root": "a b", "batch_size": 50}, "trainer": {"max_epochs": 7}}
    typed = ["experiment=mnist", "++data.root=here", "max_samples=3e3"]
    changed = ["max_samples=null", "data.root='a b'", "trainer.max_epochs=7"]
    assert overrides_with(typed, before, now) == {"overrides": ["experiment=mnist", *changed]}
    derived = {"evaluation": {"first": 30}, "schedule": {"total_samples": 3000}}
    pinned = ["evaluation.first=30", "schedule.total_samples=3000"]
    assert overrides_with(typed, before | derived, now | derived) == {"overrides": [typed[0], *changed, *pinned]}
    assert overrides_with(typed, before, before) == {"overrides": typed} and overrides_with(None, before, now) == {}


def test_a_finished_run_says_so_and_is_left_as_it_is(copied_run, caplog):
    before = contents(copied_run)
    with caplog.at_level("INFO", "vae_lab"):
        assert train_more(copied_run.path, "seed=0", "data.batch_size=50").path == copied_run.path
    assert "is finished: there is nothing left to train" in caplog.text
    assert contents(copied_run) == before


@pytest.mark.parametrize("setting", ["threads=2", "allow=[my_package]", "name=other", "output_root=elsewhere"])
def test_where_and_how_a_run_is_made_may_change(copied_run, setting):
    assert train_more(copied_run.path, setting).read_status() == "finished"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["seed=1"], [r"seed=0 \(asked for: 1\)"]),
        (["trainer.max_epochs=3"], [r"trainer\.max_epochs=4 \(asked for: 3\)"]),
        (["max_samples=5000"], [r"max_samples=None \(asked for: 5000\)"]),
        (["model=conv", "optimizer.lr=0.1"], [r"model=mlp \(asked for: conv\)", r"optimizer\.lr=0\.001"]),
        (["+trainer.benchmark=true"], [r"trainer\.benchmark=None \(asked for: true\)"]),
        (["~optimizer.eps"], [r"optimizer\.eps=1e-08"]),
        (["trainer.max_epochs=8", "model.latent_dim=2"], [r"model\.latent_dim=3 \(asked for: 2\)"]),
    ],
)
def test_another_config_is_refused_naming_every_key_that_differs(copied_run, settings, named):
    before = contents(copied_run)
    for pattern in named:
        with pytest.raises(ConfigError, match=f"was planned with .*{pattern}.*only a larger budget"):
            train_more(copied_run.path, *settings)
    assert contents(copied_run) == before


def test_the_command_line_refuses_another_config_with_exit_code_2(copied_run, capsys):
    assert main(["train", f"run_dir={copied_run.path}", "data.split_seed=5"]) == 2
    message = capsys.readouterr().err
    assert "data.split_seed=0 (asked for: 5)" in message and "Traceback" not in message


@pytest.mark.slow
def test_a_failed_run_goes_on_from_its_last_good_checkpoint(finished_run, tmp_path):
    settings = [*TINY, "schedule=stages", "schedule.milestones=[5]", "schedule.gamma=1e30"]
    assert main(["train", f"run_dir={tmp_path}/run", *settings]) == 1
    assert main(["train", f"run_dir={tmp_path}/run"]) == 1
    run = RunDir(tmp_path / "run")
    assert run.read_status() == "failed" and "NonFiniteDensity" in run.read_record()["error"]
    assert [row["samples_evaluated"] for row in read_rows(run.curve_file)] == [100, 200, 250]


@pytest.mark.slow
def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    settings = ("early_stopping.patience=1", "early_stopping.min_delta=1000", "trainer.max_epochs=2")
    run = train_tiny(tmp_path / "run", *settings)
    curve, bits = run.curve_file.read_text(), weights(run)
    run.update_record(status="running")  # as if killed after the last checkpoint
    train_more(run.path, "trainer.max_epochs=4")
    assert run.read_status() == "finished" and run.read_record()["stopped_early"] is True
    assert run.curve_file.read_text() == curve and weights(run).keys() == bits.keys()
    assert checkpoint(run)["vae_lab"]["samples"] == 200


@pytest.mark.slow
def test_what_was_written_after_the_checkpoint_is_taken_back(finished_run, copied_run):
    """The state of a kill between the last row and its checkpoint: rows, events and best.ckpt are ahead."""
    early = copied_run.path.with_name("early")
    train_tiny(early, "max_samples=650", "trainer.max_epochs=4")
    shutil.copy(early / "checkpoints" / "last.ckpt", copied_run.checkpoints / "last.ckpt")
    copied_run.update_record(status="running")
    (copied_run.path / "metrics.json").unlink()
    assert copied_run.read_status() == "interrupted"
    train_more(copied_run.path)
    assert_same_training(copied_run, finished_run)


def test_a_kill_while_the_result_is_measured_loses_nothing(finished_run, copied_run):
    copied_run.update_record(status="running")
    (copied_run.path / "metrics.json").unlink()
    train_more(copied_run.path)
    assert_same_training(copied_run, finished_run)
    assert copied_run.read_status() == "finished"
    assert len(scalars(copied_run)["hp/test/bound"]) == 1


@pytest.mark.slow
def test_hyperparameters_have_bounds_by_one_draw_of_z_only(finished_run, copied_run):
    ledger = finished_run.ledger("best")
    copied_run.update_ledger("best", ledger | {"test/bound": -1.0, "test/bound_num_samples": 8})
    copied_run.update_record(status="running")
    train_more(copied_run.path)
    assert copied_run.ledger("best")["test/bound"] == -1.0
    logged = [tag for tag in scalars(copied_run) if tag.startswith("hp/")]
    assert sorted(logged) == [
        f"hp/{split}/{name}" for split in ("train", "val") for name in ("bound", "kl", "reconstruction")
    ]


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_refused(copied_run, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.directory.WRITING_SECONDS", 0.1)
    with copied_run.locked():
        with pytest.raises(RunError, match="is being written by another process"):
            train_more(copied_run.path, "trainer.max_epochs=8")
        with pytest.raises(RunError, match="is being written by another process"):
            evaluate_tiny(copied_run)


@pytest.mark.slow
def test_two_trainings_begun_at_once_in_one_folder_are_one_training(tmp_path):
    overrides = [*TINY, "data=digits", "trainer.max_epochs=4"]
    line = ["train", f"run_dir={tmp_path / 'run'}", *overrides]
    started = [vae_lab(*line, f"seed={seed}", executable=warm_python.python()) for seed in (0, 1)]
    ended = [(*process.communicate(timeout=180), process.returncode) for process in started]
    assert sorted(code for *_, code in ended) == [0, 2]
    (winner,) = [seed for seed, (*_, code) in enumerate(ended) if code == 0]
    (told,) = [err for _, err, code in ended if code == 2]
    assert any(words in told for words in ("another process", "was planned with"))
    run = RunDir(tmp_path / "run")
    assert run.read_config()["seed"] == run.read_record()["seed"] == winner and run.read_status() == "finished"
    assert f"seed {winner}" in run.log.read_text() and f"seed {1 - winner}" not in run.log.read_text()
