"""Learning rates that fall in stages of growing length (Burda et al., 2016)."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vae_lab.errors import ConfigError, require_integer, require_number


class GeometricStages(LRScheduler):
    """Stage i of n lasts `growth` times as long as the one before, at the rate lr * last_factor^((i - 1) / (n - 1)).

    Stepped once per minibatch. All stages together take `total_samples`, so a smaller budget shortens each alike.

    Args:
        optimizer: whose learning rates are those of the first stage.
        num_stages: n.
        growth: length of a stage over that of the one before.
        last_factor: of the last stage's learning rate.
        total_samples: the training's budget, `max_samples`; null is refused once an optimiser is there.
        batch_size: datapoints in a minibatch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        num_stages: int,
        growth: float,
        last_factor: float,
        total_samples: int | None,
        batch_size: int,
    ) -> None:
        require_integer("schedule.num_stages", num_stages, minimum=2, advice="for one, use schedule=constant")
        for key, value in {"growth": growth, "last_factor": last_factor}.items():
            require_number(f"schedule.{key}", value)
        if total_samples is None or total_samples < 1:
            raise ConfigError(
                f"schedule.total_samples must be >= 1, got {total_samples}: the stages fill a budget; set max_samples"
            )
        lengths = [growth**stage for stage in range(num_stages)]
        unit = total_samples // batch_size / sum(lengths)
        self.ends = [round(unit * sum(lengths[: stage + 1])) for stage in range(num_stages - 1)]
        """The minibatches after which each stage but the last is over."""
        self.factor_per_stage = last_factor ** (1 / (num_stages - 1))
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The learning rates of the coming minibatch."""
        stage = sum(end <= self.last_epoch for end in self.ends)  # torch calls the steps epochs
        return [base * self.factor_per_stage**stage for base in self.base_lrs]
