"""What one would write by hand in PyTorch: tensors in memory, fused Adam, nothing else; and the limit of that.

With it the networks and objectives of the experiments, and the classic way to feed it: item by item, by a `DataLoader`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from benchmarks.conditions import MATMUL, Conditions
from benchmarks.sides import Throughput
from vae_lab.errors import Failed

Networks = tuple[nn.Module, nn.Module]
"""x -> mean and log-variance of q(z|x), side by side; z -> the likelihood's parameters."""
LOG_TWO_PI = math.log(2 * math.pi)
MOST_EPOCHS = 100
"""The passes over the data after which a bound that is not reached is given up."""
FORWARD, INPUT_GRADIENTS, ALL_GRADIENTS = 0, 1, 2
"""Which matrix products: x W; besides, of the gradient with respect to the inputs; besides, to the weights."""


class Task(NamedTuple):
    """What is trained, on how many datapoints at a time, and whether binary pixels are drawn anew for each of them."""

    networks: Callable[[], Networks]
    loss: Callable[[nn.Module, nn.Module, Tensor], Tensor]
    batch_size: int = 100
    binarize: bool = False


class HandWritten(Throughput):
    """Samples per second of the plain training loop on images in [0, 1]; `half`: under autocast to bfloat16."""

    def __init__(self, name: str, task: Task, images: Tensor, conditions: Conditions, *, half: bool = False) -> None:
        super().__init__(name, conditions, unit=task.batch_size)
        self.task, self.images, self.half = task, images, half

    def prepare(self, seconds: float) -> None:
        self.begin()
        super().prepare(seconds)

    def begin(self) -> None:
        """New networks and optimisers."""
        torch.manual_seed(0)
        self.images = self.images.to(self.conditions.device)
        self.encoder, self.decoder = (network.to(self.conditions.device) for network in self.task.networks())
        self.optimizer, self.wake, self.sleep = adam(self.encoder, self.decoder), adam(self.decoder), adam(self.encoder)

    def do(self, amount: int) -> None:
        per_epoch = len(self.images) // self.unit
        for step in range(amount // self.unit):
            if step % per_epoch == 0:
                order = torch.randperm(len(self.images), device=self.images.device)
            begin = step % per_epoch * self.unit
            x = self.images[order[begin : begin + self.unit]]
            self.step(torch.bernoulli(x) if self.task.binarize else x)

    def step(self, x: Tensor) -> None:
        """One minibatch."""
        with torch.autocast(self.conditions.device, dtype=torch.bfloat16) if self.half else nullcontext():
            loss = self.task.loss(self.encoder, self.decoder, x)
        update(self.optimizer, loss)


class UntilBound(HandWritten):
    """Seconds of a new training until the bound of the test images, measured after every epoch, is good enough."""

    def __init__(self, name: str, task: Task, images: Tensor, test: Tensor, bound: float, conditions: Conditions):
        super().__init__(name, task, images, conditions)
        self.test, self.bound = test, bound

    def prepare(self, seconds: float) -> None:
        """Nothing: every measurement begins anew."""

    def measure(self, seconds: float) -> float:
        self.begin()
        self.test, taken = self.test.to(self.conditions.device), 0.0
        for epoch in range(1, MOST_EPOCHS + 1):
            taken += self.work(len(self.images))
            self.facts = {"test_bound": self.reached, "epochs": epoch}
            if self.reached >= self.bound:
                return taken
        raise Failed(f"{self.name} is at {self.reached:.2f} nats after {MOST_EPOCHS} epochs, below {self.bound}")

    def do(self, amount: int) -> None:
        super().do(amount)
        with torch.no_grad():
            self.reached = -self.task.loss(self.encoder, self.decoder, self.test).item()


class WakeSleepLoop(HandWritten):
    """The hand-written loop of wake-sleep: the decoder on what the encoder sees, then the encoder on dreams."""

    def step(self, x: Tensor) -> None:
        with torch.no_grad():
            z = sample(*self.encoder(x).chunk(2, dim=-1))
        update(self.wake, F.binary_cross_entropy_with_logits(self.decoder(z), x.flatten(1), reduction="sum") / len(x))
        with torch.no_grad():
            z = torch.randn_like(z)
            dreamed = torch.bernoulli(self.decoder(z).sigmoid())
        update(self.sleep, -gaussian(z, *self.encoder(dreamed).chunk(2, dim=-1)).sum() / len(x))


class ItemByItem(HandWritten):
    """The hand-written loop, its minibatches collected from single items by the process that trains."""

    def prepare(self, seconds: float) -> None:
        self.loader = DataLoader(Pictures(self.images), batch_size=self.unit, shuffle=True, num_workers=0)
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        minibatches = itertools.chain.from_iterable(itertools.repeat(self.loader))
        for x in itertools.islice(minibatches, amount // self.unit):
            self.step(x.to(self.conditions.device))


class Pictures(Dataset[Tensor]):
    """What torchvision's MNIST does for an item, without its labels: bytes -> picture -> tensor in [0, 1]."""

    def __init__(self, images: Tensor) -> None:
        self.bytes, self.transform = (images.cpu().squeeze(1) * 255).round().to(torch.uint8), ToTensor()

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.bytes[index].numpy()))


