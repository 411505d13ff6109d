"""The lab's estimators on a decoder: importance sampling, and Hamiltonian Monte Carlo's transitions."""

import tempfile
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.conditions import Conditions, matmul_precision, set_matmul_precision
from benchmarks.lab import train_config, training_images
from benchmarks.sides import Throughput
from vae_lab import hmc
from vae_lab.jobs.assemble import assemble
from vae_lab.model import VAE
from vae_lab.runs.directory import RunDir
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command


class WithModel(Throughput):
    """A side that works with the untrained model of an experiment, through the library that the lab chooses."""

    def __init__(self, name: str, overrides: Sequence[str], conditions: Conditions, *, unit: int) -> None:
        super().__init__(name, unit=unit)
        self.conditions = conditions
        self.config = train_config(overrides, conditions)

    def prepare(self, seconds: float) -> None:
        """The model as `vae-lab train` makes it."""
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder:
            parts = assemble(self.config, RunDir(Path(folder) / "run"))
        self.precision = matmul_precision()
        self.model: VAE = parts.lit.model.to(self.conditions.device).eval()
        super().prepare(seconds)

    def work(self, amount: int) -> float:
        """The seconds of `do`."""
        set_matmul_precision(self.precision)
        self.conditions.synchronize()
        started = time.perf_counter()
        self.do(amount)
        self.conditions.synchronize()
        return time.perf_counter() - started

    @abstractmethod
    def do(self, amount: int) -> None:
        """The work itself."""


class ImportanceSampling(WithModel):
    """Datapoints x samples per second of an estimate of log p(x).

    A measurement takes all the datapoints, whatever time that is. They should be whole blocks of noise, as nearly all
    are in an evaluation of a test part: the noise of a block is drawn at once.
    """

    def __init__(self, name: str, num_samples: int, num_datapoints: int, conditions: Conditions) -> None:
        super().__init__(name, ["experiment=mnist"], conditions, unit=num_samples)
        evaluate = ["run=none", "estimator=importance_sampling", f"estimator.num_samples={num_samples}"]
        self.estimator = build.instantiate(compose_command("evaluate", evaluate)[0]["estimator"], "estimator")
        self.images = training_images("mnist")[:num_datapoints]

    def calibrate(self, seconds: float) -> None:
        """A datapoint to get warm."""
        self.work(self.unit)
        self.amount = len(self.images) * self.unit

    def amount_for(self, seconds: float, speed: float) -> int:
        """All of it."""
        return self.amount

    def do(self, amount: int) -> None:
        """As many datapoints as the amount says."""
        self.estimator.estimate(self.model, self.images[: amount // self.unit], seed=0)


class Transitions(WithModel):
    """Transitions of Hamiltonian chains per second on p(z|x) of an experiment's model, a chain for each datapoint."""

    def __init__(self, name: str, num_chains: int, num_leapfrog: int, conditions: Conditions) -> None:
        super().__init__(name, ["experiment=mnist"], conditions, unit=num_chains)
        self.num_leapfrog = num_leapfrog
        self.images = training_images("mnist")[:num_chains]

    def prepare(self, seconds: float) -> None:
        """The data where the chains are."""
        self.images = self.images.to(self.conditions.device)
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        """So many transitions, one of every chain at a time."""
        device = self.images.device
        step_size = torch.tensor(0.05, device=device)
        state = hmc.start(self.log_density, torch.randn(self.unit, self.model.latent_dim, device=device))
        for _ in range(amount // self.unit):
            momentum, uniform = torch.randn_like(state.position), torch.rand_like(state.log_density)
            state, _ = hmc.transition(self.log_density, state, step_size, self.num_leapfrog, momentum, uniform)

    def log_density(self, z: Tensor) -> Tensor:
        """The sum log p(x, z) at the chains' positions."""
        return self.model.log_joint(self.images, z)
