"""Shapes are checked in every test (jaxtyping and beartype); fixtures that several tests share."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("vae_lab", "beartype.beartype")

from linear_gaussian import LinearGaussian  # noqa: E402  (vae_lab must be imported after the hook)


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    """Every test draws the same noise, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def linear_gaussian() -> LinearGaussian:
    """The oracle in float64, its encoder the exact posterior; other forms: `make_linear_gaussian`."""
    return LinearGaussian()


@pytest.fixture
def make_linear_gaussian() -> type[LinearGaussian]:
    """Makes an oracle with keyword arguments of its own, such as `exact_posterior=False`."""
    return LinearGaussian
