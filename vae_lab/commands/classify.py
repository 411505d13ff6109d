"""`vae-lab classify`: how well classifiers learn from a run's latent means and few labels; a table, and a CSV file."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vae_lab.applications.classification import CLASSIFIERS, Labelled, error_rates, standard_error
from vae_lab.atomic import write_text
from vae_lab.commands.out import require_free
from vae_lab.commands.run_settings import RunSettings
from vae_lab.errors import ConfigError, require_integer
from vae_lab.runs.directory import only_writer
from vae_lab.runs.load import Run
from vae_lab.wiring.table import Table, number

log = logging.getLogger("vae_lab")

PUBLISHED = {100: 11.82, 600: 5.72, 1000: 4.24, 3000: 3.49}
"""Labelled images -> per cent wrong, on MNIST: M1 with a transductive SVM (Kingma et al., 2014, table 1)."""


@dataclass(frozen=True)
class ClassifySettings(RunSettings):
    """The keys of `vae-lab classify`."""

    labels: list[int]
    repeats: int
    out: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("repeats", self.repeats, minimum=1)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ConfigError(f"labels must be a list of different numbers such as [100,1000], got {self.labels}")
        for num in self.labels:
            require_integer("labels", num, minimum=1)
        if self.path is not None:
            if self.path.suffix != ".csv":
                raise ConfigError(f"out must be the name of a .csv file, got {self.out!r}: write out=errors.csv")
            require_free(self.path, overwrite=self.overwrite)

    @property
    def path(self) -> Path | None:
        """The file; None: none is written."""
        return None if self.out is None else Path(self.out).expanduser()


def classify(settings: ClassifySettings) -> list[Path]:
    """Classifies with few labels by one run after the other; prints a table of each, returns `out`.

    Raises:
        ConfigError: a setting is refused, a run cannot be read, or its data have no labels; nothing was measured.
    """
    records = []
    for _, run in settings.loaded(check=lambda run: require_labels(run, settings)):
        table = table_of(run, settings)
        table.print()
        records.append(table.records)
    if settings.path is None:
        return []
    with only_writer(settings.path):
        write_text(settings.path, Table(records=pd.concat(records)).to_csv())
    return [settings.path]


def require_labels(run: Run, settings: ClassifySettings) -> None:
    """Refuses a run without as many labelled images as are asked for."""
    labelled = Labelled.of(run)
    for num_labels in settings.labels:
        labelled.check(num_labels)


def table_of(run: Run, settings: ClassifySettings) -> Table:
    """The errors of all classifiers on a run's latent means, on the pixels and on their principal components."""
    labelled = Labelled.of(run)
    rows, records = [], []
    for features, images in labelled.features(run):
        for classifier in CLASSIFIERS:
            cells = []
            for num in settings.labels:
                how = {"num_labels": num, "repeats": settings.repeats, "seed": settings.seed}
                errors = error_rates(labelled, images, classifier=classifier, **how)
                mean, error = sum(errors) / len(errors), standard_error(errors)
                cells.append(number(100 * mean, None if error is None else 100 * error))
                records.append(
                    {"run": str(run.path), "checkpoint": run.checkpoint, "features": features, "classifier": classifier}
                    | {**how, "error": mean, "error_se": error, "num_test": len(labelled.test)}
                )
                log.info("%s of %s, %d labels: %s %% wrong", classifier, features, num, cells[-1])
            rows.append([features, classifier, *cells])
    if run.data.name == "mnist" and PUBLISHED.keys() & set(settings.labels):
        published = [number(PUBLISHED.get(num)) for num in settings.labels]
        rows.append(["published (Kingma et al., 2014)", "M1+TSVM", *published])
    draws = f"{settings.repeats} draws" if settings.repeats > 1 else "one draw"
    caption = f"per cent of the {len(labelled.test):,} test images; mean ± s.e. of {draws} of the labelled images"
    title = f"{run.path}, {run.checkpoint}.ckpt: test error by the number of labelled images"
    columns = ("features", "classifier", *(f"{num:,}" for num in settings.labels))
    return Table(columns, rows, caption, title=title, records=pd.DataFrame(records))
