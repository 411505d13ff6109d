"""What each config key is to a run: what identifies it, what only says where and how fast."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

UNIDENTIFYING = (
    *("threads", "matmul_backend", "cuda_graph", "compile", "channels_last", "steps_per_execution"),
    *("expected", "logger", "callbacks"),
)


PLACES = ("accelerator", "devices", "num_nodes", "strategy")
"""Keys without a say in what a run computes, and those of the trainer; see `identity`."""


def config_hash(config: Mapping[str, Any]) -> str:
    """Six hex digits of what identifies a run."""
    return identity_hash(config)[:6]


def identity_hash(config: Mapping[str, Any]) -> str:
    """64 hex digits of what identifies a run."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run computes: its config without threads, devices, folders and what only looks on."""
    known = {key: value for key, value in config.items() if key not in UNIDENTIFYING}
    known["data"] = {key: value for key, value in config["data"].items() if key != "root"}
    known["trainer"] = {key: value for key, value in config["trainer"].items() if key not in PLACES}
    callbacks = {name: part for name, part in (config.get("callbacks") or {}).items() if part is not None}
    known["callbacks"] = {name: part for name, part in callbacks.items() if not looks_on(part)}
    return known


def looks_on(part: Mapping[str, Any]) -> bool:
    """Whether a callback is one of the lab's own, which change nothing."""
    return str(part.get("_target_", "vae_lab.callbacks.")).startswith("vae_lab.callbacks.")


BUDGET = ("max_samples", "trainer.max_epochs")


CHANGEABLE = ("threads", "matmul_backend", "cuda_graph", "compile", "channels_last", "data.root")
"""Keys that do not change what the run computes, but for rounding."""


FREE = ("run_dir", "allow", "name", "output_root", "threads", "sweep")
"""Keys that say where and how a run is made, not what it is."""
