"""Real TensorBoard event files: written, taken back, read with TensorBoard's own reader."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lab.runs.events import keep_events


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tensorboard"


def write(folder: Path, steps: list[int], **metrics: float) -> None:
    """What one process logs: a scalar and a picture at these steps, and hyperparameters at the end."""
    logger = TensorBoardLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)
    for step in steps:
        logger.log_metrics({"val/bound": -step / 3}, step=step)
        logger.experiment.add_image("images/samples", torch.full((1, 4, 4), 0.5), global_step=step)
    if metrics:
        logger.log_hyperparams({"latent_dim": 2}, {f"hp/{name}": value for name, value in metrics.items()})
    logger.save()
    logger.finalize("success")


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalar_steps(folder: Path) -> list[int]:
    """In order: files of the same second are read in no order that means anything."""
    return sorted(scalar.step for scalar in read(folder).Scalars("val/bound"))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def test_events_that_are_refused_are_gone_and_the_others_are_as_they_were(folder):
    write(folder, [100, 200, 300])
    before = read(folder)
    keep_events(folder, lambda at: at <= 200)
    after = read(folder)
    assert after.Scalars("val/bound") == before.Scalars("val/bound")[:2]
    assert after.Images("images/samples") == before.Images("images/samples")[:2]


def test_events_of_several_processes_are_gathered_in_order(folder):
    write(folder, [100, 200])
    keep_events(folder, lambda at: at <= 100)
    write(folder, [200, 300])
    keep_events(folder, lambda at: at <= 200)
    write(folder, [300])
    assert scalar_steps(folder) == [100, 200, 300]
    keep_events(folder, lambda at: True)
    assert len(files(folder)) == 1
    assert scalar_steps(folder) == [100, 200, 300]


def test_hyperparameters_are_taken_back_with_their_metrics(folder):
    write(folder, [100], test=-90.0)
    assert "_hparams_/session_start_info" in read(folder).summary_metadata
    keep_events(folder, lambda at: True)
    after = read(folder)
    assert not any(tag.startswith(("_hparams_", "hp/")) for tag in after.summary_metadata)
    assert after.Tags()["scalars"] == ["val/bound"]


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_last_record_that_a_kill_cut_short_is_dropped(folder, cut):
    write(folder, [100, 200, 300])
    (file,) = files(folder)
    file.write_bytes(file.read_bytes()[:-cut])
    keep_events(folder, lambda at: True)
    after = read(folder)
    assert [scalar.step for scalar in after.Scalars("val/bound")] == [100, 200, 300]
    assert [image.step for image in after.Images("images/samples")] == [100, 200]
    write(folder, [400])
    assert scalar_steps(folder) == [100, 200, 300, 400]


def test_an_empty_folder_stays_empty(folder):
    keep_events(folder, lambda at: True)
    assert not folder.exists()
