"""What is measured with a run's weights: taken from the ledger of their checkpoint, or measured now and written there.

Commands, figures and verdicts measure through here, so each of them finds what another has measured.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vae_lab.data.arrays import ImageData
from vae_lab.errors import RunError, StorageError
from vae_lab.estimators.base import Estimator, settings_of
from vae_lab.measurement import measure_bound, measure_log_likelihood, subset_name, summarise
from vae_lab.model import VAE, Images
from vae_lab.runs.baselines import kind_of_likelihood, measure_baselines
from vae_lab.runs.directory import WRITING_SECONDS, RunDir
from vae_lab.runs.load import Run, ledger_facts, samples_of
from vae_lab.runs.result import BASELINE, BESIDE

log = logging.getLogger("vae_lab")

WITH_THE_BOUND = ("reconstruction", "kl", "kl_per_dimension", "active_units", "num_datapoints")
"""What is measured together with the bound."""
INDEPENDENT_PIXELS = "baseline/independent_pixels"
"""The baseline that every likelihood has; the others are measured together with it."""


@dataclass(frozen=True)
class Measured:
    """A value in nats per datapoint, and what the ledger says about it."""

    key: str
    """Its name in the ledger."""
    entries: Mapping[str, Any]
    """All that was measured with it, by the ledger's keys."""

    @property
    def value(self) -> float:
        """The mean over the datapoints."""
        return self.entries[self.key]

    @property
    def standard_error(self) -> float | None:
        """The Monte Carlo error with the data held fixed, where the measurement shows it."""
        return self.entries.get(f"{self.key}_se")

    @property
    def num_datapoints(self) -> int:
        """How many datapoints it is the mean of."""
        split = self.key.partition("/")[0]
        return self.entries.get(f"{self.key}_num_datapoints", self.entries.get(f"{split}/num_datapoints", 0))


@dataclass(frozen=True)
class Measurement:
    """A quantity to measure: all that decides its value besides the data set and the weights."""

    quantity: str
    """Its key in the ledger, without the split."""
    split: str
    num_datapoints: int | None
    """The first so many of the split; None: all."""
    request: Mapping[str, Any]
    """What else decides it, in the ledger as `<key>_<name>`. An entry that lacks one of these is not recognised."""
    make: Callable[[Run, Float[Tensor, "num channel height width"], str], dict[str, Any]]
    """(run, images, the split's name in the ledger) -> the ledger's entries."""

    def find(self, ledger: Mapping[str, Any]) -> Measured | None:
        """The value of an equal request in a ledger."""
        names = [self.split] if self.num_datapoints is None else [f"{self.split}[:{self.num_datapoints}]", self.split]
        for name in names:
            key = f"{name}/{self.quantity}"
            found = Measured(key, {entry: value for entry, value in ledger.items() if self._is_own(entry, name)})
            is_equal = key in ledger and all(ledger.get(f"{key}_{k}") == value for k, value in self.request.items())
            if is_equal and (self.num_datapoints is None or 0 < found.num_datapoints <= self.num_datapoints):
                return found
        return None

    def of(self, run: Run, *, save: bool = True) -> Measured:
        """The value for a run: from the ledger of its checkpoint, or measured now and, with `save`, written there.

        Raises:
            RunError: it would have to be measured, and a process is at work on the run or it cannot be written to.
        """
        directory = RunDir(run.path)
        if found := self.find(directory.ledger(run.checkpoint, run.samples)):
            return found
        if save:
            directory.require_writable()
        images = run.data.measured(self.split).images[: self.num_datapoints]
        name = subset_name(self.split, len(images), len(run.data.splits[self.split]))
        key = f"{name}/{self.quantity}"
        log.info("%s, %s.ckpt: %s of %d datapoints", run.path.name, run.checkpoint, key, len(images))
        entries = self.make(run, images, name) | {f"{key}_{k}": value for k, value in self.request.items()}
        if not save:
            return Measured(key, entries)
        facts = {"checkpoint": run.checkpoint, "samples_evaluated": run.samples, **ledger_facts(run.data, run.config)}
        with directory.locked(WRITING_SECONDS):
            if samples_of(directory.checkpoint_path(run.checkpoint)) != run.samples:
                raise RunError(f"{run.path} went on while its {run.checkpoint}.ckpt was measured: measure it again")
            replaced = [entry for entry in directory.ledger(run.checkpoint) if self._is_own(entry, name)]
            try:
                directory.update_ledger(run.checkpoint, facts | entries, replaced)
            except StorageError as error:
                raise StorageError(f"{key} = {entries[key]} was measured and is not kept: {error}") from error
        return Measured(key, entries)

    def _is_own(self, entry: str, name: str) -> bool:
        split, _, rest = entry.partition("/")
        is_beside = (self.quantity == "bound" and rest in WITH_THE_BOUND) or (
            self.quantity == INDEPENDENT_PIXELS and rest.startswith(BASELINE[1:])
        )
        own = (self.quantity, *(f"{self.quantity}{ending}" for ending in BESIDE))
        return split == name and (rest in own or is_beside)


def bound(split: str, *, num_samples: int, seed: int, num_datapoints: int | None = None) -> Measurement:
    """The bound with `num_samples` draws of z per datapoint, its terms, and the active units."""
    request = {"num_samples": num_samples, "seed": seed}

    def make(run: Run, images: Tensor, name: str) -> dict[str, Any]:
        return bound_entries(run.model, images, name, **request)

    return Measurement("bound", split, num_datapoints, request, make)


def bound_entries(model: VAE, images: Images, name: str, *, num_samples: int, seed: int) -> dict[str, Any]:
    """The ledger's entries about the bound of a model on images; `name` is that of their split in the ledger."""
    sums = measure_bound(model, images.to(next(model.parameters()).device), num_samples=num_samples, seed=seed)
    entries = {f"{name}/{key}": value for key, value in summarise(sums, num_samples=num_samples).items()}
    return entries | {f"{name}/bound_num_samples": num_samples, f"{name}/bound_seed": seed}


def log_likelihood(split: str, estimator: Estimator, *, seed: int, num_datapoints: int | None = None) -> Measurement:
    """The marginal log-likelihood log p(x) by an estimator."""

    def make(run: Run, images: Tensor, name: str) -> dict[str, Any]:
        return measure_log_likelihood(run.model, images, name, estimator, seed=seed)

    request = {"seed": seed, "settings": settings_of(estimator)}
    return Measurement(f"{estimator.quantity}/{estimator.label}", split, num_datapoints, request, make)


def baseline(split: str, *, num_datapoints: int | None = None) -> Measurement:
    """What models without a network score on the datapoints, for a likelihood that has such models."""

    def make(run: Run, images: Tensor, name: str) -> dict[str, Any]:
        return baseline_entries(run.model, run.data, images, name)

    return Measurement(INDEPENDENT_PIXELS, split, num_datapoints, {}, make)


def baseline_entries(model: VAE, data: ImageData, images: Tensor, name: str) -> dict[str, Any]:
    """The ledger's entries about the baselines of a model on images; none where its likelihood has no baseline.

    Args:
        model: whose likelihood and latent size they share.
        data: whose train split they are fitted to.
        images: of one of its splits.
        name: of that split in the ledger.
    """
    kind = kind_of_likelihood(model)
    if kind is None:
        return {}
    values = measure_baselines(data, images, kind, model.latent_dim)
    entries = {f"{name}/{key}": value for key, value in values.items()}
    return entries | {f"{name}/{INDEPENDENT_PIXELS}_num_datapoints": len(images)}
