"""The total mass of a likelihood: 1 for a density of any kind of pixel, off by a known factor, or not known."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from vae_lab.applications.total_mass import total_mass
from vae_lab.distributions import Bernoulli, DiagonalGaussian, Distribution

SHAPE = (2, 1, 3, 5)


class Pixels(Distribution):
    """A density of PyTorch's, of `scale` times its mass."""

    def __init__(self, pixels: distributions.Distribution, scale: float = 1.0) -> None:
        self.pixels, self.scale = pixels, scale

    @property
    def mean(self) -> Tensor:
        return self.pixels.mean

    def sample(self) -> Tensor:
        return self.pixels.sample()

    def log_prob(self, x: Tensor) -> Tensor:
        rest = tuple(range(len(self.pixels.event_shape) - 3, 0))
        return self.pixels.log_prob(x).sum(rest) + math.log(self.scale)

    def unflatten(self, batch_shape: Sequence[int]) -> "Pixels":
        raise NotImplementedError


class Levels(Pixels):
    """Pixels of five levels, the probability of each its own: 0, 1/4, ... 1."""

    def sample(self) -> Tensor:
        return self.pixels.sample() / 4

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob((4 * x).round())


class Coupled(Distribution):
    """All binary images of 3x3 pixels, each with a probability of its own."""

    def __init__(self, scale: float) -> None:
        self.images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9).view(-1, 1, 3, 3)
        self.log = torch.randn(2, 512).double().log_softmax(-1) + math.log(scale)
        self.powers = 2 ** torch.arange(8, -1, -1)

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError

    def sample(self) -> Tensor:
        return self.images[torch.multinomial(self.log.exp(), 1)[:, 0]]

    def log_prob(self, x: Tensor) -> Tensor:
        code = (x.flatten(-3).long() * self.powers).sum(-1)
        return self.log.expand(*code.shape, 512).gather(-1, code[..., None])[..., 0]

    def unflatten(self, batch_shape: Sequence[int]) -> "Coupled":
        raise NotImplementedError


def parameters() -> tuple[Tensor, Tensor]:
    return torch.rand(SHAPE), 0.05 + 0.2 * torch.rand(SHAPE)


KINDS: dict[str, tuple[Any, str]] = {
    "Bernoulli": (lambda a, b: Bernoulli(10 * a - 5, 3), "binary"),
    "Gaussian": (lambda a, b: DiagonalGaussian(a, b.log(), 3), "real"),
    "Laplace": (lambda a, b: Pixels(distributions.Laplace(a, b)), "real"),
    "continuous Bernoulli": (lambda a, b: Pixels(distributions.ContinuousBernoulli(logits=8 * a - 4)), "[0, 1]"),
    "beta": (lambda a, b: Pixels(distributions.Beta(5 * a + 0.5, 20 * b)), "[0, 1]"),
    "levels": (lambda a, b: Levels(distributions.Categorical(logits=torch.randn(*SHAPE, 5))), "levels"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_density_of_independent_pixels_has_a_mass_of_1(kind):
    make, support = KINDS[kind]
    found = total_mass(make(*parameters()), divisor=4)
    assert found.log is not None and found.log.abs().max() < 2e-3 + found.error and found.error < 5e-3
    assert found.support == support and "15 pixels" in found.how


def test_missing_constant_is_measured():
    mean, sd = parameters()
    found = total_mass(Pixels(distributions.Normal(mean, sd), scale=0.9), divisor=1)
    assert found.log is not None and found.log.tolist() == pytest.approx([math.log(0.9)] * 2, abs=2e-3)


@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_small_binary_images_are_summed_over_whatever_couples_their_pixels(scale):
    found = total_mass(Coupled(scale), divisor=1)
    assert found.log is not None and found.log.tolist() == pytest.approx([math.log(scale)] * 2, abs=1e-6)
    assert found.how == "sum over all 512 images"


def test_where_it_cannot_be_known_the_reason_is():
    factor, noise = torch.randn(2, 1, 3, 5, 2), torch.full(SHAPE, 0.1)
    coupled = Pixels(distributions.LowRankMultivariateNormal(torch.zeros(SHAPE), factor, noise))
    found = total_mass(coupled, divisor=1)
    assert found.log is None and "depend on each other" in found.how
    heavy = total_mass(Pixels(distributions.Cauchy(*parameters())), divisor=1)
    assert heavy.error > 0.1, "its quadrature has not converged, and says so"
