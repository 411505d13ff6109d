"""What the page of `vae-lab explore` knows: networks as plain operations with weights, test images and their means.

The page computes all else, by an interpreter of its own of `traced`'s operations. What it holds beside the weights
stays below 1 MB.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab.applications.encoding import encode
from vae_lab.applications.parameters import Parameters, likelihood_of
from vae_lab.applications.traced import in_base64, traced
from vae_lab.data.arrays import Split, is_binary
from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian
from vae_lab.errors import ConfigError, RunError
from vae_lab.estimators.grids import MOMENT_NODES, PATH, PRIOR_NODES, WIDENING, Grid, gauss_hermite, prior_midpoints
from vae_lab.figures.run_pictures import bound_caption, dark_on_white_by_default
from vae_lab.measurement import ACTIVE_UNIT_VARIANCE
from vae_lab.model import VAE
from vae_lab.randomness import generator
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import Run

log = logging.getLogger("vae_lab")

MOST_BYTES = 880_000
"""The most bytes of pictures and points; the page itself and the operations of the networks take the rest of 1 MB."""
PIXEL = 1 / 255
"""The largest change of a decoded pixel that weights kept as float16 may cause."""
EXPECTATION_NODES = {1: 32, 2: 10}
"""Nodes a dimension of the quadrature over q(z|x); where there are more dimensions, draws of z are taken."""
INTEGRAL_NODES = 20
"""Nodes a dimension of the integral log p(x), as in `estimator=quadrature`."""
PARAMETERS = {Bernoulli: ("logits",), ContinuousBernoulli: ("logits",), DiagonalGaussian: ("mean", "log_variance")}
"""The densities of pixels that the page knows, each with the parameters that a decoder gives."""
BLOCK = 250
"""Datapoints that are decoded at once."""


@dataclass(frozen=True)
class Frame:
    """The model at one of its checkpoints."""

    run: Run
    split: Split

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The type in which the weights of each network are kept: float16 where that changes no pixel visibly."""
        model, kinds = self.run.model, {}
        means = self.means(model)
        for network in ("decoder", *(["encoder"] if model.has_encoder else [])):
            other = with_weights(model, {network: "float16"})
            z = (means, means) if network == "decoder" else (means, self.means(other))
            is_same = largest_change((model, other if network == "decoder" else model), z) <= PIXEL
            kinds[network] = "float16" if is_same else "float32"
        return kinds

    @cached_property
    def model(self) -> VAE:
        """The model with the weights that the page has."""
        return with_weights(self.run.model, self.kinds)

    @property
    def num_bytes(self) -> float:
        """How many bytes the weights take in the page."""
        sizes = {"float16": 2, "float32": 4}
        numbers = {name: sum(p.numel() for p in getattr(self.model, name).parameters()) for name in self.kinds}
        return sum(4 / 3 * sizes[kind] * numbers[name] for name, kind in self.kinds.items())

    @torch.no_grad()
    def means(self, model: VAE) -> Float[Tensor, "num latent"]:
        """Posterior means of the split's images; where there is no encoder, draws from the prior."""
        if not model.has_encoder:
            return torch.randn(BLOCK, model.latent_dim, generator=generator("cpu", 0, "explore"))
        return encode(model, self.split.images).mean

    @torch.no_grad()
    def facts(self, num_points: int) -> dict[str, Any]:
        """Everything about it, as plain values."""
        model, what = self.model, self.run.path
        z, decoder = torch.zeros(1, model.latent_dim), Parameters(model, "likelihood", PARAMETERS[density_of(model)])
        facts = {
            "samples": self.run.samples,
            "checkpoint": self.run.checkpoint,
            "kinds": self.kinds,
            "decoder": traced(decoder, z, f"{what}: the decoder").plain,
        }
        if not model.has_encoder:
            return facts | {"encoder": None, "points": None, "kl": None, "active": [True] * model.latent_dim}
        found, encoder = encode(model, self.split.images), Parameters(model, "posterior", PARAMETERS[DiagonalGaussian])
        return facts | {
            "encoder": traced(encoder, self.split.images[:1], f"{what}: the encoder").plain,
            "points": in_base64(torch.special.ndtr(found.mean[:num_points].double()) * 65535, np.uint16),
            "kl": found.kl_per_dimension.mean(0).tolist(),
            "active": (found.mean.var(0, correction=0) > ACTIVE_UNIT_VARIANCE).tolist(),
        }


