import itertools
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from linear_gaussian import six_standard_errors
from omegaconf import OmegaConf

from vae_lab.distributions import DiagonalGaussian
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.initialization import PyTorchDefault
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder

CONFIGS = Path(__file__).parents[1] / "configs"
SHAPES = [(1, 28, 28), (1, 28, 20), (1, 8, 8), (3, 32, 32), (2, 9, 13)]


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def make(model: str, likelihood: str, image_shape: tuple[int, int, int], **changed: object) -> VAE:
    """The model as the YAML files of its groups make it."""
    chosen = {"model": model, "likelihood": likelihood, "initialization": "pytorch"}
    config = OmegaConf.create({k: OmegaConf.load(CONFIGS / k / f"{v}.yaml") for k, v in chosen.items()})
    config.model.update(changed)
    return instantiate(config.model, image_shape=list(image_shape), _convert_="all")


every_model_and_likelihood = pytest.mark.parametrize(
    ("model", "likelihood"), list(itertools.product(choices("model"), choices("likelihood")))
)


@every_model_and_likelihood
@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_is_per_datapoint(model, likelihood, shape):
    vae = make(model, likelihood, shape)
    x = torch.rand(4, *shape)
    q = vae.posterior(x)
    assert q.mean.shape == q.log_variance.shape == (4, vae.latent_dim)
    z = q.rsample((3,))
    p = vae.likelihood(z)
    assert p.log_prob(x).shape == vae.log_joint(x, z).shape == (3, 4)
    assert p.mean.shape == p.sample().shape == (3, 4, *shape)
    if likelihood != "gaussian_fixed_noise":  # whose mean is a linear function of the features
        assert p.mean.min() >= 0 and p.mean.max() <= 1
    assert vae.likelihood(z[0]).log_prob(x).shape == (4,)


@every_model_and_likelihood
def test_gradients_reach_all_parameters(model, likelihood):
    vae = make(model, likelihood, (1, 12, 9))
    x = torch.rand(64, 1, 12, 9)
    q = vae.posterior(x)
    z = q.rsample()
    (vae.log_joint(x, z) - q.log_prob(z)).mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@every_model_and_likelihood
def test_draws_along_leading_dimensions_are_independent_of_each_other(model, likelihood):
    vae = make(model, likelihood, (1, 8, 8), latent_dim=3)
    x, z = torch.rand(5, 1, 8, 8), torch.randn(2, 4, 5, 3)
    log_joint = vae.log_joint(x, z)
    assert log_joint.shape == (2, 4, 5)
    torch.testing.assert_close(log_joint[1, 2], vae.log_joint(x, z[1, 2]), rtol=1e-4, atol=1e-4)


@every_model_and_likelihood
def test_autocast_to_bfloat16_computes_densities_in_float32(model, likelihood):
    vae = make(model, likelihood, (1, 8, 8))
    x = torch.rand(5, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = vae.posterior(x)
        log_joint = vae.log_joint(x, q.rsample())
    assert q.log_variance.dtype == log_joint.dtype == torch.float32
    log_joint.mean().backward()


@pytest.mark.parametrize("model", choices("model"))
def test_decoder_follows_the_encoder_unless_told_otherwise(model):
    config = OmegaConf.load(CONFIGS / "model" / f"{model}.yaml")
    assert config.decoder.hidden == config.encoder.hidden
    config.encoder.activation = "gelu"
    assert config.decoder.activation == "gelu"


def test_yaml_of_the_mlp_is_the_network_of_the_paper():
    shapes = [tuple(p.shape) for p in make("mlp", "bernoulli", (1, 28, 28)).weights()]
    assert shapes == [(500, 784), (20, 500), (20, 500), (500, 20), (784, 500)]


def test_weights_are_everything_but_biases():
    vae = make("conv", "gaussian", (1, 8, 8))
    expected = [parameter for name, parameter in vae.named_parameters() if name.endswith("weight")]
    assert [id(w) for w in vae.weights()] == [id(p) for p in expected]


def test_prior_is_standard_normal():
    prior = make("mlp", "bernoulli", (1, 8, 8), latent_dim=3).prior()
    assert prior.mean.tolist() == prior.log_variance.tolist() == [0.0, 0.0, 0.0]
    z = torch.randn(2, 5, 3)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(prior.log_prob(z), expected)


def test_initialization_is_called_with_the_finished_model():
    seen = []
    encoder, decoder = (partial(part, hidden=[4], activation="tanh") for part in (MLPEncoder, MLPDecoder))
    vae = VAE((1, 3, 4), 2, encoder, decoder, BernoulliLikelihood, seen.append)
    assert seen == [vae]


@pytest.mark.parametrize("latent_dim", [0, -1])
def test_latent_dim_below_one_is_refused_before_anything_is_made(latent_dim):
    def never(*args: object) -> torch.nn.Module:
        raise AssertionError("made a network")

    message = rf"model\.latent_dim must be an integer >= 1, got {latent_dim}: z needs at least one dimension"
    with pytest.raises(ValueError, match=message):
        VAE((1, 3, 4), latent_dim, never, never, never, PyTorchDefault())
    with pytest.raises(ValueError, match=r"image_shape must be \(channel, height, width\)"):
        VAE((1, 3, 0), 2, never, never, never, PyTorchDefault())


def test_oracle_posterior_is_exact(linear_gaussian):
    x = linear_gaussian.sample(5)
    q = linear_gaussian.model.posterior(x)
    torch.testing.assert_close(q.mean, linear_gaussian.posterior_mean(x))
    torch.testing.assert_close(q.variance, linear_gaussian.posterior_variance.expand_as(q.variance))


def test_log_joint_less_log_posterior_is_log_marginal_for_every_z(linear_gaussian):
    x = linear_gaussian.sample(5)
    z = torch.randn(7, 5, linear_gaussian.latent_dim, dtype=torch.float64)
    model = linear_gaussian.model
    ratio = model.log_joint(x, z) - model.posterior(x).log_prob(z)
    torch.testing.assert_close(ratio, linear_gaussian.log_marginal(x).expand(7, 5))


def test_oracle_data_have_the_moments_of_the_model(linear_gaussian):
    x = linear_gaussian.sample(20_000).flatten(1)
    assert ((x.mean(0) - linear_gaussian.bias).abs() < six_standard_errors(x)).all()
    centred = (x - linear_gaussian.bias)[:, :3]
    products = centred[:, :, None] * centred[:, None, :]
    weight = linear_gaussian.weight[:3]
    covariance = weight @ weight.T + linear_gaussian.noise_std**2 * torch.eye(3)
    assert ((products.mean(0) - covariance).abs() < six_standard_errors(products)).all()


def test_oracle_without_the_exact_posterior_has_another_one(make_linear_gaussian):
    oracle = make_linear_gaussian(exact_posterior=False, latent_dim=2, dtype=torch.float32)
    x = oracle.sample(5)
    q = oracle.model.posterior(x)
    assert isinstance(q, DiagonalGaussian) and q.mean.dtype == x.dtype == torch.float32
    assert not torch.allclose(q.mean.double(), oracle.posterior_mean(x), atol=0.1)
