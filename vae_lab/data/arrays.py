"""Images in memory: a data set's splits, their binarisation, and minibatches by (seed, number)."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Integer, Shaped
from torch import Tensor

from vae_lab.errors import ConfigError, MissingFile, require_choice, require_integer
from vae_lab.randomness import generator

log = logging.getLogger("vae_lab")

BINARIZATIONS = ("none", "threshold", "static", "dynamic")
EVALUATION_SEED = 0
"""Draws, once, the binary images on which a dynamically binarised data set is measured."""
DARK = 0.02
"""Images whose values never exceed this are probably stored on another scale."""


@dataclass(frozen=True)
class Split:
    """The train, validation or test split: images in [0, 1], and where in the source they are."""

    images: Float[Tensor, "num channel height width"]
    labels: Int[Tensor, " num"] | None
    indices: Int[Tensor, " num"]
    file_names: Sequence[str] = ()
    """The file of each image, where each has its own."""

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Source:
    """What a data set reads: all its images as stored, and the positions that make each split.

    A split in which a label is negative has no labels.
    """

    images: Shaped[np.ndarray, "num height width"] | Shaped[np.ndarray, "num height width channel"]
    labels: Integer[np.ndarray, " num"] | None
    indices: dict[str, Int[Tensor, " split"]]


def is_binary(images: Float[Tensor, "..."]) -> bool:
    """Whether every value is 0 or 1."""
    return bool(((images == 0) | (images == 1)).all())


class ImageData(ABC):
    """A data set: its facts and choices; files are read when `splits` (or what only a file says) is asked for.

    Args (keys of `data`, with those of the subclass):
        batch_size: datapoints in a minibatch, M, over all processes.
        binarization: none; threshold (x > 1/2); static (drawn once from B(x), seeded by `split_seed`);
            dynamic (drawn anew for every training minibatch; validation and test once, with a fixed seed).
        train_size: only the first so many of the train split, or null for all of it.
        split_seed: seeds random splits and static binarisation; independent of the run's `seed`.
        classes: only the images with these labels, in every split, or null for all of them; as older configs, and those
            of own data sets, need not have the key, it has its default here, too.
    """

    name: str
    image_shape: tuple[int, int, int]
    """(channel, height, width), known without reading the images."""
    divisor: int
    """What a stored value is divided by."""
    _expected: Mapping[str, Any] = {}
    _owner: object = ""
    _looked: str = ""
    train_capacity: int | None = None
    """Size of the whole train split, where it is known without reading files."""
    class_names: Sequence[str] = ()
    """The name of each label, where they have names; may need the files."""
    file_names: Sequence[str] = ()
    """The file of each image of the source, where each has its own; known once they are read."""
    notes: Sequence[str] = ()
    """What was found in the files and done to them, in sentences; complete once they are read."""

    def __init__(
        self,
        *,
        batch_size: int,
        binarization: str,
        train_size: int | None,
        split_seed: int,
        classes: list[int] | None = None,
    ):
        require_integer("data.batch_size", batch_size, minimum=1)
        require_choice("data.binarization", binarization, BINARIZATIONS)
        require_integer("data.train_size", train_size, minimum=1, optional=True)
        require_integer("data.split_seed", split_seed, minimum=0)
        for label in classes or ():
            require_integer("each of data.classes", label, minimum=0, advice="they are labels, counted from 0")
        if classes is not None and len(set(classes)) != max(1, len(classes)):
            raise ConfigError(f"data.classes must be different labels such as [0,1], or null for all, got {classes}")
        self.batch_size = batch_size
        self.binarization = binarization
        self.train_size = train_size
        self.split_seed = split_seed
        self.classes = classes
        if self.train_capacity is not None:
            self._require_enough(self.train_capacity)

    @abstractmethod
    def load(self) -> Source:
        """Reads the files."""

    @property
    def found(self) -> dict[str, Any]:
        """What the files say in place of those of its keys that are null; a run's config keeps it."""
        return {}

    @property
    def num_train(self) -> int:
        """The size of the train split in use."""
        if self.classes is not None:
            return len(self.splits["train"])
        return min(self.num_available, self.train_size or self.num_available)

    @property
    def num_available(self) -> int:
        """The size of the whole train split."""
        return self.train_capacity or len(self.splits["train"])

    @property
    def scale(self) -> str:
        """What was done to the stored values x; densities on different scales are not comparable."""
        return "x" if self.divisor == 1 else f"x/{self.divisor}"

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits train, val (where there is one) and test; under dynamic binarisation train stays grey."""
        with self._looking():
            source = self.load()
        chosen = source.indices if self.classes is None else self._of_classes(source, self.classes)
        self._require_enough(len(chosen["train"]))
        chosen = chosen | {"train": chosen["train"][: self.train_size]}
        self._fingerprint = _fingerprint(source, chosen)
        differing = [name for name, value in self._expected.items() if self._fingerprint.get(name) != value]
        if differing:
            was_and_is = (f"{name} {self._expected[name]}, now {self._fingerprint.get(name)}" for name in differing)
            raise ConfigError(
                f"the data of {self._owner} have changed since it was trained ({'; '.join(was_and_is)}): put back what "
                "it was trained on, or name the place where that lies now; for these data train a new run"
                f"{self._looked}"
            )
        return {name: self._make_split(source, name, indices) for name, indices in chosen.items()}

    def whole(self) -> Split:
        """All images, however few, in the order of their files, as evaluations see them."""
        with self._looking():
            source = self.load_whole()
        (indices,) = source.indices.values()
        return self._make_split(source, "whole", indices)

    def load_whole(self) -> Source:
        """Reads the files, without a split."""
        source = self.load()
        return replace(source, indices={"whole": torch.arange(len(source.images))})

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others: the shape and a hash of all stored images, and a hash of the splits."""
        _ = self.splits
        return self._fingerprint

    def refuse_constant(self) -> None:
        """Refuses to train on images that are all equal; warns of those that are black, or nearly so.

        Raises:
            ConfigError: saying what may have gone wrong.
        """
        images = self.splits["train"].images
        if (images == images[:1]).all():
            values = f"{images.min():.3g} ... {images.max():.3g}"
            shows = f"data.binarization=none shows whether {self.binarization} does it"
            raise ConfigError(
                f"data: the {len(images)} training images of {self.name} must differ, and all are equal, "
                f"with values in {values}: {self._why_dark() if self.binarization == 'none' else shows}"
            )
        if (largest := self._largest) <= DARK:
            log.warning(
                "no value of the %d training images of %s exceeds %.3g, on a scale from 0 to 1: %s",
                *(len(images), self.name, largest, self._why_dark()),
            )

    def _why_dark(self) -> str:
        return f"stored values are divided by {self.divisor}; look at the files"

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """While files are looked for: the message about one that is not there says where else it may be."""
        try:
            yield
        except MissingFile as error:
            raise MissingFile(f"{error}{self._looked}") from error

    def expect(self, fingerprint: Mapping[str, Any], owner: object, looked: str = "") -> None:
        """Refuses, when the files are read, other data than those with this fingerprint; an empty one is any data's.

        Args:
            fingerprint: what `owner` was trained on.
            owner: a run, by its path.
            looked: where its data were looked for, and what names another place; ends the messages.
        """
        self._expected, self._owner, self._looked = fingerprint, owner, looked

    def measured(self, name: str) -> Split:
        """The split as evaluations see it: what training binarises anew is here binarised once."""
        split = self.splits[name]
        if self.binarization == "dynamic" and name == "train":
            return replace(split, images=_drawn_once(split.images, EVALUATION_SEED, name))
        return split

    @property
    def split_hash(self) -> str:
        """12 hex digits that change with any split's name or the positions it takes from the source."""
        return self.fingerprint["split"][:12]

    def _of_classes(self, source: Source, classes: Sequence[int]) -> dict[str, Tensor]:
        """The positions of the images with these labels."""
        chosen = {}
        for name, indices in source.indices.items():
            labels = np.array([-1]) if source.labels is None else source.labels[indices.numpy()]
            if (labels < 0).any():
                reason = f"the images of its {name} split have no labels"
                raise ConfigError(f"data.classes must be null for {self.name}, got {classes}: {reason}")
            if absent := sorted(set(classes) - set(labels.tolist())):
                reason = f"its {name} split has {', '.join(map(str, np.unique(labels)))}"
                raise ConfigError(f"data.classes must name labels of {self.name}, got {absent[0]}: {reason}")
            chosen[name] = indices[torch.from_numpy(np.isin(labels, classes))]
        return chosen

    def _make_split(self, source: Source, name: str, indices: Tensor) -> Split:
        rows = indices.numpy()
        stored = torch.from_numpy(source.images[rows].astype(np.float32)) / self.divisor
        if name == "train":
            self._largest = float(stored.max())  # before it is binarised, which may hide it
        images = stored.unsqueeze(1) if stored.ndim == 3 else stored.movedim(-1, 1).contiguous()
        match self.binarization:
            case "threshold":
                images = (images > 0.5).float()
            case "static":
                images = _drawn_once(images, self.split_seed, name)
            case "dynamic" if name != "train":
                images = _drawn_once(images, EVALUATION_SEED, name)
        labels = None if source.labels is None else torch.from_numpy(source.labels[rows].astype(np.int64))
        places: list[int] = indices.tolist()
        files = [self.file_names[i] for i in places] if self.file_names else ()
        return Split(images, None if labels is None or (labels < 0).any() else labels, indices, files)

    def _require_enough(self, available: int) -> None:
        used = available if self.train_size is None else self.train_size
        for key, value, limit in (("train_size", used, available), ("batch_size", self.batch_size, used)):
            if value > limit:
                raise ConfigError(
                    f"data.{key} must be <= {limit}, got {value}: "
                    f"the train split of {self.name} has {limit} images; choose a smaller data.{key}"
                )


