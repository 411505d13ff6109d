"""Trainings: the lab beside what one would write or take instead, and beside the matrix products alone."""

from collections.abc import Sequence

from benchmarks.comparisons import ratio, time_for
from benchmarks.conditions import Conditions
from benchmarks.data_loader import ItemByItem
from benchmarks.hand_written import HandWritten, bernoulli_loss
from benchmarks.hand_written_objectives import WakeSleepLoop, gaussian_loss, importance_weighted_loss
from benchmarks.jax_epoch import JaxEpoch
from benchmarks.lab import Lab, training_images
from benchmarks.matrix_products import ALL_GRADIENTS, limits
from benchmarks.networks import frey_face_mlp, mnist_conv, mnist_mlp, two_layer_mlp
from benchmarks.pythae_training import PythaeTraining
from benchmarks.sides import Case
from vae_lab.training.matmul import is_exact

SPEED = "samples/s"
OURS, OURS_HALF = "ours", "ours, bf16-mixed"
COMPILED, COMPILED_HALF = "ours, compiled", "ours, bf16-mixed, compiled"
COMPILED_ONEDNN = "ours, compiled, oneDNN"
HAND_WRITTEN, HAND_WRITTEN_HALF = "hand-written", "hand-written, bf16"
JAX, PYTHAE, ITEMS = "JAX", "pythae", "DataLoader"
HALF = "trainer.precision=bf16-mixed"
MNIST_WIDTHS = ((784, 500), (500, 40), (20, 500), (500, 784))
"""In and out of every layer of experiment=mnist."""


def mlp(conditions: Conditions) -> Case:
    """784-500-20-500-784, minibatches of 100, Adam, float32."""
    images = training_images("mnist")
    products = limits(MNIST_WIDTHS, 100, ALL_GRADIENTS, conditions, data=[0])
    onednn = compiled(COMPILED_ONEDNN, ["experiment=mnist", "matmul_backend=onednn"], conditions) if is_exact() else []
    ours = [
        Lab(OURS, ["experiment=mnist"], conditions),
        *compiled(COMPILED, ["experiment=mnist"], conditions),
        *onednn,  # an option of this lab that keeps float32, whatever the automatic choice is
    ]
    names = [side.name for side in ours]
    return Case(
        "experiment=mnist in float32",
        SPEED,
        [
            *ours,
            HandWritten(HAND_WRITTEN, mnist_mlp, bernoulli_loss, images, conditions),
            JaxEpoch(JAX, images, conditions),
            PythaeTraining(PYTHAE, images, conditions),
            ItemByItem(ITEMS, mnist_mlp, bernoulli_loss, images, conditions),
            *products,
        ],
        [
            ratio(names, HAND_WRITTEN, at_least=1.4, name="ours, the fastest / hand-written"),
            ratio(names, JAX, at_least=0.75, name="ours, the fastest / JAX"),
            ratio(names, PYTHAE, at_least=2.0, name="ours, the fastest / pythae"),
            ratio(names, ITEMS, name="ours, the fastest / DataLoader"),
            ratio(OURS, HAND_WRITTEN),
            ratio(HAND_WRITTEN, [side.name for side in products], name="hand-written / matrix products"),
            ratio(names, [side.name for side in products], name="ours, the fastest / matrix products"),
        ],
    )


def mlp_bf16(conditions: Conditions) -> Case:
    """The same training in mixed precision, beside JAX in float32."""
    images = training_images("mnist")
    return Case(
        f"experiment=mnist {HALF}",
        SPEED,
        [
            Lab(OURS_HALF, ["experiment=mnist", HALF], conditions),
            *compiled(COMPILED_HALF, ["experiment=mnist", HALF], conditions),
            HandWritten(HAND_WRITTEN_HALF, mnist_mlp, bernoulli_loss, images, conditions, half=True),
            JaxEpoch("JAX float32", images, conditions),
        ],
        [
            ratio((OURS_HALF, COMPILED_HALF), "JAX float32", at_least=0.9, name="ours, the faster / JAX float32"),
            ratio((OURS_HALF, COMPILED_HALF), HAND_WRITTEN_HALF, name="ours, the faster / hand-written, bf16"),
            ratio(OURS_HALF, HAND_WRITTEN_HALF),
        ],
    )


