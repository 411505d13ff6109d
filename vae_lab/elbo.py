"""The evidence lower bound (ELBO) and its two stochastic estimators (SGVB), section 2.3 of the paper.

What trains by the bound and what measures it call these. Everything is per datapoint and in nats; nothing here is
averaged over a batch, scaled or weighted.
"""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from vae_lab.distributions import DiagonalGaussian, Distribution, kl_to_standard_normal
from vae_lab.model import VAE, Images, PerDatapoint


class Bound:
    """L(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)), estimated for each datapoint of a batch.

    Args:
        log_likelihood: log p(x|z_l) of every draw z_l ~ q(z|x); its mean over the draws is the reconstruction.
        kl_terms: what sums to the KL: one term for every dimension of z in closed form, or one sampled term.
    """

    def __init__(self, log_likelihood: Float[Tensor, "draw batch"], kl_terms: Float[Tensor, "batch term"]) -> None:
        self.log_likelihood, self.kl_terms = log_likelihood, kl_terms
        self.reconstruction: PerDatapoint = log_likelihood.mean(0)
        self.kl: PerDatapoint = kl_terms.sum(-1)
        self.total: PerDatapoint = self.reconstruction - self.kl

    def double(self) -> "Bound":
        """The same draws, averaged and summed in float64."""
        return Bound(self.log_likelihood.double(), self.kl_terms.double())


def sgvb_a(
    model: VAE,
    x: Images,
    num_samples: int = 1,
    *,
    posterior: DiagonalGaussian | None = None,
    without_score: bool = False,
) -> Bound:
    """SGVB estimator A, eq. (6): L~A = 1/L sum_l log p(x, z_l) - log q(z_l|x), z_l = mu + sigma * eps_l.

    Its `kl` is the sampled log q(z|x) - log p(z), which may be negative for a single draw. `posterior` is q(z|x)
    where that has been computed already; one without a gradient leaves the encoder out. `without_score` leaves the
    score of q, whose expectation is 0, out of the gradient, which then reaches the encoder through z alone: it has no
    variance where q(z|x) is p(z|x) ("sticking the landing", Roeder et al., 2017).
    """
    posterior = posterior or model.posterior(x)
    z = posterior.rsample((num_samples,))
    log_likelihood = model.likelihood(z).log_prob(x)
    density = posterior.detach() if without_score else posterior
    log_ratio = density.log_prob(z) - model.prior().log_prob(z)
    return Bound(log_likelihood, log_ratio.mean(0).unsqueeze(-1))


def log_weights(
    model: VAE, x: Images, z: Float[Tensor, "draw batch latent"], density: DiagonalGaussian
) -> Float[Tensor, "draw batch"]:
    """The importance weights of draws from q(z|x): log w_l = log p(x, z_l) - log q(z_l|x), `density` being q.

    Their mean is SGVB estimator A.
    """
    return model.log_joint(x, z) - density.log_prob(z)


def log_mean_exp(values: Float[Tensor, "draw batch"]) -> PerDatapoint:
    """The log of the mean of exp(values): of log-weights the importance weighted bound."""
    return values.logsumexp(0) - math.log(len(values))


def sgvb_b(
    model: VAE,
    x: Images,
    num_samples: int = 1,
    *,
    posterior: DiagonalGaussian | None = None,
    kl_terms: Float[Tensor, "batch latent"] | None = None,
    noise: Float[Tensor, "draw batch latent"] | None = None,
    likelihood: Callable[[Tensor], Distribution] | None = None,
) -> Bound:
    """SGVB estimator B, eqs. (7) and (10): 1/L sum_l log p(x|z_l), and the KL in closed form (appendix B).

    `posterior` is q(z|x) and `kl_terms` its KL where they have been computed already, `noise` the eps_l where they have
    been drawn, `likelihood` what stands in place of the model's.
    """
    posterior = posterior or model.posterior(x)
    z = posterior.rsample((num_samples,), noise)
    log_likelihood = (likelihood or model.likelihood)(z).log_prob(x)
    return Bound(log_likelihood, kl_to_standard_normal(posterior) if kl_terms is None else kl_terms)
