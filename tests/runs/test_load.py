"""The run directory as a contract: loading, identity, lock, status, and a stranger's files."""

import json
import os
import re
import shutil
import zipfile

import pytest
import torch
from training import freeze_anew

import vae_lab
from vae_lab.errors import ConfigError, RunError, UntrustedTarget
from vae_lab.runs.directory import RunDir, new_run_path, plan_run, safe_name
from vae_lab.runs.load import load_run


@pytest.fixture
def copied_run(finished_run, tmp_path) -> RunDir:
    shutil.copytree(finished_run.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


@pytest.fixture(scope="module")
def loaded(finished_run):
    return load_run(finished_run.path)


def test_load_run_gives_the_model_and_all_that_is_known(loaded, finished_run):
    assert isinstance(vae_lab.load_run(finished_run.path), type(loaded))
    assert not loaded.model.training and loaded.checkpoint == "best" and loaded.samples == 1200
    assert loaded.config == finished_run.read_config() and loaded.record["status"] == "finished"
    assert loaded.metrics == finished_run.ledger("best")
    assert [row["samples_evaluated"] for row in loaded.curve] == [100, 200, 250, 400, 650, 1000, 1200]
    assert "data" not in vars(loaded) or loaded.data.name == "digits"  # loaded when first asked for
    assert len(loaded.data.splits["train"]) == 300


def test_shapes_are_the_documented_ones(loaded):
    x = loaded.data.splits["test"].images[:5]
    z = loaded.encode(x)
    assert z.shape == (5, 3)
    assert loaded.decode(z).shape == loaded.reconstruct(x).shape == x.shape == (5, 1, 8, 8)
    assert loaded.sample(7).shape == (7, 1, 8, 8)
    assert loaded.model.posterior(x).mean.shape == (5, 3)
    assert loaded.model.likelihood(torch.zeros(2, 5, 3)).log_prob(x).shape == (2, 5)


def test_what_a_run_gives_is_detached_repeatable_and_in_the_unit_interval(loaded):
    x = loaded.data.splits["test"].images[:5]
    assert torch.equal(loaded.reconstruct(x), loaded.decode(loaded.model.posterior(x).mean.detach()))
    before = torch.get_rng_state()
    first = loaded.sample(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, loaded.sample(4, seed=0)) and not torch.equal(first, loaded.sample(4, seed=1))
    assert not first.requires_grad and first.min() >= 0 and first.max() <= 1


def test_loading_draws_nothing_of_the_noise_of_its_caller(finished_run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_run(finished_run.path)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_path_that_is_no_run_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match=f"{path} is no run directory"):
            load_run(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", r"run\.json is no JSON"),
        ("config.yaml", "x: [", r"config\.yaml is no YAML"),
        ("config.yaml", "{}", r"config\.yaml is no frozen config"),
        ("metrics.json", '{"test/bound": "x"}', r"metrics\.json: test/bound must be a number, got 'x'"),
        ("metrics.json", '{"test/bound": 1, "test/bound_num_samples": "8"}', "test/bound_num_samples must be a number"),
        ("metrics.json", '{"test/bound": 1, "test/bound_se": null}', r"test/bound_se must be a number, got null"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(copied_run, name, content, message):
    (copied_run.path / name).write_text(content)
    with pytest.raises(RunError, match=message):
        load_run(copied_run.path)


def test_bytes_that_are_no_text_are_said_to_be_so_once(copied_run):
    (copied_run.path / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"^\S+: config\.yaml cannot be read: 'utf-8' codec"):
        load_run(copied_run.path)


def test_a_record_without_the_shape_of_the_images_is_named(copied_run):
    record = copied_run.read_record()
    del record["image_shape"]
    (copied_run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"run\.json has no image_shape"):
        load_run(copied_run.path)


def test_a_home_folder_is_expanded_and_no_name_is_refused(monkeypatch, copied_run):
    monkeypatch.setenv("HOME", str(copied_run.path.parent))
    assert RunDir.existing(f"~/{copied_run.path.name}").path == copied_run.path
    for nothing in (None, ""):
        with pytest.raises(RunError, match="run must name a run directory"):
            RunDir.existing(nothing)


def test_a_planned_run_has_no_checkpoint_yet(finished_run, tmp_path):
    run = plan_run(tmp_path / "run", finished_run.read_config())
    assert run.read_status() == "planned" and run.read_config() == finished_run.read_config()
    with pytest.raises(RunError, match=r"has no checkpoint last\.ckpt; its status is planned"):
        load_run(run.path)


def test_another_name_of_a_checkpoint_is_refused(finished_run):
    with pytest.raises(ConfigError, match=r"checkpoint must be best, last, .* got 'first'"):
        load_run(finished_run.path, checkpoint="first")


# ---- paths ----


def test_paths_can_be_pasted_into_a_command_line(finished_run, tmp_path):
    assert safe_name("a b/c=[1,2]'$(x)") == "a-b-c-1-2-x"
    paths = {new_run_path(tmp_path, "my exp") for _ in range(5)}
    assert len(paths) == 5
    for path in paths:
        assert re.fullmatch(r"my-exp/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{4}", str(path.relative_to(tmp_path)))


# ---- lock and status ----


def test_running_is_believed_only_while_the_lock_is_held(copied_run):
    copied_run.update_record(status="running")
    assert copied_run.read_status() == "interrupted"
    with copied_run.locked():
        assert copied_run.is_locked() and copied_run.read_status() == "running"
        with pytest.raises(RunError, match="is being written by another process"), copied_run.locked():
            pass
    assert not copied_run.is_locked() and copied_run.read_status() == "interrupted"
    assert copied_run.read_record()["seed"] == 0  # the rest of the record stays


def test_ledger_entries_replace_their_own_value_only(copied_run):
    before = copied_run.ledger("best")
    path = copied_run.update_ledger("best", {"samples_evaluated": 1200, "test/x": 1.0, "test/kl": 2.0})
    assert path == copied_run.path / "metrics.json"
    assert copied_run.ledger("best") == before | {"test/x": 1.0, "test/kl": 2.0}
    other = copied_run.update_ledger("last", {"samples_evaluated": 1200, "test/x": 3.0})
    assert other.name == "metrics-last.json" and copied_run.ledger("best")["test/x"] == 1.0
    copied_run.update_ledger("best", {"samples_evaluated": 1300, "test/x": 4.0})
    assert copied_run.ledger("best") == {"samples_evaluated": 1300, "test/x": 4.0}


# ---- a stranger's run ----


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_weights_that_hold_code_are_refused_and_nothing_runs(copied_run, tmp_path):
    for name in ("best", "last"):
        torch.save({"state_dict": {}, "vae_lab": Evil(tmp_path / "ran")}, copied_run.checkpoints / f"{name}.ckpt")
        with pytest.raises(RunError, match=rf"{name}\.ckpt must hold tensors and plain values"):
            load_run(copied_run.path, checkpoint=name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_corrupt_checkpoint_is_named(copied_run, content):
    file = copied_run.checkpoints / "best.ckpt"
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    with pytest.raises(RunError, match=r"best\.ckpt must hold tensors"):
        load_run(copied_run.path)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02.", b"0" * 100])
def test_a_text_in_place_of_a_checkpoint_is_named(copied_run, content):
    (copied_run.checkpoints / "best.ckpt").write_bytes(content)
    with pytest.raises(RunError, match=r"best\.ckpt must hold tensors"):
        load_run(copied_run.path)


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"state_dict": {}}, {"state_dict": {}, "vae_lab": {}}])
def test_tensors_that_are_no_checkpoint_are_refused(copied_run, content):
    torch.save(content, copied_run.checkpoints / "best.ckpt")
    with pytest.raises(RunError, match=r"best\.ckpt is no checkpoint of a run"):
        load_run(copied_run.path)


@pytest.mark.slow
def test_a_checkpoint_that_would_fill_the_memory_is_refused_by_its_table_of_contents(copied_run, monkeypatch):
    file = copied_run.checkpoints / "best.ckpt"
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (pickled,) = (name for name in entries if name.endswith("data.pkl"))
    marks = entries | {pickled: b"\x80\x02" + b"(" * 2_000_000 + b"."}
    bomb = entries | {pickled.replace("data.pkl", "data/0"): bytes(10_000_000)}
    many = entries | {f"archive/data/{i:030}": b"" for i in range(20_000)}
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it is read"))
    for content, packing in ((marks, zipfile.ZIP_STORED), (bomb, zipfile.ZIP_DEFLATED), (many, zipfile.ZIP_STORED)):
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, entry in content.items():
                archive.writestr(name, entry)
        with pytest.raises(RunError, match=r"best\.ckpt must hold tensors and plain values"):
            load_run(copied_run.path)


def test_weights_of_another_model_are_refused(copied_run):
    file = copied_run.checkpoints / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"] = {name: value[:1] for name, value in content["state_dict"].items()}
    torch.save(content, file)
    with pytest.raises(RunError, match=r"best\.ckpt must hold the weights of the model .* size mismatch for encoder"):
        load_run(copied_run.path)


def test_a_config_that_names_code_is_refused_and_nothing_runs(copied_run, tmp_path):
    config = copied_run.read_config()
    config["model"]["initialization"] = {"_target_": "os.system", "command": f"touch {tmp_path}/ran"}
    freeze_anew(copied_run, config)
    with pytest.raises(UntrustedTarget, match=r"model\.initialization\._target_='os\.system'"):
        load_run(copied_run.path)
    text = (
        copied_run.path / "config.yaml"
    ).read_text() + f"x: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n"
    (copied_run.path / "config.yaml").write_text(text)
    with pytest.raises(RunError, match="is no YAML"):
        load_run(copied_run.path)
    assert not (tmp_path / "ran").exists()


def test_a_logger_among_the_settings_of_a_network_connects_to_nothing(copied_run, monkeypatch):
    config = copied_run.read_config()
    config["model"]["encoder"]["hidden"] = {
        "_target_": "pytorch_lightning.loggers.CSVLogger",
        "save_dir": "ftp://127.0.0.1:9/x",
    }
    freeze_anew(copied_run, config)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it connects"))
    with pytest.raises(UntrustedTarget, match=r"model\.encoder\.hidden\._target_"):
        load_run(copied_run.path)
    with pytest.raises(ConfigError, match=r"model\.encoder\.hidden must be a list"):  # nor where it is allowed
        load_run(copied_run.path, allow=["pytorch_lightning"])


def test_what_reads_a_run_makes_neither_loggers_nor_callbacks(copied_run, monkeypatch):
    config = copied_run.read_config()
    config["callbacks"] = {"timer": {"_target_": "pytorch_lightning.callbacks.Timer"}}
    config["logger"] = {"_target_": "pytorch_lightning.loggers.CSVLogger"}
    freeze_anew(copied_run, config)
    for name in ("callbacks.Timer", "loggers.CSVLogger"):
        monkeypatch.setattr(f"pytorch_lightning.{name}.__init__", lambda self, **_: pytest.fail(f"{self} is made"))
    run = load_run(copied_run.path)
    assert run.data.splits and run.sample(1).shape == (1, 1, 8, 8)


def test_an_allowed_module_is_used(copied_run, tmp_path, monkeypatch):
    (tmp_path / "own_part.py").write_text(
        "from vae_lab.networks.initialization import PyTorchDefault\nclass Own(PyTorchDefault): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = copied_run.read_config()
    config["model"]["initialization"] = {"_target_": "own_part.Own"}
    freeze_anew(copied_run, config)
    with pytest.raises(UntrustedTarget, match=r"allow=\[own_part\]"):
        load_run(copied_run.path)
    assert load_run(copied_run.path, allow=["own_part"]).samples == 1200


@pytest.mark.slow
def test_the_lock_is_freed_by_the_death_of_its_process(copied_run):
    """Held by another process, seen from this one."""
    import subprocess
    import sys

    code = (
        "import sys; from vae_lab.runs.load import RunDir\n"
        "with RunDir(sys.argv[1]).locked(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(copied_run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert copied_run.is_locked()
    finally:
        holder.kill()
        holder.communicate()
    assert not copied_run.is_locked()
