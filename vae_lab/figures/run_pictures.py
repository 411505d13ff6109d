"""Pictures of one run that need only its curve and its decoder.

Every function takes the run, the polarity (`dark_on_white`: show 1 - x) and a seed, and returns a figure,
or raises `CannotDrawError` with the reason. Images are decoder means on the fixed scale [0, 1]. Dimensions
of z are counted from 0, as in the ledger and in TensorBoard.
"""

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from vae_lab.figures.canvas import figure_for_grid, new_figure, styled, write_caption
from vae_lab.figures.posterior_pictures import interpolations, latent_scatter, reconstructions, traversals
from vae_lab.figures.run_facts import CannotDrawError, bound_caption, nats, series, title_of
from vae_lab.image_grids import decode_manifold, image_grid
from vae_lab.randomness import generator
from vae_lab.runs.load import Run

LINES = {
    "train/bound_running": ("train (running mean)", "tab:red", "-"),
    "val/bound": ("validation", "tab:blue", "-."),
    "test/bound": ("test", "black", "--"),
}
MANIFOLD_SIZE = 20


@styled
def bound_curve(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Bound against training samples evaluated (log scale), as in figure 2; the legend gives the last values.

    The y axis reaches down to four times the distance between the best value and the lower quartile: what
    lies lower is the steep start, and would flatten the rest.
    """
    curves = {key: series(run, key) for key in LINES if series(run, key)[0]}
    if not curves:
        raise CannotDrawError("the curve holds no bound: the run has no encoder, or stopped before an evaluation")
    figure, axes = new_figure(5.0, 3.2, title_of(run, "Evidence lower bound"))
    for key, (samples, values) in curves.items():
        label, colour, line = LINES[key]
        marker = "o" if len(samples) == 1 else ""
        axes.plot(samples, values, line, color=colour, marker=marker, label=f"{label}: {nats(values[-1])}")
    set_limits(axes, [point for curve in curves.values() for point in zip(*curve, strict=True)])
    axes.set_xlabel("training samples evaluated")
    axes.set_ylabel("bound (nats per datapoint)")
    axes.grid(which="major", color="0.9", linewidth=0.6)
    axes.legend()
    write_caption(axes, bound_caption(run))
    return figure


def set_limits(axes: Axes, points: list[tuple[float, float]]) -> None:
    """The scales of the bound curve: a steep start may leave it, and a short x axis gets plain numbers."""
    counts, values = torch.tensor(points).double().T
    top = float(values.max())
    bottom = max(float(values.min()), top - 4 * (top - float(values.quantile(0.25))))
    margin = 0.05 * (top - bottom) or 1.0
    axes.set_ylim(bottom - margin, top + margin)
    axes.set_xscale("log")
    if counts.max() < 30 * counts.min():
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


@styled
def samples(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """10 x 10 decoder means at z ~ N(0, I), as in figure 5."""
    z = torch.randn(100, run.model.latent_dim, generator=generator("cpu", seed, "samples"))
    grid = image_grid(run.decode(z), columns=10, padding=1, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title_of(run, "Samples"))
    write_caption(axes, bound_caption(run))
    return figure


@styled
def manifold(run: Run, *, dark_on_white: bool, seed: int) -> Figure:
    """Decoder means over a 2-D latent space, equal prior mass per image and no gaps, as in figure 4."""
    if run.model.latent_dim != 2:
        raise CannotDrawError(f"a manifold needs model.latent_dim = 2, and this run has {run.model.latent_dim}")
    images = decode_manifold(run.decode, MANIFOLD_SIZE)
    grid = image_grid(images, columns=MANIFOLD_SIZE, dark_on_white=dark_on_white)
    figure, axes = figure_for_grid(grid, title_of(run, "Latent manifold"))
    ticks = torch.arange(-1.5, 1.6, 0.5)
    places, labels = torch.special.ndtr(ticks), [nats(tick) for tick in ticks.tolist()]
    axes.set_xticks((places * grid.shape[2]).tolist(), labels)
    axes.set_yticks((places * grid.shape[1]).tolist(), labels)
    axes.set_xlabel("$z_0$")
    axes.set_ylabel("$z_1$", rotation=0)
    write_caption(axes, bound_caption(run))
    return figure


PICTURES: dict[str, Callable[..., Figure]] = {
    "bound_curve": bound_curve,
    "samples": samples,
    "reconstructions": reconstructions,
    "manifold": manifold,
    "latent_scatter": latent_scatter,
    "traversals": traversals,
    "interpolations": interpolations,
}
"""What draws the picture of this name."""
