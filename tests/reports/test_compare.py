"""`vae-lab compare`: what differs, what can be compared, the same images and the same z; only reads."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from sklearn.datasets import load_digits
from training import freeze_anew, train_tiny

from vae_lab.cli import main
from vae_lab.reports.overview import read_overview
from vae_lab.reports.pages.comparison import differences_section, runs_section
from vae_lab.reports.values import letters
from vae_lab.runs.directory import RunDir

MONTE_CARLO_EM = (
    "objective=monte_carlo_em",
    "data.train_size=50",
    "trainer.max_epochs=null",
    "max_samples=1500",
    "evaluation.first=750",
    "evaluation.num_datapoints=5",
    "evaluation.estimator.num_temperatures=4",
)
"""An iteration counts for 15 * 50 = 750 samples."""
IMAGES, LATENTS = "The same test images, reconstructed", "The same z, decoded"
LARGEST = 5_000_000


@pytest.fixture
def small(finished_sweep: Path) -> RunDir:
    """Two latent dimensions, and another seed."""
    return RunDir(finished_sweep / "2_1")


@pytest.fixture(scope="module")
def without_encoder(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return train_tiny(tmp_path_factory.mktemp("mcem") / "mcem", *MONTE_CARLO_EM)


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The digits once more, turned round and in a file."""
    folder = tmp_path_factory.mktemp("other")
    digits: Any = load_digits()
    images = np.ascontiguousarray(digits.images[:, ::-1, :7]) / 16
    np.savez_compressed(folder / "turned.npz", x=images)
    return train_tiny(folder / "turned", "data=npz", f"data.path={folder / 'turned.npz'}", "trainer.max_epochs=2")


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs_of(page: Page) -> list[dict[str, str]]:
    """The values of each run, from the table with a column for each."""
    names, *columns = zip(*page.tables["Runs"][0], strict=True)
    return [dict(zip(names, column, strict=True)) for column in columns]


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> Page:
    """The page that the command prints the path of."""
    assert main(["compare", *arguments]) == 0
    return Page(Path(capsys.readouterr().out.splitlines()[-1]))


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def copied(run: RunDir, path: Path, *, ledger: dict | None = None, config: dict | None = None) -> RunDir:
    """A copy with other entries in its ledger and its config (dotted keys)."""
    shutil.copytree(run.path, path)
    copy = RunDir(path)
    content = copy.read_config()
    for key, value in (config or {}).items():
        *parts, last = key.split(".")
        node = content
        for part in parts:
            node = node[part]
        node[last] = value
    freeze_anew(copy, content)
    (path / "metrics.json").write_text(json.dumps(run.ledger("best") | (ledger or {})))
    return copy


@pytest.mark.slow
def test_page_shows_what_differs_and_every_value(work_folder, finished_run, small, capsys):
    before = files(finished_run.path), files(small.path)
    page = compared(capsys, f"run={finished_run.path}", f"run={small.path}")
    assert (files(finished_run.path), files(small.path)) == before
    assert {row["key"]: (row["A"], row["B"]) for row in page.rows("What differs")} == {
        "model.latent_dim": ("3", "2"),
        "seed": ("0", "1"),
    }
    runs = runs_of(page)
    assert [(row["run"], row["latent_dim"], row["seed"], row["status"]) for row in runs] == [
        ("A", "3", "0", "finished"),
        ("B", "2", "1", "finished"),
    ]
    assert [row["directory"] for row in runs] == [str(finished_run.path), str(small.path)]
    for row, run in zip(runs, (finished_run, small), strict=True):
        ledger = run.ledger("best")
        assert row["test bound"] == f"{ledger['test/bound']:.2f}"
        assert row["train/bound"] == f"{ledger['train/bound']:.2f}"
        assert row["test/active_units"] == str(ledger["test/active_units"])
    assert "not comparable" not in page.sections["Runs"]
    assert len(page.pictures["Curves"]) == len(page.pictures[IMAGES]) == 1
    assert len(page.pictures[LATENTS]) == 2
    assert "A (digits, latent_dim=3); B (digits, latent_dim=2)" in page.sections[LATENTS]
    assert page.code["Again"] == [f"vae-lab compare run={finished_run.path} run={small.path}"]
    assert page.size < LARGEST


