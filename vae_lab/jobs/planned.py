"""The config of a new run: what the command line leaves open is decided by the data, and kept with the run."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vae_lab.jobs.children import called_with_torch
from vae_lab.runs.continuation import budget_in_samples
from vae_lab.runs.identity import BUDGET, frozen_config
from vae_lab.wiring import build
from vae_lab.wiring.dotted import value_at

LEAST_EPOCHS, LEAST_MINIBATCHES = 20, 5_000
"""The budget where none is given: so many passes over the training split, and at least so many minibatches."""
LATEST_FIRST, FIRST_SHARE = 10_000, 100
"""The first evaluation, where its count is not given: after so many samples, or this part of a smaller budget."""
ALL = ("train_size", "classes")
"""Keys of `data` whose null leaves nothing open: it stands for all images."""


def planned_config(composed: Mapping[str, Any]) -> dict[str, Any]:
    """What a composed config says about a run, with the values found for what is null in it.

    These are keys of `data` that its files decide, the budget, and the first evaluation. A value of the wrong type is
    left as it is: the component that has the key refuses it.

    Raises:
        ConfigError: the data set cannot be read, or its keys are refused.
    """
    config = frozen_config(composed)
    data = config.get("data")
    if not isinstance(data, dict) or "trainer" not in config:
        return config
    if any(value is None for key, value in data.items() if key not in ALL):
        data |= facts_of(json.dumps(data))[0]
    schedule, evaluation = config.get("schedule"), config.get("evaluation")
    if all(value_at(config, key) is None for key in BUDGET):
        _, num_train, batch_size = facts_of(json.dumps(data))
        per_epoch = num_train - num_train % batch_size
        config["max_samples"] = max(LEAST_EPOCHS * per_epoch, LEAST_MINIBATCHES * batch_size)
        if isinstance(schedule, dict) and schedule.get("total_samples", "") is None:
            schedule["total_samples"] = config["max_samples"]
    if isinstance(evaluation, dict) and evaluation.get("first", "") is None:
        evaluation["first"] = LATEST_FIRST
        if all(_is_count(value_at(config, key)) for key in BUDGET):
            epochs = value_at(config, "trainer.max_epochs")
            num_train = 0 if epochs is None else facts_of(json.dumps(data))[1]
            budget = budget_in_samples(config, num_train) or 0
            evaluation["first"] = max(1, min(LATEST_FIRST, budget // FIRST_SHARE))
    return config


@lru_cache(maxsize=8)  # the points of a sweep have few data sets
def facts_of(section: str) -> tuple[dict[str, Any], int, int]:
    """What the data set of this section, as JSON, finds in its files; its number of training images; its batch size."""
    return called_with_torch(read_facts, section)


def read_facts(section: str) -> tuple[dict[str, Any], int, int]:
    """What `facts_of` says, found in this process.

    Raises:
        ConfigError: the data set cannot be read, or its keys are refused.
    """
    data = build.instantiate(json.loads(section), "data")
    return data.found, data.num_train, data.batch_size


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**63)
