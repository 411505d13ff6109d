"""The engine for many runs: what is on disk decides, failures stay where they are, kills lose nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import warm_python
from training import TINY, heard, kill_training, run_to_end, train_tiny, wait_until

from vae_lab.atomic import write_json
from vae_lab.errors import RunError
from vae_lab.jobs import engine as jobs
from vae_lab.jobs.engine import run_jobs
from vae_lab.jobs.job import Job, Outcome, plan_job
from vae_lab.jobs.outcomes import JobReport
from vae_lab.jobs.speed import Speed, read_speeds
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import frozen_config
from vae_lab.runs.provenance import available_cores
from vae_lab.training.signals import STOPPING
from vae_lab.wiring.compose import compose_command
from vae_lab.wiring.terminal import duration

CONFIG = {
    "seed": 0,
    "threads": None,
    "max_samples": 1000,
    "data": {"root": "a", "batch_size": 100},
    "model": {"latent_dim": 2},
    "trainer": {"max_epochs": None, "precision": "32-true", "devices": 1, "num_nodes": 1},
    "matmul_backend": "default",
}
PRELUDE = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def tell(**changes):
    record = folder / "run.json"
    temporary = folder / ".run.json"
    temporary.write_text(json.dumps(json.loads(record.read_text()) | changes))
    os.replace(temporary, record)
runs = folder / "starts.txt"
starts = len(runs.read_text()) + 1 if runs.exists() else 1
runs.write_text("x" * starts)
"""
"""What a stand-in for `vae-lab train` begins with."""


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[[str], Job]:
    return lambda name: plan_job(tmp_path / name, CONFIG)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts short scripts in the place of trainings, by the job's name."""

    def put(**scripts: str) -> None:
        def command(job: Job, threads: int) -> list[str]:
            script = scripts[job.name.split("-")[0]]
            return [sys.executable, "-S", "-c", PRELUDE + script, str(job.run.path)]

        monkeypatch.setattr(jobs, "command", command)

    return put


FINISH = "tell(status='finished')"
FAIL = "print('the last words'); tell(status='failed', error='RuntimeError: no luck'); sys.exit(1)"


def starts(job: Job) -> int:
    file = job.run.path / "starts.txt"
    return len(file.read_text()) if file.exists() else 0


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_job_is_planned_once_and_its_config_is_frozen(tmp_path: Path) -> None:
    job = plan_job(tmp_path / "a", CONFIG, choices={"data": "digits"}, overrides=["seed=0"])
    assert (job.run.read_status(), job.run.read_config()) == ("planned", CONFIG)
    assert job.run.read_record()["choices"] == {"data": "digits"}
    elsewhere = {**CONFIG, "threads": 4, "data": {**CONFIG["data"], "root": "b"}}
    assert plan_job(tmp_path / "a", elsewhere).budget == {}
    assert job.run.read_config() == CONFIG


def test_another_run_in_the_folder_is_refused_by_the_names_of_its_keys(tmp_path: Path) -> None:
    plan_job(tmp_path / "a", CONFIG)
    with pytest.raises(RunError, match=r"differs in model\.latent_dim, seed|differs in seed, model\.latent_dim"):
        plan_job(tmp_path / "a", {**CONFIG, "seed": 1, "model": {"latent_dim": 3}})
    with pytest.raises(RunError, match="max_samples"):
        plan_job(tmp_path / "a", {**CONFIG, "max_samples": 500})


def test_larger_budget_extends_a_finished_run(tmp_path: Path) -> None:
    job = plan_job(tmp_path / "a", CONFIG)
    job.run.update_record(status="finished")
    assert plan_job(tmp_path / "a", CONFIG).is_done
    extended = plan_job(tmp_path / "a", {**CONFIG, "max_samples": 2000})
    assert extended.budget == {"max_samples": 2000} and not extended.is_done
    assert jobs.command(extended, 3)[3:] == ["--threads=3", '--budget={"max_samples": 2000}', "--", str(tmp_path / "a")]


