"""Estimators beside the matrix products that they cannot do without."""

from benchmarks.comparisons import ratio
from benchmarks.conditions import Conditions
from benchmarks.estimators import ImportanceSampling, Transitions
from benchmarks.matrix_products import FORWARD, INPUT_GRADIENTS, limits
from benchmarks.sides import Case
from vae_lab.randomness import NOISE_BLOCK

OURS = "ours"
DECODER_WIDTHS = ((20, 500), (500, 784))
NUM_SAMPLES = 5000
NUM_CHAINS, NUM_LEAPFROG = 1000, 10


def importance_sampling(conditions: Conditions) -> Case:
    """The log p(x) of images with 5,000 samples each."""
    products = limits(DECODER_WIDTHS, 1000, FORWARD, conditions)
    blocks = 1 if conditions.device == "cpu" else 20
    return Case(
        f"importance sampling with K = {NUM_SAMPLES} on the model of experiment=mnist",
        "datapoints x samples/s",
        [ImportanceSampling(OURS, NUM_SAMPLES, blocks * NOISE_BLOCK, conditions), *products],
        [ratio(OURS, [side.name for side in products], at_least=0.5, name="ours / matrix products of the decoder")],
        most_repeats=3,
    )


def hmc(conditions: Conditions) -> Case:
    """Transitions of 1,000 chains with 10 leapfrog steps, beside the products of as many gradients."""
    products = limits(DECODER_WIDTHS, NUM_CHAINS, INPUT_GRADIENTS, conditions, passes=NUM_LEAPFROG)
    return Case(
        f"Hamiltonian Monte Carlo, {NUM_LEAPFROG} leapfrog steps, on the model of experiment=mnist",
        "transitions/s",
        [Transitions(OURS, NUM_CHAINS, NUM_LEAPFROG, conditions), *products],
        [ratio(OURS, [side.name for side in products], name="ours / matrix products of the gradients")],
    )
