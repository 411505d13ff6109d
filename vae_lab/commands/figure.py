"""`vae-lab figure`: a figure of the paper, from run directories to a CSV, and from the CSV to PNG and PDF."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vae_lab.errors import require_threads
from vae_lab.figures.base import PaperFigure, make_figure
from vae_lab.figures.needed import check_scale
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class FigureSettings:
    """The keys of `vae-lab figure`."""

    figure: Any
    scale: str
    root: str
    threads: int | None
    data_root: str | None

    def __post_init__(self) -> None:
        check_scale(self.scale)
        require_threads(self.threads)


def figure(settings: FigureSettings) -> Path:
    """Draws `settings.figure` from the runs in `<settings.root>/runs`; returns the PNG in `<settings.root>/figures`.

    Raises:
        ConfigError: a setting is refused.
        RunError: there is no run at all, and the message holds the commands that make them; or another process, such as
            `vae-lab reproduce`, is at work in `settings.root`.
    """
    torch.set_num_threads(settings.threads or available_cores())
    paper_figure: PaperFigure = build.instantiate(settings.figure, "figure")
    root = Path(settings.root).expanduser()
    with RunDir(root).locked() if root.is_dir() else nullcontext():  # without a folder there is no run to draw
        drawn = make_figure(paper_figure, root, settings.scale, settings.data_root)
    for missing in drawn.missing:
        log.warning("missing: %s", missing)
    if drawn.missing:
        every = f"vae-lab reproduce scale={settings.scale} figures=[{paper_figure.name}]"
        log.warning("all of them, step sizes chosen where there is a choice: %s", every)
    for path in (drawn.csv, drawn.pdf, *drawn.extras):
        log.info("%s", path)
    return drawn.png
