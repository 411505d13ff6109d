"""What each config key is to a run: the one table from which all else about keys follows."""

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from vae_lab.wiring.dotted import key_of, leaves, value_at, walk, with_values


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


SPEED_SINCE_5 = ("checkpoint.every_seconds", "objective.datapoints_at_once")
"""Keys that decide how fast the same is computed, and that formats up to 4 had among what is computed."""
KINDS = {
    **dict.fromkeys(("max_samples", "trainer.max_epochs"), Kind.BUDGET),
    **dict.fromkeys(("threads", "matmul_backend", "cuda_graph", "compile", "channels_last"), Kind.SPEED),
    **dict.fromkeys(("steps_per_execution", *SPEED_SINCE_5), Kind.SPEED),
    **dict.fromkeys((f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy")), Kind.DEVICES),
    **dict.fromkeys(("expected", "logger", "callbacks"), Kind.WATCHING),
    "data.root": Kind.PLACE,
    "data.path": Kind.OWN_DATA,
    "data.test_path": Kind.OWN_DATA,
    **dict.fromkeys(("run_dir", "allow", "name", "output_root", "sweep"), Kind.COMMAND),
}
"""The kind of a key and of all keys below it; what is not named decides what is computed.

A key that is of another kind than COMPUTED from now on must be in what older checkpoints may hold (`fixed_hashes`).
"""


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


def keys_of(kind: Kind) -> tuple[str, ...]:
    """The keys of a kind that the table names."""
    return tuple(key for key, known in KINDS.items() if known is kind)


BUDGET = keys_of(Kind.BUDGET)
"""The keys of the budget: samples, and passes over the data."""
COUNTS = (
    *BUDGET,
    *("schedule.total_samples", "schedule.batch_size", "data.batch_size", "data.train_size", "evaluation.first"),
)
"""The keys with whole numbers that may be written as 1e6; at the top of a config all are."""
PLACES = (*keys_of(Kind.PLACE), "data.path")
"""The keys of the place of a data set, of which it has one or none."""
TRAINING_ONLY = ("data.batch_size", "data.train_size")
"""Settings of a data set that leave the images that a bound is measured on as they are."""
KEEPS_A_PRESET = ("experiment", "seed", "trainer")
"""Keys that leave an experiment what it is, besides those that change nothing that is computed."""
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
        is_own = str(_target(config, f"callbacks.{names[1]}") or OWN_CALLBACKS).startswith(OWN_CALLBACKS)
        return Kind.WATCHING if is_own else Kind.COMPUTED
    return next(
        (KINDS[known] for i in range(len(names), 0, -1) if (known := ".".join(names[:i])) in KINDS), Kind.COMPUTED
    )


def is_computed(key: str, config: Mapping[str, Any] | None = None) -> bool:
    """Whether a key identifies a run: two runs that agree in all of these compute the same, but for rounding."""
    return kind_of(key, config) in (Kind.COMPUTED, Kind.BUDGET, Kind.OWN_DATA)


def decides_the_density(key: str) -> bool:
    """Whether only runs that agree in a key have comparable bounds: it decides the density, or the images."""
    name = key_of(key)
    is_data = name.startswith("data.") and is_computed(name) and name not in TRAINING_ONLY
    return is_data or name in ("data", "likelihood", "experiment")  # the last chooses both


def is_the_preset(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a run is still its experiment's when its command line has a key, or an override."""
    return not is_computed(key, config) or key_of(key) in KEEPS_A_PRESET


def may_change(key: str) -> bool:
    """Whether a run may be continued with another value; of the budget only a larger one is accepted besides."""
    return kind_of(key) in (Kind.SPEED, Kind.PLACE, Kind.OWN_DATA)


def frozen_config(composed: Mapping[str, Any]) -> dict[str, Any]:
    """What a composed config says about a run, without what concerns the command; 1e6 becomes a whole number."""
    config = {key: whole(value) for key, value in composed.items() if kind_of(key) is not Kind.COMMAND}
    return with_values(config, {key: whole(value) for key in COUNTS if (value := value_at(config, key)) is not None})


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


def former_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was done before its components had some of their keys, by dotted keys.

    Args:
        config: nested, or by dotted keys.
    """
    return {
        f"{component}.{name}": value
        for component, classes in FORMERLY.items()
        for name, value in classes.get(str(_target(config, component)), {}).items()
    }


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


def fixed_hashes(config: Mapping[str, Any]) -> set[str]:
    """The hashes that a run's checkpoints may hold: `fixed_hash`, and those of its formats up to 4."""
    now, whole_config = fixed_settings(config), dict(leaves(config))
    then = now | {key: _plain(whole_config[key]) for key in SPEED_SINCE_5 if key in whole_config}
    return {_digest(now), _digest(then), _digest(then | {"data.classes": whole_config.get("data.classes")})}


def changed_settings(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fixed settings that a config has no longer as they were -> what they are and were; None: not there."""
    now = fixed_settings(config)
    then = {key: value for key, value in fixed.items() if kind_of(key, config) is Kind.COMPUTED}
    return {key: (now.get(key), then.get(key)) for key in {**then, **now} if now.get(key) != then.get(key)}


def _target(config: Mapping[str, Any], component: str) -> Any:
    """The class of a component in a config, nested or by dotted keys; None where there is none."""
    key = f"{component}._target_"
    return config.get(key) or value_at(config, key)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
