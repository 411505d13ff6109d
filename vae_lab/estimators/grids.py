"""Grids for integrals over z in few dimensions: Gauss-Hermite nodes, and midpoints of cells of equal prior mass.

The moments of p(z|x) are found by grids on the path p(z) p(x|z)^beta: the first covers the prior, each other is laid
around what the one before found.
"""

import math

import numpy as np
import torch
from torch import Tensor

PATH = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.0)
"""The beta of each grid that the moments are taken from."""
PRIOR_NODES = {1: 1000, 2: 32, 3: 16}
MOMENT_NODES = {1: 32, 2: 12, 3: 8}
"""Nodes a dimension of the grid over the prior, and of the others, by the number of dimensions."""
WIDENING = 0.25
"""Share of a grid's covariance that the next one keeps, whatever it saw: a peak between nodes is not lost."""
Grid = tuple[Tensor, Tensor]
"""Nodes [node, latent] and log weights [node] of a rule for N(0, I): E f ~ sum of weight * f(node)."""


def gauss_hermite(num_nodes: int, dim: int) -> Grid:
    """The rule that is exact for polynomials, with so many nodes a dimension."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return _tensor_product(nodes, np.log(weights) - 0.5 * math.log(2 * math.pi), dim)


def prior_midpoints(num_nodes: int, dim: int) -> Grid:
    """Cell midpoints of the unit cube through the inverse normal CDF, all of the same weight."""
    nodes = torch.special.ndtri((torch.arange(num_nodes, dtype=torch.float64) + 0.5) / num_nodes).numpy()
    return _tensor_product(nodes, np.full(num_nodes, -math.log(num_nodes)), dim)


def _tensor_product(nodes: np.ndarray, log_weights: np.ndarray, dim: int) -> Grid:
    grid = np.stack(np.meshgrid(*[nodes] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    weights = sum(np.meshgrid(*[log_weights] * dim, indexing="ij"), start=np.zeros(())).reshape(-1)
    return torch.from_numpy(grid), torch.from_numpy(weights)
