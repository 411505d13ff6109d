"""The format of a run directory: its number, and how what older formats wrote becomes what the present one has."""

from collections.abc import Mapping
from typing import Any

from vae_lab.wiring.dotted import target_at

FORMAT = 5
"""The format that this version writes, and says in run.json. Version 0.1 wrote no number, which counts as 1."""

CHOICES_OF_2 = {"matmul_backend": "default", "cuda_graph": False, "compile": False, "channels_last": False}
"""Keys that some configs of format 1 lack, and what a training did before there was a choice."""
SPEED_SINCE_5 = ("checkpoint.every_seconds", "objective.datapoints_at_once")
"""Keys that decide how fast the same is computed, and that formats up to 4 had among what is computed."""
WITH_CLASSES = ("digits.Digits", "frey_face.FreyFace", "like_mnist.LikeMNIST", "mnist.MNIST")
"""Data sets whose key `classes`, and no other, came later."""
FORMERLY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "data": {
        **{f"vae_lab.data.{name}": {"classes": None} for name in WITH_CLASSES},
        "vae_lab.data.image_folder.ImageFolder": {
            "classes": None,
            "bits": 8,
            "fit": "stretch",
            "background": "none",
            "layout": "random",
            "test_path": None,
            "skip_damaged": False,
        },
        "vae_lab.data.npz.NPZ": {"classes": None, "keys": None},
    },
    "model": {"vae_lab.model.VAE": {"log_variance_factor": 1.0}},
}
"""Keys of a component that came later, by its class, and what was done before them: with these values the fixed
settings are those of a run that did not have the keys."""


def former_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was done before its components had some of their keys, by dotted keys.

    Args:
        config: nested, or by dotted keys.
    """
    return {
        f"{component}.{name}": value
        for component, classes in FORMERLY.items()
        for name, value in classes.get(str(target_at(config, component)), {}).items()
    }


def former_fixed_settings(fixed: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """What formats up to 4 had in place of a run's fixed settings: their hashes are in its checkpoints.

    Args:
        fixed: as the present format has them.
        settings: the whole config, by dotted keys.
    """
    then = {**fixed, **{key: settings[key] for key in SPEED_SINCE_5 if key in settings}}
    return then, then | {"data.classes": settings.get("data.classes")}


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
