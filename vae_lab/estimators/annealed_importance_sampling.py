"""Annealed importance sampling: from p(z) to p(x, z) by p(z) p(x|z)^beta, with HMC transitions (Neal, 2001).

The product of the weights along a chain is unbiased for p(x), so the log of their mean lies below log p(x) on
average. It needs no encoder, and many small steps keep the weights even where z has many dimensions: the
reference above 4 of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab import hmc
from vae_lab.errors import require_integer
from vae_lab.estimators.base import Estimator, LogMean, Noise, Stream, rows_at_once
from vae_lab.model import VAE, Images, PerDatapoint

_POWER = 4
"""beta = (t/T)^4: steps grow with beta, as the posterior first contracts fast."""


@dataclass(kw_only=True)
class AnnealedImportanceSampling(Estimator):
    """log p(x) from annealed chains.

    A chain that tunes its own step size would spoil the weight's unbiasedness. So the chains of a first pass tune
    one step size for every datapoint and temperature; others, with these frozen, make the estimate.

    Args:
        num_chains: Chains of a datapoint.
        num_temperatures: Steps from prior to joint density.
        num_tuning_chains: Chains of a datapoint in the first pass.
        num_leapfrog: Leapfrog steps of the one transition at each temperature.
        initial_step_size: Leapfrog step at the prior, before tuning.
        target_acceptance: What the step sizes are tuned to.
    """

    needs_encoder = False

    num_chains: int
    num_temperatures: int
    num_tuning_chains: int
    num_leapfrog: int
    initial_step_size: float
    target_acceptance: float

    def __post_init__(self) -> None:
        temperatures, tuning = self.num_temperatures, self.num_tuning_chains
        require_integer("estimator.num_chains", self.num_chains, minimum=2, advice="one chain has no standard error")
        require_integer("estimator.num_temperatures", temperatures, minimum=1, advice="hundreds make even weights")
        require_integer("estimator.num_tuning_chains", tuning, minimum=1, advice="they tune the step sizes")
        hmc.check_settings("estimator", self.num_leapfrog, self.initial_step_size, self.target_acceptance)

    @property
    def label(self) -> str:
        """`annealed_importance_sampling_CxT`: chains x temperatures."""
        return f"annealed_importance_sampling_{self.num_chains}x{self.num_temperatures}"

    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, PerDatapoint]:
        """The log of the mean weight of the chains, and its variance."""
        return self._forward(model, x, noise, self._tune(model, x, noise))

    def _tune(self, model: VAE, x: Images, noise: Noise) -> list[PerDatapoint]:
        """The step size of each temperature, from chains that serve nothing else."""
        tuned = hmc.StepSize(
            torch.full((len(x),), self.initial_step_size).to(x),
            target_acceptance=self.target_acceptance,
            gain=0.5,
            decay=0.0,
        )
        streams = [noise.stream("tuning", chain) for chain in range(self.num_tuning_chains)]
        step_sizes = []
        for _, acceptance in self._anneal(model, x, streams, lambda step: tuned.value):
            step_sizes.append(tuned.value)
            tuned.update(acceptance)
        return step_sizes

    def _forward(
        self, model: VAE, x: Images, noise: Noise, step_sizes: list[Tensor]
    ) -> tuple[PerDatapoint, PerDatapoint]:
        """The log of the mean weight of chains from prior to joint density, and its variance."""
        log_mean = LogMean()
        for streams in self._streams(model, x, noise, "chain"):
            log_weight = torch.zeros(len(streams), len(x)).to(x).double()
            for increment, _ in self._anneal(model, x, streams, step_sizes.__getitem__):
                log_weight += increment
            log_mean.add(log_weight)
        return log_mean.value, log_mean.variance

    def _streams(self, model: VAE, x: Tensor, noise: Noise, purpose: str) -> Iterator[list[Stream]]:
        """A stream for every chain, as many at once as memory holds."""
        at_once = max(1, rows_at_once(model, x.device) // len(x))
        for first in range(0, self.num_chains, at_once):
            chains = range(first, min(first + at_once, self.num_chains))
            yield [noise.stream(purpose, chain) for chain in chains]

    def _log_density(self, model: VAE, x: Tensor, step: int) -> hmc.LogDensity:
        """The sum log p(z) + beta log p(x|z) after so many steps."""
        prior, beta = model.prior(), (step / self.num_temperatures) ** _POWER

        def log_density(z: Tensor) -> Tensor:
            # In float64, so that the difference of two temperatures at one z is not lost in rounding.
            return prior.log_prob(z).double() + beta * model.likelihood(z).log_prob(x).double()

        return log_density

    def _anneal(
        self,
        model: VAE,
        x: Images,
        streams: list[Stream],
        step_size: Callable[[int], Tensor],
    ) -> Iterator[tuple[Float[Tensor, "chain batch"], Float[Tensor, "chain batch"]]]:
        """Takes a chain per stream along the path; yields each step's log weight and acceptance."""
        prior = model.prior()
        position = torch.cat([stream.normal(1, model.latent_dim) for stream in streams])
        reached = prior.log_prob(position).double()
        for step in range(self.num_temperatures):
            log_density = self._log_density(model, x, step + 1)
            state = hmc.start(log_density, position)
            increment = state.log_density - reached
            state, acceptance = self._move(model, log_density, state, step_size(step), streams)
            position, reached = state.position, state.log_density
            yield increment, acceptance

    def _move(
        self, model: VAE, log_density: hmc.LogDensity, state: hmc.State, step_size: Tensor, streams: list[Stream]
    ) -> tuple[hmc.State, Float[Tensor, "chain batch"]]:
        """One transition of a chain per stream."""
        momentum = torch.cat([stream.normal(1, model.latent_dim) for stream in streams])
        uniform = torch.cat([stream.uniform(1) for stream in streams])
        return hmc.transition(log_density, state, step_size, self.num_leapfrog, momentum, uniform)
