"""`vae-lab evaluate`: the bound and log p(x) of runs, measured and written to their ledgers."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vae_lab.commands.run_settings import RunSettings, require_splits
from vae_lab.errors import ConfigError, NoEncoder, nearest, require_choice, require_integer
from vae_lab.estimators.base import Estimator
from vae_lab.measurement import require_draws
from vae_lab.randomness import NOISE_BLOCK
from vae_lab.reports.listing.rows import list_of_runs
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import Overview, glance
from vae_lab.runs.baselines import kind_of_likelihood
from vae_lab.runs.continuation import Request
from vae_lab.runs.load import Run
from vae_lab.runs.measured import Measurement, baseline, bound, log_likelihood
from vae_lab.runs.result import (
    DOUBT,
    ELBO,
    HIGH_K_HAT,
    baseline_keys,
    bound_keys,
    doubt,
    draws_behind,
    log_likelihood_keys,
    loss_of,
    trained_with,
)
from vae_lab.runs.small_files import require_keys
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command, group_choices
from vae_lab.wiring.table import Table, number

log = logging.getLogger("vae_lab")

CAPTION = "s.e.: Monte Carlo error, the data held fixed; s.d.: over the N datapoints; *: measured earlier"


@dataclass(frozen=True)
class EvaluateSettings(RunSettings):
    """The keys of `vae-lab evaluate`."""

    estimator: Any
    estimators: list[str] | None
    splits: list[str]
    num_datapoints: int | None
    num_samples: int
    device: str
    save: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_samples", self.num_samples, minimum=1)
        require_integer("num_datapoints", self.num_datapoints, minimum=1, optional=True)
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        if not self.splits:
            raise ConfigError("splits must be a list such as [test] or [val,test], got []")


def evaluate(settings: EvaluateSettings) -> list[Path]:
    """Measures one run after the other, prints a table of each and of all, and returns their ledgers.

    Raises:
        ConfigError: a setting is refused; nothing was measured.
        RunError: a run directory is not there or has no checkpoint; nothing was measured.
    """
    estimators = make_estimators(settings, Request.of_this_command())
    num_runs = len(settings.directories)
    ledgers: list[Path] = []
    found: list[Overview] = []
    runs = settings.loaded(check=lambda run: require_measurable(run, estimators, settings), writes=settings.save)
    for i, (directory, run) in enumerate(runs, 1):
        if num_runs > 1:
            log.info("%d of %d: %s", i, num_runs, directory.path)
        run.model.to(choose_device(settings.device))
        measured: dict[str, Any] = {}
        for wanted in measurements(run, estimators, settings):
            measured |= wanted.of(run, save=settings.save).entries
        ledger = directory.ledger(run.checkpoint, run.samples)
        print_table(run, measured, ledger)
        facts = {key: value for key, value in ledger.items() if "/" not in key}
        seen = glance(directory.path)
        then = {**seen.record, "samples_evaluated": run.samples}
        found.append(replace(seen, record=then, checkpoint=run.checkpoint, ledger=facts | measured))
        if settings.save:
            ledgers.append(directory.ledger_path(run.checkpoint))
    if len(found) > 1:
        keys = (key for run in found for key in (*bound_keys(run.ledger), *log_likelihood_keys(run.ledger)))
        list_of_runs(Runs(found), list(dict.fromkeys(keys)), title="measured just now").print()
    return ledgers


def require_measurable(run: Run, estimators: Sequence[Estimator], settings: EvaluateSettings) -> None:
    """Refuses a run of which not everything that is asked for can be measured."""
    require_keys(run.path, run.config, ("likelihood",))
    for estimator in estimators:
        require_fit(estimator, run)
    require_draws("num_samples", settings.num_samples, NOISE_BLOCK, run.model)
    require_splits(run, "splits", settings.splits)


def make_estimators(settings: EvaluateSettings, request: Request) -> list[Estimator]:
    """The one that `estimator` describes, or those that `estimators` names; `estimator` may set up one of these."""
    names, chosen = settings.estimators, request.choices.get("estimator")
    if (typed := request.keys.get("estimator", "")).startswith("["):
        raise ConfigError(f"estimator must be one choice, got {typed}: for several write estimators={typed}")
    if names is None:
        return [build.instantiate(settings.estimator, "estimator")]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            "estimators must be null or a list of different names such as [quadrature,importance_sampling], "
            f"got {names!r}"
        )
    known = group_choices("estimator")
    for name in names:
        if name not in known:
            raise ConfigError(f"estimators must name choices of estimator, got {name!r}: {nearest(name, known)}")
    given = [key for key in request.keys if key.split(".")[0] == "estimator"]
    if given and chosen not in names:
        raise ConfigError(
            f"{', '.join(given)} must be for one of estimators=[{','.join(names)}], got {chosen}: "
            f"name it there too, or leave {'them' if len(given) > 1 else 'it'} out"
        )
    configs = {name: compose_command("evaluate", [f"estimator={name}"])[0]["estimator"] for name in names}
    if chosen in configs:
        configs[chosen] = settings.estimator
    return [build.instantiate(config, "estimator") for config in configs.values()]


def require_fit(estimator: Estimator, run: Run) -> None:
    """Refuses an estimator that cannot handle the run's model, before anything is measured."""
    if estimator.needs_encoder and not run.model.has_encoder:
        raise NoEncoder(
            f"estimator must be one that needs no encoder for {run.path}, got {estimator.label}: the objective "
            "trained none; use estimator=annealed_importance_sampling, posterior_density (latent_dim < 5) or "
            "quadrature (latent_dim <= 3)"
        )
    estimator.check(run.model)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto`: a GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device must be cpu or auto, got 'cuda': this machine has no GPU that torch can use")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def measurements(run: Run, estimators: Sequence[Estimator], settings: EvaluateSettings) -> Iterator[Measurement]:
    """What is measured of every split: the bound, if there is an encoder, log p(x) by each estimator, the baselines."""
    same = {"seed": settings.seed, "num_datapoints": settings.num_datapoints}
    for split in settings.splits:
        if run.model.has_encoder:
            yield bound(split, num_samples=settings.num_samples, **same)
        yield from (log_likelihood(split, estimator, **same) for estimator in estimators)
        if kind_of_likelihood(run.model) is not None:
            yield baseline(split, num_datapoints=settings.num_datapoints)


def print_table(run: Run, measured: Mapping[str, Any], ledger: Mapping[str, Any]) -> None:
    """Nats per datapoint: what was measured and, for the same datapoints, the log p(x) that the ledger knew before."""
    rows, notes = [], {CAPTION: None}
    for name in dict.fromkeys(key.partition("/")[0] for key in measured):
        earlier = [key for key in ledger if key.startswith(f"{name}/log_likelihood/") and key not in measured]
        for key in (*(key for key in measured if key.startswith(f"{name}/")), *earlier):
            values = ledger if key in earlier else measured
            whose = key.removesuffix("_upper").removesuffix("_gap")
            value, count = values[key], values.get(f"{whose}_num_datapoints", values.get(f"{name}/num_datapoints"))
            is_mean = key.endswith(("/bound", "/reconstruction", "/kl", "_upper", "_gap")) or f"{key}_se" in values
            if is_mean or key in baseline_keys(values):
                mark = doubt(values.get(f"{key}{HIGH_K_HAT}"))
                notes |= {DOUBT: None} if mark else {}
                if key.endswith("/bound") and (draws := draws_behind(values, key)) > 1:
                    notes |= {f"{key}: the mean over {draws} draws of z for each datapoint": None}
                numbers = [number(values.get(f"{key}{suffix}"), places=3) for suffix in ("_se", "_sd")]
                rows.append([key + "*" * (key in earlier), number(value, mark=mark, places=3), *numbers, str(count)])
            elif key.endswith("/active_units"):
                rows.append([key, f"{value} of {run.model.latent_dim}", "", "", str(count)])
    loss = loss_of(run.config)
    notes |= {ELBO: None} if loss else {}
    title = f"{run.path}, {run.checkpoint}.ckpt: nats per datapoint{trained_with(loss)}"
    Table(("quantity", "mean", "s.e.", "s.d.", "N"), rows, "\n".join(notes), title=title).print()
