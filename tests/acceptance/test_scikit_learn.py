"""A linear VAE with scikit-learn's parameters has scikit-learn's densities: probabilistic PCA and factor analysis."""

from typing import Any

import pytest
import torch
from linear_gaussian import LinearGaussian
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, FactorAnalysis

from vae_lab.elbo import sgvb_a
from vae_lab.estimators.importance_sampling import ImportanceSampling
from vae_lab.estimators.quadrature import Quadrature


@pytest.mark.parametrize("kind", [PCA, FactorAnalysis])
def test_bound_and_estimates_of_a_linear_vae_are_scikit_learns_log_likelihood(kind: Any) -> None:
    digits: Any = load_digits()
    images = digits.images[:, None, :, 2:6] / 16  # at the borders there are pixels without variance
    flat = images.reshape(len(images), -1)
    fitted = kind(3).fit(flat)
    noise = torch.tensor(fitted.noise_variance_).expand(flat.shape[1])
    loadings = torch.from_numpy(fitted.components_)
    if kind is PCA:
        loadings = loadings * torch.from_numpy(fitted.explained_variance_ - fitted.noise_variance_).sqrt()[:, None]

    model = LinearGaussian(latent_dim=3, image_shape=(1, 8, 4)).model
    encoder: Any = model.encoder.head
    decoder: Any = model.decoder.head
    mean, precision = torch.from_numpy(fitted.mean_), torch.eye(3) + loadings / noise @ loadings.T
    torch.testing.assert_close(precision, precision.diag().diag(), msg="the posterior is no diagonal Gaussian")
    gain = loadings / noise / precision.diag()[:, None]
    with torch.no_grad():
        decoder.mean[0].weight.copy_(loadings.T)
        decoder.mean[0].bias.copy_(mean)
        decoder.log_variance = noise.log().reshape(1, 8, 4)
        encoder.mean.weight.copy_(gain)
        encoder.mean.bias.copy_(-gain @ mean)
        encoder.log_variance.bias.copy_(-precision.diag().log())

    x, expected = torch.from_numpy(images[:50]), torch.from_numpy(fitted.score_samples(flat[:50]))
    torch.testing.assert_close(sgvb_a(model, x).total, expected)
    for estimator in (ImportanceSampling(num_samples=2, samples_per_chunk=None), Quadrature(num_nodes=20)):
        torch.testing.assert_close(estimator.estimate(model, x, seed=0).log_likelihood, expected, rtol=0, atol=1e-5)
