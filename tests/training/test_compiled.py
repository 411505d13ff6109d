"""Compiled steps: when they take the eager one's place, and what becomes of a training that has none."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
import torch
from step_cases import COMPILED, present
from test_lit_module import make_lit
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR

from vae_lab.errors import Failed
from vae_lab.objectives.aevb import AEVB
from vae_lab.objectives.base import Minibatch
from vae_lab.optimizers import Adagrad, step_factors
from vae_lab.training import compiled
from vae_lab.training.compiled import CompiledStep, Compiler, cache_folder, compiled_file, trace, why_not_compiled
from vae_lab.training.step import EagerStep, Step


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A machine on which nothing has been compiled; the process's threads come back afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


ADAM, ADAGRAD = partial(torch.optim.Adam, fused=True), partial(Adagrad, lr=0.1, warmup_steps=2, eps=1e-8)


def make_eager(objective: AEVB | None = None, make_optimizer: Any = ADAM) -> tuple[EagerStep, Minibatch]:
    """A step of a tiny training, its optimiser's state there."""
    torch.manual_seed(0)
    lit = make_lit()
    optimizer = make_optimizer(lit.model.parameters())
    eager = EagerStep(
        objective or lit.objective,
        lit.model,
        optimizer,
        num_train=300,
        parameter_prior=False,
        gradient_clip_norm=None,
    )
    block = lit.minibatches.block(0, 1)
    batch = Minibatch(block.x[0], block.index[0])
    eager(batch, 0)
    return eager, batch


class LooksAtItsNumbers(AEVB):
    """An objective whose updates depend on what they compute."""

    def updates(self, model, batch, state):
        for terms in super().updates(model, batch, state):
            if terms.loss.mean() > 0:
                yield terms


def looking() -> AEVB:
    return LooksAtItsNumbers(kl="closed_form", num_samples=1, kl_warmup_samples=0)


def test_tracing_computes_nothing_and_changes_nothing():
    eager, batch = make_eager()
    before = [tensor.clone() for tensor in (*eager.model.parameters(), torch.get_rng_state())]
    traced = trace(eager, batch, 100)
    assert all(map(torch.equal, before, (*eager.model.parameters(), torch.get_rng_state())))
    assert [tensor.data_ptr() for tensor in traced.arguments[0]] == [w.data_ptr() for w in eager.model.parameters()]


@pytest.mark.slow
def test_name_of_a_compiled_step_follows_the_computation_and_the_threads_not_the_weights():
    (eager, batch), (other, _) = make_eager(), make_eager()
    name = compiled_file(trace(eager, batch, 100), 1)
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    assert compiled_file(trace(other, batch, 100), 1) == name
    assert compiled_file(trace(eager, batch, 100), 2) != name
    eager.optimizer.param_groups[0]["eps"] = 1e-4
    assert compiled_file(trace(eager, batch, 100), 1) != name
    sampled = AEVB(kl="sampled", num_samples=1, kl_warmup_samples=0)
    assert compiled_file(trace(make_eager(sampled)[0], batch, 100), 1) != name


def test_a_step_that_looks_at_its_numbers_trains_on_without(caplog):
    eager, batch = make_eager(looking())
    step = Step(eager, fast_from=0, captured=False, compiled=Compiler(0, threads=1, required=False))
    for i in range(3):
        assert step(batch, i).isfinite().all()
    assert caplog.text.count("cannot be compiled") == 1 and "goes on without" in caplog.text


def test_a_step_that_looks_at_its_numbers_fails_where_it_must_be_compiled():
    eager, batch = make_eager(looking())
    step = Step(eager, fast_from=0, captured=False, compiled=Compiler(0, threads=1, required=True))
    with pytest.raises(Failed, match=r"cannot be compiled: .*compile=false trains without"):
        step(batch, 0)


@pytest.mark.slow
def test_a_compiler_that_fails_is_named_with_its_last_words(caplog, monkeypatch):
    script = "import sys; sys.exit('no such header')"
    popen = compiled.subprocess.Popen
    monkeypatch.setattr(compiled.subprocess, "Popen", lambda _, **to: popen([sys.executable, "-c", script], **to))
    eager, batch = make_eager()
    compiler = Compiler(0, threads=1, required=False)
    assert compiler(eager, batch, 0) is None
    assert "cannot be compiled: Failed: no such header" in caplog.text
    compiler.end()
    assert not Path(compiler.folder).exists()