def with_weights(model: VAE, kinds: Mapping[str, str]) -> VAE:
    """A copy of the model, the weights of its networks rounded to these types."""
    rounded = copy.deepcopy(model)
    for network, kind in kinds.items():
        getattr(rounded, network).to(getattr(torch, kind)).float()
    return rounded


@torch.no_grad()
def largest_change(models: tuple[VAE, VAE], z: tuple[Tensor, Tensor]) -> float:
    """The largest difference of a pixel that two models decode, each at its z; infinite for no number."""
    changes = []
    for pair in zip(*(each.split(BLOCK) for each in z), strict=True):
        one, other = (model.likelihood(some).mean for model, some in zip(models, pair, strict=True))
        changes.append((one - other).abs().max())
    return float(torch.stack(changes).nan_to_num(math.inf).max())


def density_of(model: VAE) -> type:
    """The class of p(x|z)."""
    return type(likelihood_of(model))


def require_comparable(runs: Sequence[Run]) -> None:
    """Refuses more than two runs, and two that can share no z or no test image.

    Raises:
        RunError: saying in what they differ.
    """
    if len(runs) > 2:
        raise RunError(f"run must name one run, or two to stand side by side, got {len(runs)}")
    shared = [
        {
            "model.latent_dim": run.model.latent_dim,
            "image shape": list(run.model.image_shape),
            "data": run.data.name,
            "scale": run.data.scale,
            "binarization": run.data.binarization,
            "split": run.data.split_hash,
        }
        for run in runs
    ]
    for name, value in shared[0].items():
        if (other := shared[-1][name]) != value:
            raise RunError(
                f"run={runs[0].path},{runs[-1].path} must have the same z and test images to stand side by side, and "
                f"have {name} {value} and {other}: make a page of each"
            )


def explorer(
    runs: Sequence[Run],
    names: Sequence[str],
    *,
    split: str,
    num_images: int,
    num_points: int,
    num_samples: int,
    film_bytes: int,
    seed: int,
) -> dict[str, Any]:
    """Everything that the page knows, as plain values.

    Args:
        runs: one, or two that stand side by side.
        names: what tells these apart.
        split: whose images are shown.
        num_images: so many of them at most.
        num_points: so many posterior means at most.
        num_samples: draws of z for the reconstruction, where there are more than two dimensions.
        film_bytes: what the weights of a run's snapshots take at most.
        seed: of these draws.

    Raises:
        ConfigError: the page cannot compute a network, or p(x|z).
        RunError: two runs cannot stand side by side.
    """
    require_comparable(runs)
    for run in runs:
        if (density := density_of(run.model)) not in PARAMETERS:
            known = ", ".join(kind.__name__ for kind in PARAMETERS)
            raise ConfigError(f"{run.path}: p(x|z) must be of {known}, got {density.__name__}: the page knows no other")
    data, shown, dim = runs[0].data, runs[0].data.measured(split), runs[0].model.latent_dim
    films = [film(run, shown, film_bytes) for run in runs]
    images = pictures(shown, num_images)
    per_point = 4 / 3 * (2 * dim * sum(map(len, films)) + 2)
    num_points = min(num_points, len(shown), int((MOST_BYTES - len(images["pixels"])) / per_point))
    labels = None if shown.labels is None else shown.labels[: max(num_points, images["num"])]
    present = [] if labels is None else labels.unique().tolist()
    class_names = dict(enumerate(data.class_names))
    return {
        "shape": list(runs[0].model.image_shape),
        "latent_dim": dim,
        "data": data.name,
        "split": split,
        "is_ink": dark_on_white_by_default(runs[0]),
        "is_binary": is_binary(shown.images),
        "images": images,
        "classes": [str(class_names.get(label, label)) for label in present],
        "labels": labels if labels is None else in_base64(torch.bucketize(labels, torch.tensor(present)), np.uint16),
        "num_points": num_points,
        "expectation": expectation(dim, num_samples, seed),
        "integral": integral(dim),
        "models": [
            {
                "name": name,
                "path": str(run.path),
                "density": density_of(run.model).__name__,
                "caption": bound_caption(run),
                "frames": [frame.facts(num_points) for frame in frames],
            }
            for run, name, frames in zip(runs, names, films, strict=True)
        ],
    }


