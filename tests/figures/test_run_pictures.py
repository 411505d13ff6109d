import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_run import make_drawn_run
from linear_gaussian import LinearGaussian
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch.distributions import Independent, Normal, kl_divergence

from vae_lab.data.arrays import Source, Split
from vae_lab.data.digits import Digits
from vae_lab.data.image_grids import image_grid
from vae_lab.figures.canvas import save
from vae_lab.figures.run_pictures import (
    CannotDrawError,
    Posterior,
    bound_caption,
    bound_curve,
    class_of,
    dark_on_white_by_default,
    interpolations,
    kl_per_dimension,
    latent_scatter,
    manifold,
    posteriors,
    reconstructions,
    samples,
    traversals,
)
from vae_lab.runs.load import Run, load_run

POSTERIOR = (reconstructions, latent_scatter, posteriors, traversals, interpolations)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return load_run(make_drawn_run(tmp_path / "run").path)


def draw(picture, run: Run, *, dark_on_white: bool = False, seed: int = 0) -> Figure:
    return picture(run, dark_on_white=dark_on_white, seed=seed)


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def replace_test_part(run: Run, images: torch.Tensor, labels: torch.Tensor | None) -> None:
    run.data.splits["test"] = Split(images, labels, torch.arange(len(images)))


@pytest.mark.slow
@pytest.mark.parametrize("picture", [bound_curve, samples])
def test_a_picture_is_saved_twice_and_the_same_each_time(picture, run, tmp_path):
    first, second = (save(draw(picture, run), tmp_path / name) for name in ("first", "second"))
    assert [path.suffix for path in first] == [".png", ".pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG") and first[1].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("picture", [samples, manifold, *POSTERIOR])
def test_every_picture_carries_the_bound_in_nats(picture, run):
    texts = [text.get_text() for text in draw(picture, run).axes[0].texts]
    assert texts[-1].endswith("test bound −20.04 nats per datapoint (last.ckpt, 40,000 samples evaluated)")


def test_bound_caption_of_a_run_that_was_interrupted_has_the_last_value_of_its_curve(run):
    run.metrics.clear()
    place = "(last.ckpt, 40,000 samples evaluated)"
    assert bound_caption(run) == f"test bound −20.00 nats per datapoint {place}"
    vars(run)["curve"] = run.curve[:2]
    assert bound_caption(run) == f"test bound −30.00 nats per datapoint at 2,000 samples {place}"
    vars(run)["curve"] = []
    assert bound_caption(run) == "last.ckpt, 40,000 samples evaluated; nothing measured"


def test_a_snapshot_has_the_bound_of_its_own_ledger(tmp_path):
    directory = make_drawn_run(tmp_path / "run")
    (directory.checkpoints / "at").mkdir()
    shutil.copy(directory.checkpoints / "last.ckpt", directory.checkpoints / "at" / "40000.ckpt")
    place = "40000.ckpt, 40,000 samples evaluated"
    assert "−20.00" in bound_caption(load_run(directory.path, checkpoint=40_000))  # of the curve
    directory.update_ledger("40000", {"test/bound": -21.0, "samples_evaluated": 40_000})
    caption = bound_caption(load_run(directory.path, checkpoint="40000"))
    assert caption == f"test bound −21.00 nats per datapoint ({place})"


def test_bound_curve_shows_the_measured_columns_on_a_log_axis(run):
    axes = draw(bound_curve, run).axes[0]
    assert axes.get_xscale() == "log" and "nats" in axes.get_ylabel()
    assert [line.get_label() for line in axes.lines] == ["train (running mean): −21.00", "test: −20.00"]
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[100, -90], [2000, -30], [40_000, -20]])
    assert all(line.get_marker() == "o" for line in axes.lines)  # few points
    assert axes.texts[0].get_text().endswith("with one draw of z for each datapoint")


@pytest.mark.slow
def test_bound_curve_survives_a_single_evaluation(run, tmp_path):
    vars(run)["curve"] = run.curve[:1]
    save(draw(bound_curve, run), tmp_path / "single")


def test_bound_curve_is_not_flattened_by_a_steep_start(run):
    start = [{"samples_evaluated": 10.0, "test/bound": -9000.0}]
    later = [{"samples_evaluated": 1000.0 * i, "test/bound": -150.0 + i} for i in range(1, 20)]
    vars(run)["curve"] = start + later
    bottom, top = draw(bound_curve, run).axes[0].get_ylim()
    assert -250 < bottom < -149 and -131 < top < -100


