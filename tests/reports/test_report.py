"""`vae-lab report`: a run's page and a sweep's page, from directories in any state; only the page is written."""

import json
import math
import re
import shlex
import shutil
import statistics
from pathlib import Path

import pytest
import yaml
from drawn_run import make_drawn_run
from html_page import Page
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import evaluate_tiny, freeze_anew, train_tiny

from vae_lab.cli import main
from vae_lab.figures.run_pictures import bound_caption, bound_curve
from vae_lab.reports.overview import read_overview
from vae_lab.reports.pages import sweep_page
from vae_lab.reports.pages.command_lines import new_run
from vae_lab.reports.pages.run_page import result_section
from vae_lab.reports.pages.sweep_page import again_sections, read_sweep
from vae_lab.runs.curve import read_rows
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring.arguments import override

LARGEST = 5_000_000
PICTURES = 5
"""Of a run with three latent dimensions: all but the manifold and the curve."""


@pytest.fixture
def sweep(finished_sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_sweep, tmp_path / "sizes"))


@pytest.fixture
def run(finished_run: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(finished_run.path, tmp_path / "run"))


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> Page:
    """The page that the command prints the path of."""
    assert main(["report", *arguments]) == 0
    return Page(Path(capsys.readouterr().out.splitlines()[-1]))


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def change(run: RunDir, **config: object) -> None:
    freeze_anew(run, run.read_config() | config)


@pytest.mark.slow
def test_report_of_a_run_has_result_pictures_and_settings(run, capsys):
    before = files(run.path)
    page = reported(capsys, f"run={run.path}")
    after = files(run.path)
    assert after.pop(run.path / "report.html") and after == before
    ledger = run.ledger("best")
    rows = {row["split"]: row for row in page.rows("Result")}
    assert list(rows) == ["train", "val", "test"]
    for split, row in rows.items():
        assert row["bound"] == f"{ledger[f'{split}/bound']:.2f}"
        assert row["kl"] == f"{ledger[f'{split}/kl']:.2f}"
        assert row["active units"] == f"{ledger[f'{split}/active_units']} of 3"
    assert "digits, x/16, BernoulliLikelihood, binarization none" in page.sections["Result"]
    assert f"test bound {ledger['test/bound']:.2f} nats per datapoint" in page.sections[""]
    assert "digits, MLP, Nz = 3" in page.sections[""]
    assert len(page.pictures["Curve"]) == 2 and len(page.pictures["KL of every dimension"]) == 1
    assert len(page.pictures["Pictures"]) == PICTURES
    assert "Without manifold: a manifold needs model.latent_dim = 2" in page.sections["Pictures"]
    for value in ledger["test/kl_per_dimension"]:
        assert f"{value:.4f}" in page.code["KL of every dimension"][0]
    assert f"The model has {run.read_record()['num_parameters']:,} parameters" in page.sections["Settings"]
    settings = {row["setting"]: row["value"] for row in page.rows("Settings")}
    assert settings["model.latent_dim"] == "3" and settings["data"] == "digits"
    assert yaml.safe_load(page.code["Settings"][0]) == run.read_config()
    assert page.size < LARGEST


