"""All updates of a minibatch as one compiled function: traced, compiled once per machine, loaded by later trainings.

A step is traced into a graph of PyTorch's elementary operations, gradients and optimiser included. The graph names a
file in the user's cache. Where that is not there yet, a process of its own makes it by torch.export and AOTInductor,
`python -m vae_lab.training.compiled`, while the training goes on; loading it takes milliseconds.
"""

import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import _pytree as pytree

from vae_lab.errors import Failed
from vae_lab.objectives.base import Minibatch, Objective
from vae_lab.optimizers import Adagrad, adagrad_step, adam_step, step_factors
from vae_lab.training.machine import cache_folder, instructions, keep, known_of, this_machine
from vae_lab.training.signals import STOP
from vae_lab.training.step import EagerStep, Move

log = logging.getLogger("vae_lab")
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # its remark that there is no GPU

OPTIONS = {
    "fallback_random": True,  # the noise of the eager step
    "aot_inductor.precompile_headers": False,  # which takes longer than it saves in a single program
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
"""Options of AOTInductor."""
FAR = 2**40
"""Training samples later, at which the step must still be the same."""
COLD_SECONDS = 20.0
"""What compiling takes on a machine where it has not been measured."""
MOST_MOVES = 32
"""The most updates of one parameter in a minibatch; a step with more is not compiled."""
MOST_ERROR = 0.05
"""The largest error of a compiled step, as a share of the step."""
LEFT_SECONDS = 86400.0
"""What a compiler that was killed has left there goes after so long."""
KEPT_FILES = 100
"""Compiled steps in the cache, a few MB each; the oldest go."""


class Traced(NamedTuple):
    """A step as a function of tensors."""

    graph: GraphModule
    arguments: tuple[Any, ...]
    """Parameters, buffers and optimiser's state, which it changes in place; x, index and the optimiser's factors."""
    moves: list[int]
    """How often a minibatch moves each of the parameters."""
    settings: dict[str, Any]
    """The settings of the optimiser, which are constants of the function."""

    def tensors(self) -> list[Tensor]:
        """All arguments, in order."""
        return pytree.tree_leaves(self.arguments)


class Presenting(nn.Module):
    """Model and objective as one module, whose call presents a minibatch."""

    def __init__(self, eager: EagerStep) -> None:
        super().__init__()
        self.model, self.objective, self.eager = eager.model, eager.objective, eager

    def forward(self, batch: Minibatch, samples: int, move: Move) -> Tensor:
        """Presents a minibatch; returns the sums that `EagerStep.present` does."""
        return self.eager.present(batch, samples, move)


def trace(eager: EagerStep, batch: Minibatch, samples: int) -> Traced:
    """The step as it is from now on; nothing is computed.

    Raises:
        Exception: of any kind, where an update looks at the numbers that it computes.
    """
    owner, optimizer = Presenting(eager), eager.optimizer
    named = {name: parameter for name, parameter in owner.named_parameters() if parameter.requires_grad}
    others = {name: tensor for name, tensor in owner.named_parameters() if name not in named}
    others |= dict(owner.named_buffers())
    states = [{key: optimizer.state[w][key] for key in sorted(optimizer.state.get(w, ()))} for w in named.values()]
    settings, one_step = constants(optimizer), adagrad_step if isinstance(optimizer, Adagrad) else adam_step
    arguments = (
        [parameter.detach() for parameter in named.values()],
        [tensor.detach() for tensor in others.values()],
        states,
        batch.x,
        batch.index,
        torch.zeros(len(named), MOST_MOVES, 2),
    )
    moves = [0] * len(named)

    def step(weights: Any, rest: Any, states: Any, x: Tensor, index: Tensor, factors: Tensor) -> Tensor:
        leaves = [nn.Parameter(weight) for weight in weights]
        place = {id(leaf): i for i, leaf in enumerate(leaves)}

        @torch.no_grad()
        def move(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
            for w, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    i = place[id(w)]
                    one_step(w, g, states[i], factors[i, moves[i]], settings)
                    moves[i] += 1

        tensors: dict[str, Tensor] = {**dict(zip(named, leaves, strict=True)), **dict(zip(others, rest, strict=True))}
        with torch.enable_grad():
            return functional_call(owner, tensors, (Minibatch(x, index), samples, move))

    return Traced(make_fx(step, tracing_mode="fake")(*arguments), arguments, moves, settings)


def constants(optimizer: Optimizer) -> dict[str, Any]:
    """The settings of an optimiser with one group of parameters, but for the rate, which a schedule moves."""
    return {key: value for key, value in optimizer.param_groups[0].items() if key not in ("params", "lr", "initial_lr")}


def compiled_file(traced: Traced, threads: int) -> Path:
    """Where the compiled step lies, or will: the name says the computation, the machine and the threads."""
    shapes = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in traced.tensors()]
    known = [traced.graph.code, shapes, this_machine(), instructions(), threads, OPTIONS]
    digest = hashlib.sha256(repr(known).encode())
    for node in traced.graph.graph.nodes:  # constants
        if node.op == "get_attr" and isinstance(value := getattr(traced.graph, node.target), Tensor):
            digest.update(value.numpy().tobytes())
    return cache_folder() / "compiled" / f"{digest.hexdigest()[:32]}.pt2"


class CompiledStep:
    """Presents a minibatch by a compiled function, which changes weights and optimiser's state in place."""

    def __init__(self, optimizer: Optimizer, traced: Traced, file: Path) -> None:
        self.optimizer, self.state, self.moves = optimizer, traced.tensors()[:-3], traced.moves
        self.settings = traced.settings
        self.factors = torch.zeros_like(traced.arguments[-1])
        self.counts = [float(state["step"]) if state else 0.0 for state in traced.arguments[2]]
        """Steps that each parameter has behind it."""
        # aoti_load_package would also compile programs that ask what the processor has, which the file's name says
        loader: Any = torch._C._aoti  # pyright: ignore[reportAttributeAccessIssue]
        self.loader: Any = loader.AOTIModelPackageLoader(str(file), "model", True, 1, -1)

    def error(self, traced: Traced) -> float:
        """How far the compiled function is from the traced one, in a step on copies: 0 if they are the same.

        It is the distance of what they changed, as a share of the change. Rounding gives 1e-4 or less, more where it
        turns a comparison with noise; a compiler's mistake about 1.
        """

        def change(step: Callable[[Any], Any]) -> Tensor:
            torch.manual_seed(0)
            given = pytree.tree_map(Tensor.clone, traced.arguments)
            given[-1].fill_(0.01)
            step(given)
            pairs = zip(pytree.tree_leaves(given), self.state, strict=False)
            # without the counts of steps
            changes = [after.double() - before.double() for after, before in pairs if before.dim()]
            return torch.cat([change.flatten() for change in changes])

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            theirs = change(lambda given: traced.graph(*given))
            ours = change(lambda given: self.loader.boxed_run(pytree.tree_leaves(given)))
        return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))

    def __call__(self, batch: Minibatch) -> Tensor:
        """The sums of this minibatch.

        Raises:
            Failed: somebody has changed the optimiser meanwhile.
        """
        if (now := constants(self.optimizer)) != self.settings:
            changed = ", ".join(key for key in now if now[key] != self.settings.get(key))
            raise Failed(f"the optimiser's {changed} changed after the step was compiled; compile=false trains with it")
        most = max(self.moves)
        steps = [[count + 1 + i for i in range(most)] for count in self.counts]
        of_step = {step: step_factors(self.optimizer, step) for step in {step for row in steps for step in row}}
        self.factors[:, :most] = torch.tensor([[of_step[step] for step in row] for row in steps])
        self.counts = [count + moves for count, moves in zip(self.counts, self.moves, strict=True)]
        return self.loader.boxed_run([*self.state, batch.x, batch.index, self.factors])[0]


