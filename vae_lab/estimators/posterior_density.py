"""The paper's estimator for low-dimensional z (appendix D): HMC samples of p(z|x), a density fitted to them.

1. Draw samples of z from p(z|x) by HMC. 2. Fit a density q(z) to them. 3. Draw *new* samples z_l from p(z|x):
p(x) ~ (1/L sum q(z_l) / p(x, z_l))^-1.

Unbiased for 1/p(x) only where the samples plugged in are draws from p(z|x) that are independent of those fitted; then
log p(x) is biased *upwards*, for large L by half of the stated variance. Here, as in the author's code, they come from
one chain a datapoint, which starts from the prior: the first half of its samples is fitted, the second half plugged in.
They are not independent, and nearly so for a chain that moves well.
A chain that keeps to some peaks of p(z|x) gives p(x) times their share of it: log p(x) is then biased *downwards*, by
ln 2 for one of two equal peaks, by more for a minor one, hence `num_starts`. The stated error is of what the chain has
seen and does not cover this. Nor does it tell where q is too far from p(z|x): more than 4 dimensions, or too few
samples for theirs, are refused. q is a Gaussian kernel density, whose bandwidth is tuned, here by leave-one-out
likelihood.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_lab import hmc
from vae_lab.elbo import log_mean_exp
from vae_lab.errors import ConfigError, require_integer
from vae_lab.estimators.base import Estimator, Noise
from vae_lab.model import VAE, Images, Latents, PerDatapoint

_BANDWIDTHS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.85, 1.0)
_SMALLEST_SCALE = 1e-3
"""Any q gives an unbiased 1/p(x), if it does not depend on what is plugged in: so a chain that never moved has one too,
1/1000 of the prior wide."""
_PAIRS_AT_ONCE = 2**21
_LEAST_SAMPLES = {1: 8, 2: 16, 3: 50, 4: 50}
"""Latent dimensions -> samples with which the fitted density was found to be near enough."""


@dataclass(kw_only=True)
class PosteriorDensity(Estimator):
    """log p(x) from HMC samples of p(z|x) and a density fitted to them.

    Args:
        num_samples: Samples of p(z|x), the first half fitted, the second half plugged in.
        num_starts: A chain starts from one of so many prior draws, by likelihood; 1 in the author's code.
        burn_in: Transitions before the first sample.
        num_leapfrog: Leapfrog steps of a transition.
        initial_step_size: Leapfrog step that each datapoint's chain begins with; tuned until the second half.
        target_acceptance: What it is tuned to.
    """

    needs_encoder = False
    bias = "either way"

    num_samples: int
    num_starts: int
    burn_in: int
    num_leapfrog: int
    initial_step_size: float
    target_acceptance: float

    def __post_init__(self) -> None:
        advice = "a density is fitted to half of them, and the other half must tell its error; the paper takes 50"
        require_integer("estimator.num_samples", self.num_samples, minimum=8, advice=advice)
        require_integer("estimator.num_starts", self.num_starts, minimum=1, advice="a chain starts from a draw")
        require_integer("estimator.burn_in", self.burn_in, minimum=0, advice="it counts transitions")
        hmc.check_settings("estimator", self.num_leapfrog, self.initial_step_size, self.target_acceptance)

    @property
    def label(self) -> str:
        """`posterior_density_L`."""
        return f"posterior_density_{self.num_samples}"

    def check(self, model: VAE) -> None:
        """Refuses more than 4 latent dimensions, and too few samples for those that there are."""
        dim = model.latent_dim
        if dim not in _LEAST_SAMPLES:
            raise ConfigError(
                f"model.latent_dim must be <= {max(_LEAST_SAMPLES)} for estimator=posterior_density, got {dim}: a "
                "density fitted in more dimensions is nats away; use (annealed_)importance_sampling"
            )
        least = _LEAST_SAMPLES[dim]
        advice = f"with fewer the density fitted in {dim} dimensions is nats away, and no error tells"
        require_integer("estimator.num_samples", self.num_samples, minimum=least, advice=advice)

    def estimate_batch(self, model: VAE, x: Images, noise: Noise) -> tuple[PerDatapoint, PerDatapoint]:
        """Minus the log of the mean of q / p(x, z), and its variance."""
        positions, log_joint = self._sample_posterior(model, x, noise)
        half = self.num_samples // 2
        at_once = max(1, _PAIRS_AT_ONCE // self.num_samples**2)
        log_q = [
            kernel_log_density(fitted, new)
            for fitted, new in zip(positions[:half].split(at_once, 1), positions[half:].split(at_once, 1), strict=True)
        ]
        log_ratio = torch.cat(log_q, 1) - log_joint[half:]
        return -log_mean_exp(log_ratio), variance_by_batch_means(log_ratio)

    def _sample_posterior(
        self, model: VAE, x: Images, noise: Noise
    ) -> tuple[Float[Tensor, "sample batch latent"], Float[Tensor, "sample batch"]]:
        """Successive positions of every datapoint's chain, and log p(x, z) there, in float64."""

        def log_joint(z: Tensor) -> Tensor:
            return model.log_joint(x, z)

        stream = noise.stream()
        state = hmc.start(log_joint, self._start(model, x, noise))
        step_size = hmc.StepSize(
            torch.full_like(state.log_density, self.initial_step_size),
            target_acceptance=self.target_acceptance,
            gain=1.0,
            decay=0.3,
        )
        positions, densities = [], []
        for step in range(self.burn_in + self.num_samples):
            momentum, uniform = stream.normal(1, model.latent_dim)[0], stream.uniform(1)[0]
            tuning = step < self.burn_in + self.num_samples // 2
            length = step_size.value if tuning else step_size.settled
            # Varied by up to a half: a trajectory of half a period would return every sample's mirror image.
            length = length * (0.5 + stream.uniform(1)[0])
            state, acceptance = hmc.transition(log_joint, state, length, self.num_leapfrog, momentum, uniform)
            if tuning:
                step_size.update(acceptance)
            if step >= self.burn_in:
                positions.append(state.position.double())
                densities.append(state.log_density.double())
        return torch.stack(positions), torch.stack(densities)

    def _start(self, model: VAE, x: Images, noise: Noise) -> Latents:
        """One of `num_starts` prior draws for every datapoint, with probability ~ p(x|z) (Gumbel's trick)."""
        chosen, best = torch.zeros(len(x), model.latent_dim).to(x), torch.full((len(x),), -math.inf).to(x)
        for start in range(self.num_starts):
            stream = noise.stream("start", start)
            z = stream.normal(1, model.latent_dim)[0]
            score = model.likelihood(z).log_prob(x) - stream.uniform(1)[0].log().neg().log()
            chosen = torch.where((score >= best)[:, None], z, chosen)
            best = torch.maximum(score, best)
        return chosen


