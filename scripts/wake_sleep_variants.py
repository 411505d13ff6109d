"""What the paper leaves open of wake-sleep, one change at a time: figure 2's runs on MNIST beside the published curves.

python scripts/wake_sleep_variants.py [latent_dim=200 only=replacement,step_* ...], --help explains them; needs
MNIST in the folder that VAE_LAB_DATA names. The parts that follow stand in for the lab's own, by `_target_`; a run
that is finished is not trained again, one that was stopped goes on.
"""

import fnmatch
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
import yaml
from torch import nn
from torch.optim import Optimizer

import vae_lab
from vae_lab.cli import run_plain_command
from vae_lab.commands.help import Command
from vae_lab.data.arrays import Block, Minibatches
from vae_lab.errors import ConfigError, nearest, require_choice, require_integer
from vae_lab.figures.base import select
from vae_lab.figures.section5 import Section5, bound_points, figure2_published
from vae_lab.model import VAE
from vae_lab.networks.initialization import Normal
from vae_lab.objectives.base import Minibatch, Terms, TrainingState
from vae_lab.objectives.wake_sleep import WakeSleep
from vae_lab.randomness import generator
from vae_lab.reproduction.claims import value_at_count
from vae_lab.runs.directory import RunDir
from vae_lab.wiring import build
from vae_lab.wiring.arguments import key
from vae_lab.wiring.compose import compose_command

COUNTS = (1e5, 3e5, 1e6, 3e6, 1e7)
"""Training samples at which values are shown."""
CHOSEN = {20: 0.01, 200: 0.02}
"""The step sizes that the probes of the reproduction choose, by latent size."""
AVERAGES = ("none", "steps", "network", "networks")


class WithReplacement(Minibatches):
    """Minibatches of which every datapoint is drawn anew from all of them, by (seed, number of the minibatch)."""

    def block(self, first: int, count: int) -> Block:
        """Minibatches `first` ... `first + count - 1`."""
        device, size = self.images.device, (self.batch_size,)
        noises = [generator(device, self.seed, "replacement", number) for number in range(first, first + count)]
        index = torch.stack(
            [torch.randint(self.num_datapoints, size, generator=noise, device=device) for noise in noises]
        )
        return Block(self.images[index], index)


class DrawWithReplacement(pl.Callback):
    """Lets a training on one device, on images that are not binarised anew, draw its minibatches with replacement."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces the minibatches that the training has set up."""
        lit: Any = pl_module
        drawn = WithReplacement(
            lit.data.splits["train"], batch_size=lit.batch_size, seed=lit.seed, binarization=lit.data.binarization
        )
        lit.minibatches = drawn.to(lit.device)


class OwnSleep(WakeSleep):
    """Wake-sleep with a number of pairs (z', x') of its own.

    Args:
        pairs: of a sleep step; None: as many as there are datapoints.
        sleep_first: whether the sleep step, with the decoder of the minibatch before, precedes the wake step.
        others: those of WakeSleep.
    """

    def __init__(self, *, pairs: int | None, sleep_first: bool, **others: Any) -> None:
        super().__init__(**others)
        require_integer("objective.pairs", pairs, minimum=1, optional=True)
        self.pairs, self.sleep_first = pairs, sleep_first

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """Makes both steps, in either order."""
        wake = super().updates(model, batch, state)
        if self.sleep_first:
            yield self.sleep(model, self.pairs or len(batch.x))
        yield next(wake)
        if not self.sleep_first:
            yield self.sleep(model, self.pairs or len(batch.x))

    def sleep(self, model: VAE, pairs: int) -> Terms:
        """The sleep step; what it measures is not of the minibatch's datapoints, and is not logged."""
        with torch.no_grad():
            z = model.prior().sample((pairs,))
            likelihood = model.likelihood(z)
            x = likelihood.sample() if self.sleep_inputs == "sampled" else likelihood.mean
        return Terms(-model.posterior(x).log_prob(z), moves=model.encoder, logged={})


