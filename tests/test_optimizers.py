import copy
import math
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vae_lab.optimizers import Adagrad, is_fused, move

CONFIGS = Path(__file__).parents[1] / "configs"
CHOICES = {"lr": 0.02, "warmup_steps": 3, "eps": 1e-8}


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(*size, generator=noise)) for size in [(5, 4), (5,)]]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    for i, parameter in enumerate(params):
        noise = torch.Generator().manual_seed(100 * step + i)
        parameter.grad = torch.randn(parameter.shape, generator=noise) * 10.0 ** -(step % 5)


def reference(params: list[torch.nn.Parameter], steps: int, lr: float, warmup_steps: int, eps: float) -> list:
    """The author's code, written out."""
    values = [p.detach().clone().double() for p in params]
    sums = [torch.zeros_like(v) for v in values]
    for step in range(steps):
        set_gradients(params, step)
        for parameter, value, total in zip(params, values, sums, strict=True):
            gradient = parameter.grad.double()
            total += gradient**2
            if step >= warmup_steps:
                value -= lr * gradient / (eps + total).sqrt()
    return [v.float() for v in values]


def unfused(params: list[torch.nn.Parameter], *, foreach: bool) -> Adagrad:
    optimizer = Adagrad(params, **CHOICES)
    for group in optimizer.param_groups:
        group.update(fused=None, foreach=foreach)
    return optimizer


@pytest.mark.parametrize(
    "make",
    [partial(Adagrad, **CHOICES), partial(unfused, foreach=False), partial(unfused, foreach=True)],
    ids=["fused", "single", "foreach"],
)
def test_adagrad_equals_the_reference_loop(make):
    params = parameters()
    optimizer = make(params)
    for step in range(12):
        set_gradients(params, step)
        optimizer.step()
    expected = reference(parameters(), 12, **CHOICES)
    for parameter, value in zip(params, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=1e-6)


def test_adagrad_is_fused_on_cpu():
    assert Adagrad(parameters(), **CHOICES).param_groups[0]["fused"] is True


def test_warmup_accumulates_squares_without_moving():
    params = parameters()
    optimizer = Adagrad(params, **CHOICES)
    squares = torch.full_like(params[0], 1e-8)
    for step in range(4):
        before = params[0].detach().clone()
        set_gradients(params, step)
        gradient = params[0].grad
        squares += gradient.square()
        optimizer.step()
        assert params[0].grad is gradient
        assert torch.equal(before, params[0]) == (step < 3)
        torch.testing.assert_close(optimizer.state[params[0]]["sum"], squares)
        assert optimizer.state[params[0]]["step"] == step + 1


def test_warmup_of_zero_moves_at_once():
    params = parameters()
    optimizer = Adagrad(params, **(CHOICES | {"warmup_steps": 0}))
    set_gradients(params, 0)
    optimizer.step()
    for parameter, start in zip(params, parameters(), strict=True):
        torch.testing.assert_close(parameter - start, -0.02 * parameter.grad.sign())


def test_every_parameter_warms_up_by_itself():
    params = parameters()
    optimizer = Adagrad(params, **CHOICES)
    moved = []
    for step in range(10):
        before = [p.detach().clone() for p in params]
        set_gradients(params, step)
        params[step % 2].grad = None
        optimizer.step()
        moved.append([not torch.equal(b, p) for b, p in zip(before, params, strict=True)])
    # The second moves first, in steps 0, 2, 4, 6, 8; three of each parameter's steps are warm-up.
    assert [step for step, (_, second) in enumerate(moved) if second] == [6, 8]
    assert [step for step, (first, _) in enumerate(moved) if first] == [7, 9]


def test_eps_stands_inside_the_root():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = Adagrad([parameter], lr=1.0, warmup_steps=0, eps=1e-8)
    parameter.grad = torch.tensor([0.0, 1e-4])
    optimizer.step()
    expected = -1e-4 / math.sqrt(1e-8 + 1e-8)
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.0, expected]))


