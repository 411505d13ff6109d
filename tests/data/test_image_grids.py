import pytest
import torch
from scipy.stats import norm

from vae_lab.data.image_grids import image_grid, manifold_latents, paired_rows


def test_image_grid_goes_row_by_row_from_the_top_left():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 3) / 10
    grid = image_grid(images, columns=2)
    assert grid.shape == (1, 4, 6)
    assert torch.equal(grid[0, ::2, ::3], torch.tensor([[0.0, 0.1], [0.2, 0.3]]))


def test_image_grid_separates_neighbours_and_fills_up_with_white():
    grid = image_grid(torch.zeros(3, 3, 2, 2), columns=2, padding=1)
    assert grid.shape == (3, 5, 5)
    dark = torch.ones(5, 5, dtype=torch.bool)
    dark[2], dark[:, 2], dark[3:, 3:] = False, False, False
    assert torch.equal(grid, (~dark).float().expand(3, 5, 5))


def test_image_grid_keeps_the_scale_of_faint_images():
    faint = torch.tensor([0.2, 0.3]).view(2, 1, 1, 1)
    assert torch.equal(image_grid(faint, columns=2), torch.tensor([[[0.2, 0.3]]]))
    assert image_grid(torch.tensor([-0.1, 1.1]).view(2, 1, 1, 1), columns=2).tolist() == [[[0.0, 1.0]]]


def test_image_grid_dark_on_white_inverts_images_and_leaves_the_paper_white():
    images = torch.tensor([0.0, 0.75]).view(2, 1, 1, 1)
    grid = image_grid(images, columns=3, padding=1, dark_on_white=True)
    assert grid.tolist() == [[[1.0, 1.0, 0.25, 1.0, 1.0]]]


@pytest.mark.parametrize(("num", "columns", "padding"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_image_grid_refuses_what_has_no_picture(num, columns, padding):
    with pytest.raises(ValueError, match="image_grid"):
        image_grid(torch.zeros(num, 1, 2, 2), columns=columns, padding=padding)


def test_paired_rows_put_partners_under_each_other():
    above = torch.arange(4.0).view(4, 1, 1, 1) / 10
    grid = image_grid(paired_rows(above, above + 0.5, columns=2), columns=2)
    assert torch.equal(grid[0], torch.tensor([[0.0, 0.1], [0.5, 0.6], [0.2, 0.3], [0.7, 0.8]]))


def test_paired_rows_refuse_a_row_that_is_not_full():
    with pytest.raises(ValueError, match="3 images do not fill rows of 2"):
        paired_rows(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), columns=2)


def test_manifold_latents_are_the_midpoints_through_the_inverse_cdf():
    z = manifold_latents(4)
    ppf = torch.tensor(norm.ppf([0.125, 0.375, 0.625, 0.875])).float()
    torch.testing.assert_close(z[:4, 0], ppf)
    torch.testing.assert_close(z[::4, 1], ppf.flip(0))
    assert z.shape == (16, 2) and z.dtype == torch.float32


def test_manifold_latents_are_oriented_like_a_scatter_plot():
    z = manifold_latents(10).view(10, 10, 2)
    assert (z[:, 1:, 0] > z[:, :-1, 0]).all(), "the first dimension must grow to the right"
    assert (z[1:, :, 1] < z[:-1, :, 1]).all(), "the second dimension must grow upwards"


def test_manifold_of_one_cell_is_the_origin():
    assert manifold_latents(1).tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="n must be >= 1"):
        manifold_latents(0)
