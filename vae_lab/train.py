"""`vae-lab train`: a config becomes a run directory with a trained model, its curve and its ledger."""

import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from vae_lab import build
from vae_lab.callbacks.bound_curve import BoundCurve
from vae_lab.callbacks.checkpoint import AtomicCheckpointIO, take_back_best
from vae_lab.callbacks.early_stopping import EarlyStopping
from vae_lab.callbacks.stop_on_signal import StopOnSignal
from vae_lab.continuation import Request, budget_of, continued_config
from vae_lab.curve import keep_rows
from vae_lab.data.arrays import ImageData
from vae_lab.errors import ConfigError, Interrupted
from vae_lab.events import keep_events
from vae_lab.lit_module import LitVAE
from vae_lab.measurement import measure_bound, summarise
from vae_lab.objectives.base import Objective
from vae_lab.runs import (
    RunDir,
    config_hash,
    ledger_facts,
    load_weights,
    new_run_path,
    plan_run,
    sweep_run_path,
)

log = logging.getLogger("vae_lab")
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its remarks on hardware and on one long epoch
warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated", module="pytorch_lightning")

UNFROZEN = ("run_dir", "allow", "name", "output_root")
"""Keys that say where a run goes, not what it is."""


def train(cfg: DictConfig) -> Path:
    """Trains a new run, or continues the one at `run_dir`; returns the run directory.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        Interrupted: a signal stopped it; the same command with `run_dir` continues.
    """
    if "VAE_LAB_RUN_DIR" in os.environ and int(os.environ.get("LOCAL_RANK", 0)) > 0:
        return assist(RunDir(os.environ["VAE_LAB_RUN_DIR"]))
    requested: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # pyright: ignore[reportAssignmentType]
    config = {key: value for key, value in requested.items() if key not in UNFROZEN}
    request = Request.of_this_command(requested)
    run = RunDir(run_path(request, requested, config))
    if not run.exists():
        parts = assemble(config, run)
        plan_run(run.path, config, choices=request.choices, overrides=request.overrides)
        return execute(run, parts)
    frozen = run.config
    build.refuse_untrusted(frozen, requested["allow"])
    config = continued_config(frozen, config, request, run)
    if run.status == "finished" and budget_of(config) == budget_of(frozen):
        log.info("%s is finished, and nothing is to be added", run.path)
        return run.path
    parts = assemble(config, run)
    return execute(run, parts, config)


def run_path(request: Request, requested: Mapping[str, Any], config: Mapping[str, Any]) -> Path:
    """Where the run goes: `run_dir`, else a new folder, or in a sweep the folder of this very point."""
    root = Path(requested["output_root"])
    name = requested["name"] or request.experiment or request.choices.get("data", "run")
    if request.is_sweep:
        if requested["run_dir"] is not None:
            raise ConfigError("run_dir must be null in a sweep, or all its jobs would share one folder: leave it out")
        return sweep_run_path(root, name, request.varied, config)
    return Path(requested["run_dir"]) if requested["run_dir"] is not None else new_run_path(root, name)


@dataclass(frozen=True)
class Parts:
    """The objects of a training."""

    lit: LitVAE
    trainer: pl.Trainer
    curve: BoundCurve
    early: EarlyStopping
    data: ImageData
    config: Mapping[str, Any]


