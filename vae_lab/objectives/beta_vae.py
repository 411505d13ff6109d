"""Beta-VAE (Higgins et al., 2017): AEVB with another weight of the KL."""

from vae_lab.errors import require_number
from vae_lab.objectives.aevb import AEVB

MOST = 1e9
"""A larger weight times a KL leaves float32 sooner or later."""


class BetaVAE(AEVB):
    """Minimises beta KL(q(z|x) || p(z)) - E_q[log p(x|z)]; the bound that is measured stays the ELBO, with weight 1.

    KL and reconstruction are sums over dimensions and pixels, in nats: where others take the mean over D pixels and
    weigh the KL by w, beta is w D. beta = 1 is the paper's objective; a larger one gives up reconstruction for less KL.

    Args:
        beta: the weight of the KL, after a warm-up if there is one.
        others: of AEVB.
    """

    def __init__(self, *, beta: float, kl: str, num_samples: int, kl_warmup_samples: int) -> None:
        advice = "1 is the bound, 4 a common choice above it"
        require_number("objective.beta", beta, at_least=0, at_most=MOST, advice=advice)
        super().__init__(kl=kl, num_samples=num_samples, kl_warmup_samples=kl_warmup_samples)
        self.beta = beta

    def kl_weight(self, samples: int) -> float:
        """The weight after `samples` presented datapoints: beta but for the warm-up."""
        return self.beta * super().kl_weight(samples)

    def describe(self) -> str:
        """Names the weight, and that it is none of the bound's."""
        return f"KL weight: {self.beta:g} in the loss{self.warmup}, 1 in every bound that is shown"
