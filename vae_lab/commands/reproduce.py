"""`vae-lab reproduce`: plans and makes every run that the paper's figures need, draws, verifies, writes one page."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from vae_lab.errors import Failed, Interrupted
from vae_lab.reproduction.measuring import measure_all
from vae_lab.reproduction.page import write_index
from vae_lab.reproduction.plan import ReproduceSettings, compose_training, make_figure_of, needed_runs
from vae_lab.reproduction.verdicts import as_table as verdict_table
from vae_lab.reproduction.verdicts import counted, failure, reproduction_rows, write_rows
from vae_lab.reproduction.work import Engine, Work, choose_step_sizes, draw_all, estimated, print_plan, train_all
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring import build
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


def reproduce(cfg: DictConfig) -> Path:
    """Does what is missing under `cfg.root`; returns its index.html (with `dry_run` the folder).

    Raises:
        ConfigError: a setting is refused.
        Interrupted: a signal stopped it; the same command goes on.
        Failed: a run or a figure failed, a verdict is FAIL, or none was reached; the page is written all the same.
    """
    settings = build.settings(ReproduceSettings, cfg)
    started = time.monotonic()
    root, scale = Path(settings.root).expanduser(), settings.scale
    figures = [make_figure_of(name, scale, root) for name in dict.fromkeys(settings.figures)]
    trainings = [compose_training(needed, settings) for needed in needed_runs(figures, scale, settings.only)]
    with RunDir(root).locked():
        num_parallel = settings.jobs or min(available_cores(), max(1, len(trainings)))
        if settings.speed_seconds:
            trainings = estimated(trainings, root, num_parallel, settings.speed_seconds)
        print_plan(trainings, figures, root, num_parallel, scale)
        if settings.dry_run:
            return root
        work = Work()
        engine = Engine(num_parallel)
        try:
            choices = choose_step_sizes(trainings, root, engine)
            train_all(trainings, choices, root, engine, work)
            measure_all(figures, root, scale, num_parallel)
        except Interrupted as interrupt:
            raise Interrupted(f"{interrupt}; the same command goes on: {settings.command}") from interrupt
        draw_all(figures, root, scale, work)
        rows = reproduction_rows(root)
        write_rows(root / "verification.csv", rows)
        verdict_table(rows, "verification").print()
        page = write_index(root, settings, work.drawn, rows, work.failures, seconds=time.monotonic() - started)
        log.info("scale %s done in %s; verdicts: %s", scale, duration(time.monotonic() - started), counted(rows))
    if said := [*work.failures, *filter(None, [failure(rows)])]:
        raise Failed(f"{'; '.join(said)}; page: {page}")
    return page
