"""The format of a run directory: its number, and what directories of older formats lack."""

from collections.abc import Mapping
from typing import Any

from vae_lab.runs.identity import former_settings

FORMAT = 5
"""The format that this version writes, and says in run.json. Version 0.1 wrote no number, which counts as 1."""

CHOICES_OF_2 = {"matmul_backend": "default", "cuda_graph": False, "compile": False, "channels_last": False}
"""Keys that some configs of format 1 lack, and what a training did before there was a choice."""


def migrated_config(config: Mapping[str, Any], written: int) -> dict[str, Any]:
    """A frozen config as the present format has it."""
    if written == FORMAT:
        return dict(config)
    settings = CHOICES_OF_2 | dict(config)
    for key, value in former_settings(settings).items():
        component, name = key.split(".")
        settings[component] = {name: value, **settings[component]}
    return settings


def migrated_checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint as the present format has it: with what is measured, and the seconds so far."""
    return {"measured": [], "seconds": 0.0} | content
