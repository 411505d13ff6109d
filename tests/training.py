"""Tiny trainings on the digits, in this process and in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import warm_python
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lab.commands.evaluate import EvaluateSettings, evaluate
from vae_lab.commands.train import train
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import fixed_hash
from vae_lab.wiring.build import settings
from vae_lab.wiring.folders import package_configs

TINY = (
    "threads=1",
    "matmul_backend=default",  # else each processor's own choice
    "compile=false",  # else by what the user's cache holds
    "callbacks=none",
    "data.train_size=300",
    "data.batch_size=50",
    "model.encoder.hidden=[16]",
    "model.latent_dim=3",
    "evaluation.first=100",
    "trainer.max_epochs=20",
    "steps_per_execution=4",
)
"""Epochs of 300 samples in 6 steps, evaluated at 100, 200, 250, 400, 650, 1000, 1600, ... samples."""

WITH_JOBS = "import sys; from vae_lab.__main__ import main; sys.executable = sys.argv.pop(1); sys.exit(main())"


@contextmanager
def composed(command: str, *overrides: str) -> Iterator[DictConfig]:
    """A command's config, with Hydra's own part in place as when the command line calls."""
    with initialize_config_dir(str(package_configs()), version_base="1.3"):
        cfg = compose(command, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        try:
            yield cfg
        finally:
            HydraConfig.instance().cfg = None


def train_tiny(run_dir: Path, *overrides: str) -> RunDir:
    """A new run; later overrides win."""
    latest = {override.partition("=")[0].lstrip("+"): override for override in (*TINY, *overrides)}
    return train_more(run_dir, *latest.values())


def train_more(run_dir: Path, *overrides: str) -> RunDir:
    """`vae-lab train run_dir=RUN_DIR OVERRIDES`, in this process."""
    with composed("train", f"run_dir={run_dir}", *overrides) as cfg:
        return RunDir(train(cfg))


def evaluate_tiny(run: RunDir, *overrides: str) -> Path:
    """`vae-lab evaluate run=RUN OVERRIDES`, in this process."""
    fast = ("threads=1", "estimator.num_samples=5", "num_samples=2")
    latest = {override.partition("=")[0]: override for override in (*fast, *overrides)}
    with composed("evaluate", f"run={run.path}", *latest.values()) as cfg:
        (ledger,) = evaluate(settings(EvaluateSettings, cfg))
        return ledger


def vae_lab(
    *arguments: str, executable: str = sys.executable, jobs: str | None = None, **environment: str
) -> subprocess.Popen[str]:
    """The real command, started in a process of its own; `jobs` is the interpreter of those that it starts itself."""
    return subprocess.Popen(
        [executable, "-m", "vae_lab", *arguments] if jobs is None else [executable, "-c", WITH_JOBS, jobs, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )


def run_to_end(*arguments: str, returncode: int = 0, **environment: str) -> tuple[str, str]:
    """Stdout and stderr of a command that is left alone until it ends with this code, in a fork of a warm Python."""
    return finish(vae_lab(*arguments, executable=warm_python.python(), **environment), returncode)


def heard() -> None:
    """Signals that a background shell or nohup ignores have their meaning back."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def finish(process: subprocess.Popen[str], returncode: int = 0) -> tuple[str, str]:
    """Its stdout and stderr, once it has ended with this code."""
    with process:
        try:
            out, err = process.communicate(timeout=400)  # Ray needs minutes on a busy machine
        finally:
            process.kill()
    assert process.returncode == returncode, out + err
    return out, err


def checkpoint(run: RunDir, name: str = "last") -> dict:
    """The content of a checkpoint."""
    return torch.load(run.checkpoints / f"{name}.ckpt", weights_only=True)


def weights(run: RunDir, name: str = "last") -> dict[str, torch.Tensor]:
    """Name -> tensor of a checkpoint."""
    return checkpoint(run, name)["state_dict"]


def freeze_anew(run: RunDir, config: dict) -> None:
    """Lets the run be as if it had been trained with this config."""
    run.write_config(config)
    for file in run.checkpoints.glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        content["vae_lab"]["identity"] = fixed_hash(config)
        torch.save(content, file)


def scalars(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of all event files together, without wall times."""
    events = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0}).Reload()
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def assert_same_training(run: RunDir, other: RunDir) -> None:
    """The same bits: weights of both checkpoints, optimiser, curve, events and ledger."""
    for name in ("last", "best"):
        ours, theirs = checkpoint(run, name), checkpoint(other, name)
        assert ours["vae_lab"] == theirs["vae_lab"], name
        assert_equal(ours["state_dict"], theirs["state_dict"])
        assert_equal(ours["optimizer_states"], theirs["optimizer_states"])
    assert run.curve_file.read_text() == other.curve_file.read_text()
    assert run.ledger("best") == other.ledger("best")
    assert scalars(run) == scalars(other)


def assert_equal(ours: object, theirs: object) -> None:
    """Equal bits through dictionaries and lists."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Waits for it, but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def kill_training(run: RunDir) -> None:
    """SIGKILL for the child process that trains there."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            if b"vae_lab.jobs.execute" in words and str(run.path).encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)
                return
    raise AssertionError(f"no process trains in {run.path}")
