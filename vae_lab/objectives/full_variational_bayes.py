"""Full variational Bayes: a Gaussian posterior over the decoder's parameters as well (appendix F)."""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from vae_lab.distributions import DiagonalGaussian, Distribution, kl_to_standard_normal
from vae_lab.elbo import Bound, sgvb_b
from vae_lab.errors import require_integer, require_number
from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState, Traits, logged_terms


class FullVariationalBayes(Objective):
    """Minimises KL(q(theta) || p(theta)) / N - E[log p_theta(x|z)] + KL(q(z|x) || p(z)), per datapoint.

    q(theta) = N(mu, diag(sigma^2)) and p(theta) = N(0, I) over every parameter of the decoder that is trained;
    theta = mu + sigma * zeta. The decoder's own parameters are mu, so that whatever measures the model uses the
    posterior mean; log sigma^2 is the objective's. The encoder's parameters stay plain and have no prior.

    Args:
        num_samples: draws of theta for a minibatch; with each of them one z per datapoint.
        initial_std: sigma at the start.
    """

    traits = Traits(has_parameter_prior=True)

    log_variances: nn.ParameterList

    def __init__(self, *, num_samples: int, initial_std: float) -> None:
        super().__init__()
        require_integer("objective.num_samples", num_samples, minimum=1, advice="the bound needs a draw of theta")
        require_number("objective.initial_std", initial_std, advice="it is the sigma of q(theta)")
        self.num_samples = num_samples
        self.initial_std = initial_std

    def prepare(self, model: VAE, num_train: int) -> None:
        """Makes log sigma^2 of every parameter."""
        initial = 2 * math.log(self.initial_std)
        means = trained_parameters(model.decoder).values()
        self.log_variances = nn.ParameterList([torch.full_like(mean, initial) for mean in means])

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """One update of encoder, mu and log sigma^2."""
        posterior = model.posterior(batch.x)
        kl = kl_to_standard_normal(posterior)
        draws = [
            sgvb_b(model, batch.x, posterior=posterior, kl_terms=kl, likelihood=self.sample_likelihood(model))
            for _ in range(self.num_samples)
        ]
        bound = Bound(torch.cat([draw.log_likelihood for draw in draws]), kl)
        parameter_kl = (self.parameter_kl(model) / state.num_train).expand_as(bound.total)
        logged = {**logged_terms(bound), "parameter_kl": parameter_kl, "full_bound": bound.total - parameter_kl}
        yield Terms(parameter_kl - bound.total, moves=nn.ModuleList([model, self]), logged=logged)

    def parameter_posterior(self, model: VAE) -> dict[str, DiagonalGaussian]:
        """q(theta), by the decoder's names of its parameters."""
        means = trained_parameters(model.decoder)
        pairs = zip(means.items(), self.log_variances, strict=True)
        return {name: DiagonalGaussian(mean, log_variance, mean.dim()) for (name, mean), log_variance in pairs}

    def sample_parameters(self, model: VAE) -> dict[str, Tensor]:
        """A draw of theta that gradients pass through, to be put in place of the decoder's parameters."""
        return {name: posterior.rsample() for name, posterior in self.parameter_posterior(model).items()}

    def sample_likelihood(self, model: VAE) -> Callable[[Tensor], Distribution]:
        """p(x|z) by a draw of theta, as a function of z, [draw, batch, latent]."""
        theta = self.sample_parameters(model)
        return lambda z: functional_call(model.decoder, theta, (z.flatten(0, -2),)).unflatten(z.shape[:-1])

    @torch.no_grad()
    def predictive_model(self, model: VAE) -> VAE:
        """A copy whose decoder is a draw from q(theta)."""
        drawn = copy.deepcopy(model)
        drawn.decoder.load_state_dict(self.sample_parameters(model), strict=False)  # what is frozen stays
        return drawn

    def parameter_kl(self, model: VAE) -> Float[Tensor, ""]:
        """KL(q(theta) || p(theta)) in nats for the whole data set; divided by N it is a datapoint's share."""
        posteriors = self.parameter_posterior(model).values()
        return torch.stack([kl_to_standard_normal(posterior).sum() for posterior in posteriors]).sum()

    def describe(self) -> str:
        """What the bounds of the run are bounds of."""
        return (
            "train/full_bound_running bounds log p(X) / N, the decoder's parameters integrated out; "
            "the other bounds take their posterior means as they are"
        )


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are not frozen, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
