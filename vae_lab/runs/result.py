"""The value that stands for a run: its bound on the test split or, in this order, what else was measured."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vae_lab.errors import LARGEST, ConfigError, require_number, shown
from vae_lab.wiring.dotted import leaves

SPLITS = ("test", "val", "train")
"""The splits whose value stands for a run, the first that there is."""
LOG_LIKELIHOOD, BASELINE = "/log_likelihood/", "/baseline/"
HIGH_K_HAT = "_high_k_hat"
"""Ending of the share of datapoints whose importance weights have a Pareto k-hat above 0.7."""
LOSS = {"objective.beta": ("beta", 1), "objective.free_bits": ("free bits", 0)}
"""Settings by which a training's loss differs from minus the bound -> their name, and with which value it does not."""
SAMPLED = ("bound", "reconstruction")
"""What is measured with draws of z."""
ELBO = "beta, free bits: of the loss that was trained; every bound is the ELBO, without them"
"""The note of a table with a bound of such a training."""
BESIDE = (
    *("_se", "_sd", "_num_datapoints", "_num_samples", "_seed", "_settings", "_bias", "_ess_share", HIGH_K_HAT),
    *("_upper", "_gap", "_gap_se"),
)
"""Endings of what a ledger says about a value."""
EXPECTATION = "{test/bound: {value: -101.6, tolerance: 0.4}}"
DOUBT = "!: neither value nor error can be trusted for that share of the datapoints, where Pareto k-hat is above 0.7"
"""The note of a table with a value that `doubt` marks."""


@dataclass(frozen=True)
class Result:
    """A measured value in nats per datapoint."""

    key: str
    """Its name in the ledger."""
    value: float
    standard_error: float | None
    """The Monte Carlo error with the data held fixed, where the measurement shows it."""
    draws: int
    """How many draws of z there were for each datapoint, where it is a bound."""
    loss: str = ""
    """How the training's loss differed from minus the bound, such as `beta 4`; empty: not at all."""
    high_k_hat: float | None = None
    """The share of datapoints for which importance sampling cannot be trusted, where that is known."""

    @property
    def name(self) -> str:
        """What it is and what was measured: `test bound`, `test log p(x) by importance sampling 100`."""
        split, _, quantity = self.key.partition("/")
        estimator = quantity.removeprefix(LOG_LIKELIHOOD[1:]).replace("_", " ")
        return f"{split} bound" if quantity == "bound" else f"{split} log p(x) by {estimator}"

    @property
    def number(self) -> str:
        """The value with its error and, where a bound has several draws of z, their number."""
        shown = f"{self.standard_error or 0:.2f}"
        error = f" ± {shown}" if float(shown) else ""
        share = doubt(self.high_k_hat)[1:]
        trust = f" (not to be trusted for {share} of the datapoints: Pareto k-hat > 0.7)" if share else ""
        return f"{self.value:.2f}{error} nats{draws_of_z(self.draws)}{trained_with(self.loss)}{trust}"

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


def result_of(ledger: Mapping[str, Any]) -> Result | None:
    """What stands for a run of this ledger; None where nothing was measured: a run without an encoder has no bound."""
    return next(results(ledger), None)


def results(ledger: Mapping[str, Any], splits: Iterable[str] = SPLITS) -> Iterator[Result]:
    """The bounds of these splits, and after them the values of log p(x), each in the order of `place`."""
    for keys in (bound_keys(ledger), log_likelihood_keys(ledger)):
        for key in sorted((key for key in keys if key.partition("/")[0].partition("[")[0] in splits), key=place):
            error, share = (ledger.get(f"{key}{ending}") for ending in ("_se", HIGH_K_HAT))
            yield Result(key, ledger[key], error, draws_behind(ledger, key), loss_of(ledger), share)


def loss_facts(config: Mapping[str, Any]) -> dict[str, float]:
    """The settings of a config, nested or by dotted keys, by which the loss differed from minus the bound."""
    known = dict(leaves(config))
    found = {key: known[key] for key, (_, plain) in LOSS.items() if known.get(key, plain) != plain}
    return {key: value for key, value in found.items() if isinstance(value, int | float)}


def loss_of(settings: Mapping[str, Any]) -> str:
    """How a training's loss differed from minus the bound, by its ledger or its config by dotted keys: `beta 4`."""
    return ", ".join(f"{LOSS[key][0]} {value:g}" for key, value in loss_facts(settings).items())


