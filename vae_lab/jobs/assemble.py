"""Makes the objects of a training from a config, everything checked before anything is written."""

import hashlib
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from vae_lab.callbacks.bound_curve import BoundCurve
from vae_lab.callbacks.checkpoint import AtomicCheckpointIO
from vae_lab.callbacks.early_stopping import EarlyStopping
from vae_lab.callbacks.stop_on_signal import StopOnSignal
from vae_lab.data.arrays import ImageData, is_binary
from vae_lab.distributions import ContinuousBernoulli
from vae_lab.errors import ConfigError, install, require_choice, require_integer, require_number, require_threads
from vae_lab.measurement import require_draws
from vae_lab.objectives.base import Objective
from vae_lab.randomness import NOISE_BLOCK
from vae_lab.runs.baselines import kind_of_likelihood
from vae_lab.runs.continuation import budget_in_samples
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import open_data
from vae_lab.runs.place import place_key
from vae_lab.runs.provenance import available_cores
from vae_lab.runs.result import expectations
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.matmul import BACKENDS, use_backend
from vae_lab.training.precision import AUTO, choose_precision
from vae_lab.wiring import build

log = logging.getLogger("vae_lab")
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its remarks on hardware and on one long epoch
if not torch.cuda.is_available():
    # Lightning has torch ask the driver's library whether there is a GPU, and Adam asks anew at every step
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated", module="pytorch_lightning")


SECTIONS = (
    *("data", "model", "likelihood", "objective", "optimizer", "schedule", "trainer"),
    *("evaluation", "checkpoint", "early_stopping", "callbacks", "logger"),
)
"""The sections of a config without which nothing can be trained."""


@dataclass(frozen=True)
class TrainSettings:
    """The keys of a training that belong to no component."""

    max_samples: float | None
    seed: int
    threads: int | None
    steps_per_execution: int
    parameter_prior: bool
    gradient_clip_norm: float | None
    matmul_backend: str
    cuda_graph: bool
    compile: bool | int | Literal["auto"]
    channels_last: bool

    def __post_init__(self) -> None:
        require_number("max_samples", self.max_samples, optional=True)
        require_integer("seed", self.seed, minimum=0, maximum=2**32 - 1)
        require_threads(self.threads)
        require_integer("steps_per_execution", self.steps_per_execution, minimum=1)
        require_number("gradient_clip_norm", self.gradient_clip_norm, optional=True)
        require_choice("matmul_backend", self.matmul_backend, BACKENDS)
        if not isinstance(self.compile, bool | str):
            require_integer("compile", self.compile, minimum=0, advice="the training samples before it")


@dataclass(frozen=True)
class Assembled:
    """The objects of a run, whose settings have been held against each other."""

    lit: LitVAE
    trainer: pl.Trainer
    evaluation: BoundCurve
    early: EarlyStopping
    data: ImageData
    config: Mapping[str, Any]
    precision: str


