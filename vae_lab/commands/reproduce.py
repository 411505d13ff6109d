"""`vae-lab reproduce`: plans and makes every run that the paper's figures need, draws, verifies, writes one page."""

import logging
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from vae_lab.errors import Failed, Interrupted
from vae_lab.jobs.children import called_with_torch
from vae_lab.reproduction.plan import (
    ReproduceSettings,
    compose_training,
    figure_config,
    make_figures,
    needed_runs,
    needs_of,
)
from vae_lab.reproduction.work import choose_step_sizes, estimated, print_plan, train_all
from vae_lab.runs.directory import RunDir
from vae_lab.runs.provenance import available_cores
from vae_lab.wiring.arguments import pasted
from vae_lab.wiring.terminal import duration

log = logging.getLogger("vae_lab")


def reproduce(settings: ReproduceSettings) -> Path:
    """Does what is missing under `settings.root`; returns its index.html (with `dry_run` the folder).

    PyTorch is loaded once all is trained: until then this process only waits.

    Raises:
        ConfigError: a setting is refused.
        Interrupted: a signal stopped it; the same command goes on.
        Failed: a run or a figure failed, a verdict is FAIL, or none was reached; the page is written all the same.
    """
    started = time.monotonic()
    root, scale = Path(settings.root).expanduser(), settings.scale
    configs = [figure_config(name, scale, root) for name in dict.fromkeys(settings.figures)]
    needs = called_with_torch(needs_of, configs, scale, root / "runs")
    runs = needed_runs((figure.runs for figure in needs), settings.only)
    trainings = [compose_training(needed, settings) for needed in runs]
    home = RunDir(root)
    with nullcontext(home.make()) if settings.dry_run else home.locked():
        num_parallel = settings.jobs or min(available_cores(), max(1, len(trainings)))
        if settings.speed_seconds:
            trainings = estimated(trainings, root, num_parallel, settings.speed_seconds)
        print_plan(trainings, needs, root, num_parallel, scale)
        if settings.dry_run:
            return root
        try:
            choices = choose_step_sizes(trainings, root, num_parallel)
            failures = train_all(trainings, choices, root, num_parallel)
            from vae_lab.reproduction.measuring import draw_all, measure_all

            figures = make_figures(configs)
            measure_all(figures, root, scale, num_parallel)
        except Interrupted as interrupt:
            raise Interrupted(f"{interrupt}; the same command goes on: {pasted(*sys.argv[1:])}") from interrupt
        drawn, undrawn = draw_all(figures, root, scale)
        failures += undrawn
        from vae_lab.reproduction.page import write_index
        from vae_lab.reproduction.verdicts import as_table as verdict_table
        from vae_lab.reproduction.verdicts import counted, failure, reproduction_rows, write_rows

        rows = reproduction_rows(root)
        write_rows(root / "verification.csv", rows)
        verdict_table(rows, "verification").print()
        page = write_index(root, settings, drawn, rows, failures, seconds=time.monotonic() - started)
        log.info("scale %s done in %s; verdicts: %s", scale, duration(time.monotonic() - started), counted(rows))
    if said := [*failures, *filter(None, [failure(rows)])]:
        raise Failed(f"{'; '.join(said)}; page: {page}")
    return page
