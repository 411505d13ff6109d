import pytest
import torch

from vae_lab.schedules import GeometricStages

IWAE = {"num_stages": 8, "growth": 3, "last_factor": 0.1, "batch_size": 20}


def schedule(total_samples: int, **changes) -> GeometricStages:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    return GeometricStages(optimizer, **IWAE | {"total_samples": total_samples} | changes)


def rates(stages: GeometricStages, num_steps: int) -> list[float]:
    result = []
    for _ in range(num_steps):
        result.append(stages.get_last_lr()[0])
        stages.optimizer.step()
        stages.step()
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


def test_schedule_continues_from_its_state():
    whole = rates(schedule(20 * 3280), 500)
    first, second = schedule(20 * 3280), schedule(20 * 3280)
    begin = rates(first, 200)
    second.load_state_dict(first.state_dict())
    assert begin + rates(second, 300) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_stages", 1), ("growth", 0), ("last_factor", 0), ("total_samples", 0), ("total_samples", None)],
)
def test_stages_refuse_by_key(key, value):
    with pytest.raises(ValueError, match=rf"schedule\.{key} must be"):
        schedule(**{"total_samples": 100, key: value})
