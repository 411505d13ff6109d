"""IWAE (Burda et al., 2016), optionally with the doubly reparameterised gradient (Tucker et al., 2019)."""

from collections.abc import Iterator

from vae_lab import elbo
from vae_lab.errors import require_choice, require_integer
from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState

GRADIENTS = ("reparameterised", "doubly_reparameterised")


class ImportanceWeighted(Objective):
    """Maximises L_k = E[log 1/k sum_i w_i], w_i = p(x, z_i) / q(z_i|x), which rises with k towards log p(x).

    Every term of the weights is sampled: a closed-form KL inside a weight would be wrong. k = 1 is the ELBO.

    Args:
        num_samples: k, draws of z per datapoint.
        gradient: `reparameterised` (IWAE's own), or `doubly_reparameterised` (DReG): the same expectation,
            less noise in the encoder's part, where it does not drown the signal as k grows.
    """

    def __init__(self, *, num_samples: int, gradient: str) -> None:
        super().__init__()
        require_integer("objective.num_samples", num_samples, minimum=1, advice="it is the bound's k")
        require_choice("objective.gradient", gradient, GRADIENTS)
        self.num_samples = num_samples
        self.gradient = gradient

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """One update of all parameters of the model."""
        posterior = model.posterior(batch.x)
        z = posterior.rsample((self.num_samples,))
        doubly = self.gradient == "doubly_reparameterised"
        log_weights = elbo.log_weights(model, batch.x, z, posterior.detach() if doubly else posterior)
        # the gradient of log 1/k sum_i w_i is that of sum_i share_i * log w_i with the shares held fixed
        share = log_weights.detach().softmax(0)
        if doubly:
            # what reaches the encoder through z_i is weighted by share_i once more
            z.register_hook(lambda gradient: gradient * share.unsqueeze(-1))
        weighted = elbo.log_mean_exp(log_weights.detach())
        logged = {"bound": log_weights.mean(0), "importance_weighted_bound": weighted}
        yield Terms(-(share * log_weights).sum(0), moves=model, logged=logged)
