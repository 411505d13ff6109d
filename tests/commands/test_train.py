"""Whole trainings in this process: what a run directory holds, and that settings do what they say."""

import re
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import assert_equal, assert_same_training, checkpoint, scalars, train_more, train_tiny, weights

from vae_lab.errors import ConfigError, NonFiniteDensity
from vae_lab.measurement import measure_bound, summarise
from vae_lab.runs.curve import read_rows
from vae_lab.runs.identity import config_hash
from vae_lab.runs.load import load_run


def test_run_directory_is_complete(finished_run):
    names = {path.name for path in finished_run.path.iterdir()}
    assert names >= {
        "config.yaml",
        "run.json",
        "metrics.csv",
        "metrics.json",
        "checkpoints",
        "tensorboard",
        "log.txt",
    }
    assert {path.name for path in finished_run.checkpoints.glob("[!.]*")} == {"last.ckpt", "best.ckpt"}
    assert not list(finished_run.path.rglob("*.tmp"))
    record = finished_run.read_record()
    assert record["status"] == finished_run.read_status() == "finished"
    assert record["samples_evaluated"] == 1200 and record["seed"] == 0 and record["error"] is None
    assert re.fullmatch("[0-9a-f]{6}", record["config_hash"])
    assert record["image_shape"] == [1, 8, 8] and record["wall_seconds"] > 0
    assert set(record["versions"]) >= {"torch", "pytorch-lightning", "vae_lab"}
    assert "run directory: " in finished_run.log.read_text()


def test_layers_and_number_of_parameters_are_in_record_and_log(finished_run):
    record, log = finished_run.read_record(), finished_run.log.read_text()
    weights = torch.load(finished_run.last, weights_only=True)["state_dict"]
    assert record["num_parameters"] == sum(weight.numel() for weight in weights.values())
    assert record["num_parameters"] == sum(num for *_, num in record["layers"])
    assert ["encoder.head.mean", "Linear(in_features=16, out_features=3, bias=True)", 51] in record["layers"]
    assert f"3 latent dimensions, {record['num_parameters']:,} parameters" in log
    assert "layer encoder.head.mean: Linear" in log and "float32 matrix products: default" in log


def test_frozen_config_is_resolved_and_says_what_the_run_is(finished_run):
    config = finished_run.read_config()
    assert "${" not in (finished_run.path / "config.yaml").read_text()
    assert config["model"]["decoder"]["hidden"] == [16] and config["seed"] == 0
    assert not {"run_dir", "allow", "name", "output_root", "hydra"} & set(config)


def test_curve_has_a_row_at_every_mark_and_at_the_end(finished_run):
    rows = read_rows(finished_run.curve_file)
    assert [row["samples_evaluated"] for row in rows] == [100, 200, 250, 400, 650, 1000, 1200]
    for row in rows:
        assert all(torch.tensor(list(row.values())).isfinite())
        for split in ("val", "test"):
            assert row[f"{split}/bound"] == pytest.approx(row[f"{split}/reconstruction"] - row[f"{split}/kl"])
        assert row["train/bound_running"] == pytest.approx(
            row["train/reconstruction_running"] - row["train/kl_running"], abs=1e-4
        )
    assert rows[-1]["test/bound"] > rows[0]["test/bound"] + 1


def test_event_files_hold_the_curve_and_the_hyperparameters(finished_run):
    curves = scalars(finished_run)
    rows = read_rows(finished_run.curve_file)
    for name in set(rows[0]) - {"samples_evaluated"}:
        expected = [(row["samples_evaluated"], pytest.approx(row[name], rel=1e-6)) for row in rows]
        assert curves[name] == expected, name
    events = EventAccumulator(str(finished_run.tensorboard), size_guidance={"histograms": 0}).Reload()
    assert [event.step for event in events.Histograms("kl_per_dimension/val")] == [
        row["samples_evaluated"] for row in rows
    ]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    (step, value), ledger = curves["hp/test/bound"][-1], finished_run.ledger("best")
    assert (step, value) == (1200, pytest.approx(ledger["test/bound"], rel=1e-6))


