"""A trained model as files that other programs read: ONNX, safetensors or PyTorch's own, and a page about it."""

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Mapping

import torch
import yaml
from torch import Tensor

from vae_lab.applications.parameters import Parameters, likelihood_of
from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian
from vae_lab.errors import ConfigError, Failed, install
from vae_lab.measurement import evaluating
from vae_lab.model import VAE
from vae_lab.runs.load import Run
from vae_lab.runs.result import results
from vae_lab.runs.small_files import settings_text

logging.getLogger("onnxscript").setLevel(logging.WARNING)  # remarks on every step of simplifying
logging.getLogger("onnx_ir").setLevel(logging.WARNING)

TOLERANCE = 1e-5
"""The largest difference allowed between ONNX and PyTorch: absolute, and relative for values beyond -1 and 1."""
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",), "torch": ()}
"""The formats, and the packages that each asks for."""
OUTPUTS = {Bernoulli: ("mean", "logits"), ContinuousBernoulli: ("mean", "logits"), DiagonalGaussian: ("mean", "std")}
"""The densities whose parameters are known, each with the names of those that ONNX gives."""
CONFIG, CARD = "config.yaml", "README.md"


def outputs_of(model: VAE) -> tuple[str, ...]:
    """The names of the parameters of p(x|z): its mean, and logits or the standard deviation.

    Raises:
        ConfigError: p(x|z) is of another kind.
    """
    likelihood = likelihood_of(model)
    for kind, outputs in OUTPUTS.items():
        if isinstance(likelihood, kind):
            return outputs
    raise ConfigError(
        f"format must be safetensors or torch for a likelihood of one's own, got onnx: the parameters of "
        f"{type(likelihood).__name__} are not known"
    )


def require_packages(kind: str) -> None:
    """Refuses a format whose packages are not here."""
    absent = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(f"format={kind} needs {', '.join(absent)}: {install('export')}")


def exported(run: Run, kind: str) -> dict[str, bytes]:
    """The files of a model by their names; ONNX has been run by onnxruntime, and compared.

    Raises:
        Failed: onnxruntime computes something else.
    """
    model = run.model.cpu()
    files = WRITTEN[kind](model)
    files[CONFIG] = settings_text(run.config).encode()
    return files | {CARD: card(run, kind, list(files)).encode()}


def onnx_files(model: VAE) -> dict[str, bytes]:
    """Encoder, where there is one, and decoder; the first axis of all is called `batch`."""
    z = torch.randn(3, model.latent_dim, generator=torch.Generator().manual_seed(0))
    x = torch.rand(3, *model.image_shape, generator=torch.Generator().manual_seed(0))
    parts = {"decoder": (Parameters(model, "likelihood", outputs_of(model)), "z", z)}
    if model.has_encoder:
        parts["encoder"] = (Parameters(model, "posterior", OUTPUTS[DiagonalGaussian]), "x", x)
    files = {}
    for name, (part, argument, example) in parts.items():
        with evaluating(model, torch.device("cpu"), 0), warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                part,
                (example,),
                dynamo=True,
                input_names=[argument],
                output_names=list(part.outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            assert program is not None
            content = program.model_proto.SerializeToString()
            for given in (example, example[:1], example.repeat(3, *[1] * (example.ndim - 1))):
                require_same(content, argument, given, part(given), f"{name}.onnx")
        files[f"{name}.onnx"] = content
    return files


def require_same(content: bytes, argument: str, given: Tensor, expected: tuple[Tensor, ...], name: str) -> None:
    """Refuses a model that onnxruntime runs to other numbers than PyTorch."""
    import onnxruntime

    found = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(
        None, {argument: given.numpy()}
    )
    for ours, theirs in zip(expected, found, strict=True):
        off = float(((ours - torch.as_tensor(theirs)).abs() / ours.abs().clamp(min=1)).max())
        if not off <= TOLERANCE:
            raise Failed(
                f"{name} differs from the model by {off:.2g}, and {TOLERANCE:g} is rounding: nothing is written"
            )


def safetensors_files(model: VAE) -> dict[str, bytes]:
    """The weights under the model's own names."""
    from safetensors.torch import save

    return {"model.safetensors": save({name: value.contiguous() for name, value in model.state_dict().items()})}


def torch_files(model: VAE) -> dict[str, bytes]:
    """The weights under the model's own names."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return {"model.pt": buffer.getvalue()}


WRITTEN: Mapping[str, Callable[[VAE], dict[str, bytes]]] = {
    "onnx": onnx_files,
    "safetensors": safetensors_files,
    "torch": torch_files,
}
"""What makes the files of a format."""
SESSIONS = """\
import numpy as np
import onnxruntime

decoder = onnxruntime.InferenceSession("decoder.onnx")
mean, {parameter} = decoder.run(None, {{"z": np.random.randn(16, {latent_dim}).astype(np.float32)}})
"""
WITH_ENCODER = """\
encoder = onnxruntime.InferenceSession("encoder.onnx")
z, std = encoder.run(None, {"x": mean})  # images in [0, 1]
"""
MODEL = """\
import yaml
{imports}

from vae_lab.wiring import build

with open("config.yaml", encoding="utf-8") as file:
    config = yaml.safe_load(file)
model = build.model(config["model"], copies=1, image_shape={image_shape}{further})
model.load_state_dict({weights})
model.eval()
"""


def card(run: Run, kind: str, names: list[str]) -> str:
    """The page about an exported model: facts and nats in its YAML head, and how to load it."""
    ledger, model = run.metrics, run.model
    facts = ("data", "scale", "binarization", "split_hash", "likelihood")
    measured = {}
    for result in results(ledger):
        about = {"value": round(result.value, 3), "standard_error": result.standard_error, "draws_of_z": result.draws}
        count = ledger.get(f"{result.key}_num_datapoints", ledger.get(f"{result.key.partition('/')[0]}/num_datapoints"))
        measured[result.key] = {
            name: value for name, value in (about | {"datapoints": count}).items() if value is not None
        }
    head = {
        "library_name": "vae_lab",
        "tags": ["variational-autoencoder"],
        **{key: ledger[key] for key in facts if key in ledger},
        "image_shape": list(model.image_shape),
        "latent_dim": model.latent_dim,
        "checkpoint": run.checkpoint,
        "samples_evaluated": run.samples,
        "nats_per_datapoint": measured,
    }
    values = "\n".join(f"- {result} per datapoint" for result in results(ledger)) or "- nothing was measured"
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {run.path.name}\n\n"
        f"A variational auto-encoder of {ledger.get('data', 'images')} with {model.latent_dim} latent dimensions, by "
        "vae_lab. Images go in as floating point in [0, 1], [batch, channel, height, width].\n\n"
        f"Files: {', '.join(names)}.\n\n## Measured\n\n{values}\n\n"
        "Nats compare only within one data set, scale, binarisation, split and likelihood: those of the head.\n\n"
        f"## How to load it\n\n```python\n{loading(model, kind)}```\n"
    )


def loading(model: VAE, kind: str) -> str:
    """The code that loads the files, from their folder."""
    if kind == "onnx":
        code = SESSIONS.format(parameter=outputs_of(model)[1], latent_dim=model.latent_dim)
        return code + WITH_ENCODER * model.has_encoder
    imports, weights = {
        "safetensors": ("from safetensors.torch import load_file", 'load_file("model.safetensors")'),
        "torch": ("import torch", 'torch.load("model.pt", weights_only=True)'),
    }[kind]
    further = "" if model.has_encoder else ", has_encoder=False"
    shape = tuple(model.image_shape)
    return MODEL.format(imports=imports, image_shape=shape, further=further, weights=weights)
