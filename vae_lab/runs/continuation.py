"""Continuing a run: what a further command may say about a run directory that exists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import BUDGET, PLACES, Fact, Kind, keys_of, kind_of, may_change
from vae_lab.runs.place import require_place
from vae_lab.wiring.arguments import override
from vae_lab.wiring.compose import own_config
from vae_lab.wiring.dotted import key_of, leaves, value_at, with_values


@dataclass(frozen=True)
class Request:
    """What the command line asked for, beyond the defaults."""

    overrides: list[str] = field(default_factory=list)
    """`key=value` and `group=choice`, as typed."""
    choices: dict[str, str] = field(default_factory=dict)
    """Every group's choice."""

    @classmethod
    def of_this_command(cls) -> "Request":
        """The request that Hydra is serving; an empty one where it is not Hydra that called."""
        if not HydraConfig.initialized():
            return cls()
        overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)  # as typed: one may hold a ${reference}
        _, choices = own_config(cast(DictConfig, HydraConfig.instance().cfg))
        return cls(cast(list[str], overrides), choices)

    @property
    def experiment(self) -> str | None:
        """The chosen experiment."""
        return self.choices.get("experiment")

    @property
    def keys(self) -> dict[str, str]:
        """The overridden keys and groups, without the signs of Hydra's grammar."""
        return {key_of(override): override.partition("=")[2] for override in self.overrides}


def budget_in_samples(config: Mapping[str, Any], samples_per_epoch: int) -> int | None:
    """The smaller of the two limits, samples and passes over the training split; None where both are null."""
    samples, epochs = (value_at(config, key) for key in BUDGET)
    limits = (samples, None if epochs is None else epochs * samples_per_epoch)
    return min((int(limit) for limit in limits if limit is not None), default=None)


def continued_config(
    frozen: Mapping[str, Any], composed: Mapping[str, Any], request: Request, run: RunDir
) -> dict[str, Any]:
    """The frozen config, with a larger budget, other threads or a data set that moved where these are asked for.

    Raises:
        ConfigError: an override disagrees with the frozen config in anything else; all such keys are named.
    """
    recorded = run.read_record().get("choices", {})
    changes, differences = {}, []
    for key, typed in request.keys.items():
        if key in request.choices:
            if request.choices[key] != recorded.get(key):
                differences.append(f"{key}={recorded.get(key)} (asked for: {request.choices[key]})")
            continue
        if kind_of(key) is Kind.COMMAND:
            continue
        if kind_of(key) in (Kind.PLACE, Kind.OWN_DATA):
            require_place(frozen, key, typed, run.path)
        if (asked := value_at(composed, key)) != (kept := value_at(frozen, key)):
            if may_change(key) or (key in BUDGET and is_larger(asked, kept)):
                changes[key] = asked
            else:
                differences.append(f"{key}={kept} (asked for: {typed})")
    if differences:
        speed, places = (", ".join(keys) for keys in (keys_of(Kind.SPEED), PLACES))
        raise ConfigError(
            f"run_dir={run.path} was planned with {', '.join(differences)}: a run is continued as it was planned, and "
            f"only a larger budget ({' or '.join(BUDGET)}), another speed ({speed}) and another place of its data "
            f"({places}) are accepted; leave these keys out, or leave run_dir out for a new run"
        )
    return with_values(frozen, changes)


def overrides_with(
    overrides: Sequence[str] | None, before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Any]:
    """The entry of run.json about what was typed, with what a continuation changed; none where nothing is known.

    Args:
        overrides: as the run was planned, or went on last.
        before: its frozen config.
        now: the one that it goes on with.
    """
    if overrides is None:
        return {}
    changed = {key: value for key, value in leaves(now) if value_at(before, key) != value}
    if any(key in changed for key in BUDGET):  # what followed from the smaller budget stays as it was
        followed = {key: value_at(before, key) for key in keys_of(Fact.OF_THE_BUDGET)}
        changed |= {key: value for key, value in followed.items() if value is not None}
    kept = [text for text in overrides if key_of(text) not in changed]
    return {"overrides": [*kept, *(override(key, value) for key, value in changed.items())]}


def is_larger(budget: float | None, than: float | None) -> bool:
    """Whether a budget exceeds another; null is no limit at all."""
    return than is not None and (budget is None or budget > than)