def test_hparams_tab_names_the_choices(finished_run):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]

    events = EventAccumulator(str(finished_run.tensorboard)).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    choices = HParamsPluginData.FromString(content).session_start_info.hparams
    assert choices["latent_dim"].number_value == 3
    assert choices["data"].string_value == "digits"
    assert choices["learning_rate"].number_value == pytest.approx(1e-3)
    assert choices["width"].string_value == "[16]" and choices["max_samples"].number_value == 1200


def test_ledger_is_the_bound_of_the_best_checkpoint_and_says_on_what(finished_run):
    ledger = finished_run.ledger("best")
    assert ledger["checkpoint"] == "best" and ledger["samples_evaluated"] == 1200
    assert (ledger["data"], ledger["scale"], ledger["binarization"]) == ("digits", "x/16", "none")
    assert ledger["likelihood"] == "BernoulliLikelihood" and re.fullmatch("[0-9a-f]{12}", ledger["split_hash"])
    run = load_run(finished_run.path)
    for split, count in {"train": 300, "val": 250, "test": 250}.items():
        sums = measure_bound(run.model, run.data.measured(split).images, num_samples=1, seed=0)
        assert summarise(sums, num_samples=1)["bound"] == ledger[f"{split}/bound"]
        assert ledger[f"{split}/num_datapoints"] == count
        assert ledger[f"{split}/kl"] == pytest.approx(sum(ledger[f"{split}/kl_per_dimension"]))


@pytest.mark.slow
def test_same_seed_gives_the_same_bits_and_another_seed_others(finished_run, tmp_path):
    assert_same_training(train_tiny(tmp_path / "same", "trainer.max_epochs=4"), finished_run)
    other = train_tiny(tmp_path / "other", "trainer.max_epochs=4", "seed=1")
    assert other.curve_file.read_text() != finished_run.curve_file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("binarization", ["none", "dynamic"])
def test_steps_per_execution_changes_no_bit(tmp_path, binarization):
    settings = ("trainer.max_epochs=null", "max_samples=1010", f"data.binarization={binarization}")
    one = train_tiny(tmp_path / "1", *settings, "steps_per_execution=1")
    seven = train_tiny(tmp_path / "7", *settings, "steps_per_execution=7")
    assert one.read_record()["samples_evaluated"] == 1000  # whole minibatches within the budget
    assert_same_training(one, seven)


def test_dynamic_binarisation_is_named_and_measured_on_fixed_binary_images(tmp_path):
    run = train_tiny(tmp_path / "run", "max_samples=200", "data.binarization=dynamic")
    assert run.ledger("best")["binarization"] == "dynamic"
    loaded = load_run(run.path)
    x = loaded.data.measured("train").images
    assert ((x == 0) | (x == 1)).all() and not ((loaded.data.splits["train"].images % 1) == 0).all()
    sums = measure_bound(loaded.model, x, num_samples=1, seed=0)
    assert summarise(sums, num_samples=1)["bound"] == run.ledger("best")["train/bound"]


