"""The campaign that tries to break the lab at random: one round of it, and that it tells what breaks."""

import subprocess
from pathlib import Path

import pytest
import warm_python
from campaigns import campaign, forks
from campaigns.trials import Broken, expect

from vae_lab.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_round_holds(tmp_path):
    kinds = ["storage", "damage", "hostile", "lines"]  # kills have tests of their own
    command = [
        warm_python.python(),
        "-m",
        "campaigns.campaign",
        "rounds=1",
        f"kinds={','.join(kinds)}",
        f"out={tmp_path / 'broken.txt'}",
    ]
    done = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = [line.split(" ")[0] for line in done.stdout.splitlines()]
    assert {kind: tried.count(kind) for kind in kinds} == {kind: campaign.KINDS[kind] for kind in kinds}
    assert (tmp_path / "broken.txt").read_text() == ""


def test_what_breaks_is_told_with_its_command():
    ended = forks.Ended(["train", "seed=x"], 1, "Traceback", 1.0, 1.0)
    with pytest.raises(Broken, match=r"(?s)no traceback.*\$ vae-lab train seed=x.*exit 1: 'Traceback'"):
        expect(False, "no traceback", ended)


def test_order_is_as_often_as_asked_for():
    kinds = ["damage", "kills"]
    asked = campaign.CampaignSettings(kinds=kinds, rounds=2)
    assert (
        list(campaign.order(asked))
        == [*["damage"] * campaign.KINDS["damage"], *["kills"] * campaign.KINDS["kills"]] * 2
    )
    assert list(campaign.order(campaign.CampaignSettings(kinds=["kills"], trial=7))) == ["kills"]


def test_kinds_and_trials_are_checked():
    with pytest.raises(ConfigError, match="kinds=kill is no kind of trial"):
        campaign.CampaignSettings(kinds=["kill"])
    with pytest.raises(ConfigError, match="trial=3 needs the kind"):
        campaign.CampaignSettings(trial=3)
