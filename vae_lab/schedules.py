"""Learning rates that fill the budget: a rise and half a cosine, or stages of growing length (Burda et al., 2016)."""

import logging
import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vae_lab.errors import ConfigError, require_integer, require_number

log = logging.getLogger("vae_lab")


class WarmupCosine(LRScheduler):
    """The rate rises linearly to lr, then falls along half a cosine to lr * last_factor, where it stays.

    Stepped once per minibatch. Both parts together take `total_samples`, so a smaller budget shortens each alike. A run
    that is continued beyond that trains on at the last rate: with `last_factor` 0 it would learn nothing more.

    Args:
        optimizer: whose learning rates are the highest.
        warmup_share: of the budget in which the rate rises; 0: it begins at its highest.
        last_factor: of the last learning rate.
        total_samples: the training's budget, `max_samples`; null is refused once an optimiser is there.
        batch_size: datapoints in a minibatch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup_share: float,
        last_factor: float,
        total_samples: int | None,
        batch_size: int,
    ) -> None:
        for key, value in {"warmup_share": warmup_share, "last_factor": last_factor}.items():
            require_number(f"schedule.{key}", value, at_least=0, at_most=1, advice="it is a share of the whole")
        self.num_steps = max(1, int(require_budget(total_samples) // batch_size))
        self.num_warmup_steps = round(warmup_share * self.num_steps)
        self.last_factor = last_factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The learning rates of the coming minibatch."""
        step, end, risen = self.last_epoch, self.num_steps, self.num_warmup_steps  # torch calls the steps epochs
        if step < risen:
            factor = (step + 1) / risen
        else:
            fallen = min(1.0, (step - risen) / max(1, end - risen))
            factor = self.last_factor + (1 - self.last_factor) * (1 + math.cos(math.pi * fallen)) / 2
        if step == end + 1:  # one step beyond: the run was continued
            log.info(
                "the schedule's budget is over: the learning rate stays %g times the optimiser's; a new run with this "
                "max_samples would learn more",
                factor,
            )
        return [float(base) * factor for base in self.base_lrs]


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
        lengths = [growth**stage for stage in range(num_stages)]
        unit = require_budget(total_samples) // batch_size / sum(lengths)
        self.ends = [round(unit * sum(lengths[: stage + 1])) for stage in range(num_stages - 1)]
        """The minibatches after which each stage but the last is over."""
        self.factor_per_stage = last_factor ** (1 / (num_stages - 1))
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The learning rates of the coming minibatch."""
        stage = sum(end <= self.last_epoch for end in self.ends)  # torch calls the steps epochs
        return [float(base) * self.factor(stage) for base in self.base_lrs]

    def factor(self, stage: int) -> float:
        """The learning rate of a stage, counted from 0, by that of the first."""
        return self.factor_per_stage**stage


class RoundedStages(GeometricStages):
    """The same stages, each rate rounded to a tenth of the last one, as in the code of Burda et al.

    Eight stages down to a tenth have 10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4 and 1.0 times the last rate.
    """

    def factor(self, stage: int) -> float:
        """The rounded rate of a stage, counted from 0, by that of the first."""
        last = self.factor_per_stage ** len(self.ends)
        return round(super().factor(stage) / last, 1) * last


def require_budget(total_samples: int | None) -> int:
    """The budget that a schedule fills, where there is one."""
    if total_samples is None or total_samples < 1:
        raise ConfigError(
            f"schedule.total_samples must be >= 1, got {total_samples}: the schedule fills a budget; set max_samples"
        )
    return total_samples
