"""Pictures of one run that need its encoder and test images; functions as in `run_pictures`."""

import torch
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.figures.canvas import GREY, figure_for_grid, new_figure, styled, write_caption
from vae_lab.figures.run_facts import (
    CannotDrawError,
    bound_caption,
    kl_per_dimension,
    nats,
    read_test_images,
    read_test_labels,
    require_encoder,
    title_of,
)
from vae_lab.image_grids import image_grid, paired_rows
from vae_lab.runs.load import Run

KL_IMAGES = 1000
"""Test images that say which dimensions have the most KL."""
SCATTER_IMAGES = 5000
MANY_LABELS = 10
"""Up to so many labels get a colour and a place in the legend each."""


@styled
def reconstructions(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Test images and, below each, the decoder mean at its posterior mean."""
    require_encoder(run)
    x = read_test_images(run, 40)
    columns = min(10, len(x))
    x = x[: len(x) - len(x) % columns]
    pairs = paired_rows(x, run.reconstruct(x), columns=columns)
    grid = image_grid(pairs, columns=columns, padding=1, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title_of(run, "Reconstructions"))
    label_rows(axes, ["test image", "reconstruction"] * (len(x) // columns))
    write_caption(axes, bound_caption(run))
    return figure


@styled
def latent_scatter(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Posterior means of test images by label; of more than two dimensions, the two with the most KL."""
    require_encoder(run)
    if run.model.latent_dim == 1:
        raise CannotDrawError("a scatter needs model.latent_dim >= 2, and this run has 1")
    x = read_test_images(run, SCATTER_IMAGES)
    means = torch.cat([run.encode(block) for block in x.split(500)])
    labels = read_test_labels(run, SCATTER_IMAGES)
    what = "Posterior means"
    dimensions = [0, 1]
    if run.model.latent_dim > 2:
        kl = kl_per_dimension(run, x[:KL_IMAGES])
        dimensions = kl.argsort(descending=True)[:2].tolist()
        what += " in the two dimensions with the most KL"
    if labels is None:
        what += " (no labels)"
    figure, axes = new_figure(4.6, 4.4, title_of(run, what))
    scatter(axes, means[:, dimensions], labels)
    for axis, dimension in zip((axes.xaxis, axes.yaxis), dimensions, strict=True):
        value = f", {nats(float(kl[dimension]))} nats" if run.model.latent_dim > 2 else ""
        axis.set_label_text(f"$z_{{{dimension}}}${value}")
    write_caption(axes, bound_caption(run))
    return figure


def scatter(axes: Axes, points: Float[Tensor, "num 2"], labels: Int[Tensor, " num"] | None) -> None:
    """Points by label: one colour each with a legend, a colour scale for many labels, dark grey for none."""
    x, y = points.T.numpy()
    look = {"s": 6, "linewidths": 0, "alpha": 0.8, "rasterized": True}
    names = [] if labels is None else labels.unique().tolist()
    if labels is None:
        axes.scatter(x, y, color=GREY, **look)
    elif len(names) <= MANY_LABELS:
        for i, name in enumerate(names):
            chosen = (labels == name).numpy()
            axes.scatter(x[chosen], y[chosen], color=colormaps["tab10"](i), label=str(name), **look)
        axes.legend(title="label", loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, handletextpad=0.1)
    else:
        points_drawn = axes.scatter(x, y, c=labels.numpy(), cmap="turbo", **look)
        axes.figure.colorbar(points_drawn, ax=axes, label="label")
    axes.set_aspect("equal", adjustable="datalim")


@styled
def traversals(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """A test image's z with z_j from -3 to 3, a row for each of at most 10 dimensions, most KL first."""
    require_encoder(run)
    x = read_test_images(run, KL_IMAGES)
    kl = kl_per_dimension(run, x)
    dimensions = kl.argsort(descending=True)[:10].tolist()
    steps = torch.linspace(-3, 3, 13)
    z = run.encode(x[:1]).repeat(len(dimensions), len(steps), 1)
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = steps
    grid = image_grid(run.decode(z.flatten(0, 1)), columns=len(steps), padding=1, dark_on_white=dark_on_white)
    what = "Traversals of the dimensions with the most KL"
    figure, axes = figure_for_grid(grid, title_of(run, what))
    label_rows(axes, [f"$z_{{{j}}}$  {nats(float(kl[j]))} nats" for j in dimensions])
    places = (torch.arange(len(steps)) + 0.5) * grid.shape[2] / len(steps)
    axes.set_xticks(places[::2].tolist(), [nats(step).removesuffix(".0") for step in steps[::2].tolist()])
    axes.set_xlabel("$z_j$")
    write_caption(axes, bound_caption(run))
    return figure


@styled
def interpolations(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Decoder means on the line between the posterior means of two test images, which stand at the ends."""
    require_encoder(run)
    x = read_test_images(run, 16)
    if len(x) < 2:
        raise CannotDrawError("an interpolation needs two test images, and there is one")
    first, second = x[: len(x) // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    weights = torch.linspace(0, 1, 9)[None, :, None]
    z = run.encode(first)[:, None].lerp(run.encode(second)[:, None], weights)
    between = run.decode(z.flatten(0, 1)).unflatten(0, (-1, 9))
    rows = torch.cat([first[:, None], between, second[:, None]], dim=1)
    grid = image_grid(rows.flatten(0, 1), columns=11, padding=1, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title_of(run, "Interpolations between test images"))
    cell = grid.shape[2] / 11
    ticks = {0.5: "test", 1.5: "0", 5.5: "½", 9.5: "1", 10.5: "test"}
    axes.set_xticks([place * cell for place in ticks], list(ticks.values()))
    axes.set_xlabel("position between the posterior means of the two test images")
    write_caption(axes, bound_caption(run))
    return figure


def label_rows(axes: Axes, labels: list[str]) -> None:
    """Writes a label to the left of every row of the grid."""
    height = axes.get_ylim()[1] / len(labels)
    axes.set_yticks([(len(labels) - i - 0.5) * height for i in range(len(labels))], labels)
