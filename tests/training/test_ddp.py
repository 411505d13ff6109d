"""Two real processes on the CPU (gloo), started by the real command; against one process in this one."""

import os
import textwrap
from pathlib import Path

import pytest
import torch
from training import TINY, finish, run_to_end, train_tiny, vae_lab, weights

from vae_lab.measurement import measure_bound, summarise
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run

pytestmark = pytest.mark.slow

NOISELESS = '''
"""AEVB at the posterior mean: training noise depends on the rank, and this has none. Writes down what it sees."""

import os
from pathlib import Path

from vae_lab.distributions import kl_to_standard_normal
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Terms


class Noiseless(AEVB):
    def updates(self, model, batch, state):
        posterior = model.posterior(batch.x)
        reconstruction = model.likelihood(posterior.mean).log_prob(batch.x)
        kl = kl_to_standard_normal(posterior).sum(-1)
        parameters = sum(parameter.detach().double().sum().item() for parameter in model.parameters())
        with open(Path(os.environ["SEEN"]) / os.environ.get("LOCAL_RANK", "0"), "a") as file:
            print(state.samples, parameters.hex(), *batch.index.tolist(), file=file)
        logged = {"bound": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
        yield Terms(kl - reconstruction, moves=model, logged=logged)
'''

SETTINGS = ("objective._target_=noiseless.Noiseless", "checkpoint.at=[150,900]", "evaluation.splits=[train,val,test]")


class Pair:
    """A training by two processes of 2 epochs, extended to 4, and the same by one process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "noiseless.py").write_text(textwrap.dedent(NOISELESS))
        for name in ("two", "one"):
            (folder / "seen" / name).mkdir(parents=True)
        path = str(folder / "two")
        environment = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
        environment |= {"SEEN": str(folder / "seen" / "two"), "GLOO_SOCKET_IFNAME": "lo"}
        ddp = ("trainer=ddp", "trainer.accelerator=cpu", *SETTINGS)
        self.out, _ = finish(vae_lab("train", f"run_dir={path}", *TINY, *ddp, "trainer.max_epochs=2", **environment))
        allow = ("trainer.max_epochs=4", "allow=[noiseless]")
        finish(vae_lab("train", f"run_dir={path}", *allow, **environment))
        self.two = RunDir(path)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("SEEN", str(folder / "seen" / "one"))
        self.one = train_tiny(folder / "one", *SETTINGS, "trainer.max_epochs=4")
        self.ranks = [self.seen(folder / "seen" / "two" / str(rank)) for rank in range(2)]
        self.single = self.seen(folder / "seen" / "one" / "0")

    @staticmethod
    def seen(file: Path) -> list[tuple[int, str, list[int]]]:
        """Per step: samples before it, the sum of the parameters, the rows of the minibatch."""
        lines = [line.split() for line in file.read_text().splitlines()]
        return [(int(samples), parameters, list(map(int, rows))) for samples, parameters, *rows in lines]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Pair(tmp_path_factory.mktemp("ddp"), monkeypatch)


def test_two_processes_finish_and_share_one_run_directory(pair):
    assert pair.two.read_status() == "finished" and pair.two.read_record()["samples_evaluated"] == 1200
    assert pair.out.splitlines() == [str(pair.two.path)]
    assert {path.name for path in pair.two.path.parent.iterdir() if path.is_dir()} >= {"two", "seen"}
    assert {path.stem for path in (pair.two.checkpoints / "at").iterdir()} == {"150", "900"}
    assert not list(pair.two.path.rglob("*.tmp"))
    assert pair.two.log.read_text().count("per datapoint (best.ckpt): ") == 2  # one per command


def test_no_datapoint_is_presented_twice_in_an_epoch(pair):
    for epoch in range(4):
        steps = range(6 * epoch, 6 * epoch + 6)
        rows = [row for rank in pair.ranks for step in steps for row in rank[step][2]]
        assert len(rows) == len(set(rows)) == 300
    for rank in pair.ranks:
        assert [samples for samples, _, _ in rank] == list(range(0, 1200, 50))
        assert all(len(rows) == 25 for _, _, rows in rank)


def test_the_total_minibatch_is_that_of_one_process(pair):
    for (_, _, first), (_, _, second), (_, _, all_rows) in zip(*pair.ranks, pair.single, strict=True):
        assert first + second == all_rows


def test_parameters_agree_across_ranks_and_with_one_process(pair):
    assert [step[1] for step in pair.ranks[0]] == [step[1] for step in pair.ranks[1]]
    for name, value in weights(pair.one).items():
        torch.testing.assert_close(weights(pair.two)[name], value, rtol=0, atol=1e-5)


def test_curve_is_that_of_one_process(pair):
    one, two = read_rows(pair.one.curve_file), read_rows(pair.two.curve_file)
    assert [row["samples_evaluated"] for row in two] == [row["samples_evaluated"] for row in one]
    for ours, theirs in zip(two, one, strict=True):
        for name in set(one[0]) - {"train/active_units", "val/active_units", "test/active_units"}:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-3), name


def test_evaluation_counts_every_datapoint_once_over_both_processes(pair):
    run = load_run(pair.two.path, allow=["noiseless"], checkpoint="last")
    row = read_rows(pair.two.curve_file)[-1]
    assert run.samples == row["samples_evaluated"] == 1200
    for split in ("train", "val", "test"):
        summary = summarise(
            measure_bound(run.model, run.data.measured(split).images, num_samples=1, seed=0), num_samples=1
        )
        assert row[f"{split}/bound"] == pytest.approx(summary["bound"], abs=1e-5)
        assert row[f"{split}/kl"] == pytest.approx(summary["kl"], abs=1e-5)


def test_a_total_batch_that_two_processes_cannot_share_is_refused(tmp_path):
    settings = ("trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=25")
    _, err = run_to_end("train", f"run_dir={tmp_path}/run", *TINY[:4], *settings, returncode=2)
    assert "data.batch_size" in err and "got 25" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()
