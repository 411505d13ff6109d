"""An animated GIF of image grids during training, several networks beside each other."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from vae_lab.atomic import atomic_file
from vae_lab.errors import ConfigError

SCALE, STRIP, GAP = 2, 18, 12
"""Pixels of the picture for one of the grid, of the caption's height, and between networks."""
MILLISECONDS, LAST_MILLISECONDS = 400, 2500


def write_animation(
    films: Mapping[str, Mapping[int, Float[Tensor, "channel grid_height grid_width"]]], path: Path
) -> None:
    """Writes the films as one, a frame for every count of training samples that all have."""
    counts = sorted(set.intersection(*(set(film) for film in films.values())))
    if not counts:
        raise ConfigError(f"{', '.join(films)} have no snapshot at the same count of training samples")
    frames = [_frame({network: film[count] for network, film in films.items()}, count) for count in counts]
    durations = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    with atomic_file(path) as file:
        frames[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            disposal=1,
        )


def _frame(grids: Mapping[str, Tensor], count: int) -> Image.Image:
    pictures = {network: _picture(grid) for network, grid in grids.items()}
    width = sum(picture.width for picture in pictures.values()) + GAP * (len(pictures) - 1)
    frame = Image.new("RGB", (width, STRIP + max(picture.height for picture in pictures.values())), "white")
    pen, left = ImageDraw.Draw(frame), 0
    for i, (network, picture) in enumerate(pictures.items()):
        pen.text((left + 2, 3), network + (f", {count:,} samples" if i == 0 else ""), fill="black")
        frame.paste(picture, (left, STRIP))
        left += picture.width + GAP
    return frame


def _picture(grid: Tensor) -> Image.Image:
    pixels = (grid * 255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.squeeze(-1).numpy())
    return picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
