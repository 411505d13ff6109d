"""TensorBoard event files: taking back what was written after the checkpoint that a run continues from."""

from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from vae_lab.atomic import atomic_file


def keep_events(folder: Path, keep: Callable[[int], bool]) -> None:
    """Gathers the events whose step `keep` accepts in one file and removes the others.

    The summary of hyperparameters goes too: it belongs to the end of a run and is written anew there. An event that
    a kill cut short ends the reading of its file.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files:
        return
    with atomic_file(files[0]) as target:
        writer = RecordWriter(target)
        for file in files:
            for content in RawEventFileLoader(str(file)).Load():
                if _stays(Event.FromString(content), keep):
                    writer.write(content)
    for file in files[1:]:
        file.unlink()


def _stays(event: Event, keep: Callable[[int], bool]) -> bool:
    if event.HasField("file_version"):
        return True
    tags = [value.tag for value in event.summary.value]
    return keep(event.step) and not any(tag.startswith(("_hparams_", "hp/")) for tag in tags)
