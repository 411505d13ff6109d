"""Quadrature: log p(x) as an integral over z by a Gauss-Hermite grid, for at most 3 latent dimensions.

The grid is a tensor product, centred and scaled for every datapoint by the first two moments of p(z|x). These
are found by coarser grids on the path p(z) p(x|z)^beta: the first covers the prior, each other is laid around
what the one before found, so that a posterior of several peaks keeps them. Nothing is random: the stated
variance is the squared change of log p(x) when the nodes of a dimension double to `num_nodes`. The errors of two
datapoints may well have the same sign, so that of their mean is the mean of the errors, without a square root of N.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.errors import ConfigError
from vae_lab.estimators.base import Estimate, Estimator, Noise, rows_at_once
from vae_lab.estimators.grids import MOMENT_NODES, PATH, PRIOR_NODES, WIDENING, Grid, gauss_hermite, prior_midpoints
from vae_lab.model import VAE, Images, Latents, PerDatapoint


@dataclass(kw_only=True)
class Quadrature(Estimator):
    """log p(x) by Gauss-Hermite quadrature around the moments of p(z|x).

    Args:
        num_nodes: Nodes per latent dimension; even, since half of them tell the error.
    """

    needs_encoder = False
    bias = "none"

    num_nodes: int

    def __post_init__(self) -> None:
        if self.num_nodes not in range(4, 101, 2):
            raise ConfigError(
                f"estimator.num_nodes must be even and in 4 ... 100, got {self.num_nodes}: the error is the change "
                "from half as many nodes per dimension, and the weights of more leave float64"
            )

    @property
    def label(self) -> str:
        """`quadrature_N`: nodes per dimension."""
        return f"quadrature_{self.num_nodes}"

    def check(self, model: VAE) -> None:
        """Refuses more than 3 latent dimensions."""
        if model.latent_dim > 3:
            raise ConfigError(
                f"model.latent_dim must be <= 3 for estimator=quadrature, got {model.latent_dim}: the grid "
                "has num_nodes^latent_dim points; use importance_sampling or annealed_importance_sampling"
            )

    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, PerDatapoint]:
        """The log of the integral, and the squared change from half as many nodes."""
        center, factor = posterior_moments(model, x)
        fine = _log_integral(model, x, gauss_hermite(self.num_nodes, model.latent_dim), center, factor)
        coarse = _log_integral(model, x, gauss_hermite(self.num_nodes // 2, model.latent_dim), center, factor)
        return fine, (fine - coarse).square()

    def summary(self, estimate: Estimate) -> dict[str, float]:
        """Takes the mean absolute change for `_se`: no more is known of errors that are not random."""
        return {"_se": float(estimate.variance.sqrt().mean())}


def posterior_moments(model: VAE, x: Images) -> tuple[Latents, Float[Tensor, "batch latent latent"]]:
    """Mean of p(z|x) and a triangular factor of its covariance, the latter widened by a third; float64."""
    dim = model.latent_dim
    # A batch of one to begin with: the nodes over the prior are decoded once for all datapoints.
    center = torch.zeros(1, dim, dtype=torch.float64, device=x.device)
    factor = torch.eye(dim).to(center)[None]
    for beta in PATH:
        grid = prior_midpoints(PRIOR_NODES[dim], dim) if beta == PATH[0] else gauss_hermite(MOMENT_NODES[dim], dim)
        terms = torch.cat(list(_log_terms(model, x, grid, center, factor, beta)))
        nodes, share = grid[0].to(center), terms.softmax(0).T
        mean = share @ nodes
        away = nodes - mean[:, None]
        covariance = (share[:, :, None] * away).mT @ away + WIDENING * torch.eye(dim).to(center)
        center = center + (factor @ mean[:, :, None]).squeeze(-1)
        factor = factor @ torch.linalg.cholesky(covariance)
    return center, factor


def _log_integral(model: VAE, x: Tensor, grid: Grid, center: Tensor, factor: Tensor) -> Tensor:
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    for terms in _log_terms(model, x, grid, center, factor):
        total = torch.logaddexp(total, terms.logsumexp(0))
    return total


def _log_terms(
    model: VAE, x: Tensor, grid: Grid, center: Tensor, factor: Tensor, beta: float = 1.0
) -> Iterator[Float[Tensor, "node batch"]]:
    """The integral's terms at z = center + factor @ node, some nodes at a time."""
    nodes, log_weights = (part.to(center) for part in grid)
    # The rule is for a normal density, which the integrand is therefore divided by.
    log_weights = log_weights + 0.5 * nodes.square().sum(-1) + 0.5 * model.latent_dim * math.log(2 * math.pi)
    log_volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    at_once = max(1, rows_at_once(model, x.device) // len(x))
    for some, log_weight in zip(nodes.split(at_once), log_weights.split(at_once), strict=True):
        z = center + torch.einsum("bij,nj->nbi", factor, some)
        z = z.to(x.dtype)
        log_joint = model.prior().log_prob(z).double() + beta * model.likelihood(z).log_prob(x).double()
        yield log_joint + log_weight[:, None] + log_volume
