"""A training step as a CUDA graph: captured once, then replayed by a single launch instead of one for every kernel.

The networks of the paper are so small that a GPU waits for the processor that launches its kernels. Every replay draws
the noise of the seed that is set at that time, so the numbers are those of the training without a graph.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vae_lab.objectives.base import Minibatch, Objective
from vae_lab.optimizers import Adagrad

WARM_UP_STEPS = 3
"""Steps of the training itself that run without a graph first, so that libraries and optimiser have their memory."""


class CapturedStep:
    """Presents a minibatch by replaying the recorded kernels of `step`; what it returns is the step's own record.

    Args:
        step: presents a minibatch on the device without ever waiting for it; a function of tensors only.
        like: a minibatch of the shape that all of them have.
        make_graph: what records and replays.
    """

    record: Tensor
    """What the step returned when it was captured; every replay writes there."""

    def __init__(
        self,
        step: Callable[[Minibatch], Tensor],
        like: Minibatch,
        make_graph: "Callable[[Callable], Any] | None" = None,
    ) -> None:
        self.batch = Minibatch(like.x.clone(), like.index.clone())

        def present() -> None:
            self.record = step(self.batch)

        self.graph = (make_graph or recorded)(present)

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


def why_not(objective: Objective, optimizer: Optimizer, device: torch.device, num_processes: int) -> str:
    """Why the steps of a training are not captured; empty if they are."""
    if device.type != "cuda":
        return f"the training is on the {device.type}"
    if num_processes > 1:
        return "several processes exchange their gradients"
    if objective.not_captured_because:
        return objective.not_captured_because
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


def is_steady(optimizer: Optimizer) -> bool:
    """Whether a step of the optimiser has come to be the same sequence of kernels every time."""
    return optimizer.is_warm if isinstance(optimizer, Adagrad) else True
