"""Optuna chooses the points of a sweep by the validation bound; its trials are kept beside the runs, and counted."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from vae_lab.errors import ConfigError, require_integer
from vae_lab.runs.identity import decides_the_density, identity_hash
from vae_lab.sweeps.points import Space
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class SearchSettings:
    """The keys `hydra.sweeper.*` of a search."""

    n_trials: int
    n_jobs: int
    direction: Literal["maximize", "minimize"]
    sampler: dict[str, Any]

    def __post_init__(self) -> None:
        require_integer("hydra.sweeper.n_trials", self.n_trials, minimum=1)
        require_integer("hydra.sweeper.n_jobs", self.n_jobs, minimum=1)
        require_integer("hydra.sweeper.sampler.seed", self.sampler.get("seed"), minimum=0, optional=True)


def search(
    config: DictConfig,
    space: Space,
    fixed: Mapping[str, Any],
    folder: Path,
    run: Callable[[Sequence[list[str]]], Sequence[float | None]],
    *,
    is_kept: bool,
) -> None:
    """Proposes points and learns from their values until `n_trials` are complete, those of earlier calls included.

    A trial that a kill left running is asked for again: its run is recognised and resumed.

    Args:
        config: the `hydra.sweeper` of the command.
        space: the keys that vary.
        fixed: the config in which they do. What computes something else, or varies otherwise, is another search.
        folder: where the trials are kept.
        run: from overrides to the values of their runs; None where a run has none.
        is_kept: whether the trials are; else what is proposed changes nothing of what will be.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = build.settings(SearchSettings, config, "hydra.sweeper")
    if unlike := [key for key in space.swept if decides_the_density(key)]:
        raise ConfigError(
            f"{unlike[0]} must have one value in a search, got {space.swept[unlike[0]].input_line}: a bound of "
            "another density, or of other pixels, is no better and no worse; search once for each"
        )
    distributions = {key: distribution(override) for key, override in space.swept.items()}
    shapes = {key: distribution_to_json(shape) for key, shape in distributions.items()}
    about = json.dumps([identity_hash(fixed), settings.direction, shapes], sort_keys=True)
    name = f"{folder.name}-{hashlib.sha256(about.encode()).hexdigest()[:6]}"
    with tempfile.TemporaryDirectory(prefix="vae-lab-search-") as scratch:
        file = folder / "search.log"
        if not is_kept:
            file = Path(shutil.copy(file, scratch) if file.exists() else f"{scratch}/{file.name}")
        study = open_study(file, name, settings)
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)
        left = settings.n_trials - sum(trial.state == TrialState.COMPLETE for trial in trials)
        if left <= 0:
            log.info("the search in %s is finished: a larger hydra.sweeper.n_trials goes on", folder)
        for begin in range(0, left, settings.n_jobs):
            batch = [study.ask(distributions) for _ in range(min(settings.n_jobs, left - begin))]
            values = run([[f"{key}={value}" for key, value in trial.params.items()] for trial in batch])
            for trial, value in zip(batch, values, strict=True):
                study.tell(trial, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def open_study(file: Path, name: str, settings: SearchSettings) -> optuna.Study:
    """The search of this name in a file of trials, with what it knows so far."""
    storage = JournalStorage(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))
    known = {study.study_name: study for study in optuna.get_all_study_summaries(storage)}
    sampler = dict(settings.sampler)
    if sampler.get("seed") is not None and name in known:  # or the first trials would be proposed again
        sampler["seed"] += known[name].n_trials
    return optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=build.instantiate(sampler, "hydra.sweeper.sampler"),
        direction=settings.direction,
        load_if_exists=True,
    )


def distribution(override: Override) -> BaseDistribution:
    """What Optuna calls an `interval`, a `range`, or the choices of an override in Hydra's grammar.

    Raises:
        ConfigError: there is no such space, as of an interval that ends before it begins.
    """
    value = override.value()
    try:
        if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
            is_log = "log" in value.tags
            if "int" in value.tags or isinstance(value.start, int):
                return IntDistribution(int(value.start), int(value.end), log=is_log)
            return FloatDistribution(float(value.start), float(value.end), log=is_log)
        if isinstance(value, RangeSweep) and not value.shuffle:  # as elsewhere in Hydra's grammar, without its end
            low, *_, high = sorted(values) if len(values := list(value.range())) > 1 else values * 2
            if isinstance(low, int) and isinstance(high, int) and isinstance(value.step, int):
                return IntDistribution(low, high, step=abs(value.step))
            return FloatDistribution(low, high, step=abs(value.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError(f"{override.input_line} is no space to search: {error}") from error