class FanIn(Normal):
    """The paper's initialisation, but with an s.d. of 1 / sqrt(inputs) for every layer's weights.

    Args:
        networks: those that have it: encoder, decoder.
        others: those of Normal; biases keep its `std`, and what it starts at zero stays zero.
    """

    def __init__(self, *, networks: Sequence[str], **others: Any) -> None:
        super().__init__(**others)
        self.networks = tuple(networks)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> None:
        """Draws as Normal does, and scales."""
        super().__call__(model)
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and name.startswith(self.networks):
                weight.div_(self.std * weight.shape[1] ** 0.5)


class VariedAdagrad(Optimizer):
    """The lab's Adagrad, with a step size for the encoder or another average of the sums of squares.

    Of the updates, each moves one network; the encoder is the one whose parameters come first.

    Args:
        params: The parameters.
        lr: The decoder's step size.
        encoder_factor: The encoder's is so many times as large.
        average: `none`; `steps`: w <- w - lr * g / sqrt(eps + mean of g^2 over the steps so far); `network`: the sums
            of all parameters of a network are averaged, to one scale for each network; `networks`: to one for both.
        warmup_steps: As the lab's.
        eps: As the lab's.
    """

    def __init__(
        self, params: Any, *, lr: float, warmup_steps: int, eps: float, encoder_factor: float, average: str
    ) -> None:
        require_choice("optimizer.average", average, AVERAGES)
        defaults = {"lr": lr, "warmup_steps": warmup_steps, "eps": eps}
        super().__init__(params, defaults | {"encoder_factor": encoder_factor, "average": average})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of the parameters that have a gradient: a network's."""
        (group,) = self.param_groups
        moved = [w for w in group["params"] if w.grad is not None]
        for w in moved:
            if not self.state[w]:
                self.state[w].update(step=torch.tensor(0.0), sum=torch.zeros_like(w))
            self.state[w]["step"] += 1
            self.state[w]["sum"].addcmul_(w.grad, w.grad)
        steps, average = self.state[moved[0]]["step"], group["average"]
        if steps <= group["warmup_steps"]:
            return
        rate = group["lr"] * (group["encoder_factor"] if moved[0] is group["params"][0] else 1.0)
        averaged = moved if average == "network" else self.state
        sums = [self.state[w]["sum"] for w in averaged] if average in ("network", "networks") else []
        for w in moved:
            squares = self.state[w]["sum"] / (steps if average == "steps" else 1.0)
            if sums:
                squares = sum(total.sum() for total in sums) / sum(total.numel() for total in sums)
            w.addcdiv_(w.grad, (squares + group["eps"]).sqrt().expand_as(w), value=-rate)


def part(group: str, kind: type, **keys: Any) -> dict[str, Any]:
    """Overrides that put a part of this file in the place of the lab's."""
    place = {f"{group}._target_": f"wake_sleep_variants.{kind.__name__}"}
    return place | {f"+{group}.{name}": value for name, value in keys.items()}


def adagrad(*, encoder: float = 1.0, average: str = "none", **keys: Any) -> dict[str, Any]:
    """Overrides that choose the Adagrad of this file."""
    own = part("optimizer", VariedAdagrad, encoder_factor=encoder, average=average)
    return own | {f"optimizer.{name}": value for name, value in keys.items()}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("as figure 2 has it", {}),
    **{f"step_{lr:g}": (f"step size {lr:g}", {"optimizer.lr": lr}) for lr in CHOSEN.values()},
    **{
        f"steps_{lr:g}_{encoder:g}": (
            f"step size {lr:g} of the decoder, {encoder:g} of the encoder",
            adagrad(lr=lr, encoder=encoder / lr),
        )
        for lr, encoder in ((0.01, 0.005), (0.01, 0.02), (0.01, 0.1), (0.02, 0.005), (0.02, 0.01), (0.02, 0.1))
    },
    **{
        f"fan_in_{'_'.join(networks)}": (
            f"initial s.d. 1 / sqrt(fan-in), {' and '.join(networks)}",
            part("initialization", FanIn, networks=networks),
        )
        for networks in (["encoder", "decoder"], ["encoder"], ["decoder"])
    },
    "replacement": (
        "minibatches with replacement",
        {"+callbacks.draw_with_replacement._target_": f"wake_sleep_variants.{DrawWithReplacement.__name__}"},
    ),
    **{
        f"pairs_{pairs}": (f"{pairs} sleep samples", part("objective", OwnSleep, pairs=pairs, sleep_first=False))
        for pairs in (20, 500)
    },
    "sleep_first": ("sleep before wake", part("objective", OwnSleep, pairs=None, sleep_first=True)),
    "average_network": ("sums of squares averaged over a network", adagrad(average="network")),
    "average_networks": ("sums of squares averaged over both networks", adagrad(average="networks")),
    **{
        f"average_steps_{lr:g}": (f"mean over the steps for the sum, step size {lr:g}", adagrad(average="steps", lr=lr))
        for lr in (0.01, 0.001, 0.0001)
    },
}
"""Name -> what it is, and its overrides of figure 2's run; in the order in which they are trained."""


