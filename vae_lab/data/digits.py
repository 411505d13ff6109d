"""Handwritten digits that scikit-learn ships (Alpaydin and Kaynak): 1,797 images, 8 x 8, x/16, no network."""

from typing import Any

from sklearn.datasets import load_digits

from vae_lab.data.arrays import ImageData, Source, cut, shuffled

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 1297, 250, 250


class Digits(ImageData):
    """The embedded default: 1,297 / 250 / 250 in a random order given by `split_seed`."""

    name = "digits"
    image_shape = (1, 8, 8)
    divisor = 16
    train_capacity = NUM_TRAIN

    def load(self) -> Source:
        """Takes the images out of the library."""
        digits: Any = load_digits()
        order = shuffled(NUM_TRAIN + NUM_VALIDATION + NUM_TEST, self.split_seed)
        return Source(
            images=digits.images,
            labels=digits.target,
            indices=cut(order, val=NUM_VALIDATION, test=NUM_TEST),
        )
