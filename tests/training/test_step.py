"""The step of algorithm 1: eager, captured and compiled ones give the same numbers; where they cannot, they say why."""

from typing import Any

import pytest
import step_cases
import torch
from step_cases import present
from test_lit_module import make_lit
from torch import Tensor, nn
from training import TINY, assert_same_training, run_to_end, train_tiny

from vae_lab.errors import ConfigError
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch, Terms
from vae_lab.objectives.monte_carlo_em import MonteCarloEM
from vae_lab.optimizers import Adagrad
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.training import step as step_module
from vae_lab.training.step import EagerStep, is_steady, prepare, why_not_captured

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_step(make_optimizer: Any, **settings: Any) -> tuple[Any, EagerStep]:
    torch.manual_seed(0)
    lit = make_lit()
    settings = {"num_train": 300, "parameter_prior": False, "gradient_clip_norm": None} | settings
    return lit, EagerStep(lit.objective, lit.model, make_optimizer(lit.model), **settings)


def gradients(moves: str = "", **settings: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """What one update steps along, of a loss that has a gradient everywhere."""
    lit, step = make_step(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), **settings)
    block = lit.minibatches.block(0, 1)
    bound = lit.objective.estimator(lit.model, block.x[0], 1)
    terms = Terms(-bound.total, moves=lit.model.get_submodule(moves), logged={"bound": bound.total})
    lit.objective.updates = lambda *_: iter([terms])
    names, found = {id(weight): name for name, weight in lit.model.named_parameters()}, {}

    def record(parameters: Any, along: Any) -> None:
        found.update({names[id(w)]: g for w, g in zip(parameters, along, strict=True)})

    step.present(Minibatch(block.x[0], block.index[0]), 0, record)
    return lit.model, found


def test_parameter_prior_adds_w_over_n_to_the_weights_and_nothing_to_the_biases():
    model, plain = gradients()
    _, with_prior = gradients(parameter_prior=True)
    for name, parameter in model.named_parameters():
        expected = parameter / 300 if parameter.dim() > 1 else torch.zeros_like(parameter)
        torch.testing.assert_close(with_prior[name] - plain[name], expected, rtol=0, atol=1e-6)
        assert name.endswith("weight") == (parameter.dim() > 1)


@pytest.mark.parametrize("prior", [False, True])
def test_an_update_steps_along_the_gradients_of_what_it_moves_alone(prior):
    model, found = gradients(moves="decoder", parameter_prior=prior)
    assert set(found) == {name for name, _ in model.named_parameters() if name.startswith("decoder")}
    assert all(gradient is not None for gradient in found.values())


def test_gradient_is_cut_to_the_norm_over_the_moved_parameters():
    def norm(found: dict) -> float:
        return torch.cat([g.flatten() for g in found.values() if g is not None]).norm().item()

    _, plain = gradients()
    _, cut = gradients(gradient_clip_norm=0.5)
    assert norm(plain) > 0.5 and norm(cut) == pytest.approx(0.5, rel=1e-4)
    for name, gradient in plain.items():
        torch.testing.assert_close(cut[name], gradient * 0.5 / norm(plain), rtol=1e-3, atol=1e-6)
    _, loose = gradients(gradient_clip_norm=1e6)
    assert norm(loose) == norm(plain)
    _, decoder = gradients(moves="decoder", gradient_clip_norm=0.5)
    assert norm(decoder) == pytest.approx(0.5, rel=1e-4)