@pytest.mark.slow
def test_bound_of_a_beta_vae_says_everywhere_what_it_was_trained_with(tmp_path, capsys):
    run = train_tiny(tmp_path / "sizes" / "run", "objective=beta_vae", "max_samples=300")
    ledger, said = run.ledger("best"), "nats (trained with beta 4)"
    assert ledger["objective.beta"] == 4 and ledger["test/bound"] < 0
    assert f"test bound {ledger['test/bound']:.2f} {said}" in run.log.read_text()
    assert said in bound_caption(load_run(run.path)).replace("\N{MINUS SIGN}", "-")
    curve = bound_curve(load_run(run.path), dark_on_white=False, seed=0)
    assert any("(trained with beta 4)" in text.get_text() for text in curve.axes[0].texts)
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert b"objective.beta" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    _ = capsys.readouterr()
    assert main(["runs", f"root={run.path}"]) == 0 and f"{ledger['test/bound']:.2f} beta 4" in capsys.readouterr().out
    evaluate_tiny(run, "num_datapoints=10", "splits=[test]")
    assert "nats per datapoint (trained with beta 4)" in capsys.readouterr().out
    page = reported(capsys, f"run={run.path}")
    assert said in page.sections[""] and "a training with beta 4" in page.sections["Result"]
    assert "evaluation (trained with beta 4)" in page.sections["Curve"]
    alts = re.findall(r'alt="([^"]*)"', (run.path / "report.html").read_text())
    assert any(alt.startswith("Bound (trained with beta 4)") for alt in alts)
    assert main(["score", f"run={run.path}", f"out={tmp_path / 'scores.csv'}", "estimator.num_samples=2"]) == 0
    assert "bound: the ELBO of every image (trained with beta 4)" in capsys.readouterr().err
    page = reported(capsys, f"sweep={run.path.parent}")
    assert "Mean test bound (trained with beta 4) against" in page.sections["Bound and latent size"]
    assert page.rows("Runs")[0]["test bound"].endswith(" beta 4") and said in page.sections["Samples"]
    other = shutil.copytree(run.path, tmp_path / "other")
    assert main(["compare", f"run={run.path},{other}"]) == 0
    page = Page(Path(capsys.readouterr().out.splitlines()[-1]))
    assert "A (trained with beta 4) and B (trained with beta 4)" in page.sections["Curves"]
    train_tiny(run.path.parent / "plain", "max_samples=300")
    means = reported(capsys, f"sweep={run.path.parent}").sections["Bound and latent size"]
    assert "Mean test bound against" in means and "digits, beta_vae (trained with beta 4)." in means
    run.update_record(status="interrupted")
    assert said in reported(capsys, f"run={run.path}").sections["Result"]


def test_estimates_of_log_likelihood_stand_beside_the_bound_and_one_that_cannot_be_trusted_is_flagged(run):
    name, other = (f"test/log_likelihood/importance_sampling_{num}" for num in (50, 5))
    estimated = {name: -21.234, f"{name}_se": 0.012, f"{name}_num_datapoints": 250}
    doubtful = {other: -21.53, f"{other}_se": 0.01, f"{other}_high_k_hat": 0.25}
    for entries, caption in ((estimated, False), (estimated | doubtful, True)):
        run.update_ledger("best", run.ledger("best") | entries)
        (table,) = result_section(read_overview(run.path)).tables
        (row,) = (dict(zip(table.columns, map(str, row), strict=True)) for row in table.rows if row[0] == "test")
        assert row["log p(x) by importance_sampling_50"] == "-21.23 ± 0.01" and row["datapoints"] == "250"
        assert ("!: neither value nor error can be trusted" in table.caption) == caption
    assert row["log p(x) by importance_sampling_5"] == "-21.53 ± 0.01 !25%"


