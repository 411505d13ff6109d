"""A whole training step as one compiled function, on a CPU: bound, gradients, prior and optimiser as generated C++.

The networks of the paper are so small that a step's bookkeeping, and memory read once for every operation, cost about
as much as its matrix products. Compiled, everything but the products becomes a few loops over memory.
"""

import os
import shutil
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.optim import Adam, Optimizer

from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, TrainingState
from vae_lab.optimizers import Adagrad, adagrad_step, adam_factors, adam_step


class CompiledStep:
    """Presents a minibatch; returns the sums of its loss and measured parts over it, in float64.

    The noise is that of the step that is not compiled, and the numbers agree to rounding. The optimiser's state must
    exist already: its first step makes it.

    Args:
        objective: one with a single update for a minibatch that no longer depends on the training's state.
        model: what it moves; parameters that are frozen stay.
        optimizer: over the model's parameters; its own tensors are updated.
        num_train: size of the training part.
        parameter_prior: whether N(0, I) on the weights adds w / N to their gradients.
        gradient_clip_norm: the norm to which the gradient is cut; None: never.
    """

    def __init__(
        self,
        objective: Objective,
        model: VAE,
        optimizer: Optimizer,
        *,
        num_train: int,
        parameter_prior: bool,
        gradient_clip_norm: float | None,
    ) -> None:
        update = Update(objective, model, num_train)
        named = {name: parameter for name, parameter in update.named_parameters() if parameter.requires_grad}
        parameters = {name: parameter.detach() for name, parameter in named.items()}
        states = {name: optimizer.state[parameter] for name, parameter in named.items()}
        (self.settings,) = optimizer.param_groups
        self.is_adam = not isinstance(optimizer, Adagrad)
        self.factors, self.count = torch.zeros(2), next(iter(states.values()))["step"]
        fixed = {key: value for key, value in self.settings.items() if key in ("betas", "eps")}
        move = adam_step if self.is_adam else adagrad_step

        def loss_of(parameters: Mapping[str, Tensor], batch: Minibatch) -> tuple[Tensor, Tensor]:
            values = functional_call(update, dict(parameters), (batch,))
            return values[0].mean(), values.detach().sum(-1, dtype=torch.float64)

        def step(batch: Minibatch, factors: Tensor) -> Tensor:
            gradients, sums = grad(loss_of, has_aux=True)(parameters, batch)
            if parameter_prior:
                weights = {name for name, parameter in parameters.items() if parameter.dim() > 1}
                gradients = {
                    name: gradient + parameters[name] / num_train if name in weights else gradient
                    for name, gradient in gradients.items()
                }
            if gradient_clip_norm is not None:
                norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
                share = (gradient_clip_norm / (norm + 1e-6)).clamp(max=1.0)
                gradients = {name: gradient * share for name, gradient in gradients.items()}
            for name, parameter in parameters.items():
                move(parameter, gradients[name], states[name], factors, fixed)
            return sums

        # What a step depends on never changes, so nothing is looked at again before each; but torch keeps what it
        # compiled by the code object, and another training in this process must not find it there.
        own = FunctionType(step.__code__.replace(), globals(), closure=step.__closure__)
        unguarded = torch.compiler.skip_all_guards_unsafe
        self.step = torch.compile(own, options={"fallback_random": True, "guard_filter_fn": unguarded})

    @torch.no_grad()
    def __call__(self, batch: Minibatch) -> Tensor:
        """The sums of this minibatch."""
        rate = self.settings["lr"]
        if self.is_adam:
            self.factors.copy_(torch.tensor(adam_factors(rate, self.count.item() + 1, self.settings["betas"])))
        else:
            self.factors.fill_(rate)
        return self.step(batch, self.factors)


class Update(nn.Module):
    """The only update of a minibatch: its loss and its measured parts, [values, batch]."""

    def __init__(self, objective: Objective, model: VAE, num_train: int) -> None:
        super().__init__()
        self.objective, self.model = objective, model
        self.state = TrainingState(objective.steady_from, num_train)

    def forward(self, batch: Minibatch) -> Tensor:
        """The loss comes first."""
        (terms,) = self.objective.updates(self.model, batch, self.state)
        return torch.stack([terms.loss, *terms.parts.values()])


def why_not_compiled(objective: Objective, optimizer: Optimizer, device: str, num_processes: int) -> str:
    """Why the steps of a training cannot be compiled; empty if they can."""
    if not objective.has_one_update:
        return f"{type(objective).__name__} has several updates for a minibatch, and each is a step of its own"
    if device != "cpu":
        return "the training is not on the CPU; on a GPU cuda_graph=true does more"
    if num_processes > 1:
        return f"{num_processes} processes exchange their gradients"
    if reason := unknown_rule(optimizer):
        return reason
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "there is no C++ compiler (g++ or clang++) on this machine"
    return ""


def unknown_rule(optimizer: Optimizer) -> str:
    """Why the optimiser's rule cannot be part of the compiled step; empty if it can."""
    if isinstance(optimizer, Adagrad):
        return ""
    if type(optimizer) is not Adam:
        return f"the step of {type(optimizer).__name__} is not known to it; Adam's and this lab's Adagrad's are"
    plain: dict[str, Any] = {"weight_decay": 0, "amsgrad": False, "maximize": False}
    changed = [key for key, value in plain.items() if optimizer.defaults[key] != value]
    return f"of Adam it does not know {', '.join(changed)}" if changed else ""
