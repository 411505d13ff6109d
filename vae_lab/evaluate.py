"""`vae-lab evaluate`: a run directory's bound and log p(x), measured and written to its ledger."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from vae_lab import build
from vae_lab.errors import ConfigError, NoEncoder, RunError, nearest
from vae_lab.estimators.base import Estimator
from vae_lab.marginal_likelihood import measure_log_likelihood, subset_name
from vae_lab.measurement import measure_bound, summarise
from vae_lab.runs import Run, RunDir, ledger_facts, load_run

log = logging.getLogger("vae_lab")


def evaluate(cfg: DictConfig) -> Path:
    """Measures the run `cfg.run`, prints a table, and returns the ledger that the values were written to.

    Raises:
        ConfigError: a setting is refused; nothing was measured.
        RunError: the run directory is not there or has no checkpoint.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    check_settings(settings)
    estimator: Estimator = build.instantiate(settings["estimator"], "estimator")
    torch.set_num_threads(settings["threads"] or os.cpu_count() or 1)
    directory = RunDir.existing(settings["run"])
    if directory.is_locked():
        raise RunError(f"{directory.path} is being written by another process: wait for it or stop it")
    run = load_run(
        settings["run"],
        allow=settings["allow"],
        checkpoint=settings["checkpoint"],
        data_root=settings["data_root"],
    )
    if estimator.needs_encoder and not run.model.has_encoder:
        raise NoEncoder(
            f"estimator must be one that needs no encoder for {run.path}, got {estimator.label}: the objective "
            "trained none; use estimator=annealed_importance_sampling, posterior_density (latent_dim < 5) or "
            "quadrature (latent_dim <= 3)"
        )
    for split in settings["splits"]:
        if split not in run.data.parts:
            parts = run.data.parts
            raise ConfigError(f"splits must name parts of {run.data.name}, got {split!r}: {nearest(split, parts)}")
    run.model.to(choose_device(settings["device"]))
    entries: dict[str, Any] = ledger_facts(run.data, run.config)
    for split in settings["splits"]:
        entries |= measure_split(run, split, estimator, settings)
    print_table(run, entries)
    with directory.locked():
        samples = {"checkpoint": run.checkpoint, "samples_evaluated": run.samples}
        return directory.update_ledger(run.checkpoint, samples | entries)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks the keys that belong to no part."""
    for key in ("num_samples", "num_datapoints", "threads"):
        value = settings[key]
        optional = key != "num_samples"
        if not (value is None and optional) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigError(f"{key} must be an integer >= 1{' or null' if optional else ''}, got {value!r}")
    if not isinstance(settings["seed"], int) or settings["seed"] < 0:
        raise ConfigError(f"seed must be an integer >= 0, got {settings['seed']!r}")
    if not settings["splits"] or not isinstance(settings["splits"], list):
        raise ConfigError(f"splits must be a list such as [test] or [val,test], got {settings['splits']!r}")


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto`: a GPU if there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}: {nearest(name, ['auto', 'cpu', 'cuda'])}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device must be cpu or auto, got 'cuda': this machine has no GPU that torch can use")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def measure_split(run: Run, split: str, estimator: Estimator, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ledger's entries of a split; those of its first n datapoints are named `split[:n]`."""
    images = run.data.measured(split).images[: settings["num_datapoints"]]
    name = subset_name(split, len(images), len(run.data.parts[split]))
    num_samples, seed = settings["num_samples"], settings["seed"]
    log.info("%s: %d datapoints, %s", name, len(images), estimator.label)
    entries: dict[str, Any] = {}
    if run.model.has_encoder:
        log.info("%s: bound with L = %d", name, num_samples)
        images = images.to(next(run.model.parameters()).device)
        sums = measure_bound(run.model, images, num_samples=num_samples, seed=seed)
        entries = {f"{name}/{key}": value for key, value in summarise(sums, num_samples=num_samples).items()}
        entries[f"{name}/bound_num_samples"] = num_samples
    return entries | measure_log_likelihood(run.model, images, name, estimator, seed=seed)


def print_table(run: Run, entries: Mapping[str, Any]) -> None:
    """The measured values in nats per datapoint, with their Monte Carlo standard errors."""
    table = Table(title=f"{run.path}, {run.checkpoint}.ckpt: nats per datapoint")
    for column in ("quantity", "mean", "s.e.", "s.d. over datapoints"):
        table.add_column(column, justify="left" if column == "quantity" else "right", overflow="fold")
    for key, value in entries.items():
        if key.endswith(("/bound", "/reconstruction", "/kl")) or f"{key}_se" in entries:
            extra = [entries.get(f"{key}{suffix}") for suffix in ("_se", "_sd")]
            table.add_row(key, f"{value:.3f}", *(f"{number:.3f}" if number is not None else "" for number in extra))
        elif key.endswith("/active_units"):
            table.add_row(key, f"{value} of {run.model.latent_dim}", "", "")
    Console().print(table)
