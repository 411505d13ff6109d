"""Figure 4: the manifolds that two-dimensional latent spaces have learned, each cell of equal prior mass."""

from dataclasses import dataclass

from torch import Tensor

from vae_lab.data.image_grids import manifold_latents
from vae_lab.errors import ConfigError
from vae_lab.figures.decoded import NAMES, PictureRow
from vae_lab.runs.load import Run


@dataclass(kw_only=True, eq=False)
class Figure4(PictureRow):
    """Decoder means over the unit square through the inverse normal CDF, without gaps.

    Args:
        sizes: images along each side of each data set's manifold.
    """

    name, height, margins = "figure4", 4.6, (0.4, 0.7)

    sizes: dict[str, int]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes.values()) < 1:
            raise ConfigError(f"figure.sizes must give each data set a number >= 1, got {self.sizes}")

    def titles(self) -> dict[tuple[str, int], str]:
        """Every data set with two latent dimensions."""
        return {(data_set, 2): f"Learned {NAMES.get(data_set, data_set)} manifold" for data_set in self.sizes}

    def images(self, run: Run, data_set: str) -> tuple[Tensor, int]:
        """The manifold."""
        return run.decode(manifold_latents(self.sizes[data_set])), self.sizes[data_set]
