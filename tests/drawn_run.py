"""A run directory with a small untrained model, a curve and a ledger: what the pictures are drawn from."""

from pathlib import Path
from typing import Any

import torch

from vae_lab.atomic import atomic_file
from vae_lab.runs.curve import append_row
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.wiring import build

DIGITS = {
    "_target_": "vae_lab.data.digits.Digits",
    "batch_size": 100,
    "binarization": "none",
    "train_size": None,
    "split_seed": 0,
}


def make_drawn_run(
    path: Path,
    *,
    latent_dim: int = 2,
    data: dict[str, Any] = DIGITS,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    measured: bool = True,
    has_encoder: bool = True,
) -> RunDir:
    network = {"_partial_": True, "hidden": [6], "activation": "tanh"}
    model = {
        "_target_": "vae_lab.model.VAE",
        "latent_dim": latent_dim,
        "encoder": {"_target_": "vae_lab.networks.mlp.MLPEncoder", **network},
        "decoder": {"_target_": "vae_lab.networks.mlp.MLPDecoder", **network},
        "likelihood": {"_target_": "vae_lab.networks.heads.BernoulliLikelihood", "_partial_": True},
        "initialization": {"_target_": "vae_lab.networks.initialization.PyTorchDefault"},
    }
    config = {"seed": 0, "matmul_backend": "default", "data": data, "model": model, "trainer": {"max_epochs": 1}}
    run = plan_run(path, config, image_shape=list(image_shape))
    vae = build.instantiate(model, "model", image_shape=image_shape, has_encoder=has_encoder)
    with atomic_file(run.checkpoints / "last.ckpt") as file:
        weights = {f"model.{name}": value for name, value in vae.state_dict().items()}
        torch.save({"state_dict": weights, "vae_lab": {"samples": 40_000}}, file)
    if measured:
        for samples, bound in ((100, -90.0), (2000, -30.0), (40_000, -20.0)):
            row = {"samples_evaluated": samples, "train/bound_running": bound - 1, "test/bound": bound}
            append_row(run.curve_file, row)
        run.update_ledger("last", {"test/bound": -20.04, "samples_evaluated": 40_000, "checkpoint": "last"})
    return run
