"""A training step of algorithm 1: all updates of one minibatch, eager, captured as a CUDA graph, or compiled.

The networks of the paper are so small that a step's bookkeeping costs about as much as its matrix products: a GPU waits
for the processor that launches its kernels, a CPU for memory that is read once for every operation. Once every step is
the same as the one before, it can be recorded and replayed by a single launch, or become generated C++ loops. The noise
is the same in all three, so the numbers agree: those of a replay to the order of its sums, compiled ones to rounding.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.optim import Adam, Optimizer

from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState
from vae_lab.optimizers import Adagrad, adagrad_step, adam_factors, adam_step

WARM_UP_STEPS = 3
"""Eager steps before a fast one, so that libraries and optimiser have their memory."""
LOSS = "loss of update "
"""What precedes the number of an update in the name of its loss, which is measured beside the terms."""


class EagerStep:
    """One step of the optimiser for every update of the objective.

    Args:
        objective: whose updates these are.
        model: what they move, beside the objective's own parameters; what is frozen stays.
        optimizer: over the parameters of both.
        num_train: size of the training split.
        parameter_prior: whether N(0, I) on the weights adds w / N to their gradients.
        gradient_clip_norm: the norm to which the gradient is cut; None: never.
        backward: what computes the gradients of a loss.
        measured: the names of what it returns, where they are known from a training that is continued.
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
        backward: Callable[[Tensor], None] = Tensor.backward,
        measured: Sequence[str] = (),
    ) -> None:
        self.objective, self.model, self.optimizer, self.num_train = objective, model, optimizer, num_train
        self.parameter_prior, self.gradient_clip_norm, self.backward = parameter_prior, gradient_clip_norm, backward
        self.trained = [*model.parameters(), *objective.parameters()]
        self.measured = list(measured)

    def __call__(self, batch: Minibatch, samples: int) -> Tensor:
        """The sums over a minibatch of its losses and measured terms, named by `measured`, in float64.

        Before it, `samples` training datapoints have been presented.
        """
        sums, self.measured = [], []
        state = TrainingState(samples, self.num_train)
        for i, terms in enumerate(self.objective.updates(self.model, batch, state)):
            self.update(terms)
            values = {f"{LOSS}{i}": terms.loss, **terms.logged}
            sums.append(torch.stack([value.detach() for value in values.values()]).sum(-1, dtype=torch.float64))
            self.measured += values
        return torch.cat(sums)

    def update(self, terms: Terms) -> None:
        """One step of the optimiser on the parameters that `terms` moves, and on no others."""
        for parameter in self.trained:
            parameter.grad = None
        self.backward(terms.loss.mean())  # the only mean over a batch in an eager training
        if terms.moves is not self.model:
            for parameter in set(self.trained).difference(terms.moves.parameters()):
                parameter.grad = None
        if self.parameter_prior:  # the gradient of -log N(w; 0, I) / N
            for weight in self.model.weights():
                if weight.grad is not None:
                    weight.grad.add_(weight.detach(), alpha=1.0 / self.num_train)
        if self.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(terms.moves.parameters(), self.gradient_clip_norm)
        self.optimizer.step()


class CapturedStep:
    """Presents a minibatch by replaying the recorded kernels of `step`; what it returns is the step's own record.

    Args:
        step: presents a minibatch on the device without ever waiting for it; a function of tensors only.
        like: a minibatch of the shape that all of them have.
    """

    record: Tensor
    """What the step returned when it was captured; every replay writes there."""

    def __init__(self, step: Callable[[Minibatch], Tensor], like: Minibatch) -> None:
        self.batch = Minibatch(like.x.clone(), like.index.clone())

        def present() -> None:
            self.record = step(self.batch)

        self.graph = recorded(present)

    def __call__(self, batch: Minibatch) -> Tensor:
        """The record of this minibatch's step."""
        self.batch.x.copy_(batch.x)
        self.batch.index.copy_(batch.index)
        self.graph.replay()
        return self.record.clone()


