"""The trainings of section 5, which figures 2, 4 and 5 share: by data set, latent size and method."""

from vae_lab.errors import ConfigError
from vae_lab.figures.base import Curve, check_by_scale, check_scale


class Section5:
    """How the paper trained.

    Args:
        data_sets: overrides for each data set: its experiment, and the choices that the paper leaves open.
        panels: further overrides for single panels, `<data set>_<latent size>`: choices that the paper leaves open.
        methods: overrides for each method; all else is the same for both methods of a panel.
        evaluation: overrides for all: when the bound is measured.
        learning_rates: the step sizes to choose from.
        max_samples: the budget of each data set's curves at each scale.
        snapshots: counts of training samples at which weights are kept, as far as the budget reaches.
    """

    def __init__(
        self,
        *,
        data_sets: dict[str, list[str]],
        panels: dict[str, list[str]],
        methods: dict[str, list[str]],
        evaluation: list[str],
        learning_rates: list[float],
        max_samples: dict[str, dict[str, int]],
        snapshots: list[int],
    ) -> None:
        for panel in panels:
            data_set, _, latent_dim = panel.rpartition("_")
            if data_set not in data_sets or not latent_dim.isdigit():
                raise ConfigError(
                    f"figure.training.panels must name panels such as {next(iter(data_sets))}_20, got {panel!r}"
                )
        if sorted(max_samples) != sorted(data_sets):
            raise ConfigError(
                f"figure.training.max_samples must name the data sets {', '.join(data_sets)}, got "
                f"{', '.join(max_samples)}: add or remove entries"
            )
        for name, budgets in max_samples.items():
            check_by_scale(f"figure.training.max_samples.{name}", budgets)
        self.data_sets, self.panels, self.methods, self.evaluation = data_sets, panels, methods, evaluation
        self.learning_rates, self.max_samples, self.snapshots = learning_rates, max_samples, snapshots

    def curve(self, data_set: str, latent_dim: int, method: str, scale: str) -> Curve:
        """The training of `data_set` with `latent_dim` latent dimensions by `method`."""
        check_scale(scale)
        for key, name, known in (("data_sets", data_set, self.data_sets), ("methods", method, self.methods)):
            if name not in known:
                raise ConfigError(f"figure.training.{key} must hold {name!r}, which is drawn, got {', '.join(known)}")
        panel, budget = f"{data_set}_{latent_dim}", self.max_samples[data_set][scale]
        own = [*self.data_sets[data_set], f"model.latent_dim={latent_dim}", *self.panels.get(panel, [])]
        return Curve(
            label=f"{panel}_{method}",
            overrides=(*own, *self.methods[method], *self.evaluation),
            learning_rates=tuple(self.learning_rates),
            max_samples=budget,
            snapshots=tuple(count for count in self.snapshots if count <= budget),
        )
