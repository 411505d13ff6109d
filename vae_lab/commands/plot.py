"""`vae-lab plot`: the pictures of one run, from its directory alone, as PNG and PDF in its `images`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from vae_lab.errors import ConfigError, RunError, nearest
from vae_lab.figures.canvas import save
from vae_lab.figures.run_facts import CannotDrawError, dark_on_white_by_default
from vae_lab.figures.run_pictures import PICTURES
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.training.matmul import use_backend

log = logging.getLogger("vae_lab")


def plot(cfg: DictConfig) -> Path:
    """Draws the pictures of `cfg.pictures`; returns the folder they are in.

    With `all`, a picture that this run cannot have is left out, and the log says why; one asked for by name
    is an error.

    Raises:
        ConfigError: an unknown picture, a picture that this run cannot have, or a run that cannot be read.
    """
    names = chosen_pictures(cfg.pictures)
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise ConfigError(f"seed must be an integer >= 0, got {cfg.seed!r}")
    if not isinstance(cfg.dark_on_white, bool | None):
        raise ConfigError(f"dark_on_white must be true, false or null, got {cfg.dark_on_white!r}")
    path = RunDir.existing(cfg.run).path
    run = load_run(path, allow=list(cfg.allow), checkpoint=cfg.checkpoint, data_root=cfg.data_root)
    use_backend(run.config.get("matmul_backend", "default"))
    dark_on_white = dark_on_white_by_default(run) if cfg.dark_on_white is None else cfg.dark_on_white
    folder = RunDir(path).images
    drawn = 0
    for name in names:
        try:
            figure = PICTURES[name](run, dark_on_white=dark_on_white, seed=cfg.seed)
        except CannotDrawError as error:
            if cfg.pictures != "all":
                raise RunError(f"{name} cannot be drawn: {error}") from error
            log.info("%s is left out: %s", name, error)
            continue
        png, pdf = save(figure, folder / name)
        log.info("%s, %s", png, pdf.name)
        drawn += 1
    if not drawn:
        raise RunError(f"{path}: no picture can be drawn; the reasons are above")
    return folder


def chosen_pictures(pictures: str | Sequence[str] | ListConfig) -> list[str]:
    """The names asked for: all of them, one, or a list.

    Raises:
        ConfigError: a name that is none, or an empty list.
    """
    if pictures == "all":
        return list(PICTURES)
    names = [pictures] if isinstance(pictures, str) else list(pictures)
    if not names:
        raise ConfigError(f"pictures must name at least one of {', '.join(PICTURES)}, or be all; got none")
    for name in names:
        if name not in PICTURES:
            raise ConfigError(f"pictures has no {name!r}: {nearest(str(name), ['all', *PICTURES])}")
    return names
