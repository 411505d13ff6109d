"""The training loop's single steps: gradients, counts, blocks. Whole trainings are in test_train."""

import math
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning.strategies import Strategy
from torch import nn

from vae_lab.data.arrays import Minibatches
from vae_lab.data.digits import Digits
from vae_lab.errors import NonFiniteDensity
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch, Terms
from vae_lab.training.lit_module import Blocks, LitVAE
from vae_lab.training.running_means import RunningMeans

ALONE = Mock(world_size=1)


class Recorder(torch.optim.SGD):
    """An optimiser that keeps the gradients it was asked to step along."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.parameters(), lr=0.1)
        self.module = module
        self.gradients: dict[str, torch.Tensor | None] = {}

    def step(self, closure=None) -> None:
        named = self.module.named_parameters()
        self.gradients = {name: None if p.grad is None else p.grad.clone() for name, p in named}


def make_lit(**settings) -> LitVAE:
    defaults = {"max_samples": 600, "steps_per_execution": 4, "parameter_prior": False}
    mlp = {"hidden": [16], "activation": "tanh"}
    parts = (partial(MLPEncoder, **mlp), partial(MLPDecoder, **mlp), BernoulliLikelihood, PyTorchDefault())
    data = Digits(batch_size=50, binarization="none", train_size=300, split_seed=0)
    lit = LitVAE(
        VAE((1, 8, 8), 3, *parts),
        AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=0),
        partial(torch.optim.SGD, lr=0.1),
        partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0, total_iters=0),
        data,
        **defaults
        | {"gradient_clip_norm": None, "cuda_graph": False, "compile": False, "channels_last": False, "seed": 0}
        | settings,
    )
    lit._trainer = ALONE
    lit.minibatches = Minibatches(data.parts["train"], batch_size=50, seed=0, binarization="none")
    return lit


def gradients(moves: str = "model", **settings) -> tuple[LitVAE, dict]:
    """What one update steps along, of a loss that has a gradient everywhere."""
    torch.manual_seed(0)
    lit = make_lit(**settings)
    x = lit.minibatches.block(0, 1).x[0]
    objective: Any = lit.objective
    bound = objective.estimator(lit.model, x, 1)
    recorder = Recorder(lit)
    lit.update(recorder, Terms(-bound.total, moves=lit.get_submodule(moves), parts={"bound": bound.total}))
    return lit, recorder.gradients


def test_parameter_prior_adds_w_over_n_to_the_weights_and_nothing_to_the_biases():
    lit, plain = gradients()
    _, with_prior = gradients(parameter_prior=True)
    for name, parameter in lit.named_parameters():
        expected = parameter / 300 if parameter.dim() > 1 else torch.zeros_like(parameter)
        torch.testing.assert_close(with_prior[name] - plain[name], expected, rtol=0, atol=1e-6)
        assert name.endswith("weight") == (parameter.dim() > 1)


@pytest.mark.parametrize("prior", [False, True])
def test_only_the_moved_parameters_have_a_gradient(prior):
    _, found = gradients(moves="model.decoder", parameter_prior=prior)
    for name, gradient in found.items():
        assert (gradient is None) == name.startswith("model.encoder"), name


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
    _, decoder = gradients(moves="model.decoder", gradient_clip_norm=0.5)
    assert norm(decoder) == pytest.approx(0.5, rel=1e-4)


def test_budget_is_whole_minibatches():
    assert make_lit(max_samples=649).max_samples == 600
    assert make_lit(max_samples=50).max_samples == 50


def test_non_finite_loss_names_step_samples_quantity_and_advice():
    lit = make_lit()
    lit.keep({"loss of update 0": 1.0, "loss of update 1": 2.0, "bound": 3.0}, step=9)
    with pytest.raises(NonFiniteDensity, match=r"became inf at step 10 \(500 samples; not finite: bound\)") as error:
        lit.keep({"loss of update 0": 2.0, "loss of update 1": math.inf, "bound": math.nan, "kl": 2.0}, step=10)
    assert "optimizer.lr" in str(error.value) and "min_log_variance" in str(error.value)
    with pytest.raises(NonFiniteDensity, match=r"became nan at step 0 \(0 samples; not finite: loss\)"):
        lit.keep({"loss of update 0": math.nan}, step=0)
    assert (lit.running.totals, lit.running.counts) == ({"bound": 3.0}, {"bound": 50})


def test_step_returns_the_sums_of_loss_and_parts_over_the_minibatch():
    lit = make_lit()
    lit.bare_optimizer = torch.optim.SGD(lit.parameters(), lr=0.0)
    block = lit.minibatches.block(0, 1)
    loss, bound, reconstruction, kl = lit.step(Minibatch(block.x[0], block.index[0])).tolist()
    assert lit.measured == ["loss of update 0", "bound", "reconstruction", "kl"]
    assert loss == pytest.approx(-bound) and bound == pytest.approx(reconstruction - kl)


@pytest.mark.parametrize("steps", [1, 4, 7, 1000])
@pytest.mark.parametrize("start", [0, 150])
def test_blocks_cover_the_budget_once_and_end_at_the_marks(steps, start):
    lit = make_lit(steps_per_execution=steps, max_samples=1000)
    lit.samples = start
    lit._trainer = Mock(callbacks=[Mock(spec=["next_mark"], next_mark=lambda at: at // 120 * 120 + 120), Mock(spec=[])])
    presented, ends = [], set()
    for first, count in Blocks(lit):
        assert 1 <= count <= steps
        presented += range(first, first + count)
        ends.add((first + count) * 50)
    assert presented == list(range(start // 50, 20))
    marks = {-(-mark // 50) * 50 for mark in range(120, 1000, 120)} | {1000}
    assert ends >= {mark for mark in marks if mark > start}


def test_next_mark_is_the_earliest_of_the_callbacks_or_the_end():
    lit = make_lit(max_samples=600)
    late, early, never = (Mock(spec=["next_mark"], next_mark=lambda at, mark=mark: mark) for mark in (500, 300, None))
    lit._trainer = Mock(callbacks=[late, never, early])
    assert lit.next_mark(0) == 300
    lit._trainer = Mock(callbacks=[never, Mock(spec=[])])
    assert lit.next_mark(0) == 600


def test_running_means_are_exact_sums_and_survive_a_checkpoint():
    strategy = Mock(spec=Strategy, reduce=lambda pair, reduce_op: pair, root_device=torch.device("cpu"))
    running = RunningMeans()
    running.add({"bound": 0.1 * 1000}, 1000)
    restored = RunningMeans(running.sums(strategy))
    for means in (running, restored):
        means.add({"bound": 50.0}, 500)
    total, count = restored.sums(strategy)["bound"]
    assert (total, count) == running.sums(strategy)["bound"] == (150.0, 1500)
