"""How a command runs in this process and leaves it as it was.

That is: threads, random state, precision of products, environment, paths and logging.
"""

import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_lab.commands.explanations import explain, is_mistake
from vae_lab.commands.task import Task
from vae_lab.commands.typed import understood
from vae_lab.errors import ConfigError, Interrupted
from vae_lab.runs.place import with_any_place
from vae_lab.training.matmul import MKLDNN
from vae_lab.wiring.arguments import override, with_texts
from vae_lab.wiring.compose import compose_command, started
from vae_lab.wiring.folders import CommandLine, package_configs
from vae_lab.wiring.keys import CommandKeys

log = logging.getLogger("vae_lab")


def call(command: str, keys: Mapping[str, Any]) -> list[Path]:
    """What a command line does, in this process; returns the paths that the command wrote.

    Raises:
        ConfigError: the message of the command line.
    """
    line = line_of(command, keys)
    with as_a_command(), mistakes_of(line):
        sys.argv[:] = ["vae-lab", command, *line.overrides]
        with composed(line) as cfg:
            return Task(line, Path(), None).run(cfg)


def config_of(command: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a command with these keys.

    Raises:
        ConfigError: the message of the command line.
    """
    line = line_of(command, keys)
    with mistakes_of(line):
        return compose_command(command, line.overrides)[0]


def line_of(command: str, keys: Mapping[str, Any]) -> CommandLine:
    """The command line that is equivalent to these keys.

    Raises:
        ConfigError: a key is none of the command's.
    """
    words = [override(key, value) for key, value in keys.items()]
    line = CommandLine(command, command, [package_configs()], words)
    overrides = with_texts(understood(line, CommandKeys(line.folders, command, words), words, []))
    return line._replace(overrides=with_any_place(overrides) if command == "train" else overrides)


@contextmanager
def mistakes_of(line: CommandLine) -> Iterator[None]:
    """While a config is composed and a command runs: what the command line would say, as an exception."""
    try:
        yield
    except Interrupted as interrupt:
        raise KeyboardInterrupt(str(interrupt)) from interrupt
    except ConfigError:
        raise
    except Exception as error:
        if is_mistake(error):
            raise ConfigError(explain(error, line)) from error
        raise


@contextmanager
def composed(line: CommandLine) -> Iterator[DictConfig]:
    """The config of a command line, with Hydra's own part where commands look for it.

    Raises:
        ConfigError: it asks for a sweep, or for several processes.
    """
    config = HydraConfig.instance()
    before = config.cfg
    with started(line.folders):
        try:
            cfg = compose(line.config_name, list(line.overrides), return_hydra_config=True)
            if cfg.hydra.mode == RunMode.MULTIRUN:
                raise ConfigError("a sweep is many processes: start it from a shell, with vae-lab train")
            for key in ("trainer.devices", "trainer.num_nodes"):
                if (value := OmegaConf.select(cfg, key, default=1)) not in (1, "auto"):
                    raise ConfigError(f"{key} must be 1 in a call, got {value}: several processes start from a shell")
            config.set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            yield cfg
        finally:
            config.cfg = before


@contextmanager
def as_it_was() -> Iterator[None]:
    """What a command sets for its whole process is as before when the block ends."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), ExitStack() as later:
        later.callback(torch.set_num_threads, torch.get_num_threads())
        later.callback(setattr, MKLDNN.matmul, "fp32_precision", MKLDNN.matmul.fp32_precision)
        later.callback(random.setstate, random.getstate())
        later.callback(np.random.set_state, np.random.get_state())
        for words in (sys.path, sys.argv):
            later.callback(words.__setitem__, slice(None), words[:])
        later.callback(os.environ.update, dict(os.environ))
        later.callback(os.environ.clear)  # the last one is called first
        yield


@contextmanager
def as_a_command() -> Iterator[None]:
    """A block of what a command does: the process is as before when it ends.

    Where nobody has set up logging, the lines of the command go to stderr, as they do in a shell.
    """
    with as_it_was(), ExitStack() as later:
        if not log.hasHandlers():
            handler = logging.StreamHandler(sys.stderr)
            later.callback(log.setLevel, log.level)
            later.callback(log.removeHandler, handler)
            log.addHandler(handler)
            log.setLevel(logging.INFO)
        yield
