"""What is read is what was written: a checkpoint's bytes, whose it is, and the settings of its run."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from training import train_tiny

from vae_lab.cli import main
from vae_lab.errors import ConfigError, RunError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run, read_checkpoint, samples_of

COMMANDS = (
    ["train", "run_dir={}", "trainer.max_epochs=8"],
    ["evaluate", "run={}", "num_samples=3", "estimator.num_samples=2"],
    ["plot", "run={}", "pictures=samples"],
)
"""Those that read weights."""
OLD = Path(__file__).parent / "written_by_0_1" / "checkpoints" / "last.ckpt"


@pytest.fixture
def run(finished_run: RunDir, tmp_path: Path) -> RunDir:
    """A copy of a finished run, which nothing else changes."""
    return RunDir(shutil.copytree(finished_run.path, tmp_path / "outputs" / "run"))


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that differs in its seed alone."""
    return train_tiny(tmp_path_factory.mktemp("other") / "run", "max_samples=100", "seed=1")


def files(run: RunDir) -> dict[str, bytes]:
    """Everything in a run directory."""
    return {str(file.relative_to(run.path)): file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def refused_by(run: RunDir, command: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one message with which a command refuses a run, and changes nothing of it."""
    before = files(run)
    assert main([text.format(run.path) for text in command]) == 2, command
    *first, said = capfd.readouterr().err.splitlines()
    assert "Traceback" not in said and len(first) <= 1, (first, said)  # the line that says what the command does
    assert {name for name in files(run).items() ^ before.items() if name[0] != ".lock"} == set(), command
    return said


def edit(file: Path, change: Callable[[dict], object]) -> None:
    """Changes the content of a checkpoint, whose checksums are then right."""
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


# ---- the bytes of a checkpoint ----


@pytest.mark.slow
def test_flipped_bit_anywhere_in_a_checkpoint_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    written, good = OLD.read_bytes(), str(read_checkpoint(OLD))
    noise, refused, file = random.Random(0), 0, tmp_path / "last.ckpt"
    for _ in range(200):
        content, bit = bytearray(written), noise.randrange(8 * len(written))
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        try:
            assert str(read_checkpoint(file)) == good
        except RunError as error:
            assert str(error).startswith(f"{file} ")
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "samples"])
def test_flipped_bit_in_weights_optimiser_or_counts_ends_every_command(
    run: RunDir, command: list[str], part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, raw = torch.load(run.last, weights_only=True), run.last.read_bytes()
    if part == "samples":
        at = raw.index(b"\x07\x00\x00\x00samples") + 17
    else:
        state = content["optimizer_states"][0]["state"][0]["exp_avg"]
        tensor = state if part == "optimizer_states" else content["state_dict"]["model.decoder.trunk.layers.0.weight"]
        at = raw.index(tensor.numpy().tobytes())
    flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    for name in ("last", "best"):  # one file of two names
        (run.checkpoints / f"{name}.ckpt").unlink()
        (run.checkpoints / f"{name}.ckpt").write_bytes(flipped)
    assert "must hold tensors and plain values, and is corrupt" in refused_by(run, command, capfd)


@pytest.mark.parametrize("tenth", range(10))
def test_checkpoint_that_was_cut_is_refused(run: RunDir, tenth: int, capfd: pytest.CaptureFixture[str]) -> None:
    best = run.checkpoints / "best.ckpt"
    whole = best.read_bytes()
    best.unlink()
    best.write_bytes(whole[: len(whole) * tenth // 10])
    for read in (read_checkpoint, samples_of):
        with pytest.raises(RunError, match=r"best\.ckpt must hold tensors"):
            read(best)
    if tenth == 5:
        for command in COMMANDS:
            assert "best.ckpt must hold tensors" in refused_by(run, command, capfd)


# ---- what it holds, and whose it is ----


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_checkpoint_of_another_run_is_refused(
    run: RunDir, other_run: RunDir, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("last", "best"):
        (run.checkpoints / f"{name}.ckpt").unlink()
        shutil.copy(other_run.last, run.checkpoints / f"{name}.ckpt")
    assert "is a checkpoint of another run" in refused_by(run, command, capfd)


def test_checkpoint_of_the_same_training_with_another_budget_and_speed_is_its_own(run: RunDir, tmp_path: Path) -> None:
    shorter = train_tiny(tmp_path / "shorter", "max_samples=100", "threads=1", "steps_per_execution=2")
    shutil.copy(shorter.last, run.last)
    assert load_run(run.path, checkpoint="last").samples == 100


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.double(), "torch.float64, .* in place of torch.float32"),
        (lambda value: value.int(), "torch.int32, .* in place of torch.float32"),
        (lambda value: value.fill_(float("nan")), "holds NaN or infinity"),
        (lambda value: value[:1], "size mismatch for"),
        (lambda value: value.to("meta"), "has a shape and no numbers"),
    ],
)
def test_weights_of_another_type_or_shape_or_that_are_no_numbers_are_refused(
    run: RunDir, command: list[str], change, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "model.decoder.trunk.layers.0.weight"
    for name in ("last", "best"):
        edit(
            run.checkpoints / f"{name}.ckpt",
            lambda content: content["state_dict"].update({key: change(content["state_dict"][key])}),
        )
    said = refused_by(run, command, capfd)
    assert "must hold the weights of the model in config.yaml, and does not" in said
    assert re.search(message, said)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["optimizer_states", "lr_schedulers", "epoch", "vae_lab.running", "vae_lab.latest"])
def test_training_does_not_go_on_from_a_checkpoint_without_its_keys(
    run: RunDir, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    *above, name = key.split(".")
    edit(run.last, lambda content: (content[above[0]] if above else content).pop(name))
    assert f"last.ckpt is no checkpoint that this training can go on from (KeyError: '{name}')" in refused_by(
        run, COMMANDS[0], capfd
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"), [("pytorch-lightning_version", "x"), ("callbacks", []), ("measured", None), ("seconds", "x")]
)
def test_training_does_not_go_on_from_a_checkpoint_with_values_of_another_kind(
    run: RunDir, key: str, value: object, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(run.last, lambda content: content.update({key: value}))
    assert "last.ckpt is no checkpoint that this training can go on from" in refused_by(run, COMMANDS[0], capfd)


@pytest.mark.slow
def test_optimiser_state_of_another_model_is_refused(run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    edit(run.last, lambda content: content["optimizer_states"][0]["param_groups"][0]["params"].pop())
    assert "can go on from (ValueError: loaded state dict" in refused_by(run, COMMANDS[0], capfd)


@pytest.mark.slow
def test_best_checkpoint_without_the_bound_that_chose_it_is_refused(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(run.checkpoints / "best.ckpt", lambda content: content["vae_lab"]["latest"].pop("val/bound"))
    assert "best.ckpt is no best checkpoint" in refused_by(run, COMMANDS[0], capfd)


@pytest.mark.slow
def test_trained_run_without_its_checkpoints_is_not_trained_anew(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run.checkpoints)
    assert "last.ckpt is missing, and the run has been trained" in refused_by(run, COMMANDS[0], capfd)
    run.update_record(status="interrupted")
    assert "last.ckpt is missing, and the run has been trained" in refused_by(run, COMMANDS[0], capfd)


# ---- the settings ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("data", "split_seed", 1, "data.split_seed is 1, and was 0"),
        ("optimizer", "lr", 0.003, "optimizer.lr is 0.003, and was 0.001"),
        ("model", "extra", True, "model.extra is true, and was null"),
        ("evaluation", "num_samples", None, "evaluation.num_samples is null, and was 1"),
        ("trainer", "precision", "bf16-mixed", "trainer.precision is 'bf16-mixed', and was '32-true'"),
    ],
)
def test_config_that_was_changed_by_hand_is_refused_by_the_key(
    run: RunDir, section: str, key: str, value: object, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config[section][key] = value
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    for command in (*COMMANDS, ["report", "run={}"], ["compare", "run={0},{0}x"], ["verify", "run={}"]):
        if command[0] == "compare" and not Path(f"{run.path}x").exists():
            shutil.copytree(run.path, f"{run.path}x")
        said = refused_by(run, command, capfd)
        assert f"config.yaml was changed by hand after the run was planned: {message}" in said
    assert "is planned by vae-lab train " in said and "callbacks=none" in said and f" {section}.{key}=" in said
    with pytest.raises(RunError, match=r"changed by hand"):
        load_run(run.path)
    assert main(["runs", f"root={run.path.parent}", "format=json"]) == 0
    assert {row["status"] for row in json.loads(capfd.readouterr().out)} == {"broken"}


def test_settings_that_a_continuation_may_change_may_be_changed_by_hand_as_well(run: RunDir) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config |= {"threads": 2, "steps_per_execution": 3, "callbacks": {}, "max_samples": 10_000}
    config["trainer"]["accelerator"] = "auto"
    (run.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=True))
    assert load_run(run.path).samples == 1200


# ---- the data ----


@pytest.mark.slow
@pytest.mark.parametrize("change", ["a pixel", "more images", "another size"])
def test_data_that_changed_under_a_run_are_refused_and_moved_ones_are_found(
    tmp_path: Path, change: str, capfd: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=images)
    own = ("data=npz", f"data.path={tmp_path}/own.npz", "data.train_size=null", "data.batch_size=10")
    run = train_tiny(tmp_path / "run", *own, "max_samples=100", "trainer.max_epochs=null")
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    moved = f"data_root={tmp_path}/moved.npz"
    assert main(["evaluate", f"run={run.path}", "num_samples=2", "estimator.num_samples=2", moved]) == 0
    _ = capfd.readouterr()
    other = {"a pixel": images ^ (np.arange(960).reshape(images.shape) == 7), "more images": np.tile(images, (2, 1, 1))}
    np.savez(tmp_path / "own.npz", x=other.get(change, np.tile(images, (1, 2, 2))).astype(np.uint8))
    for command in (
        ["train", "run_dir={}", "data=npz", f"data.path={tmp_path}/own.npz", "max_samples=200"],
        COMMANDS[1],
    ):
        assert f"the data of {run.path} have changed since it was trained" in refused_by(run, command, capfd)
    with pytest.raises(ConfigError, match="have changed since it was trained"):
        _ = load_run(run.path).data.splits


def test_run_has_its_own_types_whatever_a_notebook_has_chosen(run: RunDir) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        loaded = load_run(run.path)
        assert loaded.sample(2).dtype == loaded.data.measured("test").images.dtype == torch.float32
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# ---- run.json and the ledger ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "run.json holds list instead of entries"),
        (None, "run.json holds NoneType instead of entries"),
        ({"format": True}, "run.json has format True"),
        ({"choices": []}, "run.json: choices must be choices by group, got []"),
        ({"image_shape": [1, "8", 8]}, "run.json: image_shape must be the [channel, height, width]"),
        ({"wall_seconds": "long"}, "run.json: wall_seconds must be a number, got 'long'"),
        ({"status": "done"}, "run.json: status must be one of planned, running"),
    ],
)
def test_record_that_is_damaged_ends_every_command_that_reads_weights(
    run: RunDir, entries: object, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = run.read_record() | entries if isinstance(entries, dict) else entries
    (run.path / "run.json").write_text(json.dumps(content))
    for command in COMMANDS:
        assert message in refused_by(run, command, capfd)


def test_ledger_in_which_a_measured_value_is_no_number_is_refused(
    run: RunDir, capfd: pytest.CaptureFixture[str]
) -> None:
    (run.path / "metrics.json").write_text(json.dumps(run.ledger("best") | {"test/kl": "much"}))
    for command in COMMANDS[1:]:
        assert "metrics.json: test/kl must be a number, got 'much'" in refused_by(run, command, capfd)
