"""How likely a trained model finds each image: bound and log p(x), the very numbers whose means `evaluate` reports."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from vae_lab.applications.blocks import Watch, blocks_of
from vae_lab.estimators.base import Estimator
from vae_lab.measurement import bound_of_block, evaluating
from vae_lab.model import VAE
from vae_lab.randomness import NOISE_BLOCK

TERMS = ("bound", "reconstruction", "kl")


@dataclass(frozen=True)
class Scores:
    """What was measured of every image, in nats; float64, on the CPU."""

    log_likelihood: Float[Tensor, " num"]
    standard_error: Float[Tensor, " num"]
    """The Monte Carlo error of log p(x)."""
    beside: Mapping[str, Float[Tensor, " num"]]
    """What else the estimator says: of importance sampling `k_hat` and `ess_share`."""
    bound: Mapping[str, Float[Tensor, " num"]]
    """The bound and its terms by the names in `TERMS`; empty where there is no encoder."""

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a table; what a model without an encoder lacks is left out."""
        first = {"log_likelihood": self.log_likelihood, "standard_error": self.standard_error}
        return {name: values.numpy() for name, values in {**first, **self.beside, **self.bound}.items()}

    def detection(self, is_anomaly: Bool[Tensor, " num"]) -> dict[str, float]:
        """The area under the ROC curve of finding anomalies by -log p(x), -reconstruction and KL: 1/2 is chance."""
        marks = {"-log p(x)": -self.log_likelihood}
        if self.bound:
            marks |= {"-reconstruction": -self.bound["reconstruction"], "KL": self.bound["kl"]}
        return {name: float(roc_auc_score(is_anomaly.numpy(), values.numpy())) for name, values in marks.items()}


def score(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    estimator: Estimator,
    *,
    num_samples: int,
    seed: int,
    watch: Watch = iter,
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
    estimates, bounds = [], []
    for block in watch(blocks_of(len(images))):
        x = images[block].to(device)
        with evaluating(model, device, seed, "evaluate"):
            found = estimator.estimate(model, x, seed=seed, first_index=block.start)
            estimates.append([found.log_likelihood, found.variance, *found.beside.values()])
        if model.has_encoder:
            _, bound = bound_of_block(model, x, block.start // NOISE_BLOCK, num_samples=num_samples, seed=seed)
            bounds.append([part.cpu() for part in (bound.total, bound.reconstruction, bound.kl)])
    log_likelihood, variance, *beside = map(torch.cat, zip(*estimates, strict=True))
    known = dict(zip(estimator.beside, beside, strict=True))
    terms: Iterable[tuple[str, Tensor]] = zip(TERMS, map(torch.cat, zip(*bounds, strict=True)), strict=False)
    return Scores(log_likelihood, variance.sqrt(), known, dict(terms))
