"""A training step of algorithm 1: all updates of one minibatch, eager, captured as a CUDA graph, or compiled.

The networks of the paper are so small that a step's bookkeeping costs about as much as its matrix products: a GPU waits
for the processor that launches its kernels, a CPU for memory that is read once for every operation. Once every step is
the same as the one before, it can be recorded and replayed by a single launch, or become generated C++ loops
(`compiled.py`). The noise is the same in all three, so the numbers agree: those of a replay to the order of its sums,
compiled ones to rounding.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState
from vae_lab.optimizers import Adagrad, move

Move = Callable[[Sequence[nn.Parameter], Sequence[Tensor | None]], None]
"""Moves parameters along their gradients."""

WARM_UP_STEPS = 3
"""Eager steps before a fast one, so that libraries and optimiser have their memory."""
LOSS = "loss of update "
"""What precedes the number of an update in the name of its loss, which is measured beside the terms."""


@dataclass
class EagerStep:
    """One step of the optimiser for every update of the objective.

    Args:
        objective: whose updates these are.
        model: what they move, beside the objective's own parameters; what is frozen stays.
        optimizer: over the parameters of both.
        num_train: size of the training split.
        parameter_prior: whether N(0, I) on the weights adds w / N to their gradients.
        gradient_clip_norm: the norm to which the gradient is cut; None: never.
        backward: what leaves the gradients of a loss in the parameters, where PyTorch's own is not enough.
        measured: the names of what it returns, where they are known from a training that is continued.
    """

    objective: Objective
    model: VAE
    optimizer: Optimizer
    _: KW_ONLY
    num_train: int
    parameter_prior: bool
    gradient_clip_norm: float | None
    backward: Callable[[Tensor], None] | None = None
    measured: list[str] = field(default_factory=list)

    def __call__(self, batch: Minibatch, samples: int) -> Tensor:
        """The sums over a minibatch of its losses and measured terms, named by `measured`.

        Before it, `samples` training datapoints have been presented.
        """
        return self.present(batch, samples, partial(move, self.optimizer))

    def present(self, batch: Minibatch, samples: int, move: Move) -> Tensor:
        """Makes all updates of a minibatch, moving parameters by `move`; returns the sums of what is logged."""
        sums, self.measured = [], []
        state = TrainingState(samples, self.num_train)
        for i, terms in enumerate(self.objective.updates(self.model, batch, state)):
            moved = [parameter for parameter in terms.moves.parameters() if parameter.requires_grad]
            move(moved, self.gradients(terms, moved))
            values = {f"{LOSS}{i}": terms.loss, **terms.logged}
            sums.append(torch.stack([value.detach() for value in values.values()]).sum(-1, dtype=torch.float32))
            self.measured += values
        return sums[0] if len(sums) == 1 else torch.cat(sums)

    def gradients(self, terms: Terms, moved: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """What an update steps along, for each of the parameters that it moves."""
        loss = terms.loss.mean()  # the only mean over a batch in a training
        gradients: Sequence[Tensor | None]
        if self.backward is None:
            gradients = torch.autograd.grad(loss, moved, allow_unused=True)
        else:
            for parameter in moved:
                parameter.grad = None
            self.backward(loss)
            gradients = [parameter.grad for parameter in moved]
        if self.parameter_prior:  # the gradient of -log N(w; 0, I) / N
            weights = set(map(id, self.model.weights()))
            gradients = [
                g if g is None or id(w) not in weights else g + w.detach() / self.num_train
                for w, g in zip(moved, gradients, strict=True)
            ]
        if self.gradient_clip_norm is not None:
            norm = nn.utils.get_total_norm([g for g in gradients if g is not None])
            share = (self.gradient_clip_norm / (norm + 1e-6)).clamp(max=1.0)
            gradients = [None if g is None else g * share for g in gradients]
        return gradients


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


@dataclass
class Step:
    """An eager step, until it has come to be the same every time; from then on the fast one that was chosen.

    Args:
        eager: the step itself.
        fast_from: training samples from which on a fast step may take its place.
        captured: whether that is a captured one.
        compiled: makes, if not, a compiled one of the eager one; None: there is none.
    """

    eager: EagerStep
    _: KW_ONLY
    fast_from: int
    captured: bool
    compiled: Callable[[EagerStep, Minibatch, int], Callable[[Minibatch], Tensor] | None] | None = None
    fast: Callable[[Minibatch], Tensor] | None = field(default=None, init=False)

    def __call__(self, batch: Minibatch, samples: int) -> Tensor:
        """All updates of one minibatch, after `samples` training datapoints: what `EagerStep` returns."""
        if self.fast is not None:
            return self.fast(batch)
        may_be_fast = (self.captured or self.compiled) and samples >= self.fast_from
        if not (may_be_fast and is_steady(self.eager.optimizer)):
            return self.eager(batch, samples)
        if self.captured:
            self.fast = CapturedStep(lambda static: self.eager(static, samples), batch)
        elif self.compiled is not None:
            self.fast = self.compiled(self.eager, batch, samples)
        return self.fast(batch) if self.fast is not None else self.eager(batch, samples)


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
