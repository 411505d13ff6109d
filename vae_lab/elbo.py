"""The evidence lower bound (ELBO) and its two stochastic estimators (SGVB), section 2.3 of the paper.

Everything is per datapoint and in nats; nothing here is averaged over a batch, scaled or weighted.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vae_lab.distributions import kl_to_standard_normal
from vae_lab.model import VAE


@dataclass(frozen=True)
class Bound:
    """L(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)), estimated for each datapoint of a batch."""

    reconstruction: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The bound itself: log p(x) is at least this, in expectation."""
        return self.reconstruction - self.kl


def sgvb_a(model: VAE, x: Float[Tensor, "batch channel height width"], num_samples: int = 1) -> Bound:
    """SGVB estimator A, eq. (6): L~A = 1/L sum_l log p(x, z_l) - log q(z_l|x), z_l = mu + sigma * eps_l.

    Its `kl` is the sampled log q(z|x) - log p(z), which may be negative for a single draw.
    """
    posterior = model.posterior(x)
    z = posterior.rsample((num_samples,))
    reconstruction = model.likelihood(z).log_prob(x)
    kl = posterior.log_prob(z) - model.prior().log_prob(z)
    return Bound(reconstruction.mean(0), kl.mean(0))


def sgvb_b(model: VAE, x: Float[Tensor, "batch channel height width"], num_samples: int = 1) -> Bound:
    """SGVB estimator B, eqs. (7) and (10): 1/L sum_l log p(x|z_l), and the KL in closed form (appendix B)."""
    posterior = model.posterior(x)
    z = posterior.rsample((num_samples,))
    reconstruction = model.likelihood(z).log_prob(x)
    return Bound(reconstruction.mean(0), kl_to_standard_normal(posterior).sum(-1))
