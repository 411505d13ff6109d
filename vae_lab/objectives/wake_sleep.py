"""Wake-sleep (Hinton et al., 1995): the paper's baseline, with the same encoder (sections 4 and 5)."""

from collections.abc import Iterator

import torch

from vae_lab.elbo import sgvb_a
from vae_lab.errors import require_choice, require_integer
from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState, Traits, logged_terms

SLEEP_INPUTS = ("sampled", "mean")


class WakeSleep(Objective):
    """Two updates of a minibatch: theta on what the encoder sees, then phi on what the new decoder dreams.

    Wake: maximise E[log p(x, z)] over the decoder, z ~ q(z|x). Sleep: maximise E[log q(z'|x')] over the
    encoder, z' ~ p(z), x' ~ p(x|z') of the decoder just updated, as many pairs as there are datapoints.

    Args:
        num_samples: draws of z per datapoint in the wake step.
        sleep_inputs: `sampled`: x' is a draw, binary for a Bernoulli likelihood (the author's code); `mean`:
            the likelihood's mean, grey for a Bernoulli (the paper leaves it open).
    """

    traits = Traits(moves_everything=False)

    def __init__(self, *, num_samples: int, sleep_inputs: str) -> None:
        super().__init__()
        require_integer("objective.num_samples", num_samples, minimum=1, advice="the wake step needs a draw of z")
        require_choice("objective.sleep_inputs", sleep_inputs, SLEEP_INPUTS)
        self.num_samples = num_samples
        self.sleep_inputs = sleep_inputs

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """The wake step, then the sleep step."""
        with torch.no_grad():
            posterior = model.posterior(batch.x)
        bound = sgvb_a(model, batch.x, self.num_samples, posterior=posterior)
        # log p(z) does not depend on theta: the gradient of log p(x, z) is that of log p(x|z)
        yield Terms(-bound.reconstruction, moves=model.decoder, logged=logged_terms(bound))

        with torch.no_grad():
            z = model.prior().sample((len(batch.x),))
            likelihood = model.likelihood(z)
            x = likelihood.sample() if self.sleep_inputs == "sampled" else likelihood.mean
        recognition = model.posterior(x).log_prob(z)
        yield Terms(-recognition, moves=model.encoder, logged={"sleep_log_posterior": recognition})
