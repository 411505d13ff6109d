"""What an objective is: it turns a minibatch into one or more updates of parameters."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from vae_lab.model import VAE


class Minibatch(NamedTuple):
    """`x` as presented to the networks, `index`: which datapoints of the training part these are."""

    x: Float[Tensor, "batch channel height width"]
    index: Int[Tensor, " batch"]


class TrainingState(NamedTuple):
    """Where the training stands when a minibatch is presented."""

    samples: int
    """Training datapoints presented before this minibatch."""
    num_train: int
    """Size of the training part (the paper's N)."""


@dataclass(frozen=True)
class Terms:
    """One update: minimise the mean of `loss` over the batch by moving the parameters of `moves`.

    `parts` are measured on the way, before the update, and logged as running means: `bound` is the ELBO of each
    datapoint whatever the objective; the loss is lower-is-better, all else as its name says, in nats.
    """

    loss: Float[Tensor, " batch"]
    moves: nn.Module
    parts: Mapping[str, Float[Tensor, " batch"]]


class Objective(nn.Module, ABC):
    """Yields one `Terms` per optimiser step; the training loop steps after each, before asking for the next.

    State that must survive a restart belongs in buffers, further trained quantities in parameters.
    """

    @abstractmethod
    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """The updates of one minibatch, in order."""

    def describe(self) -> str:
        """A line for the log about settings that change what is optimised; empty if there is none."""
        return ""

    def check(self, max_samples: int) -> None:
        """Raises ValueError if the objective cannot be trained with this budget."""
