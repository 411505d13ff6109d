"""The plan of a reproduction, its step sizes, and small ones from end to end in real processes."""

import csv
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import warm_python
from html_page import Page
from training import composed, finish, run_to_end, train_tiny, vae_lab

from vae_lab.cli import main
from vae_lab.commands.reproduce import reproduce
from vae_lab.errors import ConfigError
from vae_lab.figures.figure2 import Figure2
from vae_lab.figures.needed import NeededRun
from vae_lab.figures.section5 import Section5
from vae_lab.jobs.job import Outcome, plan_job
from vae_lab.jobs.planned import planned_config
from vae_lab.jobs.speed import Speed, Speeds, count_evaluations
from vae_lab.reproduction.page import write_index
from vae_lab.reproduction.plan import (
    ReproduceSettings,
    compose_training,
    merged,
    needed_runs,
    remaining_seconds,
    timed,
)
from vae_lab.reproduction.step_sizes import choose, plan_probes, with_step_size, write_probes
from vae_lab.reproduction.verdicts import reproduction_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import differing_keys
from vae_lab.wiring.build import settings
from vae_lab.wiring.compose import compose_command

TINY_FIGURE = """
# A figure for tests, on the digits.
# vae-lab figure figure=tiny
_target_: vae_lab.figures.figure2.Figure2
panels: {mnist: [2], frey_face: []}
training:
  _target_: vae_lab.figures.section5.Section5
  data_sets:
    mnist: [data=digits, data.batch_size=50, "model.encoder.hidden=[16]", optimizer=adagrad, trainer.max_epochs=null]
    frey_face: []
  panels: {}
  methods:
    aevb: [objective=aevb]
    wake_sleep: [objective=wake_sleep]
  evaluation: [evaluation.first=1000, "evaluation.splits=[test]"]
  learning_rates: [0.01, 0.1]
  max_samples:
    mnist: {quick: BUDGET, standard: 20000, paper: 30000}
    frey_face: {quick: 10000, standard: 20000, paper: 30000}
  snapshots: [1000, 1000000]
"""

SETTINGS = ReproduceSettings(
    scale="quick",
    figures=["figure2"],
    jobs=None,
    only=None,
    train=[],
    probe_samples=1000,
    speed_seconds=0.5,
    dry_run=False,
    root="outputs",
)


def needed_run(label: str = "a", **changes: Any) -> NeededRun:
    values: dict[str, Any] = {
        "overrides": ("data=digits", "model.latent_dim=2", "trainer.max_epochs=null"),
        "learning_rates": (0.01, 0.02),
        "max_samples": 5000,
    }
    return NeededRun(label=label, **(values | changes))


def figure2(**max_samples: int) -> Figure2:
    training = Section5(
        data_sets={"mnist": ["data=digits"]},
        panels={},
        methods={"aevb": ["objective=aevb"], "wake_sleep": ["objective=wake_sleep"]},
        evaluation=[],
        learning_rates=[0.01],
        max_samples={"mnist": max_samples or {"quick": 1000, "standard": 2000, "paper": 3000}},
        snapshots=[],
    )
    return Figure2(training=training, panels={"mnist": [2, 3]})


def test_config_of_another_command_is_composed_with_the_choices() -> None:
    config, choices = compose_command("train", ["data=mnist", "model.latent_dim=7"])
    assert config["model"]["latent_dim"] == 7 and "hydra" not in config
    assert choices["data"] == "mnist" and not any(group.startswith("hydra") for group in choices)


def test_runs_that_figures_share_are_trained_once() -> None:
    figures = figure2(), figure2(quick=4000, standard=5000, paper=6000)
    runs = needed_runs([figure.needed_runs("quick") for figure in figures], None)
    assert [run.label for run in runs] == [
        f"mnist_{latent_dim}_{method}" for latent_dim in (2, 3) for method in ("aevb", "wake_sleep")
    ]
    assert {run.max_samples for run in runs} == {4000}
    assert merged(needed_run(snapshots=(1, 3)), needed_run(snapshots=(2, 3))).snapshots == (1, 2, 3)
    with pytest.raises(ConfigError, match="different trainings by 'a'"):
        merged(needed_run(), needed_run(overrides=("data=mnist",)))


