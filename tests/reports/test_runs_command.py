"""`vae-lab runs`: what is listed and in what order, what is averaged and what never, and broken runs."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vae_lab.cli import main
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import find_runs
from vae_lab.runs.directory import RunDir
from vae_lab.runs.identity import FIXED, fixed_settings

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
IWAE = "test/log_likelihood/importance_sampling_"


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an empty outputs/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


@pytest.fixture
def add_run(finished_run: RunDir) -> Callable[..., Path]:
    """Adds outputs/NAME: the small files of a real run, with changed entries."""

    original, run_json, metrics = finished_run.read_config(), finished_run.read_record(), finished_run.ledger("best")

    def add(name: str, settings: dict[str, Any] | None = None, record: Any = (), ledger: Any = ()) -> Path:
        """Settings by dotted keys; a ledger's None takes an entry away, a ledger None the file."""
        folder = Path("outputs", name)
        folder.mkdir(parents=True)
        config = deepcopy(original)
        for key, value in (settings or {}).items():
            *parents, last = key.split(".")
            part = config
            for parent in parents:
                part = part[parent]
            part[last] = value
        (folder / "config.yaml").write_text(yaml.dump(config, Dumper=DUMPER, sort_keys=False))
        (folder / "run.json").write_text(json.dumps(run_json | {FIXED: fixed_settings(config)} | dict(record)))
        if ledger is not None:
            entries = metrics | dict(ledger)
            kept = {key: value for key, value in entries.items() if value is not None}
            (folder / "metrics.json").write_text(json.dumps(kept))
        return folder

    return add


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """The records of `vae-lab runs ARGUMENTS format=json`; stderr goes to `listed.notes`."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        assert main(["runs", *arguments, "format=json"]) == 0
        captured = capsys.readouterr()
        run.notes = captured.err
        return json.loads(captured.out)

    run.notes = ""
    return run


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `vae-lab runs ARGUMENTS` prints."""

    def run(*arguments: str) -> str:
        assert main(["runs", *arguments]) == 0
        return capsys.readouterr().out

    return run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a mistake."""
    assert main(["runs", *arguments]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("vae-lab runs: ")
    return message


def names(records: list[dict[str, Any]]) -> list[str]:
    return [Path(record["path"]).name for record in records]


# ---- a list ----


def test_real_run_is_listed_with_status_samples_bound_and_time(finished_run, listed, shown) -> None:
    (record,) = listed(f"root={finished_run.path}")
    ledger = finished_run.ledger("best")
    assert record["path"] == str(finished_run.path) and record["status"] == "finished"
    assert record["bound"] == ledger["test/bound"] and record["bound_key"] == "test/bound"
    assert record["samples_evaluated"] == 1200 and record["split_hash"] == ledger["split_hash"]
    assert record["wall_seconds"] == finished_run.read_record()["wall_seconds"] and record["data"] == "digits"
    text = shown(f"root={finished_run.path.parent}")
    for expected in (f"│ {finished_run.path.name} ", "finished", "1,200", f"{ledger['test/bound']:.2f}", "test bound"):
        assert expected in text
    assert "nats per datapoint of digits" in text and "±" not in text


def test_what_differs_is_named_shortly_and_once(add_run, listed, shown) -> None:
    add_run("a")
    other = {
        "model.latent_dim": 7,
        "model.encoder.hidden": [9],
        "model.decoder.hidden": [8],
        "threads": 5,
        "data.batch_size": 20,
        "evaluation.num_samples": 3,
    }
    add_run("b", other)
    entries = find_runs(["outputs"])
    short = Runs(entries).differing()
    assert short == {
        "evaluation.num_samples": "evaluation.num_samples",  # of the objective there is another
        "model.latent_dim": "latent_dim",
        "model.encoder.hidden": "encoder.hidden",  # the decoder's is another
        "model.decoder.hidden": "decoder.hidden",
        "data.batch_size": "batch_size",
    }
    assert "latent_dim=7" in shown() and "threads" not in shown()
    a, b = listed()
    assert (a["model.latent_dim"], b["model.latent_dim"]) == (3, 7)
    assert b["model.encoder.hidden"] == [9]
    assert [len(listed("where=latent_dim=7")), len(listed("where=encoder.hidden=[9],batch_size=20"))] == [1, 1]


def test_another_part_goes_by_its_name_and_its_settings_are_not_mentioned(add_run) -> None:
    choices = {"choices": {"data": "digits", "objective": "aevb", "model": "mlp"}}
    add_run("a", record=choices)
    sleep = {"_target_": "vae_lab.objectives.wake_sleep.WakeSleep", "num_sleeps": 2}
    add_run("b", {"objective": sleep}, {"choices": choices["choices"] | {"objective": "wake_sleep"}})
    add_run("c", {"objective": sleep | {"num_sleeps": 4}}, {"choices": {}})
    entries = find_runs(["outputs"])
    assert Runs(entries[:2]).differing() == {"objective": "objective"}
    assert set(Runs(entries[1:]).differing().values()) == {"num_sleeps"}
    assert [entry.values["objective"] for entry in entries] == ["aevb", "wake_sleep", "wake_sleep"]
    assert entries[2].values["data.name"] == "digits" and entries[2].values["network"] == "MLP"


def test_same_width_of_encoder_and_decoder_is_one_difference(add_run) -> None:
    for width in (8, 9):
        add_run(f"r{width}", {"model.encoder.hidden": [width], "model.decoder.hidden": [width]})
    entries = find_runs(["outputs"])
    assert Runs(entries).differing() == {"model.encoder.hidden": "hidden"}


def test_few_differences_have_columns_and_many_share_one(add_run, shown) -> None:
    add_run("a")
    add_run("b", {"seed": 5})
    assert "seed" in shown() and "what differs" not in shown()
    changes = {"seed": 6, "model.latent_dim": 9, "optimizer.lr": 0.5, "data.batch_size": 10, "max_samples": 7}
    add_run("c", changes)
    text = shown()
    assert "what differs" in text and "seed=6" in text and "lr=0.5" in text


def test_running_is_believed_only_while_the_lock_is_held(add_run, listed) -> None:
    run = RunDir(add_run("a", record={"status": "running"}))
    assert [record["status"] for record in listed()] == ["interrupted"]
    with run.locked():
        assert [record["status"] for record in listed()] == ["running"]


def test_several_folders_are_listed_and_a_run_that_two_of_them_hold_once(add_run, listed, outputs: Path) -> None:
    for name in ("x/a", "x/deep/er/b", "y,z/c", ".hidden/d"):
        add_run(name)
    (outputs / "x" / "loop").symlink_to(outputs)
    assert names(listed()) == ["a", "b", "c"]
    assert names(listed("root=outputs/x")) == ["a", "b", "c"]  # by way of the link
    (outputs / "x" / "loop").unlink()
    assert names(listed("root=outputs/y,z")) == ["c"]
    assert names(listed("root=outputs/*")) == ["a", "b", "c"]
    assert names(listed("root=outputs/x,outputs/x/deep", "root=outputs/y,z")) == ["a", "b", "c"]


def test_nothing_found_says_what_makes_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "no run below outputs: vae-lab train" in captured.err
    assert main(["runs", "format=json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    message = refused(capsys, "root=nowhere")
    assert "root=nowhere" in message and "vae-lab train" in message


# ---- broken directories ----

BROKEN = {
    "no config": ("config.yaml", None, "no config.yaml"),
    "no record": ("run.json", None, "no run.json"),
    "empty config": ("config.yaml", b"", "lacks data, model, trainer"),
    "YAML garbage": ("config.yaml", b"x: [1, {", "config.yaml is no YAML"),
    "another YAML": ("config.yaml", b"- a\n- b\n", "config.yaml is no YAML of settings"),
    "a text": ("config.yaml", b"hello", "config.yaml is no YAML of settings"),
    "YAML with code": ("config.yaml", b"x: !!python/object/apply:os.system ['touch ran']\n", "config.yaml is no YAML"),
    "bytes": ("config.yaml", bytes(range(256)), "config.yaml cannot be read"),
    "truncated record": ("run.json", b'{"status": "fin', "run.json is no JSON"),
    "empty record": ("run.json", b"", "run.json is no JSON"),
    "another JSON": ("run.json", b"[1]", "run.json holds list"),
    "no status": ("run.json", b"{}", "run.json has no status"),
    "truncated ledger": ("metrics.json", b'{"test/bound": -1', "metrics.json is no JSON"),
    "another ledger": ("metrics.json", b"3", "metrics.json holds int"),
    "nested too deeply": ("metrics.json", b"[" * 100_000, "metrics.json is no JSON"),
    "a folder": ("run.json", "folder", "run.json cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "content", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_run_is_listed_as_such_and_harms_nothing(file, content, reason, add_run, listed, shown) -> None:
    add_run("good")
    path = add_run("broken") / file
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    broken, good = listed()
    assert (broken["status"], good["status"]) == ("broken", "finished")
    assert reason in broken["problem"] and good["bound"] is not None
    assert f"broken: outputs/broken: {broken['problem']}" in shown()
    assert not Path("ran").exists()
    (group,) = listed("group=data.name")
    assert group["runs"] == ["outputs/good"]
    assert names(listed("where=status=broken")) == ["broken"] and names(listed("where=status!=broken")) == ["good"]
    assert set(names(listed("sort=-test/bound"))) == {"good", "broken"}


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE: dict[str, tuple[str, str, str]] = {
    "billion laughs": ("config.yaml", LAUGHS, "alias"),
    "an anchor in itself": ("config.yaml", "data: &a {x: *a}\n", "alias"),
    "one alias": ("config.yaml", "data: &a {x: 1}\nmodel: *a\ntrainer: {}\n", "alias"),
    "6,000 digits": ("config.yaml", f"data: {{x: {'9' * 6000}}}\n", "digits"),
    "6,000 digits of another base": ("config.yaml", f"data: {{x: 0x{'f' * 6000}}}\n", "more than 64 bits"),
    "a depth of 900": ("config.yaml", f"data: {'[' * 900}{']' * 900}\n", "deep"),
    "a depth of 100,000": ("config.yaml", f"data: {'[' * 100_000}\n", "depth"),
    "a date": ("config.yaml", "data: {x: 2024-01-01}\n", "holds a date"),
    "100,000 keys": ("config.yaml", "".join(f"k{i}: 1\n" for i in range(20_000)), "more than 10,000 keys"),
    "a million lines": ("config.yaml", "a: 1\n" * 1_000_000, "5,000,000 bytes"),
    "digits in the record": ("run.json", f'{{"status": "finished", "x": {"9" * 6000}}}', "digits"),
    "a large number in the record": ("run.json", f'{{"status": "finished", "x": {"9" * 600}}}', "more than 64 bits"),
    "half a character in the record": ("run.json", '{"status": "finished", "x": "\\ud800"}', "surrogate"),
    "half a character in a key": ("metrics.json", '{"\\udfff": 1}', "surrogate"),
    "a depth of 900 in the ledger": ("metrics.json", f'{{"x": {"[" * 900}{"]" * 900}}}', "deep"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_makes_its_run_broken_and_ends_nothing(file, content, reason, add_run, listed, shown) -> None:
    add_run("good")
    (add_run("hostile") / file).write_text(content)
    good, hostile = listed()
    assert (good["status"], hostile["status"]) == ("finished", "broken")
    assert reason in hostile["problem"]
    assert "│ good " in shown() and main(["report", "run=outputs/good", "out=page.html"]) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none on this system")
@pytest.mark.parametrize("file", ["config.yaml", "run.json", "metrics.json", "metrics.csv"])
def test_what_is_no_regular_file_is_not_opened(file, add_run, listed, capsys) -> None:
    add_run("good")
    for name in ("fifo", "device", "sparse"):
        path = add_run(name) / file
        path.unlink(missing_ok=True)
        if name == "fifo":
            os.mkfifo(path)
        elif name == "device":
            path.symlink_to("/dev/zero")  # also refused as a link
        else:
            with open(path, "wb") as sparse:
                sparse.truncate(8 * 2**30)
    problems = {run["path"]: run.get("problem") for run in listed()}
    assert not problems.pop("outputs/good")
    for path, problem in problems.items():
        assert (file == "metrics.csv") == (not problem), path
        assert main(["report", f"run={path}"]) == 2
        reasons = {"outputs/fifo": "no regular file", "outputs/device": "link that leads out"}
        reason = reasons.get(path, "bytes, and such")
        if not (file in ("config.yaml", "run.json") and "sparse" not in path):
            assert reason in capsys.readouterr().err
    assert main(["compare", "run=outputs/good", "run=outputs/fifo"]) == 2


@pytest.mark.slow
def test_names_that_are_no_text_or_would_command_a_terminal_are_shown(add_run, shown, capsys) -> None:
    name = os.fsdecode(b"\xff\xfe")
    if sys.platform == "darwin":
        pytest.skip("its file system takes no such name")
    add_run(name)
    add_run("[bold]a[/bold]\x1b]0;title\x07", record={"status": "failed", "error": "\x1b[31mred\r\u202e"})
    text = shown()
    assert r"\udcff\udcfe" in text and r"[bold]a[/bold]\x1b]0;title\x07" in text and r"\x1b[31mred" in text
    for form in ("csv", "markdown", "latex"):
        text += shown(f"format={form}")
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)
    text.encode()
    assert main(["report", f"run=outputs/{name}"]) == 0
    assert "udcff" in capsys.readouterr().out
    assert main(["runs", "root=\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_cells_that_a_spreadsheet_would_run_are_text(add_run, shown) -> None:
    formulas = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"]
    for i, text in enumerate(formulas):
        add_run(f"run{i}", {"objective.num_samples": text, "optimizer.lr": -0.5 * i})
    rows = list(csv.DictReader(io.StringIO(shown("format=csv", "show=objective.num_samples,optimizer.lr"))))
    found = [row["objective.num_samples"] for row in rows]
    assert [text[:2] for text in found[:4]] == ["'=", "'+", "'-", "'@"] and all(text[0] == "'" for text in found)
    assert [float(row["optimizer.lr"]) for row in rows] == [-0.5 * i for i in range(6)]


def test_folders_may_lie_deeper_than_calls(outputs: Path, add_run, listed, monkeypatch) -> None:
    path = add_run("e")
    monkeypatch.chdir(outputs)
    for _ in range(1100):
        os.mkdir("d")
        os.chdir("d")
    deepest = os.getcwd()
    os.chdir(outputs.parent)
    found = [run["path"] for run in listed()]
    os.chdir(deepest)
    for _ in range(1100):  # or pytest would not get to the end of it
        os.chdir("..")
        os.rmdir("d")
    assert str(path) in found


def test_strange_values_are_no_numbers(add_run, listed, shown) -> None:
    strange = {"test/bound": math.nan, "test/kl": "much", f"{IWAE}5": -math.inf, f"{IWAE}5_se": 0.1}
    add_run("a", {"max_samples": math.inf}, {"wall_seconds": None, "choices": [1]}, strange)
    add_run("b")
    record, _ = listed("show=test/kl", "sort=test/bound")[::-1]
    assert record["bound_key"] == "val/bound" and record["log_likelihood"] is None and record["test/kl"] is None
    assert record["wall_seconds"] is None and record["max_samples"] == "inf"
    assert "split val (unmarked: test)" in shown()


def test_what_is_left_of_a_run_is_listed_too(listed, outputs: Path) -> None:
    (outputs / "x" / "checkpoints").mkdir(parents=True)
    (outputs / "no_run").mkdir()
    (record,) = listed()
    assert record["path"] == "outputs/x" and record["problem"] == "no run.json; no config.yaml"


def test_many_problems_are_counted(listed, shown, outputs: Path) -> None:
    for i in range(13):
        (outputs / f"r{i}" / "checkpoints").mkdir(parents=True)
    assert "and 3 more: where=status=broken" in shown()


def test_failed_run_tells_its_error(add_run, shown) -> None:
    add_run(
        "a", record={"status": "failed", "error": "NonFiniteDensity: the loss\nis NaN"}, ledger={"test/bound": None}
    )
    assert "failed: outputs/a: NonFiniteDensity: the loss is NaN" in shown()


# ---- where and sort ----


@pytest.fixture
def three(add_run) -> None:
    for seed, bound in enumerate((-30.0, -10.5, -20.0)):
        settings = {"seed": seed, "model.latent_dim": (2, 5, 10)[seed], "optimizer.lr": (1e-3, 2e-3, 1e-3)[seed]}
        add_run(f"r{seed}", settings, ledger={"test/bound": bound, "test/kl": 1.0 + seed})
    add_run("r3", {"seed": 3}, {"status": "planned"}, ledger=None)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["status=finished"], ["r0", "r1", "r2"]),
        (["status!=finished"], ["r3"]),
        (["model.latent_dim=10"], ["r2"]),
        (["latent_dim>=5"], ["r1", "r2"]),
        (["latent_dim>5"], ["r2"]),
        (["latent_dim<=2"], ["r0"]),
        (["latent_dim<3", "seed=0"], ["r0"]),
        (["latent_dim<3,seed=1"], []),
        (["optimizer.lr=1e-3"], ["r0", "r2", "r3"]),
        (["lr=0.0010"], ["r0", "r2", "r3"]),
        (["test/bound>-20.5"], ["r1", "r2"]),
        (["bound>-20.5"], ["r1", "r2"]),
        (["test/bound=null"], ["r3"]),
        (["test/kl>=0"], ["r0", "r1", "r2"]),
        (["model.encoder.hidden=[16]", "seed>2"], ["r3"]),
        (["model.encoder.hidden=[16,16]"], []),
        (["data.name=digits", "seed=1"], ["r1"]),
        (["seed > 1 "], ["r2", "r3"]),
        (["path>=outputs/r2"], ["r2", "r3"]),
        (["fused=true"], ["r0", "r1", "r2", "r3"]),
    ],
)
def test_where_keeps_the_runs_of_which_all_conditions_hold(where, expected, three, listed) -> None:
    assert names(listed(*(f"where={text}" for text in where))) == expected
    if not expected:
        assert "none of 4 runs below outputs" in listed.notes


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("test/bound", ["r1", "r2", "r0", "r3"]),
        ("bound", ["r1", "r2", "r0", "r3"]),
        ("-test/bound", ["r0", "r2", "r1", "r3"]),
        ("test/kl", ["r0", "r1", "r2", "r3"]),
        ("-seed", ["r3", "r2", "r1", "r0"]),
        ("optimizer.lr,-test/bound", ["r0", "r2", "r3", "r1"]),
        ("status,seed", ["r0", "r1", "r2", "r3"]),
    ],
)
def test_sort_is_best_first_and_missing_values_come_last(sort, expected, three, listed) -> None:
    assert names(listed(f"sort={sort}")) == expected


def test_what_is_sorted_by_or_asked_for_has_a_column(three, shown, listed) -> None:
    assert "optimizer.lr" not in shown("sort=lr") and shown("sort=lr", "format=markdown").split().count("lr") == 1
    assert "config_hash" in shown("sort=config_hash") and "batch_size" in shown("show=batch_size")
    assert "test/kl" in shown("sort=test/kl") and "config_hash" in shown("show=config_hash")
    assert [record["test/kl"] for record in listed("show=test/kl")] == [1.0, 2.0, 3.0, None]
    assert shown("sort=test/bound").count("bound") == 1


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("where=model.latent_dmi=3", ["where=model.latent_dmi=3", "did you mean", "model.latent_dim"]),
        ("where=latent_dmi=3", ["did you mean", "latent_dim"]),
        ("where=finished", ["where must be a condition", "'finished'"]),
        ("sort=-test/buond", ["sort=-test/buond", "test/bound"]),
        ("group=data.nme", ["data.name"]),
        ("show=test/klx", ["test/kl"]),
        ("over=sede", ["seed"]),
        ("fromat=csv", ["fromat", "'format'"]),
        ("format=html", ["format=html", "markdown"]),
        ("where=_target_=x", ["_target_", "write one of these"]),
    ],
)
def test_unknown_key_is_refused_naming_the_nearest(argument, expected, three, capsys) -> None:
    message = refused(capsys, argument)
    for part in expected:
        assert part in message


# ---- what cannot be compared ----


def test_values_that_cannot_be_compared_are_marked_and_the_reason_is_said(add_run, listed, shown) -> None:
    for seed in range(3):
        add_run(f"a{seed}", {"seed": seed}, ledger={f"{IWAE}500": -1.0 - seed, f"{IWAE}500_se": 0.25})
    add_run("binarised", ledger={"binarization": "dynamic"})
    add_run("split", ledger={"split_hash": "0123456789ab"})
    add_run("subset", ledger={"test/bound": None, "test[:10]/bound": -3.0})
    add_run("k", ledger={f"{IWAE}50": -0.5, f"{IWAE}50_se": 0.125, f"{IWAE}50_num_datapoints": 9})
    mnist = {"data": "mnist", "scale": "x/255"}
    add_run("mnist", ledger=mnist)
    add_run("mnist_binarised", ledger=mnist | {"binarization": "static"})
    records = {Path(record["path"]).name: record for record in listed()}
    assert {records[f"a{seed}"]["bound_mark"] for seed in range(3)} == {""} == {records["k"]["bound_mark"]}
    marked = ["binarised", "split", "subset", "mnist", "mnist_binarised"]
    letters = [records[name]["bound_mark"] for name in marked]
    assert all(letters) and len(set(letters)) == len(marked)
    assert records["a0"]["log_likelihood_mark"] == "" != records["k"]["log_likelihood_mark"]
    notes = listed.notes
    for expected in (
        "binarization dynamic (unmarked: none)",
        "split hash 0123456789ab (unmarked: ",
        "split test[:10] (unmarked: test)",
        "estimator importance_sampling_50 (unmarked: importance_sampling_500)",
        "data mnist (unmarked: digits), scale x/255 (unmarked: x/16), binarization none",
        "data mnist (unmarked: digits), scale x/255 (unmarked: x/16), binarization static",
    ):
        assert expected in notes
    text = shown()
    assert "-1.00 ± 0.25" in text and re.search(r"-3\.00 [a-z] ", text)
    assert "not comparable with the unmarked" in text and "±: Monte Carlo standard error" in text


def test_readers_get_a_table_for_each_data_set_without_what_follows_from_the_experiment(add_run, listed, shown) -> None:
    sizes = {"small": [2, 5], "large": [7, 7]}
    for experiment, dims in sizes.items():
        for i, dim in enumerate(dims):
            settings = {"model.latent_dim": dim, "data.batch_size": 20 if experiment == "small" else 30}
            add_run(f"{experiment}/{i}", settings, {"choices": {"experiment": experiment}})
    add_run("other", ledger={"data": "mnist"})
    text = shown()
    assert "digits: 4 runs" in text and "mnist: 1 run\n" in text and "│ small/0 " in text and "│ other " in text
    assert "latent_dim" in text and "batch_size" not in text and "not comparable" not in text
    assert {record["data.batch_size"] for record in listed()} >= {20, 30}


def test_an_interrupted_run_shows_its_last_bound_with_a_mark(add_run, listed, shown) -> None:
    path = add_run("half", record={"status": "running", "samples_evaluated": 100}, ledger=None)
    (path / "metrics.csv").write_text("samples_evaluated,test/bound\n100,-9.0\n200,-7.5\n")
    assert "-7.50 a " in shown() and "a: " in shown()  # alone in its table
    add_run("whole", ledger={"test/bound": -5.0})
    half, whole = listed()
    assert (half["bound"], half["samples_evaluated"], whole["bound_mark"]) == (-7.5, 200, "")
    text = shown()
    assert f"-7.50 {half['bound_mark']} " in text and "measured in a training that has not ended" in text
    (path / "metrics.csv").write_text("samples_evaluated,test/bound\n100,minus nine\n")
    assert listed()[0]["status"] == "broken" and "metrics.csv" in listed()[0]["problem"]


def test_sorted_values_stand_with_those_that_they_can_be_compared_with(add_run, listed) -> None:
    for i, (bound, binarization) in enumerate([(-5.0, "none"), (-1.0, "dynamic"), (-4.0, "none"), (-9.0, "dynamic")]):
        add_run(f"r{i}", ledger={"test/bound": bound, "binarization": binarization})
    add_run("r4", ledger={"test/bound": -7.0})
    assert names(listed("sort=test/bound")) == ["r2", "r0", "r4", "r1", "r3"]


def test_quantity_that_stands_for_some_runs_has_a_column_for_all_if_it_is_asked_for(add_run, listed) -> None:
    add_run("a", ledger={"test/bound": -1.0, "val/bound": -2.0})
    add_run("b", ledger={"test/bound": -3.0, "val/bound": -4.0})
    add_run("c", ledger={"test/bound": None, "val/bound": -3.0})
    records = listed("sort=val/bound")
    assert [(record["bound"], record["val/bound"]) for record in records] == [(-1.0, -2.0), (-3.0, -3.0), (-3.0, -4.0)]
    assert [bool(record["bound_mark"]) for record in records] == [False, True, False]
    assert "test/bound" not in listed("sort=test/bound")[0]


def test_estimator_that_most_runs_have_is_shown(add_run, listed) -> None:
    for i, counts in enumerate([(50,), (50, 500), (500, 50)]):
        add_run(f"r{i}", ledger={key: -1.0 for k in counts for key in (f"{IWAE}{k}", f"{IWAE}{k}_se")})
    assert {record["log_likelihood_key"] for record in listed()} == {f"{IWAE}50"}


def test_of_estimates_that_as_many_runs_have_the_one_with_most_samples_is_shown(add_run, listed) -> None:
    add_run("r", ledger={f"{IWAE}{k}": -1.0 for k in (10, 500, 50)})
    assert [record["log_likelihood_key"] for record in listed()] == [f"{IWAE}500"]


def test_value_that_cannot_be_trusted_is_flagged_and_so_is_a_mean_of_such(add_run, listed, shown) -> None:
    for seed, share in enumerate((0.0, 0.002, 0.5)):
        known = {f"{IWAE}50": -1.0 - seed, f"{IWAE}50_se": 0.01, f"{IWAE}50_high_k_hat": share}
        add_run(f"s{seed}", {"seed": seed}, ledger=known)
    text = shown("sort=-log_likelihood")
    assert "-2.00 ± 0.01 !1%" in text and "-3.00 ± 0.01 !50%" in text and "-1.00 ± 0.01 !" not in text
    assert "!: neither value nor error can be trusted" in text
    assert [record["log_likelihood_high_k_hat"] for record in listed()] == [0.0, 0.002, 0.5]
    assert "!17%" in shown("over=seed")
    text = shown("root=outputs/s0")
    assert "!" not in text and "log_likelihood_high_k_hat" not in text


# ---- groups ----


def test_group_has_mean_standard_error_and_number_of_seeds(add_run, listed, shown) -> None:
    rng = np.random.default_rng(0)
    bounds = {2: rng.normal(-30, 1, 4), 10: rng.normal(-20, 1, 3)}
    for latent, values in bounds.items():
        for seed, bound in enumerate(values):
            add_run(f"l{latent}s{seed}", {"seed": seed, "model.latent_dim": latent}, ledger={"test/bound": bound})
    add_run("alone", {"model.latent_dim": 5}, ledger={"test/bound": -25.0})
    add_run("running", {"model.latent_dim": 5, "seed": 1}, {"status": "interrupted"}, {"test/bound": -1.0})
    two, five, ten = listed("group=data.name,model.latent_dim", "over=seed")
    for record, latent in ((two, 2), (ten, 10)):
        values = bounds[latent]
        assert record["data.name"] == "digits" and record["model.latent_dim"] == latent and record["n"] == len(values)
        assert record["bound"] == pytest.approx(values.mean(), rel=1e-12)
        assert record["bound_se"] == pytest.approx(values.std(ddof=1) / math.sqrt(len(values)), rel=1e-12)
        assert record["runs"] == [f"outputs/l{latent}s{seed}" for seed in range(len(values))]
    assert five["bound"] == -25.0 and five["bound_se"] is None and five["n"] == 1
    assert "not finished: 1 run" in listed.notes
    text = shown("over=seed")
    assert f"{two['bound']:.2f} ± {two['bound_se']:.2f}" in text and "-25.00 │" in text
    assert [record["model.latent_dim"] for record in listed("over=seed", "sort=test/bound")] == [10, 5, 2]
    assert [record["model.latent_dim"] for record in listed("over=seed", "sort=-model.latent_dim")] == [10, 5, 2]
    assert listed("group=latent_dim", "show=wall_seconds")[0]["wall_seconds_n"] == 4


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"binarization": "dynamic"}, "binarization"),
        ({"scale": "x/255"}, "scale"),
        ({"split_hash": "0123456789ab"}, "split hash"),
        ({"likelihood": "GaussianLikelihood"}, "likelihood"),
        ({"likelihood": "ContinuousBernoulliLikelihood"}, "likelihood"),
        ({"test/bound_num_samples": 8}, "draws of z"),
        ({f"{IWAE}500": None, f"{IWAE}50": -1.0, f"{IWAE}50_se": 0.1}, "estimator"),
        ({f"{IWAE}500": None, f"{IWAE.replace('test', 'test[:5]')}500": -1.0}, "split"),
    ],
)
def test_values_that_cannot_be_compared_are_never_averaged(facts, reason, add_run, listed) -> None:
    for seed in range(4):
        ledger = {f"{IWAE}500": -2.0, f"{IWAE}500_se": 0.1}
        add_run(f"r{seed}", {"seed": seed}, ledger=ledger | (facts if seed == 3 else {}))
    records = listed("group=data.name", "over=seed")
    assert sorted(record["n"] for record in records) == [1, 3]
    assert len({record[reason] for record in records}) == 2
    assert f"not averaged over {reason}" in listed.notes
    marks = [(record["n"], bool(record["bound_mark"] or record["log_likelihood_mark"])) for record in records]
    assert sorted(marks) == [(1, True), (3, False)]


def test_bound_with_several_draws_is_marked_and_the_number_is_said(add_run, listed, shown) -> None:
    for name, draws in (("a", 1), ("b", None), ("c", 8)):
        add_run(name, ledger={"test/bound_num_samples": draws})
    assert [bool(record["bound_mark"]) for record in listed()] == [False, False, True]
    assert "draws of z 8 (unmarked: 1)" in listed.notes
    assert "the mean over 8 draws of z" in shown("root=outputs/c") and "draws" not in shown("root=outputs/a")


SPEED = {
    "matmul_backend": ("default", "onednn"),
    "compile": (False, True),
    "cuda_graph": (True, False),
    "channels_last": (False, True),
    "steps_per_execution": (4, 50),
    "trainer.accelerator": ("cpu", "gpu"),
}


@pytest.mark.parametrize("key", SPEED)
def test_seeds_whose_runs_differ_in_speed_alone_are_averaged(key, add_run, listed) -> None:
    for seed, value in enumerate(SPEED[key]):
        add_run(f"r{seed}", {"seed": seed, key: value}, ledger={"test/bound": -1.0 - seed})
    (record,) = listed("over=seed")
    assert (record["n"], record["bound"], record["mixed"]) == (2, -1.5, [])


def test_run_without_a_value_keeps_its_place_in_the_group(add_run, listed, shown) -> None:
    for seed in range(3):
        measured = {f"{IWAE}500": -2.0 - seed, f"{IWAE}500_se": 0.1} if seed else {}
        add_run(f"r{seed}", {"seed": seed}, ledger=measured)
    (record,) = listed("group=data.name")
    assert (record["n"], record["bound_n"], record["log_likelihood_n"]) == (3, 3, 2)
    assert record["log_likelihood"] == -3.5 and "(n=2)" in shown("group=data.name")


def test_other_settings_in_a_group_are_pointed_out(add_run, listed, shown) -> None:
    for seed in range(2):
        add_run(f"r{seed}", {"seed": seed, "optimizer.lr": 0.1 * (seed + 1)})
    (record,) = listed("group=data.name", "over=seed")
    assert record["mixed"] == ["optimizer.lr"]
    assert "2*" in shown("group=data.name") and "differ in lr as well" in shown("group=data.name")
    (record,) = listed("group=data.name", "over=seed,optimizer.lr")
    assert record["mixed"] == []


def test_repeated_run_counts_once(add_run, listed) -> None:
    for name, bound in (("2026-01-01", -1.0), ("2026-01-02", -2.0)):
        add_run(name, ledger={"test/bound": bound})
    add_run("other", {"seed": 8}, ledger={"test/bound": -4.0})
    (record,) = listed("group=data.name")
    assert (
        record["n"] == 2
        and record["bound"] == -3.0
        and "repeated later with the very same settings: 1 run" in listed.notes
    )


def test_notes_explain_no_column_that_is_not_there(add_run, listed) -> None:
    add_run("2026-01-01", ledger={f"{IWAE}500": -1.0})
    add_run("2026-01-02")
    assert listed("over=seed")[0]["log_likelihood"] is None and "log p(x)" not in listed.notes


def test_what_has_no_mean_is_refused(add_run, capsys) -> None:
    add_run("a")
    assert "device is no number" in refused(capsys, "group=seed", "show=device")


def test_group_of_unfinished_runs_only_is_empty(add_run, listed) -> None:
    add_run("a", record={"status": "planned"}, ledger={"test/bound": None})
    assert listed("over=seed") == [] and "not finished: 1 run" in listed.notes


# ---- formats ----


def test_csv_has_full_keys_and_full_precision(three, capsys) -> None:
    assert main(["runs", "format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["bound"] for row in rows] == ["-30.0", "-10.5", "-20.0", ""]
    assert [row["model.latent_dim"] for row in rows] == ["2", "5", "10", "3"]


def test_markdown_is_a_pipe_table_with_its_notes(three, shown) -> None:
    header, rule, first, *_ = shown("format=markdown", "sort=test/bound").splitlines()
    assert header.split()[:5] == ["|", "run", "|", "status", "|"] and header.count("|") == rule.count(
        "|"
    ) == first.count("|")
    assert "---:" in rule and "-10.50" in first


def test_latex_has_the_rules_of_booktabs_and_escapes_names(three, shown) -> None:
    text = shown("group=model.latent_dim", "format=latex")
    for expected in (r"\toprule", r"\bottomrule", r"latent\_dim", "$-10.50$", r"% \usepackage{booktabs}"):
        assert expected in text
    for sign in ("_", "±"):
        assert not [part for part in text.split(sign)[:-1] if not part.endswith("\\")], sign


# ---- many runs ----


@pytest.mark.slow
def test_nothing_heavy_is_imported(add_run) -> None:
    add_run("a")
    code = (
        "import sys; from vae_lab.cli import main; assert main(['runs', 'sort=test/bound']) == 0; "
        "assert not {'torch', 'hydra', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_thousand_runs_are_listed_and_a_reader_may_stop_early(add_run, outputs: Path) -> None:
    original = add_run("original")
    record = json.loads((original / "run.json").read_text())
    record.pop("fixed_settings", None)  # or a config that is another's would be told
    (original / "run.json").write_text(json.dumps(record))
    texts = {file.name: file.read_text() for file in original.iterdir()}
    for i in range(1, 1000):
        folder = outputs / f"sweep{i // 100}" / f"r{i:03}"
        (folder / "checkpoints").mkdir(parents=True)
        for name, text in texts.items():
            changed = text.replace("seed: 0", f"seed: {i % 7}").replace("lr: 0.001", f"lr: {1e-3 / (i + 1)}")
            (folder / name).write_text(changed.replace("latent_dim: 3", f"latent_dim: {i % 9 + 2}"))
    command = [sys.executable, "-m", "vae_lab", "runs"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.count("finished") == 1001 and "latent_dim" in result.stdout  # one of them in the title
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "1000 runs" in process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        assert process.stderr.read() == "" and process.wait(timeout=60) == 0