def test_many_runs_have_several_tables_of_few_columns(finished_run):
    run = read_overview(finished_run.path)
    runs = {letters(i): replace(run, settings={**run.settings, "seed": i}) for i in range(8)}
    for section in (runs_section(runs, []), differences_section(runs)):
        names = [name for table in section.tables for name in table.columns[1:]]
        assert names == list(runs) and max(len(table.columns) for table in section.tables) <= 7
    assert [row for table in differences_section(runs).tables for row in table.rows] == [
        ["seed", *"012345"],
        ["seed", *"67"],
    ]


@pytest.mark.slow
def test_equal_latent_sizes_share_the_same_z(work_folder, finished_run, capsys):
    copy = copied(finished_run, work_folder / "copy")
    page = compared(capsys, f"run={finished_run.path},{copy.path}")
    assert len(page.pictures[LATENTS]) == 1 and "groups" not in page.sections[LATENTS]
    assert "Nothing: the configs are equal" in page.sections["What differs"]


@pytest.mark.slow
def test_speed_is_no_difference_that_matters(work_folder, finished_run, capsys):
    other = {"default": "onednn", "onednn": "default"}[finished_run.read_config()["matmul_backend"]]
    speed = {"matmul_backend": other, "compile": True, "cuda_graph": False, "steps_per_execution": 50}
    copy = copied(finished_run, work_folder / "copy", config=speed | {"channels_last": True, "optimizer.lr": 0.5})
    important, others = compared(capsys, f"run={finished_run.path},{copy.path}").tables["What differs"]
    assert [row[0] for row in important[1:]] == ["optimizer.lr"]
    assert {row[0] for row in others[1:]} == {*speed, "channels_last"}


@pytest.mark.slow
def test_other_data_stand_in_groups_and_are_not_comparable(work_folder, finished_run, other_data, capsys):
    page = compared(capsys, f"run={finished_run.path}", f"run={other_data.path}")
    first, second = runs_of(page)
    assert not first["test bound"].endswith(" a") and second["test bound"].endswith(" a")
    assert "a: not comparable with the unmarked: data turned (unmarked: digits)" in page.sections["Runs"]
    assert "share no axis: A (digits); B (turned)" in page.sections["Curves"]
    for title in ("Curves", IMAGES, LATENTS):
        assert len(page.pictures[title]) == 2
    assert "A (digits); B (turned)" in page.sections[IMAGES]


@pytest.mark.slow
def test_run_without_an_encoder_has_no_reconstructions(work_folder, finished_run, without_encoder, capsys):
    page = compared(capsys, f"run={finished_run.path}", f"run={without_encoder.path}")
    assert "B: trained without an encoder" in page.sections[IMAGES]
    assert "B: no bound on the test split" in page.sections["Runs"]
    first, second = runs_of(page)
    (name,) = (name for name in second if name.endswith("log p(x)"))
    assert second["test bound"] == "" and "±" in second[name] and first[name] == ""
    assert len(page.pictures["Curves"]) == 2 and "annealed_importance_sampling_4x4" in page.sections["Curves"]
    assert len(page.pictures[IMAGES]) == 1 and len(page.pictures[LATENTS]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "ledger", "reason"),
    [
        ({"optimizer.lr": 1.0, "data.batch_size": 10}, {}, ""),
        ({}, {"binarization": "threshold"}, "binarization threshold (unmarked: none)"),
        ({}, {"scale": "x"}, "scale x (unmarked: x/16)"),
        ({"data.train_size": 200}, {"split_hash": "0"}, "split hash 0 (unmarked: "),
        ({}, {"likelihood": "GaussianLikelihood"}, "likelihood Gaussian (unmarked: Bernoulli)"),
        ({}, {"likelihood": "ContinuousBernoulliLikelihood"}, "likelihood ContinuousBernoulli (unmarked: Bernoulli)"),
        ({}, {"test/bound_num_samples": 8}, "draws of z 8 (unmarked: 1)"),
        (
            {},
            {"test/log_likelihood/importance_sampling_5": -1.0, "test/log_likelihood/importance_sampling_5_se": 0.1},
            "estimator importance_sampling_5 (unmarked: importance_sampling_50)",
        ),
    ],
)
def test_only_values_of_one_yardstick_are_comparable(work_folder, finished_run, config, ledger, reason, capsys):
    name = "test/log_likelihood/importance_sampling_50"
    reference = copied(finished_run, work_folder / "reference", ledger={name: -1.0, f"{name}_se": 0.1})
    other = copied(finished_run, work_folder / "other", config=config, ledger=ledger)
    text = compared(capsys, f"run={reference.path},{other.path}").sections["Runs"]
    assert reason in text and ("not comparable" in text) == bool(reason)


