"""Captured training steps: on the CPU their protocol, with a graph that repeats the work; on a GPU the real ones."""

import pytest
import torch
from test_lit_module import make_lit
from training import train_tiny

from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch
from vae_lab.objectives.monte_carlo_em import MonteCarloEM
from vae_lab.optimizers import Adagrad
from vae_lab.randomness import seed_global_noise
from vae_lab.runs.curve import read_rows
from vae_lab.training.cuda_graph import CapturedStep, is_steady, prepare, why_not

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Repeated:
    """What a CUDA graph does, without one: runs the work again on what the static tensors hold by then."""

    def __init__(self, work) -> None:
        self.work, self.replayed = work, 0
        work()

    def replay(self) -> None:
        self.replayed += 1
        self.work()


def trained(captured: bool) -> tuple[list[list[float]], list[torch.Tensor]]:
    """Records and weights of some minibatches, the steps run one by one or through static tensors."""
    torch.manual_seed(0)
    lit = make_lit(parameter_prior=True)
    lit.bare_optimizer = Adagrad(lit.parameters(), lr=0.1, warmup_steps=0, eps=1e-8)
    minibatches = lit.minibatches.block(0, 5)
    batches = [Minibatch(x, index) for x, index in zip(minibatches.x, minibatches.index, strict=True)]
    before = {name: value.clone() for name, value in lit.state_dict().items()}
    step = CapturedStep(lit.step, batches[0], Repeated) if captured else lit.step
    if captured:  # the capture itself must leave no trace, as a real one leaves none
        lit.load_state_dict(before)
        lit.bare_optimizer = Adagrad(lit.parameters(), lr=0.1, warmup_steps=0, eps=1e-8)
    records = []
    for i, batch in enumerate(batches):
        seed_global_noise(CPU, 0, "training", i, 0)
        records.append(step(batch).tolist())
    return records, [parameter.detach().clone() for parameter in lit.parameters()]


def test_steps_through_static_tensors_are_the_steps_one_by_one():
    records, weights = trained(captured=False)
    again, same = trained(captured=True)
    assert again == records
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def test_why_not_names_the_reason():
    adagrad = Adagrad([torch.nn.Parameter(torch.zeros(1))], lr=0.1, warmup_steps=0, eps=1e-8)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    objective = AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=300)
    assert why_not(objective, adagrad, CUDA, 1) == ""
    assert why_not(objective, adagrad, CPU, 1) == "the training is on the cpu"
    assert why_not(objective, adagrad, CUDA, 2) == "several processes exchange their gradients"
    assert "SGD" in why_not(objective, sgd, CUDA, 1)
    assert MonteCarloEM.not_captured_because
    assert objective.steady_from == 300


def test_adagrad_is_steady_once_nothing_warms_up_any_more():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = Adagrad([weight], lr=0.1, warmup_steps=2, eps=1e-8)
    for _ in range(2):
        assert not is_steady(optimizer)
        weight.grad = torch.ones(2)
        optimizer.step()
    assert is_steady(optimizer) and is_steady(torch.optim.Adam([weight]))


def test_prepared_optimizer_takes_its_numbers_from_tensors_and_back():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], lr=0.25)
    prepare(optimizer, captured=True)
    (group,) = optimizer.param_groups
    assert group["capturable"] and isinstance(group["lr"], torch.Tensor) and float(group["lr"]) == 0.25
    prepare(optimizer, captured=False)
    assert group["capturable"] is False and group["lr"] == 0.25 and isinstance(group["lr"], float)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("objective", ["aevb", "importance_weighted", "wake_sleep"])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_captured_training_equals_the_training_without_a_graph(tmp_path, objective, optimizer):
    overrides = [
        "trainer=gpu",
        f"objective={objective}",
        f"optimizer={optimizer}",
        "schedule=cosine",
        "schedule.T_max=120",
    ]
    runs = [train_tiny(tmp_path / f"{graph}", *overrides, f"cuda_graph={graph}") for graph in ("true", "false")]
    with_graph, without = (read_rows(run.curve) for run in runs)
    assert len(with_graph) == len(without) > 3
    for one, other in zip(with_graph, without, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert "will be captured" in runs[0].log.read_text() and "captured" not in runs[1].log.read_text()