@pytest.mark.parametrize("interruption", [2, 3, 7])
def test_state_dict_continues_bit_for_bit(tmp_path, interruption):
    params = parameters()
    optimizer = Adagrad(params, **CHOICES)
    for step in range(12):
        if step == interruption:
            state = {"optimizer": optimizer.state_dict(), "params": [p.detach() for p in params]}
            torch.save(state, tmp_path / "state.pt")
        set_gradients(params, step)
        optimizer.step()
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    again = [torch.nn.Parameter(p) for p in saved["params"]]
    optimizer = Adagrad(again, **CHOICES)
    optimizer.load_state_dict(saved["optimizer"])
    for step in range(interruption, 12):
        set_gradients(again, step)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(params, again, strict=True))


def test_a_state_written_unfused_continues_fused():
    optimizer = Adagrad(parameters(), **CHOICES)
    optimizer.load_state_dict(unfused(parameters(), foreach=False).state_dict())
    assert optimizer.param_groups[0]["fused"] is True


def test_copies_of_the_optimizer_keep_warming_up():
    params = parameters()
    for copied in (copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))):
        twin = copied(Adagrad(params, **CHOICES))
        own = twin.param_groups[0]["params"]
        before = own[0].detach().clone()
        set_gradients(own, 0)
        twin.step()
        assert torch.equal(before, own[0])


def test_closure_is_evaluated_once_with_gradients():
    params = parameters()
    optimizer = Adagrad(params, **(CHOICES | {"warmup_steps": 0}))
    calls = []

    def closure() -> float:
        loss = torch.stack([(p**2).sum() for p in params]).sum()
        loss.backward()
        calls.append(loss.item())
        return loss.item()

    assert optimizer.step(closure) == calls[0] and len(calls) == 1
    assert sum((p**2).sum() for p in params) < calls[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": -0.1}, r"optimizer\.lr must be a number >= 0, got -0\.1"),
        ({"warmup_steps": -1}, r"optimizer\.warmup_steps must be an integer >= 0, got -1"),
        ({"eps": 0.0}, r"optimizer\.eps must be a number > 0, got 0\.0"),
    ],
)
def test_numbers_out_of_range_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Adagrad(parameters(), **(CHOICES | changed))


SCHEDULES = {
    "constant": ({}, lambda step: 1.0),
    "cosine": ({"T_max": 8}, lambda step: (1 + math.cos(math.pi * step / 8)) / 2),
    "stages": ({"milestones": [3, 5], "gamma": 0.5}, lambda step: 0.5 ** ((step >= 3) + (step >= 5))),
}


@pytest.mark.parametrize("name", ["adam", "adagrad"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_optimizer_and_schedule_of_the_yaml_follow_the_formula(name, schedule):
    changed, factor = SCHEDULES[schedule]
    optimizer_config = OmegaConf.load(CONFIGS / "optimizer" / f"{name}.yaml")
    schedule_config = OmegaConf.load(CONFIGS / "schedule" / f"{schedule}.yaml")
    params = parameters()
    optimizer = instantiate(optimizer_config, _convert_="all")(params)
    scheduler = instantiate(schedule_config, **changed, _convert_="all")(optimizer)
    for step in range(8):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(optimizer_config.lr * factor(step))
        set_gradients(params, step)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("make", [lambda w: torch.optim.Adam(w, fused=True), lambda w: Adagrad(w, **CHOICES)])
def test_move_is_the_optimisers_own_step_bit_for_bit(make):
    ours, theirs = parameters(), parameters()
    optimizer, other = make(ours), make(theirs)
    for step in range(12):
        set_gradients(theirs, step)
        other.step()
        move(optimizer, ours, [None if w.grad is None else w.grad.clone() for w in theirs])
    assert is_fused(optimizer)
    assert all(map(torch.equal, ours, theirs))
    for mine, own in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(mine[name], own[name]) for name in own)
