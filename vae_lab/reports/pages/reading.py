"""How the commands that make pages read weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vae_lab.reports.overview import Overview
from vae_lab.reports.pages.page import UNREADABLE, reason_of
from vae_lab.runs.load import Run, load_run
from vae_lab.wiring.arguments import Arguments, Key

READING_KEYS = {
    "checkpoint": Key("whose values and pictures; without it: best where there is one", choices=("best", "last")),
    "data_root": Key("where the data set lies now, if not where the run found it", is_path=True),
    "allow": Key("packages whose classes the run's config may name, besides vae_lab's own", is_list=True),
}
"""Keys of the commands that read runs."""


@dataclass(frozen=True)
class Reader:
    """Loads the runs of a page, as `load_run` with these arguments."""

    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, given: Arguments) -> "Reader":
        """The reader that `READING_KEYS` describe."""
        known = {
            "checkpoint": given.one("checkpoint"),
            "data_root": given.one("data_root"),
            "allow": given.all("allow"),
        }
        return cls({name: value for name, value in known.items() if value})

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that was asked for."""
        return self.arguments.get("checkpoint")

    def load(self, run: Overview) -> Run:
        """The trained model.

        Raises:
            RunError: there are no weights yet, or they are broken; any of `UNREADABLE` for the data.
        """
        if "allow" in self.arguments:
            from vae_lab.wiring.build import find_own_classes

            find_own_classes()
        return load_run(run.path, **self.arguments)

    def models(self, runs: Mapping[str, Overview]) -> tuple[dict[str, Run], list[str]]:
        """The labelled runs that can be read, and a sentence about each of the others."""
        models, unread = {}, []
        for label, run in runs.items():
            try:
                models[label] = self.load(run)
            except UNREADABLE as error:
                unread.append(f"{label} has none: {reason_of(error)}.")
        return models, unread
