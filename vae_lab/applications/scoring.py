"""How likely a trained model finds each image: bound and log p(x), the very numbers whose means `evaluate` reports."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from vae_lab.applications.blocks import Watch, blocks_of, unwatched
from vae_lab.estimators.base import Estimator
from vae_lab.measurement import bound_of_block, evaluating
from vae_lab.model import VAE
from vae_lab.randomness import NOISE_BLOCK


@dataclass(frozen=True)
class Scores:
    """What was measured of every image, in nats; float64, on the CPU."""

    log_likelihood: Float[Tensor, " num"]
    standard_error: Float[Tensor, " num"]
    """The Monte Carlo error of log p(x)."""
    beside: Mapping[str, Float[Tensor, " num"]]
    """What else the estimator says: of importance sampling `k_hat` and `ess_share`."""
    bound: Float[Tensor, " num"] | None
    reconstruction: Float[Tensor, " num"] | None
    kl: Float[Tensor, " num"] | None
    """The bound and its terms, where there is an encoder."""

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table; what a model without an encoder lacks is left out."""
        first = {"log_likelihood": self.log_likelihood, "standard_error": self.standard_error, **self.beside}
        terms = {"bound": self.bound, "reconstruction": self.reconstruction, "kl": self.kl}
        return {name: values.numpy() for name, values in (first | terms).items() if values is not None}

    def detection(self, is_anomaly: Bool[Tensor, " num"]) -> dict[str, float]:
        """The area under the ROC curve of finding anomalies by -log p(x), -reconstruction and KL: 1/2 is chance."""
        marks = {"log p(x)": self.log_likelihood, "reconstruction": self.reconstruction}
        marks = {f"-{name}": -values for name, values in marks.items() if values is not None}
        marks |= {} if self.kl is None else {"KL": self.kl}
        return {name: float(roc_auc_score(is_anomaly.numpy(), values.numpy())) for name, values in marks.items()}


def score(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    estimator: Estimator,
    *,
    num_samples: int,
    seed: int,
    watch: Watch = unwatched,
) -> Scores:
    """Bound and log p(x) of images, with the noise that `evaluate` gives to equal places and seeds.

    Args:
        model: on the device that computes.
        images: in the order of the split, from its first on.
        estimator: of log p(x).
        num_samples: draws of z per image for the bound.
        seed: of the noise.
        watch: goes through blocks of images.
    """
    device = next(model.parameters()).device
    estimates, terms = [], []
    for block in watch(blocks_of(len(images))):
        x = images[block].to(device)
        with evaluating(model, device, seed, "evaluate"):
            found = estimator.estimate(model, x, seed=seed, first_index=block.start)
            estimates.append([found.log_likelihood, found.variance, *found.beside.values()])
        if model.has_encoder:
            _, bound = bound_of_block(model, x, block.start // NOISE_BLOCK, num_samples=num_samples, seed=seed)
            terms.append([bound.total.cpu(), bound.reconstruction.cpu(), bound.kl.cpu()])
    log_likelihood, variance, *beside = map(torch.cat, zip(*estimates, strict=True))
    total, reconstruction, kl = map(torch.cat, zip(*terms, strict=True)) if terms else (None, None, None)
    known = dict(zip(estimator.beside, beside, strict=True))
    return Scores(log_likelihood, variance.sqrt(), known, total, reconstruction, kl)
