"""`vae-lab compare run=A run=B`: what differs, the curves over each other, the same images and the same z; one page."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_lab.errors import ConfigError
from vae_lab.reports.overview import Overview, read_overviews
from vae_lab.reports.pages.reading import Reader
from vae_lab.runs.directory import named_folders, safe_name
from vae_lab.wiring.arguments import key, override, pasted

log = logging.getLogger("vae_lab")

COMPARISONS = Path("outputs/comparisons")


@dataclass(frozen=True)
class CompareSettings(Reader):
    """The keys of `vae-lab compare`."""

    run: list[str] = key("run directories, or patterns such as 'outputs/sweeps/x/*'; two at least", [], is_path=True)
    out: str | None = key(
        "the page (.html) or its folder; without it: outputs/comparisons/NAMES-HASH/index.html", None, is_path=True
    )


def compare(settings: CompareSettings) -> Path:
    """Writes the page that holds runs against each other; returns its path. Run directories are only read.

    Raises:
        ConfigError: fewer than two runs, a pattern without any, or a place that cannot be written to.
        RunError: a directory that is named is no run directory, or not whole.
    """
    from vae_lab.reports.listing.runs import Runs
    from vae_lab.reports.pages.comparison import comparison_sections
    from vae_lab.reports.pages.page import Section, require_page, write_page

    found, left_out = find_runs(settings.run, settings.checkpoint)
    if len(found) < 2:
        reasons = f"; left out: {'; '.join(left_out)}" if left_out else ""
        raise ConfigError(f"run must name at least two run directories, got {len(found)}{reasons}")
    path = page_path(settings.out, found, settings.checkpoint)
    require_page(path)
    for text in left_out:
        log.warning("left out: %s", text)
    again = Section("Again", text=["The same comparison replaces this page."], code=[command(settings)])
    sections = [*comparison_sections(found, left_out, settings), again]
    num = len(Runs(found).varied)
    summary = f"{len(found)} runs, {num} setting{'' if num == 1 else 's'} in which they differ; nats per datapoint."
    return write_page(path, "Runs compared", sections, summary=summary)


def find_runs(values: Sequence[str], checkpoint: str | None) -> tuple[list[Overview], list[str]]:
    """The runs that are named or match a pattern, each once; of a pattern's folders that are no runs, why they are not.

    Raises:
        ConfigError: a pattern matches nothing.
        RunError: a directory that is named is no run directory, or not whole.
    """
    paths = named_folders(values)
    runs, errors = read_overviews(paths, checkpoint)
    if named := [error for path, error in errors.items() if not paths[path]]:
        raise named[0]
    return runs, list(map(str, errors.values()))


def page_path(out: str | None, runs: Sequence[Overview], checkpoint: str | None) -> Path:
    """Where the page goes: `out`, else a folder of this very comparison, whatever the order of its runs.

    Raises:
        ConfigError: `out` is a file of another kind.
    """
    if out:
        path = Path(out).expanduser()
        if path.is_file() and path.suffix != ".html":
            raise ConfigError(f"out must be a page (.html) or a folder, got {out}: a file of another kind")
        return path if path.suffix == ".html" else path / "index.html"
    paths = sorted(str(run.path.resolve()) for run in runs)
    digest = hashlib.sha256(os.fsencode("\n".join([*paths, checkpoint or ""]))).hexdigest()[:6]
    names = safe_name("_".join(sorted(run.path.resolve().name for run in runs)))[:60].strip("-._")
    return COMPARISONS / f"{names or 'runs'}-{digest}" / "index.html"


def command(settings: CompareSettings) -> str:
    """The command line of this comparison."""
    given = {"out": settings.out, "checkpoint": settings.checkpoint, "data_root": settings.data_root}
    lists = [*(override("run", path) for path in settings.run), *(f"allow={name}" for name in settings.allow)]
    return pasted("compare", *lists, *(override(key, value) for key, value in given.items() if value))
