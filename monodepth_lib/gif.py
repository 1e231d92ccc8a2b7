"""Notebook 07: a drive's pictures beside their disparities, as a gif."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from .files import atomic_write
from .plots import colour_map, scale_bar


def colour_range(disparities: np.ndarray) -> tuple[float, float]:
    """(low, high) for a whole clip, so that one colour means one distance in every frame: 0 and the 99th percentile."""
    return 0.0, float(np.percentile(disparities, 99))


def flicker(disparities: np.ndarray) -> np.ndarray:
    """How much (frames, h, w) change from each frame to the next: mean |d_t - d_(t-1)| over the pixels, (frames - 1,).

    In the unit of the disparities. What moves in front of the camera changes as well: compare with the true change.
    """
    steps = pairwise(disparities)  # frame by frame: a long drive does not fit in memory twice
    return np.array([np.abs(np.asarray(new) - np.asarray(old)).mean(dtype=np.float64) for old, new in steps])


def distance_bar(limits: tuple[float, float], focal_baseline: float, width: int) -> Image.Image:
    """The colours of disparities from `limits` with the distances they stand for; `metres` is the camera's f·B/W."""
    low, high = limits
    nearest = focal_baseline / max(high, 1e-6)
    distances = [z for z in (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100) if z >= nearest]
    ticks = [((focal_baseline / z - low) / max(high - low, 1e-9), f"{z} m") for z in distances]
    return scale_bar(ticks, width, "distance")


def side_by_side(
    picture: Image.Image,
    disparity: np.ndarray,
    limits: tuple[float, float],
    width: int = 416,
    focal_baseline: float | None = None,
) -> Image.Image:
    """The picture left, its disparity (h, w) in colour right, each `width` px wide (a gif of KITTI's size is huge).

    With the camera's `metres` (f·B/W), the distances that the colours stand for are drawn below.
    """
    picture = picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.BILINEAR)
    coloured = Image.fromarray(colour_map(disparity, *limits)).resize(picture.size, Image.Resampling.BILINEAR)
    bar = distance_bar(limits, focal_baseline, 2 * picture.width) if focal_baseline else None
    frame = Image.new("RGB", (2 * picture.width, picture.height + (bar.height if bar else 0)))
    frame.paste(picture, (0, 0))
    frame.paste(coloured, (picture.width, 0))
    if bar:
        frame.paste(bar, (0, picture.height))
    return frame


def write_gif(frames: Sequence[Image.Image], path: str | Path, frames_per_second: float = 10) -> Path:
    """Writes an endless gif. Raises ValueError without frames, OSError naming a file that cannot be written."""
    if not frames:
        raise ValueError("a gif needs at least one frame")
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be more than 0")
    path = Path(path)
    with atomic_write(path) as partial:
        frames[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
        )
    return path


def stream_gif(frames: Iterable[tuple[Image.Image, float]], path: str | Path) -> None:
    """Writes an endless gif of frames and their seconds, one after the other: a long clip need not fit in memory.

    A frame that equals the one before it stays a frame of its own, and each has its own 256 colours.
    """
    with open(path, "wb") as file:
        for index, (picture, seconds) in enumerate(frames):
            if index == 0:
                file.write(b"GIF89a" + struct.pack("<HHBBB", *picture.size, 0, 0, 0))
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # repeat for ever
            indexed = picture.quantize(256)
            for block in GifImagePlugin.getdata(indexed, duration=round(1000 * seconds), include_color_table=True):
                file.write(block)
        file.write(b";")
