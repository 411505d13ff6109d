"""Several trainings in one process: in turn, undisturbed by each other, and each as it would be alone."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_jobs import plan_tiny, statuses
from training import assert_same_training, composed, finish, kill_training, train_tiny, vae_lab, wait_until

from vae_lab.commands.train import train
from vae_lab.errors import ConfigError
from vae_lab.jobs.engine import address, grouped, run_jobs
from vae_lab.jobs.job import Job
from vae_lab.runs.curve import read_rows
from vae_lab.training.sharing import Turns, others_turn, share_device, why_alone

BUDGET = ("max_samples=6000", "trainer.max_epochs=null")
LONG = ("max_samples=30000", "checkpoint.every_seconds=0.1", "trainer.max_epochs=null")


def test_nobody_works_at_the_same_time() -> None:
    order: list[int] = []
    working: list[int] = []

    def training(i: int) -> Callable[[], int]:
        def work() -> int:
            for _ in range(4):
                working.append(i)
                order.append(i)
                time.sleep(0.005)
                assert working == [i]
                working.clear()
                with others_turn():
                    pass
            return i * i

        return work

    assert share_device([training(i) for i in range(3)]) == [0, 1, 4]
    assert all(order.count(i) == 4 for i in range(3))


def test_turns_go_round_in_the_order_of_asking() -> None:
    turns, order = Turns(), []

    def work(i: int) -> None:
        for _ in range(3):
            turns.take(i)
            order.append(i)
            turns.pass_on()
            turns.take(i)
            turns.pass_on()

    first = object()
    turns.take(first)
    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
    for i, thread in enumerate(threads):
        thread.start()
        wait_until(lambda i=i: len(turns.queue) == i + 2)
    turns.pass_on()
    for thread in threads:
        thread.join(timeout=60)
    assert order[:3] == [0, 1, 2] and all(order.count(i) == 3 for i in range(3))


def test_an_exception_ends_its_own_training_alone() -> None:
    def fail() -> int:
        with others_turn():
            raise ValueError("no luck")

    failed, good = share_device([fail, lambda: 7])
    assert isinstance(failed, ValueError) and good == 7


def test_alone_in_its_process_nobody_is_waited_for() -> None:
    with others_turn():
        pass


def test_jobs_are_grouped_if_they_can_share_a_process(tmp_path: Path) -> None:
    plain = [plan_tiny(tmp_path / f"plain-{i}", f"seed={i}") for i in range(5)]
    several = plan_tiny(tmp_path / "several", "trainer.devices=2")
    onednn = plan_tiny(tmp_path / "onednn", "matmul_backend=default", "seed=9")
    onednn.run.config = onednn.run.config | {"matmul_backend": "onednn"}
    longer = Job(plain[4].run, budget=("max_samples=1000000",))
    planned = [plain[0], several, *plain[1:4], onednn, longer]
    assert grouped(planned, 1) == [[job] for job in planned]
    assert grouped(planned, 3) == [plain[:2], plain[2:4], [several], [onednn], [longer]]  # as equal as can be
    assert grouped(planned, 4) == [plain[:4], [several], [onednn], [longer]]
    assert "trainer.devices=2" in why_alone(several.run.config["trainer"])


@pytest.mark.slow
def test_runs_in_one_process_are_those_in_processes_of_their_own(tmp_path: Path) -> None:
    """One of them diverges, which does not disturb the others."""
    folder = tmp_path / "it's, a [strange]=name"
    planned = [plan_tiny(folder / f"{i}", *BUDGET, f"seed={i}") for i in range(2)]
    planned.append(plan_tiny(folder / "diverges", *BUDGET, "optimizer.lr=1e30"))
    planned.append(plan_tiny(folder / "longer", "max_samples=9000", "trainer.max_epochs=null", "model.latent_dim=2"))
    outcomes = run_jobs(planned, num_parallel=1, runs_per_process=4)
    assert statuses(outcomes) == ["finished", "finished", "failed", "finished"]
    assert outcomes[2].reason.startswith("NonFiniteDensity") and planned[2].report == planned[2].run.log
    assert not planned[1].output.exists()  # it shared the process of the first one
    assert "seed 1" in planned[1].run.log.read_text() and "seed 0" not in planned[1].run.log.read_text()
    for i in range(2):
        assert_same_training(planned[i].run, train_tiny(tmp_path / f"alone-{i}", *BUDGET, f"seed={i}"))
    assert statuses(run_jobs(planned, num_parallel=1, runs_per_process=4))[:2] == ["skipped", "skipped"]


@pytest.mark.slow
def test_shared_process_that_is_killed_is_followed_by_one_for_each_run(tmp_path: Path) -> None:
    planned = [plan_tiny(tmp_path / f"{i}", *LONG, f"seed={i}") for i in range(2)]

    def kill_at_checkpoint() -> None:
        wait_until(lambda: all(job.has_checkpoint for job in planned))
        kill_training(*(job.run for job in planned))

    threading.Thread(target=kill_at_checkpoint, daemon=True).start()
    assert statuses(run_jobs(planned, num_parallel=1, runs_per_process=2)) == ["resumed", "resumed"]
    assert all(job.output.exists() for job in planned)
    assert_same_training(planned[1].run, train_tiny(tmp_path / "alone", *LONG, "seed=1"))


@pytest.mark.slow
def test_interrupted_together_and_continued_together(tmp_path: Path) -> None:
    planned = [plan_tiny(tmp_path / f"{i}", *LONG, f"seed={i}") for i in range(2)]
    line = ["train", "--config-name", "job", *address(planned), "threads=1"]
    process = vae_lab(*line)
    wait_until(lambda: all(job.has_checkpoint for job in planned))
    process.send_signal(signal.SIGINT)
    _, err = finish(process, returncode=130)
    assert "2 of 2 trainings to continue" in err
    assert {job.run.status for job in planned} == {"interrupted"}
    out, _ = finish(vae_lab(*line))
    assert out.split() == [str(job.run.path) for job in planned]
    assert_same_training(planned[0].run, train_tiny(tmp_path / "alone", *LONG, "seed=0"))


def test_what_cannot_be_continued_together_is_refused(tmp_path: Path) -> None:
    job = plan_tiny(tmp_path / "a", *BUDGET)
    several = plan_tiny(tmp_path / "several", *BUDGET, "trainer.devices=2")
    onednn = plan_tiny(tmp_path / "onednn", *BUDGET)
    onednn.run.config = onednn.run.config | {"matmul_backend": "onednn"}
    for folders, reason in {
        f"{job.run.path},{job.run.path}": "every run once",
        f"{job.run.path},{tmp_path / 'none'}": "must be a run that exists",
        f"{job.run.path},{several.run.path}": "must be continued alone: trainer.devices=2",
        f"{job.run.path},{onednn.run.path}": "one matmul_backend",
    }.items():
        with composed("train", f"run_dir=[{folders}]") as cfg, pytest.raises(ConfigError, match=reason):
            train(cfg)
    assert job.run.status == "planned"


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_that_share_a_gpu_are_those_that_have_it_alone(tmp_path: Path) -> None:
    gpu = ("trainer=gpu", "steps_per_execution=20", *BUDGET)
    together = [plan_tiny(tmp_path / f"{i}", *gpu, f"seed={i}") for i in range(3)]
    alone = [plan_tiny(tmp_path / f"alone-{i}", *gpu, f"seed={i}") for i in range(3)]
    assert statuses(run_jobs(together, num_parallel=1, runs_per_process=3)) == ["finished"] * 3
    assert statuses(run_jobs(alone, num_parallel=1)) == ["finished"] * 3
    assert "Traceback" not in together[0].output.read_text()
    assert not together[1].output.exists() and not together[2].output.exists()  # none was tried again
    for one, other in zip(together, alone, strict=True):
        assert "will be captured" in one.run.log.read_text()
        for row, expected in zip(read_rows(one.run.curve), read_rows(other.run.curve), strict=True):
            assert row == pytest.approx(expected, rel=1e-5)


class Generator:
    """What stands for a CUDA generator: a state that others may hold as well."""

    def __init__(self, state: list[int]) -> None:
        self.state = state

    def clone_state(self) -> "Generator":
        return Generator(list(self.state))

    def graphsafe_set_state(self, other: "Generator") -> None:
        self.state = other.state


def test_every_training_on_a_gpu_has_a_stream_and_a_noise_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the order in which PyTorch makes things: without `init` there are no generators."""
    default = Generator([0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", ())
    monkeypatch.setattr(torch.cuda, "init", lambda: monkeypatch.setattr(torch.cuda, "default_generators", (default,)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    entered: list[object] = []

    @contextmanager
    def stream(of: object) -> Iterator[None]:
        entered.append(of)
        yield

    monkeypatch.setattr(torch.cuda, "stream", stream)

    def training(i: int) -> Callable[[], list[int]]:
        def work() -> list[int]:
            seen = []
            for _ in range(3):
                default.state[0] += i  # as seeding does
                with others_turn():
                    pass
                seen.append(default.state[0])
            return seen

        return work

    assert share_device([training(i) for i in (1, 2, 3)]) == [[1, 2, 3], [2, 4, 6], [3, 6, 9]]
    assert len(set(entered)) == 3
