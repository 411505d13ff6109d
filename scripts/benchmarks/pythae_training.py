"""pythae's own trainer on its own data set of tensors in memory, with networks of our sizes."""

import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from benchmarks.conditions import Conditions, quiet
from benchmarks.sides import Throughput

BATCH_SIZE = 100


class PythaeTraining(Throughput):
    """Samples per second of epochs of 784-500-20-500-784, without evaluations, in float32.

    Its optimiser is fused Adam, as ours; what it does before and after its epochs does not count.

    Args:
        name: as for every side.
        images: in [0, 1].
        conditions: the device, and where its folders go.
    """

    def __init__(self, name: str, images: Tensor, conditions: Conditions) -> None:
        super().__init__(name, unit=BATCH_SIZE, packages=("pythae",))
        self.images, self.conditions = images, conditions

    def prepare(self, seconds: float) -> None:
        """The model, which all measurements go on with."""
        models = import_module("pythae.models")
        config = models.VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
        self.model = models.VAE(config, *networks())
        super().prepare(seconds)

    def work(self, amount: int) -> float:
        """Epochs of the whole training part, or of as much as the amount asks for."""
        most = len(self.images) // BATCH_SIZE * BATCH_SIZE
        epochs, rest = divmod(amount, most)
        whole = self.train(most, epochs) if epochs else 0.0
        return whole + (self.train(rest, 1) if rest else 0.0)

    def train(self, size: int, num_epochs: int) -> float:
        """The seconds of so many epochs of the first images."""
        trainers = import_module("pythae.trainers")
        images = self.images[:size]
        data = import_module("pythae.data.datasets").BaseDataset(images, images.new_zeros(size))
        clock = make_clock(self.conditions)
        with tempfile.TemporaryDirectory(dir=self.conditions.folder) as folder, silence():
            config = trainers.BaseTrainerConfig(
                output_dir=folder,
                num_epochs=num_epochs,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=1e-3,
                optimizer_params={"fused": True},
                no_cuda=self.conditions.device != "cuda",
            )
            trainer = trainers.BaseTrainer(self.model, data, training_config=config, callbacks=[clock])
            trainer.save_model = lambda *_, **__: None  # at the end, which does not count
            trainer.train()
        return clock.seconds


def networks() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder as pythae wants them."""
    nets, outputs = import_module("pythae.models.nn"), import_module("pythae.models.base.base_utils")

    class Encoder(nets.BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.Tanh())
            self.mean, self.log_variance = nn.Linear(500, 20), nn.Linear(500, 20)

        def forward(self, x: Tensor) -> Any:
            h = self.hidden(x)
            return outputs.ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(nets.BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return outputs.ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    return Encoder(), Decoder()


def make_clock(conditions: Conditions) -> Any:
    """A callback of pythae that adds up the seconds of the epochs."""
    callbacks = import_module("pythae.trainers.training_callbacks")

    class Clock(callbacks.TrainingCallback):
        seconds = 0.0

        def on_epoch_begin(self, training_config: Any, **_: Any) -> None:
            conditions.synchronize()
            self.started = time.perf_counter()

        def on_epoch_end(self, training_config: Any, **_: Any) -> None:
            conditions.synchronize()
            self.seconds += time.perf_counter() - self.started

    return Clock()


@contextmanager
def silence() -> Iterator[None]:
    """While the block runs: no progress bar, no log; the environment variables that pythae sets are taken back."""
    before = dict(os.environ)
    try:
        with redirect_stderr(io.StringIO()), quiet():
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
