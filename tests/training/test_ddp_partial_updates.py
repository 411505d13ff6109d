"""Two real processes (gloo) and an objective whose updates move one network at a time."""

import pytest
import torch
from training import TINY, finish, train_tiny, vae_lab, weights

from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir


@pytest.mark.slow
def test_wake_sleep_trains_in_two_processes_as_in_one(tmp_path):
    settings = ("objective=wake_sleep", "trainer.max_epochs=8")
    ddp = ("trainer=ddp", "trainer.accelerator=cpu")
    path = str(tmp_path / "two")
    finish(vae_lab("train", f"run_dir={path}", *TINY, *ddp, *settings, GLOO_SOCKET_IFNAME="lo"))
    two, one = RunDir(path), train_tiny(tmp_path / "one", *settings)
    assert two.read_status() == "finished"
    ours, theirs = read_rows(two.curve_file), read_rows(one.curve_file)
    assert [row["samples_evaluated"] for row in ours] == [row["samples_evaluated"] for row in theirs]
    assert ours[-1]["test/bound"] > ours[0]["test/bound"] + 1
    # only the noise of training differs
    assert ours[-1]["test/bound"] == pytest.approx(theirs[-1]["test/bound"], abs=0.5)
    assert all(torch.isfinite(weight).all() for weight in weights(two).values())
