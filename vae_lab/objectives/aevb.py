"""Auto-encoding variational Bayes: the paper's algorithm 1 with SGVB estimator A or B."""

from collections.abc import Iterator
from functools import partial

from vae_lab.elbo import Bound, sgvb_a, sgvb_b
from vae_lab.errors import ConfigError, require_choice, require_integer
from vae_lab.model import VAE, PerDatapoint
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState, Traits, logged_terms

ESTIMATORS = {
    "closed_form": sgvb_b,
    "sampled": sgvb_a,
    "sticking_the_landing": partial(sgvb_a, without_score=True),
}


class AEVB(Objective):
    """Minimises KL(q(z|x) || p(z)) - E_q[log p(x|z)], eq. (10), for encoder and decoder at once.

    Args:
        kl: `closed_form` (SGVB estimator B, the paper's choice), `sampled` (estimator A: more variance, the choice
            where the KL of a posterior or prior is not known), or `sticking_the_landing` (estimator A with a gradient
            that has the less variance the closer q(z|x) is to p(z|x)).
        num_samples: L, draws of z per datapoint.
        kl_warmup_samples: the KL's weight rises linearly from 0 to 1 over this many training samples; 0: no warm-up.
    """

    def __init__(self, *, kl: str, num_samples: int, kl_warmup_samples: int) -> None:
        super().__init__()
        require_choice("objective.kl", kl, ESTIMATORS)
        require_integer("objective.num_samples", num_samples, minimum=1, advice="the bound needs a draw of z")
        require_integer("objective.kl_warmup_samples", kl_warmup_samples, minimum=0, advice="0 switches it off")
        self.estimator = ESTIMATORS[kl]
        self.num_samples = num_samples
        self.kl_warmup_samples = kl_warmup_samples
        self.traits = Traits(steady_from=kl_warmup_samples)

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """One update of all parameters of the model."""
        bound = self.estimator(model, batch.x, self.num_samples)
        loss = self.kl_loss(bound, state.samples) - bound.reconstruction
        yield Terms(loss, moves=model, logged=logged_terms(bound))

    def kl_loss(self, bound: Bound, samples: int) -> PerDatapoint:
        """What of the KL is minimised after `samples` presented datapoints."""
        return self.kl_weight(samples) * bound.kl

    def kl_weight(self, samples: int) -> float:
        """The weight of the KL after `samples` presented datapoints: 1 but for the warm-up."""
        return min(1.0, samples / self.kl_warmup_samples) if self.kl_warmup_samples else 1.0

    def describe(self) -> str:
        """Names the KL warm-up where there is one."""
        return f"KL weight: 1{self.warmup}" if self.kl_warmup_samples else ""

    @property
    def warmup(self) -> str:
        """The warm-up in words; empty where there is none."""
        if not self.kl_warmup_samples:
            return ""
        return f", rising from 0 over the first {self.kl_warmup_samples:,} samples"

    def check(self, max_samples: int) -> None:
        """The warm-up must be over by the end, or the result would not be a bound that was optimised."""
        if self.kl_warmup_samples > max_samples:
            raise ConfigError(
                f"objective.kl_warmup_samples must be <= the budget of {max_samples} samples, got "
                f"{self.kl_warmup_samples}: the KL's weight must reach 1; shorten the warm-up or train longer"
            )
