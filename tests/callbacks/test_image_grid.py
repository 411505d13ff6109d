from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lab.callbacks.image_grid import ImageGrid
from vae_lab.data.digits import Digits
from vae_lab.model import VAE
from vae_lab.training.lit_module import LitVAE
from vae_lab.wiring import build


def make_lit(latent_dim: int = 2, has_encoder: bool = True) -> LitVAE:
    network = {"_partial_": True, "hidden": [6], "activation": "tanh"}
    model: VAE = build.instantiate(
        {
            "_target_": "vae_lab.model.VAE",
            "latent_dim": latent_dim,
            "encoder": {"_target_": "vae_lab.networks.mlp.MLPEncoder", **network},
            "decoder": {"_target_": "vae_lab.networks.mlp.MLPDecoder", **network},
            "likelihood": {"_target_": "vae_lab.networks.heads.BernoulliLikelihood", "_partial_": True},
            "initialization": {"_target_": "vae_lab.networks.initialization.PyTorchDefault"},
        },
        "model",
        image_shape=(1, 8, 8),
        has_encoder=has_encoder,
    )
    lit = LitVAE.__new__(LitVAE)
    LightningModule.__init__(lit)
    lit.model = model
    lit.data = Digits(batch_size=100, binarization="none", train_size=None, split_seed=0)
    return lit


def make_trainer(folder: Path) -> Trainer:
    logger = TensorBoardLogger(folder, name="", version="")
    return Trainer(accelerator="cpu", logger=logger, enable_checkpointing=False, enable_model_summary=False)


def read_images(folder: Path) -> dict[str, list[tuple[int, bytes]]]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()["images"]
    return {tag: [(image.step, image.encoded_image_string) for image in events.Images(tag)] for tag in tags}


def test_image_grid_logs_the_same_images_for_the_same_weights(tmp_path):
    trainer, lit, callback = make_trainer(tmp_path), make_lit(), ImageGrid()
    for samples in (100, 250):
        torch.rand(7)
        callback.on_evaluation(trainer, lit, samples)
    with torch.no_grad():
        for weight in lit.model.parameters():
            weight.mul_(1.5)
    callback.on_evaluation(trainer, lit, 400)
    trainer.logger.save()
    images = read_images(tmp_path)
    assert set(images) == {"images/reconstructions", "images/samples", "images/manifold"}
    for logged in images.values():
        assert [step for step, _ in logged] == [100, 250, 400]
        assert logged[0][1] == logged[1][1] != logged[2][1]


def test_image_grid_shows_the_validation_images_above_their_reconstructions():
    lit = make_lit()
    grid = ImageGrid(columns=4, rows=2).grids(lit)["reconstructions"]
    x = lit.data.splits["val"].images[:8]
    with torch.no_grad():
        mean = lit.model.likelihood(lit.model.posterior(x).mean).mean
    assert grid.shape == (1, 4 * 9 - 1, 4 * 9 - 1)
    torch.testing.assert_close(grid[:, 18:26, 27:35], x[7])
    torch.testing.assert_close(grid[:, 27:35, 27:35], mean[7])


@pytest.mark.parametrize(("num", "columns", "pairs"), [(3, 3, 1), (12, 5, 2)])
def test_image_grid_makes_do_with_few_test_images(num, columns, pairs):
    lit = make_lit()
    test = lit.data.splits["test"]
    lit.data.splits.pop("val")
    lit.data.splits["test"] = type(test)(test.images[:num], None, test.indices[:num])
    grid = ImageGrid(columns=5, rows=5).grids(lit)["reconstructions"]
    assert grid.shape == (1, pairs * 2 * 9 - 1, columns * 9 - 1)


def test_image_grid_draws_a_manifold_in_two_dimensions_only():
    assert "manifold" not in ImageGrid().grids(make_lit(latent_dim=3))


def test_image_grid_without_an_encoder_has_no_reconstructions():
    lit = make_lit(has_encoder=False)
    assert set(ImageGrid().grids(lit)) == {"samples", "manifold"}


def test_image_grid_leaves_mode_and_random_state_alone():
    lit = make_lit()
    lit.train()
    state = torch.get_rng_state()
    ImageGrid().grids(lit)
    assert lit.model.training and torch.equal(torch.get_rng_state(), state)


def test_image_grid_does_nothing_without_tensorboard_or_on_other_ranks(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    for trainer in (
        SimpleNamespace(loggers=[], is_global_zero=True),
        SimpleNamespace(loggers=[logger], is_global_zero=False),
    ):
        ImageGrid().on_evaluation(cast(Trainer, trainer), make_lit(), 100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["columns", "rows", "manifold_size"])
def test_image_grid_refuses_nothing_to_show(key):
    with pytest.raises(ValueError, match=rf"callbacks\.image_grid\.{key} must be an integer >= 1, got 0"):
        ImageGrid(**{key: 0})
