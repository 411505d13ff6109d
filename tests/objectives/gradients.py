"""Gradients that the updates of an objective leave behind, as the training loop would see them."""

from typing import Any

import torch
from torch import Tensor

from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective, TrainingState


def minibatch(x: Tensor) -> Minibatch:
    return Minibatch(x, torch.arange(len(x)))


def update_gradients(objective: Objective, model: VAE, x: Tensor, num_train: int = 1000) -> list[dict[str, Any]]:
    """Per update: the gradient of the mean loss for every parameter, None where there is none."""
    gradients: list[dict[str, Any]] = []
    for terms in objective.updates(model, minibatch(x), TrainingState(0, num_train)):
        model.zero_grad(set_to_none=True)
        terms.loss.mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    return gradients


def gradient_draws(objective: Objective, model: VAE, x: Tensor, num_draws: int, update: int = 0) -> dict[str, Tensor]:
    """`[draw, ...]` gradients of one of the updates, for every parameter that it moves."""
    draws = [update_gradients(objective, model, x)[update] for _ in range(num_draws)]
    moved = [name for name, gradient in draws[0].items() if gradient is not None]
    return {name: torch.stack([draw[name] for draw in draws]) for name in moved}
