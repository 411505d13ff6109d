"""Under which conditions everything is measured: cores, device, folder; and the settings that all sides share."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

OTHERS = ("jax", "optax", "pythae")


@dataclass(frozen=True)
class Conditions:
    """What every side is told."""

    threads: int
    device: str
    folder: Path
    """For run directories and other files, thrown away afterwards."""

    def neutral(self) -> None:
        """Global settings of PyTorch as a new process has them, but for the threads."""
        import torch

        torch.set_num_threads(self.threads)
        set_matmul_precision("none")
        torch.set_grad_enabled(True)

    def synchronize(self) -> None:
        """Waits for what the device still computes."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def matmul_precision() -> str:
    """How float32 matrices are multiplied on the CPU.

    `none`: by PyTorch's default library. `bf16`: by oneDNN, in bfloat16 where the processor has units for that; others
    keep float32.
    """
    import torch

    return torch.backends.mkldnn.matmul.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]


def set_matmul_precision(precision: str) -> None:
    """From now on, for the whole process."""
    import torch

    torch.backends.mkldnn.matmul.fp32_precision = precision  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def cores(number: int) -> Iterator[None]:
    """While the block runs, this process and its children have so many cores: libraries that take all obey as well."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:number])
    try:
        yield
    finally:
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
    import torch

    from vae_lab.runs.provenance import provenance
    from vae_lab.training.matmul import processor

    facts = provenance(torch.device(device))
    facts["versions"] |= {package: version for package in OTHERS if (version := version_of(package))}
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    load = {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    return {"processor": processor(), "cores": os.cpu_count(), **gpu, "system": platform.platform(), **load, **facts}


def version_of(package: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
