"""Calls from Python do what the command line does, and leave the process as it was."""

import io
import logging
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from training import assert_same_training, composed

import vae_lab
from vae_lab.cli import main
from vae_lab.commands import tracking
from vae_lab.commands.in_process import call
from vae_lab.errors import ConfigError
from vae_lab.runs.directory import RunDir
from vae_lab.training.matmul import MKLDNN
from vae_lab.wiring import build
from vae_lab.wiring.arguments import override
from vae_lab.wiring.compose import compose_command

SMALL: dict[str, Any] = {
    "matmul_backend": "default",
    "callbacks": "none",
    "data.train_size": 300,
    "data.batch_size": 50,
    "model.encoder.hidden": [16],
    "model.latent_dim": 2,
    "evaluation.first": 100,
    "max_samples": 1e3,
    "threads": 1,
}


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> vae_lab.Run:
    """A run that was trained by a call; a copy may be changed."""
    place = tmp_path_factory.mktemp("called") / "a run"
    return vae_lab.train(overrides={**SMALL, "run_dir": place})


@pytest.fixture
def copied(called, tmp_path) -> vae_lab.Run:
    shutil.copytree(called.path, tmp_path / "copy")
    return vae_lab.load_run(tmp_path / "copy")


@pytest.mark.slow
def test_a_call_trains_to_the_bits_of_the_command_line_and_keeps_the_same_files(called, tmp_path):
    line = [override(key, value) for key, value in SMALL.items()]
    assert main(["train", *line, f"run_dir={tmp_path / 'run'}"]) == 0
    own, other = RunDir(called.path), RunDir(tmp_path / "run")
    assert_same_training(own, other)
    assert (own.path / "config.yaml").read_bytes() == (other.path / "config.yaml").read_bytes()
    files = [{file.relative_to(run.path).parts[0] for file in run.path.rglob("*")} for run in (own, other)]
    assert files[0] == files[1]
    assert own.read_record()["choices"] == other.read_record()["choices"]
    assert own.read_record()["command"][:2] == ["vae-lab", "train"]


@pytest.mark.slow
def test_an_experiment_is_the_first_argument(tmp_path):
    run = vae_lab.train(
        experiment="quickstart", overrides={"smoke": "on", "output_root": tmp_path, "threads": 1, "callbacks": "none"}
    )
    assert run.path.parent == tmp_path / "quickstart" and run.record["choices"]["experiment"] == "quickstart"


def state() -> list[Any]:
    return [
        *(torch.get_num_threads(), torch.get_default_dtype(), MKLDNN.matmul.fp32_precision),
        *(torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())),
        *(dict(os.environ), sys.path[:], sys.argv[:]),
        *(logging.getLogger("vae_lab").level, logging.getLogger("vae_lab").handlers[:], logging.root.handlers[:]),
    ]


@pytest.mark.slow
def test_calls_leave_the_process_as_it_was(tmp_path):
    torch.set_num_threads(2)
    MKLDNN.matmul.fp32_precision, before = "bf16", MKLDNN.matmul.fp32_precision
    try:
        expected = state()
        run = vae_lab.train(overrides={**SMALL, "run_dir": tmp_path / "run"})
        assert state() == expected
        vae_lab.evaluate(run, num_samples=2, threads=1, overrides={"estimator.num_samples": 3})
        assert state() == expected
        with pytest.raises(ConfigError):
            vae_lab.train(overrides={**SMALL, "optimizer.lr": -1, "output_root": tmp_path})
        vae_lab.load_run(run.path)
        vae_lab.sample(run, 2, source="aggregate", components=1)
        vae_lab.score(run, np.zeros((2, 8, 8)), num_samples=2)
        assert state() == expected
    finally:
        MKLDNN.matmul.fp32_precision = before


def test_history_and_ledger_are_those_of_the_directory_by_now(copied):
    history = copied.history
    assert history["samples_evaluated"].tolist() == [100, 200, 250, 400, 650, 1000]
    assert history["test/bound"].notna().all()
    assert copied.ledger["test/bound"] == RunDir(copied.path).ledger("best")["test/bound"]
    known = vae_lab.evaluate(copied, threads=1, num_samples=2, overrides={"estimator.num_samples": 3})
    assert known == copied.ledger and "test/log_likelihood/importance_sampling_3" in known


