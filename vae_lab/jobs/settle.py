"""What `auto` stands for in a run's config: decided when the run begins, printed in a line, and kept in the run."""

import copy
import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from vae_lab.jobs.assemble import Assembled
from vae_lab.objectives.base import Minibatch
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import samples_of
from vae_lab.training.compiled import cold_seconds, compiled_file, trace
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.matmul import choose_backend
from vae_lab.training.step import WARM_UP_STEPS, EagerStep

log = logging.getLogger("vae_lab")

LEAST_STEPS = 500
"""Fewer are over before it is known how long they take."""
GAIN, CONVOLUTIONS_GAIN = 1.4, 1.1
"""How many times as fast a compiled step is, at least nearly so; the time of a convolution stays what it is."""
WARM_SECONDS = 0.5
"""What it takes to find and load a step that has been compiled before."""
TRIAL_SECONDS = 0.15
"""The time for which the speed of a training is tried."""


def settled(config: Mapping[str, Any], assembled: Assembled, run: RunDir) -> dict[str, Any]:
    """The config with a choice of this machine in the place of every `auto` that changes the speed only."""
    changes: dict[str, Any] = {}
    if config["matmul_backend"] == "auto":
        changes["matmul_backend"] = choose_backend("auto")
    if config["compile"] == "auto":
        done = samples_of(run.last) if run.has_checkpoint else 0
        changes["compile"] = assembled.lit.compile_step = choose_compile(assembled, done)
    return {**config, **changes}


def choose_compile(assembled: Assembled, samples: int) -> bool | int:
    """The count of training samples from which on a compiled step pays, False where none does.

    Args:
        assembled: the training.
        samples: that it has behind it.
    """
    lit, threads = assembled.lit, torch.get_num_threads()
    steps = (lit.max_samples - samples) // lit.samples_per_step
    strategy = assembled.trainer.strategy
    if steps < LEAST_STEPS or lit.why_not_compiled(strategy.root_device.type, assembled.trainer.world_size):
        return False
    gain = CONVOLUTIONS_GAIN if any(weight.dim() > 2 for weight in lit.model.weights()) else GAIN
    with strategy.precision_plugin.train_step_context():
        try:
            eager, batch = trial(lit)
            each = seconds_of_step(eager, batch)
        except Exception:  # of code of anybody's: the training fails at it, and says so in its run
            return False
        eager_seconds = steps * each
        if eager_seconds * (1 - 1 / gain) < WARM_SECONDS:
            log.info("compile: no, for the whole training takes about %.0f s without", eager_seconds)
            return False
        try:
            is_there = compiled_file(trace(eager, batch, lit.max_samples), threads).is_file()
        except Exception as error:  # of code of anybody's: an update that looks at its own numbers
            log.info("compile: no, for the step cannot be traced (%s: %s)", type(error).__name__, error)
            return False
        if is_there:
            log.info("compile: from the start, by the step that was compiled before")
            return samples
        cold = cold_seconds()
        if threads == 1:
            count, taken = samples, cold + eager_seconds / gain
        else:  # it is compiled on one core, while the training goes on with the others
            torch.set_num_threads(threads - 1)
            meanwhile = round(cold / seconds_of_step(eager, batch))
            torch.set_num_threads(threads)
            count = samples + meanwhile * lit.samples_per_step
            taken = cold + (steps - meanwhile) * each / gain if meanwhile < steps else eager_seconds
    words = f"about {eager_seconds:.0f} s without, {taken:.0f} s with compiling, which takes {cold:.0f} s of them"
    if taken >= eager_seconds:
        log.info("compile: no, for the training takes %s", words)
        return False
    log.info("compile: %s; the training takes %s", f"from {count:,} samples on" if count else "from the start", words)
    return count


def trial(lit: LitVAE) -> tuple[EagerStep, Minibatch]:
    """A step of a training on copies of everything that it changes, after the first ones; a minibatch for it."""
    objective, model = copy.deepcopy((lit.objective, lit.model))
    optimizer = lit.make_optimizer([*model.parameters(), *objective.parameters()])
    eager = lit.eager_step(objective, model, optimizer)
    x = lit.data.splits["train"].images[: lit.batch_size].clone()
    batch = Minibatch(x, torch.arange(len(x)))
    with torch.random.fork_rng(devices=[]):
        for _ in range(WARM_UP_STEPS):
            eager(batch, lit.max_samples)
    return eager, batch


def seconds_of_step(eager: EagerStep, batch: Minibatch) -> float:
    """What a step takes, from as many as there is time for."""
    with torch.random.fork_rng(devices=[]):
        eager(batch, 0)
        started, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - started) < TRIAL_SECONDS:
            eager(batch, 0)
            count += 1
    return taken / count
