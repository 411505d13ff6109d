"""`vae-lab export`: a trained model as ONNX, safetensors or PyTorch's own file, with its config and a page about it."""

import logging
from dataclasses import dataclass
from pathlib import Path

from vae_lab.applications.export import NEEDED, exported, outputs_of, require_packages
from vae_lab.commands.out import FOLDER, OutSettings, out_file
from vae_lab.errors import require_choice
from vae_lab.runs.load import Run

log = logging.getLogger("vae_lab")


@dataclass(frozen=True)
class ExportSettings(OutSettings):
    """The keys of `vae-lab export`."""

    format: str

    suffixes = (FOLDER,)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("format", self.format, NEEDED)
        require_packages(self.format)

    def require_known(self, run: Run) -> None:
        """Refuses a likelihood whose parameters have no names for ONNX."""
        if self.format == "onnx":
            outputs_of(run.model)


def export(settings: ExportSettings) -> Path:
    """Writes the files of the run `settings.run` into the folder `settings.out`; returns that.

    Raises:
        ConfigError: a setting is refused, a package is absent, or the run cannot be read; nothing was written.
        Failed: onnxruntime computes something else than the model; nothing was written.
    """
    _, run = settings.loaded_one(check=settings.require_known)
    for name, content in exported(run, settings.format).items():
        with out_file(settings.path / name) as file:
            file.write(content)
        log.info("%s: %s bytes", name, f"{len(content):,}")
    return settings.path