@dataclass(frozen=True)
class Block:
    """Consecutive minibatches: images, and their rows within the split."""

    x: Float[Tensor, "count batch channel height width"]
    index: Int[Tensor, "count batch"]


class Minibatches:
    """The minibatches of a training, numbered from its start; nothing is stored to continue.

    Epoch e presents the datapoints in a random order given by (seed, e), each at most once: a remainder that
    does not fill a minibatch waits for the next epoch. Of each minibatch, rank r gets the r-th of `num_ranks`
    equal shares. Under dynamic binarisation minibatch i is drawn, as a whole, by (seed, i). Neither ranks nor blocks
    change any of it; the kind of device does, for order and noise are made where the images are.
    """

    def __init__(
        self, split: Split, *, batch_size: int, seed: int, binarization: str, rank: int = 0, num_ranks: int = 1
    ):
        if batch_size % num_ranks:
            raise ConfigError(
                f"data.batch_size must be a multiple of the {num_ranks} processes, got {batch_size}: "
                f"it is the total over all of them; choose {batch_size - batch_size % num_ranks or num_ranks}"
            )
        share = batch_size // num_ranks
        self.images = split.images
        self.num_datapoints = len(split)
        self.per_epoch = len(split) // batch_size
        self.batch_size = batch_size
        self.seed = seed
        self.dynamic = binarization == "dynamic"
        self.share = slice(rank * share, (rank + 1) * share)
        self._cached_order: tuple[int, Tensor] | None = None

    def to(self, device: torch.device | str) -> "Minibatches":
        """Moves the images: from now on minibatches are made on `device`."""
        self.images = self.images.to(device)
        self._cached_order = None
        return self

    def block(self, first: int, count: int) -> Block:
        """Minibatches `first` ... `first + count - 1`, this rank's share; may span epochs."""
        assert first >= 0 and count >= 1
        index = self._rows(first, count).view(count, self.batch_size)[:, self.share]
        x = self.images.index_select(0, index.flatten()).view(*index.shape, *self.images.shape[1:])
        if self.dynamic:
            for i in range(count):
                x[i] = self._uniform(first + i)[self.share] < x[i]
        return Block(x, index)

    def _rows(self, first: int, count: int) -> Tensor:
        pieces = []
        number, stop = first, first + count
        while number < stop:
            epoch, begin = divmod(number, self.per_epoch)
            end = min(self.per_epoch, begin + stop - number)
            pieces.append(self._order(epoch)[begin * self.batch_size : end * self.batch_size])
            number += end - begin
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if self._cached_order is None or self._cached_order[0] != epoch:
            device = self.images.device
            noise = generator(device, self.seed, "order", epoch)
            self._cached_order = (epoch, torch.randperm(self.num_datapoints, generator=noise, device=device))
        return self._cached_order[1]

    def _uniform(self, number: int) -> Tensor:
        device = self.images.device
        noise = generator(device, self.seed, "binarization", number)
        return torch.rand(self.batch_size, *self.images.shape[1:], generator=noise, device=device)