def conv(conditions: Conditions) -> Case:
    """The convolutional network in both precisions."""
    images = training_images("mnist")
    return Case(
        "experiment=mnist_conv in float32 and in mixed precision",
        SPEED,
        [
            Lab(OURS, ["experiment=mnist_conv", "trainer.precision=32-true"], conditions),
            Lab(OURS_HALF, ["experiment=mnist_conv"], conditions),
            *compiled(COMPILED_HALF, ["experiment=mnist_conv"], conditions),
            HandWritten(HAND_WRITTEN, mnist_conv, bernoulli_loss, images, conditions),
            HandWritten(HAND_WRITTEN_HALF, mnist_conv, bernoulli_loss, images, conditions, half=True),
        ],
        [
            ratio(
                (OURS, OURS_HALF, COMPILED_HALF), HAND_WRITTEN, at_least=1.2, name="ours, the fastest / hand-written"
            ),
            ratio(OURS, HAND_WRITTEN),
            ratio(OURS_HALF, HAND_WRITTEN_HALF),
        ],
    )


def frey_face(conditions: Conditions) -> Case:
    """Gaussian pixels, 560-200-10-200-560."""
    images = training_images("frey_face")
    return Case(
        "experiment=frey_face",
        SPEED,
        [
            Lab(OURS, ["experiment=frey_face"], conditions),
            *compiled(COMPILED, ["experiment=frey_face"], conditions),
            HandWritten(HAND_WRITTEN, frey_face_mlp, gaussian_loss, images, conditions),
        ],
        [ratio(OURS, HAND_WRITTEN), ratio((OURS, COMPILED), HAND_WRITTEN, name="ours, the faster / hand-written")],
    )


def wake_sleep(conditions: Conditions) -> Case:
    """Two updates of every minibatch."""
    images = training_images("mnist")
    return Case(
        "experiment=mnist objective=wake_sleep",
        SPEED,
        [
            Lab(OURS, ["experiment=mnist", "objective=wake_sleep"], conditions),
            WakeSleepLoop(HAND_WRITTEN, mnist_mlp, bernoulli_loss, images, conditions),
        ],
        [ratio(OURS, HAND_WRITTEN)],
    )


def iwae(conditions: Conditions) -> Case:
    """50 samples of z per datapoint, 20 datapoints in a minibatch, pixels drawn anew."""
    images, loss = training_images("iwae"), importance_weighted_loss
    return Case(
        "experiment=iwae, k = 50",
        SPEED,
        [
            Lab(OURS, ["experiment=iwae"], conditions),
            HandWritten(HAND_WRITTEN, two_layer_mlp, loss, images, conditions, batch_size=20, binarize=True),
        ],
        [ratio(OURS, HAND_WRITTEN)],
    )


def cuda_graph(conditions: Conditions) -> Case:
    """What capturing the training in a CUDA graph gains, in longer measurements than elsewhere."""
    eager = ["experiment=mnist", "cuda_graph=false", "steps_per_execution=1"]
    return Case(
        "experiment=mnist on a GPU, with and without CUDA graphs",
        SPEED,
        [
            Lab(OURS, ["experiment=mnist"], conditions),
            Lab("without graphs, step by step", eager, conditions),
        ],
        [
            ratio(OURS, "without graphs, step by step", at_least=10),
            time_for(1e8, OURS, at_most=150, name="seconds for 1e8 samples, extrapolated"),
        ],
        longer=5,
    )


def compiled(name: str, overrides: Sequence[str], conditions: Conditions) -> list[Lab]:
    """The same training with its step compiled, on a CPU; compiling is over before the clock starts."""
    return [Lab(name, [*overrides, "compile=true"], conditions)] if conditions.device == "cpu" else []
