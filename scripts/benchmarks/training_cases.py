"""Trainings: the lab beside what one would write or take instead, and beside the matrix products alone."""

from collections.abc import Sequence

from benchmarks.conditions import Conditions
from benchmarks.hand_written import (
    ALL_GRADIENTS,
    FREY_FACE,
    IWAE,
    MNIST,
    MNIST_CONV,
    HandWritten,
    ItemByItem,
    WakeSleepLoop,
    limits,
)
from benchmarks.lab import Lab, training_images
from benchmarks.other_libraries import JaxEpoch, PythaeTraining
from benchmarks.sides import Case, ratio, time_for
from vae_lab.training.matmul import is_exact

EAGER, COMPILED, HAND_WRITTEN = "ours, eager", "ours, compiled", "hand-written"
HALF, ONEDNN = "trainer.precision=bf16-mixed", "matmul_backend=onednn"


def mlp(conditions: Conditions) -> Case:
    """experiment=mnist in float32: 784-500-20-500-784, minibatches of 100, Adam."""
    images, ours = training_images("mnist"), lab(["experiment=mnist"], conditions)
    if is_exact():  # an option of this lab that keeps float32, whatever the automatic choice is
        ours += lab(["experiment=mnist", ONEDNN], conditions, name="ours, oneDNN")[1:]
    others = {
        HandWritten(HAND_WRITTEN, MNIST, images, conditions): 1.4,
        JaxEpoch("JAX", images, conditions): 0.9,
        PythaeTraining("pythae", images, conditions): 2.0,
        ItemByItem("DataLoader", MNIST, images, conditions): None,
    }
    products = limits(MNIST.networks(), 100, ALL_GRADIENTS, conditions, first_is_data=True)
    compared = [
        *[ratio(ours, one.name, f"ours, the fastest / {one.name}", at_least=least) for one, least in others.items()],
        ratio(EAGER, HAND_WRITTEN, at_least=1.0),
        ratio(HAND_WRITTEN, products, "hand-written / matrix products"),
        ratio(ours, products, "ours, the fastest / matrix products"),
    ]
    return Case([*ours, *others, *products], compared)


def mlp_bf16(conditions: Conditions) -> Case:
    """experiment=mnist in bfloat16 where that loses nothing, beside JAX in float32."""
    images, ours = training_images("mnist"), lab(["experiment=mnist", HALF], conditions, name="ours, bf16-mixed")
    hand_written = HandWritten("hand-written, bf16", MNIST, images, conditions, half=True)
    compared = [
        ratio(ours, "JAX float32", "ours, the faster / JAX float32", at_least=0.9),
        ratio(ours, hand_written.name, "ours, the faster / hand-written, bf16"),
        ratio(ours[0].name, hand_written.name),
    ]
    return Case([*ours, hand_written, JaxEpoch("JAX float32", images, conditions)], compared)


def conv(conditions: Conditions) -> Case:
    """experiment=mnist_conv in float32 and in bfloat16."""
    images, float32 = training_images("mnist"), lab(["experiment=mnist_conv", "trainer.precision=32-true"], conditions)
    half = lab(["experiment=mnist_conv", HALF], conditions, name="ours, bf16-mixed")
    hand_written = HandWritten(HAND_WRITTEN, MNIST_CONV, images, conditions)
    hand_written_half = HandWritten("hand-written, bf16", MNIST_CONV, images, conditions, half=True)
    compared = [
        ratio([*float32, *half], HAND_WRITTEN, "ours, the fastest / hand-written", at_least=1.2),
        ratio(float32, HAND_WRITTEN, "ours in float32, the faster / hand-written", at_least=1.1),
        ratio(EAGER, HAND_WRITTEN),
        ratio(half[0].name, hand_written_half.name),
    ]
    return Case([*float32, *half, hand_written, hand_written_half], compared)


def frey_face(conditions: Conditions) -> Case:
    """experiment=frey_face: Gaussian pixels, 560-200-10-200-560."""
    ours = lab(["experiment=frey_face"], conditions)
    hand_written = HandWritten(HAND_WRITTEN, FREY_FACE, training_images("frey_face"), conditions)
    faster = ratio(ours, HAND_WRITTEN, "ours, the faster / hand-written")
    return Case([*ours, hand_written], [ratio(EAGER, HAND_WRITTEN), faster])


def wake_sleep(conditions: Conditions) -> Case:
    """experiment=mnist objective=wake_sleep: two updates of every minibatch."""
    hand_written = WakeSleepLoop(HAND_WRITTEN, MNIST, training_images("mnist"), conditions)
    return beside(["experiment=mnist", "objective=wake_sleep"], conditions, hand_written)


def iwae(conditions: Conditions) -> Case:
    """experiment=iwae: 50 samples of z per datapoint, 20 datapoints in a minibatch, pixels drawn anew."""
    return beside(["experiment=iwae"], conditions, HandWritten(HAND_WRITTEN, IWAE, training_images("iwae"), conditions))


def full_variational_bayes(conditions: Conditions) -> Case:
    """experiment=mnist objective=full_variational_bayes: a posterior over the decoder's weights."""
    training_images("mnist")
    return beside(["experiment=mnist", "objective=full_variational_bayes"], conditions)


def monte_carlo_em(conditions: Conditions) -> Case:
    """Figure 3's Monte Carlo EM: 10 leapfrog steps of 1,000 chains, then five updates, 784-100-3-100-784."""
    training_images("mnist")
    network = [
        "experiment=mnist_paper",
        "model.latent_dim=3",
        "model.encoder.hidden=[100]",
        "optimizer.warmup_steps=10",
    ]
    chains = ["objective=monte_carlo_em", "objective.minibatches=true", "objective.count=datapoints"]
    return beside([*network, *chains, "data.batch_size=1000"], conditions)


def beside(overrides: Sequence[str], conditions: Conditions, *hand_written: HandWritten) -> Case:
    """A training eager and compiled, and a hand-written loop where there is one."""
    ours = lab(overrides, conditions)
    compared = [ratio(EAGER, one.name) for one in hand_written]
    return Case([*ours, *hand_written], [ratio(COMPILED, EAGER, at_least=1.3), *compared])


def cuda_graph(conditions: Conditions) -> Case:
    """experiment=mnist on a GPU, with and without CUDA graphs, in longer measurements than elsewhere."""
    eager = "without graphs, step by step"
    without = ["experiment=mnist", "cuda_graph=false", "steps_per_execution=1"]
    graph = "with graphs"
    sides = [Lab(graph, ["experiment=mnist"], conditions), Lab(eager, without, conditions)]
    return Case(sides, [ratio(graph, eager, at_least=10), time_for(1e8, graph, at_most=150)], longer=5)


def lab(overrides: Sequence[str], conditions: Conditions, name: str = "ours") -> list[Lab]:
    """A training step by step, and on a CPU the same with its step compiled, which is over before the clock starts."""
    kinds = {"eager": "compile=false", "compiled": "compile=true"}
    sides = [Lab(f"{name}, {kind}", [*overrides, compiled], conditions) for kind, compiled in kinds.items()]
    return sides[: 2 if conditions.device == "cpu" else 1]
