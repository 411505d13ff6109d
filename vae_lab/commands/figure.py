"""`vae-lab figure`: a figure of the paper, from run directories to a CSV, and from the CSV to PNG and PDF."""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vae_lab.errors import ConfigError
from vae_lab.figures.base import PaperFigure, check_scale
from vae_lab.figures.drawing import make_figure
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


def figure(cfg: DictConfig) -> Path:
    """Draws `cfg.figure` from the runs in `<cfg.root>/runs`; returns the PNG in `<cfg.root>/figures`.

    Raises:
        ConfigError: a setting is refused.
        RunError: there is no run at all; the message holds the commands that make them.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    check_scale(settings["scale"])
    threads = settings["threads"]
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise ConfigError(f"threads must be an integer >= 1 or null, got {threads!r}")
    torch.set_num_threads(threads or available_cores())
    paper_figure: PaperFigure = build.instantiate(settings["figure"], "figure")
    root = Path(settings["root"]).expanduser()
    drawn = make_figure(paper_figure, root, settings["scale"])
    for missing in drawn.missing:
        log.warning("missing: %s", missing)
    if drawn.missing:
        every = f"vae-lab reproduce scale={settings['scale']} figures=[{paper_figure.name}]"
        log.warning("all of them, step sizes chosen where there is a choice: %s", every)
    for path in (drawn.csv, drawn.pdf, *drawn.extras):
        log.info("%s", path)
    return drawn.png
