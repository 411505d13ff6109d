"""Annealed importance sampling against BlackJAX's tempered sequential Monte Carlo, above what quadrature can reach."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from outside import needs

from vae_lab.estimators.annealed_importance_sampling import AnnealedImportanceSampling
from vae_lab.estimators.base import LogMean
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder

pytestmark = [pytest.mark.slow, needs("blackjax")]
LATENT_DIM = 8


def tempered_smc(weights: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    """Draws of log p(x), unbiased for p(x), [draw, image]; the decoder has one hidden layer of tanh units."""
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # to compile takes far longer than to run
    jax, blackjax = import_module("jax"), import_module("blackjax")
    resampling = import_module("blackjax.smc.resampling")
    inner, inner_bias, outer, outer_bias = weights

    def log_prior(z: Any) -> Any:
        return -0.5 * (z**2).sum() - 0.5 * LATENT_DIM * np.log(2 * np.pi)

    def log_likelihood(z: Any, x: Any) -> Any:
        logits = outer @ jax.numpy.tanh(inner @ z + inner_bias) + outer_bias
        return (x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum()

    def draw(key: Any, x: Any) -> Any:
        settings = {"step_size": 0.3, "inverse_mass_matrix": np.ones(LATENT_DIM), "num_integration_steps": 4}
        smc = blackjax.tempered_smc(
            log_prior,
            partial(log_likelihood, x=x),
            blackjax.hmc.build_kernel(),
            blackjax.hmc.init,
            blackjax.smc.extend_params(settings),
            resampling.systematic,
            num_mcmc_steps=1,
        )
        start, *keys = jax.random.split(key, 21)

        def step(state: Any, this: Any) -> Any:
            state, info = smc.step(this[0], state, this[1])
            return state, info.log_likelihood_increment

        temperatures = np.linspace(0, 1, len(keys) + 1)[1:] ** 2
        particles = jax.random.normal(start, (100, LATENT_DIM))
        increments = jax.lax.scan(step, smc.init(particles), (jax.numpy.stack(keys), temperatures))[1]
        return increments.sum()

    keys = jax.random.split(jax.random.key(0), (4, len(images)))
    return np.asarray(jax.jit(jax.vmap(jax.vmap(draw), (0, None)))(keys, images))


def test_log_likelihood_by_annealed_importance_sampling_is_that_of_tempered_smc() -> None:
    network: dict[str, Any] = {"hidden": [16], "activation": "tanh"}
    vae = VAE(
        (1, 4, 5),
        LATENT_DIM,
        encoder=partial(MLPEncoder, **network),
        decoder=partial(MLPDecoder, **network),
        likelihood=BernoulliLikelihood,
        initialization=PyTorchDefault(),
    )
    for parameter in vae.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = vae.likelihood(vae.prior().sample((10,))).sample()
    weights = [parameter.detach().numpy() for parameter in vae.decoder.parameters()]
    # in a process of its own: with JAX in this one, others could not be forked from it
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        theirs = process.submit(tempered_smc, weights, x.flatten(1).numpy())
        estimator = AnnealedImportanceSampling(
            num_chains=64,
            num_temperatures=100,
            num_tuning_chains=2,
            num_leapfrog=2,
            initial_step_size=0.5,
            target_acceptance=0.8,
        )
        ours = estimator.estimate(vae, x, seed=0)
        smc = LogMean()
        smc.add(torch.from_numpy(theirs.result()))
    away, variance = ours.log_likelihood - smc.value, ours.variance + smc.variance
    assert (away.abs() <= 6 * variance.sqrt()).all()
    assert abs(float(away.mean())) <= 6 * float(variance.sum().sqrt()) / len(x) < 0.3
