"""The variants of wake-sleep do what their names say, and each kind trains by the lab's own command."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import wake_sleep_variants as script
from torch import nn

from vae_lab.data.arrays import Split
from vae_lab.errors import ConfigError
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import Normal
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.objectives.base import Minibatch, TrainingState
from vae_lab.objectives.wake_sleep import WakeSleep
from vae_lab.optimizers import Adagrad

PLAIN = {"lr": 0.1, "warmup_steps": 2, "eps": 1e-8}
TINY = ("data=digits", "model.encoder.hidden=[16]", "data.batch_size=500", "evaluation.first=25000")


def model_of(initialization) -> VAE:
    torch.manual_seed(0)
    hidden = {"hidden": [300], "activation": "tanh"}
    return VAE(
        (1, 10, 10),
        20,
        partial(MLPEncoder, **hidden),
        partial(MLPDecoder, **hidden),
        BernoulliLikelihood,
        initialization,
    )


def test_minibatches_with_replacement_repeat_datapoints_and_do_not_depend_on_blocks():
    images = torch.arange(50.0).view(50, 1, 1, 1)
    drawn = script.WithReplacement(Split(images, None, torch.arange(50)), batch_size=10, seed=0, binarization="none")
    whole = drawn.block(0, 1000)
    assert whole.index.shape == (1000, 10)
    assert torch.equal(whole.x.flatten().long(), whole.index.flatten())
    assert any(len(set(row)) < 10 for row in whole.index.tolist())
    assert len(whole.index[:5].unique()) < 50, "an epoch leaves datapoints out"
    counts = whole.index.flatten().bincount(minlength=50)
    assert ((counts - 200).abs() < 6 * 200**0.5).all()
    assert torch.equal(drawn.block(7, 2).index, whole.index[7:9])


@pytest.mark.parametrize(("pairs", "sleep_first"), [(20, False), (5, True), (None, True), (None, False)])
def test_sleep_step_has_its_own_number_of_pairs_and_its_own_place(pairs, sleep_first):
    model = model_of(Normal(std=0.01, everything=False))
    batch, state = Minibatch(torch.rand(10, 1, 10, 10), torch.arange(10)), TrainingState(0, 1000)
    objective = script.OwnSleep(pairs=pairs, sleep_first=sleep_first, num_samples=1, sleep_inputs="sampled")
    torch.manual_seed(1)
    updates = list(objective.updates(model, batch, state))
    networks, sizes = [model.decoder, model.encoder], [10, pairs or 10]
    order = -1 if sleep_first else 1
    assert [terms.moves for terms in updates] == networks[::order]
    assert [len(terms.loss) for terms in updates] == sizes[::order]
    if (pairs, sleep_first) == (None, False):
        torch.manual_seed(1)
        lab = WakeSleep(num_samples=1, sleep_inputs="sampled").updates(model, batch, state)
        for ours, theirs in zip(updates, lab, strict=True):
            torch.testing.assert_close(ours.loss, theirs.loss)


def test_fan_in_changes_the_weights_of_the_named_networks_alone():
    paper = dict(model_of(Normal(std=0.01, everything=False)).named_parameters())
    ours = dict(model_of(script.FanIn(networks=["decoder"], std=0.01, everything=False)).named_parameters())
    for name, weight in ours.items():
        if name.startswith("decoder") and weight.dim() > 1:
            num, fan_in = weight.numel(), weight.shape[1]
            assert abs(weight.std().item() * fan_in**0.5 - 1) < 6 / (2 * num) ** 0.5, name
        else:
            assert torch.equal(weight, paper[name]), name


def moved(make, num_steps: int = 5) -> list[list[torch.Tensor]]:
    """The two networks' parameters after wake steps and sleep steps in turn."""
    torch.manual_seed(0)
    encoder, decoder = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))], [nn.Parameter(torch.randn(6))]
    optimizer = make([*encoder, *decoder])
    for _ in range(num_steps):
        for network in (decoder, encoder):
            optimizer.zero_grad()
            torch.stack([(w.sin() * torch.randn_like(w)).sum() for w in network]).sum().backward()
            optimizer.step()
    return [[w.detach() for w in network] for network in (encoder, decoder)]


def test_varied_adagrad_without_variation_is_the_labs():
    ours = moved(partial(script.VariedAdagrad, encoder_factor=1.0, average="none", **PLAIN))
    torch.testing.assert_close(ours, moved(partial(Adagrad, **PLAIN)))


def test_encoder_moves_with_its_own_step_size():
    ours = moved(partial(script.VariedAdagrad, encoder_factor=0.5, average="none", **PLAIN), num_steps=3)
    start, same = (moved(partial(Adagrad, **PLAIN), num_steps=num_steps) for num_steps in (2, 3))
    for old, new, lab in zip(start[0], ours[0], same[0], strict=True):
        torch.testing.assert_close(new - old, 0.5 * (lab - old))
    torch.testing.assert_close(ours[1], same[1])


def test_averages_of_the_sums_of_squares_are_as_their_names_say():
    gradients = {"encoder": torch.tensor([3.0, 4.0]), "decoder": torch.tensor([1.0, 2.0, 2.0])}
    mean = {"network": {"encoder": 25 / 2, "decoder": 9 / 3}, "networks": dict.fromkeys(gradients, 34 / 5)}
    for average in ("steps", "network", "networks"):
        weights = {name: nn.Parameter(torch.zeros_like(g)) for name, g in gradients.items()}
        keys = {"lr": 1.0, "eps": 0.0, "warmup_steps": 3, "encoder_factor": 1.0}
        optimizer = script.VariedAdagrad(weights.values(), average=average, **keys)
        for _ in range(4):
            for name in ("decoder", "encoder"):
                optimizer.zero_grad()
                weights[name].grad = gradients[name]
                optimizer.step()
        for name, g in gradients.items():
            # of the last sums, the decoder's step saw three of the encoder's squares and four of its own
            squares = g.square() if average == "steps" else torch.tensor(4 * mean[average][name])
            if (average, name) == ("networks", "decoder"):
                squares = torch.tensor((3 * 25 + 4 * 9) / 5)
            torch.testing.assert_close(weights[name].detach(), -g / squares.sqrt(), msg=f"{average} {name}")


@pytest.mark.slow
def test_each_kind_of_variant_trains_once_and_has_its_row(tmp_path, capsys):
    kinds = ["default", "replacement", "pairs_20", "fan_in_decoder", "steps_0.01_0.02"]
    given = script.VariantsSettings(only=kinds, samples=100_000, train=[*TINY], root=str(tmp_path))
    script.variants(given)
    printed = capsys.readouterr().out
    rows = printed.strip().splitlines()
    assert len(rows) == 2 + len(kinds) + 1
    assert rows[0].endswith("| 1e5 |") and all(" / " in row for row in rows[2:-1])
    assert len(set(row.split(" | ")[1] for row in rows[2:-1])) == len(kinds), "two variants are the same training"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoints/last.ckpt")}
    assert len(before) == len(kinds)
    script.variants(replace(given, samples=50_000))
    assert capsys.readouterr().out == printed
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_unknown_variants_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"only=replacment is no variant.*replacement"):
        script.VariantsSettings(only=["replacment"])
