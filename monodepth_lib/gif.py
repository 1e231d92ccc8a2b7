"""Notebook 07: a drive's pictures beside their disparities, as a gif."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .plots import colour_map


def colour_range(disparities: np.ndarray) -> tuple[float, float]:
    """(low, high) for a whole clip, so that one colour means one distance in every frame: 0 and the 99th percentile."""
    return 0.0, float(np.percentile(disparities, 99))


def side_by_side(
    picture: Image.Image, disparity: np.ndarray, limits: tuple[float, float], width: int = 416
) -> Image.Image:
    """The picture left, its disparity (h, w) in colour right, each `width` px wide (a gif of KITTI's size is huge)."""
    picture = picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.BILINEAR)
    coloured = Image.fromarray(colour_map(disparity, *limits)).resize(picture.size, Image.Resampling.BILINEAR)
    frame = Image.new("RGB", (2 * picture.width, picture.height))
    frame.paste(picture, (0, 0))
    frame.paste(coloured, (picture.width, 0))
    return frame


def write_gif(frames: Sequence[Image.Image], path: str | Path, frames_per_second: float = 10) -> Path:
    """Writes an endless gif. Raises ValueError without frames, OSError naming a file that cannot be written."""
    if not frames:
        raise ValueError("a gif needs at least one frame")
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be more than 0")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    try:
        frames[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
        )
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({error}): free space or choose another output folder") from error
    return path