class MatrixProducts(Throughput):
    """Rows per second of a network's matrix products alone in float32: no bias, activation, density, noise, optimiser.

    The gradient of the outputs is as good as the outputs: they are numbers. `first_is_data`: the inputs of the first
    layer have no gradient; `passes`: how often a row goes through for what counts as one.
    """

    def __init__(
        self, name: str, layers: Sequence[nn.Linear], rows: int, which: int, conditions: Conditions, **others: int
    ) -> None:
        super().__init__(name, conditions, unit=rows)
        self.linear, self.which, self.precision = layers, which, "bf16" if name.endswith("oneDNN") else "none"
        self.first_is_data, self.passes = others.get("first_is_data", 0), others.get("passes", 1)

    def prepare(self, seconds: float) -> None:
        torch.manual_seed(0)
        sizes = [(layer.in_features, layer.out_features) for layer in self.linear]
        shapes = [((self.unit, i), (o, i), (self.unit, o), (self.unit, i), (o, i)) for i, o in sizes]
        self.layers = [[torch.rand(shape, device=self.conditions.device) - 0.5 for shape in layer] for layer in shapes]
        """x, weight, y, gradient of x, gradient of the weight."""
        super().prepare(seconds)

    def do(self, amount: int) -> None:
        MATMUL.fp32_precision = self.precision
        backward = list(reversed(list(enumerate(self.layers)))) if self.which >= INPUT_GRADIENTS else []
        with torch.no_grad():
            for _ in range(amount // self.unit * self.passes):
                for x, weight, y, _, _ in self.layers:
                    torch.mm(x, weight.t(), out=y)
                for i, (x, weight, y, x_gradient, weight_gradient) in backward:
                    if i or not self.first_is_data:
                        torch.mm(y, weight, out=x_gradient)
                    if self.which == ALL_GRADIENTS:
                        torch.mm(y.t(), x, out=weight_gradient)


def limits(network: Sequence[nn.Module], rows: int, which: int, conditions: Conditions, **others: int):
    """The same products by every library; the fastest is the limit of what a program can reach."""
    layers = [layer for one in network for layer in one.modules() if isinstance(layer, nn.Linear)]
    libraries = ["", ", oneDNN"] if conditions.device == "cpu" else [""]
    return [MatrixProducts(f"matrix products{one}", layers, rows, which, conditions, **others) for one in libraries]


def adam(*networks: nn.Module) -> torch.optim.Adam:
    """Fused Adam with its usual numbers."""
    return torch.optim.Adam([weight for network in networks for weight in network.parameters()], lr=1e-3, fused=True)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """A step against the gradient."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bernoulli_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """-ELBO for pixels in [0, 1], KL in closed form."""
    mean, log_variance = encoder(x).float().chunk(2, dim=-1)
    logits = decoder(sample(mean, log_variance)).flatten(1)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    return (reconstruction + kl(mean, log_variance)) / len(x)


def gaussian_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """-ELBO for Gaussian pixels with means in (0, 1), KL in closed form."""
    mean, log_variance = encoder(x).chunk(2, dim=-1)
    logits, pixel_log_variance = decoder(sample(mean, log_variance)).chunk(2, dim=-1)
    reconstruction = gaussian(x.flatten(1), logits.sigmoid(), pixel_log_variance).sum()
    return (kl(mean, log_variance) - reconstruction) / len(x)


def importance_weighted_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor, num_samples: int = 50) -> Tensor:
    """-log 1/k sum of k importance weights, with every term sampled."""
    mean, log_variance = encoder(x).chunk(2, dim=-1)
    z = sample(mean.expand(num_samples, -1, -1), log_variance)
    logits = decoder(z)
    pixels = x.flatten(1).expand_as(logits)
    likelihood = -F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
    prior = -0.5 * (z.square() + LOG_TWO_PI).sum(-1)
    log_weights = likelihood + prior - gaussian(z, mean, log_variance).sum(-1)
    return (math.log(num_samples) - log_weights.logsumexp(0)).mean()


def sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draws z by the reparameterisation."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)), summed over the minibatch."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def gaussian(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log density of every element."""
    return -0.5 * (LOG_TWO_PI + log_variance + (x - mean).square() * (-log_variance).exp())


def mlp(pixels: int, hidden: Sequence[int], latent_dim: int, outputs: int) -> Networks:
    """Layers of tanh units, the decoder's in the other order."""

    def layers(*widths: int) -> Sequence[nn.Module]:
        return [layer for i, o in itertools.pairwise(widths) for layer in (nn.Linear(i, o), nn.Tanh())][:-1]

    encoder = nn.Sequential(nn.Flatten(), *layers(pixels, *hidden, 2 * latent_dim))
    return encoder, nn.Sequential(*layers(latent_dim, *reversed(hidden), outputs))


def convolutions() -> Networks:
    """Convolutions 4x4 of 32 and 64 channels, each halving the image, 256 units, SiLU."""
    halving: Any = {"kernel_size": 4, "stride": 2, "padding": 1}
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, **halving), nn.SiLU(), nn.Conv2d(32, 64, **halving), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 256), nn.SiLU(), nn.Linear(256, 40)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(20, 256), nn.SiLU(), nn.Linear(256, 64 * 7 * 7), nn.SiLU(), nn.Unflatten(1, (64, 7, 7))),
        *(nn.ConvTranspose2d(64, 32, **halving), nn.SiLU(), nn.ConvTranspose2d(32, 1, **halving)),
    )
    return encoder, decoder


MNIST = Task(partial(mlp, 784, [500], 20, 784), bernoulli_loss)
MNIST_CONV = Task(convolutions, bernoulli_loss)
FREY_FACE = Task(partial(mlp, 560, [200], 10, 2 * 560), gaussian_loss)
IWAE = Task(partial(mlp, 784, [200, 200], 50, 784), importance_weighted_loss, batch_size=20, binarize=True)
