"""What is hidden of an image, given the rest: draws from p(x_missing | x_observed) and its log density.

Pseudo-Gibbs (Rezende et al., 2014) draws in turn z ~ q(z|x) and x_missing ~ p(x_missing|z), which is exact only where
q(z|x) is p(z|x). Metropolis-within-Gibbs (Mattei and Frellsen, 2018) takes the same z' ~ q(z|x) as a proposal for
z | x, and accepts it with probability

    min(1, [p(x|z') p(z') / q(z'|x)] / [p(x|z) p(z) / q(z|x)]),    x = (x_observed, x_missing),

which leaves p(z|x) as it is; the draw of x_missing given z is exact, for pixels are independent given z. So both steps
leave p(z, x_missing | x_observed) as it is, whatever q(z|x) misses. What it misses shows in the share of acceptances.
Where few are accepted, Hamiltonian Monte Carlo on p(z|x_observed), from which x_missing is integrated out, moves the
chains on; x_missing is drawn anew then.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vae_lab import elbo
from vae_lab.applications.parameters import likelihood_of
from vae_lab.distributions import DiagonalGaussian, IndependentPixels
from vae_lab.errors import ConfigError
from vae_lab.estimators.base import LogMean, rows_at_once
from vae_lab.estimators.pareto import WeightTail
from vae_lab.hmc import StepSize, start, transition
from vae_lab.measurement import evaluating
from vae_lab.model import VAE
from vae_lab.randomness import generator

NUM_LEAPFROG = 5
"""Steps of a trajectory of Hamiltonian Monte Carlo."""
COMPONENTS = 64
"""States of the chains, at least, whose q(z|x) make the proposal for log p(x_observed)."""


@dataclass(frozen=True)
class Inpainted:
    """Draws of what is missing of one image, on the CPU, and how the chains went."""

    draws: Float[Tensor, "num channel height width"]
    """Whole images: observed pixels as they are, missing ones drawn; one from the end of each chain."""
    means: Float[Tensor, "num channel height width"]
    """The same with E[x_missing|z] at the z of each draw."""
    mean: Float[Tensor, "channel height width"]
    """The same with E[x_missing|x_observed]: the mean over the second half of all chains."""
    acceptance: float
    """The share of proposals z' ~ q(z|x) that were accepted in that half."""
    hmc_acceptance: float
    """The share of the trajectories of Hamiltonian Monte Carlo."""
    effective_sample_size: float
    """That of the states in that half, by the dimension of z that mixes worst."""
    log_conditional: float
    """log p(x_missing | x_observed) of the true pixels, in nats: log p(x) - log p(x_observed)."""
    standard_error: float
    k_hat: float
    """Pareto k-hat of the worse of the two."""


