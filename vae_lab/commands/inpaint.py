"""`vae-lab inpaint`: draws of what is hidden of images, given the rest; arrays, a picture and a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vae_lab.applications.inpainting import Inpainted, mask_of, require_independent_pixels
from vae_lab.applications.inpainting import inpaint as chains_of
from vae_lab.commands.images import ImageSettings, require_encoder
from vae_lab.commands.out import OutSettings, channels_last, write_arrays
from vae_lab.commands.run_settings import RunSettings
from vae_lab.commands.tracking import tracked
from vae_lab.errors import ConfigError, require_choice, require_integer
from vae_lab.estimators.pareto import HIGH
from vae_lab.figures.applied import inpaintings
from vae_lab.figures.canvas import nats
from vae_lab.figures.run_pictures import dark_on_white_by_default
from vae_lab.runs.load import Run
from vae_lab.wiring.table import Cell, Table, number

MOST_DRAWN = 20
"""Images that the picture shows."""


@dataclass(frozen=True)
class ChainSettings(RunSettings):
    """What is missing, and how the chains go that draw it."""

    mask: str
    num: int
    num_pseudo_gibbs: int
    num_steps: int
    num_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num", self.num, minimum=1, maximum=250)
        require_integer("num_pseudo_gibbs", self.num_pseudo_gibbs, minimum=0)
        require_integer("num_steps", self.num_steps, minimum=8, advice="the second half of them is measured")
        require_integer("num_samples", self.num_samples, minimum=25, advice="k-hat needs some")

    def missing(self, run: Run) -> Bool[Tensor, "height width"]:
        """The missing pixels of the run's images; refuses a run whose images cannot be inpainted."""
        require_encoder(run, "inpaint")
        require_independent_pixels(run.model, run.path)
        return mask_of(self.mask, run.model.image_shape, seed=self.seed)


@dataclass(frozen=True)
class InpaintSettings(ChainSettings, ImageSettings, OutSettings):
    """The keys of `vae-lab inpaint`."""

    draw: str

    suffixes = (".npz",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("draw", self.draw, ("mean", "pixels"))
        self.require_room_beside()

    def require_fit(self, run: Run) -> None:
        """Refuses a run whose images cannot be inpainted or shown."""
        self.missing(run)
        if (channels := run.model.image_shape[0]) not in (1, 3):
            raise ConfigError(f"inpaint needs images of 1 or 3 channels, got {channels} in {run.path}")
        self.require_images(run)


def inpaint(settings: InpaintSettings) -> list[Path]:
    """Inpaints images of the run `settings.run`, prints a table, and returns the files: `settings.out` and the picture.

    Raises:
        ConfigError: a setting is refused, or the run or the images cannot be read; nothing was written.
    """
    _, run = settings.loaded_one(check=settings.require_fit)
    images = settings.images(run)
    missing = settings.missing(run)
    found = inpainted(run, images.x, missing, settings, images.source)
    arrays, measured = pictures_of(found), measured_of(found)
    pixels = {name: channels_last(values) for name, values in ({"x": images.x} | arrays).items()}
    write_arrays(settings.path, images.columns() | pixels | {"missing": missing.numpy()} | measured)
    names = images.label_names or [""] * len(images)
    rows = [row_of(i, names[i], each) for i, each in enumerate(found)]
    states = settings.num * (settings.num_steps - settings.num_steps // 2)
    caption = (
        f"{settings.mask} is missing: {int(missing.sum())} of {missing.numel()} pixels; effective sample size of "
        f"{states} states, by the dimension of z that mixes worst; !: not to be trusted, Pareto k-hat is above {HIGH}"
    )
    columns = ("image", "label", "accepted", "by HMC", "effective size", "log p(missing | given)", "s.e.")
    Table(columns, rows, caption, title=f"{run.path}: {images.source}").print()
    what = "pixels" if settings.draw == "pixels" else "E[missing | z] at the z"
    shown = slice(MOST_DRAWN)
    picture = inpaintings(
        images.x[shown],
        missing,
        arrays["draws" if settings.draw == "pixels" else "means"][shown],
        arrays["mean"][shown],
        labels=[f"{nats(each.log_conditional)} ± {each.standard_error:.1f}" for each in found[shown]],
        title=f"Inpainting {images.source if settings.other else f'{run.data.name}, {images.source}'}",
        caption=f"left: log p(missing | given) in nats; draws: {what} of each chain's end",
        dark_on_white=settings.other is None and dark_on_white_by_default(run),
    )
    return settings.with_picture_beside(picture)


def inpainted(
    run: Run,
    x: Float[Tensor, "num channel height width"],
    missing: Bool[Tensor, "height width"],
    settings: ChainSettings,
    source: str,
) -> list[Inpainted]:
    """What the chains of every image came to, with the noise of its place."""
    how = {"num": settings.num, "num_pseudo_gibbs": settings.num_pseudo_gibbs, "num_steps": settings.num_steps}
    how |= {"num_samples": settings.num_samples, "seed": settings.seed}
    places = tracked(f"inpainting {source}")(range(len(x)))
    return [chains_of(run.model, x[i], missing, index=i, **how) for i in places]


def pictures_of(found: Sequence[Inpainted]) -> dict[str, Tensor]:
    """The draws, their means and the mean of every image, [num, ...]."""
    return {name: torch.stack([getattr(each, name) for each in found]) for name in ("draws", "means", "mean")}


def measured_of(found: Sequence[Inpainted]) -> dict[str, np.ndarray]:
    """What was measured, [num] each."""
    names = ("acceptance", "hmc_acceptance", "effective_sample_size", "log_conditional", "standard_error", "k_hat")
    return {name: np.array([getattr(each, name) for each in found]) for name in names}


def row_of(place: int, label: str, found: Inpainted) -> list[Cell]:
    """A row of the table."""
    mark = "!" if found.k_hat > HIGH or math.isnan(found.k_hat) else ""
    shares = f"{found.acceptance:.0%}", f"{found.hmc_acceptance:.0%}"
    density = number(found.log_conditional, mark=mark, places=2), number(found.standard_error, places=2)
    return [str(place), label, *shares, f"{found.effective_sample_size:.0f}", *density]