def test_runs_are_a_frame_and_the_package_of_that_name_is_still_there(called):
    frame = vae_lab.runs(called.path.parent)
    assert frame["path"].tolist() == [str(called.path)] and frame["status"].tolist() == ["finished"]
    assert frame["test/bound"].dtype == float and frame["model.latent_dim"].tolist() == [2]
    assert vae_lab.runs(called.path.parent, where=["model.latent_dim>2"]).empty
    assert vae_lab.runs(called.path.parent, where=["status=nope", "latent_dim=2"]).empty
    assert len(vae_lab.runs(called.path.parent, where=["bound<0", "samples>=1000"])) == 1
    assert vae_lab.runs.directory.RunDir is RunDir  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(ConfigError, match=r"root=.*nowhere must be a folder, and there is none: vae-lab train"):
        vae_lab.runs(called.path / "nowhere")


@pytest.mark.slow
def test_a_run_is_five_lines_and_a_page_with_two_pictures(called, copied):
    lines = repr(called).splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 200
    assert "finished, best.ckpt at 1,000 samples" in lines[0] and "digits, 1 x 8 x 8, x/16" in lines[1]
    assert "test bound" in lines[4] and f"{called.ledger['test/bound']:.2f}" in lines[4]
    page = called._repr_html_()
    assert page.count("<img ") == 2 and "base64" in page and "&quot;" not in page
    os.remove(copied.path / "metrics.csv")
    assert vae_lab.load_run(copied.path)._repr_html_().count("<img ") == 1


def test_images_of_all_forms_are_encoded_alike_and_come_back_in_kind(called):
    x = called.data.splits["test"].images[:300]
    z = called.encode(x)
    assert isinstance(z, torch.Tensor) and z.shape == (len(x), 2)
    for given, expected in ((x[:, 0], z), (x.double(), z), ((x * 16).byte(), z)):
        torch.testing.assert_close(called.encode(given), expected)
        found = called.encode(given.numpy())
        assert isinstance(found, np.ndarray) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    images = called.decode(z.numpy())
    assert isinstance(images, np.ndarray) and images.shape == tuple(x.shape)
    np.testing.assert_allclose(called.reconstruct(x.numpy()), called.decode(z).numpy(), rtol=1e-5, atol=1e-6)
    drawn = called.sample(16, as_numpy=True)
    assert isinstance(drawn, np.ndarray) and drawn.shape == (16, 1, 8, 8)
    np.testing.assert_array_equal(drawn, called.sample(16).numpy())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 28, 28)), r"x must have the shape \[n, 1, 8, 8\] or \[n, 8, 8\], got \[3, 28, 28\]"),
        (np.zeros((8, 8)), r"x must have the shape .* got \[8, 8\]"),
        (np.zeros((0, 8, 8)), r"x must have the shape .* got \[0, 8, 8\]"),
        (np.full((3, 8, 8), 16.0), r"x must have values in \[0, 1\], got 16 ... 16"),
        (np.full((3, 8, 8), np.nan), r"x must have values in \[0, 1\], got nan"),
        (np.zeros((3, 8, 8), np.int64), "x must be floating point in .* or uint8, got torch.int64"),
        (
            np.full((3, 8, 8), 17, np.uint8),
            r"x must have values in 0 ... 16 where it is uint8, got 17: .* are x/16; make",
        ),
        ([[0.0]], "x must be a NumPy array or a torch tensor, got list"),
    ],
)
def test_other_images_are_refused_by_what_they_are(called, x, message):
    with pytest.raises(ConfigError, match=message):
        called.encode(x)


@pytest.mark.slow
def test_scores_of_images_are_those_of_the_command_and_of_evaluate(copied, tmp_path):
    x = copied.data.splits["test"].images
    scores = copied.score(x.numpy(), num_samples=2)
    ledger = vae_lab.evaluate(copied, threads=1, num_samples=2)
    assert len(scores) == len(x)
    for column, key in (("bound", "test/bound"), ("log_likelihood", "test/log_likelihood/importance_sampling_500")):
        assert scores[column].mean() == pytest.approx(ledger[key], abs=1e-4)
    arrays = written("score", copied, tmp_path / "s.npz", num_samples=2)
    for name in scores.columns:
        np.testing.assert_array_equal(scores[name], arrays[name], err_msg=name)
    exact = copied.score(x[:20], estimator="quadrature", num_nodes=30)["log_likelihood"]
    assert ((exact - scores["log_likelihood"][:20]).abs() < 0.5).all()
    with pytest.raises(ConfigError, match=r"estimator must be of log p\(x\) of given images, got bidirectional"):
        copied.score(x, estimator="bidirectional")
    with pytest.raises(ConfigError, match=r"estimator\.nodes"):
        copied.score(x, estimator="quadrature", nodes=30)


