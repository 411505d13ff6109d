"""What models without a network score, in nats: the yardstick for what latent variable and network are worth.

Independent pixels have no latent variable; probabilistic PCA (Tipping and Bishop, 1999) and factor analysis have a
linear decoder. All are fitted to the train split, by maximum likelihood as far as it exists.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from vae_lab.data.arrays import ImageData
from vae_lab.distributions import Bernoulli, ContinuousBernoulli, DiagonalGaussian, Distribution
from vae_lab.measurement import evaluating
from vae_lab.model import VAE

LogDensity = Callable[[Tensor], Tensor]
"""[batch, channel, height, width] in float64 -> [batch], in nats."""
CHUNK = 2000
"""Images whose densities are computed at once."""


def kind_of_likelihood(model: VAE) -> type[Distribution] | None:
    """The kind of density that a model's pixels have, where there are baselines for it."""
    device = next(model.parameters()).device
    with evaluating(model, device, 0, "baseline"):
        found = model.likelihood(model.prior().mean.expand(2, -1))  # BatchNorm that ignores eval() refuses a single z
    return next((kind for kind in (Bernoulli, ContinuousBernoulli, DiagonalGaussian) if isinstance(found, kind)), None)


def measure_baselines(
    data: ImageData, images: Float[Tensor, "num channel height width"], kind: type[Distribution], latent_dim: int
) -> dict[str, float]:
    """The mean log density of images by every baseline, by its key in the ledger.

    Args:
        data: whose train split they are fitted to.
        images: of one of its splits.
        kind: of the density of the pixels.
        latent_dim: of those with a latent variable.
    """
    return {
        f"baseline/{name}": sum(float(density(x.double()).sum()) for x in images.split(CHUNK)) / len(images)
        for name, density in fitted(data, kind, latent_dim).items()
    }


@lru_cache(maxsize=1)  # the splits of a run are measured one after the other
def fitted(data: ImageData, kind: type[Distribution], latent_dim: int) -> dict[str, LogDensity]:
    """The baselines by name; those with a latent variable for Gaussian pixels, where z is smaller than the data are."""
    images = data.measured("train").images
    if kind in (Bernoulli, ContinuousBernoulli):
        # the rule of succession: a pixel that is black in all of train may be white in another image
        mean = (images.sum(0, dtype=torch.float64) + 1) / (len(images) + 2)
        if kind is Bernoulli:
            return {"independent_pixels": Bernoulli(mean.logit(), event_dims=3).log_prob}
        return {"independent_pixels": ContinuousBernoulli(ContinuousBernoulli.logits_of(mean), event_dims=3).log_prob}
    least = 1 / (12 * data.divisor**2)  # what rounding to stored values leaves: all that a constant pixel shows
    variance, mean = torch.var_mean(images.double(), 0, correction=0)
    pixels = DiagonalGaussian(mean, variance.clamp(min=least).log(), event_dims=3)
    densities: dict[str, LogDensity] = {"independent_pixels": pixels.log_prob}
    if latent_dim < min(mean.numel(), len(images) - 1):
        from sklearn.decomposition import PCA, FactorAnalysis

        flat = images.flatten(1).double().numpy()
        pca = PCA(latent_dim, random_state=0).fit(flat)
        share = 1 - 1 / len(flat)  # scikit-learn divides by N - 1, maximum likelihood by N
        loadings = pca.components_ * np.sqrt(share * (pca.explained_variance_ - pca.noise_variance_))[:, None]
        noise = np.full(flat.shape[1], share * pca.noise_variance_)
        densities["probabilistic_pca"] = linear_gaussian(mean, loadings, noise, least)
        analysis = FactorAnalysis(latent_dim, random_state=0).fit(flat)
        densities["factor_analysis"] = linear_gaussian(mean, analysis.components_, analysis.noise_variance_, least)
    return densities


def linear_gaussian(mean: Tensor, loadings: np.ndarray, noise: np.ndarray, least: float) -> LogDensity:
    """The density of x = mean + loadings^T z + noise, z ~ N(0, I); the noise has variances of at least `least`."""
    factor, diagonal = torch.from_numpy(loadings).T, torch.from_numpy(noise).clamp(min=least)
    density = LowRankMultivariateNormal(mean.flatten(), factor, diagonal)
    return lambda x: density.log_prob(x.flatten(1))
