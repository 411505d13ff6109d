"""The points of a sweep: what varies from one to the other, and the run directory that belongs to each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, RunError
from vae_lab.runs.directory import RunDir, safe_name
from vae_lab.runs.identity import FREE, identity, identity_hash

NAME_LENGTH = 80


def sweep_folder(cfg: DictConfig) -> Path:
    """<output_root>/sweeps/<name, else the sweep's, the experiment's or the data set's, if that does not vary>."""
    if not isinstance(cfg.output_root, str):
        raise ConfigError(f"output_root must name a folder, got {cfg.output_root or 'null'}")
    swept = {text.partition("=")[0] for text in swept_arguments(cfg)}
    choices = cfg.hydra.runtime.choices
    names = [choices.get(group) for group in ("sweep", "experiment", "data") if group not in swept]
    name = cfg.name or next((choice for choice in names if choice), "runs")
    return Path(cfg.output_root).expanduser() / "sweeps" / safe_name(str(name))


def run_folder(folder: Path, varied: Sequence[str], config: Mapping[str, Any]) -> Path:
    """<what varies>-<hash of the config> in the sweep's folder; where a run has this very config, that run's folder.

    Of a sweep that was extended by a further data set or experiment, such runs lie in the folder beside.
    """
    whole = identity_hash(config)
    pairs = [text.lstrip("+~").partition("=") for text in varied]
    name = safe_name("_".join(f"{key.split('.')[-1]}-{value}" for key, _, value in pairs))[:NAME_LENGTH] or "run"
    own = folder / f"{name}-{whole[:6]}"
    for path in (*sorted(folder.glob(f"*-{whole[:6]}*")), *sorted(folder.parent.glob(f"*/*-{whole[:6]}*"))):
        if holds(path, config):
            return path
    is_other = RunDir(own).exists() and not is_broken(own)  # another run, or this one with a larger budget
    return folder / f"{name}-{whole[:16]}" if is_other else own


def holds(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run directory has this very config."""
    run = RunDir(path)
    try:
        return run.exists() and bool(run.record) and identity(run.config) == identity(config)
    except RunError:  # broken
        return False


def is_broken(path: Path) -> bool:
    """Whether a run directory's config or record cannot be read."""
    try:
        return not (RunDir(path).config and RunDir(path).record)
    except RunError:
        return True


def varied_overrides(cfg: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of every job, the overrides that tell it from the others."""
    swept = {text.partition("=")[0].lstrip("+~") for text in swept_arguments(cfg)}
    return [
        [text for text in overrides if (key := text.partition("=")[0].lstrip("+~")) in swept and key not in FREE]
        for overrides in job_overrides
    ]


def swept_arguments(cfg: DictConfig) -> list[str]:
    """What the command line and the sweep's YAML say about keys with several values, as typed."""
    typed = typed_overrides(cfg)
    params = cfg.hydra.sweeper.get("params") or {}
    keys = {text.partition("=")[0] for text in typed}
    own = [f"{key}={value}" for key, value in params.items() if key not in keys]
    parser = OverridesParser.create()
    return [text for text in [*own, *typed] if parser.parse_override(text).is_sweep_override()]


def typed_overrides(cfg: DictConfig) -> list[str]:
    """The overrides of the command line, as typed: one may hold a ${reference}."""
    return OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)  # pyright: ignore[reportReturnType]