def test_only_chooses_by_pattern_and_refuses_a_name_of_none() -> None:
    assert [c.label for c in needed_runs([figure2().needed_runs("quick")], ["mnist_3_*"])] == [
        "mnist_3_aevb",
        "mnist_3_wake_sleep",
    ]
    with pytest.raises(ConfigError, match="only must name runs"):
        needed_runs([figure2().needed_runs("quick")], ["mnist_30_aevb"])


def test_probe_is_the_run_cut_short() -> None:
    training = compose_training(needed_run(snapshots=(2000,)), replace(SETTINGS, train=["seed=5"]))
    assert (training.config["max_samples"], training.config["checkpoint"]["at"]) == (5000, [2000])
    probe = training.probe["config"]
    assert (probe["max_samples"], probe["evaluation"]["first"], probe["checkpoint"]["at"]) == (1000, 1000, [])
    assert training.config["seed"] == probe["seed"] == 5
    assert training.config["model"] == probe["model"] and "run_dir" not in probe
    assert "max_samples=5000" in training.planned["overrides"]


def test_step_size_has_the_highest_train_bound_and_divergence_is_a_rejection(tmp_path: Path) -> None:
    probes = plan_probes(
        needed_run(learning_rates=(0.01, 0.02, 0.1)), compose_training(needed_run(), SETTINGS).probe, tmp_path
    )
    assert [probe.job.run.read_config()["optimizer"]["lr"] for probe in probes] == [0.01, 0.02, 0.1]
    assert [probe.job.name for probe in probes] == ["a-lr0.01", "a-lr0.02", "a-lr0.1"]
    for probe, bound in zip(probes, (-300.0, -250.0, -999.0), strict=True):
        probe.job.run.update_record(status="finished", samples_evaluated=1000)
        probe.job.run.update_ledger("last", {"train/bound": bound, "test/bound": -1.0, "samples_evaluated": 1000})
    probes[2].job.run.update_record(status="failed", error="NonFiniteDensity: the loss became nan")
    good = [Outcome(probe.job, "finished") for probe in probes[:2]]
    choice, rows = choose(probes, [*good, Outcome(probes[2].job, "failed", reason="nan")])
    assert choice.learning_rate == 0.02
    assert [row["verdict"] for row in rows] == ["", "chosen", "rejected: non-finite"]
    write_probes(tmp_path / "probes.csv", rows)
    with open(tmp_path / "probes.csv") as file:
        assert [row["train_bound"] for row in csv.DictReader(file)] == ["-300.0", "-250.0", ""]
    other = [row | {"label": "b"} for row in rows[:1]]
    write_probes(tmp_path / "probes.csv", other)  # of another figure
    write_probes(tmp_path / "probes.csv", rows)
    assert pd.read_csv(tmp_path / "probes.csv")["label"].tolist() == ["b", "a", "a", "a"]
    for damage in (b"", b"\xff\xfe", b"label\na\n", b"a,b\n1,2,3\n"):
        (tmp_path / "probes.csv").write_bytes(damage)
        write_probes(tmp_path / "probes.csv", other)
        assert pd.read_csv(tmp_path / "probes.csv")["label"].tolist() == ["b"]
    run = probes[1].job.run
    run.update_ledger("last", run.ledger("last") | {"train/bound_num_samples": 8})
    choice, _ = choose(probes[:2], good)
    assert choice.learning_rate is None and f"evaluate run={run.path} 'splits=[train]' num_samples=1" in choice.reason
    run.update_record(status="failed", error="RuntimeError: disk full")
    choice, rows = choose(probes, [good[0], Outcome(probes[1].job, "failed", reason="disk full"), good[0]])
    assert choice.learning_rate is None and "a-lr0.02 failed: disk full" in choice.reason
    for probe in probes:
        probe.job.run.update_record(status="failed", error="NonFiniteDensity: nan")
    choice, _ = choose(probes, [Outcome(probe.job, "failed") for probe in probes])
    assert "every step size" in choice.reason