class Compiler:
    """Makes the compiled step beside the eager training, whose place it takes at a fixed count of samples.

    Until then the training works with one thread fewer, so that both have their core. The count is fixed, and waited
    at if need be, so that a training repeats bit for bit.

    Args:
        compile_from: that count; nothing is compiled before the training's first steps are done.
        threads: of the training.
        required: whether a step that cannot be compiled ends the training; else it goes on without.
    """

    def __init__(self, compile_from: int, *, threads: int, required: bool) -> None:
        self.compile_from, self.threads, self.required = compile_from, threads, required
        self.traced: Traced | None = None
        self.file, self.folder = Path(), ""
        self.process: subprocess.Popen[bytes] | None = None
        self.has_failed = False

    def begin(self, samples: int) -> None:
        """Gives a thread away, as long as the training is before the count."""
        torch.set_num_threads(max(1, self.threads - (samples < self.compile_from)))

    def __call__(self, eager: EagerStep, batch: Minibatch, samples: int) -> CompiledStep | None:
        """The compiled step, once its time has come; it is begun at the first call."""
        if self.has_failed:
            return None
        try:
            if self.traced is None:
                self.traced = trace(eager, batch, samples)
                self.file = compiled_file(self.traced, self.threads)
                if compiled_file(trace(eager, batch, samples + FAR), self.threads) != self.file:
                    raise Failed(
                        "its updates change as the training goes on, beyond the objective's traits.steady_from"
                    )
                if not self.file.is_file():
                    self.start(self.traced)
            if samples < self.compile_from:
                return None
            torch.set_num_threads(self.threads)
            if self.process is not None:
                self.wait()
            compiled = self.load(eager.optimizer, self.traced)
            if not (error := compiled.error(self.traced)) <= MOST_ERROR:  # which may be no number
                raise Failed(f"it gives other numbers than the eager one, by {error:.2g} of a step")
            return compiled
        except Exception as error:  # of code of anybody's and of compilers
            self.has_failed = True
            torch.set_num_threads(self.threads)
            first_line = str(error).strip().partition("\n")[0]
            reason = f"the training step cannot be compiled: {type(error).__name__}: {first_line}"
            if self.required:
                raise Failed(f"{reason}; compile=false trains without") from error
            log.warning("%s; the training goes on without", reason)
            return None

    def start(self, traced: Traced) -> None:
        """Begins to compile in a process of its own."""
        log.info("compiling the training step: that takes about %.0f s, once on this machine", cold_seconds())
        self.folder = self.folder or tempfile.mkdtemp(prefix="vae-lab-compiled-")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.file.parent).close()
        except OSError:  # nobody's home, or somebody else's
            self.file = Path(self.folder) / self.file.name
        program = Path(self.folder) / "program.pt2"
        with torch.no_grad():
            torch.export.save(torch.export.export(traced.graph, traced.arguments, strict=False), program)
        arguments = [str(program), str(self.file), str(self.threads), str(os.getpid())]
        with open(Path(self.folder) / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vae_lab.training.compiled", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{self.folder}/inductor", "TMPDIR": self.folder},
                start_new_session=True,  # a Ctrl-C is for the training, which ends it
            )

    def wait(self) -> None:
        """Waits until the step is compiled.

        Raises:
            Failed: it is not; with the last words of the compiler.
            KeyboardInterrupt: the training is to stop; its last checkpoint is not long ago.
        """
        assert self.process is not None
        if self.process.poll() is None:
            log.info("waiting until the training step is compiled")
        while self.process.poll() is None:
            if STOP.received:
                raise KeyboardInterrupt
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
        if self.process.returncode != 0 or not self.file.is_file():
            words = (Path(self.folder) / "output.txt").read_text(encoding="utf-8", errors="replace").strip()
            raise Failed(words.rpartition("\n")[2] or f"exit code {self.process.returncode}")
        self.process = None

    def load(self, optimizer: Optimizer, traced: Traced) -> CompiledStep:
        """The step in the cache; what is damaged there is made anew."""
        try:
            return CompiledStep(optimizer, traced, self.file)
        except (RuntimeError, OSError):
            self.file.unlink(missing_ok=True)
            self.start(traced)
            self.wait()
            return CompiledStep(optimizer, traced, self.file)

    def end(self) -> None:
        """Lets go of what only the training needs; one that compiles still is ended."""
        torch.set_num_threads(self.threads)
        if self.process is not None:
            self.process.kill()
            if os.name == "posix":  # and the C++ compiler that it has started
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def cold_seconds() -> float:
    """What compiling takes on this machine."""
    return known_of("compiling", {"seconds": float}).get("seconds", COLD_SECONDS)


