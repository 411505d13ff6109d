"""The points of a sweep: what varies from one to the other, and the run directory that belongs to each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError, RunError, missing
from vae_lab.jobs.planned import planned_config
from vae_lab.runs.directory import RunDir, require_root, safe_name
from vae_lab.runs.identity import Kind, differing_keys, identity_hash, is_computed, kind_of
from vae_lab.wiring.build import of_type
from vae_lab.wiring.compose import own_config

NAME_LENGTH = 80
NEEDED = ("seed", "threads", "name", "output_root", "run_dir", "sweep")
"""Keys without which no run can be planned."""


@dataclass
class Point:
    """One job of a sweep: its config, and the run directory that belongs to it."""

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    varied: list[str]
    run: RunDir

    @property
    def status(self) -> str:
        """The status of the run, as far as there is one."""
        if not self.run.exists():
            return "planned"
        return "broken" if is_broken(self.run.path) else self.run.read_status()


class Space:
    """What the command line and the sweep's YAML say: keys with one value, and keys with several.

    Raises:
        ConfigError: a key has several values that says where the sweep goes, not what a run is.
    """

    def __init__(self, typed: Sequence[str], params: Mapping[str, Any]) -> None:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        texts = [*(f"{key}={value}" for key, value in params.items()), *typed]
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(texts)}  # typed wins
        own = {key: o for key, o in overrides.items() if not key.lstrip("+~").startswith(("hydra.", "hydra/"))}
        self.fixed = [str(override.input_line) for override in own.values() if not override.is_sweep_override()]
        self.swept = {key: override for key, override in own.items() if override.is_sweep_override()}
        if several := [str(o.input_line) for key, o in self.swept.items() if kind_of(key) is Kind.COMMAND]:
            raise ConfigError(
                f"{', '.join(several)} must have one value: it is the whole sweep's, and no part of what a run computes"
            )

    def grid(self) -> Iterator[list[str]]:
        """All combinations: for every point the overrides that tell it from the others.

        Raises:
            ConfigError: a key has infinitely many values.
        """
        for override in self.swept.values():
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line} has no list of values: add hydra/sweeper=optuna, or name some"
                )
        if empty := [o.input_line for o in self.swept.values() if not list(o.sweep_string_iterator())]:
            raise ConfigError(f"{', '.join(map(str, empty))} finds no value: name some, as in KEY=1,2")
        values = [[f"{key}={v}" for v in override.sweep_string_iterator()] for key, override in self.swept.items()]
        yield from map(list, product(*values))

    def point(self, cfg: DictConfig, folder: Path, varied: Sequence[str]) -> Point:
        """The point with these values of the keys that vary; refuses a config with values missing."""
        overrides = [*self.fixed, *varied]
        composed = compose(
            cfg.hydra.job.config_name, [*cfg.hydra.overrides.hydra, *overrides], return_hydra_config=True
        )
        if absent := sorted(key for key in OmegaConf.missing_keys(composed) if not key.startswith("hydra.")):
            raise ConfigError(missing(absent))
        requested, choices = own_config(composed)
        if requested["run_dir"] is not None:
            raise ConfigError("run_dir must be null in a sweep, or all its jobs would share one: leave it out")
        config = planned_config(requested)
        shown = [text for text in varied if is_computed(text, config)]
        return Point(config, choices, overrides, shown, RunDir(run_folder(folder, shown, config)))


def one_value_each(overrides: Sequence[str]) -> list[str]:
    """Those of a command line that a single config can be composed from: keys with several values are left out."""
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = zip(overrides, parser.parse_overrides(list(overrides)), strict=True)
    return [text for text, override in parsed if not override.is_sweep_override()]


def sweep_folder(cfg: DictConfig, swept: Iterable[str]) -> Path:
    """<output_root>/sweeps/<name, else the sweep's, the experiment's or the data set's, if that does not vary>."""
    root = require_root(of_type(cfg.output_root, str, "output_root"))
    choices, varied = cfg.hydra.runtime.choices, set(swept)
    names = [choices.get(group) for group in ("sweep", "experiment", "data") if group not in varied]
    name = of_type(cfg.name, str | int | None, "name") or next((choice for choice in names if choice), "runs")
    return root / "sweeps" / safe_name(str(name))


def run_folder(folder: Path, varied: Sequence[str], config: Mapping[str, Any]) -> Path:
    """<what varies>-<hash of the config> in the sweep's folder; where a run has this very config, that run's folder.

    Of a sweep that was extended by a further data set or experiment, such runs lie in the folder beside.
    """
    whole = identity_hash(config)
    pairs = [text.lstrip("+~").partition("=") for text in varied]
    name = safe_name("_".join(f"{key.split('.')[-1]}-{value}" for key, _, value in pairs))[:NAME_LENGTH] or "run"
    own = folder / f"{name}-{whole[:6]}"
    # a run of an older version has the name, and another hash
    patterns = ((folder, f"*-{whole[:6]}*"), (folder.parent, f"*/*-{whole[:6]}*"), (folder, f"{name}-*"))
    for path in (path for place, pattern in patterns for path in sorted(place.glob(pattern))):
        if holds(path, config):
            return path
    is_other = RunDir(own).exists() and not is_broken(own)  # another run, or this one with a larger budget
    return folder / f"{name}-{whole[:16]}" if is_other else own


def holds(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run directory has this very config."""
    run = RunDir(path)
    try:
        return run.exists() and bool(run.read_record()) and not differing_keys(run.read_config(), config)
    except RunError:  # broken
        return False


def is_broken(path: Path) -> bool:
    """Whether a run directory's config or record cannot be read."""
    try:
        return not (RunDir(path).read_config() and RunDir(path).read_record())
    except RunError:
        return True