def doubt(share: float | None) -> str:
    """The mark of a value that cannot be trusted for this share of its datapoints: `!12%`; empty for none of them."""
    return f"!{max(1, round(100 * min(share, 1)))}%" if share and share > 0 else ""


def draws_of_z(num: int) -> str:
    """What stands behind a bound: nothing where it has one draw of z for each datapoint, else ` (8 draws of z)`."""
    return f" ({num} draws of z)" if num > 1 else ""


def trained_with(loss: str) -> str:
    """What stands behind a bound of such a training: ` (trained with beta 4)`."""
    return f" (trained with {loss})" if loss else ""


def latest(rows: Iterable[Mapping[str, float]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The last value of each column of a curve as a ledger, which says how a bound is measured and what was trained.

    Args:
        rows: of the curve, or some of them.
        config: of the run, nested or by dotted keys.
    """
    values = {key: value for row in rows for key, value in row.items()}
    return values | {f"{key}_num_samples": draws_of(config) for key in bound_keys(values)} | loss_facts(config)


def draws_behind(ledger: Mapping[str, Any], key: str) -> int:
    """How many draws of z there were for each datapoint behind a value; one where nothing is said about its bound."""
    split, _, quantity = key.partition("/")
    return ledger.get(f"{split}/bound_num_samples", 1) if quantity in SAMPLED else 1


def draws_of(config: Mapping[str, Any], section: str = "evaluation") -> int:
    """How many draws of z there are for each datapoint where the curve of a run, or its `objective`, is measured."""
    found = dict(leaves(config)).get(f"{section}.num_samples")
    return found if isinstance(found, int) else 1


def expectations(config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What the preset of a run expects: key of the ledger -> value and tolerance in nats.

    Raises:
        ConfigError: `expected` is no such mapping.
    """
    expected = config.get("expected") or {}
    if not isinstance(expected, Mapping):
        raise ConfigError(f"expected must be a mapping such as {EXPECTATION}, got {shown(expected)}")
    for key, claim in expected.items():
        if not isinstance(claim, Mapping) or set(claim) != {"value", "tolerance"}:
            raise ConfigError(f"expected.{key} must have value and tolerance, as in {EXPECTATION}, got {shown(claim)}")
        require_number(f"expected.{key}.value", claim["value"], at_least=-LARGEST, advice="in nats")
        require_number(f"expected.{key}.tolerance", claim["tolerance"], at_least=0, advice="in nats")
    return {key: (claim["value"], claim["tolerance"]) for key, claim in expected.items()}


def other_draws(config: Mapping[str, Any]) -> str:
    """What stands behind a running mean whose draws of z are others than those of the bounds beside it."""
    draws = draws_of(config, "objective")
    return f" ({'1 draw' if draws == 1 else f'{draws} draws'} of z)" if draws != draws_of(config) else ""


def one_draw_bound(ledger: Mapping[str, Any], split: str) -> float | None:
    """The bound of a split where it was measured with one draw of z for each datapoint, as every training does."""
    return ledger.get(f"{split}/bound") if draws_behind(ledger, f"{split}/bound") == 1 else None


def bound_keys(ledger: Mapping[str, Any]) -> list[str]:
    """The keys of all bounds."""
    return [key for key in ledger if key.endswith("/bound")]


def log_likelihood_keys(ledger: Mapping[str, Any]) -> list[str]:
    """The keys of all values of log p(x)."""
    return [key for key in ledger if LOG_LIKELIHOOD in key and not key.endswith(BESIDE)]


def baseline_keys(ledger: Mapping[str, Any]) -> list[str]:
    """The keys of what models without a network score."""
    return [key for key in ledger if BASELINE in key and not key.endswith(BESIDE)]


def baseline_name(key: str) -> str:
    """What such a model is called."""
    return key.partition(BASELINE)[2].replace("_", " ").replace("pca", "PCA")


def place(key: str) -> tuple[int, float, str, list[int]]:
    """The place of a ledger's key among others: by split, then the whole before the first n datapoints of one.

    More datapoints come before fewer, and of one estimator more samples before fewer; estimators stand by name.
    """

    def numbers(text: str) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d{1,18}", text)]

    split, _, quantity = key.partition("/")
    name, _, first = split.partition("[")
    num_datapoints, *_ = *numbers(first), math.inf
    samples = [-number for number in numbers(quantity)]
    estimator = re.sub(r"\d+", "", quantity)
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), -num_datapoints, estimator, samples)
