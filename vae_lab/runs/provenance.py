"""Where a run happens: versions, device, commit."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_lab import __version__

if TYPE_CHECKING:
    import torch


PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy")


def provenance(device: "torch.device") -> dict[str, Any]:
    """Entries of run.json about the machine and the software."""
    return {
        "device": str(device),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES} | {"vae_lab": __version__},
        "git_commit": git_commit(),
    }


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_commit() -> str | None:
    """The commit of the checkout that vae_lab runs from; None for an installed package."""
    git = Path(__file__).parents[2] / ".git"
    head = git / "HEAD"
    if not head.is_file():
        return None
    content = head.read_text().strip()
    if not content.startswith("ref: "):
        return content
    reference = content.removeprefix("ref: ")
    if (git / reference).is_file():
        return (git / reference).read_text().strip()
    packed = git / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), None)