def test_finished_jobs_are_skipped_and_failures_stop_nobody(make_job, stand_in) -> None:
    stand_in(good=FINISH, bad=FAIL)
    names = ["good-1", "bad-1", "good-2", "bad-2", "good-3"]
    planned = [make_job(name) for name in names]
    reported: list[Outcome] = []
    outcomes = run_jobs(planned, num_parallel=2, report=reported.append)
    assert statuses(outcomes) == ["finished", "failed", "finished", "failed", "finished"]
    assert [starts(job) for job in planned] == [1, 2, 1, 2, 1]  # a failed one is tried once more
    assert outcomes[1].reason == "RuntimeError: no luck"
    assert "the last words" in planned[1].run.output.read_text()
    assert sorted(outcome.job.name for outcome in reported) == sorted(names)
    again = run_jobs(planned, num_parallel=2)
    assert statuses(again) == ["skipped", "failed", "skipped", "failed", "skipped"]


def test_a_broken_run_stops_nobody(make_job, stand_in) -> None:
    stand_in(good=FINISH, broken=FINISH)
    planned = [make_job(name) for name in ("good-1", "broken", "good-2")]
    (planned[1].run.path / "run.json").write_text("{")
    outcomes = run_jobs(planned, num_parallel=1)
    assert statuses(outcomes) == ["finished", "failed", "finished"]
    assert "run.json is no JSON" in outcomes[1].reason


def test_what_would_fail_again_is_not_repeated(make_job, stand_in) -> None:
    stand_in(
        diverged="tell(status='failed', error='NonFiniteDensity: the loss became nan'); sys.exit(1)",
        mistaken="print('data.root is not there', file=sys.stderr); sys.exit(2)",
    )
    diverged, mistaken = make_job("diverged"), make_job("mistaken")
    first = run_jobs([diverged, mistaken], num_parallel=2)
    assert statuses(first) == ["failed", "failed"]
    assert [starts(diverged), starts(mistaken)] == [1, 1]
    assert first[1].reason == "data.root is not there"
    assert "would fail again" in run_jobs([diverged], num_parallel=1)[0].reason
    assert starts(diverged) == 1


def test_killed_job_is_begun_again_and_the_signal_is_named(make_job, stand_in) -> None:
    stand_in(
        once="""
(folder / 'checkpoints').mkdir(exist_ok=True); (folder / 'checkpoints' / 'last.ckpt').touch()
os.kill(os.getpid(), signal.SIGKILL) if starts == 1 else tell(status='finished')""",
        always="os.kill(os.getpid(), signal.SIGKILL)",
    )
    once, always = run_jobs([make_job("once"), make_job("always")], num_parallel=2)
    assert once.status == "resumed"
    assert (always.status, always.reason) == ("failed", "killed by SIGKILL")