def why_not_compiled(
    objective: Objective, optimizer: Optimizer, schedule: LRScheduler, device: str, num_processes: int
) -> str:
    """Why the steps of a training cannot be compiled; empty if they can.

    Args:
        objective: of the training.
        optimizer: one like the training's, and of no further use.
        schedule: of that optimiser.
        device: the kind of device.
        num_processes: that share the minibatches.
    """
    if objective.traits.not_compiled_because:
        return objective.traits.not_compiled_because
    if device != "cpu":
        return "the training is not on the CPU; on a GPU cuda_graph=true does more"
    if num_processes > 1:
        return f"{num_processes} processes exchange their gradients"
    if type(optimizer) not in (Adam, Adagrad):
        return f"the step of {type(optimizer).__name__} is not known to it; Adam's and this lab's Adagrad's are"
    group, *others = optimizer.param_groups
    if others:
        return "its optimiser has several groups of parameters"
    plain: dict[str, Any] = {"weight_decay": 0, "amsgrad": False, "maximize": False}
    if changed := [key for key, value in plain.items() if group.get(key, value) != value]:
        return f"of {type(optimizer).__name__} it does not know {', '.join(changed)}"
    before = constants(optimizer)
    with warnings.catch_warnings(action="ignore"):  # PyTorch's, that the optimiser comes first
        schedule.step()
    if changed := [key for key, value in constants(optimizer).items() if before.get(key) != value]:
        return f"the schedule changes {', '.join(changed)} beside the rate"
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "there is no C++ compiler (g++ or clang++) on this machine"
    return ""


