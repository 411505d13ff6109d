"""`scripts/bench`: sides in turn, medians, ratios and their limits; every side works; the command and its file."""

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks import bench, catalogue, networks, training_cases
from benchmarks.comparisons import Comparison, difference, ratio, time_for, value_of
from benchmarks.conditions import Conditions, cores, set_matmul_precision
from benchmarks.data_loader import ItemByItem
from benchmarks.estimators import WithModel
from benchmarks.hand_written import HandWritten, bernoulli_loss
from benchmarks.hand_written_objectives import WakeSleepLoop, gaussian_loss, importance_weighted_loss
from benchmarks.jax_epoch import JaxEpoch
from benchmarks.lab import Clock, Lab, train_config
from benchmarks.long_runs import BlockClock, EvaluationShare, FinalBound, Growth
from benchmarks.matrix_products import ALL_GRADIENTS, FORWARD, INPUT_GRADIENTS, MatrixProducts
from benchmarks.processes import CHILD, PeakMemory, ProcessTime, SeveralTrainings, python
from benchmarks.pythae_training import PythaeTraining
from benchmarks.sides import Case, Outcome, Side, Throughput, measure_case
from torch import Tensor, nn

from vae_lab.errors import ConfigError, Failed
from vae_lab.training.matmul import MKLDNN
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
        super().__init__(name, packages=packages)
        self.values, self.calls = iter(values), calls

    def prepare(self, seconds: float) -> None:
        self.calls.append(f"prepare {self.name}")

    def measure(self, seconds: float) -> float:
        self.calls.append(f"{self.name} for {seconds:g}")
        return next(self.values)


def measured(case: Case, repeats: int | None = 3, calls: list[str] | None = None) -> Outcome:
    noted = [] if calls is None else calls
    return measure_case(case, repeats=repeats, seconds=0.5, neutral=lambda: noted.append("neutral"))


# ---- sides in turn, and what follows ----


def test_sides_work_in_turn_and_each_finds_neutral_settings() -> None:
    calls: list[str] = []
    case = Case("", "samples/s", [Fake("a", [1, 2], calls), Fake("b", [3, 4], calls)], longer=2)
    outcome = measured(case, repeats=2, calls=calls)
    turns = ["prepare a", "prepare b", *["a for 1", "b for 1"] * 2]
    assert calls == list(itertools.chain.from_iterable(("neutral", turn) for turn in turns))
    assert outcome.sides["b"].values == (3, 4)


def test_side_whose_package_is_missing_is_left_out_with_its_comparisons() -> None:
    there, absent = Fake("a", [1.0], []), Fake("b", [], [], packages=("json", "no_such_package"))
    outcome = measured(Case("", "s", [there, absent], [ratio("a", "b"), ratio("a", ("a", "b"), name="one")]), repeats=1)
    assert outcome.left_out == {"b": "no_such_package not found: pip install .[bench]"}
    assert list(outcome.sides) == ["a"] and list(outcome.comparisons) == ["one"]


def test_case_that_takes_long_is_repeated_less_often() -> None:
    case = Case("", "s", [Fake("a", [1, 2], [])], most_repeats=2)
    assert measured(case, repeats=None).sides["a"].values == (1, 2)
    case = Case("", "s", [Fake("a", [1, 2, 3], [])], most_repeats=2)
    assert measured(case, repeats=3).sides["a"].values == (1, 2, 3)  # as it was asked for
    case = Case("", "s", [Fake("a", list(range(7)), [])])
    assert len(measured(case, repeats=None).sides["a"].values) == 7


def test_ratio_is_the_median_over_neighbours() -> None:
    values = {"ours": [10.0, 30.0, 8.0], "theirs": [5.0, 10.0, 8.0]}
    case = Case("", "", [Fake(name, list(given), []) for name, given in values.items()], [ratio("ours", "theirs")])
    spread = measured(case).comparisons["ours / theirs"]
    assert spread.values == (2, 3, 1) and spread.median == 2


def test_of_several_sides_the_one_with_the_highest_median_counts() -> None:
    values = {"ours": [6.0, 6.0, 6.0], "slow": [9.0, 1.0, 1.0], "fast": [2.0, 2.0, 2.0]}
    assert ratio("ours", ("slow", "fast", "absent")).of(values) == [3, 3, 3]
    assert ratio(("slow", "fast"), "ours").of(values) == pytest.approx([1 / 3] * 3)


