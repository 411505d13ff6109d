"""What each config key is to a run, and what follows from it."""

import json
import re

import pytest
from training import train_tiny

from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import (
    KEYS,
    Kind,
    changed_settings,
    config_hash,
    differing_keys,
    fixed_hash,
    fixed_settings,
    frozen_config,
    is_computed,
    kind_of,
    may_change,
)
from vae_lab.wiring.compose import compose_command
from vae_lab.wiring.dotted import leaves, value_at


def test_hash_knows_what_a_run_computes_and_nothing_else(finished_run):
    config = finished_run.read_config()
    same = config_hash(config)
    assert re.fullmatch("[0-9a-f]{6}", same) and same == finished_run.read_record()["config_hash"]
    trainer = config["trainer"] | {"accelerator": "gpu", "devices": 2}
    for other in (
        {"threads": 7},
        {"trainer": trainer},
        {"callbacks": {"progress": {}}, "logger": {}},
        {"data": config["data"] | {"root": "/elsewhere"}},
    ):
        assert config_hash(config | other) == same, other
    for other in (
        {"seed": 1},
        {"max_samples": 5},
        {"data": config["data"] | {"split_seed": 1}},
        {"trainer": trainer | {"max_epochs": 5}},
        {"trainer": trainer | {"precision": "bf16-mixed"}},
        {"model": config["model"] | {"latent_dim": 2}},
    ):
        assert config_hash(config | other) != same, other


def test_every_key_of_the_table_is_a_key_of_train():
    images, _ = compose_command("train", ["data=mnist", "schedule=warmup_cosine"])
    own, _ = compose_command("train", ["data=image_folder", "data.path=x", "data.size=[2,2]"])
    chains, _ = compose_command("train", ["objective=monte_carlo_em"])
    for key in KEYS:
        folder, _, name = key.rpartition(".")
        there = own if key.endswith("path") else chains if folder == "objective" else images
        assert name in (value_at(there, folder) if folder else there) or key in ("expected", "experiment"), key
    assert "expected" in compose_command("train", ["experiment=mnist_paper"])[0]


def test_key_has_one_kind_at_most_and_no_fact_twice():
    for key, known in KEYS.items():
        assert known and len(set(known)) == len(known) and sum(isinstance(each, Kind) for each in known) <= 1, key


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("max_samples", Kind.BUDGET),
        ("+trainer.max_epochs", Kind.BUDGET),
        ("compile", Kind.SPEED),
        ("trainer.devices", Kind.DEVICES),
        ("trainer.precision", Kind.COMPUTED),
        ("callbacks.progress.every", Kind.WATCHING),
        ("~logger", Kind.WATCHING),
        ("data.root", Kind.PLACE),
        ("data.path", Kind.OWN_DATA),
        ("data.name", Kind.COMPUTED),
        ("sweep.jobs", Kind.COMMAND),
        ("model", Kind.COMPUTED),
        ("+invented.key", Kind.COMPUTED),
    ],
)
def test_key_has_a_kind_whatever_sign_or_parent_it_has(key, kind):
    assert kind_of(key) is kind
    assert is_computed(key) == (kind in (Kind.COMPUTED, Kind.BUDGET, Kind.OWN_DATA))


def test_callback_of_another_class_identifies_a_run_and_the_labs_own_does_not():
    composed, _ = compose_command("train", [])
    config = frozen_config(composed)
    mine = config | {"callbacks": {"mine": {"_target_": "my.Callback", "every": 1}}}
    more = config | {"callbacks": {"mine": {"_target_": "my.Callback", "every": 2}}}
    own = config | {"callbacks": {"images": {"_target_": "vae_lab.callbacks.image_grid.ImageGrid"}, "none": None}}
    assert config_hash(own) == config_hash(config) != config_hash(mine) != config_hash(more)
    assert differing_keys(mine, more) == ["callbacks.mine.every"]
    by_dotted_keys = {"callbacks.mine._target_": "my.Callback", "callbacks.mine.every": 1}
    assert kind_of("callbacks.mine.every", mine) is kind_of("callbacks.mine.every", by_dotted_keys) is Kind.COMPUTED
    assert kind_of("callbacks.images.every", own) is Kind.WATCHING


def test_what_is_frozen_leaves_the_command_out_and_has_whole_numbers():
    composed, _ = compose_command("train", ["max_samples=1e6", "name=x"])
    frozen = frozen_config(composed)
    assert frozen["max_samples"] == 1_000_000 and isinstance(frozen["max_samples"], int)
    assert composed.keys() - frozen.keys() == {"run_dir", "allow", "name", "output_root", "sweep"}


@pytest.mark.slow
def test_run_is_continued_at_another_speed_and_remains_the_same_run(tmp_path):
    run = train_tiny(tmp_path / "run", "trainer.max_epochs=2", "steps_per_execution=1")
    train_tiny(tmp_path / "run", "trainer.max_epochs=4", "steps_per_execution=7", "cuda_graph=false")
    straight = train_tiny(tmp_path / "straight", "trainer.max_epochs=4")
    run = RunDir(run.path)
    assert may_change("steps_per_execution") and not may_change("trainer.devices")
    assert (run.read_config()["steps_per_execution"], run.read_config()["cuda_graph"]) == (7, False)
    assert run.read_record()["config_hash"] == straight.read_record()["config_hash"]
    assert run.ledger("best")["test/bound"] == straight.ledger("best")["test/bound"]


def test_fixed_settings_are_what_is_computed_but_for_its_length_and_the_place_of_its_data():
    composed, _ = compose_command("train", ["data=npz", "data.path=x.npz", "max_samples=1000"])
    config = frozen_config(composed) | {"weird": {"number": float("inf"), "none": {}}}
    fixed = json.loads(json.dumps(fixed_settings(config), allow_nan=False))
    assert fixed["weird.number"] == "inf" and fixed["optimizer.betas"] == [0.9, 0.999] and fixed["data.split_seed"] == 0
    assert not {"max_samples", "threads", "data.path", "trainer.devices", "logger._target_", "expected"} & set(fixed)
    assert changed_settings(config, fixed) == {} == changed_settings(dict(leaves(config)), fixed)
    other = config | {"seed": 1, "threads": 9, "weird": {"none": {}, "more": 2}}
    assert changed_settings(other, fixed) == {"seed": (1, 0), "weird.number": (None, "inf"), "weird.more": (2, None)}
    assert fixed_hash(other) != fixed_hash(config) == fixed_hash(config | {"max_samples": 5})