def test_density_of_grey_pixels_is_refused_for_images_of_0_and_1(tmp_path):
    np.savez(tmp_path / "bits.npz", x=np.random.default_rng(0).random((60, 4, 4)) < 0.5)
    own = ("data=npz", f"data.path={tmp_path}/bits.npz", "data.train_size=null", "data.batch_size=10")
    with pytest.raises(ConfigError, match=r"where all training images are of 0 and 1, as those of bits: .*=bernoulli"):
        train_tiny(tmp_path / "run", *own, "likelihood=continuous_bernoulli")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["max_samples=0"], "max_samples must be a number > 0 or null, got 0"),
        (
            ["likelihood=continuous_bernoulli", "data.binarization=dynamic"],
            "data.binarization must be none for likelihood=continuous_bernoulli, got dynamic",
        ),
        (["max_samples=49"], "max_samples must be >= .*50.*got 49"),
        (["trainer.max_epochs=0"], r"trainer\.max_epochs must be an integer >= 1 or null, got 0"),
        (["steps_per_execution=null"], "steps_per_execution must be an integer, got null"),
        (["threads=0"], r"threads must be an integer in 1 ... 4096 or null, got 0"),
        (["max_samples=nan"], "max_samples must be a number > 0 or null, got nan"),
        (["max_samples=inf"], "max_samples must be a number > 0 or null, got inf"),
        (["trainer.max_epochs=true"], r"trainer\.max_epochs must be an integer >= 1 or null, got true"),
        (["optimizer.lr=fast"], r"optimizer\.lr must be a number >= 0, got 'fast'"),
        (["optimizer.lr=-1"], r"optimizer\.lr must be a number >= 0, got -1"),
        (["optimizer.lr=inf"], r"optimizer\.lr must be a number >= 0, got inf"),
        (["gradient_clip_norm=0"], "gradient_clip_norm must be a number > 0 or null, got 0"),
        (["seed=null"], "seed must be an integer"),
        (["seed=-1"], "seed must be an integer"),
        (["seed=true"], "seed must be an integer, got true"),
        (["seed=4294967296"], "seed must be an integer in 0 ... 4294967295"),
        (["~threads"], "threads must be given.* add threads=VALUE"),
        (["sweep.jobs=0"], r"sweep\.jobs must be an integer >= 1, got 0"),
        (["max_samples=many"], "max_samples must be a number or null, got 'many'"),
        (["compile=on"], "compile must be true, false, an integer or auto, got 'on'"),
        (["parameter_prior=1"], "parameter_prior must be true or false, got 1"),
        (["trainer.precision=16-mixed"], "trainer.precision must be .* got '16-mixed'"),
        (["trainer.precision=64-true"], "trainer.precision must be .* got '64-true'"),
        (["evaluation.first=0"], r"evaluation\.first must be an integer >= 1, got 0"),
        (["evaluation.splits=[validation]"], r"evaluation\.splits must name some of train, val, test"),
        (["checkpoint.at=[0]"], r"checkpoint\.at must hold counts >= 1"),
        (["checkpoint.every_seconds=0"], r"checkpoint\.every_seconds must be a number > 0, got 0"),
        (["early_stopping.patience=0"], r"early_stopping\.patience must be an integer >= 1 or null, got 0"),
        (["early_stopping.patience=1", "evaluation.splits=[test]"], r"evaluation\.splits must hold val"),
        (["data.batch_size=301"], r"data\.batch_size must be <= 300, got 301"),
        (["objective.kl_warmup_samples=10000"], r"objective\.kl_warmup_samples must be <= the budget"),
        (["model.latent_dim=0"], r"model\.latent_dim"),
        (["model.latent_dim=1000000000"], r"the model's weights would take [\d,]+ GB .*model\.latent_dim"),
        (["model.encoder.hidden=[1000000000]"], r"the model's weights would take [\d,]+ GB of memory"),
        (["objective.num_samples=1000000000000"], r"objective\.num_samples=1000000000000 would take [\d,]+ GB"),
        (["evaluation.num_samples=1000000000000"], r"evaluation\.num_samples=1000000000000 would take [\d,]+ GB"),
        (["schedule=cosine", "schedule.T_max=abc"], "optimizer or schedule has a value of a wrong kind"),
        (
            ["evaluation=null"],
            r"evaluation must describe a component by its keys, evaluation\._target_ among them, got None",
        ),
        (["callbacks=default", "callbacks.progress=5"], r"callbacks\.progress must describe a component .* got 5"),
        (["~callbacks"], r"callbacks must not be taken away: .*callbacks=none"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        train_tiny(tmp_path / "run", *settings)
    assert not list(tmp_path.iterdir())


def test_a_callback_that_is_null_is_left_out(tmp_path):
    own = ["callbacks=default", "callbacks.image_grid=null", "callbacks.progress=null"]
    run = train_tiny(tmp_path / "run", "max_samples=100", *own)
    assert run.read_status() == "finished" and run.read_config()["callbacks"] == {"progress": None, "image_grid": None}
    assert not run.images.exists()


def test_without_a_validation_bound_the_last_checkpoint_is_the_one_to_read(tmp_path):
    run = train_tiny(tmp_path / "run", "max_samples=100", "evaluation.splits=[test]", "logger=none")
    assert run.default_checkpoint == "last" and not (run.checkpoints / "best.ckpt").exists()
    assert run.ledger("last")["checkpoint"] == "last" == load_run(run.path).checkpoint
    assert not run.tensorboard.exists()


def test_zero_is_a_seed_and_null_switches_off(finished_run):
    assert finished_run.read_config()["seed"] == 0 and finished_run.read_record()["seed"] == 0
    assert (
        finished_run.read_config()["gradient_clip_norm"] is None and finished_run.read_config()["max_samples"] is None
    )
    assert finished_run.read_config()["early_stopping"]["patience"] is None


def test_non_finite_density_fails_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    explode = ("schedule=stages", "schedule.milestones=[5]", "schedule.gamma=1e30")
    with pytest.raises(NonFiniteDensity, match=r"at step 6 \(300 samples; not finite: .*optimizer\.lr") as caught:
        train_tiny(tmp_path / "run", *explode, "trainer.max_epochs=4")
    from vae_lab.runs.directory import RunDir

    run = RunDir(tmp_path / "run")
    assert run.read_status() == "failed" and str(caught.value) in run.read_record()["error"]
    assert checkpoint(run)["vae_lab"]["samples"] == 250
    assert all(value.isfinite().all() for value in weights(run).values())
    assert [row["samples_evaluated"] for row in read_rows(run.curve_file)] == [100, 200, 250]
    assert load_run(run.path).samples == 250


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path):
    run = train_tiny(tmp_path / "run", "early_stopping.patience=2", "early_stopping.min_delta=1000")
    assert [row["samples_evaluated"] for row in read_rows(run.curve_file)] == [100, 200, 250]
    assert run.read_status() == "finished" and run.read_record()["stopped_early"] is True
    assert run.read_record()["samples_evaluated"] == 250 == checkpoint(run)["vae_lab"]["samples"]