def test_step_returns_the_sums_of_loss_and_parts_over_the_minibatch():
    lit, step = make_step(lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    block = lit.minibatches.block(0, 1)
    loss, bound, reconstruction, kl = step(Minibatch(block.x[0], block.index[0]), 0).tolist()
    assert step.measured == ["loss of update 0", "bound", "reconstruction", "kl"]
    assert loss == pytest.approx(-bound) and bound == pytest.approx(reconstruction - kl)


# ---- eager, captured, compiled ----


class Repeated:
    """What a CUDA graph does, without one: runs the work on what the static tensors hold by then."""

    def __init__(self, work: Any) -> None:
        self.replay = work


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        *(("static", case) for case in step_cases.CASES),
        *(pytest.param("captured", case, marks=needs_gpu) for case in step_cases.CASES),
        *(pytest.param("compiled", cases, marks=pytest.mark.slow) for cases in step_cases.COMPILED),
    ],
)
def test_eager_captured_and_compiled_steps_give_the_same_numbers(kind, case, monkeypatch):
    if kind == "static":  # a captured step's protocol, on any machine, and bit for bit
        monkeypatch.setattr(step_module, "recorded", Repeated)
        names, records, weights = present(case, "captured")
    elif kind == "captured":
        if case == "monte_carlo_em":
            pytest.skip(MonteCarloEM.traits.not_captured_because)
        names, records, weights = present(case, "captured", "cuda")
    else:
        names, records, weights = present(case, "compiled")
    expected_names, expected_records, expected_weights = present(case, "eager", "cuda" if kind == "captured" else "cpu")
    assert names == expected_names
    rtol, atol = (0.0, 0.0) if kind == "static" else (1e-4, 1e-5)
    torch.testing.assert_close(records, expected_records, rtol=rtol, atol=atol)
    torch.testing.assert_close(weights, expected_weights, rtol=rtol, atol=atol)
    if kind == "compiled":
        assert not torch.equal(weights, expected_weights)  # it was compiled


@pytest.mark.parametrize(
    ("override", "reason"),
    [("+optimizer.amsgrad=true", "of Adam it does not know amsgrad"), ("trainer.devices=2", "2 processes exchange")],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(tmp_path, override, reason):
    with pytest.raises(ConfigError, match=f"compile must be false, got true: .*{reason}"):
        train_tiny(tmp_path / "run", "compile=true", override)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_continued_compiled_training_is_the_undisturbed_one_and_the_eager_one_to_rounding(tmp_path):
    common = [*TINY, "data=digits", "compile=true", "trainer.max_epochs=null", "schedule=cosine", "schedule.T_max=32"]
    whole, halves = RunDir(tmp_path / "whole"), RunDir(tmp_path / "halves")
    train_tiny(whole.path, *common, "max_samples=1600")
    train_tiny(halves.path, *common, "max_samples=1000")
    run_to_end("train", f"run_dir={halves.path}", "max_samples=1600")
    assert_same_training(halves, whole)
    eager = train_tiny(tmp_path / "eager", *common, "compile=false", "max_samples=1600")
    ours, theirs = read_rows(whole.curve_file), read_rows(eager.curve_file)
    assert [row["samples_evaluated"] for row in ours] == [row["samples_evaluated"] for row in theirs]
    for name in ("train/bound_running", "test/bound"):
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-5)
    assert ours != theirs  # it was compiled


def test_why_not_captured_names_the_reason():
    adagrad = Adagrad([nn.Parameter(torch.zeros(1))], lr=0.1, warmup_steps=0, eps=1e-8)
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    objective = AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=300)
    assert why_not_captured(objective, adagrad, CUDA, 1) == ""
    assert why_not_captured(objective, adagrad, CPU, 1) == "the training is on the cpu"
    assert why_not_captured(objective, adagrad, CUDA, 2) == "several processes exchange their gradients"
    assert "SGD" in why_not_captured(objective, sgd, CUDA, 1)
    assert MonteCarloEM.traits.not_captured_because
    assert objective.traits.steady_from == 300


def test_adagrad_is_steady_once_nothing_warms_up_any_more():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = Adagrad([weight], lr=0.1, warmup_steps=2, eps=1e-8)
    for _ in range(2):
        assert not is_steady(optimizer)
        weight.grad = torch.ones(2)
        optimizer.step()
    assert is_steady(optimizer) and is_steady(torch.optim.Adam([weight]))


def test_prepared_optimizer_takes_its_numbers_from_tensors_and_back():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], lr=0.25)
    prepare(optimizer, captured=True)
    (group,) = optimizer.param_groups
    assert group["capturable"] and isinstance(group["lr"], Tensor) and float(group["lr"]) == 0.25
    prepare(optimizer, captured=False)
    assert group["capturable"] is False and group["lr"] == 0.25 and isinstance(group["lr"], float)


@needs_gpu
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
    with_graph, without = (read_rows(run.curve_file) for run in runs)
    assert len(with_graph) == len(without) > 3
    for one, other in zip(with_graph, without, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    assert "will be captured" in runs[0].log.read_text() and "captured" not in runs[1].log.read_text()
