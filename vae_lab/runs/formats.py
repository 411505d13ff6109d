"""The format of a run directory: its number, and what directories of older formats lack."""

from collections.abc import Mapping
from typing import Any

FORMAT = 2
"""The format that this version writes, and says in run.json. Version 0.1 wrote no number, which counts as 1."""

CHOICES_OF_2 = {"matmul_backend": "default", "cuda_graph": False, "compile": False, "channels_last": False}
"""Keys that some configs of format 1 lack, and what a training did before there was a choice."""


def migrated_config(config: Mapping[str, Any], written: int) -> dict[str, Any]:
    """A frozen config, nested or by dotted keys, as the present format has it."""
    return dict(config) if written == FORMAT else CHOICES_OF_2 | dict(config)


def migrated_checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint as the present format has it: with what is measured, and the seconds so far."""
    return {"measured": [], "seconds": 0.0} | content
