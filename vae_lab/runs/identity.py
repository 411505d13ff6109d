"""What each config key is to a run: the one table from which all else about keys follows."""

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

from vae_lab.runs.formats import former_fixed_settings, former_settings
from vae_lab.wiring.dotted import key_of, leaves, target_at, value_at, walk, with_values


class Kind(Enum):
    """What a config key decides."""

    COMPUTED = "what the run computes"
    BUDGET = "how long it trains: part of what it computes, and may grow"
    SPEED = "how fast it computes the same, but for rounding"
    DEVICES = "on how many devices of which kind"
    WATCHING = "who looks on and what is expected"
    PLACE = "where its data set lies"
    OWN_DATA = "where a user's own data lie, and so which data these are: a run's fingerprint knows them elsewhere"
    COMMAND = "where a command puts the run, and what else it does; no part of the run's own config"


class Fact(Enum):
    """What else is known of a config key, and not of those below it."""

    COUNT = "a whole number, which may be written as 1e6, as every one at the top of a config"
    OF_THE_BUDGET = "follows from the budget where it is not given"
    DATA_PLACE = "the place of a data set, which has one such key or none"
    TRAINING_ONLY = "leaves the images that a bound is measured on as they are"
    DENSITY = "chooses the density, or the images"
    ANY_PRESET = "leaves an experiment what it is, although it changes what is computed"
    FIRST_WEIGHTS = "decides the weights that a training begins with"
    ANY_SPEED = "a training is as fast with another value"


KEYS: Mapping[str, tuple[Kind | Fact, ...]] = {
    "max_samples": (Kind.BUDGET, Fact.COUNT, Fact.ANY_SPEED),
    "trainer.max_epochs": (Kind.BUDGET, Fact.COUNT, Fact.ANY_SPEED),
    "threads": (Kind.SPEED,),
    "matmul_backend": (Kind.SPEED,),
    "cuda_graph": (Kind.SPEED,),
    "compile": (Kind.SPEED,),
    "channels_last": (Kind.SPEED,),
    "steps_per_execution": (Kind.SPEED,),
    "checkpoint.every_seconds": (Kind.SPEED,),
    "objective.datapoints_at_once": (Kind.SPEED,),
    "trainer.accelerator": (Kind.DEVICES,),
    "trainer.devices": (Kind.DEVICES,),
    "trainer.num_nodes": (Kind.DEVICES,),
    "trainer.strategy": (Kind.DEVICES,),
    "expected": (Kind.WATCHING,),
    "logger": (Kind.WATCHING,),
    "callbacks": (Kind.WATCHING,),
    "data.root": (Kind.PLACE, Fact.DATA_PLACE),
    "data.path": (Kind.OWN_DATA, Fact.DATA_PLACE),
    "data.test_path": (Kind.OWN_DATA,),
    "run_dir": (Kind.COMMAND,),
    "allow": (Kind.COMMAND,),
    "name": (Kind.COMMAND,),
    "output_root": (Kind.COMMAND,),
    "sweep": (Kind.COMMAND,),
    "seed": (Fact.ANY_PRESET, Fact.FIRST_WEIGHTS, Fact.ANY_SPEED),
    "model": (Fact.FIRST_WEIGHTS,),
    "data": (Fact.DENSITY, Fact.FIRST_WEIGHTS),
    "likelihood": (Fact.DENSITY,),
    "experiment": (Fact.DENSITY, Fact.ANY_PRESET),
    "trainer": (Fact.ANY_PRESET,),
    "checkpoint": (Fact.ANY_SPEED,),
    "optimizer.lr": (Fact.ANY_SPEED,),
    "evaluation.first": (Fact.COUNT, Fact.OF_THE_BUDGET),
    "schedule.total_samples": (Fact.COUNT, Fact.OF_THE_BUDGET),
    "schedule.batch_size": (Fact.COUNT,),
    "data.batch_size": (Fact.COUNT, Fact.TRAINING_ONLY),
    "data.train_size": (Fact.COUNT, Fact.TRAINING_ONLY),
}
"""What is known of a key: its kind, which is that of all keys below it as well, and facts.

A key without a kind, or that is not named, decides what is computed. One that is of another kind than before must be in
what older checkpoints may hold (`former_fixed_settings`).
"""


@cache
def keys_of(about: Kind | Fact) -> tuple[str, ...]:
    """The keys of a kind, or with a fact, that the table names."""
    return tuple(key for key, known in KEYS.items() if about in known)


_KINDS = {key: kind for kind in Kind for key in keys_of(kind)}
BUDGET = keys_of(Kind.BUDGET)
"""The keys of the budget: samples, and passes over the data."""
PLACES = keys_of(Fact.DATA_PLACE)
"""The keys of the place of a data set."""
OWN_CALLBACKS = "vae_lab.callbacks."
FIXED = "fixed_settings"
"""The entry of run.json by which a config.yaml is known that was changed by hand."""