def test_step_size_is_set_in_a_copy() -> None:
    config = {"optimizer": {"lr": 1, "eps": 2}, "seed": 0}
    planned = with_step_size({"config": config, "choices": {}, "overrides": ["seed=0"]}, 0.5)
    assert planned["config"] == {"optimizer": {"lr": 0.5, "eps": 2}, "seed": 0}
    assert planned["overrides"] == ["seed=0", "optimizer.lr=0.5"] and planned["choices"] == {}
    assert config["optimizer"]["lr"] == 1


def test_evaluations_are_counted_as_the_training_makes_them(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", "max_samples=1000", "trainer.max_epochs=null")
    rows = len(run.curve_file.read_text().splitlines()) - 1
    assert count_evaluations(run.read_config(), 1000) == rows + 1  # and the ledger


@pytest.mark.slow
def test_speed_is_measured_once_and_remaining_time_counts_what_is_done(tmp_path: Path, warm_jobs: None) -> None:
    training = compose_training(needed_run(), SETTINGS)
    speeds = Speeds(tmp_path / "speeds.json", threads=1, measure_for=0.02)
    speeds.known["start"] = 1.0
    speed = speeds.of(training.config)
    assert speed is not None
    assert 0 < speed.per_sample < 0.1 and speed.per_evaluation > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "speeds.json"]
    known = json.loads((tmp_path / "speeds.json").read_text())
    again = Speeds(tmp_path / "speeds.json", threads=1, measure_for=0)
    other_budget = {**training.config, "max_samples": None, "trainer": {**training.config["trainer"], "max_epochs": 9}}
    assert again.of(with_step_size(training.planned, 0.7)["config"]) == again.of(other_budget) == speed
    assert known == {speeds.key(training.config): dataclasses.asdict(speed)}
    with_times = timed(training, speeds)
    assert with_times.seconds > with_times.probe_seconds > 1.0
    runs, probes = tmp_path / "runs", tmp_path / "probes"
    total = with_times.seconds + 2 * with_times.probe_seconds
    assert remaining_seconds(with_times, runs, probes) == pytest.approx(total)
    for probe in plan_probes(training.needed, training.probe, probes):
        probe.job.run.update_record(status="finished")
    assert remaining_seconds(with_times, runs, probes) == pytest.approx(with_times.seconds)
    assert Speed(2.0, 3.0, samples_per_epoch=1200, checkpoint_bytes=0).seconds(10, 2) == 26.0


@pytest.mark.slow
def test_plan_is_printed_and_nothing_is_started(tmp_path: Path, capsys, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vae_lab")
    asked = ["figures=[figure2]", "only=[mnist_20_*]", "speed_seconds=0", "dry_run=true", "jobs=2"]
    with composed("reproduce", f"root={tmp_path}", *asked) as cfg:
        assert reproduce(settings(ReproduceSettings, cfg)) == tmp_path
    out = capsys.readouterr().out
    assert "mnist_20_aevb" in out and "mnist_20_wake_sleep" in out and "mnist_10" not in out
    assert "2 runs for figure2, 2,000,000 samples besides the probes, 2 at once" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("only", ["mnist_2_aevb,mnist_20_aevb", "mnist_2*", "[mnist_2_aevb,mnist_20_aevb]"])
def test_lists_need_no_brackets_on_the_command_line(only: str, tmp_path: Path, capfd) -> None:
    asked = ["figures=figure4,figure5", f"root={tmp_path}", "speed_seconds=0", "dry_run=true"]
    assert main(["reproduce", f"only={only}", *asked]) == 0
    captured = capfd.readouterr()
    assert "2 runs for figure4, figure5" in captured.err
    assert "mnist_2_aevb" in captured.out and "mnist_20_aevb" in captured.out and "mnist_5" not in captured.out


@pytest.mark.slow
def test_plan_counts_the_estimates_that_figures_make_and_not_the_snapshots(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vae_lab")
    asked = ["figures=[figure2,figure3]", "speed_seconds=0", "dry_run=true"]
    for only, said in (("[mnist_20_aevb,figure3_1000_aevb]", True), ("[mnist_20_aevb]", False)):
        caplog.clear()
        with composed("reproduce", f"root={tmp_path}", f"only={only}", *asked) as cfg:
            reproduce(settings(ReproduceSettings, cfg))
        # six snapshots, train and test, two estimators
        assert (", and then 24 estimates from snapshots" in caplog.text) == said
        assert ("estimates" in caplog.text) == said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale=slow", "scale must be one of"),
        ("jobs=0", "jobs must be an integer >= 1 or null"),
        ("figures=[]", "figures must name at least one"),
        ("figures=2", "figures must be a list"),
        ("probe_samples=0.5", "probe_samples must be an integer, got 0.5"),
        ("speed_seconds=-1", "speed_seconds must be a number >= 0, got -1"),
        ("dry_run=1", "dry_run must be true or false, got 1"),
        ("only=20", r"only must be a list such as \[a,b\] or null"),
        ("~probe_samples", "probe_samples must be given.* add probe_samples=VALUE"),
    ],
)
def test_setting_is_refused_by_name(override: str, message: str, tmp_path: Path) -> None:
    with composed("reproduce", f"root={tmp_path}", override) as cfg, pytest.raises(ConfigError, match=message):
        reproduce(settings(ReproduceSettings, cfg))


