"""`scripts/bench`: sides in turn, medians, ratios and their limits; every side works; the command and its file."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import bench, hand_written, lab, training_cases
from benchmarks.conditions import MATMUL, Conditions, cores
from benchmarks.estimators import WithModel
from benchmarks.hand_written import ALL_GRADIENTS, HandWritten, ItemByItem, Task, UntilBound, WakeSleepLoop, limits
from benchmarks.lab import (
    ClockWithReference,
    EvaluationShare,
    FinalBound,
    Growth,
    Lab,
    TimeToBound,
    train_config,
    train_once,
)
from benchmarks.other_libraries import JaxEpoch, PythaeTraining
from benchmarks.processes import CHILD, PeakMemory, ProcessTime, SeveralTrainings, listing, run
from benchmarks.sides import (
    Case,
    Comparison,
    Side,
    Throughput,
    difference,
    lacking,
    measure_case,
    ratio,
    time_for,
    value_of,
)
from torch import Tensor

from vae_lab.errors import ConfigError, Failed
from vae_lab.wiring import build
from vae_lab.wiring.compose import compose_command

TINY = ("data.train_size=300", "data.batch_size=50", "model.encoder.hidden=[16]", "steps_per_execution=2")


@pytest.fixture
def conditions(tmp_path: Path) -> Conditions:
    return Conditions(1, "cpu", tmp_path)


@pytest.fixture
def images() -> Tensor:
    """Grey images that can be told apart from noise: the same picture, brighter or darker."""
    picture = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return picture.round() * torch.linspace(0.5, 1, 400).view(-1, 1, 1, 1)


@pytest.fixture
def jax(capsys: pytest.CaptureFixture[str]) -> None:
    """JAX and optax, imported with the real stderr: absl keeps the one that it finds, and closes another than that."""
    with capsys.disabled():
        pytest.importorskip("jax")
        pytest.importorskip("optax")


class Fake(Side):
    """Says what it is told to; the order of all calls is noted."""

    def __init__(self, name: str, values: list[float], calls: list[str], packages: tuple[str, ...] = ()) -> None:
        super().__init__(name, Conditions(1, "cpu", Path()))
        self.absent_because = lacking(*packages)
        self.values, self.calls = iter(values), calls

    def prepare(self, seconds: float) -> None:
        self.calls.append(f"prepare {self.name}")

    def measure(self, seconds: float) -> float:
        self.calls.append(f"{self.name} for {seconds:g}")
        return next(self.values)


def measured(case: Case, repeats: int | None = 3, calls: list[str] | None = None) -> dict[str, Any]:
    noted = [] if calls is None else calls
    return measure_case(case, repeats=repeats, seconds=0.5, neutral=lambda: noted.append("neutral"))


# ---- sides in turn, and what follows ----


def test_sides_work_in_turn_and_each_finds_neutral_settings() -> None:
    calls: list[str] = []
    case = Case([Fake("a", [1, 2], calls), Fake("b", [3, 4], calls)], longer=2)
    outcome = measured(case, repeats=2, calls=calls)
    turns = ["prepare a", "prepare b", *["a for 1", "b for 1"] * 2]
    assert calls == list(itertools.chain.from_iterable(("neutral", turn) for turn in turns))
    assert outcome["sides"]["b"]["values"] == [3, 4]


def test_side_whose_package_is_missing_is_left_out_with_its_comparisons() -> None:
    there, absent = Fake("a", [1.0], []), Fake("b", [], [], packages=("json", "no_such_package"))
    outcome = measured(Case([there, absent], [ratio("a", "b"), ratio("a", [there, absent], "one")]), repeats=1)
    assert outcome["left_out"] == {"b": "no_such_package not found: pip install .[bench]"}
    assert list(outcome["sides"]) == ["a"] and list(outcome["comparisons"]) == ["one"]


def test_case_that_takes_long_is_repeated_less_often() -> None:
    case = Case([Fake("a", [1, 2], [])], most_repeats=2)
    assert measured(case, repeats=None)["sides"]["a"]["values"] == [1, 2]
    case = Case([Fake("a", [1, 2, 3], [])], most_repeats=2)
    assert measured(case, repeats=3)["sides"]["a"]["values"] == [1, 2, 3]  # as it was asked for
    case = Case([Fake("a", list(range(7)), [])])
    assert len(measured(case, repeats=None)["sides"]["a"]["values"]) == 7


def test_ratio_is_the_median_over_neighbours() -> None:
    values = {"ours": [10.0, 30.0, 8.0], "theirs": [5.0, 10.0, 8.0]}
    case = Case([Fake(name, list(given), []) for name, given in values.items()], [ratio("ours", "theirs")])
    spread = measured(case)["comparisons"]["ours / theirs"]
    assert spread["values"] == [2, 3, 1] and spread["median"] == 2


def test_of_several_sides_the_one_with_the_highest_median_counts() -> None:
    values = {"ours": [6.0, 6.0, 6.0], "slow": [9.0, 1.0, 1.0], "fast": [2.0, 2.0, 2.0]}
    slow, fast, absent = (Fake(name, [], []) for name in ("slow", "fast", "absent"))
    assert ratio("ours", [slow, fast, absent]).of(values) == [3, 3, 3]
    assert ratio([slow, fast], "ours").of(values) == pytest.approx([1 / 3] * 3)


def test_other_comparisons() -> None:
    values = {"peak": [700.0, 710.0], "imports": [400.0, 405.0]}
    assert difference("peak", "imports").of(values) == [300, 305]
    assert time_for(1e8, "peak").of(values) == pytest.approx([1e8 / 700, 1e8 / 710])
    assert value_of("imports").of(values) == [400, 405]
    for comparison in (difference("a", "b"), time_for(1.0, "a"), value_of("a"), ratio("a", "b")):
        assert comparison.of({}) == []


@pytest.mark.parametrize(
    ("comparison", "median", "holds"),
    [
        (ratio("a", "b", at_least=1.4), 1.4, True),
        (ratio("a", "b", at_least=1.4), 1.39, False),
        (ratio("a", "b", at_most=3), 3.1, False),
        (value_of("a", at_most=0.1), 0.09, True),
        (ratio("a", "b"), 1.0, None),
    ],
)
def test_limit_is_held_against_the_median(comparison: Comparison, median: float, holds: bool | None) -> None:
    assert comparison.holds(median) is holds


def test_amount_of_a_throughput_takes_about_the_asked_time() -> None:
    class Machine(Throughput):
        """1,000 units of work per second, and a tenth of a second more the first time."""

        done: tuple[int, ...] = ()
        speed = 1000

        def do(self, amount: int) -> None:
            self.done = (*self.done, amount)

        def work(self, amount: int) -> float:
            self.do(amount)
            return amount / self.speed + (0.1 if len(self.done) == 1 else 0)

    side = Machine("a", Conditions(1, "cpu", Path()), unit=20)
    side.prepare(2.0)
    assert side.done[:2] == (20, 20) and side.amount == 2000
    assert side.measure(2.0) == pytest.approx(1000)
    side.speed = 100
    assert [side.measure(2.0) for _ in range(2)] == pytest.approx([100, 100])
    assert side.done[-2:] == (2000, 200)
    side.prepare(0.001)
    assert side.amount == 20


# ---- the command ----


@pytest.fixture
def fake_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The case mlp with two sides that say 3 and 2; the working folder is an empty one."""
    sides = [Fake("ours", [3.0] * 9, []), Fake("theirs", [2.0] * 9, []), Fake("far", [], [], ("no_such_package",))]
    sides[0].facts["compile_seconds"] = 1.5
    case = Case(sides, [ratio("ours", "theirs", at_least=1.4), ratio("ours", "far", at_most=2)], summary="a case")
    monkeypatch.setattr(bench, "make_case", lambda name, conditions: case)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_prints_tables_and_writes_a_file(fake_case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert bench.main(["case=mlp", "repeats=3", "seconds=0.1", "threads=1"]) == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    for expected in ("mlp: a case", "ours / theirs", "1.5", ">= 1.4", "held", "without far", "pip install .[bench]"):
        assert expected in out
    path = Path(out.splitlines()[-1])
    assert path.parent == Path("outputs/bench")
    report = json.loads(path.read_text())
    assert report["settings"] == {"repeats": 3, "seconds": 0.1, "threads": 1, "device": "cpu"}
    assert {"processor", "cores", "versions", "git_commit"} <= set(report["machine"])
    case = report["cases"]["mlp"]
    assert case["sides"]["ours"] == {
        **{"median": 3.0, "min": 3.0, "max": 3.0, "values": [3.0] * 3},
        "facts": {"compile_seconds": 1.5},
    }
    compared = case["comparisons"]["ours / theirs"]
    assert (compared["median"], compared["at_least"], compared["held"]) == (1.5, 1.4, True)
    assert "no_such_package" in case["left_out"]["far"] and "ours / far" not in case["comparisons"]


def test_measurements_are_never_overwritten(fake_case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fake_case / "mine.json").write_text("{}")
    assert bench.main(["output=mine.json"]) == 2
    assert "mine.json exists already" in capsys.readouterr().err
    assert (fake_case / "mine.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("case=mpl", ["case=mpl", "did you mean 'mlp'"]),
        ("case=cuda_graph", ["case=cuda_graph", "device=cuda"]),
        ("repeats=0", ["repeats", ">= 1"]),
        ("seconds=none", ["seconds must be a number > 0", "none"]),
        ("seconds=-1", ["seconds must be a number > 0"]),
        ("threads=100000", ["threads must be <="]),
        ("device=tpu", ["device=tpu", "cuda"]),
    ],
)
def test_mistake_is_one_message_before_anything_is_measured(
    argument: str, expected: list[str], fake_case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([argument]) == 2
    captured = capsys.readouterr()
    (message,) = captured.err.splitlines()
    for part in expected:
        assert part in message
    assert captured.out == ""
    assert list(fake_case.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_that_is_not_there_is_refused(fake_case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["device=cuda", "case=mlp"]) == 2
    assert "finds no GPU" in capsys.readouterr().err


def test_data_that_is_not_there_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_cases, "training_images", no_data)
    assert bench.main(["case=mlp", "threads=1", f"output={tmp_path / 'a.json'}"]) == 2
    captured = capsys.readouterr()
    assert "no file" in captured.err and captured.out == ""


def no_data(experiment: str) -> Tensor:
    raise ConfigError(f"no file for {experiment}")


def test_default_and_all_depend_on_the_device() -> None:
    assert {"mlp", "conv", "jobs", "memory"} <= set(bench.chosen(["default"], "cpu"))
    assert not {"growth", "evaluation", "cuda_graph"} & set(bench.chosen(["default"], "cpu"))
    assert set(bench.CASES) - set(bench.chosen(["all"], "cpu")) == {"cuda_graph", "shared_jobs"}
    assert bench.chosen(["growth", "mlp"], "cpu") == ["mlp", "growth"]
    assert {"cuda_graph", "shared_jobs"} <= set(bench.chosen(["default"], "cuda"))
    only_cpu = {"full_variational_bayes", "monte_carlo_em", "whole_run", "sweep", "quickstart"}
    assert set(bench.chosen(["all"], "cuda")) == set(bench.CASES) - only_cpu


def test_cores_are_limited_for_a_while() -> None:
    before = os.sched_getaffinity(0)
    with cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_neutral_takes_back_what_a_side_has_set(conditions: Conditions) -> None:
    threads = torch.get_num_threads()
    try:
        MATMUL.fp32_precision = "bf16"
        conditions.neutral()
        assert MATMUL.fp32_precision == "none" and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


# ---- every side does its work ----


def loss_of(side: HandWritten, x: Tensor) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return side.task.loss(side.encoder, side.decoder, x).item()


def learns(side: HandWritten, images: Tensor, amount: int) -> bool:
    side.prepare(1e-9)
    before = loss_of(side, images)
    side.work(amount)
    return loss_of(side, images) < before - 10


@pytest.mark.parametrize("name", ["MNIST", "MNIST_CONV", "IWAE", "FREY_FACE"])
@pytest.mark.parametrize("half", [False, True])
def test_hand_written_loop_learns(name: str, half: bool, images: Tensor, conditions: Conditions) -> None:
    images = images[..., :20] if name == "FREY_FACE" else images
    task = getattr(hand_written, name)._replace(batch_size=20, binarize=False)
    assert learns(HandWritten("", task, images[:100], conditions, half=half), images[:100], 200)


def test_hand_written_wake_sleep_learns_and_moves_both_networks(images: Tensor, conditions: Conditions) -> None:
    side = WakeSleepLoop("", hand_written.MNIST, images, conditions)
    torch.manual_seed(0)
    fresh = hand_written.MNIST.networks()[0]
    assert learns(side, images, 1000)
    assert not torch.equal(side.encoder[1].weight, fresh[1].weight)  # pyright: ignore[reportIndexIssue]


def test_item_by_item_sees_the_same_images(images: Tensor, conditions: Conditions) -> None:
    side = ItemByItem("", hand_written.MNIST, images, conditions)
    assert learns(side, images, 1000)
    assert (side.loader.dataset[7] - images[7]).abs().max() < 0.002


@pytest.mark.parametrize(
    ("task", "experiment", "shape"),
    [
        (hand_written.MNIST, "mnist", (1, 28, 28)),
        (hand_written.MNIST_CONV, "mnist_conv", (1, 28, 28)),
        (hand_written.FREY_FACE, "frey_face", (1, 28, 20)),
        (hand_written.IWAE, "iwae", (1, 28, 28)),
    ],
)
def test_networks_written_by_hand_are_those_of_the_experiments(
    task: Task, experiment: str, shape: tuple[int, int, int]
) -> None:
    config = compose_command("train", [f"experiment={experiment}"])[0]
    ours = build.instantiate(config["model"], "model", image_shape=shape)
    for theirs, own in zip(task.networks(), (ours.encoder, ours.decoder), strict=True):
        assert sum(weight.numel() for weight in theirs.parameters()) == sum(w.numel() for w in own.parameters())
    assert task.networks()[0](torch.rand(2, *shape)).shape == (2, 2 * ours.latent_dim)
    assert task.batch_size == config["data"]["batch_size"]


def test_products_are_those_of_the_network(conditions: Conditions) -> None:
    networks = hand_written.MNIST.networks()
    side, *_ = limits(networks, 4, ALL_GRADIENTS, conditions, first_is_data=True)
    side.prepare(1e-9)
    weights = [weight for network in networks for weight in network.parameters() if weight.ndim == 2]
    assert [layer[1].shape for layer in side.layers] == [weight.shape for weight in weights]
    for i, (x, weight, y, x_gradient, weight_gradient) in enumerate(side.layers):
        torch.testing.assert_close(y, x @ weight.t())
        torch.testing.assert_close(weight_gradient, y.t() @ x)
        if i:
            torch.testing.assert_close(x_gradient, y @ weight)


@pytest.mark.slow
@pytest.mark.usefixtures("jax")
def test_jax_improves_the_bound_and_trains_on_the_objective_of_the_hand_written_loop(
    images: Tensor, conditions: Conditions
) -> None:
    side, other = (
        JaxEpoch("", images, conditions),
        HandWritten("", hand_written.MNIST, images, conditions),
    )
    for one in (side, other):
        one.prepare(1e-9)
        one.work(10 * side.unit)
    assert 400 < side.losses[0] < 600 and side.losses[-1] < side.losses[0] - 50
    assert side.losses[-1] == pytest.approx(loss_of(other, images), rel=0.15)
    assert side.facts["compile_seconds"] > 0


def test_pythae_learns_and_leaves_nothing_behind(
    images: Tensor, conditions: Conditions, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pythae")
    before = dict(os.environ)
    side = PythaeTraining("", images, conditions)
    side.prepare(1e-9)
    first = side.model({"data": images}).loss.item()
    assert side.work(10 * len(images) + 100) > 0
    assert side.model({"data": images}).loss.item() < first - 10
    assert dict(os.environ) == before and list(conditions.folder.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_lab_trains_for_real_and_leaves_nothing_behind(conditions: Conditions) -> None:
    side = Lab("", TINY, conditions)
    assert side.unit == 100
    assert 0 < side.work(300) < 60
    assert list(conditions.folder.iterdir()) == []


def test_side_with_a_model_multiplies_as_the_lab_would(conditions: Conditions) -> None:
    seen: list[str] = []
    side = WithModel([*TINY], 1, lambda model, amount: seen.append(MATMUL.fp32_precision), conditions)
    side.prepare(1e-9)
    conditions.neutral()
    side.work(1)
    assert set(seen) == {side.precision}


@pytest.mark.slow
def test_share_of_evaluations_and_growth_come_from_a_whole_run(
    conditions: Conditions, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*TINY, "evaluation.first=100", "max_samples=3000"]
    share = EvaluationShare("", overrides, conditions)
    assert share.measure(0) > 0
    assert share.facts["training_seconds"] > 0
    assert share.facts["evaluation_seconds"] > share.facts["of_which_measuring"] > 0
    monkeypatch.setattr(lab, "training_images", lambda experiment: images)
    growth = Growth("", overrides, conditions)
    growth.prepare(0)
    assert growth.measure(0) > 0 and growth.facts["without_reference"] > 0


def test_growth_is_counted_in_the_reference_of_the_same_time(conditions: Conditions) -> None:
    clock = ClockWithReference(HandWritten("", hand_written.MNIST, torch.rand(100, 1, 28, 28), conditions))
    clock.blocks = [(50, 1.0), (150, 3.0), (450, 7.0), (4900, 18.0), (5000, 23.0)]
    clock.turns = [(9.0, 2.0), (0.004, 4.0), (0.006, 9.0), (0.001, 19.0), (0.01, 24.0)]
    assert clock.costs().loc[0].tolist() == pytest.approx([(1.0 + 3.0) / 400, 0.005]), "the first block only begins"
    assert clock.costs().loc[9].tolist() == pytest.approx([(9.0 + 4.0) / 4550, 0.0055])


@pytest.mark.slow
def test_final_bound_is_the_last_of_the_curve(conditions: Conditions) -> None:
    side = FinalBound("", [*TINY, "evaluation.first=100", "max_samples=1000"], conditions)
    assert side.measure(0) == train_once(side.config, conditions).rows[-1]["test/bound"] < 0


@pytest.mark.slow
def test_time_to_a_bound_is_that_of_the_whole_training_and_names_a_bound_that_was_missed(
    conditions: Conditions,
) -> None:
    overrides = [*TINY, "evaluation.first=500", "max_samples=1000"]
    side = TimeToBound("ours", overrides, -1000, conditions)
    assert side.measure(0) > 0
    bound = train_once(side.config, conditions).rows[-1]["test/bound"]
    assert side.facts == {"test_bound": bound}
    with pytest.raises(Failed, match=r"ours ended at -\d+\.\d+ nats, below -1: "):
        TimeToBound("ours", overrides, -1, conditions).measure(0)


def test_hand_written_loop_trains_until_the_bound_is_reached_or_given_up(
    images: Tensor, conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = UntilBound("by hand", hand_written.MNIST, images, images[:100], -400, conditions)
    assert side.measure(0) > 0 and side.facts["test_bound"] >= -400
    epochs = side.facts["epochs"]
    assert side.measure(0) > 0 and side.facts["epochs"] == epochs > 1  # anew
    monkeypatch.setattr(hand_written, "MOST_EPOCHS", 1)
    with pytest.raises(Failed, match=r"by hand is at -\d+\.\d+ nats after 1 epochs, below -400"):
        side.measure(0)


def test_process_that_fails_is_named(conditions: Conditions) -> None:
    with pytest.raises(Failed, match="code 1: KeyError: 'a reason'"):
        run(sys.executable, "-c", "raise KeyError('a reason')")
    assert ProcessTime("", [sys.executable, "-c", "pass"], conditions).measure(0) > 0


@pytest.mark.slow
def test_first_step_ends_a_training(conditions: Conditions) -> None:
    overrides = ["threads=1", f"output_root={conditions.folder}", "callbacks=none", *TINY]
    run(*CHILD, os.devnull, "first_step", *overrides)
    (started,) = conditions.folder.glob("*/*")
    assert json.loads((started / "run.json").read_text())["status"] == "running"
    assert not list(started.glob("checkpoints/*"))


@pytest.mark.slow
def test_memory_is_held_against_the_same_imports(conditions: Conditions) -> None:
    side = PeakMemory("estimate", ["estimate", 10, 3, 1], conditions)
    same = side.imports()
    peak = side.measure(0)
    assert 50 < same.measure(0) < peak + 50
    modules = [set(json.loads(one.result.read_text())["modules"]) for one in (side, same)]
    assert modules[0] == modules[1] and "torch" in modules[0]


@pytest.mark.slow
def test_several_trainings_run_and_a_failure_is_named(conditions: Conditions, warm_jobs: None) -> None:
    config = train_config([*TINY, "max_samples=200", "callbacks=none"], conditions)
    assert SeveralTrainings(config, 1, 1, conditions).measure(0) > 0
    broken = {**config, "seed": -1, "trainer": {**config["trainer"], "precision": "64-true"}}
    with pytest.raises(Failed, match=r"trainer\.precision"):
        SeveralTrainings(broken, 1, 1, conditions).measure(0)


@pytest.mark.skipif("VAE_LAB_DATA" not in os.environ, reason="VAE_LAB_DATA names no folder with real data")
@pytest.mark.slow
def test_real_data_are_measured_by_the_real_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, threads = tmp_path / "bench.json", torch.get_num_threads()
    try:
        assert bench.main(["case=wake_sleep,hmc", "seconds=0.001", "repeats=1", "threads=1", f"output={path}"]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads(path.read_text())
    assert list(report["cases"]) == ["wake_sleep", "hmc"] and str(path) in capsys.readouterr().out
    assert {"ours, eager", "ours, compiled", "hand-written"} == set(report["cases"]["wake_sleep"]["sides"])
    assert {"ours", "matrix products", "matrix products, oneDNN"} == set(report["cases"]["hmc"]["sides"])
    assert all(side["median"] > 0 for case in report["cases"].values() for side in case["sides"].values())
    assert "ours, eager / hand-written" in report["cases"]["wake_sleep"]["comparisons"]


@pytest.mark.slow
@pytest.mark.skipif("VAE_LAB_DATA" not in os.environ, reason="VAE_LAB_DATA names no folder with real data")
@pytest.mark.parametrize("name", [name for name in bench.CASES if name != "listing"])
def test_every_case_is_made_from_real_data_and_compares_its_own_sides(name: str, conditions: Conditions) -> None:
    case = bench.make_case(name, conditions)
    names = [side.name for side in case.sides]
    assert case.summary and len(set(names)) == len(names)
    for comparison in case.comparisons:
        assert comparison.of({side: [2.0] for side in names}), comparison.name


@pytest.mark.slow
def test_listing_finds_as_many_runs_as_are_asked_for(conditions: Conditions) -> None:
    (side,) = listing(conditions, count=3).sides
    assert isinstance(side, ProcessTime)
    result = subprocess.run(side.command, capture_output=True, text=True, check=True)
    assert result.stdout.count("planned") >= 3
