"""Shapes of the core and its components are checked in every test (jaxtyping, beartype); shared fixtures.

PyTorch is imported where it is used: the process of pytest-xdist that starts the workers reads this file first.
"""

import shutil
from typing import TYPE_CHECKING

import jaxtyping
import pytest
import shape_checks

CORE = "distributions model elbo hmc measurement data.image_grids optimizers schedules"
COMPONENTS = "networks objectives estimators data applications"
jaxtyping.jaxtyped = shape_checks.jaxtyped_once
jaxtyping.install_import_hook([f"vae_lab.{name}" for name in f"{CORE} {COMPONENTS}".split()], "shape_checks.check")

if TYPE_CHECKING:
    from pathlib import Path

    from linear_gaussian import LinearGaussian

    from vae_lab.runs.directory import RunDir


def pytest_configure(config: pytest.Config) -> None:
    """One server for all workers of a test run; each of them is as a command, to which imports cost less."""
    from vae_lab import collect_garbage_rarely

    collect_garbage_rarely()
    if not hasattr(config, "workerinput"):
        import warm_python

        config.add_cleanup(warm_python.start())


@pytest.fixture
def warm_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs that this process starts are forks of a process that has imported PyTorch."""
    import warm_python

    monkeypatch.setattr("sys.executable", warm_python.python())


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    """Every test draws the same noise, and has one thread, whichever trainings this process ran before it."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # a training without `threads` takes all cores: two such processes slow each other down


@pytest.fixture
def linear_gaussian(make_linear_gaussian: "type[LinearGaussian]") -> "LinearGaussian":
    """The oracle in float64, its encoder the exact posterior; other forms: `make_linear_gaussian`."""
    return make_linear_gaussian()


@pytest.fixture
def make_linear_gaussian() -> "type[LinearGaussian]":
    """Makes an oracle with keyword arguments of its own, such as `exact_posterior=False`."""
    from linear_gaussian import LinearGaussian

    return LinearGaussian


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> "RunDir":
    """A finished tiny run of 4 epochs on the digits; to be read only, a copy may be changed."""
    from training import train_tiny

    return train_tiny(tmp_path_factory.mktemp("finished") / "run", "trainer.max_epochs=4")


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory, finished_run: "RunDir") -> "Path":
    """Latent sizes 2 and 3, two seeds each, in folders such as `2_1`; `3_0` is `finished_run`. To be read only, too."""
    from training import train_tiny

    folder = tmp_path_factory.mktemp("sweep") / "sizes"
    shutil.copytree(finished_run.path, folder / "3_0")
    for latent_dim, seed in ((2, 0), (2, 1), (3, 1)):
        values = (f"model.latent_dim={latent_dim}", f"seed={seed}")
        train_tiny(folder / f"{latent_dim}_{seed}", "trainer.max_epochs=4", *values)
    return folder