def test_best_checkpoint_is_the_one_of_the_highest_validation_bound(tmp_path):
    worse_later = ("schedule=stages", "schedule.milestones=[8]", "schedule.gamma=2000")
    run = train_tiny(tmp_path / "run", *worse_later, "trainer.max_epochs=4", "optimizer.lr=0.002")
    rows = read_rows(run.curve_file)
    best = max(rows, key=lambda row: row["val/bound"])
    assert best["samples_evaluated"] < 1200
    assert checkpoint(run, "best")["vae_lab"]["samples"] == best["samples_evaluated"]
    assert checkpoint(run, "last")["vae_lab"]["samples"] == 1200
    assert run.ledger("best")["val/bound"] == best["val/bound"]
    assert load_run(run.path).samples == best["samples_evaluated"]
    assert load_run(run.path, checkpoint="last").samples == 1200


def test_snapshots_are_kept_at_their_counts_and_change_nothing_else(finished_run, tmp_path):
    run = train_tiny(tmp_path / "run", "trainer.max_epochs=4", "checkpoint.at=[100,130,1200,5000]")
    assert {path.stem for path in (run.checkpoints / "at").iterdir()} == {"100", "150", "1200"}
    snapshot = checkpoint(run, "at/1200")
    assert "optimizer_states" not in snapshot
    assert_equal(snapshot["state_dict"], weights(run))
    assert_equal(weights(run), weights(finished_run))
    assert run.curve_file.read_text() == finished_run.curve_file.read_text()


@pytest.mark.slow
def test_gradient_clipping_changes_the_training(finished_run, tmp_path):
    loose = train_tiny(tmp_path / "loose", "trainer.max_epochs=4", "gradient_clip_norm=1e9")
    assert_equal(weights(loose), weights(finished_run))
    tight = train_tiny(tmp_path / "tight", "max_samples=100", "gradient_clip_norm=1e-12")
    start = train_tiny(tmp_path / "start", "max_samples=100", "optimizer.lr=0")
    for name, value in weights(tight).items():
        # Adam's eps, 1e-8, holds clipped gradients of 1e-12 down
        torch.testing.assert_close(value, weights(start)[name], rtol=0, atol=1e-5)


def test_schedule_sets_the_learning_rate_once_per_minibatch(tmp_path):
    run = train_tiny(tmp_path / "run", "schedule=stages", "schedule.milestones=[3,10]", "max_samples=600")
    rates = {row["samples_evaluated"]: row["learning_rate"] for row in read_rows(run.curve_file)}
    assert rates == pytest.approx({100: 1e-3, 200: 1e-4, 250: 1e-4, 400: 1e-4, 600: 1e-5})


