"""Which precision a training computes in: float32, or bfloat16 where the machine multiplies it natively and faster."""

import logging
from functools import partial

import torch
from torch import nn

from vae_lab.errors import ConfigError
from vae_lab.training.machine import instructions, known_once, times_as_fast

log = logging.getLogger("vae_lab")

FLOAT32, BFLOAT16, AUTO = "32-true", "bf16-mixed", "auto"
SPEED_RATIO = 1.1
"""The speed-up from which on `auto` prefers bfloat16."""


def choose_precision(wanted: str, device: torch.device) -> str:
    """What Lightning is to compute in, which is said where it was left open or is the slower one.

    Raises:
        ConfigError: no such precision.
    """
    if wanted not in (FLOAT32, BFLOAT16, AUTO):
        raise ConfigError(
            f"trainer.precision must be 32-true, bf16-mixed or auto, got {wanted!r}: densities are float32 sums of "
            "hundreds of nats, which overflow in float16; the images are float32"
        )
    if wanted == FLOAT32:
        return wanted
    native, ratio = is_native(device), 1.0
    if device.type == "cpu" and (native or wanted == BFLOAT16):
        known = known_once("bfloat16", {"speed_ratio": float}, lambda: {"speed_ratio": round(speed_ratio(), 3)})
        ratio = known["speed_ratio"]
    if wanted == BFLOAT16:
        if ratio < 1:
            log.warning(
                "trainer.precision=bf16-mixed takes %.1f times as long as 32-true on this processor (measured on a "
                "convolution); trainer.precision=auto takes the faster one",
                1 / ratio,
            )
        return wanted
    chosen = BFLOAT16 if native and (device.type != "cpu" or ratio >= SPEED_RATIO) else FLOAT32
    why = f"{ratio:.2f} times as fast as float32" if device.type == "cpu" else "native on this GPU"
    log.info("precision: %s (bfloat16 is %s)", chosen, why if native else "not native here")
    return chosen


def is_native(device: torch.device) -> bool:
    """Whether the device has units that multiply bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(instructions())


def speed_ratio(repeats: int = 7) -> float:
    """How many times as fast as float32 a convolution with its gradients is in bfloat16: the median of pairs."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(3136, 256))
    layers, x = layers.to(memory_format=torch.channels_last), torch.zeros(100, 32, 14, 14)

    def step(is_half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            layers(x).float().square().mean().backward()

    return times_as_fast(partial(step, False), partial(step, True), repeats=repeats)
