"""Trainings: the lab beside what one would write or take instead, and beside the matrix products alone."""

from vae_lab.benchmarks.comparisons import ratio
from vae_lab.benchmarks.conditions import Conditions
from vae_lab.benchmarks.data_loader import ItemByItem
from vae_lab.benchmarks.hand_written import HandWritten, bernoulli_loss
from vae_lab.benchmarks.jax_epoch import JaxEpoch
from vae_lab.benchmarks.lab import Lab, training_images
from vae_lab.benchmarks.matrix_products import ALL_GRADIENTS, MatrixProducts
from vae_lab.benchmarks.networks import mnist_mlp
from vae_lab.benchmarks.sides import Case

SPEED = "samples/s"
OURS, HAND_WRITTEN, JAX, PYTHAE, ITEMS = "ours", "hand-written", "JAX", "pythae", "DataLoader"
PRODUCTS, ONEDNN = "matrix products", "matrix products, oneDNN"
MNIST_WIDTHS = ((784, 500), (500, 40), (20, 500), (500, 784))


def mlp(conditions: Conditions) -> Case:
    """784-500-20-500-784, minibatches of 100, Adam, float32."""
    images = training_images("mnist")
    sides = [
        Lab(OURS, ["experiment=mnist"], conditions),
        HandWritten(HAND_WRITTEN, mnist_mlp, bernoulli_loss, images, conditions),
        JaxEpoch(JAX, images, conditions),
        ItemByItem(ITEMS, mnist_mlp, bernoulli_loss, images, conditions),
        *limits(conditions),
    ]
    return Case(
        "experiment=mnist in float32",
        SPEED,
        sides,
        [
            ratio(OURS, HAND_WRITTEN, at_least=1.4),
            ratio(OURS, JAX, at_least=0.75),
            ratio(OURS, PYTHAE, at_least=2.0),
            ratio(OURS, ITEMS),
            ratio(OURS, (PRODUCTS, ONEDNN), name="ours / limit"),
        ],
    )


def limits(conditions: Conditions) -> list[MatrixProducts]:
    """The matrix products of the same training step, by each library."""
    precisions = {PRODUCTS: "none"} | ({ONEDNN: "bf16"} if conditions.device == "cpu" else {})
    return [
        MatrixProducts(name, MNIST_WIDTHS, 100, ALL_GRADIENTS, conditions, data=[0], precision=precision)
        for name, precision in precisions.items()
    ]


def mlp_bf16(conditions: Conditions) -> Case:
    """The same training in mixed precision, beside JAX in float32."""
    images = training_images("mnist")
    return Case(
        "experiment=mnist trainer.precision=bf16-mixed",
        SPEED,
        [
            Lab(OURS, ["experiment=mnist", "trainer.precision=bf16-mixed"], conditions),
            HandWritten(HAND_WRITTEN, mnist_mlp, bernoulli_loss, images, conditions, half=True),
            JaxEpoch("JAX float32", images, conditions),
        ],
        [ratio(OURS, "JAX float32", at_least=0.9), ratio(OURS, HAND_WRITTEN)],
    )
