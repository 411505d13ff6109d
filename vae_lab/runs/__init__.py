"""The run directory, and the only code that reads or writes what lies in it."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """`load_run` and `RunDir` by the names that pages printed by version 0.1 import them by; torch is imported late."""
    if file := {"load_run": "load", "RunDir": "directory"}.get(name):
        return getattr(import_module(f"vae_lab.runs.{file}"), name)
    raise AttributeError(f"module 'vae_lab.runs' has no attribute {name!r}")
