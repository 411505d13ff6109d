"""`vae-lab report run=DIR` or `sweep=DIR`: a page about a run, or about all runs in a folder, light enough to mail."""

from pathlib import Path

from vae_lab.errors import ConfigError, RunError
from vae_lab.reports.overview import read_overview
from vae_lab.reports.pages.command_lines import override
from vae_lab.reports.pages.page import write_page
from vae_lab.reports.pages.reading import READING_KEYS, Reader
from vae_lab.reports.pages.run_page import headline, run_sections
from vae_lab.reports.pages.sweep_page import read_sweep, sweep_sections
from vae_lab.runs.directory import RunDir
from vae_lab.wiring.arguments import Arguments, Key

KEYS = {
    "run": Key("a run directory", is_path=True),
    "sweep": Key("a folder of run directories; one of the two", is_path=True),
    "out": Key("the page, an .html file; without it: DIR/report.html", is_path=True),
    **READING_KEYS,
}


def report(arguments: Arguments) -> Path:
    """Writes the page about a run or a sweep; returns its path. Nothing else is written.

    Raises:
        ConfigError: not one of run and sweep, or a place that cannot be written to.
        RunError: there is no run, or it is not whole.
    """
    reader = Reader.of(arguments)
    given = {key: Path(arguments.one(key)).expanduser() for key in ("run", "sweep") if arguments.one(key)}
    if len(given) != 1:
        raise ConfigError(
            f"one of run and sweep must be given, got {'both' if given else 'none'}: run=RUN_DIR, or sweep=FOLDER of "
            "run directories"
        )
    ((kind, folder),) = given.items()
    path = Path(arguments.one("out")).expanduser() if arguments.one("out") else folder / "report.html"
    if path.suffix != ".html":
        raise ConfigError(f"out must be an .html file, got {arguments.one('out')}")
    if not folder.is_dir():
        raise RunError(f"{kind}={folder} must be a folder: there is none")
    if kind == "run":
        if not RunDir(folder).exists() and any(RunDir(child).exists() for child in folder.iterdir()):
            raise RunError(f"{folder} is a folder of runs: {override('sweep', folder)}, or name one of its runs")
        run = read_overview(folder, reader.checkpoint)
        return write_page(path, f"Run {folder.resolve().name}", run_sections(run, reader), summary=headline(run))
    if RunDir(folder).exists():
        raise RunError(f"{folder} is a run directory: {override('run', folder)}")
    sweep = read_sweep(folder, reader.checkpoint)
    return write_page(path, f"Sweep: {folder.resolve().name}", sweep_sections(sweep, reader), summary=sweep.headline)
