"""The limit: the matrix products of a network alone, without biases, activations, densities, noise and optimiser."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.conditions import Conditions, set_matmul_precision
from benchmarks.sides import Throughput

FORWARD, INPUT_GRADIENTS, ALL_GRADIENTS = 0, 1, 2
"""Which products: x W; besides, those of the gradient with respect to the inputs; besides, to the weights."""


class MatrixProducts(Throughput):
    """Rows per second through the layers of a network, in float32.

    Args:
        name: as for every side.
        widths: of every layer, in and out.
        rows: of a minibatch.
        products: FORWARD, INPUT_GRADIENTS or ALL_GRADIENTS. With the last one the inputs of the layers in `data`, which
            are data, have no gradient.
        conditions: threads and device.
        data: the positions of those layers.
        passes: how often a row goes through for what counts as one.
        precision: as of `matmul_precision`.
    """

    def __init__(
        self,
        name: str,
        widths: Sequence[tuple[int, int]],
        rows: int,
        products: int,
        conditions: Conditions,
        *,
        data: Sequence[int] = (),
        passes: int = 1,
        precision: str = "none",
    ) -> None:
        super().__init__(name, unit=rows)
        self.widths, self.products, self.conditions, self.data = widths, products, conditions, data
        self.passes, self.precision = passes, precision

    def prepare(self, seconds: float) -> None:
        """Matrices in memory, results included."""
        torch.manual_seed(0)
        self.layers = [Layer(self.unit, inputs, outputs, self.conditions.device) for inputs, outputs in self.widths]
        super().prepare(seconds)

    def work(self, amount: int) -> float:
        """So many rows."""
        set_matmul_precision(self.precision)
        self.conditions.synchronize()
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(amount // self.unit * self.passes):
                for layer in self.layers:
                    torch.mm(layer.x, layer.weight.t(), out=layer.y)
                if self.products >= INPUT_GRADIENTS:
                    self.backward()
        self.conditions.synchronize()
        return time.perf_counter() - started

    def backward(self) -> None:
        """The products of the gradients, from the last layer to the first."""
        for i, layer in reversed(list(enumerate(self.layers))):
            if i not in self.data:
                torch.mm(layer.y, layer.weight, out=layer.x_gradient)
            if self.products == ALL_GRADIENTS:
                torch.mm(layer.y.t(), layer.x, out=layer.weight_gradient)


class Layer:
    """The matrices of a linear layer. The gradient of the outputs is as good as the outputs: they are numbers."""

    def __init__(self, rows: int, inputs: int, outputs: int, device: str) -> None:
        def random(*shape: int) -> Tensor:
            return torch.rand(shape, device=device) - 0.5

        self.x, self.weight, self.y = random(rows, inputs), random(outputs, inputs), random(rows, outputs)
        self.x_gradient, self.weight_gradient = torch.empty_like(self.x), torch.empty_like(self.weight)


def limits(
    widths: Sequence[tuple[int, int]],
    rows: int,
    products: int,
    conditions: Conditions,
    *,
    data: Sequence[int] = (),
    passes: int = 1,
) -> list[MatrixProducts]:
    """The same products by every library; the fastest is the limit of what a program can reach."""
    by_library = {"matrix products": "none"}
    if conditions.device == "cpu":
        by_library["matrix products, oneDNN"] = "bf16"
    return [
        MatrixProducts(name, widths, rows, products, conditions, data=data, passes=passes, precision=precision)
        for name, precision in by_library.items()
    ]