def test_other_comparisons() -> None:
    values = {"peak": [700.0, 710.0], "imports": [400.0, 405.0]}
    assert difference("peak", "imports").of(values) == [300, 305]
    assert time_for(1e8, "peak").of(values) == pytest.approx([1e8 / 700, 1e8 / 710])
    assert value_of("imports").of(values) == [400, 405]
    for comparison in (difference("a", "b"), time_for(1.0, "a"), value_of("a"), ratio("a", "b")):
        assert comparison.of({}) == []


@pytest.mark.parametrize(
    ("comparison", "median", "holds", "limit"),
    [
        (ratio("a", "b", at_least=1.4), 1.4, True, ">= 1.4"),
        (ratio("a", "b", at_least=1.4), 1.39, False, ">= 1.4"),
        (ratio("a", "b", at_most=3), 3.1, False, "<= 3"),
        (value_of("a", at_most=0.1), 0.09, True, "<= 0.1"),
        (ratio("a", "b"), 1.0, None, ""),
    ],
)
def test_limit_is_said_and_held_against_the_median(
    comparison: Comparison, median: float, holds: bool | None, limit: str
) -> None:
    assert comparison.holds(median) is holds and comparison.limit == limit


def test_amount_of_a_throughput_takes_about_the_asked_time() -> None:
    class Machine(Throughput):
        """1,000 units of work per second, and a tenth of a second more the first time."""

        done: tuple[int, ...] = ()
        speed = 1000

        def work(self, amount: int) -> float:
            self.done = (*self.done, amount)
            return amount / self.speed + (0.1 if len(self.done) == 1 else 0)

    side = Machine("a", unit=20)
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
    case = Case("a case", "samples/s", sides, [ratio("ours", "theirs", at_least=1.4), ratio("ours", "far")])
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
    monkeypatch.setattr(catalogue, "import_module", lambda name: training_cases)
    monkeypatch.setattr(training_cases, "training_images", no_data)
    assert bench.main(["case=mlp", "threads=1", f"output={tmp_path / 'a.json'}"]) == 2
    captured = capsys.readouterr()
    assert "no file" in captured.err and captured.out == ""


def no_data(experiment: str) -> Tensor:
    raise ConfigError(f"no file for {experiment}")


def test_default_and_all_depend_on_the_device() -> None:
    assert {"mlp", "conv", "jobs", "memory"} <= set(catalogue.chosen(["default"], "cpu"))
    assert not {"growth", "evaluation", "cuda_graph"} & set(catalogue.chosen(["default"], "cpu"))
    assert set(catalogue.CASES) - set(catalogue.chosen(["all"], "cpu")) == {"cuda_graph", "shared_jobs"}
    assert catalogue.chosen(["growth", "mlp"], "cpu") == ["mlp", "growth"]
    assert {"cuda_graph", "shared_jobs"} <= set(catalogue.chosen(["default"], "cuda"))
    assert set(catalogue.chosen(["all"], "cuda")) == set(catalogue.CASES)


def test_cores_are_limited_for_a_while() -> None:
    before = os.sched_getaffinity(0)
    with cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_neutral_takes_back_what_a_side_has_set(conditions: Conditions) -> None:
    threads = torch.get_num_threads()
    try:
        set_matmul_precision("bf16")
        conditions.neutral()
        assert MKLDNN.matmul.fp32_precision == "none" and torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


# ---- every side does its work ----


def loss_of(side: HandWritten, x: Tensor) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return side.loss(side.encoder, side.decoder, x).item()


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (networks.mnist_mlp, bernoulli_loss),
        (networks.mnist_conv, bernoulli_loss),
        (networks.two_layer_mlp, importance_weighted_loss),
    ],
)
@pytest.mark.parametrize("half", [False, True])
def test_hand_written_loop_learns(
    make: Callable, loss: Callable, half: bool, images: Tensor, conditions: Conditions
) -> None:
    side = HandWritten("", make, loss, images, conditions, batch_size=50, half=half)
    side.prepare(1e-9)
    before = loss_of(side, images)
    side.work(1000)
    assert loss_of(side, images) < before - 10


