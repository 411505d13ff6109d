"""Measured values: who asks for the same gets what the ledger has, everything else is measured anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training import evaluate_tiny, train_tiny

from vae_lab.errors import ConfigError, RunError
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run, load_run
from vae_lab.runs.measured import Measurement, bound, log_likelihood

ASKED: dict[str, Any] = {"seed": 0, "num_datapoints": 20}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run with snapshots at 100 and 200 samples, and no validation set that chooses a best checkpoint."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    return train_tiny(folder, "max_samples=200", "evaluation.splits=[test]", "checkpoint.at=[100,200]")


@pytest.fixture
def directory(trained: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(trained.path, tmp_path / "run"))


@pytest.fixture
def run(directory: RunDir) -> Run:
    return load_run(directory.path, checkpoint=100)


def importance_sampling(num_samples: int = 5, samples_per_chunk: int | None = None) -> ImportanceSampling:
    return ImportanceSampling(num_samples=num_samples, samples_per_chunk=samples_per_chunk)


def ledgers(directory: RunDir) -> dict[str, bytes]:
    """Every ledger of a run, byte for byte; a measurement rewrites the one of its checkpoint."""
    files = [*directory.path.glob("metrics*.json"), *directory.checkpoints.rglob("*.json")]
    return {file.name: file.read_bytes() for file in files}


def is_measured_again(run: Run, wanted: Measurement) -> bool:
    """Whether the ledger does not answer: the value in it is spoilt first, and a measurement brings the true one."""
    path = RunDir(run.path).ledger_path(run.checkpoint)
    true = wanted.of(run)
    path.write_text(json.dumps(json.loads(path.read_text()) | {true.key: 7.0}))
    found = load_run(run.path, checkpoint=run.checkpoint)
    return wanted.of(found).value != 7.0


@pytest.mark.slow
def test_a_snapshot_has_its_ledger_beside_it_with_the_keys_of_every_ledger(directory: RunDir, run: Run) -> None:
    before = ledgers(directory)
    value = log_likelihood("test", importance_sampling(), **ASKED).of(run)
    bound("test", num_samples=3, seed=1).of(run)
    assert {name: content for name, content in ledgers(directory).items() if name != "100.json"} == before
    ledger = json.loads((directory.checkpoints / "at" / "100.json").read_text())
    assert ledger == directory.ledger("100") == load_run(run.path, checkpoint=100).metrics
    key = "test[:20]/log_likelihood/importance_sampling_5"
    assert (value.key, value.value, value.standard_error) == (key, ledger[key], ledger[f"{key}_se"])
    assert value.num_datapoints == ledger[f"{key}_num_datapoints"] == 20
    assert (ledger["checkpoint"], ledger["samples_evaluated"], ledger["data"]) == ("100", 100, "digits")
    assert ledger["test/bound_num_samples"] == 3 and ledger["test/bound_seed"] == 1 and ledger["test/bound_se"] > 0
    assert {"test/kl_per_dimension", "test/reconstruction", "likelihood", "split_hash"} <= set(ledger)


def test_an_equal_request_is_answered_by_the_ledger(run: Run) -> None:
    for wanted in (
        bound("test", num_samples=2, seed=0),
        bound("train", num_samples=1, seed=3, num_datapoints=20),
        log_likelihood("test", importance_sampling(), **ASKED),
        log_likelihood("test", importance_sampling(), seed=0, num_datapoints=250),
    ):
        assert not is_measured_again(run, wanted)


def test_a_request_for_all_is_one_for_at_least_as_many_as_there_are(run: Run) -> None:
    whole = log_likelihood("test", importance_sampling(), seed=0).of(run)
    assert whole.key == "test/log_likelihood/importance_sampling_5" and whole.num_datapoints == 250
    for count in (250, 10_000):
        assert log_likelihood("test", importance_sampling(), seed=0, num_datapoints=count).find(whole.entries) == whole
    assert log_likelihood("test", importance_sampling(), seed=0, num_datapoints=249).find(whole.entries) is None


@pytest.mark.parametrize(
    "other",
    [
        log_likelihood("test", importance_sampling(), **ASKED | {"seed": 1}),
        log_likelihood("test", importance_sampling(), **ASKED | {"num_datapoints": 21}),
        log_likelihood("train", importance_sampling(), **ASKED),
        log_likelihood("test", importance_sampling(6), **ASKED),
        log_likelihood("test", importance_sampling(samples_per_chunk=1), **ASKED),
        bound("test", num_samples=2, **ASKED | {"seed": 1}),
        bound("test", num_samples=3, **ASKED),
    ],
    ids=lambda other: f"{other.split}-{other.quantity}-{other.num_datapoints}-{other.request}",
)
def test_whatever_decides_a_value_is_part_of_the_request(run: Run, other: Measurement) -> None:
    known = (log_likelihood("test", importance_sampling(), **ASKED), bound("test", num_samples=2, **ASKED))
    first = {key: value for wanted in known for key, value in wanted.of(run).entries.items()}
    assert other.find(first) is None
    assert other.find(other.of(run).entries) is not None


def test_a_value_of_another_seed_takes_the_place_of_the_first_and_nothing_of_it_stays(run: Run) -> None:
    bound("test", num_samples=4, seed=0).of(run)
    bound("test", num_samples=1, seed=0).of(run)
    ledger = RunDir(run.path).ledger("100")
    assert ledger["test/bound_num_samples"] == 1
    assert "test/bound_se" not in ledger, "one draw shows no error, and that of four is not its"


def test_an_entry_that_does_not_say_how_it_was_measured_is_measured_anew(run: Run) -> None:
    wanted = log_likelihood("test", importance_sampling(), **ASKED)
    entries = dict(wanted.of(run).entries)
    for lacking in ("_settings", "_seed"):
        older = {key: value for key, value in entries.items() if not key.endswith(lacking)}
        assert wanted.find(older) is None
    RunDir(run.path).ledger_path("100").write_text(
        json.dumps({"samples_evaluated": 100, wanted.of(run).key: -1.0, f"{wanted.of(run).key}_seed": 0})
    )
    assert wanted.of(run).entries == entries == {key: RunDir(run.path).ledger("100")[key] for key in entries}


def test_training_leaves_a_bound_that_is_recognised(directory: RunDir) -> None:
    last = load_run(directory.path)
    before = ledgers(directory)
    seed = last.config["seed"]
    assert bound("test", num_samples=1, seed=seed).of(last).value == last.metrics["test/bound"]
    assert ledgers(directory) == before


def test_values_of_other_weights_are_not_those_of_a_checkpoint(directory: RunDir) -> None:
    wanted = bound("test", num_samples=2, seed=0)
    wanted.of(load_run(directory.path))
    ledger = json.loads((directory.path / "metrics.json").read_text())
    (directory.path / "metrics.json").write_text(json.dumps(ledger | {"samples_evaluated": 150, "test/bound": 7.0}))
    assert wanted.of(load_run(directory.path)).value != 7.0
    assert directory.ledger("last")["samples_evaluated"] == 200


def test_a_run_at_work_is_not_measured_and_what_is_known_can_still_be_read(
    directory: RunDir, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_lab.runs.directory.WRITING_SECONDS", 0.1)
    known = bound("test", num_samples=2, seed=0).of(run)
    with directory.locked():
        assert bound("test", num_samples=2, seed=0).of(run) == known
        with pytest.raises(RunError, match="is being written by another process: wait for it or stop it"):
            bound("test", num_samples=3, seed=0).of(run)
    assert directory.ledger("100")["test/bound_num_samples"] == 2


def test_weights_that_changed_under_the_measurement_leave_the_ledger_alone(directory: RunDir) -> None:
    loaded = load_run(directory.path, checkpoint="last")
    content = torch.load(directory.checkpoints / "last.ckpt", weights_only=True)
    content["vae_lab"]["samples"] = 300
    torch.save(content, directory.checkpoints / "last.ckpt")
    before = ledgers(directory)
    with pytest.raises(RunError, match=r"went on while its last\.ckpt was measured"):
        bound("test", num_samples=2, seed=0).of(loaded)
    assert ledgers(directory) == before


def test_a_run_at_another_checkpoint_has_its_weights_and_shares_the_data(run: Run) -> None:
    data, other = run.data, run.at(200)
    assert (other.checkpoint, other.samples) == ("200", 200) and other.data is data
    weights, moved = (list(model.parameters()) for model in (run.model, other.model))
    assert not all(torch.equal(a, b) for a, b in zip(weights, moved, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(weights, load_run(run.path, checkpoint="100").model.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (150, r"checkpoint must be the count of a snapshot of .*run, got 150; it has 100, 200$"),
        ("first", r"checkpoint must be best, last, the count of a snapshot or null .* got 'first'"),
        (1.5, r"checkpoint must be best, last, the count of a snapshot or null .* got '1\.5'"),
        (0, r"got 0; it has 100, 200$"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused(directory: RunDir, checkpoint: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(directory.path, checkpoint=checkpoint)


def test_a_run_without_snapshots_says_what_keeps_them(directory: RunDir) -> None:
    shutil.rmtree(directory.checkpoints / "at")
    with pytest.raises(ConfigError, match=r"got 100; it has none: checkpoint\.at says at which counts they are kept"):
        directory.checkpoint_path(100)


@pytest.mark.parametrize("count", ["100", "1e2"])
def test_evaluate_measures_a_snapshot(directory: RunDir, count: str) -> None:
    before = ledgers(directory)
    path = evaluate_tiny(directory, f"checkpoint={count}", "num_datapoints=20")
    assert path == directory.checkpoints / "at" / "100.json"
    assert log_likelihood("test", importance_sampling(), **ASKED).find(json.loads(path.read_text())) is not None
    assert {name: content for name, content in ledgers(directory).items() if name != "100.json"} == before
    modified = path.stat().st_mtime_ns
    evaluate_tiny(directory, "checkpoint=100", "num_datapoints=20")
    assert path.stat().st_mtime_ns == modified, "everything was known"