def assemble(config: Mapping[str, Any], run: RunDir) -> Parts:
    """Constructs every part, so that a mistake is refused before anything is written.

    Raises:
        ConfigError: naming the key, the rule and the value.
    """
    check_settings(config)
    torch.set_num_threads(config["threads"] or os.cpu_count() or 1)
    pl.seed_everything(config["seed"], verbose=False)
    data = build.instantiate(config["data"], "data")
    model = build.instantiate(config["model"], "model", image_shape=data.image_shape)
    objective = build.instantiate(config["objective"], "objective")
    curve = build.instantiate(config["evaluation"], "evaluation", seed=config["seed"], curve=run.curve)
    early = build.instantiate(config["early_stopping"], "early_stopping", curve=run.curve)
    checkpoint = build.instantiate(config["checkpoint"], "checkpoint", folder=run.checkpoints)
    others = [build.instantiate(part, f"callbacks.{name}") for name, part in config["callbacks"].items()]
    max_samples = check_budget(config, data, objective)
    early.check(data.parts, curve.splits)
    lit = LitVAE(
        model,
        objective,
        build.instantiate(config["optimizer"], "optimizer"),
        build.instantiate(config["schedule"], "schedule"),
        data,
        max_samples=max_samples,
        **{key: config[key] for key in ("steps_per_execution", "parameter_prior", "gradient_clip_norm", "seed")},
    )
    trainer = build.instantiate(
        {**config["trainer"], "max_epochs": 1, "strategy": strategy_for(config["trainer"], objective)},
        "trainer",
        callbacks=[curve, *others, early, StopOnSignal(), checkpoint],
        logger=make_logger(config, run),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run.path),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    if data.batch_size % trainer.world_size:
        raise ConfigError(
            f"data.batch_size must be divisible by the {trainer.world_size} processes of the trainer, "
            f"got {data.batch_size}: it is the total over all of them"
        )
    if early.patience is not None and not objective.has_encoder:
        raise ConfigError(
            f"early_stopping.patience must be null for {type(objective).__name__}, got {early.patience}: "
            "without an encoder there is no validation bound"
        )
    if trainer.world_size > 1 and objective.single_process_because:
        raise ConfigError(
            f"trainer.devices must be 1 for {type(objective).__name__}, got {trainer.world_size} processes: "
            f"{objective.single_process_because}"
        )
    return Parts(lit, trainer, curve, early, data, config)


