"""One planned run among many, and how its training ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vae_lab.errors import NonFiniteDensity, RunError
from vae_lab.runs.continuation import is_larger
from vae_lab.runs.directory import RunDir, plan_run
from vae_lab.runs.identity import BUDGET, differing_keys
from vae_lab.wiring.build import foreign_packages
from vae_lab.wiring.dotted import value_at, with_values


@dataclass(frozen=True)
class Job:
    """A planned run, and what its command says besides `run_dir`."""

    run: RunDir
    budget: Mapping[str, float | None] = field(default_factory=dict)
    """The keys of a budget larger than the frozen one, with their values; empty: the budget is as planned."""
    allow: tuple[str, ...] = ()
    """Further packages whose classes the config may name, besides the lab's own and its frameworks'."""
    seconds: float = 1.0
    """How long it takes, as far as known: the weights of the time left."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.path.name

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.budget and self.run.read_status() == "finished"

    @property
    def is_hopeless(self) -> bool:
        """Whether it failed in a way that repeats itself."""
        return self.run.read_status() == "failed" and str(self.run.read_record().get("error")).startswith(
            NonFiniteDensity.__name__
        )


@dataclass(frozen=True)
class Outcome:
    """How a job ended: skipped, finished, resumed (and finished), failed or interrupted."""

    job: Job
    status: str
    seconds: float = 0.0
    reason: str = ""
    """Why it failed or was interrupted, in one line."""

    @property
    def is_good(self) -> bool:
        """Whether the run is whole now."""
        return self.status in ("skipped", "finished", "resumed")


def plan_job(path: Path, config: Mapping[str, Any], **record: Any) -> Job:
    """The run at `path`, planned if it does not exist; an existing one must be the same, or smaller in budget.

    Args:
        path: the run directory.
        config: resolved; frozen when the run is planned.
        record: entries for run.json, such as `choices` and `overrides`.

    Raises:
        RunError: another run is there; the differing keys are named.
    """
    run, allow = RunDir(path), tuple(foreign_packages(config))
    if not run.exists():
        with run.locked():
            if not run.exists():
                return Job(plan_run(path, config, **record), allow=allow)
    frozen = run.read_config()
    budget = {key: asked for key in BUDGET if is_larger(asked := value_at(config, key), value_at(frozen, key))}
    if differing_keys(with_values(frozen, budget), config):
        raise RunError(
            f"{path} holds another run; it differs in {', '.join(differing_keys(frozen, config))}: move it away, "
            "or choose another folder"
        )
    return Job(run, budget, allow)