def test_samples_are_decoder_means_that_depend_on_the_seed_alone(run):
    one, again, other = (pixels(draw(samples, run, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_pictures_keep_the_fixed_scale_and_invert_on_request(run):
    image = draw(samples, run).axes[0].images[0]
    assert image.get_clim() == (0, 1)
    dark = pixels(draw(samples, run, dark_on_white=True))
    light = pixels(draw(samples, run))
    np.testing.assert_allclose(dark[:8, :8], 1 - light[:8, :8], rtol=1e-6)


def test_manifold_ticks_stand_where_the_prior_has_them(run):
    axes = draw(manifold, run).axes[0]
    ticks = {label.get_text(): place for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    assert ticks["0.0"] == pytest.approx(80) and ticks["−1.0"] == pytest.approx(160 * 0.158655, rel=1e-4)


def test_manifold_says_why_it_needs_two_dimensions(tmp_path):
    run = load_run(make_drawn_run(tmp_path / "run", latent_dim=3).path)
    with pytest.raises(CannotDrawError, match="latent_dim = 2, and this run has 3"):
        draw(manifold, run)


def test_reconstructions_stand_below_their_originals(run):
    x = run.data.splits["test"].images[:40]  # as many as are drawn: a product's rounding depends on its size
    grid = image_grid(torch.cat([x[:10], run.reconstruct(x)[:10]]), columns=10, padding=1)
    np.testing.assert_array_equal(pixels(draw(reconstructions, run))[:17], grid[0])


def test_interpolations_start_and_end_at_the_reconstructions_of_their_ends(run):
    x = run.data.splits["test"].images[:2]
    expected = image_grid(torch.cat([x, run.reconstruct(x)]), columns=1)[0].view(4, 8, 8)
    row = pixels(draw(interpolations, run))[:8]
    cells = [row[:, i * 9 : i * 9 + 8] for i in (0, 10, 1, 9)]
    np.testing.assert_allclose(np.stack(cells), expected, atol=1e-6)


def test_interpolations_go_between_the_images_that_are_named(run):
    x = run.data.splits["test"].images[[3, 17]]
    figure = interpolations(run, dark_on_white=False, seed=0, ends=[3, 17])
    row = pixels(figure)
    assert row.shape == (8, 11 * 9 - 1)
    np.testing.assert_array_equal(np.stack([row[:, :8], row[:, -8:]]), x[:, 0])
    with pytest.raises(CannotDrawError, match="interpolate must name test images from 0 to 249, got 250"):
        interpolations(run, dark_on_white=False, seed=0, ends=[3, 250])


def test_classes_with_names_are_named_beside_their_images(run):
    run.data.class_names = [f"kind {label}" for label in range(10)]
    labels = run.data.splits["test"].labels
    assert class_of(run, 3) == f" (kind {labels[3]})"
    (axes, *_) = interpolations(run, dark_on_white=False, seed=0, ends=[3, 17]).axes
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == [f"3 (kind {labels[3]}), 17 (kind {labels[17]})"]


def test_traversals_start_from_the_image_that_is_shown(run):
    image = run.data.splits["test"].images[0, 0]
    np.testing.assert_array_equal(pixels(draw(traversals, run))[:8, :8], image)


def test_traversals_and_scatter_take_the_dimensions_with_the_most_kl(tmp_path):
    run = load_run(make_drawn_run(tmp_path / "run", latent_dim=12).path)
    with torch.no_grad():
        head: Any = run.model.encoder.head
        head.mean.bias[7] = 3.0
        head.mean.bias[4] = 2.0
    assert kl_per_dimension(run, run.data.splits["test"].images).argsort(descending=True)[:2].tolist() == [
        7,
        4,
    ]
    labels = [label.get_text() for label in draw(traversals, run).axes[0].get_yticklabels()]
    assert len(labels) == 10 and labels[0].startswith("$z_{7}$") and labels[1].startswith("$z_{4}$")
    axes = draw(latent_scatter, run).axes[0]
    assert axes.get_xlabel().startswith("$z_{7}$") and axes.get_ylabel().startswith("$z_{4}$")
    assert "the two dimensions with the most KL" in axes.get_title()


def drawn_points(run: Run):
    split = run.data.splits["test"]
    assert split.labels is not None
    return zip(run.encode(split.images).tolist(), split.labels.tolist(), strict=True)


def test_scatter_shows_every_test_image_once_with_a_colour_per_label(run):
    axes = draw(latent_scatter, run).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [str(i) for i in range(10)]
    dots: Any = axes.collections[0]
    expected = {(*point, *colormaps["tab10"](label)[:3]) for point, label in drawn_points(run)}
    assert {(*at, *colour[:3]) for at, colour in zip(dots.get_offsets(), dots.get_facecolor(), strict=True)} == expected
    assert [text.get_text() for text in axes.texts][:10] == [str(i) for i in range(10)]  # at their centroids
    rings: Any = axes.patches
    assert [ring.radius for ring in rings] == [1, 2]


def test_aggregate_posterior_is_a_density_beside_the_prior(run):
    axes = draw(latent_scatter, run).axes[1]
    prior: Any = axes.lines[0].get_xydata()
    filled: Any = axes.collections[0]
    outline = filled.get_paths()[0].vertices
    z = prior[:, 0]
    density = np.array([outline[outline[:, 0] == at, 1].max() for at in z])
    scale = prior[:, 1].sum() / 1.0
    assert density.sum() == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("count", [3, 12])
def test_scatter_names_the_classes(run, count):
    names = [f"class {i}" for i in range(count)]
    vars(run.data)["class_names"] = names
    replace_test_part(run, run.data.splits["test"].images, torch.arange(250) % count)
    axes, *bar, _ = draw(latent_scatter, run).axes  # the last: the aggregate posterior
    shown = bar[0].get_yticklabels() if bar else axes.get_legend().get_texts()
    assert [text.get_text() for text in shown] == names


def test_scatter_without_labels_says_so(run):
    replace_test_part(run, run.data.splits["test"].images, None)
    axes = draw(latent_scatter, run).axes[0]
    assert axes.get_legend() is None and "(no labels)" in axes.get_title()


def test_scatter_of_many_labels_has_a_colour_scale(run):
    replace_test_part(run, run.data.splits["test"].images, torch.arange(250))
    assert len(draw(latent_scatter, run).axes) == 3  # the points, their colours, the aggregate posterior


@pytest.mark.parametrize("is_exact", [True, False])
def test_the_posterior_on_a_grid_is_that_of_a_model_where_it_is_known(is_exact):
    oracle = LinearGaussian(latent_dim=2, exact_posterior=is_exact)
    (image,) = oracle.sample(1)
    found = Posterior.of(oracle.model, image)
    exact = Independent(Normal(oracle.posterior_mean(image[None])[0], oracle.posterior_variance.sqrt()), 1)
    with torch.no_grad():
        q = oracle.model.posterior(image[None])
    approximate = Independent(Normal(q.mean[0], q.std[0]), 1)
    assert found.log_likelihood == pytest.approx(float(oracle.log_marginal(image[None])), abs=1e-3)
    assert found.gap == pytest.approx(float(kl_divergence(approximate, exact)), rel=1e-3, abs=1e-3)
    left, right, bottom, top = found.extent
    height, width = found.density.shape
    row, column = divmod(int(found.density.argmax()), width)
    place = [left + (column + 0.5) * (right - left) / width, bottom + (row + 0.5) * (top - bottom) / height]
    expected = float(exact.log_prob(torch.tensor(place)).exp())
    assert found.density.max() == pytest.approx(expected, rel=1e-3)
    assert [*found.mean, *found.std] == pytest.approx([*q.mean[0].tolist(), *q.std[0].tolist()])


@pytest.mark.slow
def test_posteriors_need_two_dimensions_and_name_the_gap(run, tmp_path):
    panels: Any = draw(posteriors, run).axes[0].child_axes
    assert sum("gap" in panel.get_title() for panel in panels) == 6
    wide = load_run(make_drawn_run(tmp_path / "wide", latent_dim=3).path)
    with pytest.raises(CannotDrawError, match="latent_dim = 2, and this run has 3"):
        draw(posteriors, wide)


def test_scatter_of_one_dimension_is_refused(tmp_path):
    run = load_run(make_drawn_run(tmp_path / "run", latent_dim=1).path)
    with pytest.raises(CannotDrawError, match="latent_dim >= 2"):
        draw(latent_scatter, run)
    draw(traversals, run)


@pytest.mark.parametrize("num", [1, 2, 13])
def test_few_test_images_are_enough_or_refused(num, run):
    replace_test_part(run, run.data.splits["test"].images[:num], None)
    for picture in (reconstructions, latent_scatter, traversals):
        draw(picture, run)
    if num == 1:
        with pytest.raises(CannotDrawError, match="two test images"):
            draw(interpolations, run)
    else:
        draw(interpolations, run)


@pytest.mark.parametrize("picture", [bound_curve, *POSTERIOR])
def test_a_run_without_an_encoder_has_no_picture_of_it(picture, tmp_path):
    run = load_run(make_drawn_run(tmp_path / "run", measured=False, has_encoder=False).path)
    with pytest.raises(CannotDrawError, match="no encoder"):
        draw(picture, run)
    draw(samples, run)


def test_colour_images_are_drawn_in_colour_and_as_stored(tmp_path):
    path = tmp_path / "colour.npz"
    np.savez(path, x=np.random.default_rng(0).random((60, 6, 5, 3)).astype(np.float32))
    data = {"_target_": "vae_lab.data.npz.NPZ", "path": str(path), "batch_size": 10, "binarization": "none"}
    data |= {"train_size": None, "split_seed": 0, "keys": {}}
    run = load_run(make_drawn_run(tmp_path / "run", data=data, image_shape=(3, 6, 5)).path)
    assert not dark_on_white_by_default(run)
    for picture in (samples, manifold, reconstructions, traversals, interpolations):
        assert pixels(draw(picture, run)).shape[-1] == 3


def test_digits_are_dark_on_white_by_default(run):
    assert dark_on_white_by_default(run)


def test_missing_data_are_named_by_the_pictures_that_need_them(run, monkeypatch):
    def load(self) -> Source:
        raise FileNotFoundError("data.root: nothing there")

    monkeypatch.setattr(Digits, "load", load)
    for picture in POSTERIOR:
        with pytest.raises(CannotDrawError, match=r"the data set is not here: data\.root"):
            draw(picture, run)
    draw(samples, run, dark_on_white=dark_on_white_by_default(run))
