"""Algorithm 1 of the paper as a LightningModule: one loop for every objective, counted in samples."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vae_lab.data.arrays import ImageData, Minibatches
from vae_lab.errors import DIVERGED, ConfigError, NonFiniteDensity
from vae_lab.model import VAE
from vae_lab.objectives.base import Minibatch, Objective
from vae_lab.optimizers import lay_out_state
from vae_lab.randomness import seed_global_noise
from vae_lab.training.compiled import Compiler, why_not_compiled
from vae_lab.training.running_means import RunningMeans
from vae_lab.training.step import LOSS, WARM_UP_STEPS, EagerStep, Step, prepare, why_not_captured

log = logging.getLogger("vae_lab")


class LitVAE(pl.LightningModule):
    """Trains `model` by `objective` until `max_samples` training datapoints have been presented.

    Lightning sees one long epoch of blocks of minibatches, so that its bookkeeping is paid once per block; `samples`,
    the count of presented datapoints, drives everything else. A block ends where a callback with a method
    `next_mark(samples) -> int | None` wants to act. Noise and data order are functions of counters, so a checkpoint
    holds weights, optimiser and counts, and continuing from it repeats the undisturbed run bit for bit.
    """

    def __init__(
        self,
        model: VAE,
        objective: Objective,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        data: ImageData,
        *,
        max_samples: int,
        steps_per_execution: int,
        parameter_prior: bool,
        gradient_clip_norm: float | None,
        cuda_graph: bool,
        compile: bool | int,
        channels_last: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if parameter_prior and objective.traits.has_parameter_prior:
            raise ConfigError(
                f"parameter_prior must be false for {type(objective).__name__}, got true: "
                "the objective has a prior of its own"
            )
        self.model, self.objective, self.data = model, objective, data
        self.make_optimizer, self.make_schedule = optimizer, schedule
        num_train = len(data.splits["train"])
        self.batch_size = num_train if objective.traits.whole_training_split else data.batch_size
        self.samples_per_step = objective.samples_per_step(data.batch_size, num_train)
        self.max_samples = max_samples - max_samples % self.samples_per_step
        # a block of minibatches is made at once, so whole training splits come one by one
        self.steps_per_execution = 1 if objective.traits.whole_training_split else steps_per_execution
        self.parameter_prior = parameter_prior
        self.gradient_clip_norm = gradient_clip_norm
        self.seed = seed
        self.samples = self.block_start = 0
        self.seconds_before, self.started = 0.0, time.monotonic()
        self.running = RunningMeans()
        self.measured: list[str] = []
        self.cuda_graph, self.compile_step = cuda_graph, compile
        self.step: Step | None = None
        self.compiler: Compiler | None = None
        self.resident: dict[str, Tensor] = {}
        self.latest: dict[str, float] = {}
        self.interrupted = self.stopped_early = False
        seed_global_noise(torch.device("cpu"), seed, "objective")
        objective.prepare(model, num_train)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.trained = list(self.parameters())

    def training_step(self, block: tuple[int, int], _: int) -> None:
        """Presents `count` minibatches, from number `first` of the training on: algorithm 1's loop."""
        first, count = block
        self.block_start = self.samples
        minibatches = self.minibatches.block(first, count)
        schedule = cast(LRScheduler, self.lr_schedulers())
        assert self.step is not None  # it is there from the start of the training on
        records = []
        for i in range(count):
            seed_global_noise(self.device, self.seed, "training", first + i, self.global_rank)
            records.append(self.step(Minibatch(minibatches.x[i], minibatches.index[i]), self.samples))
            schedule.step()
            self.samples += self.samples_per_step
        self.measured = self.step.eager.measured
        for i, sums in enumerate(torch.stack(records).tolist()):  # the block's only wait for the device
            self.keep(dict(zip(self.measured, sums, strict=True)), step=first + i)

    def keep(self, sums: Mapping[str, float], step: int) -> None:
        """Adds what a minibatch measured to the running means; a loss that is NaN or infinite ends the training."""
        terms = {name: total for name, total in sums.items() if not name.startswith(LOSS)}
        bad = {name: total for name, total in sums.items() if not math.isfinite(total)}
        if losses := [total for name, total in bad.items() if name not in terms]:
            names = ", ".join(name for name in bad if name in terms)
            raise NonFiniteDensity(
                f"the loss became {losses[0]} at step {step} "
                f"({step * self.samples_per_step:,} samples; not finite: {names or 'loss'}): {DIVERGED}"
            )
        self.running.add(terms, self.batch_size // self.trainer.world_size)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """One optimiser over model and objective; what an update does not move has no gradient and stays."""
        optimizer = self.make_optimizer(self.trained)
        return [optimizer], [self.make_schedule(optimizer)]

    def setup(self, stage: str) -> None:
        """The training images, in memory on this device, sharded over the ranks."""
        self.minibatches = Minibatches(
            self.data.splits["train"],
            batch_size=self.batch_size,
            seed=self.seed,
            binarization=self.data.binarization,
            rank=self.global_rank,
            num_ranks=self.trainer.world_size,
        ).to(self.trainer.strategy.root_device)  # the module itself is moved there after this hook

    def on_train_start(self) -> None:
        """Makes the step, with everything on the device: eager, and later captured or compiled, if either can be."""
        # bare, since Lightning's wrapper pays for hooks that nobody here listens to
        optimizer = cast(Optimizer, self.optimizers(use_pl_optimizer=False))
        num_processes = self.trainer.world_size
        # Lightning's tells DDP to expect one more backward pass of this block
        backward = self.manual_backward if num_processes > 1 else None
        eager = self.eager_step(self.objective, self.model, optimizer, backward=backward, measured=self.measured)
        reason = why_not_captured(self.objective, optimizer, self.device, num_processes)
        captured = self.cuda_graph and not reason
        if self.cuda_graph and self.device.type == "cuda":
            log.info("CUDA graph: %s", f"none, since {reason}" if reason else "the training's steps will be captured")
        lay_out_state(optimizer)
        prepare(optimizer, captured=captured)
        if self.compile_step is not False and not captured:
            if not (reason := self.why_not_compiled(self.device.type, num_processes)):
                count, required = (0, True) if self.compile_step is True else (self.compile_step, False)
                self.compiler = Compiler(count, threads=torch.get_num_threads(), required=required)
                self.compiler.begin(self.samples)
            elif self.device.type == "cpu":  # as where a run goes on that was planned for other processes
                log.warning("the training step is not compiled: %s", reason)
        # the first steps make the optimiser's state and name the terms; a continued training has both, and goes on as
        # it would have
        warm_up = WARM_UP_STEPS * self.samples_per_step + (self.samples if captured else 0)
        fast_from = max(warm_up, self.objective.traits.steady_from)
        self.step = Step(eager, fast_from=fast_from, captured=captured, compiled=self.compiler)

    def why_not_compiled(self, device: str, num_processes: int) -> str:
        """Why its steps cannot be compiled on such a machine; empty if they can."""
        (optimizer,), (schedule,) = self.configure_optimizers()
        return why_not_compiled(self.objective, optimizer, schedule, device, num_processes)

    def eager_step(self, objective: Objective, model: VAE, optimizer: Optimizer, **others: Any) -> EagerStep:
        """A step of this training, on its own objects or on copies."""
        return EagerStep(
            objective,
            model,
            optimizer,
            num_train=len(self.data.splits["train"]),
            parameter_prior=self.parameter_prior,
            gradient_clip_norm=self.gradient_clip_norm,
            **others,
        )

    def release(self) -> None:
        """Lets go of what only the training needs, a graph's memory on the device among it."""
        self.step = None
        self.resident.clear()
        if self.compiler is not None:
            self.compiler.end()

    def train_dataloader(self) -> Iterator[tuple[int, int]]:
        """The blocks from `samples` to the budget, as (first minibatch, count), cut at the marks.

        The images themselves are already on the device.
        """
        position, size = self.samples, self.samples_per_step
        while position < self.max_samples:
            mark = min(self.next_mark(position), self.max_samples)
            count = min(self.steps_per_execution, -(-(mark - position) // size))
            yield position // size, count
            position += count * size

    def images(self, split: str) -> Tensor:
        """The images of a split on this device."""
        if split not in self.resident:
            self.resident[split] = self.data.measured(split).images.to(self.device)
        return self.resident[split]

    def learning_rate(self) -> float:
        """The step size of the next update."""
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def next_mark(self, samples: int) -> int:
        """The next count at which a callback acts, or the end."""
        callbacks: list[Any] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        marks = [callback.next_mark(samples) for callback in callbacks if hasattr(callback, "next_mark")]
        return min([mark for mark in marks if mark is not None], default=self.max_samples)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the counts; Lightning's own loop counters are left out, for they would end an extended run."""
        checkpoint.pop("loops", None)
        checkpoint.get("callbacks", {}).pop("Timer", None)  # Lightning's: its time would be over for ever
        running = self.running.sums(self.trainer.strategy)
        checkpoint["vae_lab"] = {"samples": self.samples, "running": running, "latest": self.latest}
        checkpoint["measured"] = self.measured
        checkpoint["seconds"] = self.seconds_before + time.monotonic() - self.started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counts; the sums so far go to rank 0, whose share they then are."""
        self.samples = checkpoint["vae_lab"]["samples"]
        self.latest = checkpoint["vae_lab"]["latest"]
        self.measured = checkpoint["measured"]
        self.seconds_before = checkpoint["seconds"]
        self.running = RunningMeans(checkpoint["vae_lab"]["running"] if self.global_rank == 0 else {})