@pytest.mark.slow
def test_curves_with_other_numbers_of_draws_are_not_comparable(work_folder, finished_run, capsys):
    runs = [copied(finished_run, work_folder / f"a{num}", config={"evaluation.num_samples": num}) for num in (1, 8)]
    for run in runs:
        run.update_record(status="interrupted")
        (run.path / "metrics.json").unlink()
    page = compared(capsys, f"run={runs[0].path},{runs[1].path}")
    first, second = runs_of(page)
    assert first["test bound"].endswith(" a") and second["test bound"].endswith(" b")
    notes = page.sections["Runs"]
    assert "a: not comparable with the unmarked: measured in a training that has not ended" in notes
    assert "b: not comparable with the unmarked: draws of z 8 (unmarked: 1)" in notes
    assert "share no axis: A (digits, draws of z=1); B (digits, draws of z=8)" in page.sections["Curves"]
    assert len(page.pictures["Curves"]) == 2 and len(page.pictures[IMAGES]) == 1


@pytest.mark.slow
def test_pattern_finds_runs_and_names_what_it_leaves_out(work_folder, finished_run, capsys):
    folder = work_folder / "runs"
    copied(finished_run, folder / "one")
    copied(finished_run, folder / "two", config={"seed": 7})
    (folder / "half").mkdir()
    (folder / "half" / "config.yaml").write_text("data: [")
    (copied(finished_run, folder / "torn").path / "run.json").write_text('{"status": "fini')
    (copied(finished_run, folder / "wrong").path / "metrics.json").write_text("[1]")
    (copied(finished_run, folder / "curve").path / "metrics.csv").write_text("samples_evaluated,test/bound\n1,a\n")
    (folder / "note.txt").write_text("no folder")
    page = compared(capsys, f"run={folder}/*")
    assert [row["directory"] for row in runs_of(page)] == [str(folder / "one"), str(folder / "two")]
    for name in ("half", "torn", "wrong", "curve"):
        assert f"Left out: {folder / name}" in page.sections["Runs"]
    assert "note.txt" not in page.sections["Runs"]


@pytest.mark.slow
def test_comparison_replaces_itself_and_no_other(work_folder, finished_run, small, without_encoder, capsys):
    runs = [f"run={run.path}" for run in (finished_run, small, without_encoder)]
    paths = []
    for arguments in (runs[:2], runs[1::-1], runs[:2], runs, [*runs[:2], "checkpoint=last"]):
        assert main(["compare", *arguments]) == 0
        paths.append(capsys.readouterr().out.splitlines()[-1])
    assert paths[0] == paths[1] == paths[2]
    assert len({*paths}) == 3 and all(path.startswith("outputs/comparisons/") for path in paths)
    assert sorted(path.name for path in work_folder.iterdir()) == ["outputs"]


@pytest.mark.slow
def test_out_is_a_page_or_a_folder(work_folder, finished_run, small, capsys):
    arguments = [f"run={finished_run.path},{small.path}"]
    compared(capsys, *arguments, "out=here/page.html")
    compared(capsys, *arguments, "out=there")
    assert (work_folder / "here" / "page.html").is_file() and (work_folder / "there" / "index.html").is_file()


