"""The training loop's single steps: gradients, counts, blocks. Whole trainings are in test_train."""

import math
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning.strategies import Strategy

from vae_lab.data.arrays import Minibatches
from vae_lab.data.digits import Digits
from vae_lab.errors import NonFiniteDensity
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.objectives.aevb import AEVB
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.running_means import RunningMeans

ALONE = Mock(world_size=1)


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
    lit.minibatches = Minibatches(data.splits["train"], batch_size=50, seed=0, binarization="none")
    return lit


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
    assert lit.running.so_far == {"bound": (3.0, 50)}


@pytest.mark.parametrize("steps", [1, 4, 7, 1000])
@pytest.mark.parametrize("start", [0, 150])
def test_blocks_cover_the_budget_once_and_end_at_the_marks(steps, start):
    lit = make_lit(steps_per_execution=steps, max_samples=1000)
    lit.samples = start
    lit._trainer = Mock(callbacks=[Mock(spec=["next_mark"], next_mark=lambda at: at // 120 * 120 + 120), Mock(spec=[])])
    presented, ends = [], set()
    for first, count in lit.train_dataloader():
        assert 1 <= count <= steps
        presented += range(first, first + count)
        ends.add((first + count) * 50)
    assert presented == list(range(start // 50, 20))
    marks = {-(-mark // 50) * 50 for mark in range(120, 1000, 120)} | {1000}
    assert ends >= {mark for mark in marks if mark > start}


def test_noise_of_every_step_on_every_rank_is_its_own_whatever_the_blocks(monkeypatch):
    """What the first update of each step would draw."""

    def drawn(rank: int, *blocks: tuple[int, int]) -> list[float]:
        lit, seen = make_lit(), []
        lit._trainer = Mock(world_size=2, global_rank=rank)
        monkeypatch.setattr(lit, "lr_schedulers", Mock())
        monkeypatch.setattr(lit, "keep", Mock())
        lit.step = Mock(side_effect=lambda *_: seen.append(torch.randn(()).item()) or torch.zeros(1))
        lit.step.eager.measured = ["bound"]
        for block in blocks:
            lit.training_step(block, 0)
        return seen

    first, second = drawn(0, (0, 4), (4, 2)), drawn(1, (0, 4), (4, 2))
    assert len(set(first + second)) == 12
    assert drawn(0, (3, 3)) == first[3:] and drawn(1, (0, 2)) == second[:2]


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