@pytest.mark.slow
def test_commands_of_the_page_make_the_run_again_go_on_with_it_and_load_it(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = reported(capsys, "run=run")
    new, *typed = page.code["Reproduce"]
    program, *arguments = shlex.split(new)
    assert program == "vae-lab" and not [text for text in arguments if text.startswith(("run_dir", "output_root"))]
    assert main([*arguments, "run_dir=again"]) == 0
    again = RunDir("again")
    assert again.read_record()["config_hash"] == run.read_record()["config_hash"]
    assert again.ledger("best")["test/bound"] == run.ledger("best")["test/bound"]
    assert typed == [shlex.join(run.read_record()["command"])]
    (extend,) = page.code["Resume"]
    assert main(shlex.split(extend)[1:]) == 0
    assert run.read_record()["samples_evaluated"] == 2400 and run.read_status() == "finished"
    load, *commands = page.code["Load"]
    names: dict = {}
    exec(load, names)
    assert names["run"].model.latent_dim == 3 and names["images"].shape == (16, 1, 8, 8)
    assert names["means"].shape == (250, 3)
    assert commands == ["vae-lab evaluate run=run", "vae-lab plot run=run"]


@pytest.mark.parametrize(
    "name", ["2026-01-31_12-00-00-ab12", "007", "1e5", "null", "a, b=c", "it's", "~x", "(y)", "run"]
)
def test_every_path_can_be_pasted(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for path in (name, f"runs/{name}", f"/tmp/{name}/x", f"../{name}"):
        parsed = OverridesParser.create().parse_override(override("run_dir", path))
        assert str(parsed.value()) == path and parsed.key_or_group == "run_dir"


@pytest.mark.slow
def test_interrupted_and_running_runs_are_reported_as_they_are(run, tmp_path, capsys):
    run.update_record(status="running")
    change(run, evaluation=run.read_config()["evaluation"] | {"num_samples": 8})
    (run.path / "metrics.json").unlink()
    page = reported(capsys, f"run={run.path}")
    assert "The run is interrupted at 1,200 samples." in page.sections["Result"]
    last = read_rows(run.curve_file)[-1]
    values = ", ".join(f"{split} bound {last[f'{split}/bound']:.2f} nats (8 draws of z)" for split in ("test", "val"))
    assert f"The last evaluation: {values} per datapoint." in page.sections["Result"]
    (row,) = (row for row in page.rows("Result") if row["split"] == "test")
    assert row["bound"] == f"{last['test/bound']:.2f}"
    assert page.code["Resume"] == [f"vae-lab train run_dir={run.path}"]
    assert len(page.pictures["Pictures"]) == PICTURES
    with run.locked():
        before = files(run.path)
        for out in ([], [f"out={run.path / 'another.html'}"]):
            assert main(["report", f"run={run.path}", *out]) == 2
            assert re.search(
                "being written by another process.*; or name another place by out=", capsys.readouterr().err
            )
        page = reported(capsys, f"run={run.path}", f"out={tmp_path / 'page.html'}")
        assert files(run.path) == before
    assert "still running at 1,200 samples" in page.sections["Result"]


@pytest.mark.slow
def test_run_of_a_pattern_that_is_being_written_is_left_out_as_long_as_there_is_another(sweep, caplog, capsys):
    for name in ("2_0", "2_1", "3_0"):
        shutil.rmtree(sweep / name)
    free, busy = RunDir(sweep / "3_1"), RunDir(shutil.copytree(sweep / "3_1", sweep / "3_0"))
    busy.update_record(status="running")
    with busy.locked():
        assert main(["report", f"run={sweep}/*"]) == 0
        assert capsys.readouterr().out.split() == [str(free.path / "report.html")]
        assert f"left out: {busy.path} is being written by another process" in caplog.text
        assert main(["report", f"run={sweep}/3_0*"]) == 2
        assert main(["report", f"run={sweep}/*,{busy.path}"]) == 2
    assert not (busy.path / "report.html").exists()


def test_run_without_weights_or_ledger_has_a_page(run, tmp_path, capsys):
    shutil.rmtree(run.checkpoints)
    (run.path / "metrics.json").unlink()
    run.curve_file.unlink()
    run.update_record(
        status="failed", error="NonFiniteDensity: the loss is NaN\nat step 7", command=None, overrides=None
    )
    page = reported(capsys, f"run={run.path}", f"out={tmp_path / 'here' / 'page.html'}")
    assert "failed at 1,200 samples: NonFiniteDensity: the loss is NaN at step 7" in page.sections["Result"]
    assert "no checkpoint last.ckpt" in page.sections["Pictures"]
    assert "does not say what was asked for" in page.sections["Reproduce"]
    assert not (run.path / "report.html").exists()


@pytest.mark.slow
def test_run_without_an_encoder_has_a_page(tmp_path, capsys):
    run = make_drawn_run(tmp_path / "run", has_encoder=False, measured=False)
    page = reported(capsys, f"run={run.path}")
    assert "no encoder" in page.sections["Pictures"] and "no encoder" in page.sections["KL of every dimension"]
    assert len(page.pictures["Pictures"]) == 2  # samples and manifold
    assert "Nothing was measured" in page.sections["Result"]


@pytest.mark.slow
def test_large_colour_images_stay_light(tmp_path, capsys):
    run = make_drawn_run(tmp_path / "run", image_shape=(3, 64, 64))
    assert reported(capsys, f"run={run.path}").size < LARGEST


@pytest.mark.slow
def test_report_of_a_sweep_has_means_and_standard_errors_over_seeds(sweep, capsys):
    before = files(sweep)
    page = reported(capsys, f"sweep={sweep}")
    after = files(sweep)
    assert after.pop(sweep / "report.html") and after == before
    rows = page.rows("Bound and latent size")
    assert [(row["latent_dim"], row["n"]) for row in rows] == [("2", "2"), ("3", "2")]
    for row in rows:
        values = [RunDir(sweep / f"{row['latent_dim']}_{seed}").ledger("best")["test/bound"] for seed in (0, 1)]
        mean, _, error = row["test bound"].split()
        assert float(mean) == pytest.approx(statistics.mean(values), abs=0.006)
        assert float(error) == pytest.approx(statistics.stdev(values) / math.sqrt(2), rel=0.5, abs=0.006)
    assert "standard error of the mean of n runs over seed" in page.sections["Bound and latent size"]
    assert len(page.pictures["Bound and latent size"]) == 1
    assert len(page.pictures["Samples"]) == 2 and page.sections["Samples"].count("(seed 0)") == 2
    assert len(page.pictures["Curves"]) == 1  # all runs in it
    assert len(page.rows("Runs")) == 4 and "Not in the means" not in page.sections
    assert page.code["Load"][1] == f"vae-lab compare 'run={sweep}/*'"
    names: dict = {}
    exec(page.code["Load"][0], names)
    assert sorted(names["bounds"]) == ["2_0", "2_1", "3_0", "3_1"] and None not in names["bounds"].values()
    assert page.size < LARGEST


@pytest.mark.slow
def test_only_finished_runs_count_and_the_others_are_named_with_reasons(sweep, capsys):
    RunDir(sweep / "2_1").update_record(status="failed", error="NonFiniteDensity: the loss is NaN")
    RunDir(sweep / "3_0").update_record(status="running")
    shutil.copytree(sweep / "3_1", sweep / "3_1_once_more")
    (sweep / "half").mkdir()
    (sweep / "half" / "run.json").write_text('{"status"')
    (sweep / "empty").mkdir()
    (sweep / ".hidden").mkdir()
    (sweep / "note.txt").write_text("no folder")
    before = files(sweep)
    page = reported(capsys, f"sweep={sweep}")
    after = files(sweep)
    assert after.pop(sweep / "report.html") and after == before
    rows = page.rows("Bound and latent size")
    assert [(row["latent_dim"], row["n"]) for row in rows] == [("2", "1"), ("3", "1")]
    assert not any("±" in row["test bound"] for row in rows)
    assert "none at 2 of 2 points" in page.sections["Bound and latent size"]
    missing = {row["directory"]: (row["status"], row["why"]) for row in page.rows("Not in the means")}
    assert missing == {
        "2_1": ("failed", "failed at 1,200 samples: NonFiniteDensity: the loss is NaN"),
        "3_0": ("interrupted", "interrupted at 1,200 samples"),
        "3_1": ("finished", "repeats another run: the same settings and the same seed"),
    }
    folders = {row["folder"]: row["why"] for row in page.rows("Not in the means", 1)}
    assert sorted(folders) == ["empty", "half"] and "no config.yaml" in folders["half"]
    assert page.code["Resume"] == [f"vae-lab train run_dir={sweep / name}" for name in ("2_1", "3_0")]


@pytest.mark.slow
def test_settings_that_vary_beside_the_seed_make_series_of_their_own(sweep, capsys):
    run = RunDir(sweep / "2_1")
    change(run, optimizer=run.read_config()["optimizer"] | {"lr": 0.5})
    other = RunDir(sweep / "3_1")
    change(other, data=other.read_config()["data"] | {"binarization": "threshold"})
    other.update_ledger("best", other.ledger("best") | {"binarization": "threshold"})
    page = reported(capsys, f"sweep={sweep}")
    rows = page.rows("Bound and latent size")
    assert [(row["lr"], row["binarization"], row["n"]) for row in rows] == [
        ("0.001", "none", "1"),
        ("0.001", "none", "1"),
        ("0.001", "threshold", "1"),
        ("0.5", "none", "1"),
    ]
    assert "digits, lr 0.5, binarization none, latent_dim 2" in page.sections["Samples"]
    assert len(page.pictures["Bound and latent size"]) == 2  # other binarisation, another axis
    assert "share no axis" in page.sections["Bound and latent size"]


@pytest.mark.slow
def test_fact_that_a_run_of_a_sweep_lacks_is_not_in_its_name(sweep, capsys):
    other = RunDir(sweep / "3_1")
    key = "test/log_likelihood/importance_sampling_5"
    other.update_ledger("best", other.ledger("best") | {"test/bound_num_samples": 8, key: -1.0, f"{key}_se": 0.1})
    page = reported(capsys, f"sweep={sweep}")
    assert "likelihood or number of draws of z share no axis" in page.sections["Bound and latent size"]
    assert "draws of z 8, estimator importance_sampling_5, latent_dim 3" in page.sections["Samples"]
    assert "Mean test log p(x) by importance_sampling_5 against" in page.sections["Bound and latent size"]
    assert "estimator ," not in page.sections["Samples"]


@pytest.mark.slow
def test_bound_with_several_draws_of_z_says_so_beside_one_with_a_single_draw(sweep, capsys):
    for seed in (0, 1):
        run = RunDir(sweep / f"3_{seed}")
        run.update_ledger("best", run.ledger("best") | {"test/bound_num_samples": 8})
    page = reported(capsys, f"sweep={sweep}")
    captions = page.sections["Bound and latent size"]
    assert "Mean test bound against" in captions and "Mean test bound (8 draws of z) against" in captions
    found = re.findall(r"digits, latent_dim (\d): −?-?[\d.]+ nats(.*?) \(seed 0\)", page.sections["Samples"])
    assert found == [("2", ""), ("3", " (8 draws of z)")]
    for seed in (0, 1):
        run = RunDir(sweep / f"3_{seed}")
        run.update_ledger("best", run.ledger("best") | {"test/bound_num_samples": 1.5})  # as nobody measures
    assert "(1.5 draws of z) against" in reported(capsys, f"sweep={sweep}").sections["Bound and latent size"]


@pytest.mark.slow
def test_sweep_in_which_nothing_is_finished_has_a_page(sweep, capsys):
    for path in sweep.iterdir():
        RunDir(path).update_record(status="planned")
        (path / "metrics.json").unlink()
        (path / "metrics.csv").unlink()
    page = reported(capsys, f"sweep={sweep}")
    assert "No run is finished" in page.sections["Bound and latent size"]
    assert "There are none yet." in page.sections["Samples"]
    assert len(page.rows("Not in the means")) == 4 and len(page.code["Resume"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sizes", "sizes, all [new]"])
def test_line_that_compares_the_runs_of_a_sweep_can_be_pasted(sweep, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = reported(capsys, override("sweep", sweep.rename(name)))
    assert main([*shlex.split(page.code["Load"][1])[1:], "out=page.html"]) == 0
    assert Path("page.html").read_text().count("test bound")


def test_command_of_a_sweep_is_taken_from_what_hydra_kept(sweep):
    task = ["data=digits", "model.latent_dim=2,3", "name=a sweep"]
    kept = {"hydra": {"overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": task}}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump(kept))
    again, *_ = again_sections(read_sweep(sweep, None))
    assert again.code == ["vae-lab train -m data=digits model.latent_dim=2,3 'name=a sweep'"]
    assert [len(lines.splitlines()) for lines in again.details.values()] == [4]
    (sweep / "multirun.yaml").write_text("- not\n- that")
    again, *_ = again_sections(read_sweep(sweep, None))
    assert again.code == [] and len(again.details) == 1


def test_lines_of_single_runs_keep_the_threads_that_the_sweep_gave_them(sweep):
    given, plain, *_ = (RunDir(path) for path in sorted(sweep.iterdir()))
    for run, threads in ((given, 1), (plain, None)):
        record = dict(run.read_record())
        record["overrides"] = [text for text in record["overrides"] if not text.startswith("threads=")]
        (run.path / "run.json").write_text(json.dumps(record))
        change(run, threads=threads)
    again, *_ = again_sections(read_sweep(sweep, None))
    first, second, *_ = again.details["Every run on its own"].splitlines()
    assert shlex.split(first)[-1] == "threads=1" and "threads" not in second


def test_line_of_a_run_has_the_place_where_its_data_are_now(run):
    run.update_record(overrides=["data=mnist", "data.root=there before"])
    change(run, data=run.read_config()["data"] | {"root": "here now"})
    line = new_run(read_overview(run.path))
    assert line
    assert [text for text in shlex.split(line) if text.startswith("data.root")] == ["data.root='here now'"]


@pytest.mark.slow
def test_48_points_are_light_and_what_is_too_much_is_named(tmp_path, capsys, monkeypatch):
    for latent_dim in range(2, 50):
        run = make_drawn_run(tmp_path / "many" / f"run{latent_dim}", latent_dim=latent_dim, image_shape=(1, 28, 28))
        run.update_record(status="finished")
    page = reported(capsys, f"sweep={tmp_path / 'many'}")
    assert len(page.pictures["Samples"]) == 48 and page.size < LARGEST
    monkeypatch.setattr(sweep_page, "TILE_BYTES", 50_000)
    page = reported(capsys, f"sweep={tmp_path / 'many'}")
    assert 0 < len(page.pictures["Samples"]) < 48
    assert "Left out, to keep the page light: " in page.sections["Samples"]


@pytest.mark.slow
def test_several_runs_have_a_page_each(sweep, capsys):
    for path in sweep.iterdir():  # without pictures
        shutil.rmtree(path / "checkpoints")
        (path / "metrics.csv").unlink()
    assert main(["report", f"run={sweep}/2_0,{sweep}/3_*"]) == 0
    pages = [sweep / name / "report.html" for name in ("2_0", "3_0", "3_1")]
    assert capsys.readouterr().out.splitlines() == list(map(str, pages))
    assert all(f"<title>digits, MLP, Nz = {page.parent.name[0]}</title>" in page.read_text() for page in pages)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "one of run and sweep must be given, got none"),
        (["run={run}", "sweep={sweep}"], "got both"),
        (["run=nowhere"], "run=nowhere must be a folder"),
        (["run=."], ". is no run directory"),
        (["run={sweep}"], "is a folder of runs: sweep="),
        (["sweep={run}"], "is a run directory: run="),
        (["sweep=."], ". holds no whole run directory"),
        (["run={run}", "out=page.pdf"], "out must be an .html file"),
        (["run={run}", "out=/proc/page.html"], "cannot be written"),
        (["run={run}", "out=folder.html"], "folder.html cannot be written (Is a directory)"),
        (["run={run},{sweep}/*", "out=page.html"], "out must be left out for 5 runs"),
        (["run={run},{broken}"], "run.json is no JSON"),
        (["run={sweep}/none*"], "matches nothing"),
        (["run={run}/check*"], "matches no run directory"),
        (["run={run}", "checkpoint=first"], "checkpoint=first is no choice"),
        (["run={broken}"], "run.json is no JSON"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(
    arguments, expected, tmp_path, monkeypatch, finished_run, finished_sweep, run, capfd
):
    (run.path / "run.json").write_text(json.dumps(run.read_record())[:20])
    (tmp_path / "empty" / "folder.html").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty")
    given = [text.format(run=finished_run.path, sweep=finished_sweep, broken=run.path) for text in arguments]
    assert main(["report", *given]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    *_, line = captured.err.splitlines()
    assert line.startswith("vae-lab report: ") and expected in line
