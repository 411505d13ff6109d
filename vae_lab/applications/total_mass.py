"""The total mass of a likelihood: the sum or integral of p(x|z) over all images x, which is 1 for a density.

Small images are enumerated. Of larger ones, if their pixels are independent given z, it follows from sums or integrals
along single pixels: with p(x) = prod_i f_i(x_i),

    log prod_i int f_i = log p(x) + sum_i (log int p(x with x_i = t) dt - log p(x))    for any x.

Which values an image may have is seen from draws: binary ones, the levels of the stored data, or numbers in [0, 1] or
on the real line.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vae_lab.data.arrays import is_binary
from vae_lab.distributions import Distribution

MOST_ENUMERATED = 2**12
"""The most possible images that are summed over one by one."""
MOST_PIXELS = 4096
"""Along so many pixels at most is integrated, for time grows with the square."""
NUM_DRAWS = 500
"""Images drawn to see where the density is: what none of them reaches has a mass of some 3/500 at most."""
NODES = (32, 64, 128, 256, 512)
"""The nodes of the quadrature along a pixel: as many as it takes until `CONVERGED`."""
CONVERGED = 1e-3
"""Change of the log mass by twice as many nodes."""
REACH = 3.2
"""Where the double exponential rule ends: at 10^8 standard deviations."""


@dataclass(frozen=True)
class TotalMass:
    """The log of the total mass for every z, or why it is not known."""

    log: Float[Tensor, " batch"] | None
    error: float
    """The estimated error of rounding and quadrature."""
    support: str
    """The values that a pixel has in draws: `binary`, `levels`, `[0, 1]` or `real`."""
    how: str
    """How it was computed; without it, the reason."""


def total_mass(density: Distribution, divisor: int) -> TotalMass:
    """The total mass of a likelihood [batch, channel, height, width], for every z of the batch.

    Draws noise from the global stream.

    Args:
        density: p(x|z), whose `log_prob` takes images [number, batch, channel, height, width].
        divisor: what stored values of the data set are divided by.
    """
    draws = torch.stack([density.sample() for _ in range(NUM_DRAWS)])
    draws = draws.to(number_type(density, draws[0]))
    support, values = levels_of(draws, divisor)
    shape, num_pixels = draws.shape[2:], draws[0, 0].numel()
    if values is not None and num_pixels * math.log(len(values)) <= math.log(MOST_ENUMERATED):
        images = torch.cartesian_prod(*[values] * num_pixels).view(-1, 1, *shape)
        log = density.log_prob(images.expand(-1, draws.shape[1], *shape)).double().logsumexp(0)
        return TotalMass(log, 0.0, support, f"sum over all {len(images)} images")
    if not has_independent_pixels(density, draws[0], draws[1]):
        return TotalMass(
            None, 0.0, support, "pixels depend on each other given z, and there are too many images to sum"
        )
    if num_pixels > MOST_PIXELS:
        return TotalMass(None, 0.0, support, f"integrals along {num_pixels} pixels would take too long")
    log_base = density.log_prob(draws[0])
    error = num_pixels * torch.finfo(log_base.dtype).eps * float(log_base.abs().max())
    if values is not None:
        nodes = values.view(-1, 1, 1).expand(-1, draws.shape[1], num_pixels)
        log = along_pixels(density, draws[0], nodes, torch.zeros_like(nodes))
        return TotalMass(log, error, support, f"sums along each of {num_pixels} pixels")
    log = None
    for count in NODES:
        coarse, log = log, along_pixels(density, draws[0], *nodes_on(support, draws.flatten(2), count))
        change = math.inf if coarse is None else float((log - coarse).abs().max())
        if change <= CONVERGED:
            break
    where = "the real line" if support == "real" else support
    return TotalMass(log, error + change, support, f"integrals over {where} along each of {num_pixels} pixels")


def number_type(density: Distribution, images: Float[Tensor, "batch channel height width"]) -> torch.dtype:
    """float64, or the density's own type if it takes no images but of that."""
    try:
        density.log_prob(images.double())
    except RuntimeError:
        return images.dtype
    return torch.float64


def levels_of(
    draws: Float[Tensor, "draw batch channel height width"], divisor: int
) -> tuple[str, Float[Tensor, " level"] | None]:
    """What the values of pixels are, in a word, and all of them if these are some levels."""
    if is_binary(draws):
        return "binary", torch.tensor([0.0, 1.0]).to(draws)
    if not ((draws >= 0) & (draws <= 1)).all():
        return "real", None
    if divisor > 1 and (draws * divisor - (draws * divisor).round()).abs().max() < 1e-3:
        return "levels", torch.arange(divisor + 1).to(draws) / divisor
    return "[0, 1]", None


def has_independent_pixels(
    density: Distribution,
    a: Float[Tensor, "batch channel height width"],
    b: Float[Tensor, "batch channel height width"],
) -> bool:
    """Whether log p(a) + log p(b) stays the same when the two exchange pixels."""
    apart = density.log_prob(a) + density.log_prob(b)
    for _ in range(4):
        swapped: Bool[Tensor, "channel height width"] = torch.rand(a.shape[1:]).to(a.device) < 0.5
        exchanged = density.log_prob(a.where(swapped, b)) + density.log_prob(b.where(swapped, a))
        if not torch.allclose(apart, exchanged, rtol=1e-5, atol=1e-3):
            return False
    return True


def nodes_on(
    support: str, draws: Float[Tensor, "draw batch pixel"], count: int
) -> tuple[Float[Tensor, "node batch pixel"], Float[Tensor, "node batch pixel"]]:
    """Nodes and log weights of the double exponential rule for every pixel, where its draws are.

    On the real line x = mean + sd * sinh(pi/2 sinh t) with equal steps of t; in [0, 1] the same of logit x.
    """
    is_bounded = support != "real"
    draws = draws.double()
    tiny = torch.finfo(torch.float64).eps
    u = draws.logit(eps=tiny) if is_bounded else draws
    sd, mean = torch.std_mean(u, 0)
    sd = sd.clamp(min=1e-6)
    t = torch.linspace(-REACH, REACH, count, dtype=torch.float64, device=draws.device).view(-1, 1, 1)
    inner = math.pi / 2 * t.sinh()
    nodes = mean + sd * inner.sinh()
    log_weights = (sd * math.pi / 2 * t.cosh() * inner.cosh() * (2 * REACH / (count - 1))).log()
    if is_bounded:
        slope = torch.nn.functional.logsigmoid(nodes) + torch.nn.functional.logsigmoid(-nodes)
        return nodes.sigmoid().clamp(tiny, 1 - tiny), log_weights + slope
    return nodes, log_weights


def along_pixels(
    density: Distribution,
    base: Float[Tensor, "batch channel height width"],
    nodes: Float[Tensor, "node batch pixel"],
    log_weights: Float[Tensor, "node batch pixel"],
) -> Float[Tensor, " batch"]:
    """The log of the total mass by the formula above, at the image `base`."""
    nodes = nodes.to(base)
    log_base = density.log_prob(base).double()
    log = log_base.clone()
    images = base.flatten(1).repeat(len(nodes), 1, 1)
    for pixel in range(nodes.shape[2]):
        images[..., pixel] = nodes[..., pixel]
        along = density.log_prob(images.view(len(nodes), *base.shape)).double() + log_weights[..., pixel]
        log += along.logsumexp(0) - log_base
        images[..., pixel] = base.flatten(1)[:, pixel]
    return log
