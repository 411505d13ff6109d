"""What a process of its own does for a measurement of memory or of a start: `python -m benchmarks.child FILE TASK ...`.

The file, JSON, gets the most memory that the process ever had, in MB, and the modules that it imported.
"""

import json
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from vae_lab import collect_garbage_rarely
from vae_lab.cli import main

NO_STEP = 3
"""The exit code of a training that ended without a step of its optimiser."""


def first_step(*arguments: str) -> int:
    """`vae-lab train` up to the end of the optimiser's first step; nothing is written."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: os._exit(0))
    return main(["train", *arguments, "compile=false"]) or NO_STEP  # compile=auto times steps before there is a run


def command(*arguments: str) -> int:
    """A command line of `vae-lab`."""
    return main(arguments)


def hand_written(threads: str, epochs: str) -> int:
    """The training of experiment=mnist as one writes it by hand, with the same evaluations, printed."""
    import torch
    from omegaconf import OmegaConf

    from benchmarks.conditions import Conditions
    from benchmarks.hand_written import MNIST, HandWritten
    from vae_lab.data import mnist
    from vae_lab.training.marks import next_log_mark
    from vae_lab.wiring.folders import package_configs

    torch.set_num_threads(int(threads))
    keys: Any = OmegaConf.to_container(OmegaConf.load(package_configs() / "data" / "mnist.yaml"), resolve=True)
    splits = mnist.MNIST(**{key: value for key, value in keys.items() if key not in ("_target_", "defaults")}).splits
    loop = HandWritten("", MNIST, splits["train"].images, Conditions(int(threads), "cpu", Path()))
    loop.begin()
    samples, budget = 0, int(epochs) * len(loop.images)
    while samples < budget:
        mark = min(next_log_mark(samples, first=10_000, per_decade=5), budget)
        loop.do(mark - samples)
        samples = mark
        with torch.no_grad():
            bounds = [-MNIST.loss(loop.encoder, loop.decoder, splits[split].images).item() for split in ("val", "test")]
        print(samples, *bounds)
    return 0


def estimate(num_samples: str, num_datapoints: str, threads: str) -> int:
    """Importance sampling on a model as experiment=mnist has it, images from a random generator."""
    import torch

    from vae_lab.wiring import build
    from vae_lab.wiring.compose import compose_command

    torch.set_num_threads(int(threads))
    overrides = ["run=none", "estimator=importance_sampling", f"estimator.num_samples={num_samples}"]
    estimator = build.instantiate(compose_command("evaluate", overrides)[0]["estimator"], "estimator")
    config = compose_command("train", ["experiment=mnist"])[0]["model"]
    model = build.instantiate(config, "model", image_shape=(1, 28, 28)).eval()
    estimator.estimate(model, torch.rand(int(num_datapoints), 1, 28, 28), seed=0)
    return 0


def imports(other: str) -> int:
    """Nothing but the imports of another task, whose file is given."""
    for name in json.loads(Path(other).read_text(encoding="utf-8"))["modules"]:
        with suppress(ImportError):  # a few exist under a name that cannot be asked for
            import_module(name)
    return 0


def peak() -> float:
    """Asks `getrusage` only where there is no other way: a child begins with the peak of its parent there."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    collect_garbage_rarely()
    tasks = {task.__name__: task for task in (first_step, command, hand_written, estimate, imports)}
    code = tasks[sys.argv[2]](*sys.argv[3:])
    modules = [name for name in sys.modules if not name.startswith("__")]
    Path(sys.argv[1]).write_text(json.dumps({"peak": peak(), "modules": modules}), encoding="utf-8")
    sys.exit(code)
