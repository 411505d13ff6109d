"""The lab's estimators on a decoder, beside the matrix products that they cannot do without."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.conditions import MATMUL, Conditions
from benchmarks.hand_written import FORWARD, INPUT_GRADIENTS, MNIST, limits
from benchmarks.lab import train_config, training_images
from benchmarks.sides import Case, Throughput, ratio
from vae_lab import hmc as chains
from vae_lab.jobs.assemble import assemble
from vae_lab.model import VAE
from vae_lab.randomness import NOISE_BLOCK
from vae_lab.runs.directory import RunDir
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command


class WithModel(Throughput):
    """A side that works with the untrained model of an experiment, through the library that the lab chooses."""

    def __init__(
        self, overrides: list[str], unit: int, task: Callable[[VAE, int], object], conditions: Conditions
    ) -> None:
        super().__init__("ours", conditions, unit=unit)
        self.task, self.config = task, train_config(overrides, conditions)

    def prepare(self, seconds: float) -> None:
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            model = assemble(self.config, RunDir(Path(folder) / "run")).lit.model
        self.precision, self.model = MATMUL.fp32_precision, model.to(self.conditions.device).eval()
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        MATMUL.fp32_precision = self.precision
        self.task(self.model, amount)


def importance_sampling(conditions: Conditions) -> Case:
    """Importance sampling of log p(x), K = 5000, on the model of experiment=mnist.

    The datapoints are whole blocks of noise, as nearly all are in an evaluation of a test set: the noise of a block is
    drawn at once.
    """
    overrides = ["run=none", "estimator=importance_sampling", "estimator.num_samples=5000"]
    estimator = build.instantiate(compose_command("evaluate", overrides)[0]["estimator"], "estimator")
    images = training_images("mnist")[: (1 if conditions.device == "cpu" else 20) * NOISE_BLOCK]

    def estimate(model: VAE, amount: int) -> None:
        for _ in range(amount // (5000 * len(images))):
            estimator.estimate(model, images, seed=0)

    ours = WithModel(["experiment=mnist"], 5000 * len(images), estimate, conditions)
    products = limits(MNIST.networks()[1:], 1000, FORWARD, conditions)
    compared = ratio("ours", products, "ours / matrix products of the decoder", at_least=0.5)
    return Case([ours, *products], [compared], "datapoints x samples/s", most_repeats=3)


def hmc(conditions: Conditions) -> Case:
    """Hamiltonian transitions of 1,000 chains with 10 leapfrog steps on p(z|x) of the model of experiment=mnist."""
    device, images = conditions.device, training_images("mnist")[:1000].to(conditions.device)

    def move(model: VAE, amount: int) -> None:
        def log_density(z: Tensor) -> Tensor:
            return model.log_joint(images, z)

        state = chains.start(log_density, torch.randn(1000, model.latent_dim, device=device))
        step_size = torch.tensor(0.05, device=device)
        for _ in range(amount // 1000):
            momentum, uniform = torch.randn_like(state.position), torch.rand_like(state.log_density)
            state, _ = chains.transition(log_density, state, step_size, 10, momentum, uniform)

    ours = WithModel(["experiment=mnist"], 1000, move, conditions)
    products = limits(MNIST.networks()[1:], 1000, INPUT_GRADIENTS, conditions, passes=10)
    compared = ratio("ours", products, "ours / matrix products of the gradients")
    return Case([ours, *products], [compared], "transitions/s")
