"""Which images a command works on: the keys by which a split of the run's data, or other images, are named."""

import logging
from dataclasses import dataclass
from typing import Any

from vae_lab.applications.images import Images, images_of_path, images_of_split
from vae_lab.commands.run_settings import RunSettings, require_splits
from vae_lab.errors import ConfigError, NoEncoder, require_choice, require_integer
from vae_lab.runs.load import Run
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class OtherData:
    """The keys of `data`."""

    path: str | None


@dataclass(frozen=True)
class ImageSettings(RunSettings):
    """A split, its first images, or a user's own."""

    split: str | None
    classes: str | None
    data: Any
    num_datapoints: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_datapoints", self.num_datapoints, minimum=1, optional=True)
        if self.classes is not None:
            require_choice("classes", self.classes, ("all",))
        if self.other is not None and (self.split, self.classes) != (None, None):
            raise ConfigError(f"split and classes must be null with data.path={self.other}: all its images are taken")

    @property
    def other(self) -> str | None:
        """The place of other images."""
        return build.settings(OtherData, self.data, "data").path

    def images(self, run: Run) -> Images:
        """The images, of a run that `require_images` has seen."""
        if self.other is None:
            found = images_of_split(run, self.split or "test", all_classes=self.classes == "all")
        else:
            found = images_of_path(run, self.other)
            for note in found.notes:
                log.info("%s: %s", self.other, note)
        return found.first(self.num_datapoints)

    def require_images(self, run: Run) -> None:
        """Refuses a split that the run does not have."""
        if self.other is None:
            require_splits(run, "split", [self.split or "test"])


def require_encoder(run: Run, command: str) -> None:
    """Refuses a run without q(z|x)."""
    if not run.model.has_encoder:
        raise NoEncoder(f"{run.path}: its objective trained no encoder, and vae-lab {command} needs q(z|x)")
