"""The trainings that figures need: what a process has to know that waits for them, and loads no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import ConfigError, require_choice
from vae_lab.runs.directory import safe_name
from vae_lab.wiring.arguments import override, pasted

SCALES = ("quick", "standard", "paper")
"""Budgets: minutes on two cores, an afternoon, the published axes."""


def check_scale(scale: str) -> None:
    """Refuses an unknown scale."""
    require_choice("scale", scale, SCALES)


@dataclass(frozen=True)
class NeededRun:
    """One training that a figure needs.

    Two figures that need the same training have equal objects, and it is run once.
    """

    label: str
    """Its folder's name: letters, digits, '.', '-' and '_'."""
    overrides: tuple[str, ...]
    """The overrides of `vae-lab train`, without budget, snapshots and, where there are candidates, step size."""
    max_samples: int
    learning_rates: tuple[float, ...] = ()
    """Step sizes to choose from by short probes; empty: as configured."""
    snapshots: tuple[int, ...] = ()
    """Counts of training samples at which weights are kept (`checkpoint.at`)."""

    def __post_init__(self) -> None:
        if not self.label or safe_name(self.label) != self.label:
            raise ConfigError(f"a run's label must be of letters, digits, '.', '-' and '_', got {self.label!r}")

    @property
    def all_overrides(self) -> list[str]:
        """The overrides with budget and snapshots, without a step size."""
        kept = [f"checkpoint.at=[{','.join(map(str, self.snapshots))}]"] if self.snapshots else []
        return [*self.overrides, *kept, f"max_samples={self.max_samples}"]

    def command(self, path: Path) -> str:
        """The command line that trains it there, with the step size of its experiment."""
        return pasted("train", override("run_dir", path), *self.all_overrides)
