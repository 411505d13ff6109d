"""`vae-lab figure`: from run directories to a CSV, and from it to pictures."""

import logging
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from training import composed, train_tiny

from vae_lab.cli import main
from vae_lab.commands.figure import FigureSettings, figure
from vae_lab.errors import RunError
from vae_lab.figures.base import PaperFigure, load_last
from vae_lab.figures.needed import SCALES
from vae_lab.runs.directory import RunDir
from vae_lab.wiring import build
from vae_lab.wiring.folders import choices, package_configs

FIGURES = [name for name in choices([package_configs()], "figure")]
DIGITS = (
    "figure=figure5",
    "figure.data_set=digits",
    "figure.latent_dims=[2,5]",
    "+figure.training.data_sets.digits=['data=digits']",
    "+figure.training.max_samples.digits={quick: 200, standard: 200, paper: 200}",
)


def settings(command, *overrides) -> Any:
    with composed(command, *overrides) as cfg:
        return OmegaConf.to_container(cfg, resolve=True)


def draw(*overrides):
    with composed("figure", "threads=1", *overrides) as cfg:
        return figure(build.settings(FigureSettings, cfg))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A reproduction with one of the two runs that `DIGITS` needs."""
    folder = tmp_path_factory.mktemp("reproduction")
    train_tiny(folder / "runs" / "digits_2_aevb", "model.latent_dim=2", "max_samples=200")
    return folder


@pytest.mark.slow
def test_figure_writes_a_table_and_pictures_and_names_what_is_missing(root, caplog):
    with caplog.at_level(logging.INFO):
        png = draw(*DIGITS, f"root={root}")
    assert png == root / "figures" / "figure5.png"
    assert png.stat().st_size > 10_000
    assert png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_csv(png.with_suffix(".csv"))
    assert table["label"].tolist() == ["digits_2_aevb"]
    (missing, every) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert missing.startswith(f"missing: digits_5_aevb (no run): vae-lab train run_dir={root}/runs/digits_5_aevb ")
    assert missing.endswith("max_samples=200")
    assert every.endswith("vae-lab reproduce scale=quick figures=[figure5]")


@pytest.mark.slow
def test_same_runs_give_the_same_bytes(root):
    png = draw(*DIGITS, f"root={root}")
    files = [png.with_suffix(suffix) for suffix in (".csv", ".png", ".pdf")]
    before = [file.read_bytes() for file in files]
    draw(*DIGITS, f"root={root}")
    assert [file.read_bytes() for file in files] == before


@pytest.mark.slow
def test_figure_writes_nothing_where_another_process_is_at_work(root, tmp_path):
    shutil.copytree(root / "runs", tmp_path / "runs")
    with RunDir(tmp_path).locked(), pytest.raises(RunError, match="is being written by another process"):
        draw(*DIGITS, f"root={tmp_path}")
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
def test_command_line_prints_the_picture_last(root, capfd):
    assert main(["figure", *DIGITS, f"root={root}", "threads=1"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(root / "figures" / "figure5.png")


@pytest.mark.slow
def test_place_of_the_data_reaches_the_runs_of_a_figure(root, tmp_path, capfd):
    assert main(["figure", *DIGITS, f"root={root}", "threads=1", f"data_root={tmp_path}"]) == 2
    assert "data_root must be left out for" in capfd.readouterr().err
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=images)
    own = ("data=npz", f"data.path={tmp_path}/own.npz", "data.train_size=null", "data.batch_size=10")
    run = train_tiny(tmp_path / "run", *own, "max_samples=100")
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    moved = load_last(RunDir(run.path, f"{tmp_path}/moved.npz"))
    test = moved.data.splits["test"]
    assert torch.equal((test.images[:, 0] * 255).round().byte(), torch.from_numpy(images[test.indices]))


def test_without_any_run_the_commands_that_make_them_are_the_message(tmp_path, capfd):
    assert main(["figure", "figure=figure4", f"root={tmp_path}"]) == 2
    message = capfd.readouterr().err
    again = f"vae-lab reproduce scale=quick figures=figure4 root={tmp_path}"
    assert f"{tmp_path}/runs holds no run of figure4: {again} makes all that it needs" in message
    assert "experiment=frey_face_paper" in message and "model.latent_dim=2 " in message
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale=quik", "scale must be one of quick, standard, paper, got 'quik'"),
        ("threads=0", "threads must be an integer in 1 ... 4096 or null, got 0"),
        ("figure=figure6", "figure=figure6 is no choice of figure"),
        ("figure.panels.mnist=3", "figure.panels must be of type"),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path, capfd, override, message):
    assert main(["figure", f"root={tmp_path}", override]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("name", FIGURES)
def test_figure_yaml_describes_a_figure_of_its_name(name):
    made = build.instantiate(settings("figure", f"figure={name}")["figure"], "figure")
    assert isinstance(made, PaperFigure)
    assert made.name == name
    for scale in SCALES:
        labels = [needed.label for needed in made.needed_runs(scale)]
        assert len(set(labels)) == len(labels) > 0


def needed_of(name, scale="quick"):
    return build.instantiate(settings("figure", f"figure={name}")["figure"], "figure").needed_runs(scale)


def test_figures_4_and_5_share_the_runs_of_figure_2():
    of_figure2 = {needed.label: needed for needed in needed_of("figure2")}
    shared = [needed for name in ("figure4", "figure5") for needed in needed_of(name)]
    assert {needed.label for needed in shared} - set(of_figure2) == {"mnist_2_aevb"}
    assert all(of_figure2.get(needed.label, needed) == needed for needed in shared)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_overrides_of_every_run_compose_a_training(tmp_path, name):
    """One run for every combination of data set, network and method; the data are not needed."""
    seen = set()
    for needed in needed_of(name):
        kind = tuple(word for word in needed.overrides if not word.startswith(("model.latent_dim", "data.train_size")))
        if kind in seen:
            continue
        seen.add(kind)
        config = settings("train", f"run_dir={tmp_path / 'run'}", *needed.all_overrides)
        assert config["max_samples"] == needed.max_samples
        assert config["trainer"]["max_epochs"] is None, "nothing but max_samples sets the budget"
        assert config["checkpoint"]["at"] == list(needed.snapshots)
        shape = (1, 28, 20) if "frey_face" in needed.label else (1, 28, 28)
        model = build.instantiate(config["model"], "model", image_shape=shape)
        assert f"model.latent_dim={model.latent_dim}" in needed.overrides
        build.instantiate(config["objective"], "objective")
        if needed.learning_rates:
            assert config["optimizer"]["lr"] in needed.learning_rates


@pytest.mark.slow
def test_missing_command_trains_the_run_that_is_missing(tmp_path):
    needed, _ = build.instantiate(settings("figure", *DIGITS)["figure"], "figure").needed_runs("quick")
    path = tmp_path / "runs" / needed.label
    arguments = shlex.split(needed.command(path))[2:]
    assert main(["train", *arguments, "threads=1", "model.encoder.hidden=[8]", "callbacks=none"]) == 0
    assert Path(draw(*DIGITS, f"root={tmp_path}")).is_file()
