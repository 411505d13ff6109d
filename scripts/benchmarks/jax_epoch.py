"""JAX with optax: an epoch of the MNIST network is one compiled function, a scan over minibatches."""

import os
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.conditions import Conditions
from benchmarks.sides import Throughput

BATCH_SIZE = 100
WIDTHS = {"hidden": (784, 500), "posterior": (500, 40), "features": (20, 500), "logits": (500, 784)}
"""Of the layers, in and out: 784-500-20-500-784."""


class JaxEpoch(Throughput):
    """Samples per second of whole epochs in float32; the seconds of the compilation are a fact of its own.

    Args:
        name: as for every side.
        images: in [0, 1].
        conditions: the device.
    """

    def __init__(self, name: str, images: Tensor, conditions: Conditions) -> None:
        super().__init__(name, unit=len(images) // BATCH_SIZE * BATCH_SIZE, packages=("jax", "optax"))
        self.images, self.device = images, conditions.device
        if self.device == "cuda" and not self.absent_because and not has_gpu():
            self.absent_because = "JAX finds no GPU: pip install 'jax[cuda13]'"
        self.losses: list[float] = []
        """The mean loss of every epoch so far: minus the bound in nats."""

    def prepare(self, seconds: float) -> None:
        """Compiles, then trains the first epochs."""
        jax = import_module("jax")
        place = jax.devices("gpu" if self.device == "cuda" else "cpu")[0]
        self.pixels = jax.device_put(self.images.flatten(1).numpy(), place)
        parameters = jax.device_put(initial_parameters(), place)
        optimizer = import_module("optax").adam(1e-3)
        self.state = (parameters, jax.jit(optimizer.init)(parameters), jax.device_put(jax.random.key(0), place))
        started = time.perf_counter()
        self.epoch = jax.jit(epoch_of(optimizer), donate_argnums=0).lower(self.state, self.pixels).compile()
        self.facts["compile_seconds"] = time.perf_counter() - started
        super().prepare(seconds)

    def work(self, amount: int) -> float:
        """So many whole epochs."""
        started = time.perf_counter()
        for _ in range(amount // self.unit):
            self.state, loss = self.epoch(self.state, self.pixels)
            self.losses.append(float(loss))  # waits for the epoch
        return time.perf_counter() - started


def has_gpu() -> bool:
    """Whether JAX was installed with what it needs for the GPU, whose memory it is not to take as a whole."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        return bool(import_module("jax").devices("gpu"))
    except RuntimeError:
        return False


def epoch_of(optimizer: Any) -> Any:
    """(parameters, optimiser's state, random key), images -> the same after an epoch, and the mean loss."""
    jax = import_module("jax")
    jnp = import_module("jax.numpy")

    def loss_of(parameters: Any, x: Any, key: Any) -> Any:
        mean, log_variance = jnp.split(layer(parameters["posterior"], encode(parameters, x)), 2, axis=-1)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        logits = layer(parameters["logits"], jnp.tanh(layer(parameters["features"], z)))
        reconstruction = jnp.sum(jax.nn.softplus(logits) - x * logits)
        kl = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
        return (reconstruction + kl) / len(x)

    def encode(parameters: Any, x: Any) -> Any:
        return jnp.tanh(layer(parameters["hidden"], x))

    def epoch(state: Any, images: Any) -> Any:
        parameters, optimizer_state, key = state
        key, order_key, noise_key = jax.random.split(key, 3)
        steps = len(images) // BATCH_SIZE
        order = jax.random.permutation(order_key, len(images))[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)

        def step(carry: Any, inputs: Any) -> Any:
            parameters, optimizer_state = carry
            rows, key = inputs
            loss, gradients = jax.value_and_grad(loss_of)(parameters, images[rows], key)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
            parameters = jax.tree_util.tree_map(jnp.add, parameters, updates)
            return (parameters, optimizer_state), loss

        carry, losses = jax.lax.scan(step, (parameters, optimizer_state), (order, jax.random.split(noise_key, steps)))
        return (*carry, key), losses.mean()

    return epoch


def layer(parameters: Any, x: Any) -> Any:
    """A linear map with its bias."""
    return x @ parameters["weight"] + parameters["bias"]


def initial_parameters() -> Mapping[str, Mapping[str, np.ndarray]]:
    """Uniform in +-1 / sqrt(inputs), as PyTorch draws its layers."""
    random = np.random.default_rng(0)

    def draw(inputs: int, *shape: int) -> np.ndarray:
        return random.uniform(-(inputs**-0.5), inputs**-0.5, shape).astype(np.float32)

    return {
        name: {"weight": draw(inputs, inputs, outputs), "bias": draw(inputs, outputs)}
        for name, (inputs, outputs) in WIDTHS.items()
    }
