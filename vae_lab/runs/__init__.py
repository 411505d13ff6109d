"""The run directory, and the only code that reads or writes what lies in it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load_run` and `RunDir` by the names that pages printed by version 0.1 import them by; torch is imported late."""
    if name == "load_run":
        from vae_lab.runs.load import load_run

        return load_run
    if name == "RunDir":
        from vae_lab.runs.directory import RunDir

        return RunDir
    raise AttributeError(f"module 'vae_lab.runs' has no attribute {name!r}")
