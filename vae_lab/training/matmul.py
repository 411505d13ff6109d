"""Which library multiplies float32 matrices on a CPU: torch's default one, or oneDNN where that is as exact and faster.

torch hands float32 products to oneDNN when they may be rounded to bfloat16 inside. Processors with AMX then do so;
others keep float32 and can still be much faster than with the default library, if that was tuned for another maker's
processors. So accuracy is measured first, speed second.
"""

import functools
import logging
from typing import Any

import torch
from torch import Tensor

from vae_lab.errors import ConfigError, require_choice
from vae_lab.training.machine import known_of, known_once, times_as_fast

log = logging.getLogger("vae_lab")

MKLDNN: Any = torch.backends.mkldnn  # whose precision settings torch adds when it is imported
BACKENDS = ("auto", "default", "onednn")
SWITCH = {"default": "none", "onednn": "bf16"}
"""What each is called in torch.backends.mkldnn.matmul.fp32_precision."""
ERROR_RATIO = 4.0
"""oneDNN is as exact as the default if its error is at most so many times the default's; bfloat16's: thousands."""
SPEED_RATIO = 1.2
"""The speed-up from which on `auto` prefers oneDNN."""
LIKE = {"exact": bool, "speed_ratio": float}
"""What is kept of a measurement."""
SHAPE = (100, 784, 500)
"""The paper's largest layer on MNIST: minibatch, pixels, hidden units."""


@functools.cache
def choose_backend(name: str) -> str:
    """`default` or `onednn`; for `auto` the better one on this machine.

    Raises:
        ConfigError: no such backend, or oneDNN rounds to bfloat16 here.
    """
    require_choice("matmul_backend", name, BACKENDS)
    if name == "onednn" and not is_exact():
        raise ConfigError(
            "matmul_backend must be default on this processor, got onednn: it would round float32 products to "
            "bfloat16 here; trainer.precision=bf16-mixed does so where nothing is lost"
        )
    if name != "auto":
        return name
    found = known_once("matmul", LIKE, lambda: {"exact": is_exact(), "speed_ratio": round(speed_ratio(), 3)})
    return "onednn" if found["exact"] and found["speed_ratio"] >= SPEED_RATIO else "default"


def described(name: str) -> str:
    """A backend in words, with what was measured on this machine, if it ever was."""
    if not (found := known_of("matmul", LIKE)):
        return f"float32 matrix products: {name}"
    how = "and as exact" if found["exact"] else "but rounds to bfloat16"
    speed = f"{found['speed_ratio']:.2f} times as fast as torch's default"
    return f"float32 matrix products: {name} (oneDNN is {speed}, {how})"


def use_backend(name: str) -> None:
    """Lets all float32 products of this process go through a backend: the one that a run was planned with.

    Where a run comes from another machine, and oneDNN is not as exact on this one, the default takes its place.
    """
    if name == "auto":
        name = choose_backend(name)
    elif name == "onednn" and not is_exact():
        log.warning("matmul_backend=onednn rounds to bfloat16 on this processor: torch's default is used instead")
        name = "default"
    MKLDNN.matmul.fp32_precision = SWITCH[name]


def is_exact() -> bool:
    """Whether oneDNN keeps float32's accuracy on this processor."""
    x, weight = matrices()
    exact = x.double() @ weight.double()
    errors = {name: float((product(name, x, weight) - exact).abs().max()) for name in SWITCH}
    return errors["onednn"] <= ERROR_RATIO * errors["default"]


def speed_ratio(repeats: int = 15) -> float:
    """How many times as fast as the default oneDNN is: the median of alternated pairs of products."""
    ways = (functools.partial(product, name, *matrices(), times=8) for name in ("default", "onednn"))
    return times_as_fast(*ways, repeats=repeats)


def matrices() -> tuple[Tensor, Tensor]:
    """A minibatch and a layer's weights, the same ones every time."""
    rows, inner, columns = SHAPE
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)


def product(backend: str, x: Tensor, weight: Tensor, times: int = 1) -> Tensor:
    """X @ weight through a backend; leaves the process's backend as it was."""
    before = MKLDNN.matmul.fp32_precision
    MKLDNN.matmul.fp32_precision = SWITCH[backend]
    try:
        for _ in range(times - 1):
            torch.mm(x, weight)
        return torch.mm(x, weight)
    finally:
        MKLDNN.matmul.fp32_precision = before
