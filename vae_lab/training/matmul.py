"""Which library multiplies float32 matrices on a CPU: torch's default one, or oneDNN where that is as exact and faster.

torch hands float32 products to oneDNN when they may be rounded to bfloat16 inside. Processors with AMX then do so;
others keep float32 and can still be much faster than with the default library, if that was tuned for another maker's
processors. So accuracy is measured first, speed second.
"""

import functools
import logging
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_lab.atomic import read_cache, write_json
from vae_lab.errors import ConfigError, require_choice

log = logging.getLogger("vae_lab")

MKLDNN: Any = torch.backends.mkldnn  # whose precision settings torch adds when it is imported
BACKENDS = ("auto", "default", "onednn")
SWITCH = {"default": "none", "onednn": "bf16"}
"""What each is called in torch.backends.mkldnn.matmul.fp32_precision."""
ERROR_RATIO = 4.0
"""oneDNN is as exact as the default if its error is at most so many times the default's; bfloat16's: thousands."""
SPEED_RATIO = 1.2
"""From here on `auto` prefers oneDNN."""
SHAPE = (100, 784, 500)
"""The paper's largest layer on MNIST: minibatch, pixels, hidden units."""


def settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run about to be planned: what `auto` stands for on this machine is decided now, and kept."""
    return {**config, "matmul_backend": choose_backend(config["matmul_backend"])}


@functools.cache
def choose_backend(name: str) -> str:
    """`default` or `onednn`; for `auto` the better one on this machine, which is logged.

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
    found = measured_once()
    better = found["exact"] and found["speed_ratio"] >= SPEED_RATIO
    log.info(
        "float32 matrix products: %s (oneDNN is %.2f times as fast as torch's default, %s)",
        "onednn" if better else "default",
        found["speed_ratio"],
        "and as exact" if found["exact"] else "but rounds to bfloat16",
    )
    return "onednn" if better else "default"


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


def measured_once() -> dict[str, Any]:
    """Accuracy and speed of oneDNN beside the default, kept in the user's cache for this processor and torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = (
        Path(cache if os.path.isabs(cache) else os.devnull) / "vae_lab" / "matmul.json"
    )  # nobody's home: nothing kept
    key = f"{processor()}, torch {torch.__version__}"
    known = read_cache(path)
    if not is_measured(known.get(key)):
        known = {key: {"exact": is_exact(), "speed_ratio": round(speed_ratio(), 3)}}
        try:
            write_json(path, read_cache(path) | known)
        except OSError as error:
            log.info("the choice of matmul_backend is measured again next time: %s", error)
    return known[key]


def is_measured(entry: Any) -> bool:
    """Whether an entry of the cache is whole."""
    ratio = entry.get("speed_ratio") if isinstance(entry, dict) else None
    return isinstance(ratio, float) and isinstance(entry.get("exact"), bool)


def is_exact() -> bool:
    """Whether oneDNN keeps float32's accuracy on this processor."""
    x, weight = matrices()
    exact = x.double() @ weight.double()
    errors = {name: float((product(name, x, weight) - exact).abs().max()) for name in SWITCH}
    return errors["onednn"] <= ERROR_RATIO * errors["default"]


def speed_ratio(repeats: int = 15) -> float:
    """How many times as fast as the default oneDNN is: the median of alternated pairs of products."""
    x, weight = matrices()
    seconds: dict[str, list[float]] = {name: [] for name in SWITCH}
    for i in range(repeats + 2):  # the first ones make the libraries ready
        for name, times in seconds.items():
            started = time.perf_counter()
            product(name, x, weight, times=8)
            if i >= 2:
                times.append(time.perf_counter() - started)
    return statistics.median(a / b for a, b in zip(seconds["default"], seconds["onednn"], strict=True))


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


def processor() -> str:
    """The processor's name and abilities, as far as the system tells them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    named = [facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts]
    return " ".join(named) or platform.processor() or platform.machine()
