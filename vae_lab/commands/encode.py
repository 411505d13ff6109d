"""`vae-lab encode`: q(z|x) of images, as a table or as arrays."""

from dataclasses import dataclass
from pathlib import Path

from vae_lab.applications.encoding import encode as encoded
from vae_lab.commands.images import ImageSettings, require_encoder
from vae_lab.commands.out import OutSettings, write_table
from vae_lab.commands.tracking import tracked
from vae_lab.runs.load import Run


@dataclass(frozen=True)
class EncodeSettings(ImageSettings, OutSettings):
    """The keys of `vae-lab encode`."""

    suffixes = (".npz", ".csv", ".parquet")

    def require_fit(self, run: Run) -> None:
        """Refuses a run that cannot encode the images."""
        require_encoder(run, "encode")
        self.require_images(run)


def encode(settings: EncodeSettings) -> Path:
    """Writes the posterior of every image to `settings.out`; returns that.

    Raises:
        ConfigError: a setting is refused, or the run or the images cannot be read; nothing was written.
    """
    _, run = settings.loaded_one(check=settings.require_fit)
    images = settings.images(run)
    found = encoded(run.model, images.x, watch=tracked(f"encoding {images.source}"))
    write_table(settings.path, images.columns() | found.columns())
    return settings.path
