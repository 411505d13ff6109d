"""How the commands that make pages read weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vae_lab.wiring.arguments import key

if TYPE_CHECKING:  # the settings of a command are read before PyTorch is imported
    from vae_lab.reports.overview import Overview
    from vae_lab.runs.load import Run


@dataclass(frozen=True)
class Reader:
    """The keys of the commands that make pages of runs: how weights are read."""

    checkpoint: str | None = key(
        "whose values and pictures; without it: best where there is one", None, choices=("best", "last")
    )
    data_root: str | None = key("where the data set lies now, if not where the run found it", None, is_path=True)
    allow: list[str] = key("packages whose classes the run's config may name, besides vae_lab's own", [])

    @property
    def arguments(self) -> dict[str, Any]:
        """What was asked for, as arguments of `load_run`."""
        return {name: value for name in ("checkpoint", "data_root", "allow") if (value := getattr(self, name))}

    def load(self, run: "Overview") -> "Run":
        """The trained model.

        Raises:
            RunError: there are no weights yet, or they are broken; any of `UNREADABLE` for the data.
        """
        from vae_lab.runs.load import load_run

        if self.allow:
            from vae_lab.wiring.build import find_own_classes

            find_own_classes()
        return load_run(run.path, **self.arguments)

    def models(self, runs: "Mapping[str, Overview]") -> "tuple[dict[str, Run], list[str]]":
        """The labelled runs that can be read, and a sentence about each of the others."""
        from vae_lab.reports.pages.page import UNREADABLE, reason_of

        models, unread = {}, []
        for label, run in runs.items():
            try:
                models[label] = self.load(run)
            except UNREADABLE as error:
                unread.append(f"{label} has none: {reason_of(error)}.")
        return models, unread
