"""A VAE of 3 x 3 binary images has 512 of them: by every estimator their probabilities sum to 1."""

from functools import partial
from typing import Any

import pytest
import torch
from linear_gaussian import six_standard_errors
from torch import Tensor
from yaml import safe_load

from vae_lab.estimators.base import Estimator, Noise
from vae_lab.estimators.posterior_density import PosteriorDensity
from vae_lab.estimators.quadrature import Quadrature
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.wiring.build import instantiate
from vae_lab.wiring.folders import choices, package_configs

pytestmark = pytest.mark.slow
IMAGES = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 9).unflatten(1, (1, 3, 3))
LIGHTER = {"num_chains": 4, "num_temperatures": 20, "num_leapfrog": 2, "num_samples": 100, "num_starts": 30}


def made(file: Any) -> Estimator:
    """The estimator of a YAML, with less work to do."""
    config = safe_load(file.read_text())
    return instantiate(config | {key: value for key, value in LIGHTER.items() if key in config}, "estimator")


ESTIMATORS = {name: made(file) for name, file in choices([package_configs()], "estimator").items()}
OF_GIVEN_IMAGES = [name for name, estimator in ESTIMATORS.items() if estimator.quantity == "log_likelihood"]


@pytest.fixture
def vae() -> VAE:
    """Strong weights in the decoder, so that pixels depend on each other; a wide q(z|x), which misses nothing."""
    network: dict[str, Any] = {"hidden": [16], "activation": "tanh"}
    vae = VAE(
        (1, 3, 3),
        2,
        encoder=partial(MLPEncoder, **network),
        decoder=partial(MLPDecoder, **network),
        likelihood=BernoulliLikelihood,
        initialization=PyTorchDefault(),
    ).double()
    for parameter in vae.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return vae


@pytest.mark.parametrize("name", OF_GIVEN_IMAGES)
def test_probabilities_of_all_images_sum_to_1_within_the_stated_error(vae: VAE, name: str) -> None:
    estimator = ESTIMATORS[name]
    estimate = estimator.estimate(vae, IMAGES, seed=0)
    probability, variance = estimate.log_likelihood.exp(), estimate.variance
    if isinstance(estimator, PosteriorDensity):  # of 1 / p(x) it is unbiased, and 1 over that too large by its variance
        probability = probability * (1 - variance)
    if estimator.bias == "none":  # errors that are not random may all have one sign
        error = float((probability * variance.sqrt()).sum())
    else:
        error = float((probability.square() * variance).sum().sqrt())
    assert float(probability.sum()) == pytest.approx(1, abs=6 * error) and error < 0.02


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in OF_GIVEN_IMAGES])
def test_bounds_on_drawn_images_are_unbiased_for_probabilities_that_sum_to_1(
    vae: VAE, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum over all images of an estimate of p(x) is the mean of that over p(x), of images drawn from the model."""
    drawn: list[Tensor] = []
    simulated = Noise.simulated
    monkeypatch.setattr(Noise, "simulated", lambda *of: drawn.append(simulated(*of)[1]) or simulated(*of))
    estimate = ESTIMATORS[name].estimate(vae, IMAGES, seed=0)
    exact = Quadrature(num_nodes=40).estimate(vae, torch.cat(drawn), seed=0).log_likelihood
    for ratio in ((estimate.log_likelihood - exact).exp(), (exact - estimate.beside["upper"]).exp()):
        assert abs(float(ratio.mean()) - 1) < float(six_standard_errors(ratio)) < 0.2
