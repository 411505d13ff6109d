"""Pictures of one run: of its curve, its decoder and, with test images, its encoder.

Every function takes the run, the polarity (`dark_on_white`: show 1 - x) and a seed, and returns a figure,
or raises `CannotDrawError` with the reason. Images are decoder means on the fixed scale [0, 1]. Dimensions
of z are counted from 0, as in the ledger and in TensorBoard.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Ellipse
from matplotlib.patheffects import withStroke
from torch import Tensor
from torch.distributions import Normal

from vae_lab.data.arrays import Split
from vae_lab.data.image_grids import image_grid, manifold_latents, paired_rows
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.figures.canvas import GREY, figure_for_grid, label_rows, nats, new_figure, show_grid, styled, write_caption
from vae_lab.figures.side_by_side import draw_curves, draw_terms, lines_of
from vae_lab.model import VAE
from vae_lab.randomness import generator
from vae_lab.runs.load import Run
from vae_lab.runs.result import draws_of, latest, loss_of, other_draws, result_of, trained_with

INK_ON_BLACK = frozenset({"mnist", "digits", "kmnist", "emnist_balanced", "emnist_letters"})
"""Data sets of light strokes on a background of 0: printed dark on white, as in the paper."""
MANIFOLD_SIZE = 20
KL_IMAGES = 1000
"""Test images that say which dimensions have the most KL."""
SCATTER_IMAGES = 5000
MOST_DIMENSIONS = 10
"""The most dimensions of z in a picture that shows each of them."""
POSTERIOR_IMAGES, POSTERIOR_CELLS = 6, 100
"""Test images whose posterior is drawn, and cells along each side of its grid."""
MANY_LABELS = 10
"""The most labels that get a colour and a place in the legend each."""


NOTES = {
    "samples": "decoder means at draws z ~ N(0, I)",
    "manifold": "each tile holds equal mass of the prior N(0, I)",
    "latent_scatter": "rings: 1 and 2 s.d. of the prior; left: z of all these images (blue) and the prior (dashed)",
    "posteriors": "blue: p(z|x) on a grid; red: q(z|x); the gap is KL(q \N{PARALLEL TO} p), which the bound lacks",
    "traversals": "each row changes one $z_j$ of the test image on the left, and keeps the rest of its posterior mean",
}
"""What stands below a picture besides the bound."""


class CannotDrawError(ValueError):
    """This picture does not exist for this run; the message says why."""


def captioned(draw: Callable[..., Axes]) -> Callable[..., Figure]:
    """Decorates a drawing: the lab's style, and below it its note and the bound of the drawn weights."""

    @styled
    @wraps(draw)
    def drawn(run: Run, *, dark_on_white: bool, seed: int, **further: Any) -> Figure:
        axes = draw(run, dark_on_white, seed, **further)
        write_caption(axes, "\n".join([*filter(None, [NOTES.get(draw.__name__)]), bound_caption(run)]))
        return cast(Figure, axes.figure)

    return drawn


