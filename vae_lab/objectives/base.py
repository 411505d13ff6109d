"""What an objective is: it turns a minibatch into one or more updates of parameters."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor, nn

from vae_lab.elbo import Bound
from vae_lab.model import VAE, Images, PerDatapoint


class Minibatch(NamedTuple):
    """`x` as presented to the networks, `index`: which datapoints of the training split these are."""

    x: Images
    index: Int[Tensor, " batch"]


class TrainingState(NamedTuple):
    """Where the training stands when a minibatch is presented."""

    samples: int
    """Training datapoints presented before this minibatch."""
    num_train: int
    """Size of the training split (the paper's N)."""


@dataclass(frozen=True)
class Terms:
    """One update: minimise the mean of `loss` over the batch by moving the parameters of `moves`.

    `logged` is what is measured on the way, before the update, and logged as running means: `bound` is the ELBO of
    each datapoint whatever the objective, as long as there is an encoder; the loss is lower-is-better, all
    else as its name says, in nats.
    """

    loss: PerDatapoint
    moves: nn.Module
    logged: Mapping[str, PerDatapoint]


def logged_terms(bound: Bound) -> dict[str, PerDatapoint]:
    """What every objective with a bound measures on the way."""
    return {"bound": bound.total, "reconstruction": bound.reconstruction, "kl": bound.kl}


@dataclass(frozen=True)
class Traits:
    """What the training loop and the machine must know of an objective beside its updates."""

    has_encoder: bool = True
    """Whether q(z|x) is trained; if not, there is no bound, and log p(x) is what is monitored."""
    moves_everything: bool = True
    """Whether each update moves every parameter; if not, several processes must look for the unused ones."""
    has_parameter_prior: bool = False
    """Whether the loss contains a prior on the weights, and `parameter_prior` would be a second one."""
    single_process_because: str = ""
    """Why it cannot be shared by several processes; empty: it can."""
    not_captured_because: str = ""
    """Why its updates are no fixed sequence of kernels that a CUDA graph could replay; empty: they are."""
    not_compiled_because: str = ""
    """Why its updates should not be compiled; empty: they may be."""
    steady_from: int = 0
    """Training samples from which on its updates no longer depend on the state of the training."""
    whole_training_split: bool = False
    """Whether a minibatch is the whole training split, in place of `data.batch_size` datapoints."""
    samples_per_datapoint: int = 1
    """Training samples evaluated that one datapoint of a minibatch counts for."""


class Objective(nn.Module, ABC):
    """Yields one `Terms` per optimiser step; the training loop steps after each, before asking for the next.

    State that must survive a restart belongs in buffers, further trained quantities in parameters; where
    their size depends on the model or on the data, `prepare` makes them.
    """

    traits: Traits = Traits()

    def samples_per_step(self, batch_size: int, num_train: int) -> int:
        """Training samples evaluated that one minibatch, whatever its updates, counts for."""
        return (num_train if self.traits.whole_training_split else batch_size) * self.traits.samples_per_datapoint

    def prepare(self, model: VAE, num_train: int) -> None:
        """Called once, with the initialised model and the training split's size, before anything is loaded."""

    @abstractmethod
    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """The updates of one minibatch, in order."""

    def predictive_model(self, model: VAE) -> VAE:
        """A model to predict with: where parameters have a posterior, a draw of them in a copy; else `model` itself."""
        return model

    def describe(self) -> str:
        """A line for the log about settings that change what is optimised; empty if there is none."""
        return ""

    def check(self, max_samples: int) -> None:
        """Raises ConfigError if the objective cannot be trained with this budget."""