def test_as_many_run_at_once_as_asked_for_with_the_cores_divided(make_job, stand_in) -> None:
    script = (
        "print(os.environ['OMP_NUM_THREADS'], time.monotonic()); time.sleep(0.15); print(time.monotonic()); " + FINISH
    )
    stand_in(timed=script)
    planned = [make_job(f"timed-{i}") for i in range(5)]
    run_jobs(planned, num_parallel=2)
    spans = []
    for job in planned:
        threads, begin, end = job.run.output.read_text().split()
        assert int(threads) == max(1, available_cores() // 2)
        spans.append((float(begin), float(end)))
    assert max(sum(a < begin < b for a, b in spans) for begin, _ in spans) <= 1


def test_fail_fast_starts_no_further_job(make_job, stand_in) -> None:
    stand_in(bad=FAIL, good=FINISH)
    outcomes = run_jobs([make_job("bad"), *(make_job(f"good-{i}") for i in range(3))], num_parallel=1, fail_fast=True)
    assert statuses(outcomes)[0] == "failed" and "interrupted" in statuses(outcomes)


@pytest.mark.parametrize("number", STOPPING)
def test_signal_is_passed_on_and_the_handlers_are_put_back(number: int, make_job, stand_in) -> None:
    stand_in(
        slow="""
def stop(*_):
    tell(status='interrupted'); print('saved'); sys.exit(130)
signal.signal(signal.SIGINT, stop)
(folder / 'ready').touch()
time.sleep(60)"""
    )
    slow, waiting = make_job("slow-1"), make_job("slow-2")

    def interrupt() -> None:
        while not (slow.run.path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    ours = signal.signal(number, signal.default_int_handler)  # a test run under nohup ignores SIGHUP
    before = signal.getsignal(number)
    threading.Thread(target=interrupt).start()
    outcomes = run_jobs([slow, waiting], num_parallel=1)
    assert statuses(outcomes) == ["interrupted", "interrupted"]
    assert outcomes[0].reason == "saved" and starts(waiting) == 0
    assert signal.getsignal(number) is before
    signal.signal(number, ours)


def test_run_that_another_process_writes_is_waited_for(make_job, stand_in, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    stand_in(other=FINISH)
    job = make_job("other")
    held, release = threading.Event(), threading.Event()

    def other_process() -> None:
        with job.run.locked():
            held.set()
            release.wait()
            job.run.update_record(status="finished")

    threading.Thread(target=other_process).start()
    held.wait()
    threading.Timer(0.2, release.set).start()
    (outcome,) = run_jobs([job], num_parallel=1)
    assert outcome.status == "skipped" and outcome.seconds > 0.1 and starts(job) == 0


def test_line_of_an_ended_job_has_result_and_time_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vae_lab")
    done, new = (Job(plan_job(tmp_path / name, CONFIG).run, seconds=100) for name in ("done", "new"))
    done.run.update_ledger("last", {"test/bound": -101.234, "samples_evaluated": 1})
    report = JobReport([done, new], num_parallel=1)
    report(Outcome(done, "finished", seconds=300.0))
    new.run.output.touch()
    report(Outcome(new, "failed", seconds=5.0, reason="no luck"))
    first, second = caplog.messages
    assert first.startswith("[1/2] done finished in 5:00 min: test bound -101.23 nats; about ")
    assert second.startswith(f"[2/2] new failed in 5 s: no luck ({new.run.output})")
    assert [duration(seconds) for seconds in (9.6, 61, 7290)] == ["10 s", "1:01 min", "2:01 h"]


def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def devices(slots: int, wanted: int | str) -> list[str | None]:
        config = {**CONFIG, "seed": len(str(wanted)), "trainer": {**CONFIG["trainer"], "devices": wanted}}
        job = plan_job(tmp_path / f"{wanted}", config)
        return [jobs.devices(slot, job).get("CUDA_VISIBLE_DEVICES") for slot in range(slots)]

    monkeypatch.setattr(jobs, "count_gpus", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert devices(5, 1) == ["4", "5", "6", "7", "4"]
    assert devices(3, 2) == ["4,5", "6,7", "4,5"]
    assert devices(1, 4) == devices(1, "auto") == [None]  # all of them
    monkeypatch.setattr(jobs, "count_gpus", lambda: 1)
    assert devices(1, 1) == [None]


def plan_tiny(path: Path, *overrides: str) -> Job:
    latest = {override.partition("=")[0]: override for override in (*TINY, *overrides)}
    config, choices = compose_command("train", list(latest.values()))
    return plan_job(path, frozen_config(config), choices=choices, overrides=list(latest.values()))


@pytest.mark.slow
def test_the_threads_of_a_job_are_kept_and_nobody_has_typed_them(tmp_path: Path, warm_jobs: None) -> None:
    job = plan_tiny(tmp_path / "job", "max_samples=300", "trainer.max_epochs=null", "threads=null")
    typed = job.run.read_record()["overrides"]
    assert statuses(run_jobs([job], num_parallel=1, threads=2)) == ["finished"]
    assert job.run.read_config()["threads"] == 2 and job.run.read_record()["overrides"] == typed
    longer = plan_job(job.run.path, {**job.run.read_config(), "max_samples": 600})
    assert statuses(run_jobs([longer], num_parallel=1, threads=1)) == ["resumed"]
    assert job.run.read_config()["threads"] == 1 and job.run.read_config()["max_samples"] == 600
    overrides = job.run.read_record()["overrides"]
    assert "max_samples=600" in overrides and [text for text in overrides if "threads" in text] == ["threads=null"]


@pytest.mark.slow
def test_killed_training_is_resumed_as_if_nothing_had_happened(warm_jobs: None, tmp_path: Path) -> None:
    """Of two trainings in processes of their own one is killed at its first checkpoint; the folder has a wild name."""
    budget = ["max_samples=60000", "checkpoint.every_seconds=0.1", "trainer.max_epochs=null"]
    folder = tmp_path / "it's, a [strange]=name"
    planned = [plan_tiny(folder / "killed", *budget), plan_tiny(folder / "other", *budget, "seed=1")]

    def kill_at_checkpoint() -> None:
        run = planned[0].run
        while not (run.checkpoints / "last.ckpt").exists():
            time.sleep(0.005)
        kill_training(run)

    threading.Thread(target=kill_at_checkpoint, daemon=True).start()
    outcomes = run_jobs(planned, num_parallel=2)
    assert statuses(outcomes) == ["resumed", "finished"], [outcome.reason for outcome in outcomes]
    undisturbed = train_tiny(tmp_path / "undisturbed", *budget)
    assert read_rows(planned[0].run.curve_file) == read_rows(undisturbed.curve_file)


@pytest.mark.slow
def test_engine_killed_with_its_jobs_running_finishes_by_repetition(tmp_path: Path) -> None:
    """The orphan ends after a checkpoint; the second engine waits for that, and goes on."""
    job = plan_tiny(tmp_path / "job", "max_samples=20000", "trainer.max_epochs=null")
    engine = (
        "import sys; from vae_lab.jobs.engine import Job, run_jobs; from vae_lab.runs.load import RunDir; "
        "sys.executable = sys.argv[2]; "
        "print([o.status for o in run_jobs([Job(RunDir(sys.argv[1]))], num_parallel=1)])"
    )
    command = [sys.executable, "-c", engine, str(job.run.path)]
    first = subprocess.Popen([*command, warm_python.python()])
    while not (job.run.checkpoints / "last.ckpt").exists():
        time.sleep(0.01)
    assert job.run.read_status() == "running"
    first.kill()
    first.wait()
    second = subprocess.run([*command, warm_python.python()], capture_output=True, text=True, timeout=120, check=True)
    assert "['resumed']" in second.stdout and RunDir(job.run.path).read_status() == "finished"


@pytest.mark.slow
def test_planned_run_is_started_by_its_own_directory(tmp_path: Path) -> None:
    job = plan_tiny(tmp_path / "job", "max_samples=600", "trainer.max_epochs=null")
    out, _ = run_to_end("train", f"run_dir={job.run.path}")
    assert out.strip() == str(job.run.path)
    assert job.is_done


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.3])
def test_ctrl_c_ends_a_process_that_was_asked_for_something(pause: float, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from vae_lab.jobs.children import called_in_child\n"
        "def asked(file):\n"
        "    Path(file).touch()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    called_in_child(asked, sys.argv[1])\n"
    )
    (tmp_path / "asks.py").write_text(code)
    begun = tmp_path / "begun"
    command = [sys.executable, "asks.py", str(begun)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    wait_until(begun.exists)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    assert "KeyboardInterrupt" in process.communicate(timeout=120)[1]


@pytest.mark.slow
def test_parent_of_a_training_imports_neither_torch_nor_lightning(tmp_path: Path) -> None:
    job = plan_tiny(tmp_path / "run", "max_samples=100")
    code = (
        "import sys\n"
        "import vae_lab.jobs.speed, vae_lab.sweeps.sweep\n"
        "from vae_lab.jobs.engine import run_jobs\n"
        "from vae_lab.jobs.job import plan_job\n"
        "from vae_lab.runs.directory import RunDir\n"
        "run, sys.executable = RunDir(sys.argv[1]), sys.argv[2]\n"
        "(outcome,) = run_jobs([plan_job(run.path, run.read_config())], num_parallel=1)\n"
        "assert outcome.status == 'finished', outcome\n"
        "print({'torch', 'pytorch_lightning', 'numpy', 'pandas'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, str(job.run.path), warm_python.python()]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "set()"


@pytest.mark.parametrize("damaged", ["", "{", '{"start": "soon", "a": {"per_sample": 1.0}, "b": 3, "c": null}'])
def test_damaged_speeds_are_measured_anew(tmp_path, damaged):
    path = tmp_path / "speeds.json"
    path.write_text(damaged)
    assert read_speeds(path) == {}
    whole = {"start": 1.0, "a": asdict(Speed(1e-5, 0.1, 300, 1000))}
    write_json(path, whole | {"b": 3})
    assert read_speeds(path) == whole