def strategy_for(trainer: Mapping[str, Any], objective: Objective) -> Any:
    """The strategy of the config; DDP is told where an update moves only some of the parameters."""
    several = (trainer["devices"], trainer["num_nodes"]) != (1, 1)
    if several and trainer["strategy"] in ("auto", "ddp") and not objective.moves_everything:
        return "ddp_find_unused_parameters_true"
    return trainer["strategy"]


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks the keys that belong to no part."""
    for key in ("steps_per_execution", "threads", "max_samples", "gradient_clip_norm"):
        value = config[key]
        optional = key != "steps_per_execution"
        number = isinstance(value, int if key in ("steps_per_execution", "threads") else int | float)
        if not (value is None and optional) and (not number or isinstance(value, bool) or value <= 0):
            raise ConfigError(f"{key} must be a number > 0{' or null' if optional else ''}, got {value!r}")
    if not isinstance(config["seed"], int) or not 0 <= config["seed"] < 2**32:
        raise ConfigError(f"seed must be an integer in [0, 2^32), got {config['seed']!r}")
    if not isinstance(config["parameter_prior"], bool):
        raise ConfigError(f"parameter_prior must be true or false, got {config['parameter_prior']!r}")
    precision = config["trainer"]["precision"]
    if precision not in ("32-true", "bf16-mixed"):
        raise ConfigError(
            f"trainer.precision must be 32-true or bf16-mixed, got {precision!r}: densities are float32 sums of "
            "hundreds of nats, which overflow in float16; the images are float32"
        )


def check_budget(config: Mapping[str, Any], data: ImageData, objective: Objective) -> int:
    """The budget in samples: the smaller of `max_samples` and `trainer.max_epochs` passes over the training part."""
    num_train = len(data.parts["train"])
    per_epoch = num_train - num_train % data.batch_size
    if per_epoch == 0:
        raise ConfigError(
            f"data.batch_size must be <= the {num_train} images of the training part, got {data.batch_size}: "
            "a minibatch holds no datapoint twice"
        )
    epochs = config["trainer"]["max_epochs"]
    if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
        raise ConfigError(f"trainer.max_epochs must be an integer >= 1 or null, got {epochs!r}")
    limits = [config["max_samples"], epochs * per_epoch if epochs is not None else None]
    budget = min((int(limit) for limit in limits if limit is not None), default=None)
    if budget is None:
        raise ConfigError("max_samples and trainer.max_epochs are both null: one of them must set the budget")
    step = objective.samples_per_step(data.batch_size, num_train)
    if budget < step:
        raise ConfigError(f"max_samples must be >= {step}, the samples of one step, got {budget}")
    try:
        objective.check(budget)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return budget


def make_logger(config: Mapping[str, Any], run: RunDir) -> Any:
    """The logger of the config, writing to the run directory; False: none."""
    if not config["logger"]:
        return False
    folder = {"save_dir": str(run.path), "name": run.tensorboard.name, "version": ""}
    return build.instantiate(config["logger"], "logger", **folder)


def execute(run: RunDir, parts: Parts, config: Mapping[str, Any] | None = None) -> Path:
    """Trains to the end of the budget, from the last checkpoint where there is one, and measures the result."""
    with run.locked(), logging_to(run.log):
        if config is not None:
            run.config = config
            run.update_record(config_hash=config_hash(config))
        started = time.time()
        before = run.record.get("wall_seconds", 0.0)
        run.update_record(status="running", error=None, command=sys.argv, **provenance(parts))
        log.info("run directory: %s", run.path)
        log.info("budget: %s samples; seed %d; data %s", f"{parts.lit.max_samples:,}", parts.lit.seed, parts.data.name)
        if note := parts.lit.objective.describe():
            log.info(note)
        continuation = f"continue: vae-lab train run_dir={run.path}"
        try:
            fit(run, parts)
            if parts.lit.interrupted:
                raise Interrupted(f"stopped at {parts.lit.samples:,} samples; {continuation}")
            ledger = measure(run, parts)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            run.update_record(
                status="interrupted" if stopped else "failed",
                error=None if stopped else f"{type(error).__name__}: {error}",
                samples_evaluated=parts.lit.samples,
                wall_seconds=before + time.time() - started,
            )
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"interrupted; {continuation}") from error
            raise
        run.update_record(
            status="finished",
            samples_evaluated=parts.lit.samples,
            stopped_early=parts.lit.stopped_early,
            evaluation_seconds=parts.curve.seconds,
            wall_seconds=before + time.time() - started,
        )
        report(run, parts, ledger)
    return run.path


def fit(run: RunDir, parts: Parts) -> None:
    """Lets the Trainer run, after taking back what a kill left behind the checkpoint."""
    last = run.checkpoints / "last.ckpt"
    samples = 0
    if last.is_file():
        samples = torch.load(last, weights_only=True, mmap=True)["vae_lab"]["samples"]

    at_the_end = samples >= parts.lit.max_samples

    def keep(at: int) -> bool:
        evaluated = at_the_end or parts.curve.is_mark(at, parts.lit.samples_per_step)
        return at < samples or (at == samples and evaluated)

    keep_rows(run.curve, keep)
    keep_events(run.tensorboard, keep)
    take_back_best(run.checkpoints, keep)
    if samples:
        log.info("continuing from %s samples", f"{samples:,}")
    parts.lit.stopped_early = parts.early.is_over()
    if at_the_end or parts.lit.stopped_early:
        parts.lit.samples = samples
        return
    os.environ["VAE_LAB_RUN_DIR"] = str(run.path)
    try:
        parts.trainer.fit(parts.lit, ckpt_path=str(last) if samples else None, weights_only=True)
    except SystemExit as ending:  # Lightning's answer to Ctrl-C outside of the blocks
        raise KeyboardInterrupt from ending
    finally:
        del os.environ["VAE_LAB_RUN_DIR"]


def assist(run: RunDir) -> Path:
    """A further process of a training: takes run directory and config from the first one."""
    parts = assemble(run.config, run)
    last = run.checkpoints / "last.ckpt"
    parts.trainer.fit(parts.lit, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    return run.path


def measure(run: RunDir, parts: Parts) -> dict[str, Any]:
    """The ledger of the checkpoint that is read by default: the bound of every split, and what it was measured on."""
    checkpoint = run.default_checkpoint
    device = parts.trainer.strategy.root_device
    model = parts.lit.model
    samples = load_weights(model, run.checkpoint_path(checkpoint))
    model.to(device)
    entries: dict[str, Any] = {"checkpoint": checkpoint, "samples_evaluated": samples}
    entries |= ledger_facts(parts.data, parts.config)
    for split in parts.data.parts:
        if not model.has_encoder:
            entries |= parts.curve.log_likelihood(model, parts.data, split)
            continue
        images = parts.data.measured(split).images.to(device)
        sums = measure_bound(model, images, num_samples=1, seed=parts.lit.seed)
        entries |= {f"{split}/{name}": value for name, value in summarise(sums, num_samples=1).items()}
    known = run.ledger(checkpoint)
    if known.get("samples_evaluated") == samples:  # these very weights, perhaps with more draws
        entries |= known
    run.update_ledger(checkpoint, entries)
    log_hyperparameters(parts, entries)
    return entries


def log_hyperparameters(parts: Parts, ledger: Mapping[str, Any]) -> None:
    """TensorBoard's HParams tab: the choices beside the final bounds of the ledger."""
    config, model = parts.config, parts.lit.model
    choices = {
        "data": parts.data.name,
        "network": type(model.decoder.trunk).__name__.removesuffix("Decoder"),
        "latent_dim": model.latent_dim,
        "objective": type(parts.lit.objective).__name__,
        "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
        "learning_rate": config["optimizer"].get("lr"),
        "batch_size": parts.lit.batch_size,
        "binarization": parts.data.binarization,
        "seed": config["seed"],
    }
    bounds = ("/bound", "/kl", "/reconstruction")
    names = [name for name in ledger if name.endswith(bounds) or f"{name}_se" in ledger]
    metrics = {f"hp/{name}": ledger[name] for name in names}
    for logger in parts.trainer.loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(choices, metrics, step=parts.lit.samples)
        logger.save()


