"""What is exported gives the model's numbers where it is read, and its page says how."""

import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drawn_run import make_drawn_run
from training import composed

from vae_lab.applications import export as exporting
from vae_lab.applications.export import NEEDED, onnx_files, require_same
from vae_lab.commands.export import ExportSettings, export
from vae_lab.distributions import Distribution
from vae_lab.errors import ConfigError, Failed
from vae_lab.model import VAE
from vae_lab.runs.load import load_run
from vae_lab.wiring import build
from vae_lab.wiring.build import settings
from vae_lab.wiring.compose import compose_command

HAS_ONNX = all(find_spec(name) for name in NEEDED["onnx"])
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx, onnxscript and onnxruntime: pip install '.[export]'")
needs_safetensors = pytest.mark.skipif(not find_spec("safetensors"), reason="pip install '.[export]'")


def exported(run: Path, out: Path, *overrides: str) -> Path:
    with composed("export", f"run={run}", f"out={out}", "threads=1", *overrides) as cfg:
        return export(settings(ExportSettings, cfg))


def code_of(page: str) -> str:
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    return found[1]


@pytest.mark.parametrize("kind", [pytest.param("safetensors", marks=needs_safetensors), "torch"])
def test_weights_are_loaded_by_the_code_of_the_page(finished_run, tmp_path, monkeypatch, kind):
    out = exported(finished_run.path, tmp_path / "out", f"format={kind}")
    assert out == tmp_path / "out"
    monkeypatch.chdir(out)
    found: dict[str, Any] = {}
    exec(code_of((out / "README.md").read_text()), found)
    run = load_run(finished_run.path)
    x = run.data.splits["test"].images[:5]
    assert torch.equal(found["model"].posterior(x).mean, run.encode(x)) and not found["model"].training
    assert yaml.safe_load((out / "config.yaml").read_text()) == finished_run.read_config()


def test_page_states_the_nats_with_what_they_were_measured_on(finished_run, tmp_path):
    out = exported(finished_run.path, tmp_path / "out", "format=torch")
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    ledger = finished_run.ledger("best")
    for key in ("data", "scale", "binarization", "split_hash", "likelihood"):
        assert head[key] == ledger[key]
    bound = head["nats_per_datapoint"]["test/bound"]
    assert bound == {"value": round(ledger["test/bound"], 3), "draws_of_z": 1, "datapoints": 250}
    assert head["latent_dim"] == 3 and head["image_shape"] == [1, 8, 8] and head["samples_evaluated"] == 1200


@pytest.mark.slow
@needs_onnx
def test_onnx_is_run_by_the_code_of_the_page_with_batches_of_any_size(finished_run, tmp_path, monkeypatch, caplog):
    import onnx

    caplog.set_level("INFO")
    out = exported(finished_run.path, tmp_path / "out")
    files = {"encoder.onnx", "decoder.onnx", "config.yaml", "README.md"}
    assert {file.name for file in out.iterdir()} == files
    assert {message.partition(":")[0] for message in caplog.messages} == files, "and nothing of the converter's"
    for name, argument, outputs in (("encoder", "x", ["mean", "std"]), ("decoder", "z", ["mean", "logits"])):
        graph = onnx.load(out / f"{name}.onnx").graph
        assert [value.name for value in graph.input] == [argument]
        assert [value.name for value in graph.output] == outputs
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    monkeypatch.chdir(out)
    found: dict[str, Any] = {}
    exec(code_of((out / "README.md").read_text()), found)
    assert found["mean"].shape == (16, 1, 8, 8) and found["z"].shape == found["std"].shape == (16, 3)
    run = load_run(finished_run.path)
    z = torch.from_numpy(found["z"])
    (decoded, _) = found["decoder"].run(None, {"z": found["z"]})
    np.testing.assert_allclose(decoded, run.decode(z).numpy(), atol=1e-5)
    np.testing.assert_allclose(found["z"], run.encode(torch.from_numpy(found["mean"])).numpy(), atol=1e-5)


def model_of(*overrides: str) -> VAE:
    config, _ = compose_command("train", ["data=mnist", *overrides])
    return build.instantiate(config["model"], "model", image_shape=(1, 28, 28))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "likelihood"),
    [
        ("mlp", "continuous_bernoulli"),
        ("mlp", "gaussian_fixed_noise"),
        ("conv", "bernoulli"),
        ("conv", "gaussian"),
    ],
)
def test_onnx_has_the_numbers_of_every_network_and_likelihood(model, likelihood):
    small = {"mlp": "model.encoder.hidden=[20,10]", "conv": "model.encoder.channels=[4,8]"}[model]
    files = onnx_files(model_of(f"model={model}", f"likelihood={likelihood}", small))
    assert set(files) == {"encoder.onnx", "decoder.onnx"}


@pytest.mark.slow
@needs_onnx
def test_other_numbers_are_refused_before_anything_is_written(finished_run, tmp_path, monkeypatch):
    changed = onnx_files(load_run(finished_run.path).model)["encoder.onnx"]
    x = torch.zeros(2, 1, 8, 8)
    with torch.no_grad():
        q = load_run(finished_run.path).model.posterior(x)
    require_same(changed, "x", x, (q.mean, q.std), "encoder.onnx")
    with pytest.raises(Failed, match=r"encoder.onnx differs from the model by .* nothing is written"):
        require_same(changed, "x", x, (q.mean + 3e-5, q.std), "encoder.onnx")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(Failed):
        exported(finished_run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_an_encoder_is_exported_without_one(tmp_path, monkeypatch):
    run = make_drawn_run(tmp_path / "run", has_encoder=False)
    out = exported(run.path, tmp_path / "out", "format=torch")
    monkeypatch.chdir(out)
    found: dict[str, Any] = {}
    exec(code_of((out / "README.md").read_text()), found)
    assert not found["model"].has_encoder
    weights = torch.load(io.BytesIO((out / "model.pt").read_bytes()), weights_only=True)
    assert not [name for name in weights if name.startswith("encoder")]


def test_export_refuses_what_it_cannot_do(finished_run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="format must be one of onnx, safetensors, torch, got 'onx'"):
        exported(finished_run.path, tmp_path / "out", "format=onx")
    monkeypatch.setitem(NEEDED, "onnx", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r"format=onnx needs .*no_such_package: pip install '.\[export\]'"):
        exported(finished_run.path, tmp_path / "out")
    monkeypatch.setitem(NEEDED, "onnx", ())

    class Own(Distribution):
        @property
        def mean(self) -> torch.Tensor:
            return torch.zeros(1)

        def log_prob(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def sample(self, sample_shape: tuple[int, ...] = ()) -> torch.Tensor:
            return self.mean

        def unflatten(self, shape: torch.Size) -> "Own":
            return self

    monkeypatch.setattr(VAE, "likelihood", lambda self, z: Own())
    with pytest.raises(ConfigError, match="format must be safetensors or torch for a likelihood of one's own"):
        exported(finished_run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
