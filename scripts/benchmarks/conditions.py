"""The conditions under which everything is measured: cores, device, folder; and the settings that all sides share."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vae_lab.runs.provenance import provenance
from vae_lab.training.machine import processor
from vae_lab.training.matmul import MKLDNN

OTHERS = ("jax", "optax", "pythae")
MATMUL: Any = MKLDNN.matmul
"""Its `fp32_precision` says how float32 matrices are multiplied on the CPU, in the whole process.

`none`: by PyTorch's default library. `bf16`: by oneDNN, in bfloat16 where the processor has units for that; others keep
float32.
"""


@dataclass(frozen=True)
class Conditions:
    """What every side has to know: threads of the CPU, device, a folder for files that are thrown away afterwards."""

    threads: int
    device: str
    folder: Path

    @property
    def overrides(self) -> list[str]:
        """The overrides of every `vae-lab train`."""
        return [*(["trainer=gpu"] if self.device == "cuda" else []), f"threads={self.threads}"]

    def neutral(self) -> None:
        """Global settings of PyTorch as a new process has them, but for the threads."""
        torch.set_num_threads(self.threads)
        MATMUL.fp32_precision = "none"
        torch.set_grad_enabled(True)

    def synchronize(self) -> None:
        """Waits for what the device still computes."""
        if self.device == "cuda":
            torch.cuda.synchronize()


@contextmanager
def cores(number: int) -> Iterator[None]:
    """While the block runs, this process and its children have so many cores: libraries that take all obey as well."""
    can = hasattr(os, "sched_setaffinity")
    before = os.sched_getaffinity(0) if can else set()
    try:
        if can:
            os.sched_setaffinity(0, sorted(before)[:number])
        yield
    finally:
        if can:
            os.sched_setaffinity(0, before)


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, nothing below a warning is logged: hundreds of trainings would speak."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def machine(device: str) -> dict[str, Any]:
    """Where it was measured: processor, load, versions."""
    facts = provenance(torch.device(device))
    facts["versions"] |= {package: metadata.version(package) for package in OTHERS if find_spec(package)}
    facts |= {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    facts |= {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    return {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(), **facts}