@pytest.mark.slow
def test_second_reproduction_of_a_folder_says_that_one_is_running(tmp_path: Path) -> None:
    asked = ["figures=[figure2]", "only=[mnist_20_aevb]", "speed_seconds=0"]
    with (
        RunDir(tmp_path).locked(),
        composed("reproduce", f"root={tmp_path}", *asked) as cfg,
        pytest.raises(ConfigError, match="another process"),
    ):
        reproduce(settings(ReproduceSettings, cfg))


def test_index_shows_runs_step_sizes_verdicts_and_failures(tmp_path: Path, finished_run: RunDir, monkeypatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mnist_20_aevb").symlink_to(finished_run.path.resolve())
    write_probes(
        tmp_path / "probes.csv",
        [
            {"label": "mnist_20_aevb", "samples": 1000, "learning_rate": rate, "train_bound": bound, "verdict": verdict}
            for rate, bound, verdict in ((0.01, -260.0, ""), (0.02, -250.123, "chosen"))
        ],
    )
    points = {"samples_evaluated": [5e5, 1e6], "bound_nats": [-140.0, -150.0]}
    table = pd.DataFrame(points).assign(
        dataset="mnist", latent_dim=20, method="aevb", split="test", learning_rate=0.02, label="mnist_20_aevb"
    )
    (tmp_path / "figures").mkdir()
    table.to_csv(tmp_path / "figures" / "figure2.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["vae-lab", "reproduce", "scale=quick", "train=[trainer=gpu]"])
    rows = reproduction_rows(tmp_path)
    path = write_index(tmp_path, SETTINGS, {}, rows, ["mnist_5_aevb failed: killed"], seconds=61)
    parsed, page, ledger = Page(path), path.read_text(), finished_run.ledger("best")
    (run,) = parsed.rows("Runs")
    assert (run["run"], run["status"], run["model.latent_dim"]) == ("mnist_20_aevb", "finished", "3")
    assert run["test bound"] == f"{ledger['test/bound']:.2f}" and run["train/bound"] == f"{ledger['train/bound']:.2f}"
    assert [list(probe.values()) for probe in parsed.rows("Step sizes")] == [
        ["mnist_20_aevb", "0.01", "1,000", "-260.00", ""],
        ["mnist_20_aevb", "0.02", "1,000", "-250.12", "chosen"],
    ]
    (versions,) = parsed.rows("Times and versions")
    assert versions["runs"] == "1" and versions["torch"] == finished_run.read_record()["versions"]["torch"][:12]
    for expected in ("mnist_20_aevb", "-250.12", "chosen", "mnist_5_aevb failed: killed", "1:01 min", "FAIL", "torch"):
        assert expected in page
    assert parsed.code["Again"] == ["vae-lab reproduce scale=quick 'train=[trainer=gpu]'"]


@pytest.fixture
def tiny_configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    (folder / "figure").mkdir(parents=True)
    (folder / "figure" / "tiny.yaml").write_text(TINY_FIGURE.replace("BUDGET", "10000"))
    as_configured = TINY_FIGURE.replace("learning_rates: [0.01, 0.1]", "learning_rates: []")
    (folder / "figure" / "without_probes.yaml").write_text(as_configured.replace("BUDGET", "1000"))
    (folder / "figure" / "longer.yaml").write_text(as_configured.replace("BUDGET", "60000"))
    return folder


WATCHED = """
import sys
from vae_lab.cli import main
from vae_lab.commands import reproduce

train_all = reproduce.train_all

def watched(*arguments):
    failures = train_all(*arguments)
    print("waited with", {"torch", "pytorch_lightning"} & set(sys.modules))
    return failures

reproduce.train_all = watched
sys.executable = sys.argv[1]
sys.exit(main(sys.argv[2:]))
"""


def reproduction_line(configs: Path, root: Path, figure: str, speed_seconds: float = 0.0) -> list[str]:
    asked = [f"figures=[{figure}]", f"root={root}", "probe_samples=1000", f"speed_seconds={speed_seconds}", "jobs=2"]
    return ["reproduce", "--config-dir", str(configs), *asked]


@pytest.mark.slow
def test_reproduction_from_plan_to_page_and_again(tiny_configs: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    line = reproduction_line(tiny_configs, root, "tiny", speed_seconds=0.05)
    _, err = run_to_end(*line, returncode=1)
    assert (
        f"nothing was reached that could be judged: 45 of 45 verdicts are 'not reached'; page: {root}/index.html" in err
    )
    assert "2 runs for figure2" in err and "[2/2]" in err and "left" in err
    chosen = pd.read_csv(root / "probes.csv").query("verdict == 'chosen'").set_index("label")["learning_rate"]
    for label in ("mnist_2_aevb", "mnist_2_wake_sleep"):
        run = RunDir(root / "runs" / label)
        assert run.read_status() == "finished" and run.read_config()["optimizer"]["lr"] == chosen[label]
        for again in (run, RunDir(root / "probes" / f"{label}-lr{chosen[label]:g}")):
            config, _ = compose_command("train", again.read_record()["overrides"])
            assert not differing_keys(planned_config(config), again.read_config()), "its line makes it again"
    for file in ("figures/figure2.csv", "figures/figure2.png", "verification.csv", "index.html"):
        assert (root / file).stat().st_size > 0
    before = (root / "runs" / "mnist_2_aevb" / "run.json").read_text()
    _, err = run_to_end(*reproduction_line(tiny_configs, root, "tiny"), returncode=1)
    assert "was finished" in err and (root / "runs" / "mnist_2_aevb" / "run.json").read_text() == before


@pytest.mark.slow
def test_failing_run_stops_no_other_and_the_page_says_so(tiny_configs: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    first = compose_training(needed_run("mnist_2_aevb"), SETTINGS)
    plan_job(root / "runs" / "mnist_2_aevb", {**first.config, "seed": 7})  # another run in its place
    line = reproduction_line(tiny_configs, root, "without_probes")
    command = [sys.executable, "-c", WATCHED, warm_python.python(), *line]
    process = subprocess.run(command, capture_output=True, text=True)
    err = process.stderr
    assert process.returncode == 1 and "waited with set()" in process.stdout, "PyTorch is loaded once all is trained"
    assert "holds another run" in err and RunDir(root / "runs" / "mnist_2_wake_sleep").read_status() == "finished"
    assert "holds another run" in (root / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_reproduction_goes_on_by_repetition(number: int, tiny_configs: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    process = vae_lab(*reproduction_line(tiny_configs, root, "longer"), jobs=warm_python.python())
    runs = [RunDir(root / "runs" / f"mnist_2_{method}") for method in ("aevb", "wake_sleep")]
    deadline = time.monotonic() + 120
    while not all((run.checkpoints / "last.ckpt").exists() for run in runs):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    if number == signal.SIGKILL:
        process.communicate()
    else:
        _, err = finish(process, returncode=130)
        line = shlex.join(["vae-lab", *reproduction_line(tiny_configs, root, "longer")])
        assert f"the same command goes on: {line}" in err
        assert not any(run.is_locked() for run in runs)
        assert {run.read_status() for run in runs} <= {"interrupted", "finished"}
    run_to_end(*reproduction_line(tiny_configs, root, "longer"), returncode=1)  # too short for any published value
    assert [run.read_status() for run in runs] == ["finished", "finished"]
