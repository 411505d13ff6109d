"""Hamiltonian Monte Carlo: leapfrog, accept or reject, step-size tuning (appendices D and E).

Batched over chains and free of any model: a density is a function from positions `[*chain, dim]` to log
densities `[*chain]`, known up to a constant. Noise is passed in: a transition is a function of its arguments:

    state = start(log_density, position)
    for _ in range(num_transitions):
        momentum, uniform = torch.randn_like(state.position), torch.rand_like(state.log_density)
        state, acceptance = transition(log_density, state, step_size.value, 10, momentum, uniform)
        step_size.update(acceptance)  # in burn-in; where an estimate is made, `step_size.settled` stays as it is
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vae_lab.errors import require_integer, require_number

LogDensity = Callable[[Tensor], Tensor]
"""Positions [*chain, dim] -> log densities [*chain]; every chain's value depends on its own position only."""


@dataclass(frozen=True)
class State:
    """Where the chains are, with the density and its gradient there, so that neither is computed twice."""

    position: Float[Tensor, "*chain dim"]
    log_density: Float[Tensor, "*chain"]
    gradient: Float[Tensor, "*chain dim"]


def start(log_density: LogDensity, position: Float[Tensor, "*chain dim"]) -> State:
    """The state at `position`; again after the density changed (a new temperature, new weights).

    Raises:
        FloatingPointError: The density is not finite there: a chain could never leave or never move.
    """
    state = evaluate(log_density, position)
    lost = int((~is_finite(state)).sum())
    if lost:
        raise FloatingPointError(
            f"{lost} of {state.log_density.numel()} HMC chains start where the log density or its gradient "
            "is not finite: the weights have diverged; lower the learning rate"
        )
    return state


def evaluate(log_density: LogDensity, position: Float[Tensor, "*chain dim"]) -> State:
    """The state at `position`, whatever its numbers are."""
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        value = log_density(position)
        (gradient,) = torch.autograd.grad(value.sum(), position)
    return State(position.detach(), value.detach(), gradient)


def is_finite(state: State) -> Bool[Tensor, "*chain"]:
    """Which chains are where a chain can be; from elsewhere none is ever accepted to move."""
    return state.log_density.isfinite() & state.gradient.isfinite().all(-1)


def transition(
    log_density: LogDensity,
    state: State,
    step_size: Float[Tensor, "..."],
    num_leapfrog: int,
    momentum: Float[Tensor, "*chain dim"],
    uniform: Float[Tensor, "*chain"],
) -> tuple[State, Float[Tensor, "*chain"]]:
    """One Metropolis-corrected leapfrog trajectory per chain, with unit mass; leaves the density invariant.

    Args:
        log_density: The target, which `state` was computed with.
        state: Where the chains are.
        step_size: One for all chains, or any shape that broadcasts to `[*chain]`.
        num_leapfrog: Leapfrog steps; each costs one gradient.
        momentum: Standard normal noise.
        uniform: Uniform noise in [0, 1).

    Returns:
        The next state and each chain's acceptance probability. A trajectory that left the finite numbers has
        probability 0, as in exact arithmetic its energy would have diverged.
    """
    energy = state.log_density - 0.5 * momentum.square().sum(-1)
    end, momentum = _leapfrog(log_density, state, step_size.unsqueeze(-1), num_leapfrog, momentum)
    change = end.log_density - 0.5 * momentum.square().sum(-1) - energy
    change = torch.where(is_finite(end) & change.isfinite(), change, -math.inf)
    # uniform < exp(change), so a certain acceptance is one for uniform = 0 too, and exp(-inf) = 0 never is.
    accepted = uniform < change.exp()
    acceptance = change.clamp(max=0.0).exp()
    return _choose(accepted, end, state), acceptance


class StepSize:
    """A step size tuned to a target acceptance: log step += gain / t^decay * (acceptance - target).

    Linear in the acceptance, so what settles at the target is its *mean*. One step size for all chains
    (`initial` a scalar), or one for each entry of `initial`, shaped as the last chain dimensions: `[batch]`
    shares a datapoint's step among its chains `[sample, batch]`.

    Args:
        initial: Where to begin, > 0.
        target_acceptance: In (0, 1).
        gain: Size of the first update.
        decay: 0 keeps following a density that moves; up to 1, the later updates are the smaller ones.

    Attributes:
        value: The step size to tune with.
        settled: The step size to freeze: the geometric mean of all values, the k-th with weight k. One that stopped
            on an unlucky value may leave a chain hardly moving.
    """

    def __init__(self, initial: Float[Tensor, "..."], *, target_acceptance: float, gain: float, decay: float) -> None:
        self.value = self.settled = initial
        self.num_updates = 0
        self._target, self._gain, self._decay = target_acceptance, gain, decay

    def update(self, acceptance: Float[Tensor, "*chain"]) -> None:
        """Moves every step size by the mean acceptance of the chains that share it."""
        self.num_updates += 1
        shared = acceptance.dim() - self.value.dim()
        mean = acceptance.mean(dim=tuple(range(shared))) if shared else acceptance
        rate = self._gain / self.num_updates**self._decay
        self.value = self.value * ((mean - self._target) * rate).exp().to(self.value.dtype)
        recent = 2 / (self.num_updates + 1)
        self.settled = self.settled ** (1 - recent) * self.value**recent


def check_settings(group: str, num_leapfrog: int, initial_step_size: float, target_acceptance: float) -> None:
    """Refuses impossible settings, named by the config group that they stand in."""
    require_integer(f"{group}.num_leapfrog", num_leapfrog, minimum=1, advice="without a step no chain moves")
    require_number(f"{group}.initial_step_size", initial_step_size, advice="tuning multiplies it")
    require_number(f"{group}.target_acceptance", target_acceptance, below=1, advice="the paper tunes to 0.9")


def _leapfrog(
    log_density: LogDensity,
    state: State,
    step_size: Float[Tensor, "..."],
    num_leapfrog: int,
    momentum: Float[Tensor, "*chain dim"],
) -> tuple[State, Float[Tensor, "*chain dim"]]:
    """Half a kick, then drift and kick in turn, half a kick less at the end: reversible, preserves volume."""
    momentum = momentum + 0.5 * step_size * state.gradient
    for step in range(num_leapfrog):
        state = evaluate(log_density, state.position + step_size * momentum)
        last = step == num_leapfrog - 1
        momentum = momentum + (0.5 if last else 1.0) * step_size * state.gradient
    return state, momentum


def _choose(accepted: Bool[Tensor, "*chain"], end: State, begin: State) -> State:
    per_dim = accepted.unsqueeze(-1)
    return State(
        torch.where(per_dim, end.position, begin.position),
        torch.where(accepted, end.log_density, begin.log_density),
        torch.where(per_dim, end.gradient, begin.gradient),
    )
