"""Several runs in one picture: the right images in the right rows, lines with their errors."""

import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_run import make_drawn_run
from PIL import Image

from vae_lab.data.image_grids import image_grid
from vae_lab.figures.canvas import encoded, encoded_tile
from vae_lab.figures.run_pictures import read_test_images
from vae_lab.figures.side_by_side import Line, against_latent_dim, colours, curves, described, kl_bars
from vae_lab.randomness import generator
from vae_lab.reports.pages.comparison import IMAGES, SEED, draw_decodings, draw_reconstructions
from vae_lab.runs.load import load_run


@pytest.fixture
def runs(tmp_path):
    """Two untrained models with other weights."""
    return {label: load_run(make_drawn_run(tmp_path / label).path) for label in "AB"}


def row(figure, number: int, count: int) -> np.ndarray:
    """The pixels of a row of images of 8 x 8, with a white line between them."""
    pixels = np.asarray(figure.axes[0].images[0].get_array())
    assert pixels.shape[0] == 9 * count - 1
    return pixels[9 * number : 9 * number + 8]


def expected(images: torch.Tensor) -> np.ndarray:
    return image_grid(images, columns=len(images), padding=1, dark_on_white=True)[0].numpy()


def test_each_run_reconstructs_the_images_above_it(runs):
    x = read_test_images(runs["A"], IMAGES)
    figure = draw_reconstructions(runs)
    np.testing.assert_allclose(row(figure, 0, 3), expected(x))
    for number, run in enumerate(runs.values(), 1):
        np.testing.assert_allclose(row(figure, number, 3), expected(run.reconstruct(x)), atol=1e-6)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["test image", "A", "B"]


def test_each_run_decodes_the_same_z(runs):
    z = torch.randn(IMAGES, 2, generator=generator("cpu", SEED, "compare"))
    figure = draw_decodings(runs)
    for number, run in enumerate(runs.values()):
        np.testing.assert_allclose(row(figure, number, 2), expected(run.decode(z)), atol=1e-6)


def test_curves_name_what_is_to_be_named():
    lines = [Line("A", [10, 100], [-5.0, -3.0], "red"), Line("A", [10, 100], [-9.0, -4.0], "red", ":", is_named=False)]
    (axes,) = curves(lines, title="t", quantity="bound").axes
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[-5.0, -3.0], [-9.0, -4.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A"]
    assert axes.get_xscale() == "log"
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]  # or two points would be taken for a curve
    assert described(lines, "Bound").endswith("the curves end with A at \N{MINUS SIGN}3.00")


def test_error_bars_are_standard_errors_and_a_single_seed_has_none():
    table = pd.DataFrame(
        {"series": ["a", "a", "b"], "latent_dim": [20, 2, 2], "mean": [-1.0, -2.0, -3.0], "se": [0.5, 0.1, math.nan]}
    )
    (axes,) = against_latent_dim(table, title="t", quantity="test bound").axes
    containers: list[Any] = axes.containers
    first, second = (container.lines for container in containers)
    assert first[0].get_xydata().tolist() == [[2, -2], [20, -1]]
    segments = first[2][0].get_segments()
    np.testing.assert_allclose([segment[:, 1] for segment in segments], [[-2.1, -1.9], [-1.5, -0.5]])
    np.testing.assert_allclose(second[2][0].get_segments()[0][:, 1], [-3, -3])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "20"]


@pytest.mark.parametrize("count", [1, 3, 40, 200])
def test_kl_bars_stand_in_order(count):
    values = torch.rand(count).tolist()
    (axes,) = kl_bars(values, title="t").axes
    bars: Any = axes.patches
    assert [bar.get_height() for bar in bars] == pytest.approx(sorted(values, reverse=True))


@pytest.mark.parametrize("count", [1, 10, 11, 48])
def test_colours_are_all_different(count):
    assert len(set(colours(count))) == count


def test_files_for_pages_are_png_or_for_photographs_jpeg():
    line = curves([Line("A", [1, 2], [0.0, 1.0], "red")], title="t", quantity="bound")
    assert encoded(line).startswith(b"\x89PNG")
    assert encoded_tile(torch.rand(1, 20, 20)).startswith(b"\x89PNG")
    photograph = encoded_tile(torch.rand(3, 900, 600))
    assert photograph.startswith(b"\xff\xd8")
    assert Image.open(io.BytesIO(photograph)).size == (267, 400)


def test_small_tile_is_enlarged_without_blurring():
    grid = torch.tensor([[[0.0, 1.0], [0.25, 0.5]]])
    pixels = np.asarray(Image.open(io.BytesIO(encoded_tile(grid))).convert("L"))
    assert pixels.shape == (180, 180)
    assert [pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]] == [0, 255, 64, 128]
