"""The log p(x) of a data set, measured by an estimator, under the names of the ledger."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vae_lab.estimators.base import Estimator
from vae_lab.measurement import evaluating
from vae_lab.model import VAE


def subset_name(split: str, num_datapoints: int, num_split: int) -> str:
    """`test`, or `test[:100]` for the first 100 datapoints of a larger part."""
    return split if num_datapoints == num_split else f"{split}[:{num_datapoints}]"


def measure_log_likelihood(
    model: VAE,
    images: Float[Tensor, "num channel height width"],
    name: str,
    estimator: Estimator,
    *,
    seed: int,
) -> dict[str, Any]:
    """Nats per datapoint: `<name>/log_likelihood/<estimator>`, `_se`, `_sd`, `_num_datapoints`, `_seed` and `_bias`.

    `_se` is the Monte Carlo error with the data held fixed, `_sd` the spread over datapoints.
    """
    device = next(model.parameters()).device
    with evaluating(model, device, seed, "evaluate"):
        estimate = estimator.estimate(model, images, seed=seed)
    values = estimate.log_likelihood
    key = f"{name}/log_likelihood/{estimator.label}"
    return {
        key: float(values.mean()),
        f"{key}_se": math.sqrt(float(estimate.variance.sum())) / len(values),
        f"{key}_sd": float(values.std(correction=0)),
        f"{key}_num_datapoints": len(values),
        f"{key}_seed": seed,
        f"{key}_bias": estimator.bias,
    }
