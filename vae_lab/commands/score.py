"""`vae-lab score`: bound and log p(x) of every image, and a picture of the least likely ones."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_lab.applications.images import lacks_classes
from vae_lab.applications.scoring import score as scored
from vae_lab.commands.evaluate import choose_device, require_fit
from vae_lab.commands.images import ImageSettings
from vae_lab.commands.out import OutSettings, write_table
from vae_lab.commands.run_settings import RunSettings
from vae_lab.commands.tracking import tracked
from vae_lab.errors import ConfigError, require_choice, require_integer
from vae_lab.estimators.base import Estimator
from vae_lab.estimators.pareto import HIGH, untrusted
from vae_lab.figures.applied import least_likely
from vae_lab.figures.run_pictures import dark_on_white_by_default
from vae_lab.measurement import require_draws
from vae_lab.randomness import NOISE_BLOCK
from vae_lab.runs.load import Run
from vae_lab.runs.result import loss_of, trained_with
from vae_lab.wiring import build
from vae_lab.wiring.table import Table, number

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class MeasureSettings(RunSettings):
    """How log p(x) and the bound are estimated."""

    estimator: Any
    num_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_samples", self.num_samples, minimum=1)

    def made(self) -> Estimator:
        """The estimator of log p(x).

        Raises:
            ConfigError: it is of something else.
        """
        estimator: Estimator = build.instantiate(self.estimator, "estimator")
        if estimator.quantity != "log_likelihood":
            reason = "it simulates its own"
            raise ConfigError(f"estimator must be of log p(x) of given images, got {estimator.label}: {reason}")
        return estimator

    def require_fit(self, estimator: Estimator, run: Run) -> None:
        """Refuses a run that the estimator cannot handle, or whose images are too large for so many draws."""
        require_fit(estimator, run)
        require_draws("num_samples", self.num_samples, NOISE_BLOCK, run.model)


@dataclass(frozen=True)
class ScoreSettings(MeasureSettings, ImageSettings, OutSettings):
    """The keys of `vae-lab score`."""

    top: int | None
    device: str

    suffixes = (".csv", ".npz", ".parquet")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("top", self.top, minimum=1, maximum=500, optional=True)
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        if self.top is not None:
            self.require_room_beside()


def score(settings: ScoreSettings) -> list[Path]:
    """Writes the scores of every image to `settings.out`, the picture beside it, and returns both.

    Raises:
        ConfigError: a setting is refused, or the run or the images cannot be read; nothing was written.
    """
    estimator = settings.made()

    def require_scores(run: Run) -> None:
        settings.require_fit(estimator, run)
        if settings.top is not None and run.model.image_shape[0] not in (1, 3):
            raise ConfigError(f"top must be null for {run.path}: a picture has 1 or 3 channels")
        settings.require_images(run)

    _, run = settings.loaded_one(check=require_scores)
    images = settings.images(run)
    if loss := trained_with(loss_of(run.config)):
        log.info("bound: the ELBO of every image%s", loss)
    run.model.to(choose_device(settings.device))
    watch = tracked(f"scoring {images.source}")
    scores = scored(run.model, images.x, estimator, num_samples=settings.num_samples, seed=settings.seed, watch=watch)
    write_table(settings.path, images.columns() | scores.columns())
    k_hat = scores.beside.get("k_hat")
    doubtful = None if k_hat is None else untrusted(k_hat)
    if doubtful is not None and (num := int(doubtful.sum())):
        reason = f"its k-hat is above {HIGH} or missing"
        log.warning("log p(x) of %d of %d images is not to be trusted: %s", num, len(images), reason)
    strange = lacks_classes(run, images)
    if strange is not None and 0 < strange.sum() < len(images):
        rows = [(name, number(value, places=3)) for name, value in scores.detection(strange).items()]
        title = f"{run.path}: finding the {int(strange.sum()):,} images of classes that it was not trained on"
        Table(("by", "AUROC"), rows, f"among {len(images):,} of {images.source}", title=title).print()
    if settings.top is None:
        return [settings.path]
    picture = least_likely(
        images.x,
        scores.log_likelihood,
        num=settings.top,
        names=without_common_folder(images.files) if images.files else images.label_names,
        title=f"The least likely of {images.source}: {run.path.name}",
        dark_on_white=settings.other is None and dark_on_white_by_default(run),
    )
    return settings.with_picture_beside(picture)


def without_common_folder(files: Sequence[str]) -> list[str]:
    """The names of files without the folder that all are in: pictures of two classes may have the same name."""
    common = os.path.commonpath(map(os.path.dirname, files))
    return [os.path.relpath(file, common or os.curdir) for file in files]