def test_hand_written_loop_learns_gaussian_pixels(images: Tensor, conditions: Conditions) -> None:
    side = HandWritten("", networks.frey_face_mlp, gaussian_loss, images[..., :20], conditions)
    side.prepare(1e-9)
    before = loss_of(side, images[..., :20])
    side.work(2000)
    assert loss_of(side, images[..., :20]) < before - 10


def test_hand_written_wake_sleep_learns_and_moves_both_networks(images: Tensor, conditions: Conditions) -> None:
    side = WakeSleepLoop("", networks.mnist_mlp, bernoulli_loss, images, conditions)
    side.prepare(1e-9)
    before, encoder = loss_of(side, images), side.encoder[1].weight.clone()  # pyright: ignore[reportIndexIssue]
    side.work(1000)
    assert loss_of(side, images) < before - 10
    assert not torch.equal(encoder, side.encoder[1].weight)  # pyright: ignore[reportIndexIssue]


def test_item_by_item_sees_the_same_images(images: Tensor, conditions: Conditions) -> None:
    side = ItemByItem("", networks.mnist_mlp, bernoulli_loss, images, conditions)
    assert (side.loader.dataset[7] - images[7]).abs().max() < 0.002
    side.prepare(1e-9)
    before = loss_of(side, images)
    side.work(1000)
    assert loss_of(side, images) < before - 10


@pytest.mark.parametrize(
    ("make", "overrides", "shape"),
    [
        (networks.mnist_mlp, ["experiment=mnist"], (1, 28, 28)),
        (networks.mnist_conv, ["experiment=mnist_conv"], (1, 28, 28)),
        (networks.frey_face_mlp, ["experiment=frey_face"], (1, 28, 20)),
        (networks.two_layer_mlp, ["experiment=iwae"], (1, 28, 28)),
    ],
)
def test_networks_written_by_hand_are_those_of_the_experiments(
    make: Callable[[], networks.Networks], overrides: list[str], shape: tuple[int, int, int]
) -> None:
    ours = build.instantiate(compose_command("train", overrides)[0]["model"], "model", image_shape=shape)
    for theirs, own in zip(make(), (ours.encoder, ours.decoder), strict=True):
        assert sum(weight.numel() for weight in theirs.parameters()) == sum(w.numel() for w in own.parameters())
    x = torch.rand(2, *shape)
    assert make()[0](x).shape == (2, 2 * ours.latent_dim)


