"""Minibatches presented by every kind of step."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood, ContinuousBernoulliLikelihood, GaussianLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState, Traits
from vae_lab.objectives.beta_vae import BetaVAE
from vae_lab.objectives.free_bits import FreeBits
from vae_lab.objectives.full_variational_bayes import FullVariationalBayes
from vae_lab.objectives.importance_weighted import ImportanceWeighted
from vae_lab.objectives.monte_carlo_em import MonteCarloEM
from vae_lab.objectives.wake_sleep import WakeSleep
from vae_lab.optimizers import Adagrad
from vae_lab.randomness import seed_global_noise
from vae_lab.training.compiled import Compiler
from vae_lab.training.step import EagerStep, Step, prepare

ADAGRAD = partial(Adagrad, lr=0.1, warmup_steps=2, eps=1e-8)
GAUSSIAN = partial(GaussianLikelihood, min_log_variance=None)
CASES = {
    "beta_vae_continuous_bernoulli": (
        partial(BetaVAE, beta=4.0, kl="sticking_the_landing", num_samples=1, kl_warmup_samples=30),
        *(Adam, ContinuousBernoulliLikelihood, False),
    ),
    "free_bits": (partial(FreeBits, free_bits=0.2, num_samples=1), ADAGRAD, BernoulliLikelihood, True),
    "aevb": (partial(AEVB, kl="closed_form", num_samples=1, kl_warmup_samples=30), Adam, BernoulliLikelihood, False),
    "dreg": (
        partial(ImportanceWeighted, num_samples=3, gradient="doubly_reparameterised"),
        *(ADAGRAD, GAUSSIAN, True),
    ),
    "full_variational_bayes": (
        partial(FullVariationalBayes, num_samples=1, initial_std=0.1),
        *(Adam, BernoulliLikelihood, False),
    ),
    "monte_carlo_em": (
        partial(
            *(MonteCarloEM,),
            **{"num_leapfrog": 2, "num_updates": 2, "initial_step_size": 0.1, "target_acceptance": 0.9},
            **{"max_step_factor": 1.25, "minibatches": True, "datapoints_at_once": 100, "count": "datapoints"},
        ),
        *(Adam, BernoulliLikelihood, True),
    ),
    "wake_sleep": (partial(WakeSleep, num_samples=1, sleep_inputs="sampled"), ADAGRAD, BernoulliLikelihood, True),
}
"""Objective, optimiser and likelihood; with the parameter prior, or with a gradient that is cut."""
COMPILED = (
    "monte_carlo_em",
    "beta_vae_continuous_bernoulli, aevb, full_variational_bayes",
    "dreg, free_bits, wake_sleep",
)
"""The cases again, those of one optimiser in turn and with the first one's likelihood: to compile takes 20 s a step."""
assert {name for names in COMPILED for name in names.split(", ")} == set(CASES)
NUM_STEPS, EAGER_STEPS, BATCH_SIZE = 10, 4, 10


class InTurn(Objective):
    """All updates of one objective, then all of the next."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.objectives: Any = nn.ModuleList(objectives)
        has_encoder = all(objective.traits.has_encoder for objective in objectives)
        steady_from = max(objective.traits.steady_from for objective in objectives)
        self.traits = Traits(has_encoder=has_encoder, steady_from=steady_from)

    def prepare(self, model: VAE, num_train: int) -> None:
        for objective in self.objectives:
            objective.prepare(model, num_train)

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        for objective in self.objectives:
            yield from objective.updates(model, batch, state)


def present(case: str, kind: str, device: str = "cpu") -> tuple[list[str], Tensor, Tensor]:
    """What some minibatches measured, by name, and the weights after them; the first steps are always eager."""
    cases = [CASES[name] for name in case.split(", ")]
    _, make_optimizer, likelihood, parameter_prior = cases[0]
    torch.manual_seed(0)
    hidden = {"hidden": [5], "activation": "tanh"}
    networks = (partial(MLPEncoder, **hidden), partial(MLPDecoder, **hidden), likelihood, PyTorchDefault())
    objective = InTurn([make() for make, *_ in cases])
    model = VAE((1, 3, 4), 2, *networks, has_encoder=objective.traits.has_encoder).to(device)
    objective.prepare(model, 100)
    optimizer = make_optimizer([*model.parameters(), *objective.parameters()])
    prepare(optimizer, captured=kind == "captured" and device == "cuda")
    schedule = ExponentialLR(optimizer, 0.9)
    eager = EagerStep(
        objective,
        model,
        optimizer,
        num_train=100,
        parameter_prior=parameter_prior,
        gradient_clip_norm=None if parameter_prior else 1.0,
    )
    fast_from = EAGER_STEPS * BATCH_SIZE
    compiler = Compiler(0, threads=torch.get_num_threads(), required=True) if kind == "compiled" else None
    step = Step(eager, fast_from=fast_from, captured=kind == "captured", compiled=compiler)
    x, index = torch.rand(NUM_STEPS, BATCH_SIZE, 1, 3, 4).to(device), torch.arange(BATCH_SIZE, device=device)
    records = []
    for i in range(NUM_STEPS):
        seed_global_noise(torch.device(device), 0, "training", i, 0)
        records.append(step(Minibatch(x[i], index), i * BATCH_SIZE))
        schedule.step()
    assert (step.fast is None) == (kind == "eager")
    if compiler is not None:
        compiler.end()
    kept = [*model.parameters(), *objective.parameters(), *objective.buffers()]
    weights = torch.cat([tensor.detach().flatten() for tensor in kept])
    return eager.measured, torch.stack(records).cpu(), weights.cpu()