def recorded(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """The kernels that `work` launches, recorded and not run.

    On a stream that nothing else uses: before torch 2.15 cuBLAS has one workspace for a stream, and that of this graph
    must belong to no other training of the process.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        work()
    return graph


class CompiledStep:
    """The only update of a minibatch as one compiled function: bound, gradients, prior and optimiser.

    The objective's updates no longer depend on the training's state, and that of the optimiser exists already.
    """

    def __init__(self, eager: EagerStep) -> None:
        update = Update(eager.objective, eager.model, eager.num_train)
        num_train, parameter_prior, gradient_clip_norm = (
            eager.num_train,
            eager.parameter_prior,
            eager.gradient_clip_norm,
        )
        named = {name: parameter for name, parameter in update.named_parameters() if parameter.requires_grad}
        parameters = {name: parameter.detach() for name, parameter in named.items()}
        states = {name: eager.optimizer.state[parameter] for name, parameter in named.items()}
        (self.settings,) = eager.optimizer.param_groups
        self.is_adam = not isinstance(eager.optimizer, Adagrad)
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
    """The only update of a minibatch: its loss and its measured terms, [values, batch]."""

    def __init__(self, objective: Objective, model: VAE, num_train: int) -> None:
        super().__init__()
        self.objective, self.model = objective, model
        self.state = TrainingState(objective.traits.steady_from, num_train)

    def forward(self, batch: Minibatch) -> Tensor:
        """The loss comes first."""
        (terms,) = self.objective.updates(self.model, batch, self.state)
        return torch.stack([terms.loss, *terms.logged.values()])


class Step:
    """An eager step, until it has come to be the same every time; from then on the fast one that was chosen.

    Args:
        eager: the step itself.
        fast_from: training samples from which on a fast step may take its place.
        captured: whether that is a captured one.
        compiled: whether, if not, it is a compiled one.
    """

    def __init__(self, eager: EagerStep, *, fast_from: int, captured: bool, compiled: bool) -> None:
        self.eager, self.fast_from, self.captured, self.compiled = eager, fast_from, captured, compiled
        self.fast: Callable[[Minibatch], Tensor] | None = None

    def __call__(self, batch: Minibatch, samples: int) -> Tensor:
        """All updates of one minibatch, after `samples` training datapoints: what `EagerStep` returns."""
        if self.fast is not None:
            return self.fast(batch)
        may_be_fast = (self.captured or self.compiled) and samples >= self.fast_from
        if not (may_be_fast and is_steady(self.eager.optimizer)):
            return self.eager(batch, samples)
        if self.captured:
            self.fast = CapturedStep(lambda static: self.eager(static, samples), batch)
        else:
            self.fast = CompiledStep(self.eager)
        return self.fast(batch)


def is_steady(optimizer: Optimizer) -> bool:
    """Whether a step of the optimiser has come to be the same sequence of kernels every time."""
    return optimizer.is_warm if isinstance(optimizer, Adagrad) else True


def why_not_captured(objective: Objective, optimizer: Optimizer, device: torch.device, num_processes: int) -> str:
    """Why the steps of a training are not captured; empty if they are."""
    if device.type != "cuda":
        return f"the training is on the {device.type}"
    if num_processes > 1:
        return "several processes exchange their gradients"
    if objective.traits.not_captured_because:
        return objective.traits.not_captured_because
    if not isinstance(optimizer, Adagrad) and "capturable" not in optimizer.defaults:
        return f"torch's {type(optimizer).__name__} cannot be captured; Adam and this lab's Adagrad can"
    return ""


def prepare(optimizer: Optimizer, *, captured: bool) -> None:
    """Makes the optimiser's numbers tensors that replayed kernels read, or plain numbers again.

    A checkpoint may come from a training of the other kind.
    """
    # torch's remark on the first steps, which are not replayed
    warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if "capturable" in group:
            group["capturable"] = captured
        rate = float(group["lr"])
        group["lr"] = torch.tensor(rate, device=device) if captured else rate
        if captured and "capturable" in group:
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = state["step"].to(device)


def why_not_compiled(objective: Objective, optimizer: Optimizer, device: str, num_processes: int) -> str:
    """Why the steps of a training cannot be compiled; empty if they can."""
    if not objective.traits.has_one_update:
        return f"{type(objective).__name__} has several updates for a minibatch, and each is a step of its own"
    if device != "cpu":
        return "the training is not on the CPU; on a GPU cuda_graph=true does more"
    if num_processes > 1:
        return f"{num_processes} processes exchange their gradients"
    if not isinstance(optimizer, Adagrad):
        if type(optimizer) is not Adam:
            return f"the step of {type(optimizer).__name__} is not known to it; Adam's and this lab's Adagrad's are"
        plain: dict[str, Any] = {"weight_decay": 0, "amsgrad": False, "maximize": False}
        if changed := [key for key, value in plain.items() if optimizer.defaults[key] != value]:
            return f"of Adam it does not know {', '.join(changed)}"
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "there is no C++ compiler (g++ or clang++) on this machine"
    return ""
