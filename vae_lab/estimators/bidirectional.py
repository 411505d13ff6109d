"""Bidirectional Monte Carlo: log p(x) between two bounds, on data that the model itself makes (Grosse et al., 2015).

Of a simulated x the z that it was made from is known, and that is an exact draw from p(z|x). Annealed chains from the
prior give a p(x) that is unbiased, whose logarithm lies below on average; chains that start at this z and go the same
way back give an unbiased 1/p(x), and with it an upper bound. Between the two is the truth: the gap bounds the error of
the annealed chains on this model, and whatever else is measured on such data can be held against it. It says nothing of
data that the model would not make.
"""

import math

import torch

from vae_lab import hmc
from vae_lab.estimators.annealed_importance_sampling import AnnealedImportanceSampling
from vae_lab.estimators.base import Estimate, LogMean, Noise
from vae_lab.model import VAE, Images, PerDatapoint


class Bidirectional(AnnealedImportanceSampling):
    """Lower and upper bounds of log p(x) of images drawn from the model, one for every image that is given.

    The images given decide the number of those drawn and nothing else. Its arguments are those of annealed importance
    sampling; as many chains go back as forth, by the same step sizes.
    """

    beside = ("upper",)
    quantity = "simulated_log_likelihood"

    @property
    def label(self) -> str:
        """`bidirectional_CxT`: chains x temperatures, each way."""
        return f"bidirectional_{self.num_chains}x{self.num_temperatures}"

    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, ...]:
        """The lower bound, its variance, and the upper bound."""
        z, x = noise.simulated(model)
        step_sizes = self._tune(model, x, noise)
        log_mean = LogMean()
        for streams in self._streams(model, x, noise, "back"):
            log_weight = torch.zeros(len(streams), len(x)).to(x).double()
            state = hmc.start(self._log_density(model, x, self.num_temperatures), z.expand(len(streams), *z.shape))
            for step in reversed(range(self.num_temperatures)):
                density = self._log_density(model, x, step + 1)
                state, _ = self._move(model, density, state, step_sizes[step], streams)
                colder = hmc.start(self._log_density(model, x, step), state.position)
                log_weight += colder.log_density - state.log_density
                state = colder
            log_mean.add(log_weight)
        return *self._forward(model, x, noise, step_sizes), -log_mean.value

    def summary(self, estimate: Estimate) -> dict[str, float]:
        """What is added: the mean upper bound and the mean gap between the two.

        The chains back share their start, so their spread tells no error. That of the gap is taken from the simulated
        datapoints: it is the error of the mean over all that the model makes.
        """
        upper, num = estimate.beside["upper"], len(estimate.log_likelihood)
        gap = upper - estimate.log_likelihood
        error = {"_gap_se": float(gap.std()) / math.sqrt(num)} if num > 1 else {}
        return super().summary(estimate) | {"_upper": float(upper.mean()), "_gap": float(gap.mean())} | error
