"""Configs of other commands, composed from Python: the same folders as the running command's, or the package's own."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from vae_lab.wiring.folders import package_configs


def group_choices(group: str) -> list[str]:
    """The names in a config group."""
    with _hydra():
        return GlobalHydra.instance().config_loader().get_group_options(group)


def compose_command(command: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved config of `vae-lab COMMAND OVERRIDES` and the choice of every group."""
    with _hydra():
        return own_config(compose(command, overrides=list(overrides), return_hydra_config=True))


def own_config(composed: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved config without Hydra's own part, and the choice of every group."""
    choices = {
        group: choice for group, choice in composed.hydra.runtime.choices.items() if not group.startswith("hydra")
    }
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    config: dict[str, Any] = OmegaConf.to_container(own, resolve=True)  # pyright: ignore[reportAssignmentType]
    return config, choices


@contextmanager
def started(folders: Sequence[Path]) -> Iterator[list[str]]:
    """Hydra on these folders of configs, the package's the last; yields the overrides that name the others."""
    with initialize_config_dir(str(folders[-1]), version_base="1.3"):
        others = ",".join(f"'file://{folder.resolve()}'" for folder in folders[:-1])
        yield [f"hydra.searchpath=[{others}]"] if others else []


def _hydra() -> AbstractContextManager[object]:
    """Hydra as the running command started it, or started for a moment."""
    running = GlobalHydra.instance().is_initialized()
    return nullcontext() if running else initialize_config_dir(str(package_configs()), version_base="1.3")