def assemble(config: Mapping[str, Any], run: RunDir) -> Assembled:
    """Constructs every object of a run, so that a mistake is refused before anything is written.

    Raises:
        ConfigError: naming the key, the rule and the value.
    """
    check_sections(config)
    settings = build.settings(TrainSettings, config)
    torch.set_num_threads(settings.threads or available_cores())
    pl.seed_everything(settings.seed, verbose=False)

    record = run.read_record() if run.exists() else {}
    data = open_data(config, record, run.path, key=place_key(config) or "")
    objective: Objective = build.instantiate(config["objective"], "objective")
    without = {} if objective.traits.has_encoder else {"has_encoder": False}
    model = build.model(config["model"], copies=4, image_shape=data.image_shape, **without)
    evaluation = build.instantiate(config["evaluation"], "evaluation", seed=settings.seed, curve_file=run.curve_file)
    early = build.instantiate(config["early_stopping"], "early_stopping", curve_file=run.curve_file)
    checkpoint = build.instantiate(config["checkpoint"], "checkpoint", run=run)
    others = [
        build.instantiate(callback, f"callbacks.{name}")
        for name, callback in config["callbacks"].items()
        if callback is not None  # callbacks.NAME=null leaves one out
    ]
    max_samples = check_budget(config, data, objective)
    data.refuse_constant()
    model.adapt(data.splits["train"].images)
    early.check(data.splits, evaluation.splits)
    for key, draws, rows in (
        ("objective.num_samples", getattr(objective, "num_samples", 1), data.batch_size),
        ("evaluation.num_samples", config["evaluation"]["num_samples"], NOISE_BLOCK),
    ):
        require_draws(key, draws, rows, model)
    lit = LitVAE(
        model,
        objective,
        build.instantiate(config["optimizer"], "optimizer"),
        build.instantiate(config["schedule"], "schedule"),
        data,
        max_samples=max_samples,
        steps_per_execution=settings.steps_per_execution,
        parameter_prior=settings.parameter_prior,
        gradient_clip_norm=settings.gradient_clip_norm,
        cuda_graph=settings.cuda_graph,
        compile=settings.compile != "auto" and settings.compile,  # which `settled` decides
        channels_last=settings.channels_last,
        seed=settings.seed,
    )
    asked = config["trainer"]["precision"]
    begun_with = record.get("precision") if asked == AUTO else None
    precision = begun_with or choose_precision(asked, device_of(config["trainer"]["accelerator"]))
    trainer = make_trainer(config, objective, [evaluation, *others, early, StopOnSignal(), checkpoint], run, precision)
    check_together(lit, early, trainer)
    use_backend(settings.matmul_backend)
    return Assembled(lit, trainer, evaluation, early, data, config, precision)


def make_trainer(
    config: Mapping[str, Any], objective: Objective, callbacks: Sequence[pl.Callback], run: RunDir, precision: str
) -> pl.Trainer:
    """Lightning's Trainer with the lab's callbacks and logger; the lab's own count ends the one long epoch."""
    decided = {"max_epochs": 1, "strategy": strategy_for(config["trainer"], objective), "precision": precision}
    return build.instantiate(
        {**config["trainer"], **decided},
        "trainer",
        callbacks=list(callbacks),
        logger=make_logger(config, run),
        plugins=[AtomicCheckpointIO(run, config), *cluster()],
        default_root_dir=str(run.path),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


def device_of(accelerator: Any) -> torch.device:
    """The kind of device that Lightning will choose."""
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if on_gpu else "cpu")


def cluster() -> list[SLURMEnvironment | LightningEnvironment]:
    """Slurm's part in a training: it says who the processes are; ending and going on is the lab's own affair."""
    if not SLURMEnvironment.detect():
        return []
    if "SLURM_PROCID" not in os.environ:  # a shell within an allocation
        log.warning("Slurm has %s tasks, and srun started none of them here: one process", os.environ["SLURM_NTASKS"])
        return [LightningEnvironment()]
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise ConfigError(f"Slurm's variables do not fit: {error}; srun starts a process for each task") from error