def mask_of(name: str, image_shape: tuple[int, int, int], *, seed: int) -> Bool[Tensor, "height width"]:
    """Which pixels are missing.

    Args:
        name: of a region, `random_N`: N per cent of the pixels, or an .npy file of what `mask_of_array` takes.
        image_shape: (channel, height, width).
        seed: of a random mask.

    Raises:
        ConfigError: it is none of them, or hides all or nothing.
    """
    height, width = image_shape[1:]
    regions = {
        "right_half": np.s_[:, width // 2 :],
        "left_half": np.s_[:, : width // 2],
        "bottom_half": np.s_[height // 2 :],
        "top_half": np.s_[: height // 2],
        "center": np.s_[height // 4 : height - height // 4, width // 4 : width - width // 4],
    }
    missing = torch.zeros(height, width, dtype=torch.bool)
    share = name.removeprefix("random_")
    if name in regions:
        missing[regions[name]] = True
    elif share != name and share.isdecimal():
        order = torch.randperm(height * width, generator=generator("cpu", seed, "mask"))
        missing.view(-1)[order[: round(height * width * int(share) / 100)]] = True
    elif name.endswith(".npy"):
        try:
            found = np.load(Path(name).expanduser(), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"mask: {name} must be an array that numpy.save wrote: {error}") from error
        return mask_of_array(found, image_shape, name)
    else:
        names = ", ".join(regions)
        raise ConfigError(f"mask must be one of {names}, random_N (per cent) or an .npy file, got {name!r}")
    return _hides_some(missing, name)


def mask_of_array(found: np.ndarray, image_shape: tuple[int, int, int], name: str) -> Bool[Tensor, "height width"]:
    """Which pixels are missing: those of an array [height, width] that are not 0.

    Args:
        found: the array.
        image_shape: (channel, height, width).
        name: of the array, for the messages.

    Raises:
        ConfigError: it is of another shape or holds no numbers, or hides all or nothing.
    """
    shape = list(image_shape[1:])
    if list(found.shape) != shape or found.dtype.kind not in "biuf":
        got = f"{list(found.shape)} {found.dtype} in {name}"
        raise ConfigError(f"mask must hold numbers of the shape {shape}, got {got}")
    return _hides_some(torch.from_numpy(found != 0), name)


def _hides_some(missing: Tensor, name: str) -> Tensor:
    if missing.all() or not missing.any():
        raise ConfigError(f"mask must hide some pixels and not all, got {name}, which hides {int(missing.sum())}")
    return missing


def require_independent_pixels(model: VAE, run: object) -> None:
    """Refuses a likelihood of which it is not known what single pixels contribute.

    Raises:
        ConfigError: naming it.
    """
    if not isinstance(found := likelihood_of(model), IndependentPixels):
        raise ConfigError(
            f"likelihood must have pixels that are independent given z, got {type(found).__name__} in {run}, which has "
            "no log_prob_terms(x), the log density of every pixel: without it nothing is known of single ones"
        )


def inpaint(
    model: VAE,
    x: Float[Tensor, "channel height width"],
    missing: Bool[Tensor, "height width"],
    *,
    num: int,
    num_pseudo_gibbs: int,
    num_steps: int,
    num_samples: int,
    seed: int,
    index: int,
) -> Inpainted:
    """Draws of what is missing of an image, of which the chains see the rest only.

    Args:
        model: with an encoder, and a likelihood whose pixels are independent given z.
        x: the whole image; its missing pixels are used for `log_conditional` alone.
        missing: which pixels are.
        num: chains, each of which ends in a draw.
        num_pseudo_gibbs: steps of pseudo-Gibbs at first.
        num_steps: steps of Metropolis-within-Gibbs after them, a trajectory of Hamiltonian Monte Carlo after each.
        num_samples: of importance sampling, for each of log p(x) and log p(x_observed).
        seed: of the noise, which depends on it and on `index`.
        index: the image's place.
    """
    like = next(model.parameters())
    with evaluating(model, like.device, seed, "inpaint", index):
        chains = Chains(model, x.to(like), missing.to(like.device), num)
        for _ in range(num_pseudo_gibbs):
            chains.pseudo_gibbs()
        every = max(1, num_steps // 2 // math.ceil(COMPONENTS / num))
        trace, proposals, shares, total = [], [], [], torch.zeros_like(chains.x[0])
        for step in range(num_steps):
            q, share = chains.metropolis()
            moved = chains.hamiltonian(tune=step < num_steps // 2)
            if step >= num_steps // 2:
                trace.append(chains.z)
                shares.append([share, moved])
                total += chains.means.mean(0)
                if len(trace) % every == 0 or len(trace) == 1:
                    proposals.append(q)
        whole = torch.ones_like(chains.x[0], dtype=torch.bool)
        full = log_marginal(model, chains.truth, whole, [model.posterior(chains.truth[None])], num_samples)
        prior = DiagonalGaussian(model.prior().mean[None], model.prior().log_variance[None], event_dims=1)
        # with the prior no weight is far above p(x_observed|z), whatever q(z|x) misses
        part = log_marginal(model, chains.truth, whole & ~chains.missing, [*proposals, prior], num_samples)
    mean = torch.where(chains.missing, total / len(trace), chains.truth)
    acceptance, hmc_acceptance = torch.tensor(shares).mean(0).tolist()
    return Inpainted(
        chains.x.cpu(),
        chains.means.cpu(),
        mean.cpu(),
        acceptance,
        hmc_acceptance,
        float(effective_sample_size(torch.stack(trace)).min()),
        full.value - part.value,
        math.sqrt(full.variance + part.variance),
        max(full.k_hat, part.k_hat),
    )


class Chains:
    """Chains (z, x_missing) beside each other, which start at draws from the prior."""

    def __init__(self, model: VAE, truth: Tensor, missing: Tensor, num: int) -> None:
        self.model, self.truth, self.missing = model, truth, missing
        self.z = model.prior().sample((num,))
        self.step_size = StepSize(torch.full_like(self.z[0, 0], 0.1), target_acceptance=0.8, gain=1.0, decay=0.5)
        self._draw_pixels()

    def pseudo_gibbs(self) -> None:
        """Z ~ q(z|x) and x_missing ~ p(x_missing|z): near the data soon, and not exact."""
        self.z = self.model.posterior(self.x).sample()
        self._draw_pixels()

    def metropolis(self) -> tuple[DiagonalGaussian, float]:
        """The same with z accepted or refused, which is exact; q(z|x) of the state before, and the share accepted."""
        q = self.model.posterior(self.x)
        both = torch.stack([self.z, q.sample()])
        before, after = elbo.log_weights(self.model, self.x, both, q)
        accepted = torch.rand_like(before).log() < after - before
        self.z = torch.where(accepted[:, None], both[1], both[0])
        self._draw_pixels()
        return q, float(accepted.double().mean())

    def hamiltonian(self, *, tune: bool) -> float:
        """A trajectory in z given what is observed; the mean probability that it is accepted.

        Args:
            tune: whether its step size is still looked for; else it is the one that was found.
        """
        state = start(self._log_observed, self.z)
        momentum, uniform = torch.randn_like(self.z), torch.rand_like(state.log_density)
        size = self.step_size.value if tune else self.step_size.settled
        state, acceptance = transition(self._log_observed, state, size, NUM_LEAPFROG, momentum, uniform)
        if tune:
            self.step_size.update(acceptance)
        self.z = state.position
        self._draw_pixels()
        return float(acceptance.mean())

    def _log_observed(self, z: Tensor) -> Tensor:
        """The sum log p(x_observed|z) + log p(z)."""
        terms = self.model.likelihood(z).log_prob_terms(self.truth)  # pyright: ignore[reportAttributeAccessIssue]
        return (terms * ~self.missing).sum((-3, -2, -1)) + self.model.prior().log_prob(z)

    def _draw_pixels(self) -> None:
        likelihood = self.model.likelihood(self.z)
        self.x = torch.where(self.missing, likelihood.sample(), self.truth)
        self.means = torch.where(self.missing, likelihood.mean, self.truth)


@dataclass(frozen=True)
class Marginal:
    """log p of some pixels of an image by importance sampling, in nats, with its Monte Carlo variance and k-hat."""

    value: float
    variance: float
    k_hat: float


def log_marginal(
    model: VAE,
    x: Float[Tensor, "channel height width"],
    pixels: Bool[Tensor, "channel height width"],
    proposals: list[DiagonalGaussian],
    num_samples: int,
) -> Marginal:
    """The log of 1/K sum_k p(pixels of x|z_k) p(z_k) / r(z_k), z_k ~ r, the mixture of the Gaussians in `proposals`.

    Args:
        model: whose likelihood has independent pixels.
        x: the image.
        pixels: which of it count.
        proposals: each over [some, latent].
        num_samples: K.
    """
    mean = torch.cat([q.mean for q in proposals])
    mixture = DiagonalGaussian(mean, torch.cat([q.log_variance for q in proposals]), event_dims=1)
    log_mean, tail = LogMean(), WeightTail(num_samples)
    for count in [len(some) for some in torch.arange(num_samples).split(rows_at_once(model, x.device))]:
        chosen = torch.randint(len(mean), (count,), device=x.device)
        z = mean[chosen] + mixture.std[chosen] * torch.randn_like(mean[chosen])
        log_proposal = mixture.log_prob(z[:, None]).logsumexp(1) - math.log(len(mean))
        terms = model.likelihood(z).log_prob_terms(x)  # pyright: ignore[reportAttributeAccessIssue]
        log_weights = (terms * pixels).double().sum((1, 2, 3)) + model.prior().log_prob(z) - log_proposal
        log_mean.add(log_weights[:, None])
        tail.add(log_weights[:, None])
    return Marginal(float(log_mean.value), float(log_mean.variance), float(tail.k_hat))


def effective_sample_size(trace: Float[Tensor, "step chain dim"]) -> Float[Tensor, " dim"]:
    """The number of independent draws that would have a mean as exact as that of the chains' states.

    Autocorrelations within the chains and differences between them count (Gelman et al., 2013, section 11.5), the
    former up to the first pair of neighbours whose sum is negative (Geyer, 1992). States that alternate may count for
    more than independent ones, for log10 N of them at most. A dimension that never moves has 1.
    """
    num, num_chains = trace.shape[:2]
    centred = (trace - trace.mean(0)).double()
    spectrum = torch.fft.rfft(centred, 2 * num, dim=0)
    covariances = torch.fft.irfft(spectrum.abs().square(), 2 * num, dim=0)[:num].mean(1) / num
    within = covariances[0] * num / (num - 1)
    between = trace.double().mean(0).var(0) if num_chains > 1 else torch.zeros_like(within)
    total = covariances[0] + between
    correlations = 1 - (within - covariances * num / (num - 1)) / total
    pairs = correlations[: num // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    is_kept = (pairs > 0).cummin(0).values
    time = 2 * (pairs.cummin(0).values * is_kept).sum(0) - 1
    count = num * num_chains
    return torch.where(total > 0, count / time.clamp(min=1 / math.log10(count)), 1.0)
