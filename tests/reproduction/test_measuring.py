"""What figures measure with weights: in processes of their own, and nothing twice."""

import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from training import train_tiny

from vae_lab.errors import Interrupted
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.figures.base import Arrays
from vae_lab.figures.snapshots import SnapshotFigure
from vae_lab.reproduction.measuring import measure_all
from vae_lab.runs.directory import RunDir
from vae_lab.runs.measured import log_likelihood

pytestmark = pytest.mark.slow
METHODS = ("aevb", "other")
FIRST, LAST = "1000", "2000"


@dataclass(kw_only=True, eq=False)
class Estimated(SnapshotFigure):
    """Log p(x) of a few test images at two snapshots."""

    name, prefix, value = "estimated", "estimated", "nats"
    columns = ("train_size", "method", "samples_evaluated", "nats", "standard_error", "num_datapoints", "label")

    num_samples: int

    def measurements(self, scale: str):
        estimator = ImportanceSampling(num_samples=self.num_samples, samples_per_chunk=100)
        return [({}, log_likelihood("test", estimator, seed=self.seed, num_datapoints=20))]

    def draw(self, table: pd.DataFrame, arrays: Arrays) -> Figure:
        return Figure()


def estimated(num_samples: int = 2) -> Estimated:
    return Estimated(
        train_sizes=[300],
        overrides=[],
        methods={method: [] for method in METHODS},
        learning_rates={method: [] for method in METHODS},
        max_samples=dict.fromkeys(("quick", "standard", "paper"), 2000),
        snapshots={scale: [1000, 2000] for scale in ("quick", "standard", "paper")},
        seed=0,
        num_samples=num_samples,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    snapshots = ("max_samples=2000", "trainer.max_epochs=null", "checkpoint.at=[1000,2000]", "evaluation.splits=[test]")
    return train_tiny(path, *snapshots).path


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> list[RunDir]:
    """The runs of the figure in `tmp_path`."""
    paths = [tmp_path / "runs" / f"estimated_300_{method}" for method in METHODS]
    return [RunDir(shutil.copytree(trained, path)) for path in paths]


def values(run: RunDir) -> dict[str, float | None]:
    key = "test[:20]/log_likelihood/importance_sampling_2"
    return {count: run.ledger(count).get(key) for count in (FIRST, LAST)}


def test_all_runs_are_measured_once(runs: list[RunDir], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vae_lab")
    measure_all([estimated()], tmp_path, "quick", 2)
    assert "measuring with the weights of 2 runs" in caplog.text and "[2/2] estimated_300_" in caplog.text
    one, other = map(values, runs)
    assert one == other and None not in one.values() and one[FIRST] != one[LAST]
    caplog.clear()
    measure_all([estimated()], tmp_path, "quick", 2)
    assert not caplog.text
    table = estimated().collect({run.path.name: run for run in runs}, "quick")
    assert table["nats"].tolist() == [*one.values(), *other.values()]


def test_run_that_cannot_be_measured_is_named_and_stops_no_other(
    runs: list[RunDir], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs[0].last.write_bytes(b"damaged")
    measure_all([estimated()], tmp_path, "quick", 1)
    assert "estimated_300_aevb cannot be measured: " in caplog.text and "last.ckpt" in caplog.text
    assert None not in values(runs[1]).values()


def test_damaged_ledger_of_a_run_ends_neither_the_plan_nor_the_others(
    runs: list[RunDir], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs[0].ledger_path(FIRST).write_text('{"a": ')
    needed = {needed.label: needed for needed in estimated().needed_runs("quick")}
    assert [estimated().num_estimates(needed[run.path.name], run, "quick") for run in runs] == [2, 2]
    measure_all([estimated()], tmp_path, "quick", 2)
    assert f"estimated_300_aevb cannot be measured: Unreadable: {runs[0].path}" in caplog.text
    assert None not in values(runs[1]).values()


def test_process_that_dies_takes_no_other_run_with_it(
    runs: list[RunDir], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def kill() -> None:
        while not (children := active_children()):
            time.sleep(0.02)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    measure_all([estimated()], tmp_path, "quick", 1)
    killer.join()
    assert caplog.text.count("cannot be measured: ") == 1
    assert sum(None not in values(run).values() for run in runs) == 1


def test_interrupted_measuring_keeps_what_it_has_and_leaves_no_process(runs: list[RunDir], tmp_path: Path) -> None:
    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not any(run.ledger(FIRST) for run in runs) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    many = 60_000  # draws of z, which take a while
    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted, match="stopped while it measured"):
        measure_all([estimated(many)], tmp_path, "quick", 2)
    assert not active_children()
    assert not all(run.ledger(LAST) for run in runs)
