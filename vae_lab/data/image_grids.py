"""Many images in one: tensors in, tensors out; no drawing library, no run, no model class."""

import torch
from jaxtyping import Float
from torch import Tensor


def image_grid(
    images: Float[Tensor, "num channel height width"],
    *,
    columns: int,
    padding: int = 0,
    dark_on_white: bool = False,
) -> Float[Tensor, "channel grid_height grid_width"]:
    """The images beside each other, row by row from the top left, on the fixed scale [0, 1].

    Values are never stretched to fill the scale, only clamped to it. `padding` white pixels separate
    neighbours (the outer edge has none), and a last row that is not full ends in white. `dark_on_white` shows
    1 - x instead of x. The result is on the CPU.
    """
    if len(images) == 0:
        raise ValueError("image_grid: images must hold at least one image, got none")
    if columns < 1 or padding < 0:
        raise ValueError(f"image_grid: columns must be >= 1 and padding >= 0, got {columns} and {padding}")
    images = images.detach().float().cpu().clamp(0, 1)
    if dark_on_white:
        images = 1 - images
    num, channels, height, width = images.shape
    rows = -(-num // columns)
    cells = images.new_ones(rows * columns, channels, height + padding, width + padding)
    cells[:num, :, :height, :width] = images
    grid = cells.view(rows, columns, channels, height + padding, width + padding).permute(2, 0, 3, 1, 4)
    grid = grid.reshape(channels, rows * (height + padding), columns * (width + padding))
    return grid[:, : grid.shape[1] - padding, : grid.shape[2] - padding]


def paired_rows(
    above: Float[Tensor, "num channel height width"],
    below: Float[Tensor, "num channel height width"],
    *,
    columns: int,
) -> Float[Tensor, "twice channel height width"]:
    """The order that makes `image_grid` put each image of `above` directly over its partner from `below`."""
    if len(above) % columns:
        raise ValueError(f"paired_rows: {len(above)} images do not fill rows of {columns}")
    pairs = torch.stack([above.unflatten(0, (-1, columns)), below.unflatten(0, (-1, columns))], dim=1)
    return pairs.flatten(0, 2)


def manifold_latents(n: int) -> Float[Tensor, "cells 2"]:
    """The z of figure 4: n x n cell midpoints of the unit square through the inverse CDF of N(0, 1).

    Coordinates are ppf((i + 1/2) / n). The rows are in the order of `image_grid(..., columns=n)`, oriented
    like a scatter plot: z[:, 0] grows to the right, z[:, 1] grows upwards, so the first row is the top left
    corner, where z[:, 0] is lowest and z[:, 1] is highest.
    """
    if n < 1:
        raise ValueError(f"manifold_latents: n must be >= 1, got {n}")
    coordinates = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()
    upwards, rightwards = torch.meshgrid(coordinates.flip(0), coordinates, indexing="ij")
    return torch.stack([rightwards, upwards], dim=-1).view(n * n, 2)
