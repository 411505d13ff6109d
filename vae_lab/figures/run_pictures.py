"""Pictures of one run: of its curve, its decoder and, with test images, its encoder.

Every function takes the run, the polarity (`dark_on_white`: show 1 - x) and a seed, and returns a figure,
or raises `CannotDrawError` with the reason. Images are decoder means on the fixed scale [0, 1]. Dimensions
of z are counted from 0, as in the ledger and in TensorBoard.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, cast

import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.data.arrays import Split
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.figures.canvas import (
    GREY,
    figure_for_grid,
    label_rows,
    nats,
    new_figure,
    styled,
    write_caption,
)
from vae_lab.figures.side_by_side import Line, draw_curves
from vae_lab.image_grids import decode_manifold, image_grid, paired_rows
from vae_lab.randomness import generator
from vae_lab.runs.curve import series
from vae_lab.runs.load import Run
from vae_lab.runs.result import result_of

INK_ON_BLACK = frozenset({"mnist", "digits", "kmnist", "emnist_balanced", "emnist_letters"})
"""Data sets of light strokes on a background of 0: printed dark on white, as in the paper."""
LINES = {
    "train/bound_running": ("train (running mean)", "tab:red", "-"),
    "val/bound": ("validation", "tab:blue", "-."),
    "test/bound": ("test", "black", "--"),
}
MANIFOLD_SIZE = 20
KL_IMAGES = 1000
"""Test images that say which dimensions have the most KL."""
SCATTER_IMAGES = 5000
MANY_LABELS = 10
"""Up to so many labels get a colour and a place in the legend each."""


class CannotDrawError(ValueError):
    """This picture does not exist for this run; the message says why."""


def captioned(draw: Callable[[Run, bool, int], Axes]) -> Callable[..., Figure]:
    """Makes it a picture: in the lab's style, with the bound of the drawn weights below."""

    @styled
    @wraps(draw)
    def drawn(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
        axes = draw(run, dark_on_white, seed)
        write_caption(axes, bound_caption(run))
        return cast(Figure, axes.figure)

    return drawn


@captioned
def bound_curve(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Bound against training samples evaluated (log scale), as in figure 2; the legend gives the last values."""
    lines = [
        Line(f"{label}: {nats(values[-1], 2)}", samples, values, colour, dashes)
        for key, (label, colour, dashes) in LINES.items()
        for samples, values in [series(run.curve, key)]
        if values
    ]
    if not lines:
        raise CannotDrawError("the curve holds no bound: the run has no encoder, or stopped before an evaluation")
    _, axes = new_figure(5.0, 3.2, title_of(run, "Evidence lower bound"))
    draw_curves(axes, lines, "bound")
    axes.legend()
    return axes


@captioned
def samples(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """10 x 10 decoder means at z ~ N(0, I), as in figure 5."""
    z = torch.randn(100, run.model.latent_dim, generator=generator("cpu", seed, "samples"))
    return axes_for(run, run.decode(z), 10, "Samples", dark_on_white)


@captioned
def reconstructions(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Test images and, below each, the decoder mean at its posterior mean."""
    x = encoded_images(run, 40)
    columns = min(10, len(x))
    x = x[: len(x) - len(x) % columns]
    pairs = paired_rows(x, run.reconstruct(x), columns=columns)
    axes = axes_for(run, pairs, columns, "Reconstructions", dark_on_white)
    label_rows(axes, ["test image", "reconstruction"] * (len(x) // columns))
    return axes


@captioned
def manifold(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Decoder means over a 2-D latent space, equal prior mass per image and no gaps, as in figure 4."""
    if run.model.latent_dim != 2:
        raise CannotDrawError(f"a manifold needs model.latent_dim = 2, and this run has {run.model.latent_dim}")
    images = decode_manifold(run.decode, MANIFOLD_SIZE)
    axes = axes_for(run, images, MANIFOLD_SIZE, "Latent manifold", dark_on_white, padding=0)
    ticks = torch.arange(-1.5, 1.6, 0.5)
    places, labels = torch.special.ndtr(ticks), [nats(tick) for tick in ticks.tolist()]
    axes.set_xticks((places * axes.get_xlim()[1]).tolist(), labels)
    axes.set_yticks((places * axes.get_ylim()[1]).tolist(), labels)
    axes.set_xlabel("$z_0$")
    axes.set_ylabel("$z_1$", rotation=0)
    return axes


@captioned
def latent_scatter(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Posterior means of test images by label; of more than two dimensions, the two with the most KL."""
    x = encoded_images(run, SCATTER_IMAGES)
    if run.model.latent_dim == 1:
        raise CannotDrawError("a scatter needs model.latent_dim >= 2, and this run has 1")
    means = torch.cat([run.encode(block) for block in x.split(500)])
    labels = _test_split(run).labels
    what, dimensions, values = "Posterior means", [0, 1], ["", ""]
    if run.model.latent_dim > 2:
        kl = kl_per_dimension(run, x[:KL_IMAGES])
        dimensions = kl.argsort(descending=True)[:2].tolist()
        values = [f", {nats(float(kl[j]))} nats" for j in dimensions]
        what += " in the two dimensions with the most KL"
    if labels is None:
        what += " (no labels)"
    _, axes = new_figure(4.6, 4.4, title_of(run, what))
    scatter(axes, means[:, dimensions], None if labels is None else labels[:SCATTER_IMAGES], run.data.class_names)
    axes.set_xlabel(f"$z_{{{dimensions[0]}}}${values[0]}")
    axes.set_ylabel(f"$z_{{{dimensions[1]}}}${values[1]}")
    return axes


def scatter(axes: Axes, points: Float[Tensor, "num 2"], labels: Tensor | None, names: Sequence[str] = ()) -> None:
    """Points by label: one colour each with a legend, a colour scale for many labels, dark grey for none.

    Args:
        axes: where they are drawn.
        points: their places.
        labels: their labels, if there are any.
        names: of the labels 0, 1, ...; empty: the numbers.
    """
    title, name_of = ("class", dict(enumerate(names))) if names else ("label", {})
    x, y = points.T.numpy()
    look: dict[str, Any] = {"s": 6, "linewidths": 0, "alpha": 0.8, "rasterized": True}
    present = [] if labels is None else labels.unique().tolist()
    if labels is None:
        axes.scatter(x, y, color=GREY, **look)
    elif len(present) <= MANY_LABELS:
        for i, label in enumerate(present):
            chosen = (labels == label).numpy()
            name = name_of.get(label, str(label))
            axes.scatter(x[chosen], y[chosen], color=colormaps["tab10"](i), label=name, **look)
        axes.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, handletextpad=0.1)
    else:
        points_drawn = axes.scatter(x, y, c=labels.numpy(), cmap="turbo", **look)
        bar = axes.figure.colorbar(points_drawn, ax=axes, label=title)
        if names:
            bar.set_ticks(present, labels=[name_of.get(label, str(label)) for label in present])
    axes.set_aspect("equal", adjustable="datalim")


@captioned
def traversals(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """A test image's z with z_j from -3 to 3, a row for each of at most 10 dimensions, most KL first."""
    x = encoded_images(run, KL_IMAGES)
    kl = kl_per_dimension(run, x)
    dimensions = kl.argsort(descending=True)[:10].tolist()
    steps = torch.linspace(-3, 3, 13)
    z = run.encode(x[:1]).repeat(len(dimensions), len(steps), 1)
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = steps
    what = "Traversals of the dimensions with the most KL"
    axes = axes_for(run, run.decode(z.flatten(0, 1)), len(steps), what, dark_on_white)
    label_rows(axes, [f"$z_{{{j}}}$  {nats(float(kl[j]))} nats" for j in dimensions])
    places = (torch.arange(len(steps)) + 0.5) * axes.get_xlim()[1] / len(steps)
    axes.set_xticks(places[::2].tolist(), [nats(step).removesuffix(".0") for step in steps[::2].tolist()])
    axes.set_xlabel("$z_j$")
    return axes


@captioned
def interpolations(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Decoder means on the line between the posterior means of two test images, which stand at the ends."""
    x = encoded_images(run, 16)
    if len(x) < 2:
        raise CannotDrawError("an interpolation needs two test images, and there is one")
    first, second = x[: len(x) // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    weights = torch.linspace(0, 1, 9)[None, :, None]
    z = run.encode(first)[:, None].lerp(run.encode(second)[:, None], weights)
    between = run.decode(z.flatten(0, 1)).unflatten(0, (-1, 9))
    rows = torch.cat([first[:, None], between, second[:, None]], dim=1).flatten(0, 1)
    axes = axes_for(run, rows, 11, "Interpolations between test images", dark_on_white)
    cell = axes.get_xlim()[1] / 11
    ticks = {0.5: "test", 1.5: "0", 5.5: "½", 9.5: "1", 10.5: "test"}
    axes.set_xticks([place * cell for place in ticks], list(ticks.values()))
    axes.set_xlabel("position between the posterior means of the two test images")
    return axes


PICTURES = {
    draw.__name__: draw
    for draw in (bound_curve, samples, reconstructions, manifold, latent_scatter, traversals, interpolations)
}
"""What draws the picture of this name."""


def dark_on_white_by_default(run: Run) -> bool:
    """Whether to show 1 - x: for the data sets in `INK_ON_BLACK`; all others are shown as stored."""
    return run.data.name in INK_ON_BLACK and run.data.image_shape[0] == 1


def read_test_images(run: Run, limit: int) -> Float[Tensor, "num channel height width"]:
    """The first `limit` test images, or all if there are fewer."""
    return _test_split(run).images[:limit]


def encoded_images(run: Run, limit: int) -> Float[Tensor, "num channel height width"]:
    """The first test images, for a picture of their q(z|x)."""
    if not run.model.has_encoder:
        raise CannotDrawError("it shows q(z|x), and the run trained no encoder")
    return read_test_images(run, limit)


def _test_split(run: Run) -> Split:
    try:
        return run.data.splits["test"]
    except FileNotFoundError as error:
        raise CannotDrawError(f"it shows test images, and the data set is not here: {error}") from error


def kl_per_dimension(run: Run, x: Float[Tensor, "num channel height width"]) -> Float[Tensor, " latent"]:
    """Mean over x of KL(q(z_j|x) || p(z_j)), in nats, with the very weights that are drawn."""
    with torch.no_grad():
        return torch.cat([kl_to_standard_normal(run.model.posterior(block)) for block in x.split(500)]).mean(0)


def axes_for(run: Run, images: Tensor, columns: int, what: str, dark_on_white: bool, padding: int = 1) -> Axes:
    """A figure of these images; their width and height in pixels are the limits of its axes."""
    grid = image_grid(images, columns=columns, padding=padding, dark_on_white=dark_on_white)
    return figure_for_grid(grid, title_of(run, what))[1]


def title_of(run: Run, what: str) -> str:
    """What is shown, of which data set, in how many latent dimensions; a long text gets two lines."""
    separator = ": " if len(what) < 40 else "\n"
    return f"{what}{separator}{run.data.name}, $N_z = {run.model.latent_dim}$"


def bound_caption(run: Run) -> str:
    """What stands for the drawn weights, in nats per datapoint, from the ledger of their checkpoint."""
    place = f"{run.checkpoint}.ckpt, {run.samples:,} samples evaluated"
    known = run.metrics.get("samples_evaluated", run.samples) == run.samples  # or of weights that have gone on since
    result = result_of(run.metrics) if known else None
    if result is None:
        return f"{place}; nothing measured"
    return f"{result} per datapoint ({place})".replace("-", "\N{MINUS SIGN}")
