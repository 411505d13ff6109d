"""Adagrad as in the author's code (section 5): epsilon inside the root, first steps that only accumulate."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae_lab.errors import require_integer, require_number

KERNELS: Any = torch
"""torch, for the kernels of its optimisers, which it does not document."""


class Adagrad(torch.optim.Adagrad):
    """w <- w - lr * g / sqrt(eps + sum of g^2), from the step after `warmup_steps` on.

    Every parameter counts its own steps: one without a gradient neither moves nor warms up. Fused on CPU,
    where that is fastest.

    Args:
        params: The parameters.
        lr: The global step size, the paper's 0.01, 0.02 or 0.1.
        warmup_steps: First steps of every parameter, in which squares accumulate and nothing moves.
        eps: Added to the sum of squares, inside the root.
    """

    all_warm = False
    """Whether a step has found that no parameter warms up any more, which spares the look at each of them."""

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, warmup_steps: int, eps: float) -> None:
        require_number("optimizer.lr", lr, at_least=0, advice="the paper tries 0.01, 0.02, 0.1")
        require_integer("optimizer.warmup_steps", warmup_steps, minimum=0, advice="0 turns the warm-up off")
        advice = "without it a parameter with gradient 0 divides 0 by 0; the author's code has 1e-8"
        require_number("optimizer.eps", eps, advice=advice)
        params = list(params)
        # Started at eps, the accumulator is eps + sum of squares; torch's own eps stands outside the root.
        super().__init__(params, lr=lr, initial_accumulator_value=eps, eps=0.0, fused=_fused(params))
        # A gradient scaler must unscale the gradients before `step`, which squares them in the warm-up.
        self._step_supports_amp_scaling = False
        self.defaults["warmup_steps"] = warmup_steps
        for group in self.param_groups:
            group["warmup_steps"] = warmup_steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; parameters still warming up accumulate their squares only."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        withheld = [] if self.all_warm else self._accumulate()
        super().step()
        for parameter, gradient in withheld:
            parameter.grad = gradient
        return loss

    @property
    def is_warm(self) -> bool:
        """Whether none of the parameters warms up any more."""
        return all(
            self.state[w]["step"] >= group["warmup_steps"]
            for group in self.param_groups
            for w in group["params"]
            if w.requires_grad  # a frozen one has no steps
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from `state_dict`, which another kind of device may have written."""
        groups = [
            {**saved, "fused": _fused(group["params"])}
            for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=True)
        ]
        super().load_state_dict({**state_dict, "param_groups": groups})
        self.all_warm = False

    @torch.no_grad()
    def _accumulate(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Does the warm-up's half of the step, and takes those gradients away from the other half."""
        withheld = []
        self.all_warm = True
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if state["step"] >= group["warmup_steps"]:
                    continue
                self.all_warm = False
                if parameter.grad is not None:
                    state["step"] += 1
                    state["sum"].addcmul_(parameter.grad, parameter.grad)
                    withheld.append((parameter, parameter.grad))
                    parameter.grad = None
        return withheld


@torch.no_grad()
def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Lays every tensor of the state out in memory as its parameter is, which a checkpoint may have had otherwise.

    Fused kernels walk parameter, gradient and state as plain lists of numbers.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _fused(params: Iterable[nn.Parameter]) -> bool | None:
    """True where all parameters are on the CPU; None leaves the choice to torch."""
    return all(parameter.device.type == "cpu" for parameter in params) or None


def move(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    """One step of the optimiser on these parameters along these gradients, and on no others.

    Once it has its state, an optimiser whose steps are one fused kernel gets that kernel alone: its own bookkeeping
    takes as long as a matrix product of the paper's networks.
    """
    pairs = [(w, g) for w, g in zip(parameters, gradients, strict=True) if g is not None]
    group = optimizer.param_groups[0]
    states: list[Any] = [optimizer.state.get(w) for w, _ in pairs]
    if not (is_fused(optimizer) and all(states)):
        for other in (w for group in optimizer.param_groups for w in group["params"]):
            other.grad = None
        for w, g in pairs:
            w.grad = g
        optimizer.step()
        return
    weights, along = map(list, zip(*pairs, strict=True))
    steps, sums, means, squares = (
        [state.get(name) for state in states] for name in ("step", "sum", "exp_avg", "exp_avg_sq")
    )
    settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "maximize")}
    with torch.no_grad():
        KERNELS._foreach_add_(steps, 1)
        if isinstance(optimizer, Adagrad):
            KERNELS._fused_adagrad_(weights, along, sums, steps, lr_decay=group["lr_decay"], **settings)
        else:
            settings |= {"beta1": group["betas"][0], "beta2": group["betas"][1], "amsgrad": False}
            KERNELS._fused_adam_(weights, along, means, squares, [], steps, **settings)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every further step of the optimiser is torch's fused kernel on a CPU, whatever its parameters are."""
    (group, *others) = optimizer.param_groups
    if others or not group.get("fused") or group["params"][0].device.type != "cpu":
        return False
    if isinstance(optimizer, Adagrad):
        return optimizer.all_warm
    return type(optimizer) is torch.optim.Adam and not (group["amsgrad"] or group.get("decoupled_weight_decay"))


def adagrad_step(
    w: Tensor, g: Tensor, state: Mapping[str, Tensor], factors: Tensor, settings: Mapping[str, Any]
) -> None:
    """The step of `Adagrad` after its warm-up, for one parameter, in place: what a compiled training inlines."""
    state["step"].add_(1)
    state["sum"].addcmul_(g, g)
    w.sub_(factors[0] * g / state["sum"].sqrt())


def adam_step(w: Tensor, g: Tensor, state: Mapping[str, Tensor], factors: Tensor, settings: Mapping[str, Any]) -> None:
    """Adam's step (Kingma & Ba, 2015) for one parameter, in place; `factors` as `step_factors` has them."""
    state["step"].add_(1)
    beta1, beta2 = settings["betas"]
    state["exp_avg"].lerp_(g, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
    w.sub_(factors[0] * state["exp_avg"] / (state["exp_avg_sq"].sqrt() / factors[1] + settings["eps"]))


def step_factors(optimizer: torch.optim.Optimizer, step: float) -> tuple[float, float]:
    """What step t = 1, 2, ... of a parameter is multiplied by and, in Adam, what corrects its second moment.

    In Adam: rate / (1 - beta1^t) and sqrt(1 - beta2^t).
    """
    group = optimizer.param_groups[0]
    if isinstance(optimizer, Adagrad):
        return group["lr"], 1.0
    beta1, beta2 = group["betas"]
    return group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
