"""Images from a trained model: z from the prior or from the aggregate posterior, decoded block by block."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.mixture import GaussianMixture
from torch import Tensor

from vae_lab.applications.blocks import Watch, blocks_of
from vae_lab.errors import ConfigError
from vae_lab.measurement import evaluating
from vae_lab.model import VAE
from vae_lab.randomness import derived_seed

COMPONENTS = (1, 2, 5, 10, 20, 50)
"""Numbers of components among which BIC chooses."""
FITTED = 10_000
"""Images, at most, that the aggregate posterior is fitted to."""


def prior_latents(model: VAE, num: int, *, seed: int) -> Float[Tensor, "num latent"]:
    """Draws z ~ N(0, I), those of `Run.sample`."""
    like = next(model.parameters())
    with evaluating(model, torch.device("cpu"), seed, "sample"):
        return torch.randn(num, model.latent_dim, dtype=like.dtype).to(like.device)


def fit_aggregate(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    *,
    num_components: int | None,
    seed: int,
    watch: Watch = iter,
) -> GaussianMixture:
    """A Gaussian mixture for the aggregate posterior, the mean of q(z|x) over x: fitted to a draw of z for each image.

    Args:
        model: with an encoder.
        images: of which the first 10,000 are taken.
        num_components: of the mixture; None: of `COMPONENTS` the one with the smallest BIC, up to the first rise.
        seed: of the draws and of the fit's start.
        watch: goes through the fits.
    """
    like = next(model.parameters())
    z = []
    for block in blocks_of(min(FITTED, len(images))):
        with evaluating(model, like.device, seed, "aggregate", block.start):
            z.append(model.posterior(images[block].to(like)).sample().double().cpu())
    points = torch.cat(z).numpy()
    choices = (num_components,) if num_components else tuple(k for k in COMPONENTS if k <= max(1, len(points) // 10))
    if num_components is not None and num_components > len(points):
        raise ConfigError(f"components must be <= {len(points)}, got {num_components}: so many images are fitted to")
    start, best, least = derived_seed(seed, "mixture") % 2**32, None, np.inf
    for count in watch(choices):
        mixture = GaussianMixture(count, max_iter=1000, random_state=start).fit(points)
        if (criterion := mixture.bic(points)) >= least:
            break
        best, least = mixture, criterion
    assert best is not None
    return best


def mixture_latents(mixture: GaussianMixture, model: VAE, num: int, *, seed: int) -> Float[Tensor, "num latent"]:
    """Draws z from a mixture, in random order."""
    noise = np.random.default_rng(derived_seed(seed, "sample", "mixture"))
    fitted: Any = mixture
    component = noise.choice(len(fitted.weights_), num, p=fitted.weights_)
    factors = np.linalg.cholesky(fitted.covariances_)
    normal = noise.standard_normal((num, model.latent_dim))
    z = fitted.means_[component] + np.einsum("nij,nj->ni", factors[component], normal)
    return torch.from_numpy(z).to(next(model.parameters()))


def decoded(
    model: VAE,
    z: Float[Tensor, "num latent"],
    *,
    draw: Literal["mean", "pixels"],
    seed: int,
    watch: Watch = iter,
) -> Iterator[Float[Tensor, "block channel height width"]]:
    """Images at z, some at a time, on the CPU: the likelihood's mean E[x|z], or a draw x ~ p(x|z).

    The noise of a draw depends on the seed and on the place of its z.
    """
    for block in watch(blocks_of(len(z))):
        with evaluating(model, z.device, seed, "sample", "pixels", block.start):
            likelihood = model.likelihood(z[block])
            x = likelihood.mean if draw == "mean" else likelihood.sample()
        yield x.cpu()
