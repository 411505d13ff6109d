"""The networks of the experiments, written by hand: encoder and decoder, heads included."""

from torch import nn

from benchmarks.hand_written import Networks


def mnist_mlp() -> Networks:
    """784-500-20-500-784, tanh: experiment=mnist."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
    decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))
    return encoder, decoder


def mnist_conv() -> Networks:
    """Convolutions 4x4 of 32 and 64 channels, each halving the image, 256 units, SiLU: experiment=mnist_conv."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 256),
        nn.SiLU(),
        nn.Linear(256, 40),
    )
    decoder = nn.Sequential(
        nn.Linear(20, 256),
        nn.SiLU(),
        nn.Linear(256, 64 * 7 * 7),
        nn.SiLU(),
        nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
    )
    return encoder, decoder


def frey_face_mlp() -> Networks:
    """560-200-10-200-560, tanh, mean and log-variance of every pixel: experiment=frey_face."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(560, 200), nn.Tanh(), nn.Linear(200, 20))
    decoder = nn.Sequential(nn.Linear(10, 200), nn.Tanh(), nn.Linear(200, 2 * 560))
    return encoder, decoder


def two_layer_mlp() -> Networks:
    """784-200-200-50-200-200-784, tanh: experiment=iwae."""
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100)
    )
    decoder = nn.Sequential(nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784))
    return encoder, decoder
