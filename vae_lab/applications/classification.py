"""Semi-supervised use of a trained model, "M1" of Kingma et al. (2014, arXiv 1406.5298): many images, few labels.

All training images train the VAE; classifiers learn from the latent means of a few labelled ones. Beside them stand the
same classifiers on the pixels, and on principal components of these, as many as there are latent dimensions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from vae_lab.applications.encoding import encode
from vae_lab.data.arrays import Split
from vae_lab.errors import ConfigError, NoEncoder
from vae_lab.randomness import generator
from vae_lab.runs.load import Run

FOLDS = 3
"""The folds of the cross-validation; two where a class has two labelled images."""
SVM_COSTS, SVM_GAMMAS = (1.0, 10.0, 100.0), (0.5, 1.0, 2.0)
LOGISTIC_COSTS = (1.0, 10.0, 100.0, 1000.0)
"""What the cross-validation chooses from, for features whose variances have the sum 1."""
BLOCK = 1000
"""Test images that are classified at once."""
Images = tuple[Float[np.ndarray, "train size"], Float[np.ndarray, "test size"]]
"""What a classifier sees of the training images, and of the test images."""


@dataclass(frozen=True)
class Labelled:
    """The training and test images of a run with their labels."""

    train: Split
    test: Split
    train_labels: Int[np.ndarray, " train"]
    test_labels: Int[np.ndarray, " test"]

    @classmethod
    def of(cls, run: Run) -> "Labelled":
        """The labelled images of a run, as evaluations see them.

        Raises:
            ConfigError: the run has no encoder, or its data no labels.
        """
        if not run.model.has_encoder:
            raise NoEncoder(f"run must have an encoder, got {run.path}: its objective trained none")
        train, test = run.data.measured("train"), run.data.measured("test")
        if train.labels is None or test.labels is None:
            raise ConfigError(f"run must be trained on data with labels, got {run.path}: {run.data.name} has none")
        return cls(train, test, train.labels.numpy(), test.labels.numpy())

    def check(self, num_labels: int) -> None:
        """Refuses a number of labelled images that no cross-validation, or not every class, has.

        Raises:
            ConfigError: naming it.
        """
        counts = np.unique(self.train_labels, return_counts=True)[1]
        per_class, rest = divmod(num_labels, len(counts))
        if len(counts) < 2 or rest or not 2 <= per_class <= counts.min():
            raise ConfigError(
                f"labels must be multiples of the {len(counts)} classes, from {2 * len(counts)} to "
                f"{len(counts) * counts.min()}, got {num_labels}: as many images of every class are drawn"
            )

    def drawn(self, num_labels: int, seed: int, number: int) -> Int[np.ndarray, " labels"]:
        """The rows of as many training images of every class: a draw by (seed, `num_labels`, its number)."""
        order = torch.randperm(
            len(self.train), generator=generator("cpu", seed, "labelled", num_labels, number)
        ).numpy()
        classes = np.unique(self.train_labels)
        rows = [order[self.train_labels[order] == label][: num_labels // len(classes)] for label in classes]
        return np.concatenate(rows)

    def features(self, run: Run) -> Iterator[tuple[str, Images]]:
        """What classifiers see, by name: all of one scale, at which their variances have the sum 1."""
        splits = self.train, self.test
        yield "latent means", scaled(*(encode(run.model, split.images).mean.numpy() for split in splits))
        pixels = [split.images.flatten(1).numpy() for split in splits]
        yield "pixels", scaled(*pixels)
        size = min(run.model.latent_dim, *pixels[0].shape)
        components = PCA(size, random_state=0).fit(pixels[0])
        yield f"{size} principal components", scaled(*map(components.transform, pixels))


def scaled(train: Float[np.ndarray, "train size"], test: Float[np.ndarray, "test size"]) -> Images:
    """Divides both sets by one factor: one for each feature would magnify latent dimensions that carry nothing."""
    scale = np.sqrt(train.var(0, dtype=np.float64).sum()).astype(train.dtype)
    return train / scale, test / scale


CLASSIFIERS: dict[str, tuple[Any, dict[str, Any], list[Callable[..., np.ndarray]]]] = {
    # kernels by matrix products: ten times as fast as the library's own for many pixels
    "SVM": (SVC(kernel="precomputed"), {"C": SVM_COSTS}, [partial(rbf_kernel, gamma=gamma) for gamma in SVM_GAMMAS]),
    "logistic regression": (LogisticRegression(max_iter=1000), {"C": LOGISTIC_COSTS}, [lambda x, _: x]),
}
"""What is fitted, and what the cross-validation chooses from: settings, and functions of images and training images."""


def error_rate(
    classifier: str,
    x: Float[np.ndarray, "labels size"],
    labels: Int[np.ndarray, " labels"],
    test: Float[np.ndarray, "test size"],
    test_labels: Int[np.ndarray, " test"],
) -> float:
    """The share of the test images that a classifier of x, the labelled images, gets wrong."""
    model, settings, functions = CLASSIFIERS[classifier]
    searches = [
        (GridSearchCV(model, settings, cv=folds(labels)).fit(given(x, x), labels), given) for given in functions
    ]
    best, given = max(searches, key=lambda search: search[0].best_score_)
    found = [best.predict(given(test[i : i + BLOCK], x)) for i in range(0, len(test), BLOCK)]
    return float(np.mean(np.concatenate(found) != test_labels))


def folds(labels: Int[np.ndarray, " labels"]) -> StratifiedKFold:
    """The parts of a cross-validation, with as many of every class: drawn at random, they come in no order."""
    return StratifiedKFold(min(FOLDS, *np.unique(labels, return_counts=True)[1]))


def error_rates(
    labelled: Labelled, images: Images, *, classifier: str, num_labels: int, repeats: int, seed: int
) -> list[float]:
    """The test errors of a classifier over draws of the labelled images: the same draws for all features."""
    x, test = images
    draws = [labelled.drawn(num_labels, seed, i) for i in range(repeats)]
    return [error_rate(classifier, x[rows], labelled.train_labels[rows], test, labelled.test_labels) for rows in draws]


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of a mean; None where a single value does not show it."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
