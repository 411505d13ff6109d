"""What Hydra runs: one command with one config, as a single job or as one of a sweep."""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae_lab.commands.explanations import explain, is_mistake, needs_no_traceback
from vae_lab.errors import FAILURE, MISTAKE, ConfigError, Interrupted, missing
from vae_lab.runs.continuation import Request
from vae_lab.wiring.build import find_own_classes, settings
from vae_lab.wiring.folders import CommandLine
from vae_lab.wiring.terminal import put, say

FULL_ERROR = "HYDRA_FULL_ERROR"


@dataclass(frozen=True)
class Task:
    """What Hydra calls with a composed config; picklable, so that a launcher may take it to another process.

    A failed job says why, and lets the other jobs of a sweep run: it raises nothing.
    """

    line: CommandLine
    endings: Path
    """A folder in which each job leaves how it ended: its title, its exit code, and what was said if that is not 0."""
    full_error: str | None
    argv: tuple[str, ...] = ()
    """The program's own arguments: further processes of a training are started with them."""

    def __call__(self, cfg: DictConfig) -> None:
        """Runs the command, prints the paths that it wrote, and leaves how it ended."""
        sys.argv[:] = self.argv
        hydra = HydraConfig.get()
        number = 0 if OmegaConf.is_missing(hydra.job, "num") else hydra.job.num
        title, code, message = " ".join(Request.of_this_command().overrides), 0, ""
        with environment(FULL_ERROR, self.full_error):
            try:
                artefacts = self.run(cfg)
            except Interrupted as interrupt:
                raise KeyboardInterrupt(str(interrupt)) from interrupt
            except Exception as error:  # the boundary of a job: recorded and reported
                code, message = self.report_error(error), " ".join(str(error).split())
            else:
                is_first = all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "NODE_RANK"))
                if is_first and artefacts:
                    put("\n".join(map(str, artefacts)))
        (self.endings / f"{number:06}.json").write_text(json.dumps([title, code, message]))

    def run(self, cfg: DictConfig) -> list[Path]:
        """The command itself, once its config is known to be whole."""
        if absent := sorted(OmegaConf.missing_keys(cfg)):
            raise ConfigError(missing(absent))
        find_own_classes()
        module = import_module(f"vae_lab.commands.{self.line.command}")
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        kind = getattr(module, f"{self.line.command.title()}Settings", None)
        given = cfg if kind is None else settings(kind, cfg)
        artefacts: Path | list[Path] = getattr(module, self.line.command)(given)
        return artefacts if isinstance(artefacts, list) else [artefacts]

    def report_error(self, error: Exception) -> int:
        """Says on stderr what is wrong, with a traceback if it is a bug; returns the exit code."""
        known = needs_no_traceback(error)
        if not known or self.full_error == "1":
            traceback.print_exception(error)
        if known:
            say(f"vae-lab {self.line.command}", explain(error, self.line))
        return MISTAKE if is_mistake(error) else FAILURE


def exit_code(line: CommandLine, folder: Path) -> int:
    """The exit code of all jobs together, from how each ended; names the failed ones if there were several."""
    endings = [json.loads(file.read_text()) for file in sorted(folder.iterdir())]
    failed = [(title, code, message) for title, code, message in endings if code]
    if failed and len(endings) > 1:
        say(f"vae-lab {line.command}", f"{len(failed)} of {len(endings)} jobs failed")
        for title, _, message in failed:
            say(f"  {title}", message)
    return min((code for _, code, _ in failed), default=0)


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """The environment variable `name` has this value (None: is not set) for a while."""
    before = os.environ.pop(name, None)
    try:
        if value is not None:
            os.environ[name] = value
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
