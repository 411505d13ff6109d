"""Images in TensorBoard at every evaluation: always the same inputs, the same z and the same scale."""

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from vae_lab.data.image_grids import image_grid, manifold_latents, paired_rows
from vae_lab.errors import require_integer
from vae_lab.measurement import evaluating
from vae_lab.randomness import generator
from vae_lab.training.lit_module import LitVAE


class ImageGrid(pl.Callback):
    """Logs samples, reconstructions (with an encoder) and the manifold (of a two-dimensional z).

    Decoder means against samples evaluated, as they are, on the fixed scale [0, 1]: two steps differ only by
    what was learned between them. Reconstructions are of the first validation images (test images where there
    is no validation split), each below its original.

    Args:
        columns: images in a row.
        rows: rows of samples, and rows of pairs of originals and reconstructions.
        manifold_size: images along each side of the manifold.
        seed: of the z that samples are drawn from.
    """

    def __init__(self, *, columns: int = 10, rows: int = 5, manifold_size: int = 15, seed: int = 0) -> None:
        for key, value in {"columns": columns, "rows": rows, "manifold_size": manifold_size}.items():
            require_integer(f"callbacks.image_grid.{key}", value, minimum=1)
        self.columns, self.rows, self.manifold_size, self.seed = columns, rows, manifold_size, seed

    def on_evaluation(self, trainer: pl.Trainer, lit_module: LitVAE, samples: int) -> None:
        """Logs the grids, on the first process; the model's mode and the random state stay as they were."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not trainer.is_global_zero or not loggers:
            return
        for name, grid in self.grids(lit_module).items():
            for logger in loggers:
                logger.experiment.add_image(f"images/{name}", grid, global_step=samples)

    def grids(self, lit_module: LitVAE) -> dict[str, Float[Tensor, "channel height width"]]:
        """The images of this moment, by name."""
        model, device = lit_module.model, lit_module.device
        latents = torch.randn(
            self.columns * self.rows, model.latent_dim, generator=generator("cpu", self.seed, "image_grid")
        )

        def decode(z: Tensor) -> Tensor:
            return model.likelihood(z.to(device)).mean

        grids = {}
        with evaluating(model, device, self.seed, "image_grid"):
            if model.has_encoder:
                x = self.inputs(lit_module).to(device)
                columns = min(self.columns, len(x))
                pairs = paired_rows(x, decode(model.posterior(x).mean), columns=columns)
                grids["reconstructions"] = image_grid(pairs, columns=columns, padding=1)
            grids["samples"] = image_grid(decode(latents), columns=self.columns, padding=1)
            if model.latent_dim == 2:
                manifold = decode(manifold_latents(self.manifold_size))
                grids["manifold"] = image_grid(manifold, columns=self.manifold_size, padding=1)
        return grids

    def inputs(self, lit_module: LitVAE) -> Tensor:
        """The images to reconstruct: as many whole rows as there are."""
        splits = lit_module.data.splits
        images = splits["val" if "val" in splits else "test"].images[: self.columns * self.rows]
        return images[: len(images) - len(images) % self.columns] if len(images) > self.columns else images
