"""How the steps of a training are computed: eager, captured or compiled, and from which count of samples on."""

import logging

import torch

from vae_lab.optimizers import lay_out_state
from vae_lab.training.compiled import Compiler
from vae_lab.training.step import WARM_UP_STEPS, EagerStep, Step, prepare, why_not_captured

log = logging.getLogger("vae_lab")


def make_step(
    eager: EagerStep,
    *,
    device: torch.device,
    num_processes: int,
    samples: int,
    samples_per_step: int,
    cuda_graph: bool,
    compile: bool | int,
    why_not_compiled: str,
) -> tuple[Step, Compiler | None]:
    """The step of a training that begins, or goes on, on this device; and what makes the compiled one, if any does.

    Args:
        eager: the step itself, whose optimiser is laid out for the kind that is chosen.
        device: where model and optimiser are.
        num_processes: that share the minibatches.
        samples: training datapoints presented so far.
        samples_per_step: how many a step presents.
        cuda_graph: whether a GPU's steps are to be captured.
        compile: whether a CPU's are to be compiled: false, true, or from which count of samples on.
        why_not_compiled: why they cannot be; empty if they can.
    """
    reason = why_not_captured(eager.objective, eager.optimizer, device, num_processes)
    captured = cuda_graph and not reason
    if cuda_graph and device.type == "cuda":
        log.info("CUDA graph: %s", f"none, since {reason}" if reason else "the training's steps will be captured")
    lay_out_state(eager.optimizer)
    prepare(eager.optimizer, captured=captured)
    if why_not_compiled and device.type == "cpu":  # as where a run goes on that was planned for other processes
        log.warning("the training step is not compiled: %s", why_not_compiled)
    compiler = None
    if compile is not False and not captured and not why_not_compiled:
        count, required = (0, True) if compile is True else (compile, False)
        compiler = Compiler(count, threads=torch.get_num_threads(), required=required)
        compiler.begin(samples)
    # the first steps make the optimiser's state and name the terms; a continued training has both, and goes on as it
    # would have
    warm_up = WARM_UP_STEPS * samples_per_step + (samples if captured else 0)
    fast_from = max(warm_up, eager.objective.traits.steady_from)
    return Step(eager, fast_from=fast_from, captured=captured, compiled=compiler), compiler
