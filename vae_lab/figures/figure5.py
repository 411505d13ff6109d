"""Figure 5: random samples of MNIST models with latent spaces of different dimensions."""

from dataclasses import dataclass

from torch import Tensor

from vae_lab.errors import ConfigError
from vae_lab.figures.decoded import PictureRow
from vae_lab.runs.load import Run


@dataclass(kw_only=True, eq=False)
class Figure5(PictureRow):
    """Decoder means at z ~ N(0, I).

    Args:
        data_set: whose images are sampled.
        latent_dims: a picture for each.
        side: images along each side of a picture.
        seed: of the z.
    """

    name, height, margins = "figure5", 3.0, (0.0, 0.6)

    data_set: str
    latent_dims: list[int]
    side: int
    seed: int

    def __post_init__(self) -> None:
        if not self.latent_dims or self.side < 1:
            raise ConfigError(
                f"figure.latent_dims must hold a size, figure.side be >= 1, got {self.latent_dims} and {self.side}"
            )

    def titles(self) -> dict[tuple[str, int], str]:
        """Every latent size."""
        return {(self.data_set, size): f"{size}-D latent space" for size in self.latent_dims}

    def images(self, run: Run, data_set: str) -> tuple[Tensor, int]:
        """The samples."""
        return run.sample(self.side**2, self.seed), self.side