@dataclass(frozen=True)
class VariantsSettings:
    """The keys of this script."""

    latent_dim: int = key("latent size", 20, choices=tuple(map(str, CHOSEN)))
    only: list[str] = key("names or patterns of variants", ["*"])
    samples: int = key("each run's budget, in training samples; one that has a larger one keeps it", 1_000_000)
    train: list[str] = key("further overrides of vae-lab train", [])
    root: str = key("the folder of the runs", "outputs/wake_sleep_variants", is_path=True)

    def __post_init__(self) -> None:
        require_integer("samples", self.samples, minimum=1)
        for pattern in self.only:
            if not fnmatch.filter(VARIANTS, pattern):
                raise ConfigError(f"only={pattern} is no variant: {nearest(pattern, VARIANTS)}")


def variants(given: VariantsSettings) -> None:
    """Trains what is not there yet, and prints the table of all."""
    others = [name for name in VARIANTS if name != f"step_{CHOSEN[given.latent_dim]:g}"]  # which is the default
    names = [name for name in others if any(fnmatch.fnmatch(name, pattern) for pattern in given.only)]
    print(table(given.latent_dim, {name: trained(name, given) for name in names}))


def trained(name: str, given: VariantsSettings) -> RunDir:
    """The run of a variant, trained to the budget."""
    config, _ = compose_command("figure", ["figure=figure2", "scale=quick"])
    training: Section5 = build.instantiate(config["figure"]["training"], "figure.training")
    words = [*training.needed_run("mnist", given.latent_dim, "wake_sleep", "quick").overrides, *given.train]
    run = RunDir(Path(given.root) / f"{given.latent_dim}_{name}")
    before = run.read_config()["max_samples"] if run.exists() else 0
    overrides = {
        **{word.partition("=")[0]: yaml.safe_load(word.partition("=")[2]) for word in words},
        **{"optimizer.lr": CHOSEN[given.latent_dim], "callbacks": "none", "logger": "none", "threads": 1},
        **VARIANTS[name][1],
        **{"max_samples": max(given.samples, before), "run_dir": run.path, "allow": ["wake_sleep_variants"]},
    }
    vae_lab.train(overrides=overrides)
    return run


def table(latent_dim: int, runs: dict[str, RunDir]) -> str:
    """The bounds of the runs at the counts that they reach, in Markdown: train (running mean) / test."""
    curves = {VARIANTS[name][0]: pd.DataFrame(bound_points(run)) for name, run in runs.items()}
    curves["published"] = select(figure2_published(), dataset="mnist", latent_dim=latent_dim, method="wake_sleep")
    counts = [count for count in COUNTS if any(values(curve, count) != "" for curve in [*curves.values()][:-1])]
    head = f"wake-sleep on MNIST, Nz = {latent_dim}, step size {CHOSEN[latent_dim]:g} where none is named"
    lines = [[head, *(f"{count:.0e}".replace("+0", "") for count in counts)], ["---"] * (1 + len(counts))]
    lines += [[title, *(values(curve, count) for count in counts)] for title, curve in curves.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def values(curve: pd.DataFrame, count: float) -> str:
    """Train / test of a curve at a count; empty where it is not reached."""
    found = [value_at_count(select(curve, split=split), "bound_nats", count) for split in ("train", "test")]
    return "" if None in found else " / ".join(f"{value:.1f}" for value in found)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns its exit code."""
    this = Command("what the paper leaves open of wake-sleep", "only=step*", plain="wake_sleep_variants")
    return run_plain_command("variants", this, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