def shuffled(num: int, seed: int) -> Int[Tensor, " num"]:
    """The positions 0 ... num - 1 in the random order from which a split is cut."""
    return torch.randperm(num, generator=generator("cpu", seed, "split"))


def cut(order: Int[Tensor, " num"], **sizes: int) -> dict[str, Int[Tensor, " split"]]:
    """The last of `order` as splits of these sizes, those before them as `train`; a split of size 0 does not exist."""
    sizes = {"train": len(order) - sum(sizes.values()), **sizes}
    pieces = order.split(list(sizes.values()))
    return {name: piece for name, piece in zip(sizes, pieces, strict=True) if len(piece)}


def split_own(rest: Int[Tensor, " num"], seed: int, **given: Int[Tensor, " _"]) -> dict[str, Int[Tensor, " split"]]:
    """Splits of a user's own images: those `given` and, where val or test is empty, a random tenth of the rest."""
    drawn = {name: len(rest) // 10 for name, positions in given.items() if not len(positions)}
    indices = {**given, **cut(rest[shuffled(len(rest), seed)], **drawn)}
    return {name: indices[name] for name in ("train", *given)}


def _fingerprint(source: Source, indices: Mapping[str, Tensor]) -> dict[str, Any]:
    images, pixels, split = source.images, hashlib.sha256(), hashlib.sha256()
    pixels.update(f"{images.dtype.str}{images.shape}".encode() + b"\0")
    pixels.update(np.ascontiguousarray(images).data)
    for name, positions in indices.items():
        split.update(f"{name}:{len(positions)}:".encode() + positions.numpy().astype("<i8").tobytes())
    return {"images": list(images.shape), "pixels": pixels.hexdigest()[:16], "split": split.hexdigest()[:16]}


def _drawn_once(grey: Tensor, seed: int, name: str) -> Tensor:
    return (torch.rand(grey.shape, generator=generator("cpu", seed, "binarization", name), dtype=grey.dtype) < grey).to(
        grey.dtype
    )
