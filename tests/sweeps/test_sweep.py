"""Sweeps: planned before anything starts, recognised by their configs, finished by repetition whatever was killed."""

import ast
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm_python
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from training import TINY, finish, kill_training, run_to_end, vae_lab, wait_until

from vae_lab.cli import main
from vae_lab.jobs import engine as jobs
from vae_lab.jobs.job import Job
from vae_lab.runs.directory import RunDir
from vae_lab.sweeps import points as sweep_points

SMALL = [text for text in TINY if not text.startswith("model.latent_dim")]
QUICK = [*SMALL, "max_samples=600", "trainer.max_epochs=null", "sweep.speed_seconds=0"]
FOLDER = Path("outputs/sweeps/digits")
STAND_IN = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
starts = folder / "starts.txt"
starts.write_text((starts.read_text() if starts.exists() else "") + sys.argv[2])
ok = sys.argv[3] not in folder.name
record = json.loads((folder / "run.json").read_text())
record |= {"status": "finished"} if ok else {"status": "failed", "error": sys.argv[4]}
(folder / ".new").write_text(json.dumps(record))
os.replace(folder / ".new", folder / "run.json")
(folder / "metrics.json").write_text(json.dumps({"val/bound": -1.0}))
sys.exit(0 if ok else 1)
"""


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a process that only leaves its record in the place of trainings; those with `fails` in their names fail."""

    def put(fails: str = "nothing", error: str = "RuntimeError: no luck") -> None:
        def command(job: Job, threads: int) -> list[str]:
            return [sys.executable, "-S", "-c", STAND_IN, str(job.run.path), str(threads), fails, error]

        monkeypatch.setattr(jobs, "command", command)

    return put


def sweep(*arguments: str) -> int:
    return main(["train", "-m", *QUICK, *arguments])


def starts() -> dict[str, int]:
    """How often each job's process was started, by the folder's name without the hash."""
    folders = sorted(path for path in FOLDER.iterdir() if (path / "run.json").is_file())
    counted = {folder: folder / "starts.txt" for folder in folders}
    return {path.name[:-7]: len(file.read_text()) if file.exists() else 0 for path, file in counted.items()}


@pytest.mark.slow
def test_folders_are_named_by_what_varies_and_a_hash(stand_in) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5", "model=mlp", "seed=0,1") == 0
    assert starts() == {f"latent_dim-{size}_seed-{seed}": 1 for size in (2, 5) for seed in (0, 1)}
    for run in (RunDir(path) for path in FOLDER.iterdir() if path.is_dir()):
        assert run.path.name.endswith(f"-{run.read_record()['config_hash']}")
        assert "sweep" not in run.read_config() and run.read_record()["choices"]["model"] == "mlp"


@pytest.mark.slow
def test_folders_are_named_by_the_settings_of_callbacks_that_are_none_of_the_labs(stand_in) -> None:
    stand_in()
    own = "+callbacks.mine._target_=pytorch_lightning.callbacks.RichModelSummary"
    assert sweep(own, "+callbacks.mine.max_depth=1,2", "seed=0") == 0
    assert starts() == {"max_depth-1": 1, "max_depth-2": 1}


