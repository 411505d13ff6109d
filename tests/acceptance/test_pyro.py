"""Losses and gradients against Pyro: with the same weights and noise, but its densities, KL and estimators."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from outside import needs
from torch import Tensor

from vae_lab.distributions import Bernoulli, DiagonalGaussian
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood, GaussianLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch, Objective, TrainingState
from vae_lab.objectives.importance_weighted import ImportanceWeighted
from vae_lab.objectives.wake_sleep import WakeSleep

pytestmark = [pytest.mark.slow, needs("pyro")]
X = torch.bernoulli(torch.full((6, 1, 3, 4), 0.5, dtype=torch.float64), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pyro() -> Iterator[Any]:
    library = import_module("pyro")
    yield library
    library.clear_param_store()


@pytest.fixture(params=["bernoulli", "gaussian"])
def vae(request: pytest.FixtureRequest) -> VAE:
    gaussian = partial(GaussianLikelihood, min_log_variance=None)
    network: dict[str, Any] = {"hidden": [5], "activation": "tanh"}
    return VAE(
        (1, 3, 4),
        2,
        encoder=partial(MLPEncoder, **network),
        decoder=partial(MLPDecoder, **network),
        likelihood=BernoulliLikelihood if request.param == "bernoulli" else gaussian,
        initialization=PyTorchDefault(),
    ).double()


class InPyro:
    """The networks of a VAE within Pyro's model and guide."""

    def __init__(self, pyro: Any, vae: VAE) -> None:
        self.pyro, self.distributions, self.vae = pyro, import_module("pyro.distributions"), vae

    def model(self, observations: dict[str, Tensor]) -> None:
        self.pyro.module("decoder", self.vae.decoder)
        zeros = torch.zeros(self.vae.latent_dim, dtype=torch.float64)
        with self.pyro.plate("batch", len(X)):
            z = self.pyro.sample("z", self.distributions.Normal(zeros, 1.0).to_event(1))
            head = self.vae.likelihood(z)
            if isinstance(head, Bernoulli):
                pixels = self.distributions.Bernoulli(logits=head.logits)
            else:
                assert isinstance(head, DiagonalGaussian)
                pixels = self.distributions.Normal(head.mean, head.std)
            self.pyro.sample("x", pixels.to_event(3), obs=observations["x"])

    def guide(self, observations: dict[str, Tensor]) -> None:
        q = self.pyro.module("encoder", self.vae.encoder)(observations["x"])
        with self.pyro.plate("batch", len(X)):
            self.pyro.sample("z", self.distributions.Normal(q.mean, q.std).to_event(1))

    def losses(self, estimator: Any) -> Any:
        """Summed over the batch, as Pyro does; leaves its gradients in the networks."""
        torch.manual_seed(1)
        return estimator.loss_and_grads(self.model, self.guide, observations={"x": X})


def gradients(vae: VAE) -> dict[str, Tensor]:
    """By the parameters' names, those of what was not moved left out; there are none afterwards."""
    found = {name: weight.grad for name, weight in vae.named_parameters() if weight.grad is not None}
    vae.zero_grad()
    return found


def updates(objective: Objective, vae: VAE) -> Iterator[tuple[dict[str, float], dict[str, Tensor]]]:
    """What each update of the lab logs, and its gradients; both summed over the batch."""
    torch.manual_seed(1)
    for terms in objective.updates(vae, Minibatch(X, torch.arange(len(X))), TrainingState(0, 1000)):
        terms.loss.sum().backward()
        yield {name: float(value.detach().sum()) for name, value in terms.logged.items()}, gradients(vae)


@pytest.mark.parametrize(
    ("objective", "bound", "estimator", "options"),
    [
        (AEVB(kl="closed_form", num_samples=4, kl_warmup_samples=0), "bound", "TraceMeanField_ELBO", {}),
        (AEVB(kl="sampled", num_samples=4, kl_warmup_samples=0), "bound", "Trace_ELBO", {}),
        (
            ImportanceWeighted(num_samples=4, gradient="reparameterised"),
            "importance_weighted_bound",
            "RenyiELBO",
            {"alpha": 0.0},
        ),
    ],
    ids=["sgvb_b", "sgvb_a", "iwae"],
)
def test_bound_and_its_gradient_are_pyros(
    pyro: Any, vae: VAE, objective: Objective, bound: str, estimator: str, options: dict[str, float]
) -> None:
    ((ours, our_gradients),) = updates(objective, vae)
    make = getattr(pyro.infer, estimator)
    loss = InPyro(pyro, vae).losses(make(num_particles=4, vectorize_particles=True, max_plate_nesting=1, **options))
    assert ours[bound] == pytest.approx(-loss, rel=1e-12)
    torch.testing.assert_close(our_gradients, gradients(vae), rtol=1e-9, atol=1e-12)


def test_wake_sleeps_two_losses_and_their_gradients_are_pyros(pyro: Any, vae: VAE) -> None:
    (wake, of_decoder), (sleep, of_encoder) = updates(WakeSleep(num_samples=1, sleep_inputs="sampled"), vae)
    reweighted = pyro.infer.ReweightedWakeSleep(insomnia=0.0, num_sleep_particles=1, max_plate_nesting=1)
    reweighted.num_particles = 1  # one weight is 1, which is plain wake-sleep; its constructor wants more
    wake_loss, sleep_loss = InPyro(pyro, vae).losses(reweighted)
    assert wake["bound"] == pytest.approx(-wake_loss, rel=1e-12)
    assert sleep["sleep_log_posterior"] == pytest.approx(-sleep_loss, rel=1e-12)
    torch.testing.assert_close(of_encoder | of_decoder, gradients(vae), rtol=1e-9, atol=1e-12)
