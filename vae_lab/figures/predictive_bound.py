"""The predictive bound E_q(theta)[ELBO(x; theta)]: the bound of a model whose parameters have a posterior.

By Jensen it bounds log E_q(theta)[p_theta(x)], the log density that q(theta) predicts with. The bound with the
posterior mean in the place of theta does not: it knows nothing of the spread. Where the parameters have no
posterior, the predictive bound is the bound.
"""

import math
import statistics

from jaxtyping import Float
from torch import Tensor

from vae_lab.measurement import evaluating, measure_bound, summarise
from vae_lab.model import VAE
from vae_lab.objectives.base import Objective
from vae_lab.randomness import derived_seed


def measure_predictive_bound(
    model: VAE,
    objective: Objective,
    images: Float[Tensor, "num channel height width"],
    *,
    num_draws: int,
    seed: int,
) -> tuple[float, float]:
    """The mean over draws of theta, in nats per datapoint, and its Monte Carlo standard error with the data held fixed.

    Every draw is one theta for all images, with one z each; every draw of z counts also where theta does not vary.
    """
    bounds = []
    for draw in range(num_draws):
        with evaluating(model, images.device, seed, "parameters", draw):
            drawn = objective.predictive_model(model)
        sums = measure_bound(drawn, images, num_samples=1, seed=derived_seed(seed, "predictive", draw))
        bounds.append(summarise(sums, num_samples=1)["bound"])
    return statistics.fmean(bounds), statistics.stdev(bounds) / math.sqrt(num_draws)
