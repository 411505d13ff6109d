"""The forward and backward pass of a training step as generated C++: fewer, fused loops over memory, on a CPU."""

import os
import shutil
from collections.abc import Callable

import torch

from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState


def compiled_terms(objective: Objective, model: VAE, num_train: int) -> Callable[[Minibatch], Terms]:
    """The only update of a minibatch, compiled when it is first asked for; its noise is that of the uncompiled one.

    For an objective whose updates no longer depend on the state of the training: see `Objective.steady_from`.
    """

    def terms_of(batch: Minibatch) -> Terms:
        (terms,) = objective.updates(model, batch, TrainingState(objective.steady_from, num_train))
        return terms

    return torch.compile(terms_of, options={"fallback_random": True})


def why_not_compiled(objective: Objective, device: str, num_processes: int) -> str:
    """Why a training cannot be compiled; empty if it can."""
    if not objective.has_one_update:
        return f"{type(objective).__name__} has several updates for a minibatch, and each is a step of its own"
    if device != "cpu":
        return "the training is not on the CPU; on a GPU cuda_graph=true does more"
    if num_processes > 1:
        return f"{num_processes} processes exchange their gradients"
    names = [os.environ.get("CXX", "g++"), "g++", "clang++"]
    if not any(map(shutil.which, names)):
        return "there is no C++ compiler (g++ or clang++) on this machine"
    return ""
