"""A network as a list of plain operations on float32 numbers, which a program without PyTorch can compute.

`torch.export` follows the tensors through the network, for one input; what does not depend on the input is computed
here and becomes a constant. Operations that only move numbers (views, slices, padding, nearest upsampling ...) are all
one, `gather`, whose places are found by sending 1, 2, 3, ... through them.
"""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, default_decompositions, export
from torch.fx import Node, map_arg

from vae_lab.errors import ConfigError

aten = torch.ops.aten
KEPT = (aten.linear.default, aten.silu.default, aten.softplus.default, aten.mish.default, aten.selu.default)
"""Operations that are not taken apart: they are faster, and exact, as a whole."""
MOVING = (
    "view reshape _unsafe_view unsqueeze squeeze flatten alias clone detach _to_copy permute transpose t expand slice "
    "select split_with_sizes split flip roll repeat index index_select pixel_shuffle constant_pad_nd "
    "upsample_nearest2d as_strided unbind"
)
"""Those that only move numbers, or put zeros between them."""
FUNCTIONS = "relu tanh sigmoid silu mish exp log log1p expm1 sqrt rsqrt neg abs reciprocal sin cos erf"
"""Those of one number and nothing else."""
UNARY = {
    **dict.fromkeys(FUNCTIONS.split(), ()),
    "softplus": (1, 20),
    "elu": (1, 1, 1),
    "leaky_relu": (0.01,),
    "clamp": (None, None),
    "hardtanh": (-1, 1),
}
"""Those of one number, with the defaults of their further arguments."""
BINARY = {"add", "sub", "mul", "div", "pow", "maximum", "minimum"}
"""Those of two numbers."""
REDUCING = {"mean", "sum", "amax"}
"""Those that make one number of each row."""
SELU = (1.6732632423543772, 1.0507009873554805, 1)
"""It is the ELU with these arguments."""


