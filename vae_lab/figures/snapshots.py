"""What figures share that measure on the way: training sets of several sizes, and the weights kept while training."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vae_lab.errors import ConfigError, RunError
from vae_lab.figures.base import Arrays, PaperFigure, check_by_scale, load_last
from vae_lab.figures.needed import NeededRun
from vae_lab.runs.directory import RunDir
from vae_lab.runs.measured import Measurement


@dataclass(kw_only=True, eq=False)
class SnapshotFigure(PaperFigure):
    """A figure of values that are measured with every snapshot of its runs and with their last weights.

    Args:
        train_sizes: training sets, the first so many images of the train split.
        overrides: of every training.
        methods: further overrides of each method.
        learning_rates: for each method, the step sizes to choose from; none: as configured.
        max_samples: the budget at each scale.
        snapshots: at each scale, the counts of training samples at which weights are kept and measured.
        seed: of the measurements.
    """

    prefix: ClassVar[str]
    """What its runs' labels begin with."""
    value: ClassVar[str]
    """The column of what is measured."""

    train_sizes: list[int]
    overrides: list[str]
    methods: dict[str, list[str]]
    learning_rates: dict[str, list[float]]
    max_samples: dict[str, int]
    snapshots: dict[str, list[int]]
    seed: int

    def __post_init__(self) -> None:
        if not self.train_sizes:
            raise ConfigError("figure.train_sizes must hold a training set size, got none: nothing would be drawn")
        check_by_scale(max_samples=self.max_samples, snapshots=self.snapshots)

    @abstractmethod
    def measurements(self, scale: str) -> list[tuple[dict[str, Any], Measurement]]:
        """What is measured with the weights, each with what the table says about it."""

    def trainings(self, scale: str) -> dict[NeededRun, dict[str, Any]]:
        """Every method with every training set."""
        return {
            NeededRun(
                label=f"{self.prefix}_{size}_{method}",
                overrides=(*self.overrides, f"data.train_size={size}", *overrides),
                learning_rates=tuple(self.learning_rates[method]),
                max_samples=self.max_samples[scale],
                snapshots=tuple(self.snapshots[scale]),
            ): {"train_size": size, "method": method}
            for size in self.train_sizes
            for method, overrides in self.methods.items()
        }

    def num_estimates(self, needed: NeededRun, run: RunDir, scale: str) -> int:
        """Everything, at every snapshot and with the last weights, that was not measured yet."""
        try:
            known = SnapshotFigure.rows_of(self, run, scale) if run.exists() else []
        except RunError:  # which is said when it is measured
            known = []
        return max(0, len({*needed.snapshots, needed.max_samples}) * len(self.measurements(scale)) - len(known))

    def measure_run(self, run: RunDir, facts: Mapping[str, Any], scale: str) -> Arrays:
        """Measures what the ledgers lack.

        A run that is still being trained is left alone: it is named as missing, and what is known of it is drawn.
        """
        if run.read_status() == "running":
            return {}
        loaded, counts = load_last(run), list(run.snapshots)
        for checkpoint in counts if loaded.samples in counts else [*counts, "last"]:
            loaded = loaded.at(checkpoint)
            loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
            for _, wanted in self.measurements(scale):
                wanted.of(loaded)
        return {}

    def rows_of(self, run: RunDir, scale: str) -> list[dict[str, Any]]:
        """A row for every value that the ledgers have, by training samples."""
        rate = run.read_config()["optimizer"].get("lr")
        ledgers = {count: run.ledger(str(count)) for count in run.snapshots}
        if last := run.ledger("last"):
            ledgers.setdefault(last["samples_evaluated"], last)
        return [
            {
                **facts,
                "samples_evaluated": samples,
                self.value: found.value,
                "standard_error": found.standard_error,
                "num_datapoints": found.num_datapoints,
                "learning_rate": rate,
            }
            for samples, ledger in sorted(ledgers.items())
            for facts, wanted in self.measurements(scale)
            if (found := wanted.find(ledger))
        ]
