"""`vae-lab evaluate` on a run directory: what it writes, that it repeats, what it refuses."""

import errno
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from training import composed, evaluate_tiny, freeze_anew

from vae_lab.cli import main
from vae_lab.commands.evaluate import EvaluateSettings, evaluate
from vae_lab.errors import ConfigError, RunError, StorageError, UntrustedTarget, no_room
from vae_lab.estimators.pareto import WeightTail
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.runs.load import load_run
from vae_lab.runs.result import log_likelihood_keys
from vae_lab.wiring.build import settings

KEY = "test/log_likelihood/importance_sampling_5"


@pytest.fixture
def run(finished_run, tmp_path) -> RunDir:
    shutil.copytree(finished_run.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


@pytest.mark.slow
def test_two_evaluations_agree_exactly_and_another_seed_does_not(run):
    file = run.path / "metrics.json"
    unmeasured = file.read_text()
    assert evaluate_tiny(run) == file
    first = file.read_text()
    file.write_text(unmeasured)  # or the second would be answered by it
    evaluate_tiny(run)
    assert file.read_text() == first != unmeasured
    evaluate_tiny(run, "seed=1")
    ledger = run.ledger("best")
    assert ledger[KEY] != json.loads(first)[KEY] and ledger[f"{KEY}_seed"] == 1


def test_values_have_standard_errors_and_say_on_how_many_datapoints(run):
    before = run.ledger("best")
    evaluate_tiny(run)
    ledger = run.ledger("best")
    assert ledger[f"{KEY}_se"] > 0 and ledger[f"{KEY}_sd"] > 0 and ledger["test/bound_se"] > 0
    assert ledger[f"{KEY}_num_datapoints"] == ledger["test/num_datapoints"] == 250
    assert ledger["test/bound_num_samples"] == 2
    assert ledger[KEY] > ledger["test/bound"] - 6 * (ledger[f"{KEY}_se"] + ledger["test/bound_se"])
    assert len(ledger["test/kl_per_dimension"]) == 3 and ledger["test/kl"] == before["test/kl"]
    assert {key: ledger[key] for key in before if key.startswith(("val/", "train/"))} == {
        key: value for key, value in before.items() if key.startswith(("val/", "train/"))
    }


def test_all_values_are_plain_json(run):
    assert all(
        isinstance(value, str | int | float | list) for value in json.loads(evaluate_tiny(run).read_text()).values()
    )


def test_part_of_a_split_has_its_own_name(run):
    whole = run.ledger("best")
    evaluate_tiny(run, "splits=[val,test]", "num_datapoints=40")
    ledger = run.ledger("best")
    assert ledger["val[:40]/num_datapoints"] == ledger["test[:40]/num_datapoints"] == 40
    assert ledger["test[:40]/log_likelihood/importance_sampling_5_num_datapoints"] == 40
    assert {key: ledger[key] for key in whole} == whole
    evaluate_tiny(run, "num_datapoints=100000")
    assert run.ledger("best")["test/bound_num_samples"] == 2
    assert not [key for key in run.ledger("best") if "[:100000]" in key]


def test_another_checkpoint_has_a_ledger_of_its_own(run):
    before = run.ledger("best")
    path = evaluate_tiny(run, "checkpoint=last")
    assert path.name == "metrics-last.json" and json.loads(path.read_text())["checkpoint"] == "last"
    assert run.ledger("best") == before
    assert load_run(run.path, checkpoint="last").metrics[KEY] == json.loads(path.read_text())[KEY]


def test_the_table_shows_means_and_errors(run, capsys):
    evaluate_tiny(run)
    table = capsys.readouterr().out
    assert "test/bound" in table and "s.e." in table and f"{run.ledger('best')[KEY]:.3f}" in table


def table_rows(text: str) -> dict[str, list[str]]:
    """Quantity -> cells of a printed table that is wide enough."""
    rows = [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in text.splitlines() if "│" in line]
    return {name: cells for name, *cells in rows}


@pytest.mark.slow
def test_several_estimators_stand_side_by_side_in_one_table(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    evaluate_tiny(run, "num_datapoints=20", "estimators=[quadrature,importance_sampling]")
    rows = table_rows(capsys.readouterr().out)
    ledger, name = run.ledger("best"), "test[:20]/log_likelihood/"
    labels = [key for key in rows if key.startswith(name)]
    assert labels == [f"{name}quadrature_20", f"{name}importance_sampling_5"], "in the order asked for"
    for key in labels:
        numbers = [ledger[key], ledger[f"{key}_se"], ledger[f"{key}_sd"]]
        assert rows[key] == [*(f"{number:.3f}" for number in numbers), "20"]
    assert rows["test[:20]/bound"][0] == f"{ledger['test[:20]/bound']:.3f}"
    assert rows["test[:20]/bound"][3] == "20"


@pytest.mark.slow
def test_the_table_shows_what_the_ledger_knew_of_the_same_datapoints(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    evaluate_tiny(run, "num_datapoints=20")
    evaluate_tiny(run, "num_datapoints=10")
    capsys.readouterr()
    evaluate_tiny(run, "num_datapoints=20", "estimator.num_samples=7")
    rows = table_rows(capsys.readouterr().out)
    earlier, new = (f"test[:20]/log_likelihood/importance_sampling_{k}" for k in (5, 7))
    assert [key for key in rows if "log_likelihood" in key] == [new, f"{earlier}*"]
    assert rows[f"{earlier}*"][0] == f"{run.ledger('best')[earlier]:.3f}"


def test_a_new_value_has_no_error_of_an_older_one(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    evaluate_tiny(run, "num_datapoints=20", "num_samples=8")
    text = capsys.readouterr().out
    assert table_rows(text)["test[:20]/bound"][1] and "test[:20]/bound: the mean over 8 draws of z" in text
    assert main(["evaluate", f"run={run.path}", *FAST, "num_samples=1", "save=false"]) == 0
    text = capsys.readouterr().out
    assert table_rows(text)["test[:20]/bound"][1] == "" and "draws of z" not in text


def test_a_value_that_cannot_be_trusted_is_flagged_with_the_share_of_datapoints(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    k_hats = torch.tensor([0.9, 0.71, 0.7, math.inf, -math.inf])  # three of five are above 0.7
    monkeypatch.setattr(WeightTail, "k_hat", property(lambda _: k_hats.repeat(4)))
    evaluate_tiny(run, "num_datapoints=20")
    ledger, key = run.ledger("best"), "test[:20]/log_likelihood/importance_sampling_5"
    assert ledger[f"{key}_high_k_hat"] == pytest.approx(0.6) and 0.2 <= ledger[f"{key}_ess_share"] <= 1
    text = capsys.readouterr().out
    assert table_rows(text)[key][0] == f"{ledger[key]:.3f} !60%" and "Pareto k-hat" in text
    assert table_rows(text)["test[:20]/bound"][0] == f"{ledger['test[:20]/bound']:.3f}"
    monkeypatch.undo()
    evaluate_tiny(run, "num_datapoints=20", "seed=1")
    assert "Pareto" not in capsys.readouterr().out
    assert f"{key}_high_k_hat" not in run.ledger("best"), "the value of before took its flag along"


def test_sandwich_of_simulated_data_stands_under_a_name_of_its_own(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    small = ("estimator.num_chains=2", "estimator.num_temperatures=5", "num_datapoints=20", "num_samples=1")
    with composed("evaluate", f"run={run.path}", "threads=1", "estimator=bidirectional", *small) as cfg:
        evaluate(settings(EvaluateSettings, cfg))
    rows, ledger = table_rows(capsys.readouterr().out), run.ledger("best")
    key = "test[:20]/simulated_log_likelihood/bidirectional_2x5"
    assert ledger[f"{key}_upper"] - ledger[key] == pytest.approx(ledger[f"{key}_gap"])
    for name, error in ((key, f"{ledger[f'{key}_se']:.3f}"), (f"{key}_upper", ""), (f"{key}_gap", None)):
        expected = f"{ledger[f'{key}_gap_se']:.3f}" if error is None else error
        assert (rows[name][0], rows[name][1], rows[name][3]) == (f"{ledger[name]:.3f}", expected, "20")
    assert not log_likelihood_keys(ledger), "it is no log p(x) of the data"


def test_what_was_measured_before_an_interruption_is_in_the_ledger(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vae_lab.estimators.quadrature.Quadrature.estimate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tiny(run, "num_datapoints=20", "estimators=[importance_sampling,quadrature]")
    ledger = run.ledger("best")
    assert {"test[:20]/bound", "test[:20]/log_likelihood/importance_sampling_5"} <= set(ledger)
    assert not [key for key in ledger if "quadrature" in key]


@pytest.fixture
def read_only(run, monkeypatch) -> RunDir:
    """A run that lies where nobody may write."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("vae_lab.runs.lock.FileLock.acquire", refused)
    return run


def files(run: RunDir) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()}


def test_a_run_that_cannot_be_written_to_is_refused_before_anything_is_measured(read_only, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.measured.measure_bound", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(RunError, match=r"cannot be written to \(Read-only file system\): make it writable, or copy it"):
        evaluate_tiny(read_only)


def test_a_run_in_use_is_refused_before_anything_is_measured(run, monkeypatch):
    monkeypatch.setattr("vae_lab.runs.measured.measure_bound", lambda *_, **__: pytest.fail("measured"))
    run.update_record(status="running")
    with run.locked(), pytest.raises(RunError, match="is being written by another process"):
        evaluate_tiny(RunDir(run.path))


def test_without_save_the_table_is_printed_and_nothing_is_written(read_only, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    before = files(read_only)
    with composed("evaluate", f"run={read_only.path}", "save=false", "threads=1", *FAST) as cfg:
        assert evaluate(settings(EvaluateSettings, cfg)) == []
    rows = table_rows(capsys.readouterr().out)
    assert rows["test[:20]/log_likelihood/importance_sampling_5"][3] == "20"
    assert files(read_only) == before


def test_values_that_find_no_room_at_the_end_are_in_the_message(run, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise no_room(run.path / "metrics.json", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(RunDir, "update_ledger", full)
    with pytest.raises(StorageError, match=r"test/bound = -\d+\.\d+.*metrics\.json cannot be written"):
        evaluate_tiny(run)


def test_an_estimator_that_cannot_handle_the_model_is_refused_before_the_bound_is_measured(run, monkeypatch):
    def measured(*_, **__):
        raise AssertionError("measured")

    def load_large(*args, **settings):
        loaded = load_run(*args, **settings)
        loaded.model.latent_dim = 20
        return loaded

    monkeypatch.setattr("vae_lab.runs.measured.measure_bound", measured)
    monkeypatch.setattr("vae_lab.commands.run_settings.load_run", load_large)
    with pytest.raises(ConfigError, match=r"model\.latent_dim must be <= 3 for estimator=quadrature, got 20"):
        evaluate_tiny(run, "estimators=[importance_sampling,quadrature]")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["estimators=[quadratur]"], r"estimators must name choices of estimator, got 'quadratur': did you mean"),
        (["estimators=[]"], r"estimators must be null or a list of different names .* got \[\]"),
        (["estimators=3"], r"estimators must be a list such as \[a,b\] or null, got 3"),
        (["estimators=[quadrature,quadrature]"], r"estimators must be null or a list of different names"),
        (["estimators=[quadrature]"], r"estimator\.num_samples must be for one of estimators=\[quadrature\]"),
        (["estimator=[quadrature,importance_sampling]"], r"write estimators=\[quadrature,importance_sampling\]"),
        (["splits=[tset]"], r"splits must name a split of digits, got 'tset': did you mean 'test'"),
        (["splits=[]"], r"splits must be a list such as"),
        (["splits=true"], r"splits must be a list such as"),
        (["num_samples=0"], r"num_samples must be an integer >= 1, got 0"),
        (["num_samples=1000000000000"], r"num_samples=1000000000000 would take [\d,]+ GB of memory"),
        (["estimator.num_samples=1000000000000"], r"estimator\.num_samples must be an integer in 2 \.\.\. 1000000000"),
        (["num_datapoints=0"], r"num_datapoints must be an integer >= 1 or null, got 0"),
        (["num_samples=true"], r"num_samples must be an integer, got true"),
        (["data_root=5"], r"data_root must be a text or null, got 5"),
        (["~threads"], r"threads must be given.* add threads=VALUE"),
        (["seed=-1"], r"seed must be an integer >= 0, got -1"),
        (["device=tpu"], r"device must be one of auto, cpu, cuda, got 'tpu'"),
        (["checkpoint=frist"], r"checkpoint must be best, last, the count of a snapshot or null"),
        (["estimator.num_samples=0"], r"estimator\.num_samples must be"),
    ],
)
def test_a_wrong_setting_is_refused_and_nothing_is_written(run, settings, message):
    before = run.ledger("best")
    with pytest.raises(ConfigError, match=message):
        evaluate_tiny(run, *settings)
    assert run.ledger("best") == before


FAST = ("threads=1", "estimator.num_samples=5", "num_samples=2", "num_datapoints=20")


@pytest.mark.parametrize("paths", ["{0},{1}", "[{0},{1}]", "{0} {1}", "{folder}/*"])
def test_several_runs_are_measured_one_after_the_other(run, tmp_path, capfd, monkeypatch, paths):
    monkeypatch.chdir(tmp_path)
    runs = [RunDir(shutil.copytree(run.path, tmp_path / "runs" / name)) for name in ("a", "b,c")]
    (tmp_path / "runs" / "pictures").mkdir()
    typed = paths.format(runs[0].path, runs[1].path if "{0},{1}" not in paths else f"'{runs[1].path}'", folder="runs")
    assert main(["evaluate", *(f"run={path}" for path in typed.split(" ")), *FAST]) == 0
    *tables, first, second = capfd.readouterr().out.splitlines()
    assert [Path(line).resolve() for line in (first, second)] == [run.path / "metrics.json" for run in runs]
    summary = tables[tables.index("measured just now") :]
    value = runs[1].ledger("best")["test[:20]/log_likelihood/importance_sampling_5"]
    assert any("b,c" in line and f"{value:.2f} ±" in line for line in summary)
    assert all("test[:20]/bound" in run.ledger("best") for run in runs)


@pytest.mark.slow
def test_a_bad_run_among_several_is_refused_before_anything_is_measured(run, tmp_path, capfd):
    before = run.ledger("best")
    planned = plan_run(tmp_path / "planned", run.read_config())
    for bad, message in [(tmp_path, "is no run directory"), (planned.path, "has no checkpoint last.ckpt")]:
        assert main(["evaluate", f"run={run.path},{bad}", *FAST]) == 2
        assert message in capfd.readouterr().err
    assert main(["evaluate", f"run={tmp_path}/none*", *FAST]) == 2
    assert f"run={tmp_path}/none* matches nothing" in capfd.readouterr().err
    assert main(["evaluate", f"run={tmp_path}/pl*", *FAST]) == 2
    assert "has no checkpoint last.ckpt" in capfd.readouterr().err
    assert run.ledger("best") == before
    shutil.copytree(run.path, tmp_path / "whole")
    assert main(["evaluate", f"run={tmp_path}/*l*", *FAST]) == 0
    captured = capfd.readouterr()
    assert f"left out: {planned.path} has no checkpoint" in captured.err
    assert captured.out.splitlines()[-1] == f"{tmp_path}/whole/metrics.json"


@pytest.mark.parametrize("key", ["likelihood", "matmul_backend"])
def test_a_config_that_lacks_what_is_needed_is_refused(run, key):
    config = run.read_config()
    del config[key]
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match=f"config.yaml is no frozen config of a run: it lacks {key}$"):
        evaluate_tiny(run)


def test_a_path_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no run directory"):
        evaluate_tiny(RunDir(tmp_path))


def test_a_strangers_run_is_refused_until_its_module_is_allowed(run, tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text("from vae_lab.data.digits import Digits\nclass Own(Digits): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = run.read_config()
    config["data"]["_target_"] = "own_data.Own"
    freeze_anew(run, config)
    with pytest.raises(UntrustedTarget, match=r"data\._target_='own_data\.Own'.*allow=\[own_data\]"):
        evaluate_tiny(run)
    evaluate_tiny(run, "allow=[own_data]")
    assert KEY in run.ledger("best")