class UnknownOperation(ConfigError):  # noqa: N818
    """A network computes something that is not among the known operations: exit code 2."""


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input."""

    number: int
    shape: tuple[int, ...]


@dataclass
class Program:
    """The operations of a network in their order; each reads numbered values and makes a new one.

    The input is value 0. An operation is a mapping: `op`, its values `of`, the `value` and `shape` that it makes, and
    its further settings.
    """

    shape: tuple[int, ...]
    operations: list[dict[str, Any]] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)

    @property
    def plain(self) -> dict[str, Any]:
        """Plain values that stand for it: a constant is its shape, its type and its bytes, little endian, in base64.

        It is float16 where that holds every number of it exactly, else float32.
        """
        constants = {}
        for number, value in self.constants.items():
            kind = np.float16 if torch.equal(value.half().float(), value) else np.float32
            constants[number] = {"shape": list(value.shape), "type": kind.__name__, "bytes": in_base64(value, kind)}
        return {**vars(self), "constants": constants}


def in_base64(values: Tensor, kind: type[np.number]) -> str:
    """The numbers as bytes of this type, little endian, rounded where it is one of integers."""
    rounded = values.round() if issubclass(kind, np.integer) else values
    return base64.b64encode(rounded.numpy().astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def traced(network: nn.Module, example: Tensor, what: str) -> Program:
    """The network as operations, in evaluation mode, for inputs of the shape of `example`.

    Args:
        network: from a tensor to one, or several.
        example: an input.
        what: the network in words, for the messages.

    Raises:
        UnknownOperation: naming what is not known.
        ConfigError: `torch.export` cannot follow the network.
    """
    table = default_decompositions()
    for operation in KEPT:
        table.pop(operation, None)
    try:
        with torch.no_grad():
            exported = export(network.eval(), (example,)).run_decompositions(table)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{what} cannot be traced by torch.export: {reason}; let forward() decide nothing by the values of a tensor"
        ) from error
    with torch.no_grad():
        return _Tracing(what, Program(tuple(example.shape))).program_of(exported)


class _Tracing:
    """Makes a program of the nodes of an exported graph."""

    def __init__(self, what: str, program: Program) -> None:
        self.what, self.program = what, program
        self._numbers: dict[int, tuple[int, Tensor]] = {}
        self._count = 1

    def program_of(self, exported: ExportedProgram) -> Program:
        """Goes through the graph once."""
        tensors: dict[str, Any] = {**exported.state_dict, **exported.constants}
        names = {spec.arg.name: spec.target for spec in exported.graph_signature.input_specs if spec.target}
        found: dict[Node, Any] = {}
        for node in exported.graph.nodes:
            args, kwargs = map_arg((node.args, node.kwargs), found.__getitem__)
            if node.op == "placeholder":
                found[node] = tensors[names[node.name]] if node.name in names else Value(0, self.program.shape)
            elif node.op == "output":
                self.program.outputs = [self.number(result) for result in args[0]]
            else:
                sources = {found[each] for each in node.all_input_nodes if isinstance(found[each], Value)}
                found[node] = self.result_of(node, sources, args, kwargs)
        return self.program

    def result_of(self, node: Node, sources: set[Value], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a node gives: a constant, a value, or several of these."""
        target: Any = node.target
        if not sources or not hasattr(target, "overloadpacket"):  # the latter is `getitem`
            return target(*args, **kwargs)
        name = target.overloadpacket.__name__
        if name.startswith("_assert"):
            return args[0]
        if name in MOVING.split():
            result = self.moved(name, target, sources, args, kwargs)
        else:
            first = node.meta["val"][0] if isinstance(node.meta["val"], tuple | list) else node.meta["val"]
            result = self.made(name, tuple(first.shape), args, kwargs)
        if result is None:
            raise UnknownOperation(
                f"{self.what} computes {target}, which the page cannot: it knows {', '.join(known_operations())}, and "
                "what only moves numbers"
            )
        return result

    def made(self, name: str, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result, of this shape, of an operation of PyTorch; None where it, or this use of it, is not known."""
        if name in UNARY:
            further = [*args[1:], *UNARY[name][len(args) - 1 :]]
            is_plain = not kwargs and all(value is None or isinstance(value, int | float) for value in further)
            return self.emit(name, args[:1], shape, further=further) if is_plain else None
        if name in BINARY:
            return self.binary(name, *args, **kwargs) if not set(kwargs) - {"alpha"} else None
        if name in REDUCING:
            return self.reduced(name, shape, *args) if not kwargs else None
        handler: Callable[..., Any] | None = getattr(self, f"of_{name}", None)
        return None if handler is None else handler(shape, *args, **kwargs)

    def number(self, value: Any) -> int:
        """The number of a value; a tensor becomes a constant."""
        if isinstance(value, Value):
            return value.number
        if id(value) not in self._numbers:
            self._numbers[id(value)] = self._count, value  # which is so kept: its id becomes no other's
            self.program.constants[self._count] = value.detach().float()
            self._count += 1
        return self._numbers[id(value)][0]

    def emit(self, op: str, inputs: Sequence[Any], shape: Sequence[int], **settings: Any) -> Value:
        """Adds an operation."""
        of = [self.number(value) for value in inputs]
        made = Value(self._count, tuple(shape))
        self._count += 1
        self.program.operations.append({"op": op, "of": of, "value": made.number, "shape": list(shape), **settings})
        return made

    def moved(self, name: str, target: Any, sources: set[Value], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation that moves numbers: where each comes from, counted from 1; 0 is a zero."""
        if len(sources) != 1 or not isinstance(args[0], Value) or (name == "constant_pad_nd" and any(args[2:])):
            return None
        further = {key: value for key, value in kwargs.items() if key != "dtype"}
        result = target(_places(args[0]), *args[1:], **further)
        if isinstance(result, tuple | list):
            return [self.gathered(args[0], each) for each in result]
        return self.gathered(args[0], result)

    def gathered(self, source: Value, places: Tensor) -> Value:
        """The numbers of a value at these places."""
        if torch.equal(places.flatten(), _places(source).flatten()):
            return self.emit("view", [source], places.shape)
        return self.emit("gather", [source], places.shape, places=in_base64(places.flatten(), np.int32))

    def binary(self, name: str, first: Any, second: Any, alpha: float = 1) -> Value:
        """An operation of two numbers, after broadcasting; one may be a plain number."""
        first, second = (
            torch.tensor(float(value)) if isinstance(value, int | float) else value for value in (first, second)
        )
        if alpha != 1:
            second = self.binary("mul", second, alpha)
        shape = torch.broadcast_shapes(tuple(first.shape), tuple(second.shape))
        return self.emit(name, [first, second], shape)

    def of_selu(self, shape: Sequence[int], x: Value) -> Value:
        """Scaled exponential linear unit."""
        return self.emit("elu", [x], shape, further=SELU)

    def of_gelu(self, shape: Sequence[int], x: Value, *, approximate: str = "none") -> Value:
        """Gaussian error linear unit, exact or by tanh."""
        return self.emit("gelu" if approximate == "none" else "gelu_tanh", [x], shape, further=[])

    def of_linear(self, shape: Sequence[int], x: Value, weight: Any, bias: Any = None) -> Value | None:
        """W x + b along the last dimension."""
        if not isinstance(x, Value) or isinstance(weight, Value):
            return None
        return self.emit("linear", [x, weight] if bias is None else [x, weight, bias], shape)

    def of_mm(self, shape: Sequence[int], first: Any, second: Any) -> Value:
        """A product of matrices."""
        return self.emit("mm", [first, second], shape)

    def of_addmm(self, shape: Sequence[int], added: Any, first: Any, second: Any) -> Value:
        """A product of matrices with something added."""
        return self.binary("add", self.of_mm(shape, first, second), added)

    def of_convolution(self, shape: Sequence[int], x: Value, weight: Any, bias: Any, *further: Any) -> Value | None:
        """A convolution of images, or its transpose."""
        if not isinstance(x, Value) or isinstance(weight, Value) or len(x.shape) != 4:
            return None
        stride, padding, dilation, transposed, _, groups = further
        inputs = [x, weight] if bias is None else [x, weight, bias]
        facts = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation), "groups": groups}
        return self.emit("convolution_transposed" if transposed else "convolution", inputs, shape, **facts)

    def of_cat(self, shape: Sequence[int], parts: Sequence[Any], dim: int = 0) -> Value:
        """Tensors behind each other."""
        return self.emit("cat", parts, shape, dim=dim % len(shape))

    def reduced(
        self, name: str, shape: Sequence[int], x: Value, dims: Sequence[int] = (), keepdim: bool = False
    ) -> Value:
        """One number for each row, once the dimensions that go are the last."""
        gone = sorted(dim % len(x.shape) for dim in (dims or range(len(x.shape))))
        kept = [dim for dim in range(len(x.shape)) if dim not in gone]
        last = self.gathered(x, _places(x).permute(*kept, *gone))
        return self.emit(name, [last], shape, size=math.prod(x.shape[dim] for dim in gone))

    def of_avg_pool2d(self, shape: Sequence[int], x: Value, kernel: Sequence[int], *further: Any) -> Value | None:
        """Means in windows."""
        stride, padding, ceil, counts_padding, divisor = [*further, *[(), (0, 0), False, True, None][len(further) :]]
        if ceil or divisor or (any(padding) and not counts_padding):
            return None
        return self.pooled("mean", shape, x, kernel, stride, padding)

    def of_max_pool2d_with_indices(
        self, shape: Sequence[int], x: Value, kernel: Sequence[int], *further: Any
    ) -> list[Value] | None:
        """Maxima in windows; of the two results the second is not there."""
        stride, padding, dilation, ceil = [*further, *[(), (0, 0), (1, 1), False][len(further) :]]
        if ceil or any(padding) or any(step != 1 for step in dilation):
            return None
        return [self.pooled("amax", shape, x, kernel, stride, padding)]

    def pooled(
        self, name: str, shape: Sequence[int], x: Value, kernel: Any, stride: Sequence[int], padding: Any
    ) -> Value:
        """One number for each window: a row of the windows' numbers."""
        windows = nn.functional.unfold(_places(x), kernel, padding=padding, stride=tuple(stride or kernel))
        windows = windows.unflatten(1, (x.shape[1], -1))
        rows = self.gathered(x, windows.mT.contiguous())
        return self.emit(name, [rows], shape, size=windows.shape[2])

    def of_native_layer_norm(
        self, shape: Sequence[int], x: Value, rows: Sequence[int], weight: Any, bias: Any, eps: float
    ) -> list[Value]:
        """Layer normalisation; of the three results only the first is there."""
        return [self.scaled(self.emit("normalize", [x], shape, size=math.prod(rows), eps=eps), weight, bias)]

    def of_native_group_norm(
        self, shape: Sequence[int], x: Value, weight: Any, bias: Any, *further: Any
    ) -> list[Value]:
        """Group normalisation; of the three results only the first is there."""
        _, channels, area, groups, eps = further
        normalized = self.emit("normalize", [x], shape, size=channels // groups * area, eps=eps)
        return [self.scaled(normalized, *(_of_channels(value, shape) for value in (weight, bias)))]

    def of__native_batch_norm_legit_no_training(
        self,
        shape: Sequence[int],
        x: Value,
        weight: Any,
        bias: Any,
        mean: Tensor,
        variance: Tensor,
        _: float,
        eps: float,
    ) -> list[Value]:
        """Batch normalisation by its running statistics: a scale and a shift; only the first result is there."""
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        return [self.scaled(x, _of_channels(scale, shape), _of_channels(shift, shape))]

    def scaled(self, x: Value, weight: Any, bias: Any) -> Value:
        """The product with a weight, and the sum with a bias, where there are these."""
        x = x if weight is None else self.binary("mul", x, weight)
        return x if bias is None else self.binary("add", x, bias)


def known_operations() -> list[str]:
    """The names of PyTorch that a program may compute, without those that only move numbers."""
    own = {name.removeprefix("of_").strip("_") for name in vars(_Tracing) if name.startswith("of_")}
    return sorted({*UNARY, *BINARY, *REDUCING, *own})


def _places(value: Value) -> Tensor:
    """The numbers 1, 2, 3, ... in the shape of a value."""
    return torch.arange(1, math.prod(value.shape) + 1, dtype=torch.float64).view(value.shape)


def _of_channels(value: Any, shape: Sequence[int]) -> Any:
    return value if value is None else value.view(1, -1, *[1] * (len(shape) - 2))