@pytest.mark.slow
def test_run_that_goes_on_is_compared_as_it_is(work_folder, finished_run, small, capsys):
    going = copied(small, work_folder / "going")
    going.update_record(status="running")
    (going.path / "metrics.json").unlink()
    (going.checkpoints / "best.ckpt").unlink()
    young = copied(finished_run, work_folder / "young")
    young.update_record(status="planned")
    shutil.rmtree(young.checkpoints)
    young.curve_file.unlink()
    (young.path / "metrics.json").unlink()
    with going.locked():
        page = compared(capsys, f"run={finished_run.path}", f"run={going.path}", f"run={young.path}")
    assert "B is still running at 1,200 samples" in page.sections["Runs"]
    second, third = runs_of(page)[1:]
    assert (
        second["test bound"]
        and second["test bound"].endswith(" a")  # measured in a training that has not ended
        and second["checkpoint"] == "last"
        and third["test bound"] == ""
    )
    assert f"C has none: {young.path} has no checkpoint last.ckpt" in page.sections[IMAGES]
    assert "Not evaluated yet: C" in page.sections["Curves"]


@pytest.mark.slow
def test_broken_weights_and_strange_code_leave_the_rest_of_the_page(work_folder, finished_run, small, capsys):
    torn = copied(finished_run, work_folder / "torn")
    for file in torn.checkpoints.glob("*.ckpt"):
        file.write_bytes(file.read_bytes()[:1000])
    strange = copied(finished_run, work_folder / "strange", config={"model.encoder._target_": "mine.Encoder"})
    other = copied(small, work_folder / "other", config={"model.latent_dim": 9})
    page = compared(capsys, *(f"run={run.path}" for run in (finished_run, torn, strange, other)))
    text = page.sections[IMAGES]
    assert "B has none:" in text and "corrupt" in text
    assert "C has none:" in text and "allow=[mine]" in text
    assert "D has none:" in text and "must hold the weights of the model in config.yaml" in text
    assert len(page.pictures[IMAGES]) == len(page.pictures[LATENTS]) == 1
    assert len(runs_of(page)) == 4


@pytest.mark.slow
def test_own_class_is_found_in_the_working_folder_if_it_is_allowed(work_folder, finished_run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    code = "from vae_lab.networks.mlp import MLPEncoder\n\n\nclass Own(MLPEncoder):\n    pass\n"
    (work_folder / "own_networks.py").write_text(code)
    own = copied(finished_run, work_folder / "own", config={"model.encoder._target_": "own_networks.Own"})
    runs = [f"run={finished_run.path}", f"run={own.path}"]
    assert "B has none" in compared(capsys, *runs).sections[IMAGES]
    assert "B has none" not in compared(capsys, *runs, "allow=own_networks").sections[IMAGES]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "at least two run directories, got 0"),
        (["run={run}"], "at least two run directories, got 1"),
        (["run={run}", "run={run}/../run"], "at least two run directories, got 1"),
        (["run={run}", "run=nowhere"], "nowhere is no run directory"),
        (["run={run}", "run=."], ". is no run directory"),
        (["run=no*"], "run=no* matches nothing"),
        (["run={run},{small}", "checkpoint=bset"], "did you mean 'best'?"),
        (["run={run},{small}", "outt=x"], "did you mean 'out'?"),
        (["run={run},{small}", "out={run}/run.json"], "out must be a page (.html) or a folder"),
        (["run={run},{small}", "out=/proc/page.html"], "cannot be written"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, expected, work_folder, finished_run, small, capfd):
    given = [text.format(run=finished_run.path, small=small.path) for text in arguments]
    assert main(["compare", *given]) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and list(work_folder.iterdir()) == []
    *_, line = captured.err.splitlines()
    assert line.startswith("vae-lab compare: ") and expected in line


def test_letters_go_on_after_z():
    assert [letters(i) for i in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