def test_products_are_those_of_the_network(conditions: Conditions) -> None:
    linear = [layer for network in networks.mnist_mlp() for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(training_cases.MNIST_WIDTHS)
    side = MatrixProducts("", [(3, 5)], 4, ALL_GRADIENTS, conditions)
    side.prepare(1e-9)
    (layer,) = side.layers
    torch.testing.assert_close(layer.y, layer.x @ layer.weight.t())
    torch.testing.assert_close(layer.x_gradient, layer.y @ layer.weight)
    torch.testing.assert_close(layer.weight_gradient, layer.y.t() @ layer.x)
    for products in (FORWARD, INPUT_GRADIENTS):
        assert MatrixProducts("", [(3, 5)], 4, products, conditions, passes=2).work is not None


@pytest.mark.usefixtures("jax")
def test_jax_improves_the_bound(images: Tensor, conditions: Conditions) -> None:
    side = JaxEpoch("", images, conditions)
    side.prepare(1e-9)
    side.work(10 * side.unit)
    first, last = side.losses[0], side.losses[-1]
    assert 400 < first < 600 and last < first - 50
    assert side.facts["compile_seconds"] > 0


@pytest.mark.usefixtures("jax")
def test_jax_trains_on_the_objective_of_the_hand_written_loop(images: Tensor, conditions: Conditions) -> None:
    side, other = (
        JaxEpoch("", images, conditions),
        HandWritten("", networks.mnist_mlp, bernoulli_loss, images, conditions),
    )
    for one in (side, other):
        one.prepare(1e-9)
        one.work(20 * side.unit)
    assert side.losses[-1] == pytest.approx(loss_of(other, images), rel=0.15)


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
    class Silent(WithModel):
        seen: tuple[str, ...] = ()

        def do(self, amount: int) -> None:
            self.seen = (*self.seen, MKLDNN.matmul.fp32_precision)

    side = Silent("", TINY, conditions, unit=1)
    side.prepare(1e-9)
    conditions.neutral()
    side.work(1)
    assert set(side.seen) == {side.precision}


def test_share_of_evaluations_and_growth_come_from_a_whole_run(conditions: Conditions) -> None:
    config = train_config([*TINY, "evaluation.first=100", "max_samples=3000"], conditions)
    share = EvaluationShare("", config, conditions)
    assert share.measure(0) > 0
    assert share.facts["evaluation_seconds"] > share.facts["of_which_measuring"] > 0
    images = torch.rand(100, 1, 28, 28)
    growth = Growth("", config, conditions, HandWritten("", networks.mnist_mlp, bernoulli_loss, images, conditions))
    growth.prepare(0)
    assert growth.measure(0) > 0 and growth.facts["without_reference"] > 0


def test_growth_is_counted_in_the_reference_of_the_same_time(conditions: Conditions) -> None:
    images = torch.rand(100, 1, 28, 28)
    clock = BlockClock(conditions, HandWritten("", networks.mnist_mlp, bernoulli_loss, images, conditions))
    clock.blocks = [(0, 100, 1.0, 0.005), (0, 300, 3.0, 0.005), (4, 100, 9.0, 0.001), (9, 100, 4.0, 0.01)]
    assert clock.cost(0) == pytest.approx((0.01, 0.005))
    assert clock.cost(9) == pytest.approx((0.04, 0.01))


def test_final_bound_is_the_last_of_the_curve(conditions: Conditions) -> None:
    config = train_config([*TINY, "evaluation.first=100", "max_samples=1000"], conditions)
    clock, side = Clock(conditions), FinalBound("", config, conditions)
    assert side.measure(0) == side.train(clock)[-1]["test/bound"] < 0


def test_process_that_fails_is_named() -> None:
    with pytest.raises(Failed, match="code 1: KeyError: 'a reason'"):
        python("-c", "raise KeyError('a reason')")
    assert ProcessTime("", ["-c", "pass"]).measure(0) > 0


@pytest.mark.slow
def test_first_step_ends_a_training(conditions: Conditions) -> None:
    overrides = ["threads=1", f"output_root={conditions.folder}", "callbacks=none", *TINY]
    python(*CHILD, "first_step", *overrides)
    (run,) = conditions.folder.glob("*/*")
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert not list(run.glob("checkpoints/*"))


@pytest.mark.slow
def test_memory_is_held_against_the_same_imports(conditions: Conditions) -> None:
    side = PeakMemory("estimate", "estimate", ["10", "3", "1"], conditions)
    same = PeakMemory("imports", "imports", [str(side.result)], conditions)
    peak = side.measure(0)
    assert 50 < same.measure(0) < peak + 50
    modules = [set(json.loads(one.result.read_text())["modules"]) for one in (side, same)]
    assert modules[0] == modules[1] and "torch" in modules[0]


@pytest.mark.slow
def test_several_trainings_run_and_a_failure_is_named(conditions: Conditions) -> None:
    config = train_config([*TINY, "max_samples=200", "callbacks=none"], conditions)
    assert SeveralTrainings("", config, count=2, at_once=2, conditions=conditions).measure(0) > 0
    broken = {**config, "seed": -1, "trainer": {**config["trainer"], "precision": "64-true"}}
    with pytest.raises(Failed, match=r"trainer\.precision"):
        SeveralTrainings("jobs", broken, count=1, at_once=1, conditions=conditions).measure(0)


@pytest.mark.slow
@pytest.mark.skipif("VAE_LAB_DATA" not in os.environ, reason="VAE_LAB_DATA names no folder with real data")
def test_real_data_are_measured_by_the_real_command(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    cases = "case=mlp,frey_face,hmc"
    python("-m", "benchmarks.bench", cases, "seconds=0.01", "repeats=1", "threads=1", f"output={path}")
    report = json.loads(path.read_text())
    assert list(report["cases"]) == ["mlp", "frey_face", "hmc"]
    sides = report["cases"]["mlp"]["sides"]
    assert {"ours", "hand-written", "DataLoader", "matrix products"} <= set(sides)
    assert all(side["median"] > 0 for side in sides.values())
    assert "ours / hand-written" in report["cases"]["mlp"]["comparisons"]


def test_every_case_is_a_function_of_its_module() -> None:
    for name, entry in catalogue.CASES.items():
        module = sys.modules.get(f"benchmarks.{entry.module}") or catalogue.import_module(f"benchmarks.{entry.module}")
        assert callable(getattr(module, name))
