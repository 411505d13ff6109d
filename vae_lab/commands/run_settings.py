"""The keys of every command that reads the weights of runs, and how it loads them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from vae_lab.errors import ConfigError, RunError, nearest, require_integer, require_threads
from vae_lab.runs.directory import RunDir, named_folders, named_runs
from vae_lab.runs.load import Run, load_run
from vae_lab.runs.provenance import available_cores
from vae_lab.runs.small_files import require_keys
from vae_lab.training.matmul import use_backend

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class RunSettings:
    """Which runs, which weights of them, where their data lie, with which noise and how many threads."""

    run: str | int | list[str]
    checkpoint: str | int | None
    data_root: str | None
    allow: list[str]
    seed: int
    threads: int | None

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, minimum=0)
        require_threads(self.threads)

    @cached_property
    def directories(self) -> list[RunDir]:
        """The runs that are named, looked for once."""
        return named_runs(self.run)

    def loaded(self, *, check: Callable[[Run], None], writes: bool = False) -> Iterator[tuple[RunDir, Run]]:
        """The runs with their weights, one at a time; before the first of several, all were loaded and checked.

        A run that a pattern found and that cannot be used is left out with a line, as long as another one can be used.

        Args:
            check: refuses a run that the command cannot work with.
            writes: whether the command will write into the run directories.

        Raises:
            RunError: what is named is no run, is being trained, cannot be read, or not written although it must be.
        """
        torch.set_num_threads(self.threads or available_cores())
        usable, first_error = list(self.directories), None
        several = self.directories if len(self.directories) > 1 else []
        values = [self.run] if isinstance(self.run, str) else self.run if isinstance(self.run, list) else []
        found = {path for path, is_of_pattern in named_folders(values).items() if is_of_pattern} if several else set()
        for directory in several:
            try:
                self._load(directory, check, writes=writes)
            except RunError as error:
                if directory.path not in found:
                    raise
                first_error = first_error or error
                usable.remove(directory)
                log.warning("left out: %s", error)
        if first_error is not None and not usable:
            raise first_error
        for directory in usable:
            yield directory, self._load(directory, check, writes=writes)

    def loaded_one(self, *, check: Callable[[Run], None]) -> tuple[RunDir, Run]:
        """The one run with its weights.

        Raises:
            RunError: several are named, or as `loaded`.
        """
        if len(self.directories) > 1:
            raise RunError(f"run must name one run, got {len(self.directories)}: what comes of it goes to one place")
        return next(self.loaded(check=check))

    def _load(self, directory: RunDir, check: Callable[[Run], None], *, writes: bool) -> Run:
        directory.refuse_locked()
        if writes:
            directory.require_writable()
        run = load_run(directory.path, allow=self.allow, checkpoint=self.checkpoint, data_root=self.data_root)
        use_backend_of(run)
        check(run)
        return run


def use_backend_of(run: Run) -> None:
    """Lets this process multiply as the run was planned to."""
    require_keys(run.path, run.config, ("matmul_backend",))
    use_backend(run.config["matmul_backend"])


def require_splits(run: Run, key: str, names: Sequence[str]) -> None:
    """Refuses the name of a split that the run's data set does not have.

    Args:
        run: whose data set.
        key: of the command's settings, for the message.
        names: of splits.
    """
    for name in names:
        if name not in (splits := run.data.splits):
            raise ConfigError(f"{key} must name a split of {run.data.name}, got {name!r}: {nearest(name, splits)}")
