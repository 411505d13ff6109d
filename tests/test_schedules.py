import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from vae_lab.errors import ConfigError
from vae_lab.schedules import GeometricStages, RoundedStages, WarmupCosine

COSINE: dict[str, Any] = {"warmup_share": 0.2, "last_factor": 0.01, "batch_size": 100}
IWAE = {"num_stages": 8, "growth": 3, "last_factor": 0.1, "batch_size": 20}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def schedule(total_samples: int, **changes) -> GeometricStages:
    return GeometricStages(optimizer(), **IWAE | {"total_samples": total_samples} | changes)


def cosine(total_samples: Any = 10_000, **changes: Any) -> WarmupCosine:
    return WarmupCosine(optimizer(), **COSINE | {"total_samples": total_samples} | changes)


def rates(schedule: LRScheduler, num_steps: int) -> list[float]:
    result = []
    for _ in range(num_steps):
        result.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return result


def test_published_budget_gives_the_published_stages():
    epochs = [1, 4, 13, 40, 121, 364, 1093]  # 1, 3, 9, ... epochs, added up; 2,187 more make 3,280
    assert schedule(3280 * 59600).ends == [2980 * epoch for epoch in epochs]


def test_learning_rate_falls_by_one_factor_a_stage_to_a_tenth():
    values = rates(schedule(20 * 3280), 3280)
    changes = [i for i in range(1, 3280) if values[i] != values[i - 1]]
    assert changes == [1, 4, 13, 40, 121, 364, 1093]
    assert values[0] == 1e-3
    assert values[-1] == pytest.approx(1e-4)
    assert values[4] / values[1] == pytest.approx(0.1 ** (1 / 7))


def test_rounded_stages_have_the_rates_of_the_published_code_at_the_same_minibatches():
    """1e-4 * round(10 ** (1 - i / 7), 1) for stage i, as that code computes them."""
    settings = IWAE | {"total_samples": 20 * 3280}
    rounded, exact = RoundedStages(optimizer(), **settings), schedule(20 * 3280)
    assert rounded.ends == exact.ends
    values, others = rates(rounded, 3280), rates(exact, 3280)
    published = [1e-4 * rate for rate in (10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1.0)]
    assert list(dict.fromkeys(values)) == pytest.approx(published, rel=1e-12)
    assert values != others and values == pytest.approx(others, rel=0.03)  # by 0.05 of 1.9 at most


@pytest.mark.parametrize("make", [lambda: schedule(20 * 3280), lambda: cosine(100 * 300)])
def test_schedule_continues_from_its_state(make: Callable[[], LRScheduler]):
    whole = rates(make(), 500)
    first, second = make(), make()
    begin = rates(first, 200)
    second.load_state_dict(first.state_dict())
    assert begin + rates(second, 300) == pytest.approx(whole)


def test_rate_rises_for_its_share_and_falls_along_half_a_cosine():
    values = rates(cosine(), 100)
    assert values[:20] == pytest.approx([1e-3 * (i + 1) / 20 for i in range(20)])
    assert values[20] == pytest.approx(1e-3)
    assert values[60] == pytest.approx(1e-3 * (1 + 0.01) / 2)  # halfway down
    assert values[20:] == sorted(values[20:], reverse=True) and values[-1] > 1e-5
    drops = [a - b for a, b in itertools.pairwise(values[20:])]
    assert max(drops) == pytest.approx(1e-3 * 0.99 / 2 * torch.pi / 80, rel=0.01)  # its steepest place


def test_rate_without_a_warm_up_begins_at_its_highest_and_one_of_warm_up_alone_ends_there():
    assert rates(cosine(warmup_share=0.0), 1) == pytest.approx([1e-3])
    assert rates(cosine(warmup_share=1.0), 101)[99:] == pytest.approx([1e-3, 1e-3])


@pytest.mark.parametrize(("last_factor", "last"), [(0.01, 1e-5), (0.0, 0.0)])
def test_rate_stays_at_its_last_value_beyond_the_budget_and_says_so_once(
    last_factor: float, last: float, caplog: pytest.LogCaptureFixture
):
    schedule = cosine(last_factor=last_factor)
    with caplog.at_level("INFO", logger="vae_lab"):
        rates(schedule, 100)  # the whole budget
        assert caplog.messages == []
        assert rates(schedule, 150) == pytest.approx([last] * 150)
    (message,) = caplog.messages
    assert f"stays {last_factor:g} times the optimiser's" in message


def test_budget_of_less_than_a_minibatch_is_a_step():
    assert rates(cosine(total_samples=1), 3) == pytest.approx([1e-3, 1e-5, 1e-5])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("warmup_share", value) for value in (-0.1, 1.1, float("nan"))],
        *[("last_factor", value) for value in (-0.1, 2, float("inf"))],
        *[("total_samples", value) for value in (0, None)],
    ],
)
def test_warmup_and_cosine_refuse_by_key(key, value):
    with pytest.raises(ConfigError, match=rf"schedule\.{key} must be"):
        cosine(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_stages", 1), ("growth", 0), ("last_factor", 0), ("total_samples", 0), ("total_samples", None)],
)
def test_stages_refuse_by_key(key, value):
    with pytest.raises(ValueError, match=rf"schedule\.{key} must be"):
        schedule(**{"total_samples": 100, key: value})
