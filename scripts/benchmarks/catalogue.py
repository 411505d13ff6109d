"""The cases by name: what each asks, and where it stands. Nothing is imported before a case is chosen."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from vae_lab.errors import ConfigError, nearest

if TYPE_CHECKING:
    from benchmarks.conditions import Conditions
    from benchmarks.sides import Case

DEFAULT, ALL = "default", "all"
BOTH, CPU, GPU, ON_REQUEST = ("cpu", "cuda"), ("cpu",), ("cuda",), ()


class Entry(NamedTuple):
    """A line of the catalogue."""

    summary: str
    module: str
    default_on: tuple[str, ...]
    """The devices on whose default set it is."""
    only_on: tuple[str, ...] = BOTH


CASES = {
    "mlp": Entry("experiment=mnist in float32", "training_cases", BOTH),
    "mlp_bf16": Entry("experiment=mnist in bfloat16 where it loses nothing", "training_cases", BOTH),
    "conv": Entry("experiment=mnist_conv in both precisions", "training_cases", BOTH),
    "frey_face": Entry("experiment=frey_face", "training_cases", BOTH),
    "wake_sleep": Entry("experiment=mnist objective=wake_sleep", "training_cases", BOTH),
    "iwae": Entry("experiment=iwae, k = 50", "training_cases", BOTH),
    "importance_sampling": Entry("log p(x) with K = 5000", "estimation_cases", BOTH),
    "hmc": Entry("Hamiltonian transitions", "estimation_cases", BOTH),
    "startup": Entry("seconds to the help, and to the first step of a training", "process_cases", CPU),
    "memory": Entry("peaks of a training and of importance sampling", "process_cases", CPU),
    "jobs": Entry("two trainings, one after the other or at once", "process_cases", CPU),
    "evaluation": Entry("what evaluations take of a whole run's time", "long_runs", ON_REQUEST),
    "growth": Entry("what a sample costs late in a long run", "long_runs", ON_REQUEST),
    "precision": Entry("what bfloat16 loses in five epochs", "long_runs", ON_REQUEST),
    "cuda_graph": Entry("what CUDA graphs gain", "training_cases", GPU, GPU),
    "shared_jobs": Entry("four trainings on one GPU, one after the other or at once", "process_cases", GPU, GPU),
}
"""A case is the function of that name in its module of vae_lab.benchmarks: from the conditions to a `Case`."""


def chosen(names: Sequence[str], device: str) -> list[str]:
    """The names of the cases to measure, in the order of the catalogue.

    Raises:
        ConfigError: an unknown name, or a case that this device cannot answer.
    """
    for name in names:
        if name not in (*CASES, DEFAULT, ALL):
            raise ConfigError(f"case={name} is no case of scripts/bench: {nearest(name, [*CASES, DEFAULT, ALL])}")
        if name in CASES and device not in CASES[name].only_on:
            raise ConfigError(f"case={name} must be measured with device={CASES[name].only_on[0]}, got device={device}")

    def is_chosen(name: str, entry: Entry) -> bool:
        by_group = (ALL in names and device in entry.only_on) or (DEFAULT in names and device in entry.default_on)
        return name in names or by_group

    return [name for name, entry in CASES.items() if is_chosen(name, entry)]


def make_case(name: str, conditions: "Conditions") -> "Case":
    """The case of this name, its data in memory."""
    return getattr(import_module(f"benchmarks.{CASES[name].module}"), name)(conditions)
