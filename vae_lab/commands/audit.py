"""`vae-lab audit`: whether a run's densities are what its values in nats take them for; a table with PASS and FAIL."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vae_lab.applications.total_mass import total_mass
from vae_lab.commands.run_settings import RunSettings, require_splits
from vae_lab.data.arrays import is_binary
from vae_lab.elbo import sgvb_b
from vae_lab.errors import ConfigError, Failed, require_integer
from vae_lab.estimators.base import Estimator, Noise
from vae_lab.measurement import evaluating
from vae_lab.randomness import NOISE_BLOCK
from vae_lab.runs.continuation import Request
from vae_lab.runs.load import Run
from vae_lab.wiring import build
from vae_lab.wiring.table import Table

PASS, FAIL, OPEN, NO_DENSITY = "PASS", "FAIL", "not judged", "no density"
TONES = {PASS: "good", FAIL: "bad", NO_DENSITY: "warn", OPEN: "dim"}
NUM_DATAPOINTS = 32
"""Images of the split that are looked at together."""
TOLERANCE, ROUNDING = 0.01, 1e-5
"""Nats, and share of a log density, by which float32 may change it."""
MOST_ERROR = 0.1
"""Nats: where quadrature and rounding may be further off, a total mass is not judged."""
STANDARD_ERRORS = 4
"""A mean that is off by more of them fails."""
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
CHECKS = {
    "repeats": ("evaluation is deterministic", ()),
    "noise": ("no dropout, no other noise", ("repeats",)),
    "company": ("independent of the rest of the batch", ("repeats",)),
    "order": ("independent of the order of the batch", ("repeats", "noise")),
    "mass": ("p(x|z) sums or integrates to 1", ()),
    "bound": ("the bound is below log p(x)", ("repeats", "noise", "company", "order", "mass")),
}
"""Methods of `Audit` -> what a PASS says, and the checks whose FAIL would show in this one."""
TOO_HIGH = {
    "lower bound": "let sample() draw from the density that log_prob states",
    "bound": "let the KL be between the posterior that z is drawn from and the model's prior, N(0, I)",
}
"""What to do about a value above log p(x)."""
Densities = dict[str, Tensor]
"""log p(x|z) and, where there is an encoder, log q(z|x), by these names: [batch]."""
Judgement = tuple[str, str]
"""The verdict, and in one line what was measured and what to do."""


@dataclass(frozen=True)
class AuditSettings(RunSettings):
    """The keys of `vae-lab audit`."""

    split: str
    estimator: Any
    num_datapoints: int
    num_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        advice = "the standard error is taken from them"
        require_integer("num_datapoints", self.num_datapoints, minimum=2, maximum=NOISE_BLOCK, advice=advice)
        require_integer("num_samples", self.num_samples, minimum=1)


def audit(settings: AuditSettings) -> list[Path]:
    """Audits the runs `settings.run` one after the other and prints a table of each; nothing is written.

    Raises:
        Failed: a check is FAIL.
        ConfigError: a setting is refused, or a run cannot be read; nothing was checked.
    """
    if (chosen := Request.of_this_command().choices.get("estimator")) != "bidirectional":
        raise ConfigError(f"estimator must be bidirectional, got {chosen}: the bound is held by two bounds of log p(x)")
    estimator: Estimator = build.instantiate(settings.estimator, "estimator")
    failures = []
    for _, run in settings.loaded(check=lambda run: require_splits(run, "split", [settings.split])):
        rows = list(Audit(run, estimator, settings).findings())
        verdicts = [verdict for _, verdict, _ in rows]
        counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in TONES if verdict in verdicts)
        caption = (
            f"nats per datapoint; {settings.split}; a change below {TOLERANCE} or {ROUNDING} of a value is rounding"
        )
        title = f"{run.path}, {run.checkpoint}.ckpt: {counted}"
        Table(("check", "verdict", "measured"), rows, caption, TONES, title).print()
        if failed := [check for check, verdict, _ in rows if verdict == FAIL]:
            failures.append(f"{run.path}: {len(failed)} of {len(rows)} checks FAIL ({', '.join(failed)})")
    if failures:
        raise Failed("; ".join(failures))
    return []


class Audit:
    """The checks of one run."""

    def __init__(self, run: Run, estimator: Estimator, settings: AuditSettings) -> None:
        self.model, self.divisor = run.model, run.data.divisor
        self.estimator, self.settings = estimator, settings
        images = run.data.measured(settings.split).images
        self.x = images[torch.arange(NUM_DATAPOINTS) % len(images)].to(next(self.model.parameters()))
        self.is_grey = not is_binary(images)
        with evaluating(self.model, self.x.device, settings.seed, "audit", "z"):
            self.other_z = self.model.prior().sample((NUM_DATAPOINTS,))
            self.z = self.model.posterior(self.x).sample() if self.model.has_encoder else self.other_z.flip(0)

    def findings(self) -> Iterator[tuple[str, str, str]]:
        """What every check is, its verdict and what was measured; one in which an earlier FAIL would show is open."""
        failed: dict[str, str] = {}
        for check, (name, blockers) in CHECKS.items():
            first = next((failed[blocker] for blocker in blockers if blocker in failed), "")
            verdict, measured = (OPEN, f"first mend: {first}") if first else getattr(self, check)()
            if verdict == FAIL:
                failed[check] = name
            yield name, verdict, measured

    def densities(self, x: Tensor, z: Tensor, seed: int = 0) -> Densities:
        """The log densities of every datapoint, the global noise being that of `seed`."""
        found = {}
        with evaluating(self.model, x.device, self.settings.seed, "audit", seed):
            found["log p(x|z)"] = self.model.likelihood(z).log_prob(x)
        if self.model.has_encoder:
            with evaluating(self.model, x.device, self.settings.seed, "audit", seed):
                found["log q(z|x)"] = self.model.posterior(x).log_prob(z)
        return found

    @cached_property
    def reference(self) -> Densities:
        """What the others are held against."""
        return self.densities(self.x, self.z)

    def repeats(self) -> Judgement:
        """Whether an evaluation gives the same again, after another one."""
        _ = self.reference
        self.densities(1 - self.x, self.other_z)
        again = self.densities(self.x, self.z)
        advice = "take noise from torch's global generator only, and let forward() keep nothing of what it has seen"
        return compared("evaluated again", self.reference, again, advice)

    def noise(self) -> Judgement:
        """Whether the densities depend on the random state: dropout."""
        other = self.densities(self.x, self.z, seed=1)
        advice = "let forward() add noise while self.training only; functional dropout takes training=self.training"
        suspects = self.suspects(lambda module: isinstance(module, DROPOUT) and module.training)
        return compared("with other noise", self.reference, other, advice + suspects)

    def company(self) -> Judgement:
        """Whether a datapoint's densities depend on the others of its batch.

        Every second one is replaced. Then the last half is left out: the others keep their places, so that only the
        number of datapoints is another.
        """
        kept, half = torch.arange(NUM_DATAPOINTS) % 2 == 0, slice(NUM_DATAPOINTS // 2)
        x = self.x.where(kept.view(-1, 1, 1, 1), 1 - self.x)
        replaced = self.densities(x, self.z.where(kept.view(-1, 1), self.other_z))
        fewer = self.densities(self.x[half], self.z[half])
        expected = {name: torch.cat([value[kept], value[half]]) for name, value in self.reference.items()}
        found = {name: torch.cat([replaced[name][kept], fewer[name]]) for name in expected}
        advice = "BatchNorm must use running statistics when evaluated: let it track them, and obey eval()"
        suspects = self.suspects(lambda m: isinstance(m, BATCH_NORM) and (m.training or m.running_mean is None))
        advice += f"{suspects}; let forward() use neither the other datapoints nor how many they are"
        return compared("beside other or fewer datapoints", expected, found, advice)

    def order(self) -> Judgement:
        """Whether the densities depend on the order of the batch."""
        order = torch.arange(NUM_DATAPOINTS).roll(NUM_DATAPOINTS // 3).flip(0)
        other = self.densities(self.x[order], self.z[order])
        expected = {name: value[order] for name, value in self.reference.items()}
        advice = "let no layer use a datapoint's place in its batch, or mix datapoints: look at views and axes"
        return compared("in another order", expected, other, advice)

    def mass(self) -> Judgement:
        """Whether p(x|z) sums or integrates to 1, for a z of the posterior and one of the prior."""
        with evaluating(self.model, self.x.device, self.settings.seed, "audit", "mass"):
            found = total_mass(self.model.likelihood(torch.stack([self.z[0], self.other_z[0]])), self.divisor)
        if found.log is None:
            return OPEN, found.how
        worst = float(found.log[found.log.abs().argmax()])
        measured = f"its log is {worst:.2g} nats ({found.how}, at 2 z)"
        if found.error > MOST_ERROR:
            return OPEN, f"{measured}, uncertain by {found.error:.2g} nats"
        if not abs(worst) <= TOLERANCE + found.error:
            return FAIL, f"{measured}: give log_prob its normalising constant; every value in nats is off by as much"
        if found.support == "binary" and self.is_grey:
            advice = "its values compare with such ones only; data.binarization makes it one"
            binary = f"the sum over binary images is 1, {measured}"
            return NO_DENSITY, f"not a density: grey values as Bernoulli targets; {advice}; {binary}"
        return PASS, measured

    def bound(self) -> Judgement:
        """Whether the bound lies below log p(x), which two bounds of it hold on data that the model makes."""
        model, num = self.model, self.settings.num_datapoints
        noise = Noise(self.x, (self.settings.seed, "audit"), 0, num)
        with evaluating(model, self.x.device, self.settings.seed, "audit", "bound"):
            _, x = noise.simulated(model)
            lower, _, upper, *_ = self.estimator.estimate_batch(model, x, noise)
            below = {"lower bound": lower}
            if model.has_encoder:
                below["bound"] = sgvb_b(model, x, self.settings.num_samples).double().total
        measured = f"log p(x) in {float(lower.mean()):.2f} ... {float(upper.mean()):.2f} on {num} simulated datapoints"
        measured += f", bound {float(below['bound'].mean()):.2f}" if model.has_encoder else "; no encoder, no bound"
        for name, values in below.items():
            excess, error = float((values - upper).mean()), float((values - upper).std()) / math.sqrt(num)
            if not excess <= TOLERANCE + STANDARD_ERRORS * error:
                return FAIL, f"{measured}: the {name} is too high by {excess:.2f} (s.e. {error:.2f}): {TOO_HIGH[name]}"
        return PASS, measured

    def suspects(self, is_one: Callable[[Any], bool]) -> str:
        """The modules of this kind, for an advice."""
        with evaluating(self.model, self.x.device, self.settings.seed):
            names = [name for name, module in self.model.named_modules() if is_one(module)]
        return f" ({', '.join(names)})" if names else ""


def compared(how: str, expected: Densities, found: Densities, advice: str) -> Judgement:
    """Whether log densities are the same but for rounding."""
    changes, is_same = [], True
    for name, value in expected.items():
        change = (found[name] - value).abs().double()
        is_same &= bool((change <= TOLERANCE + ROUNDING * value.abs()).all())
        changes.append(f"{name} by {float(change.max()):.2g}")
    measured = f"{how} it changes {' and '.join(changes)} nats at most"
    return (PASS, measured) if is_same else (FAIL, f"{measured}: {advice}")
