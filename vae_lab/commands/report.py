"""`vae-lab report run=DIR` or `sweep=DIR`: a page about each run, or about all in a folder, light enough to mail."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import ConfigError, RunError
from vae_lab.reports.overview import read_overview
from vae_lab.reports.pages.reading import Reader
from vae_lab.runs.directory import RunDir, named_folders
from vae_lab.wiring.arguments import key, override

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class ReportSettings(Reader):
    """The keys of `vae-lab report`."""

    run: list[str] = key("run directories, or patterns such as 'outputs/mnist/*': a page about each", [], is_path=True)
    sweep: str | None = key("a folder of run directories, for one page about all; one of the two", None, is_path=True)
    out: str | None = key(
        "the page, an .html file, for one run or sweep; without it: DIR/report.html", None, is_path=True
    )


def report(settings: ReportSettings) -> list[Path]:
    """Writes the page about each run, or about a sweep; returns their paths. Nothing else is written.

    Raises:
        ConfigError: not one of run and sweep, or a place that cannot be written to.
        RunError: there is no run, or one that is named is not whole, or is being written: no page was written. A
            pattern's run that can have no page is left out with a line, as long as another can.
    """
    from vae_lab.reports.pages.page import require_page, write_page
    from vae_lab.reports.pages.run_page import headline, run_sections, title_of
    from vae_lab.reports.pages.sweep_page import read_sweep, sweep_sections

    runs = settings.run
    if bool(runs) == bool(settings.sweep):
        raise ConfigError(
            f"one of run and sweep must be given, got {'both' if runs else 'none'}: run=RUN_DIR, or sweep=FOLDER of "
            "run directories"
        )
    found = {Path(settings.sweep).expanduser(): False} if settings.sweep else named_folders(runs)
    folders = [folder for folder, is_of_pattern in found.items() if not is_of_pattern or RunDir(folder).exists()]
    if not folders:
        raise RunError(f"run={','.join(runs)} matches no run directory: name run directories")
    pages = page_paths(settings.out, folders)
    for folder in folders:
        require_kind(folder, "run" if runs else "sweep")
    if settings.sweep:
        sweep, name = read_sweep(folders[0], settings.checkpoint), folders[0].resolve().name
        require_page(pages[0])
        return [write_page(pages[0], f"Sweep: {name}", sweep_sections(sweep, settings), summary=sweep.headline)]
    overviews, errors = {}, []
    for folder, page in zip(folders, pages, strict=True):
        try:
            overviews[page] = read_overview(folder, settings.checkpoint)
            require_page(page)
        except ConfigError as error:
            if not found[folder]:
                raise
            overviews.pop(page, None)
            errors.append(error)
    if errors and not overviews:
        raise errors[0]
    for error in errors:
        log.warning("left out: %s", error)
    return [
        write_page(page, title_of(run), run_sections(run, settings), summary=headline(run))
        for page, run in overviews.items()
    ]


def page_paths(out: str | None, folders: Sequence[Path]) -> list[Path]:
    """Where the page of each folder goes: `out` for a single one, else into the folder."""
    if not out:
        return [folder / "report.html" for folder in folders]
    path = Path(out).expanduser()
    if path.suffix != ".html":
        raise ConfigError(f"out must be an .html file, got {out}")
    if len(folders) > 1:
        raise ConfigError(f"out must be left out for {len(folders)} runs, got {out}: each has a page in its folder")
    return [path]


def require_kind(folder: Path, kind: str) -> None:
    """Refuses what is no folder, a run in the place of a folder of runs, and the other way round."""
    if not folder.is_dir():
        raise RunError(f"{kind}={folder} must be a folder: there is none")
    is_run = RunDir(folder).exists()
    if kind == "sweep" and is_run:
        raise RunError(f"{folder} is a run directory: {override('run', folder)}")
    if kind == "run" and not is_run and any(RunDir(child).exists() for child in folder.iterdir()):
        raise RunError(f"{folder} is a folder of runs: {override('sweep', folder)}, or name one of its runs")
