import pytest
import torch
from linear_gaussian import six_standard_errors

from vae_lab.applications.sampling import decoded, fit_aggregate, mixture_latents, prior_latents
from vae_lab.errors import ConfigError


def test_draws_of_pixels_have_the_moments_of_the_model(linear_gaussian):
    model = linear_gaussian.model
    z = prior_latents(model, 6000, seed=0)
    x = torch.cat(list(decoded(model, z, draw="pixels", seed=0))).flatten(1)
    assert ((x.mean(0) - linear_gaussian.bias).abs() < six_standard_errors(x)).all()
    centred = x - linear_gaussian.bias
    products = centred[:, :, None] * centred[:, None]
    noise = linear_gaussian.noise_std**2 * torch.eye(x.shape[1], dtype=x.dtype)
    covariance = linear_gaussian.weight @ linear_gaussian.weight.T + noise
    assert ((products.mean(0) - covariance).abs() < six_standard_errors(products)).all()
    means = torch.cat(list(decoded(model, z, draw="mean", seed=0))).flatten(1)
    torch.testing.assert_close(means, z @ linear_gaussian.weight.T + linear_gaussian.bias)


def test_noise_of_a_draw_depends_on_the_seed_and_its_place_only(linear_gaussian):
    model = linear_gaussian.model
    z = prior_latents(model, 600, seed=3)
    few, more, other = (
        torch.cat(list(decoded(model, z[:num], draw="pixels", seed=seed)))
        for num, seed in ((250, 0), (600, 0), (250, 1))
    )
    assert torch.equal(few, more[:250]) and not torch.equal(few, other)


def test_mixture_for_the_aggregate_posterior_of_the_models_own_data_is_the_prior(linear_gaussian):
    model = linear_gaussian.model
    mixture = fit_aggregate(model, linear_gaussian.sample(4000), num_components=None, seed=0)
    assert mixture.n_components == 1, "BIC"
    z = mixture_latents(mixture, model, 8000, seed=1)
    assert z.dtype == torch.float64 and (z.mean(0).abs() < 6 * (1 / 8000 + 1 / 4000) ** 0.5).all()
    assert ((z.var(0) - 1).abs() < 6 * (2 / 8000 + 2 / 4000) ** 0.5).all()


def test_mixture_follows_data_of_two_kinds(linear_gaussian):
    model = linear_gaussian.model
    images = linear_gaussian.sample(2000)
    z = torch.tensor([[4.0, 0, 0]]).double().repeat(1000, 1) * torch.tensor([1.0, -1.0]).repeat(500)[:, None]
    images[:1000] = model.likelihood(z).mean
    mixture = fit_aggregate(model, images[:1000], num_components=None, seed=0)
    assert mixture.n_components == 2 and sorted(mixture.means_[:, 0].round().tolist()) == [-4, 4]
    drawn = mixture_latents(mixture, model, 1000, seed=0)
    assert (drawn[:, 0].abs() - 4).abs().max() < 1.5 and 400 < (drawn[:, 0] > 0).sum() < 600
    assert (drawn[:500, 0] > 0).double().mean() == pytest.approx(0.5, abs=0.15), "in random order"
    with pytest.raises(ConfigError, match="components must be <= 20, got 21"):
        fit_aggregate(model, images[:20], num_components=21, seed=0)
