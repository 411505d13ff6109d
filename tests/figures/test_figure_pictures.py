"""Figures 4 and 5 and the gallery."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vae_lab.figures.base import make_figure
from vae_lab.figures.canvas import save
from vae_lab.figures.decoded import caption_of
from vae_lab.figures.figure4 import Figure4
from vae_lab.figures.figure5 import Figure5
from vae_lab.figures.gallery import LAST_MILLISECONDS, Gallery, write_animation
from vae_lab.figures.section5 import Section5

BUDGET = {"quick": 200, "standard": 200, "paper": 200}


def training():
    names = ("digits", "mnist", "frey_face")
    return Section5(
        data_sets={name: [f"data={name}"] for name in names},
        panels={},
        methods={"aevb": ["objective=aevb"]},
        evaluation=[],
        learning_rates=[],
        max_samples=dict.fromkeys(names, BUDGET),
        snapshots=[],
    )


def gallery(**changes):
    settings = {
        "data_sets": {"digits": ["data=digits"]},
        "networks": {"mlp": ["model=mlp"], "conv": ["model=conv"]},
        "overrides": ["objective=aevb"],
        "latent_dims": [2, 5],
        "max_samples": BUDGET,
        "snapshots": {scale: [100, 200] for scale in BUDGET},
        "side": 4,
        "seed": 0,
    }
    return Gallery(**(settings | changes))


def collected(figure, folder):
    """The table and the arrays that are drawn."""
    runs = figure.find_runs(folder, "quick")
    return figure.collect(runs, "quick"), figure.measure(runs, "quick")


def shown(axes):
    """The pixels of the axes, [height, width]."""
    return torch.from_numpy(axes.images[0].get_array().data)


def texts(picture):
    return [text.get_text() for axes in picture.axes for text in axes.texts]


def test_figure4_shows_the_manifold_without_gaps_and_dark_on_white(tmp_path, short_run):
    short_run(tmp_path / "digits_2_aevb", "model.latent_dim=2")
    figure = Figure4(training=training(), sizes={"frey_face": 10, "digits": 20})
    assert [needed.label for needed in figure.needed_runs("quick")] == ["frey_face_2_aevb", "digits_2_aevb"]
    table, arrays = collected(figure, tmp_path)
    assert table[["dataset", "latent_dim", "label"]].values.tolist() == [["digits", 2, "digits_2_aevb"]]
    assert table["samples_evaluated"].tolist() == table["bound_samples"].tolist() == [200]
    picture = figure.draw(table, arrays)
    frey_face, digits = picture.axes
    assert shown(digits).shape == (20 * 8, 20 * 8)
    assert shown(digits).mean() > 0.5, "ink is dark"
    assert not frey_face.images
    assert digits.get_xlabel() == "(b) Learned digits manifold"
    bound = f"{table['test_bound_nats'][0]:.1f}".replace("-", "−")
    assert texts(picture) == ["no run yet", f"test bound {bound} nats at 200 samples"]


def test_caption_is_the_bound_of_the_weights_and_says_how_many_draws_it_has(tmp_path, short_run):
    run = short_run(tmp_path / "digits_2_aevb", "model.latent_dim=2", "evaluation.num_samples=3")
    figure = Figure4(training=training(), sizes={"digits": 2})
    run.ledger_path("last").unlink()  # as long as the training runs
    row = collected(figure, tmp_path)[0].iloc[0]
    assert caption_of(row).endswith("nats (3 draws of z) at 200 samples")
    run.update_ledger("last", {"samples_evaluated": 200, "test/bound": -12.34, "test/bound_num_samples": 8})
    row = collected(figure, tmp_path)[0].iloc[0]
    assert caption_of(row) == "test bound −12.3 nats (8 draws of z) at 200 samples"
    run.update_ledger("last", {"samples_evaluated": 200, "objective.beta": 4.0})
    row = collected(figure, tmp_path)[0].iloc[0]
    assert caption_of(row) == "test bound −12.3 nats (8 draws of z) (trained with beta 4) at 200 samples"


@pytest.mark.slow
def test_figure5_shows_samples_of_every_latent_size_that_is_there(tmp_path, short_run):
    short_run(tmp_path / "digits_2_aevb", "model.latent_dim=2")
    short_run(tmp_path / "digits_5_aevb", "model.latent_dim=5")
    figure = Figure5(training=training(), data_set="digits", latent_dims=[2, 5, 10], side=10, seed=0)
    table, arrays = collected(figure, tmp_path)
    picture = figure.draw(table, arrays)
    assert [axes.get_xlabel() for axes in picture.axes] == [
        "(a) 2-D latent space",
        "(b) 5-D latent space",
        "(c) 10-D latent space",
    ]
    assert [len(axes.images) for axes in picture.axes] == [1, 1, 0]
    assert shown(picture.axes[0]).shape == (80, 80)
    assert torch.equal(shown(figure.draw(table, arrays).axes[0]), shown(picture.axes[0]))
    assert save(picture, tmp_path / "figure5")[0].stat().st_size > 10_000


@pytest.fixture(scope="module")
def gallery_folder(tmp_path_factory, short_run):
    folder = tmp_path_factory.mktemp("gallery")
    short_run(folder / "gallery_digits_2_mlp", "model.latent_dim=2")
    conv = ("model=conv", "model.encoder.channels=[4]", "model.encoder.hidden=16")
    short_run(folder / "gallery_digits_2_conv", "model.latent_dim=2", *conv)
    short_run(folder / "gallery_digits_5_mlp", "model.latent_dim=5")
    return folder


@pytest.mark.slow
def test_gallery_has_three_pictures_of_each_network_with_bounds(gallery_folder):
    figure = gallery()
    table, arrays = collected(figure, gallery_folder)
    assert table["label"].tolist() == [
        "gallery_digits_2_mlp",
        "gallery_digits_2_conv",
        "gallery_digits_5_mlp",
    ]
    picture = figure.draw(table, arrays)
    assert len(picture.axes) == 12
    samples, reconstructions, scatter, *_ = picture.axes
    assert shown(samples).shape == shown(reconstructions).shape == (32, 32)
    assert np.shape(scatter.collections[0].get_offsets())[0] == 250
    captions = [axes.get_title() for axes in picture.axes if axes.get_title()]
    assert captions[0].startswith("MLP: test bound ")
    assert captions[1].startswith("convolutional: test bound ")
    assert captions[3] == "convolutional: no run yet"
    assert len(picture.legends[0].get_texts()) == 10


@pytest.mark.slow
def test_gallery_writes_an_animation_of_each_row(tmp_path, gallery_folder):
    figure = gallery()
    table, arrays = collected(figure, gallery_folder)
    first, second, *manifolds = figure.extras(table, arrays, tmp_path)
    assert [path.name for path in manifolds] == ["manifolds.png", "manifolds.pdf"]
    side = 2 * figure.side
    assert arrays["gallery_digits_2_mlp/manifold"].shape[1] >= 8 * side, "as many images along each side"
    assert "gallery_digits_5_mlp/manifold" not in arrays
    assert first == tmp_path / "gallery" / "digits_2.gif"
    with Image.open(first) as both, Image.open(second) as one:
        assert [getattr(image, "n_frames", 1) for image in (both, one)] == [2, 2]
        assert one.width >= 150 and both.width > 1.9 * one.width
        both.seek(0)
        early = both.convert("RGB").tobytes()
        both.seek(1)
        assert both.convert("RGB").tobytes() != early
        assert both.info["duration"] == LAST_MILLISECONDS


@pytest.mark.slow
def test_pictures_are_drawn_again_from_the_files_alone(tmp_path, gallery_folder):
    """Without a run and without a model: the CSV and the arrays beside it are all that a picture needs."""
    shutil.copytree(gallery_folder, tmp_path / "runs")
    shutil.copytree(gallery_folder / "gallery_digits_2_mlp", tmp_path / "runs" / "digits_2_aevb")
    figures = (
        Figure4(training=training(), sizes={"digits": 20}),
        Figure5(training=training(), data_set="digits", latent_dims=[2, 5], side=10, seed=0),
        gallery(),
    )
    drawn = [make_figure(figure, tmp_path, "quick") for figure in figures]
    shutil.rmtree(tmp_path / "runs")
    for figure, files in zip(figures, drawn, strict=True):
        with np.load(files.csv.with_suffix(".npz")) as file:
            arrays = dict(file)
        table = pd.read_csv(files.csv)
        png, _ = save(figure.draw(table, arrays), tmp_path / "again")
        assert png.read_bytes() == files.png.read_bytes()
        again = figure.extras(table, arrays, tmp_path / "extras")
        assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files.extras]


def test_animation_of_networks_without_a_common_count_is_refused(tmp_path):
    grid = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="MLP, conv have no snapshot at the same count"):
        write_animation({"MLP": {100: grid}, "conv": {200: grid}}, tmp_path / "a.gif")


def test_colour_images_are_animated(tmp_path):
    first, second = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    write_animation({"MLP": {1: first, 2: second}}, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 2
        assert len(np.unique(np.asarray(animation.convert("RGB")).reshape(-1, 3), axis=0)) > 16


def test_animation_is_light(tmp_path):
    rows = torch.rand(12, 28 * 8, 28 * 8).mul(255).byte().numpy()
    write_animation({"MLP": dict(enumerate(rows)), "conv": dict(enumerate(rows))}, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 12 * rows[0].nbytes * 2 * 0.7  # noise, at half a byte a pixel


def test_pictures_without_a_run_say_so():
    for figure in (Figure4(training=training(), sizes={"mnist": 20}), gallery()):
        assert figure.measure({}, "quick") == {}
        assert set(texts(figure.draw(figure.collect({}, "quick"), {}))) == {"no run yet"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Figure4(training=training(), sizes={}), r"figure\.sizes must give"),
        (
            lambda: Figure5(training=training(), data_set="mnist", latent_dims=[], side=10, seed=0),
            r"figure\.latent_dims",
        ),
        (lambda: gallery(side=3), r"figure\.side must be even"),
        (lambda: gallery(latent_dims=[1]), r"figure\.latent_dims must hold sizes >= 2"),
    ],
)
def test_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