def main(program: str, file: str, threads: str, training: str) -> None:
    """Compiles an exported program, and clears up behind a training that is gone meanwhile."""
    try:
        compile_program(Path(program), Path(file), int(threads))
    finally:
        if os.getppid() != int(training):
            shutil.rmtree(Path(program).parent, ignore_errors=True)


def compile_program(program: Path, target: Path, threads: int) -> None:
    """One process at a time; what another one has made meanwhile is taken."""
    started, lock = program.stat().st_mtime, target.with_suffix(".lock")
    with FileLock(lock):
        if not target.is_file():
            torch.set_num_threads(threads)
            # on Linux it is asked what /proc/cpuinfo says
            options = OPTIONS | ({"cpp.vec_isa_ok": True} if sys.platform == "linux" else {})
            own = target.with_suffix(f".{os.getpid()}.pt2")
            exported = torch.export.load(str(program))
            torch._inductor.aoti_compile_and_package(exported, package_path=str(own), inductor_configs=options)
            os.replace(own, target)
            keep("compiling", {"seconds": round(time.time() - started, 1)})
    lock.unlink(missing_ok=True)
    killed = [path for kind in ("*.lock", "*.*.pt2") for path in target.parent.glob(kind) if age(path) > LEFT_SECONDS]
    for old in [*sorted(target.parent.glob("*.pt2"), key=age, reverse=True)[:-KEPT_FILES], *killed]:
        old.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Seconds since a file was last written; 0 where it is gone."""
    return time.time() - path.stat().st_mtime if path.is_file() else 0.0


if __name__ == "__main__":
    main(*sys.argv[1:])
