"""What a picture asks of a run, and what it says when the run cannot give it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vae_lab.data.arrays import Part
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.figures.canvas import nats
from vae_lab.runs.load import Run

INK_ON_BLACK = frozenset({"mnist", "digits"})
"""Data sets of light strokes on a background of 0: printed dark on white, as in the paper."""


class CannotDrawError(ValueError):
    """This picture does not exist for this run; the message says why."""


def dark_on_white_by_default(run: Run) -> bool:
    """Whether to show 1 - x: for the data sets in `INK_ON_BLACK`; all others are shown as stored."""
    return run.data.name in INK_ON_BLACK and run.data.image_shape[0] == 1


def series(run: Run, key: str) -> tuple[list[float], list[float]]:
    """Samples evaluated and values of one column of the curve, where it was measured."""
    rows = [row for row in run.curve if key in row]
    return [row["samples_evaluated"] for row in rows], [row[key] for row in rows]


def require_encoder(run: Run) -> None:
    """Refuses pictures of q(z|x) where there is none."""
    if not run.model.has_encoder:
        raise CannotDrawError("it shows q(z|x), and the run trained no encoder")


def read_test_images(run: Run, limit: int) -> Float[Tensor, "num channel height width"]:
    """The first `limit` test images, or all if there are fewer."""
    return _test_part(run).images[:limit]


def read_test_labels(run: Run, limit: int) -> Int[Tensor, " num"] | None:
    """The labels of `read_test_images(run, limit)`, or None where the data set has none."""
    labels = _test_part(run).labels
    return None if labels is None else labels[:limit]


def _test_part(run: Run) -> Part:
    try:
        return run.data.parts["test"]
    except FileNotFoundError as error:
        raise CannotDrawError(f"it shows test images, and the data set is not here: {error}") from error


def kl_per_dimension(run: Run, x: Float[Tensor, "num channel height width"]) -> Float[Tensor, " latent"]:
    """Mean over x of KL(q(z_j|x) || p(z_j)), in nats, with the very weights that are drawn."""
    with torch.no_grad():
        return torch.cat([kl_to_standard_normal(run.model.posterior(block)) for block in x.split(500)]).mean(0)


def title_of(run: Run, what: str) -> str:
    """What is shown, of which data set, in how many latent dimensions; a long text gets two lines."""
    separator = ": " if len(what) < 40 else "\n"
    return f"{what}{separator}{run.data.name}, $N_z = {run.model.latent_dim}$"


def bound_caption(run: Run) -> str:
    """The bound of the drawn weights, in nats per datapoint, from the ledger of their checkpoint."""
    place = f"{run.checkpoint}.ckpt, {run.samples:,} samples evaluated"
    known = run.metrics.get("samples_evaluated", run.samples) == run.samples  # or of weights that have gone on since
    for split in ("test", "val", "train") if known else ():
        if f"{split}/bound" in run.metrics:
            return f"bound on {split}: {nats(run.metrics[f'{split}/bound'])} nats per datapoint ({place})"
    return f"{place}; bound not measured"
