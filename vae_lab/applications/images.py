"""The images that a trained model is applied to: a split of its own data, or others, processed as its data are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vae_lab.data.arrays import ImageData, Split
from vae_lab.errors import ConfigError
from vae_lab.runs.load import Run, open_data
from vae_lab.wiring import build
from vae_lab.wiring.arguments import override
from vae_lab.wiring.compose import compose_command
from vae_lab.wiring.dotted import value_at

TARGETS = {"npz": "vae_lab.data.npz.NPZ", "image_folder": "vae_lab.data.image_folder.ImageFolder"}
"""The data sets that read a user's own files."""
WHOLE: dict[str, dict[str, Any]] = {"npz": {"keys": None}, "image_folder": {"layout": "random", "test_path": None}}
"""The settings by which they read other images than those of a run: all of them."""


@dataclass(frozen=True)
class Images:
    """Images in [0, 1], and what is known of each."""

    source: str
    """The split, or the file or folder, that they are from."""
    x: Float[Tensor, "num channel height width"]
    labels: Int[Tensor, " num"] | None
    class_names: Sequence[str]
    """The name of each label, where they have names."""
    files: Sequence[str] | None
    """The file of each image, where each has its own."""
    notes: Sequence[str] = ()
    """What was found in the files and done to them."""

    def __len__(self) -> int:
        return len(self.x)

    def first(self, num: int | None) -> "Images":
        """The first so many; None: all."""
        labels = None if self.labels is None else self.labels[:num]
        return replace(self, x=self.x[:num], labels=labels, files=None if self.files is None else self.files[:num])

    @property
    def label_names(self) -> list[str] | None:
        """The label of each, by its name where it has one."""
        if self.labels is None:
            return None
        labels: list[int] = self.labels.tolist()
        return [self.class_names[label] if self.class_names else str(label) for label in labels]

    def columns(self) -> dict[str, np.ndarray]:
        """What tells the images apart in a table: their places, labels and files."""
        known = {"label": self.label_names, "file": self.files}
        named = {name: np.array(values) for name, values in known.items() if values is not None}
        return {"image": np.arange(len(self)), **named}


def images_of_split(run: Run, split: str, *, all_classes: bool = False) -> Images:
    """A split of the run's data as evaluations see it.

    Args:
        run: whose data.
        split: its name.
        all_classes: whether a run that was trained on some classes gets the images of all of them.
    """
    data = data_of_all_classes(run) if all_classes else run.data
    return _of(data, split, data.measured(split))


def data_of_all_classes(run: Run) -> ImageData:
    """The run's data set without its choice of classes: the same files, by their fingerprint."""
    if value_at(run.config, "data.classes") is None:
        return run.data
    fingerprint = {name: value for name, value in run.record.get("data_fingerprint", {}).items() if name != "split"}
    config = {**run.config, "data": {**run.config["data"], "classes": None}}
    return open_data(config, {**run.record, "data_fingerprint": fingerprint}, run.path, given=run.data_root)


def images_of_path(run: Run, path: str) -> Images:
    """Other images, in an .npz file or a folder of pictures: of the run's size, colours and binarisation.

    Pictures are fitted as the run's own were or, if these were none, as `data=image_folder` does by default.

    Raises:
        ConfigError: there are none, or they are of another shape than the model's.
    """
    kind = "npz" if Path(path).suffix == ".npz" else "image_folder"
    channels, *size = run.model.image_shape
    own: dict[str, Any] = run.config["data"]
    if own["_target_"] == TARGETS[kind]:
        settings = own
    else:
        shape = [f"data.size=[{size[0]},{size[1]}]", f"data.channels={channels}"] if kind == "image_folder" else []
        settings = compose_command("train", [f"data={kind}", override("data.path", path), *shape])[0]["data"]
    settings = {**settings, "path": path, "binarization": run.data.binarization, "classes": None, **WHOLE[kind]}
    data: ImageData = build.instantiate(settings, "data")
    if (found := data.image_shape) != run.model.image_shape:
        raise ConfigError(
            f"data.path must hold images of the shape that {run.path} was trained on, [channel, height, width] = "
            f"{list(run.model.image_shape)}, got {list(found)} in {path}"
        )
    return _of(data, path, data.whole())


def _of(data: ImageData, source: str, split: Split) -> Images:
    places: list[int] = split.indices.tolist()
    files = [data.file_names[i] for i in places] if data.file_names else None
    return Images(source, split.images, split.labels, data.class_names, files, data.notes)


def lacks_classes(run: Run, images: Images) -> Tensor | None:
    """Which images have a label that the run was not trained on; None where it chose no classes, or they have none."""
    chosen = value_at(run.config, "data.classes")
    if chosen is None or images.labels is None:
        return None
    return ~torch.isin(images.labels, torch.tensor(chosen))
