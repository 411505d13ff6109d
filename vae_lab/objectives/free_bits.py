"""Free bits (Kingma et al., 2016): AEVB that gains nothing from a KL below a threshold."""

from vae_lab.elbo import Bound
from vae_lab.errors import require_number
from vae_lab.model import PerDatapoint
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Traits

MOST = 1e6
"""Nats: no KL of a dimension that is of any use is larger, and float32 holds the sum."""


class FreeBits(AEVB):
    """Minimises sum_j max(free_bits, E_x[KL(q(z_j|x) || p(z_j))]) - E_q[log p(x|z)], E_x the mean over a minibatch.

    The groups of the paper are the dimensions of z. A dimension whose KL is below the threshold has no gradient towards
    the prior, so that it is not switched off before the decoder has learned to use it. The bound that is measured stays
    the ELBO.

    Args:
        free_bits: the threshold for each dimension, in nats.
        num_samples: L, draws of z per datapoint.
    """

    def __init__(self, *, free_bits: float, num_samples: int) -> None:
        advice = "0 is the bound; it is in nats a dimension"
        require_number("objective.free_bits", free_bits, at_least=0, at_most=MOST, advice=advice)
        super().__init__(kl="closed_form", num_samples=num_samples, kl_warmup_samples=0)
        self.free_bits = free_bits
        self.traits = Traits(
            single_process_because="the KL is averaged over the whole minibatch before the threshold is applied"
        )

    def kl_loss(self, bound: Bound, samples: int) -> PerDatapoint:
        """The same for every datapoint: it is of the minibatch."""
        return bound.kl_terms.mean(0).clamp(min=self.free_bits).sum().expand_as(bound.kl)

    def describe(self) -> str:
        """Names the threshold, and that it is none of the bound's."""
        return f"free bits: {self.free_bits:g} nats a dimension in the loss, none in the bounds that are shown"
