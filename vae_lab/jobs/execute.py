"""One training run from top to bottom: assembled, trained, measured, recorded; also the process of a planned run.

`python -m vae_lab.jobs.execute RUN` is what a sweep or a reproduction starts: the run directory says all else.
"""

import argparse
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger

from vae_lab.errors import (
    FAILURE,
    INTERRUPTED,
    MISTAKE,
    ConfigError,
    Interrupted,
    NonFiniteDensity,
    RunError,
    is_about_storage,
    no_room,
)
from vae_lab.jobs.assemble import Assembled, assemble
from vae_lab.jobs.settle import settled
from vae_lab.runs.continuation import is_larger, overrides_with
from vae_lab.runs.curve import keep_rows, read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.events import keep_events
from vae_lab.runs.identity import BUDGET
from vae_lab.runs.load import (
    DAMAGE,
    best_bound,
    ledger_facts,
    load_weights,
    read_checkpoint,
    refuse_other_weights,
    samples_of,
    take_back_best,
)
from vae_lab.runs.measured import INDEPENDENT_PIXELS, baseline_entries, bound_entries
from vae_lab.runs.place import placed
from vae_lab.runs.provenance import provenance
from vae_lab.runs.result import baseline_keys, baseline_name, loss_facts, results
from vae_lab.training.lit_module import LitVAE
from vae_lab.training.machine import busy_cores
from vae_lab.training.matmul import described
from vae_lab.training.running_means import RunningMeans
from vae_lab.training.signals import as_ctrl_c
from vae_lab.wiring import build
from vae_lab.wiring.dotted import value_at, with_values
from vae_lab.wiring.terminal import put

log = logging.getLogger("vae_lab")
log_alone = logging.getLogger("vae_lab.log_alone")
"""What goes to the log.txt of a run, and to no terminal."""
log_alone.propagate = False
log_alone.setLevel(logging.INFO)


