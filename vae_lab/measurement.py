"""The bound of a whole data set, measured: streamed, counted once per datapoint, summed in float64."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_lab.distributions import DiagonalGaussian
from vae_lab.elbo import Bound, sgvb_b
from vae_lab.errors import require_memory
from vae_lab.estimators.base import Estimator, settings_of
from vae_lab.model import VAE, Images
from vae_lab.randomness import NOISE_BLOCK, seed_global_noise

ACTIVE_UNIT_VARIANCE = 0.01
"""A latent dimension is active where the variance over x of its posterior mean exceeds this (Burda et al., 2016)."""


def require_draws(key: str, num_samples: int, num_datapoints: int, model: VAE) -> None:
    """Refuses so many draws of z at once that the images decoded from them would not fit into memory.

    Raises:
        ConfigError: naming the key.
    """
    pixels = num_samples * num_datapoints * math.prod(model.image_shape)
    require_memory(f"{key}={num_samples}", pixels * torch.float32.itemsize, "choose fewer draws")


def measure_bound(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    *,
    num_samples: int,
    seed: int,
    rank: int = 0,
    num_ranks: int = 1,
) -> Float[Tensor, " sums"]:
    """Sums over the datapoints of everything that `summarise` needs; SGVB estimator B with `num_samples` draws.

    The noise of a datapoint depends on (seed, its index) only; with a single draw, that of the last 16 numbers of a
    last block that is not full also on where it ends, as it always has. With several ranks each takes every
    `num_ranks`-th block of datapoints, and the sum of the ranks' results is the whole. Leaves the global random state
    as it was.
    """
    sums = torch.zeros(5 + 3 * model.latent_dim, dtype=torch.float64, device=images.device)
    for block in range(rank, math.ceil(len(images) / NOISE_BLOCK), num_ranks):
        x = images[block * NOISE_BLOCK : (block + 1) * NOISE_BLOCK]
        posterior, bound = bound_of_block(model, x, block, num_samples=num_samples, seed=seed)
        mean, total = posterior.mean.double(), bound.total
        # the Monte Carlo variance of each datapoint's mean over its draws; a single draw does not show it
        spread = bound.log_likelihood.var(0) / num_samples if num_samples > 1 else torch.zeros_like(total)
        scalars = [total, total.square(), bound.reconstruction, spread, torch.ones_like(total)]
        per_dimension = [bound.kl_terms.sum(0), mean.sum(0), mean.square().sum(0)]
        sums += torch.cat([torch.stack([scalar.sum() for scalar in scalars]), *per_dimension])
    return sums


def bound_of_block(model: VAE, x: Images, block: int, *, num_samples: int, seed: int) -> tuple[DiagonalGaussian, Bound]:
    """The posterior and the bound, in float64, of the datapoints of one block, or of the first so many of them."""
    with evaluating(model, x.device, seed, "bound", block):
        posterior = model.posterior(x)
        noise = None
        if num_samples > 1:  # for the whole block, or the second draw would begin where the datapoints end
            shape = (num_samples, NOISE_BLOCK, model.latent_dim)
            noise = torch.randn(shape, dtype=posterior.mean.dtype, device=x.device)[:, : len(x)]
        return posterior, sgvb_b(model, x, num_samples, posterior=posterior, noise=noise).double()


def summarise(sums: Float[Tensor, " sums"], *, num_samples: int) -> dict[str, Any]:
    """The ledger's entries of one split, in nats per datapoint, from the sums of `measure_bound`.

    `bound_sd` is the spread over datapoints, `bound_se` the Monte Carlo error with the data held fixed (absent for
    a single draw per datapoint).
    """
    bound, squared, reconstruction, spread, num = sums[:5].tolist()
    kl, mean, mean_squared = sums[5:].view(3, -1) / num
    entries: dict[str, Any] = {
        "bound": bound / num,
        "bound_sd": math.sqrt(max(0.0, squared / num - (bound / num) ** 2)),
        "reconstruction": reconstruction / num,
        "kl": float(kl.sum()),
        "kl_per_dimension": kl.tolist(),
        "active_units": int((mean_squared - mean.square() > ACTIVE_UNIT_VARIANCE).sum()),
        "num_datapoints": round(num),
    }
    if num_samples > 1:
        entries["bound_se"] = math.sqrt(spread) / num
    return entries


@contextmanager
def evaluating(model: nn.Module, device: torch.device, *noise: int | str) -> Iterator[None]:
    """Evaluation mode, no gradients, noise named by `noise`; on leaving, mode and random state are as before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_global_noise(device, *noise)
            yield
    finally:
        model.train(was_training)


def subset_name(split: str, num_datapoints: int, num_split: int) -> str:
    """`test`, or `test[:100]` for the first 100 datapoints of a larger split."""
    return split if num_datapoints == num_split else f"{split}[:{num_datapoints}]"


def measure_log_likelihood(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    name: str,
    estimator: Estimator,
    *,
    seed: int,
) -> dict[str, Any]:
    """Nats per datapoint: `<name>/log_likelihood/<estimator>`, and `_se`, `_sd`, ... beside it.

    `_se` is the Monte Carlo error with the data held fixed, `_sd` the spread over datapoints; `_num_datapoints`,
    `_seed` and `_settings` say what was asked for, `_bias` on which side of log p(x) the value lies on average. An
    estimator's `summary` may say more: importance sampling's `_ess_share` and `_high_k_hat`.
    """
    device = next(model.parameters()).device
    with evaluating(model, device, seed, "evaluate"):
        estimate = estimator.estimate(model, images, seed=seed)
    values = estimate.log_likelihood
    key = f"{name}/{estimator.quantity}/{estimator.label}"
    return {
        key: float(values.mean()),
        **{f"{key}{ending}": value for ending, value in estimator.summary(estimate).items()},
        f"{key}_sd": float(values.std(correction=0)),
        f"{key}_num_datapoints": len(values),
        f"{key}_seed": seed,
        f"{key}_settings": settings_of(estimator),
        f"{key}_bias": estimator.bias,
    }