def kind_of(key: str, config: Mapping[str, Any] | None = None) -> Kind:
    """The kind of a dotted key or of an override's; of a callback's key by its class, where `config` has it.

    Args:
        key: such as `trainer.devices`, `+callbacks.mine.every` or `experiment@here`.
        config: nested, or by dotted keys. The lab's own callbacks change nothing; what another class does is not known.
    """
    names = key_of(key).split(".")
    if config is not None and names[0] == "callbacks" and names[1:]:
        is_own = str(target_at(config, f"callbacks.{names[1]}") or OWN_CALLBACKS).startswith(OWN_CALLBACKS)
        return Kind.WATCHING if is_own else Kind.COMPUTED
    return next(
        (_KINDS[known] for i in range(len(names), 0, -1) if (known := ".".join(names[:i])) in _KINDS), Kind.COMPUTED
    )


def is_computed(key: str, config: Mapping[str, Any] | None = None) -> bool:
    """Whether a key identifies a run: two runs that agree in all of these compute the same, but for rounding."""
    return kind_of(key, config) in (Kind.COMPUTED, Kind.BUDGET, Kind.OWN_DATA)


def decides_the_density(key: str) -> bool:
    """Whether only runs that agree in a key have comparable bounds: it decides the density, or the images."""
    name = key_of(key)
    is_data = name.startswith("data.") and is_computed(name) and name not in keys_of(Fact.TRAINING_ONLY)
    return is_data or name in keys_of(Fact.DENSITY)


def is_the_preset(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a run is still its experiment's when its command line has a key, or an override."""
    return not is_computed(key, config) or key_of(key) in keys_of(Fact.ANY_PRESET)


def may_change(key: str) -> bool:
    """Whether a run may be continued with another value; of the budget only a larger one is accepted besides."""
    return kind_of(key) in (Kind.SPEED, Kind.PLACE, Kind.OWN_DATA)


def frozen_config(composed: Mapping[str, Any]) -> dict[str, Any]:
    """What a composed config says about a run, without what concerns the command; 1e6 becomes a whole number."""
    config = {key: whole(value) for key, value in composed.items() if kind_of(key) is not Kind.COMMAND}
    counts = {key: value_at(config, key) for key in keys_of(Fact.COUNT)}
    return with_values(config, {key: whole(count) for key, count in counts.items() if count is not None})


def whole(value: Any) -> Any:
    """A whole number that was written as 1e6, as an integer: one and the same setting has one config."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the keys that do not identify a run."""

    def kept(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            name: kept(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
            for name, value in node.items()
            if is_computed(f"{prefix}{name}", config)
        }

    callbacks = kept(config.get("callbacks") or {}, "callbacks.")
    return {**kept(config, ""), "callbacks": callbacks}


def config_hash(config: Mapping[str, Any]) -> str:
    """Six hex digits of what identifies a run."""
    return identity_hash(config)[:6]


def identity_hash(config: Mapping[str, Any]) -> str:
    """64 hex digits of what identifies a run."""
    return _digest(identity(config))


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The dotted keys that two configs disagree in, among those that identify a run."""
    values, others = dict(walk(identity(one))), dict(walk(identity(other)))
    return [key for key in dict.fromkeys([*values, *others]) if values.get(key) != others.get(key)]


def fixed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What no continuation changes: the settings that decide what is computed, by dotted keys, as JSON can hold them.

    Args:
        config: nested, or by dotted keys.
    """
    former = former_settings(config)
    return {
        key: _plain(value)
        for key, value in leaves(config)
        if kind_of(key, config) is Kind.COMPUTED and not (key in former and value == former[key])
    }


def fixed_hash(config: Mapping[str, Any]) -> str:
    """64 hex digits of what no continuation changes: they are in a run's checkpoints."""
    return _digest(fixed_settings(config))


def fixed_hashes(config: Mapping[str, Any]) -> set[str | None]:
    """The hashes that a run's checkpoints may hold: `fixed_hash`, and those of older formats, None of the first."""
    fixed, settings = fixed_settings(config), {key: _plain(value) for key, value in leaves(config)}
    return {None, *map(_digest, (fixed, *former_fixed_settings(fixed, settings)))}


def changed_settings(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fixed settings that a config has no longer as they were -> what they are and were; None: not there."""
    now = fixed_settings(config)
    then = {key: value for key, value in fixed.items() if kind_of(key, config) is Kind.COMPUTED}
    return {key: (now.get(key), then.get(key)) for key in {**then, **now} if now.get(key) != then.get(key)}


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
