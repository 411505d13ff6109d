"""Randomness as a function of its purpose: every stream of noise is named by what it is for.

Nothing is stored to continue a run: the order of the training images is a function of (seed, epoch), the noise of a
training step one of (seed, step, rank), the noise of an evaluation one of (seed, datapoint).
"""

import hashlib

import torch

NOISE_BLOCK = 250
"""Datapoints that share one generator in an evaluation: block i holds the datapoints i * 250 ... i * 250 + 249."""


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part, and on their order."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A fresh generator on `device`, seeded by `derived_seed(*parts)`.

    PyTorch's generators on a CPU take 32 bits of a seed, the lower ones: of n streams some two are the same with
    probability n^2 / 2^33, which is 1 % for 10,000. Other bits would be other numbers for every run that there is.
    """
    return torch.Generator(device).manual_seed(derived_seed(*parts))


def seed_global_noise(device: torch.device, *parts: int | str) -> None:
    """Seeds the global stream that layers and `rsample` draw from on `device` (and on the CPU, by 32 bits)."""
    seed = derived_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