def report(run: RunDir, parts: Parts, ledger: Mapping[str, Any]) -> None:
    """The result in nats, a note on unused latent dimensions, and where everything is."""
    has_encoder = parts.lit.model.has_encoder
    what = "bound" if has_encoder else f"log p(x) by {parts.curve.estimator.label}"
    names = [name for name in ledger if name.endswith("/bound") or (f"{name}_se" in ledger and not has_encoder)]
    values = ", ".join(f"{name.split('/')[0]} {ledger[name]:.2f}" for name in names)
    log.info("%s in nats per datapoint (%s.ckpt): %s", what, ledger["checkpoint"], values)
    unused = sum(kl < 0.01 for kl in ledger["test/kl_per_dimension"]) if has_encoder else 0
    if unused:
        size = parts.lit.model.latent_dim
        log.info("note: %d of %d latent dimensions carry less than 0.01 nats: collapsed to the prior", unused, size)
    log.info("monitor:  tensorboard --logdir %s", run.path.parent)
    log.info("evaluate: vae-lab evaluate run=%s", run.path)


def provenance(parts: Parts) -> dict[str, Any]:
    """Entries of run.json about where a run happens."""
    packages = ("torch", "pytorch-lightning", "hydra-core", "numpy", "vae_lab")
    return {
        "image_shape": list(parts.data.image_shape),
        "device": str(parts.trainer.strategy.root_device),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in packages},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the checkout that vae_lab runs from; None for an installed package."""
    head = Path(__file__).parents[1] / ".git" / "HEAD"
    if not head.is_file():
        return None
    reference = head.read_text().strip()
    file = head.parent / reference.removeprefix("ref: ")
    return file.read_text().strip() if reference.startswith("ref: ") and file.is_file() else reference


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything that is logged goes to the run's log.txt as well, whoever set up the logging."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
