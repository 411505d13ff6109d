"""The training of experiment=mnist by JAX with optax, an epoch in one function."""

import os
import time
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conditions import Conditions
from benchmarks.hand_written import MNIST
from benchmarks.sides import Throughput, lacking

BATCH_SIZE = MNIST.batch_size


class JaxEpoch(Throughput):
    """Samples per second of whole epochs in float32; the seconds of the compilation are a fact of its own."""

    def __init__(self, name: str, images: Tensor, conditions: Conditions) -> None:
        unit = len(images) // BATCH_SIZE * BATCH_SIZE
        super().__init__(name, conditions, unit=unit)
        self.images, self.losses = images, list[float]()
        """The mean loss of every epoch so far: minus the bound in nats."""
        self.absent_because = lacking("jax", "optax")
        if conditions.device == "cuda" and not self.absent_because and not jax_has_gpu():
            self.absent_because = "JAX finds no GPU: pip install 'jax[cuda13]'"

    def prepare(self, seconds: float) -> None:
        jax, optimizer = import_module("jax"), import_module("optax").adam(1e-3)
        place = jax.devices("gpu" if self.conditions.device == "cuda" else "cpu")[0]
        self.pixels = jax.device_put(self.images.flatten(1).numpy(), place)
        torch.manual_seed(0)
        layers = [layer for network in MNIST.networks() for layer in network.modules() if isinstance(layer, nn.Linear)]
        arrays = [(layer.weight.detach().t().numpy().copy(), layer.bias.detach().numpy()) for layer in layers]
        parameters = jax.device_put(arrays, place)
        self.state = (parameters, jax.jit(optimizer.init)(parameters), jax.device_put(jax.random.key(0), place))
        started = time.perf_counter()
        self.epoch = jax.jit(jax_epoch(optimizer), donate_argnums=0).lower(self.state, self.pixels).compile()
        self.facts["compile_seconds"] = time.perf_counter() - started
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        for _ in range(amount // self.unit):
            self.state, loss = self.epoch(self.state, self.pixels)
            self.losses.append(float(loss))  # waits for the epoch


def jax_has_gpu() -> bool:
    """Whether JAX was installed with what it needs for the GPU, whose memory it is not to take as a whole."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        return bool(import_module("jax").devices("gpu"))
    except RuntimeError:
        return False


def jax_epoch(optimizer: Any) -> Any:
    """(parameters, optimiser's state, random key), images -> the same after an epoch, and the mean loss."""
    jax, jnp = import_module("jax"), import_module("jax.numpy")

    def loss_of(parameters: Any, x: Any, key: Any) -> Any:
        hidden, posterior, features, output = (lambda x, layer=layer: x @ layer[0] + layer[1] for layer in parameters)
        mean, log_variance = jnp.split(posterior(jnp.tanh(hidden(x))), 2, axis=-1)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        logits = output(jnp.tanh(features(z)))
        reconstruction = jnp.sum(jax.nn.softplus(logits) - x * logits)
        kl = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance))
        return (reconstruction + kl) / len(x)

    def epoch(state: Any, images: Any) -> Any:
        parameters, optimizer_state, key = state
        key, order_key, noise_key = jax.random.split(key, 3)
        steps = len(images) // BATCH_SIZE
        order = jax.random.permutation(order_key, len(images))[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)

        def step(carry: Any, inputs: Any) -> Any:
            (parameters, optimizer_state), (rows, key) = carry, inputs
            loss, gradients = jax.value_and_grad(loss_of)(parameters, images[rows], key)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
            return (jax.tree_util.tree_map(jnp.add, parameters, updates), optimizer_state), loss

        carry, losses = jax.lax.scan(step, (parameters, optimizer_state), (order, jax.random.split(noise_key, steps)))
        return (*carry, key), losses.mean()

    return epoch