def written(command: str, run: vae_lab.Run, out: Path, **keys: Any) -> dict[str, np.ndarray]:
    """The arrays of the command's file."""
    assert call(command, {"run": run.path, "out": out, "threads": 1, **keys})[0] == out
    with np.load(out) as arrays:
        return dict(arrays)


def assert_same(found: Any, arrays: dict[str, np.ndarray], names: str, kind: type) -> None:
    """The call's parts are the file's arrays, without the axis of a single channel, and of the kind that went in."""
    for name in names.split():
        part = getattr(found, name)
        assert isinstance(part, kind), name
        np.testing.assert_array_equal(np.asarray(part).reshape(arrays[name].shape), arrays[name], err_msg=name)


def test_posteriors_are_those_of_the_command(called, tmp_path):
    x = called.data.splits["test"].images
    arrays = written("encode", called, tmp_path / "z.npz")
    for given in (x, x[:, 0].numpy()):
        q = vae_lab.encode(called, given)
        assert_same(q, arrays, "mean std kl", type(given))
        np.testing.assert_allclose(q.kl, np.asarray(q.kl_per_dimension).sum(1), rtol=1e-5)
        np.testing.assert_allclose(called.encode(given), q.mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"x must have the shape \[n, 1, 8, 8\] or \[n, 8, 8\], got \[2, 9, 8\]"):
        vae_lab.encode(called.path, np.zeros((2, 9, 8)))


@pytest.mark.slow
def test_samples_are_those_of_the_command(called, tmp_path):
    arrays = written("sample", called, tmp_path / "prior.npz", num=30, seed=3)
    assert_same(vae_lab.sample(called, 30, seed=3), arrays, "x z", torch.Tensor)
    keys = {"draw": "pixels", "components": 2, "num": 5}
    arrays = written("sample", called, tmp_path / "aggregate.npz", **keys, **{"from": "aggregate"})
    assert_same(vae_lab.sample(called.path, source="aggregate", **keys, as_numpy=True), arrays, "x z", np.ndarray)
    assert vae_lab.sample(called).x.shape == (100, 1, 8, 8), "as many as the command draws"
    with pytest.raises(ConfigError, match="from must be one of prior, aggregate, got 'posterior'"):
        vae_lab.sample(called, source="posterior")


@pytest.mark.slow
def test_inpaintings_are_those_of_the_command(called, tmp_path):
    x, few = called.data.splits["test"].images[:2], {"num": 3, "num_steps": 10, "num_samples": 30}
    names = (
        "missing draws means mean acceptance hmc_acceptance effective_sample_size log_conditional standard_error k_hat"
    )
    arrays = written("inpaint", called, tmp_path / "i.npz", mask="center", num_datapoints=2, **few)
    mask = np.zeros((8, 8))
    mask[2:6, 2:6] = 1
    assert_same(vae_lab.inpaint(called, x, "center", **few), arrays, names, torch.Tensor)
    assert_same(vae_lab.inpaint(called, x.numpy(), mask, **few), arrays, names, np.ndarray)
    with pytest.raises(
        ConfigError, match=r"mask must hold numbers of the shape \[8, 8\], got \[8, 9\] float64 in an array"
    ):
        vae_lab.inpaint(called, x, np.zeros((8, 9)))
    with pytest.raises(ConfigError, match=r"num_steps must be an integer >= 8, got 7"):
        vae_lab.inpaint(called, x, num_steps=7)


@pytest.mark.slow
def test_files_for_other_programs_are_those_of_the_command(called, copied, tmp_path):
    folder = vae_lab.export(called, tmp_path / "exported", format="torch")
    assert {"README.md", "config.yaml"} < {file.name for file in folder.iterdir()}
    with pytest.raises(ConfigError, match="holds files already"):
        vae_lab.export(called, folder, format="torch")
    page = vae_lab.explore(copied, num_images=5)
    assert page == copied.path / "explorer.html" and page.is_file()
    both = vae_lab.explore([called, copied.path], out=tmp_path / "both.html", num_images=5)
    assert str(called.path) in both.read_text() and str(copied.path) in both.read_text()
    with pytest.raises(ConfigError, match="checkpoint must be the same for runs side by side, got best and last"):
        vae_lab.explore([called, copied.at("last")])
    with pytest.raises(ConfigError, match=r"num_image=5 is no key of the config: did you mean num_images=5"):
        vae_lab.explore(called, num_image=5)