def film(run: Run, split: Split, film_bytes: int) -> list[Frame]:
    """The run at its snapshots, evenly chosen, so many as their weights take no more than this; at last as it is."""
    last = Frame(run, split)
    counts = [count for count in RunDir(run.path).snapshots if count < run.samples]
    num = min(len(counts), int(film_bytes / last.num_bytes))
    if num < len(counts):
        megabytes = math.ceil(len(counts) * last.num_bytes / 1e6)
        log.warning(
            "%s: %d of %d snapshots, for room; film_megabytes=%d takes all", run.path, num, len(counts), megabytes
        )
    chosen = np.linspace(0, len(counts) - 1, num).round().astype(int)
    return [*(Frame(run.at(counts[place]), split) for place in chosen), last]


def pictures(split: Split, limit: int) -> dict[str, Any]:
    """The first images of a split, such as take half the room: bytes and their divisor, or the very numbers."""
    x = split.images
    levels = next((num for num in (255, 256, 16) if is_on_levels(x, num)), None)
    kind = np.float32 if levels is None else np.uint8
    num = min(limit, len(x), int(MOST_BYTES / 2 / (4 / 3 * x[0].numel() * kind().itemsize)))
    return {"num": num, "levels": levels, "pixels": in_base64(x[:num] * (levels or 1), kind)}


def is_on_levels(x: Tensor, num: int) -> bool:
    """Whether all values are some of 0, 1/num, ..., 255/num, but for rounding."""
    return bool((x * num <= 255.5).all() and (x * num - (x * num).round()).abs().max() < 1e-4)


def expectation(dim: int, num_samples: int, seed: int) -> dict[str, Any]:
    """What stands for draws from N(0, I) in the page: a grid of nodes a dimension, or draws [draw, latent]."""
    if dim in EXPECTATION_NODES:
        return {"grid": in_one_dimension(gauss_hermite(EXPECTATION_NODES[dim], 1))}
    noise = torch.randn(num_samples, dim, generator=generator("cpu", seed, "explore"))
    return {"draws": in_base64(noise, np.float32)}


def integral(dim: int) -> dict[str, Any] | None:
    """The grids by which the page integrates over z, as `estimator=quadrature` does; None where that is too much."""
    if dim not in EXPECTATION_NODES:
        return None
    return {
        "path": PATH,
        "widening": WIDENING,
        "prior": in_one_dimension(prior_midpoints(PRIOR_NODES[dim], 1)),
        "moments": in_one_dimension(gauss_hermite(MOMENT_NODES[dim], 1)),
        "fine": in_one_dimension(gauss_hermite(INTEGRAL_NODES, 1)),
        "coarse": in_one_dimension(gauss_hermite(INTEGRAL_NODES // 2, 1)),
    }


def in_one_dimension(grid: Grid) -> dict[str, list[float]]:
    """A grid of one dimension, as plain numbers."""
    return {"nodes": grid[0].flatten().tolist(), "log_weights": grid[1].tolist()}