def kernel_log_density(
    points: Float[Tensor, "point batch dim"], at: Float[Tensor, "sample batch dim"]
) -> Float[Tensor, "sample batch"]:
    """Gaussian kernel density of `points`, for each batch element, at `at`: normalised, bandwidth tuned.

    Kernels have the points' covariance times the squared bandwidth, the one of `_BANDWIDTHS` with the best
    leave-one-out likelihood. A rejected proposal repeats a point, which would always favour the smallest
    bandwidth, so all copies of a point are left out together.
    """
    dim = points.shape[-1]
    centred = (points - points.mean(0)).transpose(0, 1)
    covariance = centred.mT @ centred / (len(points) - 1)
    factor = torch.linalg.cholesky(covariance + _SMALLEST_SCALE**2 * torch.eye(dim).to(points))
    whitened = torch.linalg.solve_triangular(factor, points.permute(1, 2, 0), upper=False).mT
    at = torch.linalg.solve_triangular(factor, at.permute(1, 2, 0), upper=False).mT
    log_volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    between = _squared_distances(whitened, whitened)
    other = between > 0
    num_others = other.sum(-1)
    scores = []
    for bandwidth in _BANDWIDTHS:
        kernels = torch.where(other, -0.5 * between / bandwidth**2, -math.inf).logsumexp(-1)
        # A chain that never moved has no other point; then every bandwidth scores alike.
        kernels = torch.where(num_others > 0, kernels - num_others.clamp(min=1).log(), 0.0)
        scores.append(kernels.mean(-1) - dim * math.log(bandwidth))
    best = torch.tensor(_BANDWIDTHS).to(points)[torch.stack(scores).argmax(0)]

    kernels = -0.5 * _squared_distances(at, whitened) / best[:, None, None].square()
    constant = log_volume + dim * best.log() + 0.5 * dim * math.log(2 * math.pi) + math.log(len(points))
    return (kernels.logsumexp(-1) - constant[:, None]).T


def variance_by_batch_means(log_ratio: Float[Tensor, "sample batch"]) -> PerDatapoint:
    """Delta-method variance of the log of the mean of successive, hence dependent, ratios.

    The means of sqrt(L) stretches of the chain are taken as independent; a rest at the beginning is left out.
    In a short chain they are not quite: with the paper's 50 samples the variance is about 0.5 to 1 of the true one.
    """
    num_batches = math.isqrt(len(log_ratio))
    length = len(log_ratio) // num_batches
    stretches = log_ratio[-num_batches * length :].unflatten(0, (num_batches, length))
    means = (stretches.logsumexp(1) - math.log(length) - log_mean_exp(log_ratio)).exp()
    return means.var(0) / num_batches


def _squared_distances(a: Float[Tensor, "batch a dim"], b: Float[Tensor, "batch b dim"]) -> Float[Tensor, "batch a b"]:
    # Not by |a|^2 + |b|^2 - 2ab, which would leave rounding where equal points must be at distance 0.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