def check_together(lit: LitVAE, early: EarlyStopping, trainer: pl.Trainer) -> None:
    """Refuses settings that are each right and do not fit together."""
    objective, batch_size = lit.objective, lit.data.batch_size
    try:  # made again for the training: here, so that what they refuse is refused in time
        _, (schedule,) = lit.configure_optimizers()
        with warnings.catch_warnings(action="ignore"):  # PyTorch's, that the optimiser comes first
            schedule.step()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except (TypeError, RuntimeError, LookupError) as error:  # the frameworks' own, which name no key of ours
        raise ConfigError(f"optimizer or schedule has a value of a wrong kind: {error}") from error
    if trainer.accumulate_grad_batches != 1 or trainer.gradient_clip_val:  # Lightning says so once the run is begun
        raise ConfigError(
            "trainer.accumulate_grad_batches and trainer.gradient_clip_val must be left out: "
            "data.batch_size is the size of an update, and gradient_clip_norm=NORM clips its gradient"
        )
    if kind_of_likelihood(lit.model) is ContinuousBernoulli:
        why = "a density of grey pixels grows without limit where all are 0 or 1; likelihood=bernoulli is for these"
        if (binarization := lit.data.binarization) != "none":
            raise ConfigError(
                f"data.binarization must be none for likelihood=continuous_bernoulli, got {binarization}: {why}"
            )
        if is_binary(lit.data.splits["train"].images):
            raise ConfigError(
                "likelihood must not be continuous_bernoulli where all training images are of 0 and 1, as those of "
                f"{lit.data.name}: {why}"
            )
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "trainer.strategy must be one whose processes start by commands, such as ddp, got one that copies this "
            "process, with its locks and signals: write trainer.strategy=ddp"
        )
    if batch_size % trainer.world_size:
        raise ConfigError(
            f"data.batch_size must be divisible by the {trainer.world_size} processes of the trainer, "
            f"got {batch_size}: it is the total over all of them"
        )
    if early.patience is not None and not objective.traits.has_encoder:
        raise ConfigError(
            f"early_stopping.patience must be null for {type(objective).__name__}, got {early.patience}: "
            "without an encoder there is no validation bound"
        )
    if trainer.world_size > 1 and objective.traits.single_process_because:
        raise ConfigError(
            f"trainer.devices must be 1 for {type(objective).__name__}, got {trainer.world_size} processes: "
            f"{objective.traits.single_process_because}"
        )
    if lit.compile_step is True and (
        reason := lit.why_not_compiled(trainer.strategy.root_device.type, trainer.world_size)
    ):
        raise ConfigError(f"compile must be false, got true: {reason}")


def strategy_for(trainer: Mapping[str, Any], objective: Objective) -> Any:
    """The strategy of the config; DDP must know where an update moves only some of the parameters."""
    several = (trainer["devices"], trainer["num_nodes"]) != (1, 1)
    if several and trainer["strategy"] in ("auto", "ddp") and not objective.traits.moves_everything:
        return "ddp_find_unused_parameters_true"
    return trainer["strategy"]


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuses a config without one of the sections, and what the frameworks do not check in theirs."""
    if absent := [key for key in SECTIONS if key not in config]:
        raise ConfigError(
            f"{', '.join(absent)} must not be taken away: a training needs each of {', '.join(SECTIONS)}; "
            "callbacks=none and logger=none leave those two empty"
        )
    expectations(config)
    require_number("optimizer.lr", config["optimizer"].get("lr", 0.0), at_least=0)
    require_integer("trainer.max_epochs", config["trainer"]["max_epochs"], minimum=1, optional=True)


def check_budget(config: Mapping[str, Any], data: ImageData, objective: Objective) -> int:
    """The budget in samples: the smaller of `max_samples` and `trainer.max_epochs` passes over the training split."""
    num_train = len(data.splits["train"])
    per_epoch = num_train - num_train % data.batch_size
    if per_epoch == 0:
        raise ConfigError(
            f"data.batch_size must be <= the {num_train} images of the training split, got {data.batch_size}: "
            "a minibatch holds no datapoint twice"
        )
    budget = budget_in_samples(config, per_epoch)
    if budget is None:
        raise ConfigError("max_samples and trainer.max_epochs are both null: one of them must set the budget")
    step = objective.samples_per_step(data.batch_size, num_train)
    if budget < step:
        raise ConfigError(f"max_samples must be >= {step}, the samples of one step, got {budget}")
    objective.check(budget)
    return budget


def make_logger(config: Mapping[str, Any], run: RunDir) -> Any:
    """The logger of the config, writing to the run directory; False: none."""
    if not config["logger"]:
        return False
    path, kind = str(run.path), config["logger"].get("_target_", "").rpartition(".")[2].removesuffix("Logger").lower()
    if kind in ("wandb", "mlflow") and find_spec(kind) is None:
        raise ConfigError(f"logger={kind} must find the package {kind}, which is not here: {install(kind)}")
    folder = {"save_dir": path, "name": run.tensorboard.name, "version": ""}
    own = {
        "mlflow": {"run_name": path},
        "wandb": {"name": path, "version": hashlib.sha256(path.encode()).hexdigest()[:16]},
    }
    return build.instantiate(config["logger"], "logger", **own.get(kind, folder))