@pytest.mark.slow
def test_same_line_again_skips_what_is_finished(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5") == sweep("model.latent_dim=2,5") == 0
    assert starts() == {"latent_dim-2": 1, "latent_dim-5": 1}
    captured = capfd.readouterr()
    assert "2 jobs (2 finished)" in captured.err and captured.out.count("skipped") == 2
    assert captured.out.splitlines()[-1] == str(FOLDER)


@pytest.mark.slow
def test_further_value_and_further_key_run_new_points_only(stand_in) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5") == 0
    assert sweep("model.latent_dim=2,5,10") == 0
    assert sweep("model.latent_dim=2,5,10", "seed=0,1") == 0
    sizes = (2, 5, 10)
    assert starts() == {f"latent_dim-{n}": 1 for n in sizes} | {f"latent_dim-{n}_seed-1": 1 for n in sizes}


@pytest.mark.slow
def test_failed_job_stops_nobody_and_is_tried_again(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in(fails="dim-5")
    assert sweep("model.latent_dim=2,5,10") == 1
    assert starts() == {"latent_dim-2": 1, "latent_dim-5": 2, "latent_dim-10": 1}  # retried once
    captured = capfd.readouterr()
    assert "1 of 3 jobs failed" in captured.err and "no luck" in captured.err and "output.txt" in captured.err
    assert "failed" in captured.out and "Traceback" not in captured.err
    stand_in()
    assert sweep("model.latent_dim=2,5,10") == 0
    assert starts() == {"latent_dim-2": 1, "latent_dim-5": 3, "latent_dim-10": 1}


@pytest.mark.slow
def test_what_would_fail_again_is_not_tried_again(stand_in) -> None:
    stand_in(fails="dim-5", error="NonFiniteDensity: the loss became nan")
    assert sweep("model.latent_dim=2,5") == sweep("model.latent_dim=2,5") == 1
    assert starts() == {"latent_dim-2": 1, "latent_dim-5": 1}


@pytest.mark.slow
def test_fail_fast_begins_no_further_job(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in(fails="dim-2-")
    assert sweep("model.latent_dim=2,5,10", "sweep.fail_fast=true") == 1
    assert starts() == {"latent_dim-2": 2, "latent_dim-5": 0, "latent_dim-10": 0}
    assert "fail_fast is on" in " ".join(capfd.readouterr().out.split())


@pytest.mark.slow
def test_dry_run_shows_the_plan_and_leaves_no_run(warm_jobs: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("model.latent_dim=2,5", "sweep.dry_run=true", "sweep.speed_seconds=0.01") == 0
    err = capfd.readouterr().err
    assert "2 jobs (2 new)" in err and "estimated time" in err and "MB" in err
    assert [path.name for path in FOLDER.iterdir()] == ["speeds.json"]


@pytest.mark.slow
def test_all_configs_are_frozen_before_the_first_job_starts(stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def command(job: Job, threads: int) -> list[str]:
        seen.append(sorted(path.name[:-7] for path in FOLDER.iterdir() if (path / "config.yaml").is_file()))
        return [sys.executable, "-S", "-c", STAND_IN, str(job.run.path), "1", "nothing", ""]

    monkeypatch.setattr(jobs, "command", command)
    assert sweep("model.latent_dim=2,5,10") == 0
    assert seen == [["latent_dim-10", "latent_dim-2", "latent_dim-5"]] * 3


@pytest.mark.slow
def test_sweep_of_a_yaml_needs_no_flag_and_gives_the_folder_its_name(stand_in) -> None:
    stand_in()
    line = ["train", "sweep=latent_dims", "sweep.speed_seconds=0", "seed=0,1", "model.latent_dim=2,5"]
    assert main(line) == 0
    folders = [path for path in Path("outputs/sweeps/latent_dims").iterdir() if (path / "run.json").is_file()]
    assert len(folders) == 2 * 2 * 2 * 2
    assert any(path.name.startswith("data-frey_face_model-conv_latent_dim-5_seed-1-") for path in folders)


@pytest.mark.slow
def test_second_sweep_on_the_folder_is_refused(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    FOLDER.mkdir(parents=True)
    with RunDir(FOLDER).locked():
        assert sweep("model.latent_dim=2,5") == 2
    assert "is being written by another process" in capfd.readouterr().err


@pytest.mark.slow
def test_further_data_set_runs_new_points_only(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    assert sweep("data=digits", "model.latent_dim=2,5") == 0
    assert sweep("data=digits,frey_face", "model.latent_dim=2,5") == 0
    assert "4 jobs (2 finished, 2 new)" in capfd.readouterr().err
    assert set(starts().values()) == {1}


@pytest.mark.slow
def test_every_setting_of_the_trainer_tells_points_apart(stand_in) -> None:
    stand_in()
    assert sweep("model.latent_dim=2", "+trainer.limit_train_batches=5,10") == 0
    assert starts() == {f"limit_train_batches-{n}": 1 for n in (5, 10)}


@pytest.mark.slow
def test_point_that_is_asked_for_twice_is_made_once(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    assert sweep("seed=0,0,1") == 0
    assert starts() == {"seed-0": 1, "seed-1": 1} and "asked for 2 times" in capfd.readouterr().err


@pytest.mark.slow
def test_equal_first_digits_of_the_hash_are_no_equal_runs(stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in()
    real = sweep_points.identity_hash
    monkeypatch.setattr(sweep_points, "identity_hash", lambda config: "abcdef" + real(config)[6:])
    for _ in range(2):
        assert sweep("seed=0,1") == 0
    assert sorted(starts().values()) == [1, 1]
    (other,) = FOLDER.glob("seed-1-abcdef*")
    shutil.copytree(other, FOLDER / "run-abcdef")
    assert sweep("seed=2") == 0  # its name is taken by a copy of another run
    assert len(list(FOLDER.glob("run-abcdef*"))) == 2


@pytest.mark.slow
def test_run_that_was_extended_by_hand_does_not_stop_its_sweep(stand_in) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5") == 0
    (extended,) = FOLDER.glob("latent_dim-2-*")
    RunDir(extended).write_config(RunDir(extended).read_config() | {"max_samples": 1200})
    assert sweep("model.latent_dim=2,5") == 0
    assert len(list(FOLDER.glob("latent_dim-2-*"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.yaml", "run.json"])
def test_broken_run_directory_fails_alone(stand_in, capfd: pytest.CaptureFixture[str], file: str) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5") == 0
    (broken,) = FOLDER.glob("latent_dim-2-*")
    (broken / file).write_text("{ no")
    assert sweep("model.latent_dim=2,5,10") == 1
    assert {path.name[:-7]: (path / "starts.txt").exists() for path in FOLDER.glob("latent_dim-10-*")} == {
        "latent_dim-10": True
    }
    captured = capfd.readouterr()
    assert "3 jobs (1 finished, 1 new, 1 broken)" in captured.err and "move it away" in captured.err


@pytest.mark.slow
def test_brackets_of_a_reason_are_shown(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in(fails="dim-2", error="RuntimeError: allow=[my_networks] is missing")
    assert sweep("model.latent_dim=2,5") == 1
    assert "allow=[my_networks]" in " ".join(capfd.readouterr().out.split())


@pytest.mark.slow
def test_parts_of_ones_own_are_swept_by_a_process_without_pytorch(work_folder: Path) -> None:
    (work_folder / "my_networks.py").write_text(
        "import vae_lab.networks.mlp\n\n\nclass Encoder(vae_lab.networks.mlp.MLPEncoder):\n    pass\n"
    )
    line = ["train", "-m", *QUICK, "model.encoder._target_=my_networks.Encoder", "seed=0,1", "sweep.jobs=2"]
    code = (
        f"import sys; from vae_lab.cli import main; sys.executable = {warm_python.python()!r}; "
        f"assert main({line}) == 0; print(sorted(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    assert {run.read_status() for run in runs_of(FOLDER)} == {"finished"} and len(runs_of(FOLDER)) == 2
    assert f"vae-lab report sweep={FOLDER} allow=my_networks" in result.stderr
    loaded = ast.literal_eval(result.stdout.splitlines()[-1])
    assert "hydra" in loaded and not {"torch", "pytorch_lightning"} & set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["sweep.jobs=2"], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]], ids=["local", "joblib"]
)
def test_interrupted_sweep_says_so(launcher: list[str]) -> None:
    budget = ["max_samples=6000000", "trainer.max_epochs=null", "checkpoint.every_seconds=0.1", "sweep.speed_seconds=0"]
    jobs = warm_python.python() if launcher == ["sweep.jobs=2"] else None
    process = vae_lab("train", "-m", *SMALL, *budget, *launcher, "seed=0,1,2", jobs=jobs)
    wait_for_checkpoints(2)
    waiting = [str(process.pid)] if launcher == ["sweep.jobs=2"] else [str(process.pid), *children_of(process.pid)]
    assert not [pid for pid in waiting if "libtorch" in Path(f"/proc/{pid}/maps").read_text()]
    process.send_signal(signal.SIGINT)
    out, err = finish(process, returncode=130)
    assert "stopped with 0 of 3 jobs done" in err and "failed" not in out + err and "interrupted" in out


@pytest.mark.parametrize("count", ["0", "1.5", "null"])
def test_jobs_at_once_are_a_count(count: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=0,1", f"sweep.jobs={count}") == 2
    assert "sweep.jobs must be an integer" in capfd.readouterr().err
    assert not FOLDER.exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("n_trials=many", "hydra.sweeper.n_trials must be an integer, got 'many'"),
        ("n_trials=0", "hydra.sweeper.n_trials must be an integer >= 1, got 0"),
        ("direction=up", "hydra.sweeper.direction must be maximize or minimize, got 'up'"),
        ("sampler.seed=x", "hydra.sweeper.sampler.seed must be an integer >= 0 or null, got 'x'"),
        (
            "+hydra.sweeper.sampler.sede=1",
            "hydra.sweeper.sampler.sede is no setting of TPESampler: did you mean 'seed'",
        ),
    ],
)
def test_settings_of_a_search_are_refused_by_name(
    setting: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = setting if setting.startswith("+") else f"hydra.sweeper.{setting}"
    assert sweep("hydra/sweeper=optuna", "model.latent_dim=choice(2,5)", typed) == 2
    assert message in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["output_root=q,r", "name=a,b", "run_dir=a,b"])
def test_key_of_the_whole_sweep_has_one_value(typed: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("model.latent_dim=2,5", typed) == 2
    assert f"{typed} must have one value" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["name=[a,b]", "output_root=[a,b]"])
def test_name_of_a_sweep_is_a_text(typed: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("model.latent_dim=2,5", typed) == 2
    assert f"{typed.partition('=')[0]} must be" in capfd.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_run_dir_is_refused_and_a_missing_value_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("model.latent_dim=2,5", "run_dir=here") == 2
    assert sweep("model.latent_dim=2,5", "data=npz") == 2
    first, second = [line for line in capfd.readouterr().err.splitlines() if ": training with " not in line]
    assert "run_dir must be null in a sweep" in first and "data.path=VALUE" in second


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
        [
            "hydra/launcher=ray",
            "+hydra.launcher.ray.init.num_cpus=2",
            "+hydra.launcher.ray.init.include_dashboard=false",
        ],
    ],
    ids=["joblib", "submitit", "ray"],
)
def test_launchers_run_the_jobs_and_name_the_failed_one(launcher: list[str]) -> None:
    pytest.importorskip({"joblib": "joblib", "submitit_local": "submitit", "ray": "ray"}[launcher[0].partition("=")[2]])
    out, err = finish(vae_lab("train", "-m", *QUICK, *launcher, "model.latent_dim=2,0"), returncode=1)
    assert "1 of 2 jobs failed" in err and "model.latent_dim must be" in err
    good = next(path for path in FOLDER.iterdir() if path.name.startswith("latent_dim-2-"))
    assert RunDir(good).read_status() == "finished" and RunDir(good).read_config()["threads"] == 1
    assert out.splitlines()[-1].strip() != ""


@pytest.mark.slow
def test_killed_sweep_with_a_killed_job_is_finished_by_repetition() -> None:
    """SIGKILL of a job, of the sweep, and of both: what was interrupted goes on, what is finished stays."""
    budget = ["max_samples=30000", "trainer.max_epochs=null", "checkpoint.every_seconds=0.1", "sweep.speed_seconds=0"]
    undisturbed = ["train", "-m", *SMALL, *budget, "model.latent_dim=2,5"]
    line = [*undisturbed, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    first = vae_lab(*line)
    running = wait_for_checkpoints(2)
    kill_training(running[0])  # its job is tried again
    wait_until(lambda: kept_samples(running[0]) > 0)
    workers = [Path(f"/proc/{pid}") for pid in children_of(first.pid)]
    assert len(workers) >= 2
    first.kill()
    first.wait()
    for stream in (first.stdout, first.stderr):  # which joblib's processes hold open for a moment
        stream.close()
    wait_until(lambda: not any(worker.exists() for worker in workers))  # its pool ends with it, after a checkpoint
    assert all(kept_samples(run) > 0 for run in running)
    out, _ = finish(vae_lab(*line))  # which waits for what still runs
    assert "failed" not in out and {run.read_status() for run in running} == {"finished"}
    rows = [run.curve_file.read_text() for run in running]
    shutil.rmtree(FOLDER)
    run_to_end(*undisturbed)
    assert sorted(rows) == sorted(run.curve_file.read_text() for run in runs_of(FOLDER))


def runs_of(folder: Path) -> list[RunDir]:
    return [RunDir(path) for path in sorted(folder.glob("*")) if (path / "run.json").is_file()]


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wait_for_checkpoints(count: int) -> list[RunDir]:
    def saved() -> list[RunDir]:
        return [run for run in runs_of(FOLDER) if (run.checkpoints / "last.ckpt").is_file()] if FOLDER.exists() else []

    wait_until(lambda: len(saved()) == count)
    return saved()


def kept_samples(run: RunDir) -> int:
    import torch

    return torch.load(run.checkpoints / "last.ckpt", weights_only=True)["vae_lab"]["samples"]


@pytest.mark.slow
def test_search_is_continued_through_its_own_storage(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    optuna = pytest.importorskip("optuna")
    stand_in()
    line = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "model.latent_dim=choice(2,5,10)"]
    for trials in (1, 3, 3):
        assert sweep(*line, f"hydra.sweeper.n_trials={trials}", "sweep.jobs=2") == 0
    assert "is finished" in capfd.readouterr().err
    (study,) = studies(FOLDER)
    assert [trial.value for trial in study.trials] == [-1.0] * 3 and study.direction.name == "MAXIMIZE"
    study.ask({"model.latent_dim": optuna.distributions.CategoricalDistribution(["2", "5", "10"])})  # and is killed
    assert sweep(*line, "hydra.sweeper.n_trials=4") == 0
    (study,) = studies(FOLDER)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 + ["FAIL", "COMPLETE"]
    assert study.trials[3].params == study.trials[4].params


@pytest.mark.slow
def test_dry_run_changes_nothing_of_what_comes_later(stand_in) -> None:
    pytest.importorskip("optuna")
    stand_in()
    line = ["sweep=search", "optimizer.lr=tag(log,interval(0.0001,0.01))", "hydra.sweeper.sampler.seed=0"]

    def searched(root: str, *dry_runs: int) -> list[float]:
        folder = Path(root, "sweeps", "digits")
        for num in (1, 2):
            own = [*line, "name=digits", f"output_root={root}", f"hydra.sweeper.n_trials={num}"]
            if num in dry_runs:
                assert sweep(*own, "sweep.dry_run=true") == 0
            assert sweep(*own) == 0
        written = yaml.safe_load((folder / "multirun.yaml").read_text())["hydra"]["overrides"]["task"]
        assert not any("dry_run" in text for text in written)
        return sorted(run.read_config()["optimizer"]["lr"] for run in runs_of(folder))

    assert searched("tried", 1, 2) == searched("untried")
    wrong = ["name=digits", "output_root=tried", "model.latent_dim=choice(0,-1)", "sweep.dry_run=true"]
    assert sweep(*line, *wrong) == 2


@pytest.mark.slow
def test_one_count_written_in_two_ways_is_one_point(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    assert sweep("max_samples=2000", "model.latent_dim=2", "schedule=warmup_cosine") == 0
    assert sweep("max_samples=2e3", "model.latent_dim=2", "schedule=warmup_cosine", "data.batch_size=5e1") == 0
    assert "1 jobs (1 finished)" in capfd.readouterr().err


@pytest.mark.slow
def test_run_of_an_older_format_is_found_by_its_name(stand_in, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in()
    assert sweep("model.latent_dim=2,5") == 0
    for run in runs_of(FOLDER):  # as a version wrote them whose data sets had no key `classes`
        config = run.read_config()
        del config["data"]["classes"]
        run.write_config(config)
        run.update_record(format=4)
        run.path.rename(run.path.with_name(f"{run.path.name[:-6]}{run.read_record()['config_hash']}"))
    assert sweep("model.latent_dim=2,5") == 0
    assert "2 jobs (2 finished)" in capfd.readouterr().err


@pytest.mark.slow
def test_refused_job_is_failed_and_says_why(stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        jobs, "command", lambda job, threads: [sys.executable, "-S", "-c", "print('no such size'); raise SystemExit(2)"]
    )
    assert sweep("model.latent_dim=2,5") == 1
    for run in runs_of(FOLDER):
        assert run.read_status() == "failed" and run.read_record()["error"] == "no such size"
    stand_in()
    assert sweep("model.latent_dim=2,5") == 0


@pytest.mark.slow
def test_continued_search_proposes_no_point_again(stand_in) -> None:
    pytest.importorskip("optuna")
    stand_in()
    line = [
        "sweep=search",
        "name=rates",
        "optimizer.lr=tag(log,interval(0.0001,0.01))",
        "model.latent_dim=range(2,9,3)",
    ]
    assert sweep(*line, "hydra.sweeper.n_trials=1") == sweep(*line, "hydra.sweeper.n_trials=2") == 0
    configs = [run.read_config() for run in runs_of(FOLDER.parent / "rates")]
    assert len({config["optimizer"]["lr"] for config in configs}) == 2
    assert all(config["model"]["latent_dim"] in (2, 5, 8) for config in configs)


@pytest.mark.slow
def test_search_of_something_else_in_the_same_folder_learns_nothing_from_its_trials(stand_in) -> None:
    pytest.importorskip("optuna")
    stand_in()
    line = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=1"]
    for typed in (
        "model.latent_dim=choice(2,5)",
        "model.latent_dim=choice(2,10)",
        "model.latent_dim=int(interval(2,10))",
    ):
        assert sweep(*line, typed) == 0
    assert sweep(*line, "model.latent_dim=choice(2,5)", "optimizer.lr=0.002") == 0
    assert sweep(*line, "model.latent_dim=choice(2,5)", "hydra.sweeper.direction=minimize") == 0
    assert sweep(*line, "model.latent_dim=choice(2,5)", "matmul_backend=default") == 0  # it is the first one
    assert [len(study.trials) for study in studies(FOLDER)] == [1] * 5


def test_space_that_cannot_be_searched_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    assert sweep("hydra/sweeper=optuna", "optimizer.lr=interval(0.1,0.01)") == 2
    assert "optimizer.lr=interval(0.1,0.01) is no space to search: " in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "unlike",
    [
        "likelihood=bernoulli,continuous_bernoulli",
        "data.binarization=none,dynamic",
        "data.split_seed=0,1",
        "experiment=mnist,mnist_fast",
    ],
)
def test_search_over_bounds_that_cannot_be_compared_is_refused(unlike: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sweep=search", unlike, "sweep.dry_run=false"]) == 2
    key = unlike.partition("=")[0]
    assert f"{key} must have one value in a search, got {unlike}: " in capfd.readouterr().err


@pytest.mark.slow
def test_failed_trial_has_no_value_and_stops_no_search(stand_in) -> None:
    pytest.importorskip("optuna")
    stand_in(fails="latent_dim")
    line = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "model.latent_dim=choice(2,5,10)"]
    assert sweep(*line) == 1
    assert [trial.state.name for trial in studies(FOLDER)[0].trials] == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(1,5)", "FloatDistribution(high=5.0, log=False, low=1.0, step=None)"),
        ("tag(log,interval(1e-4,1e-2))", "FloatDistribution(high=0.01, log=True, low=0.0001, step=None)"),
        ("int(interval(1,5))", "IntDistribution(high=5, log=False, low=1, step=1)"),
        ("tag(int,log,interval(1,5))", "IntDistribution(high=5, log=True, low=1, step=1)"),
        ("range(1,10,3)", "IntDistribution(high=7, log=False, low=1, step=3)"),
        ("range(0.5,2,step=0.5)", "FloatDistribution(high=1.5, log=False, low=0.5, step=0.5)"),
        ("choice(2,mlp)", "CategoricalDistribution(choices=('2', 'mlp'))"),
        ("5,10", "CategoricalDistribution(choices=('5', '10'))"),
    ],
)
def test_search_space_is_written_in_hydras_grammar(text: str, expected: str) -> None:
    pytest.importorskip("optuna")
    from vae_lab.sweeps.search import distribution

    assert str(distribution(OverridesParser.create().parse_overrides([f"x={text}"])[0])) == expected


def test_interval_needs_a_search(capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("optimizer.lr=interval(0.001,0.01)") == 2
    assert "hydra/sweeper=optuna" in capfd.readouterr().err


def studies(folder: Path) -> list[Any]:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.log")))
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