@pytest.mark.slow
def test_compiling_that_is_not_waited_for_ends_with_the_processes_that_it_has_started(monkeypatch):
    popen, script = subprocess.Popen, "import subprocess; subprocess.run(['sleep', '60'])"
    monkeypatch.setattr(compiled.subprocess, "Popen", lambda _, **to: popen([sys.executable, "-c", script], **to))
    compiler = Compiler(100, threads=1, required=False)
    assert compiler(*make_eager(), 0) is None
    group = compiler.process.pid
    compiler.end()
    for _ in range(1000):  # until the system has taken the last of them
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("a process of the compiler is left")
    assert not Path(compiler.folder).exists()


@pytest.mark.slow
def test_a_training_that_is_to_stop_does_not_wait_for_the_compiler(monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(compiled.subprocess, "Popen", lambda _, **to: popen(["sleep", "60"], **to))
    monkeypatch.setattr(compiled.STOP, "received", True)
    compiler = Compiler(0, threads=1, required=False)
    with pytest.raises(KeyboardInterrupt):
        compiler(*make_eager(), 0)
    compiler.end()
    assert compiler.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("training", ["here", "gone"])
def test_compiling_clears_up_behind_a_training_that_was_killed(tmp_path, monkeypatch, training):
    monkeypatch.setattr(compiled, "compile_program", lambda *_: None)
    folder = tmp_path / "folder"
    folder.mkdir()
    compiled.main(str(folder / "program.pt2"), "file.pt2", "1", str(os.getppid() if training == "here" else -1))
    assert folder.exists() == (training == "here")


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("somebody else's")

    monkeypatch.setattr(compiled.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(compiled.subprocess, "Popen", Mock())
    compiler = Compiler(100, threads=1, required=False)
    assert compiler(*make_eager(), 0) is None
    assert compiler.file.parent == Path(compiler.folder)
    compiler.process = None
    compiler.end()


@pytest.mark.slow
def test_training_has_a_thread_fewer_until_the_count_of_samples(monkeypatch):
    eager, batch = make_eager()
    monkeypatch.setattr(Compiler, "start", lambda self, traced: None)
    monkeypatch.setattr(Compiler, "load", lambda self, *_: Steps())
    compiler = Compiler(100, threads=2, required=False)
    compiler.begin(0)
    step = Step(eager, fast_from=0, captured=False, compiled=compiler)
    for samples, threads, is_fast in ((0, 1, False), (50, 1, False), (100, 2, True)):
        step(batch, samples)
        assert (torch.get_num_threads(), step.fast is not None) == (threads, is_fast)
    compiler.begin(100)
    assert torch.get_num_threads() == 2


class Steps:
    """What a compiled step is to the training."""

    def error(self, traced):
        return 0.0

    def __call__(self, batch):
        return torch.zeros(1)


@pytest.mark.slow
@pytest.mark.parametrize("error", [0.9, float("nan")])
def test_a_compiled_step_with_other_numbers_is_not_used(monkeypatch, caplog, error):
    eager, batch = make_eager()
    monkeypatch.setattr(Compiler, "start", lambda self, traced: None)
    monkeypatch.setattr(Compiler, "load", lambda self, *_: Steps())
    monkeypatch.setattr(Steps, "error", lambda *_: error)
    assert Compiler(0, threads=1, required=False)(eager, batch, 0) is None
    assert f"it gives other numbers than the eager one, by {error} of a step" in caplog.text


class Warms(AEVB):
    """An objective with a warm-up that its traits do not name."""

    def updates(self, model, batch, state):
        for terms in super().updates(model, batch, state):
            yield replace(terms, loss=terms.loss * min(1.0, state.samples / 1000))


def test_a_step_that_changes_as_the_training_goes_on_is_not_compiled(caplog):
    eager, batch = make_eager(Warms(kl="closed_form", num_samples=1, kl_warmup_samples=0))
    assert Compiler(0, threads=1, required=False)(eager, batch, 500) is None
    assert "change as the training goes on, beyond the objective's traits.steady_from" in caplog.text


def test_an_optimiser_that_changes_ends_a_compiled_training(monkeypatch):
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", lambda *_, **__: MagicMock())  # pyright: ignore[reportAttributeAccessIssue]
    eager, batch = make_eager()
    step = CompiledStep(eager.optimizer, trace(eager, batch, 100), Path("file.pt2"))
    eager.optimizer.param_groups[0]["lr"] = 0.5
    step(batch)
    eager.optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    with pytest.raises(Failed, match=r"betas changed after .* compile=false"):
        step(batch)


@pytest.mark.parametrize("make_optimizer", [ADAM, ADAGRAD])
def test_a_compiled_step_goes_on_from_the_steps_behind_it(monkeypatch, make_optimizer):
    loader = MagicMock()
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", lambda *_, **__: loader)  # pyright: ignore[reportAttributeAccessIssue]
    eager, batch = make_eager(make_optimizer=make_optimizer)
    for _ in range(2):
        eager(batch, 0)
    step = CompiledStep(eager.optimizer, trace(eager, batch, 100), Path("file.pt2"))
    for count in (4, 5):
        step(batch)
        factors = loader.boxed_run.call_args[0][0][-1]
        assert factors[:, 0].tolist() == [pytest.approx(step_factors(eager.optimizer, count))] * len(factors)


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_compiled_anew(caplog, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("XDG_CACHE_HOME")
        names, records, _ = present(COMPILED[0], "compiled")  # now this machine has compiled it, as for `test_step.py`
        whole = cache_folder() / "compiled"
    caplog.set_level("INFO", logger="vae_lab")
    caplog.clear()
    start, popen = compiled.Compiler.start, subprocess.Popen

    def leave_damaged(compiler, _):
        monkeypatch.setattr(compiled.Compiler, "start", start)
        compiler.file.parent.mkdir(parents=True, exist_ok=True)
        compiler.file.write_bytes(b"damaged")

    def compile_again(command, **to):
        return popen(["cp", whole / Path(command[4]).name, command[4]], **to)

    monkeypatch.setattr(compiled.Compiler, "start", leave_damaged)
    monkeypatch.setattr(compiled.subprocess, "Popen", compile_again)
    for _ in range(2):
        again = present(COMPILED[0], "compiled")
        assert again[0] == names and torch.equal(again[1], records)
        assert caplog.text.count("compiling the training step") == 1


@pytest.mark.parametrize(("samples", "fast_from"), [(0, 150), (50, 150), (500, 150)])
def test_the_first_steps_are_eager_also_in_a_training_that_was_stopped_within_them(monkeypatch, samples, fast_from):
    lit = make_lit(compile=True)
    lit.make_optimizer = partial(torch.optim.Adam, lr=0.1)
    monkeypatch.setattr(lit, "optimizers", lambda **_: lit.configure_optimizers()[0][0])
    lit.samples, lit.measured = samples, ["bound"] if samples else []
    lit.on_train_start()
    assert lit.step.fast_from == fast_from


@pytest.mark.parametrize("compile_from", [False, 100, True])
def test_an_optimiser_whose_step_is_not_known_is_never_compiled(monkeypatch, caplog, compile_from):
    lit = make_lit(compile=compile_from)  # which has torch's SGD
    monkeypatch.setattr(lit, "optimizers", lambda **_: lit.configure_optimizers()[0][0])
    lit.on_train_start()
    assert lit.compiler is None
    assert ("is not compiled: the step of SGD" in caplog.text) == (compile_from is not False)


def adam_with_groups(weights) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": weights}, {"params": [nn.Parameter(torch.ones(1))], "lr": 0.1}])


CONSTANT = partial(ConstantLR, factor=1.0, total_iters=0)
CYCLE = partial(OneCycleLR, max_lr=0.1, total_steps=10)


@pytest.mark.parametrize(
    ("make", "schedule", "reason"),
    [
        (lambda weights: torch.optim.SGD(weights, lr=0.1), CONSTANT, "SGD is not known"),
        (lambda weights: torch.optim.Adam(weights, amsgrad=True), CONSTANT, "does not know amsgrad"),
        (torch.optim.AdamW, CONSTANT, "AdamW is not known"),
        (adam_with_groups, CONSTANT, "several groups"),
        (torch.optim.Adam, CYCLE, "the schedule changes betas beside the rate"),
        (torch.optim.Adam, partial(CYCLE, cycle_momentum=False), ""),
        (torch.optim.Adam, CONSTANT, ""),
    ],
)
def test_why_not_compiled_names_the_reason(make, schedule, reason):
    objective = AEVB(kl="closed_form", num_samples=1, kl_warmup_samples=0)
    optimizer = make([nn.Parameter(torch.zeros(1))])
    found = why_not_compiled(objective, optimizer, schedule(optimizer), "cpu", 1)
    assert reason in found and bool(reason) == bool(found)
