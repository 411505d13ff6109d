"""HMC against posteriors of the Inference Gym: the means and variances that Stan found for it.

The data and truths are read from its files; its models need TensorFlow and are written here anew, in coordinates whose
prior is N(0, I).
"""

import math
import runpy
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import needs
from torch import Tensor

from vae_lab import hmc

pytestmark = [pytest.mark.slow, needs("inference_gym")]
Quantities = dict[str, Tensor]
"""By the names of the truths, each [..., size]."""


@cache
def numbers(file: str) -> dict[str, Any]:
    """The arrays that a file of the package defines."""
    spec = find_spec("inference_gym")
    (folder,) = spec.submodule_search_locations  # pyright: ignore[reportGeneralTypeIssues]
    return runpy.run_path(str(Path(folder) / file))


def normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The log density up to a constant, summed over the last dimension; what is NaN in `x` has not been observed."""
    seen = x.isfinite()
    return (-0.5 * ((x[seen] - mean[..., seen]) / std).square() - std.log()).sum(-1)


def eight_schools(z: Tensor) -> tuple[Quantities, Tensor]:
    effects, errors = torch.tensor([[28.0, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18]])
    average, log_std = 10 * z[..., :1], 5 + z[..., 1:2]
    schools = average + log_std.exp() * z[..., 2:]
    return {"AVG_EFFECT": average, "LOG_STDDEV": log_std, "SCHOOL_EFFECTS": schools}, normal(effects, schools, errors)


def brownian_motion(z: Tensor) -> tuple[Quantities, Tensor]:
    data = numbers("internal/datasets/brownian_motion_missing_middle_observations.py")
    path = data["INNOVATION_NOISE"] * z.cumsum(-1)
    observed, noise = torch.tensor(data["OBSERVED_LOC"]), torch.tensor(data["OBSERVATION_NOISE"])
    return {"": path}, normal(observed, path, noise)


@pytest.mark.parametrize(
    ("target", "dim", "truth"),
    [(eight_schools, 10, "eight_schools"), (brownian_motion, 30, "brownian_motion_missing_middle_observations")],
)
def test_means_and_variances_are_those_of_the_ground_truth(
    target: Callable[[Tensor], tuple[Quantities, Tensor]], dim: int, truth: str
) -> None:
    num_chains, num_draws = 200, 100

    def log_density(z: Tensor) -> Tensor:
        return target(z)[1] - 0.5 * z.square().sum(-1)

    state = hmc.start(log_density, 0.1 * torch.randn(num_chains, dim, dtype=torch.float64))
    tuned = hmc.StepSize(torch.tensor(0.1).double(), target_acceptance=0.8, gain=1.0, decay=0.5)
    positions = []
    for step in range(2 * num_draws):
        length = (tuned.value if step < num_draws else tuned.settled) * (0.5 + torch.rand(num_chains).double())
        noise = torch.randn_like(state.position), torch.rand_like(state.log_density)
        state, acceptance = hmc.transition(log_density, state, length, 8, *noise)
        if step < num_draws:
            tuned.update(acceptance)
        else:
            positions.append(state.position)

    known = numbers(f"targets/ground_truth/{truth}.py")
    for name, draws in target(torch.stack(positions))[0].items():
        mean, error, std = (
            torch.tensor(known["_".join(filter(None, ("IDENTITY", name, kind)))]).double()
            for kind in ("MEAN", "MEAN_STANDARD_ERROR", "STANDARD_DEVIATION")
        )
        for values, expected in ((draws, mean), ((draws - mean).square(), std.square())):
            spread = values.flatten(0, 1).std(0)
            ours = values.mean(0).std(0) / math.sqrt(num_chains)  # chains are independent, their own draws are not
            theirs = error / std * spread
            tolerance = 6 * (ours.square() + theirs.square()).sqrt()
            assert ((values.mean((0, 1)) - expected).abs() <= tolerance).all(), name
            assert (tolerance < 0.15 * spread).all(), name
