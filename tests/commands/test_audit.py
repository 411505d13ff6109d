"""`vae-lab audit`: a good run passes every check, and each fault of an own network or likelihood fails one: its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from training import freeze_anew, train_tiny

from vae_lab.cli import main
from vae_lab.commands.audit import CHECKS
from vae_lab.distributions import Bernoulli, DiagonalGaussian
from vae_lab.model import VAE
from vae_lab.networks.heads import BernoulliLikelihood
from vae_lab.networks.mlp import MLPDecoder, MLPEncoder
from vae_lab.runs.directory import RunDir

FAST = ("threads=1", "allow=[test_audit]", "num_datapoints=20", "estimator.num_temperatures=8")


class BatchNormDecoder(MLPDecoder):
    """The mistake behind a record that was none: the statistics of the batch in every mode."""

    def forward(self, z: Tensor) -> Tensor:
        return functional.batch_norm(super().forward(z), None, None, training=True)


class BatchNormLayerDecoder(MLPDecoder):
    """Its BatchNorm has running statistics, and never hears of eval()."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm = nn.BatchNorm1d(self.out_features)

    def train(self, mode: bool = True) -> "BatchNormLayerDecoder":
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(super().forward(z))


class BatchSizeDecoder(MLPDecoder):
    """A sum over the batch where a mean was meant, or the other way round: the number of datapoints is a factor."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) * (len(z) / 32)


class DropoutEncoder(MLPEncoder):
    """Functional dropout takes `training` from its default, which is True."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x), 0.2)


class PlaceEncoder(MLPEncoder):
    """What it makes of an image depends on the image's place in the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.arange(len(x))[:, None] / 32


class CountingDecoder(MLPDecoder):
    """It fades with every call."""

    def forward(self, z: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(z) / self.calls


class Scaled(Bernoulli):
    """A density but for a factor: 0.1 nats are missing."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) - 0.1


class ScaledLikelihood(BernoulliLikelihood):
    def forward(self, features: Tensor) -> Bernoulli:
        return Scaled(self.logits(features), event_dims=3)


class FreePosterior(DiagonalGaussian):
    """Draws of z that say much about x, and a KL of 0."""

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self._mean)

    def rsample(self, sample_shape: Any = (), noise: Tensor | None = None) -> Tensor:
        return self._mean.expand(*sample_shape, *self._mean.shape)


class ForgetsTheKL(VAE):
    def posterior(self, x: Tensor) -> DiagonalGaussian:
        q = super().posterior(x)
        return FreePosterior(q.mean, torch.zeros_like(q.mean), event_dims=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose z says something about x."""
    changes = ("data.binarization=threshold", "data.train_size=1200", "optimizer.lr=0.02", "trainer.max_epochs=8")
    return train_tiny(tmp_path_factory.mktemp("audited") / "run", *changes)


@pytest.fixture
def changed(trained: RunDir, tmp_path: Path) -> Callable[..., RunDir]:
    """The run with another class in a place of its config, and the same weights."""

    def change(**targets: type) -> RunDir:
        shutil.copytree(trained.path, tmp_path / "run")
        run = RunDir(tmp_path / "run")
        config = run.read_config()
        for place, target in targets.items():
            section = config["model"] if place == "model" else config["model"][place]
            section["_target_"] = f"{__name__}.{target.__name__}"
        freeze_anew(run, config)
        return run

    return change


@pytest.fixture
def audited(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, list[str]]]:
    """`vae-lab audit run=RUN ...`: check -> verdict and what was measured."""

    def audit(run: RunDir, *overrides: str, code: int = 0) -> dict[str, list[str]]:
        capsys.readouterr()
        assert main(["audit", f"run={run.path}", *FAST, *overrides]) == code
        lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
        rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines]
        names = {name: check for check, (name, _) in CHECKS.items()}
        return {names[name]: cells for name, *cells in rows}

    return audit


@pytest.mark.slow
def test_good_run_passes_all_checks_and_is_only_read(trained, audited):
    before = {path: path.stat().st_mtime_ns for path in trained.path.rglob("*")}
    found = audited(trained)
    assert {check: verdict for check, (verdict, _) in found.items()} == dict.fromkeys(CHECKS, "PASS")
    assert "along each of 64 pixels" in found["mass"][1] and "20 simulated datapoints" in found["bound"][1]
    assert {path: path.stat().st_mtime_ns for path in trained.path.rglob("*")} == before


@pytest.mark.slow
def test_grey_targets_are_said_to_make_no_density_and_several_runs_are_audited(trained, finished_run, capsys):
    assert main(["audit", f"run={trained.path},{finished_run.path}", *FAST]) == 0
    first, second = capsys.readouterr().out.split(f"{finished_run.path}, best.ckpt: ")
    assert "6 PASS" in first and second.startswith("5 PASS, 1 no density")
    assert "not a density: grey values as Bernoulli targets" in second


FAULTS = [
    ("company", dict(decoder=BatchNormDecoder), "log p(x|z)", "BatchNorm"),
    ("company", dict(decoder=BatchSizeDecoder), "log p(x|z)", "how many they are"),
    ("noise", dict(encoder=DropoutEncoder), "log q(z|x)", "dropout"),
    ("order", dict(encoder=PlaceEncoder), "log q(z|x)", "place in its batch"),
    ("repeats", dict(decoder=CountingDecoder), "log p(x|z)", "forward() keep nothing"),
    ("mass", dict(likelihood=ScaledLikelihood), "-0.1 nats", "normalising constant"),
    ("bound", dict(model=ForgetsTheKL), "the bound is too high by", "KL"),
]


@pytest.mark.parametrize(("check", "targets", "measured", "advice"), FAULTS)
def test_fault_fails_its_own_check_and_no_other(check, targets, measured, advice, changed, audited):
    found = audited(changed(**targets), code=1)
    assert [name for name, (verdict, _) in found.items() if verdict == "FAIL"] == [check]
    blocked = {name for name, (_, blockers) in CHECKS.items() if check in blockers}
    assert {name for name, (verdict, _) in found.items() if verdict == "not judged"} == blocked
    assert measured in found[check][1] and advice in found[check][1]


@pytest.mark.slow
def test_trained_batch_norm_that_never_hears_of_eval_is_named(tmp_path, audited):
    decoder = f"model.decoder._target_={__name__}.BatchNormLayerDecoder"
    run = train_tiny(tmp_path / "run", decoder, "allow=[test_audit]", "data.binarization=threshold")
    found = audited(run, code=1)
    assert [name for name, (verdict, _) in found.items() if verdict == "FAIL"] == ["company"]
    assert "(decoder.trunk.norm)" in found["company"][1]


@pytest.mark.slow
def test_run_without_an_encoder_is_audited_too(changed, audited):
    run = changed()
    for file in run.checkpoints.glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        content["state_dict"] = {k: v for k, v in content["state_dict"].items() if not k.startswith("model.encoder.")}
        torch.save(content, file)
    found = audited(run)
    assert "no encoder, no bound" in found["bound"][1] and not any("log q" in line for _, line in found.values())


def test_wrong_requests_are_refused(trained, capsys):
    for typed, message in (("split=tset", "did you mean 'test'"), ("estimator=quadrature", "must be bidirectional")):
        assert main(["audit", f"run={trained.path}", "threads=1", typed]) == 2
        assert message in capsys.readouterr().err
