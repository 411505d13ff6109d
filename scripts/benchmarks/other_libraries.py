"""The training of experiment=mnist by others: JAX with optax, an epoch in one function; pythae with its own trainer."""

import io
import os
import tempfile
import time
from contextlib import redirect_stderr
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.conditions import Conditions, quiet
from benchmarks.hand_written import MNIST, Networks
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


class PythaeTraining(Throughput):
    """Samples per second of pythae's epochs, on its own data set of tensors in memory, with fused Adam, in float32.

    There are no evaluations; what its trainer does before and after its epochs does not count.
    """

    def __init__(self, name: str, images: Tensor, conditions: Conditions) -> None:
        super().__init__(name, conditions, unit=BATCH_SIZE)
        self.images, self.absent_because = images, lacking("pythae")

    def prepare(self, seconds: float) -> None:
        models = import_module("pythae.models")
        config = models.VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
        self.model = models.VAE(config, *pythae_networks())
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        most = len(self.images) // BATCH_SIZE * BATCH_SIZE
        for size, epochs in ((most, amount // most), (amount % most, 1)):
            if size and epochs:
                self.train(self.images[:size], epochs)

    def work(self, amount: int) -> float:
        self.clock = pythae_clock(self.conditions)
        self.do(amount)
        return self.clock.seconds

    def train(self, images: Tensor, num_epochs: int) -> None:
        """Leaves out progress bar and log; the environment variables that pythae sets are taken back."""
        trainers = import_module("pythae.trainers")
        data = import_module("pythae.data.datasets").BaseDataset(images, images.new_zeros(len(images)))
        with patch.dict(os.environ), redirect_stderr(io.StringIO()), quiet(), tempfile.TemporaryDirectory() as folder:
            config = trainers.BaseTrainerConfig(
                output_dir=folder,
                num_epochs=num_epochs,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=1e-3,
                optimizer_params={"fused": True},
                no_cuda=self.conditions.device != "cuda",
            )
            trainer = trainers.BaseTrainer(self.model, data, training_config=config, callbacks=[self.clock])
            trainer.save_model = lambda *_, **__: None  # at the end, which does not count
            trainer.train()


def pythae_networks() -> Networks:
    """Encoder and decoder as pythae wants them."""
    nets, outputs = import_module("pythae.models.nn"), import_module("pythae.models.base.base_utils")

    class Encoder(nets.BaseEncoder):
        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.layers(x).chunk(2, dim=-1)
            return outputs.ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(nets.BaseDecoder):
        def forward(self, z: Tensor) -> Any:
            return outputs.ModelOutput(reconstruction=self.layers(z).sigmoid().reshape(-1, 1, 28, 28))

    encoder, decoder = Encoder(), Decoder()
    encoder.layers, decoder.layers = MNIST.networks()
    return encoder, decoder


def pythae_clock(conditions: Conditions) -> Any:
    """A callback of pythae that adds up the seconds of the epochs."""

    class Clock(import_module("pythae.trainers.training_callbacks").TrainingCallback):
        seconds = 0.0

        def on_epoch_begin(self, training_config: Any, **_: Any) -> None:
            conditions.synchronize()
            self.seconds -= time.perf_counter()

        def on_epoch_end(self, training_config: Any, **_: Any) -> None:
            conditions.synchronize()
            self.seconds += time.perf_counter()

    return Clock()