def test_kl_warmup_is_logged_and_the_logged_bound_is_unweighted(tmp_path):
    run = train_tiny(tmp_path / "run", "objective.kl_warmup_samples=200", "max_samples=200")
    assert "KL weight: 1, rising from 0 over the first 200 samples" in run.log.read_text()
    row = read_rows(run.curve_file)[0]
    expected = row["train/reconstruction_running"] - row["train/kl_running"]
    assert row["train/bound_running"] == pytest.approx(expected, abs=1e-4) and row["train/kl_running"] > 0


@pytest.mark.slow
def test_parameter_prior_pulls_the_weights_in(tmp_path):
    def size(run) -> float:
        return sum(value.square().sum().item() for name, value in weights(run).items() if value.dim() > 1)

    settings = ("max_samples=600", "data.train_size=50", "optimizer.lr=0.01")
    free = train_tiny(tmp_path / "free", *settings)
    assert size(train_tiny(tmp_path / "prior", *settings, "parameter_prior=true")) < size(free)


@pytest.mark.slow
def test_mixed_precision_trains_float32_weights(tmp_path):
    run = train_tiny(tmp_path / "run", "trainer.precision=bf16-mixed", "trainer.max_epochs=2")
    rows = read_rows(run.curve_file)
    assert rows[-1]["test/bound"] > rows[0]["test/bound"]
    assert {value.dtype for value in weights(run).values()} == {torch.float32}
    assert run.ledger("best")["test/bound"] == pytest.approx(rows[-1]["test/bound"], abs=1e-4)


def test_a_whole_number_written_as_a_float_is_one_and_the_same_config(tmp_path):
    run = train_tiny(tmp_path / "run", "max_samples=1e2", "steps_per_execution=4e0")
    assert [run.read_config()[key] for key in ("max_samples", "steps_per_execution")] == [100, 4]
    assert isinstance(run.read_config()["max_samples"], int)


@pytest.mark.slow
def test_channels_last_trains_the_same_network_and_is_resumed_bit_for_bit(tmp_path):
    conv = ["model=conv", "model.encoder.hidden=16", "model.encoder.channels=[4,8]", "trainer.max_epochs=null"]
    plain = train_tiny(tmp_path / "plain", *conv, "max_samples=400")
    whole = train_tiny(tmp_path / "whole", *conv, "max_samples=400", "channels_last=true")
    assert config_hash(whole.read_config()) == config_hash(plain.read_config())
    assert whole.ledger("best")["test/bound"] == pytest.approx(plain.ledger("best")["test/bound"], rel=1e-4)
    kernels = [value for value in weights(whole).values() if value.dim() == 4]
    assert kernels and all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    half = train_tiny(tmp_path / "half", *conv, "max_samples=200", "channels_last=true")
    shutil.copytree(half.path, tmp_path / "other half")
    assert_same_training(train_more(half.path, "max_samples=400"), whole)
    train_tiny(tmp_path / "plain half", *conv, "max_samples=200", "channels_last=false")
    for first, then in (("other half", "false"), ("plain half", "true")):  # the optimiser's state: the other format
        other = train_more(tmp_path / first, "max_samples=400", f"channels_last={then}")
        assert other.ledger("best")["test/bound"] == pytest.approx(plain.ledger("best")["test/bound"], rel=1e-4)


@pytest.mark.slow
def test_run_of_another_machine_goes_on_where_its_backend_would_round(tmp_path, monkeypatch):
    run = train_tiny(tmp_path / "run", "max_samples=300", "trainer.max_epochs=null")
    run.write_config(run.read_config() | {"matmul_backend": "onednn"})
    monkeypatch.setattr("vae_lab.training.matmul.is_exact", lambda: False)
    train_more(run.path, "max_samples=600")
    assert run.read_record()["samples_evaluated"] == 600 and run.read_config()["matmul_backend"] == "onednn"


@pytest.mark.parametrize(("epochs", "warns"), [(1, True), (2, False), (3, False)])
def test_a_run_that_ends_before_its_schedule_says_so(tmp_path, caplog, epochs, warns):
    train_tiny(tmp_path / "run", "schedule=warmup_cosine", "max_samples=600", f"trainer.max_epochs={epochs}")
    said = "fills 600 samples and is not over when the run ends; max_samples=300" in caplog.text
    assert said == warns
