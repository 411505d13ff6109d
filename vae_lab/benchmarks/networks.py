"""The networks of the experiments, written by hand: encoder and decoder, heads included."""

from torch import nn

from vae_lab.benchmarks.hand_written import Networks


def mnist_mlp() -> Networks:
    """784-500-20-500-784, tanh: experiment=mnist."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
    decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))
    return encoder, decoder