def go_on(run: RunDir, changed: Callable[[dict[str, Any]], dict[str, Any]], *, threads: int | None = None) -> Path:
    """Trains a planned run on, by its frozen config or one that differs in what may change; returns its directory.

    Args:
        run: the run.
        changed: what makes the config of this training from the frozen one, which another process may have changed
            until the run is locked.
        threads: of the CPU, where nobody typed them and they are not what that config says.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        Interrupted: a signal stopped it; the same call continues.
    """

    def has_nothing_to_add(frozen: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
        same_budget = all(value_at(config, key) == value_at(frozen, key) for key in BUDGET)
        return same_budget and run.read_status() == "finished"

    frozen = run.read_config()
    if has_nothing_to_add(frozen, changed(frozen)):  # which can be said of a run that must not be written to
        log.info("%s is finished: there is nothing left to train", run.path)
        return run.path
    with run.locked():
        frozen = run.read_config()
        config = changed(frozen)
        if has_nothing_to_add(frozen, config):
            return run.path
        record = run.read_record()
        typed = overrides_with(record.get("overrides"), frozen, config)
        if threads:
            config["threads"] = threads
        assembled = assemble(config, run)
        refuse_damaged(run, assembled)
        run.write_config(settled(config, assembled, run), **placed(config, record), **typed)
        return execute(run, assembled)


def refuse_damaged(run: RunDir, assembled: Assembled) -> None:
    """Refuses to go on where checkpoints are lost, or what is there is damaged or another run's; writes nothing.

    Raises:
        RunError: naming the file.
    """
    rows = read_rows(run.curve_file)
    for name in ("best", "last"):
        run.ledger(name)
    if not run.has_checkpoint:
        # one row may be there: it is written just before the first checkpoint
        if run.read_record()["status"] == "finished" or len(rows) > 1:
            raise RunError(
                f"{run.last} is missing, and the run has been trained: put it back, or leave run_dir out for a new run"
            )
        return
    content = read_checkpoint(run.last, assembled.config)
    refuse_other_weights(assembled.lit.state_dict(), content["state_dict"], run.last)
    try:
        (optimizer,), (schedule,) = assembled.lit.configure_optimizers()  # of no further use
        optimizer.load_state_dict(content["optimizer_states"][0])
        schedule.load_state_dict(content["lr_schedulers"][0])
        _ = RunningMeans(content["vae_lab"]["running"]), dict(content["vae_lab"]["latest"])
        _ = content["epoch"], content["global_step"], int(content["pytorch-lightning_version"].split(".")[0])
        _ = content.get("callbacks") is None or content["callbacks"].keys()
        _ = list(content["measured"]), content["seconds"] + 0.0
    except DAMAGE as error:
        raise RunError(
            f"{run.last} is no checkpoint that this training can go on from ({type(error).__name__}: {error}): put the "
            "run's own back, or leave run_dir out for a new run"
        ) from error
    if run.best.is_file():
        content = read_checkpoint(run.best, assembled.config)
        refuse_other_weights(assembled.lit.state_dict(), content["state_dict"], run.best)
        best_bound(run)


def execute(run: RunDir, assembled: Assembled) -> Path:
    """Trains to the end of the budget, from the last checkpoint where there is one, and measures the result.

    The run directory is locked by this process.
    """
    with logging_to(run.log), as_ctrl_c():
        lit, data = assembled.lit, assembled.data
        started, before = time.time(), run.read_record().get("wall_seconds", 0.0)

        def progress() -> dict[str, Any]:
            # a piece that was killed is known to its checkpoint alone
            seconds = max(before, lit.seconds_before) + time.time() - started
            return {"samples_evaluated": lit.samples, "wall_seconds": seconds}

        continuation = f"continue: {run.command('train')}"
        try:
            layers = layers_of(lit.model)
            run.update_record(
                status="running",
                error=None,
                command=sys.argv,
                **provenance(assembled.trainer.strategy.root_device),
                image_shape=list(data.image_shape),
                data_fingerprint=data.fingerprint,
                precision=assembled.precision,
                layers=layers,
                num_parameters=sum(num for *_, num in layers),
                data_notes="; ".join(data.notes),
            )
            describe(run, assembled, layers)
            fit(run, assembled)
            if lit.interrupted:
                raise Interrupted(f"stopped at {lit.samples:,} samples; {continuation}")
            ledger = measure(run, assembled)
        except BaseException as error:
            ending = ending_of(error, run, continuation)
            stopped = isinstance(ending, Interrupted)
            if run.exists():
                with suppress(OSError):  # the disk is full: the status stays, and is not believed without the lock
                    run.update_record(
                        status="interrupted" if stopped else "failed",
                        error=None if stopped else f"{type(ending).__name__}: {ending}",
                        **progress(),
                    )
            if ending is not error:
                raise ending from error
            raise
        run.update_record(
            status="finished",
            stopped_early=lit.stopped_early,
            evaluation_seconds=assembled.evaluation.seconds,
            **progress(),
        )
        log_result(run, assembled, ledger)
    return run.path


def layers_of(model: torch.nn.Module) -> list[tuple[str, str, int]]:
    """Every module with parameters of its own: its name, what it is, and how many they are."""
    found = []
    for name, module in model.named_modules():
        if num := sum(parameter.numel() for parameter in module.parameters(recurse=False)):
            found.append((name, type(module).__name__ if len(list(module.children())) else repr(module), num))
    return found


def describe(run: RunDir, assembled: Assembled, layers: Sequence[tuple[str, str, int]]) -> None:
    """Says what is about to be trained; layers, and what multiplies matrices, stand in the run's log alone."""
    lit, data = assembled.lit, assembled.data
    log.info("run directory: %s", run.path)
    total: Counter[str] = Counter()
    for name, _, num in layers:
        total[name.partition(".")[0]] += num
    networks = ", ".join(f"{network} {num:,}" for network, num in total.items())
    size = lit.model.latent_dim
    log.info("model: %d latent dimensions, %s parameters (%s)", size, f"{total.total():,}", networks)
    for name, what, num in layers:
        log_alone.info("layer %s: %s, %s parameters", name, what, f"{num:,}")
    log_alone.info(described(assembled.config["matmul_backend"]))
    warn_if_busy(torch.get_num_threads())
    for limit in run.limits():
        log.warning(limit)
    log.info("budget: %s; seed %d", budget_in_words(lit), lit.seed)
    log.info("data: %s", data.name)
    for note in data.notes:
        log.info("  %s", note)
    filled = assembled.config["schedule"].get("total_samples")
    if filled is not None and lit.max_samples + lit.samples_per_step <= filled:
        log.warning(
            "the learning rate's schedule fills %s samples and is not over when the run ends; max_samples=%d "
            "in place of trainer.max_epochs fits them together",
            *(f"{filled:,}", lit.max_samples),
        )
    if note := lit.objective.describe():
        log.info(note)


def budget_in_words(lit: LitVAE) -> str:
    """What is trained on: `20,000 samples, 200 minibatches: 100 epochs x 240, of which 200 fill minibatches`."""
    num_train = len(lit.data.splits["train"])
    filled = num_train - num_train % lit.batch_size
    epochs = f"{lit.max_samples / filled:,.1f}".removesuffix(".0")
    rest = f", of which {filled:,} fill minibatches" if filled < num_train else ""
    minibatches = lit.max_samples // lit.samples_per_step
    passes = f": {epochs} epochs x {num_train:,}{rest}" if lit.max_samples >= filled else f" of {num_train:,}"
    return f"{lit.max_samples:,} samples, {minibatches:,} minibatches{passes}"


def warn_if_busy(threads: int) -> None:
    """Says so where others use the cores that a training is to have: its threads wait for each other at every product.

    One that got no core holds up all of them.
    """
    cores = os.cpu_count() or 1
    if threads > 1 and (busy := busy_cores()) > cores - threads + 0.5:
        log.warning(
            "others use %.1f of the %d cores, and this training has %d threads, which wait for each other: it may be "
            "many times slower, and so may they; threads=%d shares the machine",
            *(busy, cores, threads, max(1, int(cores - busy))),
        )


def ending_of(error: BaseException, run: RunDir, continuation: str) -> BaseException:
    """What ended a training, in the words that help: an accident of the directory or the disk has many faces."""
    try:
        run.require_whole()
    except RunError as gone:
        return gone
    if is_about_storage(error):
        return no_room(run.path, error)
    if isinstance(error, FileNotFoundError) and run.path in Path(str(error.filename)).parents:
        return RunError(f"{error.filename} vanished while the run was written: {continuation}")
    # what stumbles while Lightning ends after a Ctrl-C is that Ctrl-C's doing
    first: BaseException | None = error
    while first is not None and not isinstance(first, KeyboardInterrupt):
        first = first.__context__
    return error if first is None else Interrupted(f"interrupted; {continuation}")


def fit(run: RunDir, assembled: Assembled) -> None:
    """Lets the Trainer run, after taking back what a kill left behind the checkpoint."""
    samples = samples_of(run.last) if run.has_checkpoint else 0
    at_the_end = samples >= assembled.lit.max_samples

    def keep(at: int) -> bool:
        evaluated = at_the_end or assembled.evaluation.is_mark(at, assembled.lit.samples_per_step)
        return at < samples or (at == samples and evaluated)

    keep_rows(run.curve_file, keep)
    keep_events(run.tensorboard, keep)
    take_back_best(run, keep)
    if samples:
        log.info("continuing from %s samples", f"{samples:,}")
        present = {row["samples_evaluated"] for row in read_rows(run.curve_file)}
        marks = assembled.evaluation.marks_until(samples, assembled.lit.samples_per_step)
        if missing := [mark for mark in marks if mark not in present]:
            log.warning(
                "%s lacks %d of the %d evaluations that the checkpoint has behind it, the first at %s samples: they "
                "are lost, and the curve goes on without them",
                *(run.curve_file, len(missing), len(marks), f"{missing[0]:,}"),
            )
    assembled.lit.stopped_early = assembled.early.is_over()
    if at_the_end or assembled.lit.stopped_early:
        assembled.lit.samples = samples
        return
    os.environ["VAE_LAB_RUN_DIR"] = str(run.path)
    try:
        assembled.trainer.fit(assembled.lit, ckpt_path=str(run.last) if samples else None, weights_only=True)
    except SystemExit as ending:  # Lightning's answer to Ctrl-C outside of the blocks
        raise KeyboardInterrupt from ending
    else:  # Lightning ends a training of its own accord, as by its Timer or trainer.max_time
        lit = assembled.lit
        lit.interrupted = lit.samples < lit.max_samples and not lit.stopped_early
    finally:
        assembled.lit.release()
        os.environ.pop("VAE_LAB_RUN_DIR", None)  # or the next training of this process would be a further one of this


def assist() -> Path | None:
    """The work of a further process of a training, which the first one gave its run directory; None in the first."""
    if "VAE_LAB_RUN_DIR" not in os.environ or int(os.environ.get("LOCAL_RANK", 0)) == 0:
        return None
    run = RunDir(os.environ["VAE_LAB_RUN_DIR"])
    assembled = assemble(run.read_config(), run)
    assembled.trainer.fit(assembled.lit, ckpt_path=str(run.last) if run.has_checkpoint else None, weights_only=True)
    return run.path


def measure(run: RunDir, assembled: Assembled) -> dict[str, Any]:
    """The ledger of the checkpoint that is read by default: the bound of every split, and what it was measured on."""
    checkpoint = run.default_checkpoint
    device = assembled.trainer.strategy.root_device
    model = assembled.lit.model
    samples = load_weights(model, run.checkpoint_path(checkpoint), assembled.config)
    model.to(device)
    entries: dict[str, Any] = {"checkpoint": checkpoint, "samples_evaluated": samples}
    entries |= ledger_facts(assembled.data, assembled.config)
    known = run.ledger(checkpoint, samples)  # perhaps measured with more draws
    for split in assembled.data.splits:
        images = assembled.data.measured(split).images
        if f"{split}/{INDEPENDENT_PIXELS}" not in known:
            entries |= baseline_entries(model, assembled.data, images, split)
        if f"{split}/bound" in known:
            continue
        if not model.has_encoder:
            entries |= assembled.evaluation.log_likelihood(model, assembled.data, split)
            continue
        entries |= bound_entries(model, images, split, num_samples=1, seed=assembled.lit.seed)
    entries |= known
    run.update_ledger(checkpoint, entries)
    log_hyperparameters(assembled, entries)
    return entries


def log_hyperparameters(assembled: Assembled, ledger: Mapping[str, Any]) -> None:
    """TensorBoard's HParams tab: the choices beside the final values of the ledger, bounds by one draw of z only."""
    config, model = assembled.config, assembled.lit.model
    encoder = config["model"].get("encoder", {})
    choices = {
        "data": assembled.data.name,
        "network": type(model.decoder.trunk).__name__.removesuffix("Decoder"),
        "width": str(encoder.get("channels", encoder.get("hidden", ""))),
        "latent_dim": model.latent_dim,
        "objective": type(assembled.lit.objective).__name__,
        "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
        "learning_rate": config["optimizer"].get("lr"),
        "warm_up": config["schedule"].get("warmup_share", 0.0),
        "max_samples": assembled.lit.max_samples,
        "batch_size": assembled.lit.batch_size,
        "binarization": assembled.data.binarization,
        "seed": config["seed"],
        **loss_facts(config),
    }
    keys = [result.key for result in results(ledger) if result.draws == 1]
    splits = [key.removesuffix("/bound") for key in keys if key.endswith("/bound")]
    terms = [f"{split}/{term}" for split in splits for term in ("reconstruction", "kl") if f"{split}/{term}" in ledger]
    metrics = {f"hp/{name}": ledger[name] for name in (*keys, *terms)}
    for logger in assembled.trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(choices, metrics, step=assembled.lit.samples)
        logger.save()


def log_result(run: RunDir, assembled: Assembled, ledger: Mapping[str, Any]) -> None:
    """The result in nats, a note on unused latent dimensions, and where everything is."""
    has_encoder = assembled.lit.model.has_encoder
    log.info("per datapoint (%s.ckpt): %s", ledger["checkpoint"], ", ".join(map(str, results(ledger))))
    if without := [key for key in baseline_keys(ledger) if key.startswith("test/")]:
        scores = ", ".join(f"{baseline_name(key)} {ledger[key]:.2f}" for key in without)
        log.info("without a network, on test: %s nats", scores)
    unused = sum(kl < 0.01 for kl in ledger["test/kl_per_dimension"]) if has_encoder else 0
    if unused:
        size = assembled.lit.model.latent_dim
        carry = "dimensions carries" if unused == 1 else "dimensions carry"
        log.info("note: %d of %d latent %s less than 0.01 nats: collapsed to the prior", unused, size, carry)
    if any(isinstance(logger, TensorBoardLogger) for logger in assembled.trainer.loggers):
        log.info("monitor:  tensorboard --logdir %s", shlex.quote(str(run.path.parent)))
    log.info("evaluate: %s", run.command("evaluate"))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Everything that is logged goes to the run's log.txt as well, whoever set up the logging.

    What a thread cannot write is said by the training alone, once.
    """
    handler, hook = LogFile(path), threading.excepthook

    def without_what_the_training_says(arguments: threading.ExceptHookArgs) -> None:
        if not is_about_storage(arguments.exc_value) and not isinstance(arguments.exc_value, FileNotFoundError):
            hook(arguments)  # of TensorBoard's thread, whose errors come back to the training

    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for each in (log, log_alone):
        each.addHandler(handler)
    level = log.level
    if not log.isEnabledFor(logging.INFO):
        log.setLevel(logging.INFO)
    threading.excepthook = without_what_the_training_says
    try:
        yield
    finally:
        threading.excepthook = hook
        log.setLevel(level)
        for each in (log, log_alone):
            each.removeHandler(handler)
        with suppress(OSError):
            handler.close()


class LogFile(logging.FileHandler):
    """log.txt; where there is no room for a line, the files that matter say so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Says nothing about a full disk."""
        if not is_about_storage(sys.exc_info()[1]):
            super().handleError(record)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process of a planned run; returns 0, 1 (failed), 2 (a mistake of the user) or 130 (interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m vae_lab.jobs.execute", description="Trains a planned run.")
    parser.add_argument("run", help="the run directory")
    parser.add_argument("--allow", action="append", default=[], help="a package whose classes it may name")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--budget", type=json.loads, default={}, help="a larger one: its keys and values, as JSON")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    build.find_own_classes()
    try:
        if assist():
            return 0
        run = RunDir.existing(given.run)
        config = run.read_config()
        build.refuse_untrusted(config, given.allow)

        def changed(frozen: dict[str, Any]) -> dict[str, Any]:
            larger = {key: value for key, value in given.budget.items() if is_larger(value, value_at(frozen, key))}
            return with_values(frozen, larger)

        put(str(go_on(run, changed, threads=given.threads)))
        return 0
    except (ConfigError, NonFiniteDensity) as error:
        log.error("%s", error)
        return MISTAKE if isinstance(error, ConfigError) else FAILURE
    except (Interrupted, KeyboardInterrupt) as interrupt:
        log.error("%s", str(interrupt) or "interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