@styled
def bound_curve(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Bound against training samples (log scale), as in figure 2, with its last values; beside it its two terms."""
    mean = f"running mean{other_draws(run.config)}"
    named = [replace(line, label=line.label.replace("running mean", mean)) for line in lines_of(run.curve, "bound")]
    lines = [replace(line, label=f"{line.label}: {nats(line.values[-1], 2)}") for line in named]
    if not lines:
        raise CannotDrawError("the curve holds no bound: the run has no encoder, or stopped before an evaluation")
    figure, axes = new_figure(5.0, 3.2, title_of(run, "Evidence lower bound"))
    draw_curves(axes, lines, "bound")
    axes.legend()
    draw_terms(figure, (1.16, 0, 0.6, 1), run.curve)
    draws = draws_of(run.config)
    drawn = f"{'one draw' if draws == 1 else f'{draws} draws'} of z for each datapoint"
    loss = trained_with(loss_of(run.config))
    write_caption(axes, f"bound = reconstruction \N{MINUS SIGN} KL, with {drawn}{loss}")
    return figure


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
    """Decoder means over a 2-D latent space, each tile of equal prior mass, as in figure 4."""
    if run.model.latent_dim != 2:
        raise CannotDrawError(f"a manifold needs model.latent_dim = 2, and this run has {run.model.latent_dim}")
    images = run.decode(manifold_latents(MANIFOLD_SIZE))
    axes = axes_for(run, images, MANIFOLD_SIZE, "Latent manifold", dark_on_white, padding=0)
    ticks = torch.arange(-1.5, 1.6, 0.5)
    places, labels = torch.special.ndtr(ticks), [nats(tick) for tick in ticks.tolist()]
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    gaps: dict[str, Any] = {"color": "0.85", "linewidth": 1}
    for i in range(1, MANIFOLD_SIZE):
        axes.axvline(i * width / MANIFOLD_SIZE, **gaps)
        axes.axhline(i * height / MANIFOLD_SIZE, **gaps)
    axes.set_xticks((places * width).tolist(), labels)
    axes.set_yticks((places * height).tolist(), labels)
    axes.set_xlabel("$z_0$")
    axes.set_ylabel("$z_1$", rotation=0)
    return axes


@captioned
def latent_scatter(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """Posterior means of test images by label, over the prior; on the left the aggregate posterior per dimension."""
    x = encoded_images(run, SCATTER_IMAGES)
    if run.model.latent_dim == 1:
        raise CannotDrawError("a scatter needs model.latent_dim >= 2, and this run has 1")
    with torch.no_grad():
        posteriors = [run.model.posterior(block) for block in x.split(500)]
    means, stds = (torch.cat([getattr(q, name) for q in posteriors]) for name in ("mean", "std"))
    labels = _test_split(run).labels
    what, dimensions, values = "Posterior means", [0, 1], ["", ""]
    if run.model.latent_dim > 2:
        kl = kl_per_dimension(run, x[:KL_IMAGES])
        dimensions = kl.argsort(descending=True)[:MOST_DIMENSIONS].tolist()
        values = [f", {nats(float(kl[j]))} nats" for j in dimensions]
        what += " in the two dimensions with the most KL"
    if labels is None:
        what += " (no labels)"
    figure, axes = new_figure(4.6, 4.4, title_of(run, what))
    shown = None if labels is None else labels[:SCATTER_IMAGES]
    scatter(axes, means[:, dimensions[:2]], shown, run.data.class_names, seed)
    axes.set_xlabel(f"$z_{{{dimensions[0]}}}${values[0]}")
    axes.set_ylabel(f"$z_{{{dimensions[1]}}}${values[1]}")
    draw_aggregate(figure.add_axes((-0.42, 0, 0.27, 1)), means[:, dimensions], stds[:, dimensions], dimensions)
    return axes


def scatter(
    axes: Axes, points: Float[Tensor, "num 2"], labels: Tensor | None, names: Sequence[str] = (), seed: int = 0
) -> None:
    """Points by label, in random order: few labels have a colour and a place in the legend each, many share a scale.

    Args:
        axes: where they are drawn.
        points: their places.
        labels: their labels, if there are any.
        names: of the labels 0, 1, ...; empty: the numbers.
        seed: of the order.
    """
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=GREY, linewidth=0.9, zorder=2))
    title, name_of = ("class", dict(enumerate(names))) if names else ("label", {})
    order = torch.randperm(len(points), generator=generator("cpu", seed, "scatter"))  # or the last label covers all
    x, y = points[order].T.numpy()
    size = min(30.0, max(4.0, 10_000 / len(points)))
    look: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8, "rasterized": True}
    present = {} if labels is None else {label: name_of.get(label, str(label)) for label in labels.unique().tolist()}
    if labels is None:
        axes.scatter(x, y, color=GREY, **look)
    elif len(present) <= MANY_LABELS:
        colours = {label: colormaps["tab10"](i) for i, label in enumerate(present)}
        axes.scatter(x, y, color=[colours[label] for label in labels[order].tolist()], **look)
        dot: dict[str, Any] = {"ls": "", "marker": "o", "markersize": 5}
        dots = [Line2D([], [], color=colours[label], label=name, **dot) for label, name in present.items()]
        axes.legend(handles=dots, title=title, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)
        for label, name in present.items():
            at, height = points[labels == label].mean(0).tolist()
            look = {"color": colours[label], "size": 14, "weight": "bold", "ha": "center", "va": "center"}
            axes.text(at, height, name, path_effects=[withStroke(linewidth=3, foreground="white")], **look)
    else:
        points_drawn = axes.scatter(x, y, c=labels[order].numpy(), cmap="turbo", **look)
        bar = axes.figure.colorbar(points_drawn, ax=axes, label=title)
        if names:
            bar.set_ticks(list(present), labels=list(present.values()))
    axes.set_aspect("equal", adjustable="datalim")


def draw_aggregate(
    axes: Axes, means: Float[Tensor, "num latent"], stds: Float[Tensor, "num latent"], dimensions: Sequence[int]
) -> None:
    """The density of each z_j under the aggregate posterior, the mean of q(z_j|x) over x, and under the prior."""
    z = torch.linspace(-4, 4, 161)
    densities = torch.stack(
        [Normal(m[:, None], s[:, None]).log_prob(z).exp().mean(0) for m, s in zip(means.T, stds.T, strict=True)]
    )
    prior = Normal(0.0, 1.0).log_prob(z).exp()
    height = 0.85 / float(densities.max())
    for row, density in enumerate(densities):
        axes.fill_between(z, -row, height * density - row, color="tab:blue", alpha=0.4, linewidth=0)
        axes.plot(z, height * prior - row, "--", color=GREY, linewidth=1)
    axes.set_yticks([-row for row in range(len(dimensions))], [f"$z_{{{j}}}$" for j in dimensions])
    axes.set_ylim(-len(dimensions) + 0.95, 1)
    axes.set_title("Aggregate posterior", pad=8)


@captioned
def posteriors(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """p(z|x) of test images on a grid of two dimensions, and q(z|x) over it: what the bound loses is KL(q || p)."""
    x = encoded_images(run, POSTERIOR_IMAGES)
    if run.model.latent_dim != 2:
        raise CannotDrawError(
            f"a posterior on a grid needs model.latent_dim = 2, and this run has {run.model.latent_dim}"
        )
    x = run.data.measured("test").images[: len(x)]
    what = "The true posterior p(z|x), and q(z|x) at 1 and 2 s.d."
    rows = -(-len(x) // 3)
    _, axes = new_figure(6.6, 2.75 * rows, title_of(run, what))
    axes.set_axis_off()
    for i, image in enumerate(x):
        found = Posterior.of(run.model, image)
        row, column = divmod(i, 3)
        panel = axes.inset_axes((column / 3 + 0.03, 1 - (row + 0.88) / rows, 0.84 / 3, 0.74 / rows))
        panel.imshow(found.density, cmap="Blues", origin="lower", extent=found.extent, aspect="auto")
        for size in (2, 4):  # so many s.d. across
            width, height = (size * std for std in found.std)
            panel.add_patch(
                Ellipse((found.mean[0], found.mean[1]), width, height, fill=False, edgecolor="tab:red", linewidth=1.2)
            )
        value, bound = nats(found.log_likelihood), nats(found.bound)
        gap = f"gap {nats(found.gap, 2)} nats{class_of(run, i)}"
        panel.set_title(f"log p(x) {value}, bound {bound}:\n{gap}", size=8, pad=3)
        left, right, bottom, top = found.extent
        panel.set_xlim(left + (right - left) / 8, right - (right - left) / 8)  # the rim is for the sums
        panel.set_ylim(bottom + (top - bottom) / 8, top - (top - bottom) / 8)
        panel.locator_params(nbins=4)
        panel.tick_params(labelsize=7)
        panel.set_xlabel("$z_0$" if row == rows - 1 else "", size=8, labelpad=1)
        panel.set_ylabel("$z_1$" if column == 0 else "", size=8, labelpad=1, rotation=0, ha="right")
        show_grid(
            panel.inset_axes((0.02, 0.68, 0.3, 0.3)), image_grid(image[None], columns=1, dark_on_white=dark_on_white)
        )
    return axes


@dataclass(frozen=True)
class Posterior:
    """p(z|x) and q(z|x) of an image in two dimensions, by sums over a grid that holds nearly all of both."""

    density: np.ndarray
    """p(z|x), [z_1, z_0]."""
    extent: tuple[float, float, float, float]
    """The edges of the grid: z_0 from and to, z_1 from and to."""
    mean: list[float]
    std: list[float]
    """The standard deviations of q(z|x), whose mean is `mean`."""
    log_likelihood: float
    """The integral log p(x), in nats."""
    bound: float
    """The mean of log p(x, z) - log q(z|x) over q, in nats."""

    @property
    def gap(self) -> float:
        """KL(q(z|x) || p(z|x)) in nats: what the bound lacks."""
        return self.log_likelihood - self.bound

    @classmethod
    @torch.no_grad()
    def of(cls, model: VAE, image: Float[Tensor, "channel height width"]) -> "Posterior":
        """Uses grids over the prior, which finds p(z|x), over 4.5 s.d. of each density and its mean, and over both."""
        q = model.posterior(image[None])

        def log_joint(z: Tensor) -> Tensor:
            parts = (model.log_joint(image[None], some[:, None])[:, 0] for some in z.to(q.mean.dtype).split(1000))
            return torch.cat(list(parts)).double()

        z, step = _grid(torch.zeros(2).double(), torch.full((2,), 6.0).double())
        share = log_joint(z).softmax(0)
        mean = share @ z
        spread = (share @ (z - mean).square()).sqrt() + step
        z, step = _grid(mean, 4.5 * spread)
        log_likelihood = log_joint(z).logsumexp(0) + step.log().sum()
        q_mean, q_std = q.mean[0].double(), q.std[0].double()
        z, _ = _grid(q_mean, 4.5 * q_std)
        log_q = q.log_prob(z.to(q.mean.dtype)).double()
        bound = (log_q.softmax(0) * (log_joint(z) - log_q)).sum()
        low = torch.minimum(mean - 4.5 * spread, q_mean - 4.5 * q_std)
        high = torch.maximum(mean + 4.5 * spread, q_mean + 4.5 * q_std)
        middle, half = (low + high) / 2, (high - low).max().expand(2) / 2
        density = (log_joint(_grid(middle, half)[0]) - log_likelihood).exp().view(POSTERIOR_CELLS, -1)
        (x, y), width = middle.tolist(), float(half[0])
        extent = (x - width, x + width, y - width, y + width)
        return cls(density.numpy(), extent, q_mean.tolist(), q_std.tolist(), float(log_likelihood), float(bound))


def _grid(middle: Float[Tensor, "2"], half: Float[Tensor, "2"]) -> tuple[Float[Tensor, "cells 2"], Float[Tensor, "2"]]:
    """The centres of `POSTERIOR_CELLS` cells a side, z_0 the faster one, and the sides of a cell."""
    cells = (torch.arange(POSTERIOR_CELLS, dtype=torch.float64) + 0.5) / POSTERIOR_CELLS * 2 - 1
    upwards, rightwards = torch.meshgrid(cells, cells, indexing="ij")
    return middle + half * torch.stack([rightwards, upwards], -1).flatten(0, 1), 2 * half / POSTERIOR_CELLS


@captioned
def traversals(run: Run, dark_on_white: bool, seed: int) -> Axes:
    """A test image, on the left, and its z with z_j from -3 to 3, a row for each of at most 10 dimensions."""
    x = encoded_images(run, KL_IMAGES)
    kl = kl_per_dimension(run, x)
    dimensions = kl.argsort(descending=True)[:MOST_DIMENSIONS].tolist()
    steps = torch.linspace(-3, 3, 13)
    z = run.encode(x[:1]).repeat(len(dimensions), len(steps), 1)
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = steps
    moved = run.decode(z.flatten(0, 1)).unflatten(0, (len(dimensions), -1))
    rows = torch.cat([x[:1].expand(len(dimensions), 1, *x.shape[1:]), moved], dim=1).flatten(0, 1)
    what, columns = f"Traversals from a test image{class_of(run, 0)}, most KL first", len(steps) + 1
    axes = axes_for(run, rows, columns, what, dark_on_white)
    label_rows(axes, [f"$z_{{{j}}}$  {nats(float(kl[j]))} nats" for j in dimensions])
    places = (torch.arange(columns) + 0.5) * axes.get_xlim()[1] / columns
    labels = ["test", *(nats(step).removesuffix(".0") for step in steps[::2].tolist())]
    axes.set_xticks([float(places[0]), *places[1::2].tolist()], labels)
    axes.set_xlabel("$z_j$")
    return axes


@captioned
def interpolations(run: Run, dark_on_white: bool, seed: int, ends: Sequence[int] = range(16)) -> Axes:
    """Decoder means on the line between the posterior means of two test images, which stand at the ends.

    `ends` has the places of the images in the test split, in pairs; those that are there by default.
    """
    x = encoded_images(run, max(ends) + 1)
    if not isinstance(ends, range):
        require_images(run, ends)
    else:
        ends = ends[: len(x) // 2 * 2]
    if not ends:
        raise CannotDrawError("an interpolation needs two test images, and there is one")
    first, second = x[list(ends)].unflatten(0, (-1, 2)).unbind(1)
    weights = torch.linspace(0, 1, 9)[None, :, None]
    z = run.encode(first)[:, None].lerp(run.encode(second)[:, None], weights)
    between = run.decode(z.flatten(0, 1)).unflatten(0, (-1, 9))
    rows = torch.cat([first[:, None], between, second[:, None]], dim=1).flatten(0, 1)
    axes = axes_for(run, rows, 11, "Interpolations between test images", dark_on_white)
    names = [f"{place}{class_of(run, place)}" for place in ends]
    label_rows(axes, [f"{one}, {other}" for one, other in zip(names[::2], names[1::2], strict=True)])
    cell = axes.get_xlim()[1] / 11
    ticks = {0.5: "test", 1.5: "0", 5.5: "½", 9.5: "1", 10.5: "test"}
    axes.set_xticks([place * cell for place in ticks], list(ticks.values()))
    axes.set_xlabel("position between the posterior means of the two test images")
    return axes


PICTURES = {
    draw.__name__: draw
    for draw in (
        bound_curve,
        samples,
        reconstructions,
        manifold,
        latent_scatter,
        posteriors,
        traversals,
        interpolations,
    )
}
"""What draws the picture of this name."""


def dark_on_white_by_default(run: Run) -> bool:
    """Whether to show 1 - x: for the data sets in `INK_ON_BLACK`; all others are shown as stored."""
    return run.data.name in INK_ON_BLACK and run.data.image_shape[0] == 1


def read_test_images(run: Run, limit: int) -> Float[Tensor, "num channel height width"]:
    """The first `limit` test images, or all if there are fewer."""
    return _test_split(run).images[:limit]


def require_images(run: Run, places: Sequence[int]) -> None:
    """Refuses places of images that are not in the test split, or whose q(z|x) there is not."""
    num = len(encoded_images(run, max(places) + 1))
    if max(places) >= num:
        raise CannotDrawError(f"interpolate must name test images from 0 to {num - 1}, got {max(places)}")


def class_of(run: Run, place: int) -> str:
    """The name of the class of a test image, in brackets; empty where classes have no names."""
    labels, names = _test_split(run).labels, run.data.class_names
    return f" ({names[int(labels[place])]})" if labels is not None and names else ""


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
    """What stands for the drawn weights, in nats per datapoint: from the ledger of their checkpoint, or the curve."""
    place = f"{run.checkpoint}.ckpt, {run.samples:,} samples evaluated"
    ledger = run.metrics
    if not ledger or ledger.get("samples_evaluated", run.samples) != run.samples:  # or of weights gone on since
        ledger = latest((row for row in run.curve if row["samples_evaluated"] <= run.samples), run.config)
    result = result_of(ledger)
    if result is None:
        return f"{place}; nothing measured"
    measured = ledger.get("samples_evaluated", run.samples)
    at = "" if measured == run.samples else f" at {measured:,.0f} samples"
    return f"{result} per datapoint{at} ({place})".replace("-", "\N{MINUS SIGN}")
