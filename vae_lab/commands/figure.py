"""`vae-lab figure`: a figure of the paper, from run directories to a CSV, and from the CSV to PNG and PDF."""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from vae_lab.atomic import write_text
from vae_lab.errors import ConfigError, RunError
from vae_lab.figures.base import Missing, PaperFigure, check_scale
from vae_lab.figures.canvas import save
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class Drawn:
    """The files of a figure, and what it still lacks."""

    csv: Path
    png: Path
    pdf: Path
    extras: list[Path]
    missing: list[Missing]


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


def make_figure(paper_figure: PaperFigure, root: Path, scale: str) -> Drawn:
    """Writes <root>/figures/<name>.csv, and .png and .pdf from it, of the runs that are in <root>/runs.

    Raises:
        RunError: none of its runs is there.
    """
    folder = root / "runs"
    runs = paper_figure.find_runs(folder, scale)
    missing = paper_figure.missing(runs, scale, folder)
    if not runs:
        commands = "; ".join(entry.command for entry in missing)
        raise RunError(f"{folder} holds no run of {paper_figure.name}; what makes them: {commands}")
    stem = root / "figures" / paper_figure.name
    csv = stem.with_name(f"{stem.name}.csv")
    text = paper_figure.collect(runs, scale).to_csv(index=False)
    write_text(csv, text)
    table = pd.read_csv(io.StringIO(text))
    png, pdf = save(paper_figure.draw(table), stem)
    return Drawn(csv, png, pdf, paper_figure.extras(table, stem.parent), missing)
