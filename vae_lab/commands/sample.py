"""`vae-lab sample`: images from a trained model, as arrays, as PNG files or as one picture."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.applications.sampling import decoded, fit_aggregate, mixture_latents, prior_latents
from vae_lab.commands.out import FOLDER, Blocks, OutSettings, channels_last, write_arrays, write_picture
from vae_lab.commands.run_settings import RunSettings
from vae_lab.commands.tracking import tracked
from vae_lab.data.image_grids import image_grid
from vae_lab.errors import ConfigError, NoEncoder, require_choice, require_integer, require_memory
from vae_lab.runs.load import Run

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class DrawSettings(RunSettings):
    """Which images are drawn."""

    num: int
    draw: str
    from_: str
    components: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num", self.num, minimum=1)
        require_choice("draw", self.draw, ("mean", "pixels"))
        require_choice("from", self.from_, ("prior", "aggregate"))
        require_integer("components", self.components, minimum=1, optional=True)
        if self.components is not None and self.from_ == "prior":
            raise ConfigError(f"components must be null with from=prior, got {self.components}: write from=aggregate")

    def require_source(self, run: Run) -> None:
        """Refuses a run without what z is drawn from."""
        if self.from_ == "aggregate" and not run.model.has_encoder:
            raise NoEncoder(f"from must be prior for {run.path}, got 'aggregate': the run trained no encoder")


@dataclass(frozen=True)
class SampleSettings(DrawSettings, OutSettings):
    """The keys of `vae-lab sample`."""

    suffixes = (".npz", ".png", FOLDER)

    def require_fit(self, run: Run) -> None:
        """Refuses a run of which there are no such samples."""
        self.require_source(run)
        channels = run.model.image_shape[0]
        if self.path.suffix != ".npz" and channels not in (1, 3):
            raise ConfigError(
                f"out must end with .npz for {run.path}, got {self.out!r}: PNG has no {channels} channels"
            )
        num, size = f"num={self.num}", math.prod(run.model.image_shape)
        require_memory(num, 24 * self.num * run.model.latent_dim, "draw fewer at a time, with another seed each")
        if self.path.suffix == ".png":
            require_memory(num, 12 * self.num * size, "write .npz or a folder")


def sample(settings: SampleSettings) -> Path:
    """Draws `settings.num` images from the run `settings.run` and writes them to `settings.out`; returns that.

    Raises:
        ConfigError: a setting is refused, or the run cannot be read; nothing was written.
    """
    _, run = settings.loaded_one(check=settings.require_fit)
    images, z = drawn(run, settings)
    if settings.path.suffix == ".npz":
        channels, height, width = run.model.image_shape
        shape = (settings.num, height, width, *([channels] if channels > 1 else []))
        x = Blocks(shape, np.dtype(np.float32), map(channels_last, images))
        write_arrays(settings.path, {"x": x, "z": z.cpu().numpy()})
    elif settings.path.suffix == ".png":
        columns = math.ceil(math.sqrt(settings.num))
        write_picture(settings.path, image_grid(torch.cat(list(images)), columns=columns, padding=1))
    else:
        digits = len(str(settings.num - 1))
        for i, image in enumerate(image for block in images for image in block):
            write_picture(settings.path / f"{i:0{digits}}.png", image)
    return settings.path


def drawn(
    run: Run, settings: DrawSettings
) -> tuple[Iterator[Float[Tensor, "block channel height width"]], Float[Tensor, "num latent"]]:
    """Images, some at a time, and their z."""
    model, seed = run.model, settings.seed
    if settings.from_ == "prior":
        z = prior_latents(model, settings.num, seed=seed)
    else:
        train, count = run.data.measured("train").images, settings.components
        mixture = fit_aggregate(model, train, num_components=count, seed=seed, watch=tracked("fitting mixtures"))
        chosen = "" if count else ", by BIC"
        log.info("the aggregate posterior as a mixture of %d Gaussians%s", mixture.n_components, chosen)  # pyright: ignore[reportAttributeAccessIssue]
        z = mixture_latents(mixture, model, settings.num, seed=seed)
    return decoded(model, z, draw=settings.draw, seed=seed, watch=tracked("sampling")), z  # pyright: ignore[reportArgumentType]
