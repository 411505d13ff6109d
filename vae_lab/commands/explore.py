"""`vae-lab explore`: a run's latent space as one HTML file, which needs neither server nor network."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from vae_lab.applications.explorer import explorer
from vae_lab.commands.out import require_writable
from vae_lab.commands.run_settings import RunSettings, require_splits
from vae_lab.errors import ConfigError, require_integer, require_number
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import read_overview
from vae_lab.reports.pages.page import require_page, write_html
from vae_lab.reports.pages.run_page import title_of
from vae_lab.reports.values import letters

log = logging.getLogger("vae_lab")

PAGE = "explorer.html"
"""The page in a run directory, and its template."""
MOST_WORDS = 2
"""The most settings that tell two runs apart."""


@dataclass(frozen=True)
class ExploreSettings(RunSettings):
    """The keys of `vae-lab explore`."""

    out: str | None
    split: str
    num_images: int
    num_points: int
    num_samples: int
    film_megabytes: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None and Path(self.out).suffix != ".html":
            raise ConfigError(f"out must be an .html file or null, got {self.out}")
        if self.out is not None:
            require_writable(Path(self.out).expanduser().absolute().parent)
        for key in ("num_images", "num_points", "num_samples"):
            require_integer(key, getattr(self, key), minimum=1)
        require_number("film_megabytes", self.film_megabytes, at_least=0)


def explore(settings: ExploreSettings) -> list[Path]:
    """Writes the page of the run, or of the two runs, `settings.run`; returns its path.

    Raises:
        ConfigError: a setting is refused, a run cannot be read, or the page cannot compute a network; nothing was
            written.
    """
    runs = [run for _, run in settings.loaded(check=lambda run: require_splits(run, "split", [settings.split]))]
    overviews = [
        read_overview(run.path, run.checkpoint if run.checkpoint in ("best", "last") else None) for run in runs
    ]
    path = Path(settings.out).expanduser() if settings.out else runs[0].path / PAGE
    require_page(path)
    short_names = Runs(overviews).names(MOST_WORDS)
    names = [f"{letters(place)} {name}".strip() for place, name in enumerate(short_names)]
    known = explorer(
        runs,
        names,
        split=settings.split,
        num_images=settings.num_images,
        num_points=settings.num_points,
        num_samples=settings.num_samples,
        film_bytes=int(1e6 * settings.film_megabytes),
        seed=settings.seed,
    )
    content = Markup(json.dumps(known, allow_nan=False).replace("<", "\\u003c"))  # or it might end its element
    write_html(path, PAGE, {"title": " beside ".join(map(title_of, overviews)), "known": content})
    log.info("%.2f MB, to be opened in a browser", path.stat().st_size / 1e6)
    return [path]
