"""`vae-lab plot`: the pictures of runs, from their directories alone, as PNG and PDF in their `images`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from vae_lab.commands.run_settings import RunSettings
from vae_lab.errors import ConfigError, RunError, require_choice, require_integer
from vae_lab.figures.canvas import rendered, write
from vae_lab.figures.run_pictures import PICTURES, CannotDrawError, dark_on_white_by_default, require_images
from vae_lab.runs.directory import WRITING_SECONDS, RunDir
from vae_lab.runs.load import Run

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class PlotSettings(RunSettings):
    """The keys of `vae-lab plot`."""

    pictures: str | list[str]
    dark_on_white: bool | None
    interpolate: list[int] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interpolate is not None:
            if not self.interpolate or len(self.interpolate) % 2:
                raise ConfigError(f"interpolate must name test images in pairs, as [3,17], got {self.interpolate}")
            for place in self.interpolate:
                require_integer("interpolate", place, minimum=0, advice="test images are counted from 0")
            if "interpolations" not in self.names:
                raise ConfigError(
                    f"interpolate must be null where pictures has no interpolations, got {self.interpolate}: "
                    "add interpolations to pictures"
                )
        if not self.pictures:
            raise ConfigError(f"pictures must name at least one of {', '.join(PICTURES)}, or be all; got none")
        for name in self.names:
            require_choice("pictures", name, PICTURES if isinstance(self.pictures, list) else ["all", *PICTURES])

    @property
    def names(self) -> list[str]:
        """The pictures asked for: all of them, one, or some."""
        if self.pictures == "all":
            return list(PICTURES)
        return [self.pictures] if isinstance(self.pictures, str) else self.pictures

    def check(self, run: Run) -> None:
        """Refuses to interpolate between test images that a run has not."""
        if self.interpolate is None:
            return
        try:
            require_images(run, self.interpolate)
        except CannotDrawError as error:
            raise RunError(f"{run.path}: interpolations cannot be drawn: {error}") from error


def plot(settings: PlotSettings) -> list[Path]:
    """Draws the pictures of `settings.pictures`, of one run after the other; returns the folders they are in.

    With `all`, a picture that a run cannot have is left out, and the log says why; one asked for by name is an error,
    and so are interpolations between named images, before anything is drawn.

    Raises:
        ConfigError: an unknown picture, or a run that cannot be read: nothing was drawn; or a picture that a run cannot
            have.
    """
    return [draw(*loaded, settings) for loaded in settings.loaded(check=settings.check, writes=True)]


def picture_of(
    run: Run, name: str, seed: int, *, dark_on_white: bool | None = None, ends: Sequence[int] | None = None
) -> Figure:
    """A picture of a run by its name; what is None is as the data set, and the picture, have it."""
    dark_on_white = dark_on_white_by_default(run) if dark_on_white is None else dark_on_white
    further = {} if ends is None else {"ends": ends}
    return PICTURES[name](run, dark_on_white=dark_on_white, seed=seed, **further)


def draw(directory: RunDir, run: Run, settings: PlotSettings) -> Path:
    """Draws the pictures of one run into its folder of images; returns that."""
    drawn = {}
    for name in settings.names:
        try:
            ends = settings.interpolate if name == "interpolations" else None
            picture = picture_of(run, name, settings.seed, dark_on_white=settings.dark_on_white, ends=ends)
            drawn[name] = rendered(picture)
        except CannotDrawError as error:
            if settings.pictures != "all":
                raise RunError(f"{name} cannot be drawn: {error}") from error
            log.info("%s is left out: %s", name, error)
    if not drawn:
        raise RunError(f"{run.path}: no picture can be drawn; the reasons are above")
    with directory.locked(WRITING_SECONDS):
        for name, files in drawn.items():
            png, pdf = write(files, directory.images / name)
            log.info("%s, %s", png, pdf.name)
    return directory.images