@pytest.mark.slow
def test_classification_is_that_of_the_command(called, tmp_path):
    (file,) = call(
        "classify", {"run": called.path, "labels": [50], "repeats": 2, "out": tmp_path / "e.csv", "threads": 1}
    )
    pd.testing.assert_frame_equal(vae_lab.classify(called, [50], repeats=2), pd.read_csv(file), check_exact=True)


def test_data_of_16_bits_are_no_bytes(called, monkeypatch):
    monkeypatch.setattr(type(called.data), "divisor", 65535)
    with pytest.raises(ConfigError, match=r"x must be floating point in \[0, 1\], got torch.uint8: .* are x/65535"):
        called.encode(np.zeros((1, 8, 8), np.uint8))


def test_where_no_bar_can_be_drawn_lines_say_how_far_it_is(called, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tracking, "SECONDS", 0.0)
    vae_lab.encode(called, np.zeros((300, 8, 8)))
    assert "encoding: 0 %" in caplog.messages and len(caplog.messages) > 1


def test_other_latents_are_refused(called):
    with pytest.raises(ConfigError, match=r"z must have the shape \[n, 2\], got \[5, 3\]"):
        called.decode(torch.zeros(5, 3))


@pytest.mark.slow
def test_plot_gives_a_figure_that_a_notebook_shows_and_writes_nothing(called):
    before = sorted(called.path.rglob("*"))
    figure = called.plot("manifold")
    assert figure._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]
    assert sorted(called.path.rglob("*")) == before
    sizes = []
    for save in (figure.savefig, lambda file: file.write(figure._repr_png_())):  # pyright: ignore[reportAttributeAccessIssue]
        save(buffer := io.BytesIO())
        with Image.open(buffer) as picture:
            sizes.append(picture.width / picture.height)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01), "title and caption are in both"
    with pytest.raises(ConfigError, match="got 'manifolds': did you mean manifold"):
        called.plot("manifolds")


def test_the_same_run_at_another_checkpoint_has_the_same_calls(called):
    other = called.at("last")
    assert isinstance(other, vae_lab.Run) and other.checkpoint == "last"
    assert other.encode(np.zeros((1, 8, 8))).shape == (1, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.latent_dmi": 3}, "model.latent_dmi.* did you mean model.latent_dim=3"),
        ({"objective": "aevbb"}, "objective=aevbb is no choice of objective: did you mean 'aevb'"),
        ({"data.batch_size": "many"}, "data.batch_size"),
        ({"sweep": "latent_dims"}, "a sweep is many processes"),
        ({"model.latent_dim": 0}, "model.latent_dim must be an integer >= 1, got 0"),
        ({"trainer.devices": 2}, "trainer.devices must be 1 in a call, got 2"),
    ],
)
def test_mistakes_are_exceptions_with_the_line_of_the_command(overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as found:
        vae_lab.train(overrides={**SMALL, "output_root": tmp_path, **overrides})
    assert "\n" not in str(found.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        np.bool_(False),
        3,
        0.1,
        np.float32(0.5),
        "a",
        "a,b",
        "1e3",
        "null",
        [1, "x y"],
        {"a": [1]},
        {"b c": {"d:e": 2}, 3: 4},
    ],
)
def test_values_arrive_as_they_are(value):
    with composed("train", override("+mine", value)) as cfg:
        config = OmegaConf.to_container(cfg)
        assert isinstance(config, dict) and config["mine"] == value


def test_a_split_of_own_pictures_knows_their_files(tmp_path):
    for i in range(20):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    words = ["data=image_folder", f"data.path={tmp_path}", "data.size=[4,4]", "data.batch_size=5"]
    config, _ = compose_command("train", words)
    split = build.instantiate(config["data"], "data").splits["test"]
    for file, label, image in zip(split.file_names, split.labels, split.images, strict=True):
        assert Path(file).parent.name == "ab"[int(label)]
        assert float(image[0, 0, 0]) * 255 == pytest.approx(10 * int(Path(file).stem))
