"""Notebook 07: a drive's pictures beside their disparities, as a gif, and its points in space, as a PLY."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import GifImagePlugin, Image
from torch import Tensor

from .depth import MAX_DEPTH, resize_map, viewer_points
from .files import atomic_write
from .kitti import Pair
from .plots import colour_map, scale_bar


def colour_range(disparities: np.ndarray) -> tuple[float, float]:
    """(low, high) for a whole clip: 0 and the 99th percentile. So a colour means the same distance in every frame."""
    return 0.0, float(np.percentile(disparities, 99))


def flicker(disparities: np.ndarray) -> np.ndarray:
    """The change of disparities (frames, h, w) per step: mean |d_t - d_(t-1)| over the pixels, (frames - 1,).

    It has the unit of the disparities. Real motion also changes them: compare with the change of the true disparity.
    """
    steps = pairwise(disparities)  # frame by frame: a long drive does not fit in memory twice
    return np.array([np.abs(np.asarray(new) - np.asarray(old)).mean(dtype=np.float64) for old, new in steps])


def beside_truth(pairs: Sequence[Pair], disparities: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Predicted and true disparities of a film, (frames, H, W) of the truth's size, nan where the truth is unknown.

    When a frame has no ground truth, or frames differ in size, all true ones are nan, and the predicted ones keep their
    size and every pixel.
    """
    predicted = torch.from_numpy(np.stack(list(disparities)))
    known = pairs if all(pair.truth for pair in pairs) else []
    truths = [pair.calibration.focal_baseline / torch.from_numpy(pair.ground_truth()) for pair in known]
    if len({truth.shape for truth in truths}) != 1:
        return predicted, torch.full_like(predicted, torch.nan)
    true = torch.stack(truths)  # d = f·B/(W·Z), inf where Z is unknown, 0
    unknown = true.isinf()
    predicted = resize_map(predicted, true.shape[1:])
    return predicted.masked_fill(unknown, torch.nan), true.masked_fill(unknown, torch.nan)


def distance_bar(limits: tuple[float, float], focal_baseline: float, width: int) -> Image.Image:
    """A bar of the colours between two disparities `limits`, with the distances they mean; it needs f·B/W in metres."""
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
    """The picture on the left, its coloured disparity (h, w) on the right, each `width` px wide to keep gifs small.

    With the camera's `focal_baseline` (f·B/W in metres), a bar below shows the distances that the colours mean.
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


def write_gif(frames: Iterable[Image.Image], path: str | Path, frames_per_second: float = 10) -> Path:
    """Writes a repeating gif, frame by frame. Frames may come from a generator, so a long film needs little memory.

    Raises ValueError without frames, OSError naming a file that cannot be written.
    """
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be more than 0")
    path = Path(path)
    with atomic_write(path) as partial:
        stream_gif(((frame, 1 / frames_per_second) for frame in frames), partial)
    return path


def stream_gif(frames: Iterable[tuple[Image.Image, float]], path: str | Path) -> None:
    """Writes a repeating gif of (frame, seconds), frame by frame: a long clip need not fit in memory.

    Equal neighbouring frames are kept, and each frame has its own 256 colours. Raises ValueError without frames.
    """
    with open(path, "wb") as file:
        for index, (picture, seconds) in enumerate(frames):
            if index == 0:
                file.write(b"GIF89a" + struct.pack("<HHBBB", *picture.size, 0, 0, 0))
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # repeat for ever
            indexed = picture.quantize(256)
            for block in GifImagePlugin.getdata(indexed, duration=round(1000 * seconds), include_color_table=True):
                file.write(block)
        if not file.tell():
            raise ValueError("a gif needs at least one frame")
        file.write(b";")


def write_ply(path: str | Path, points: Tensor, colours: np.ndarray | Tensor, furthest: float = MAX_DEPTH) -> int:
    """Writes a coloured point cloud that MeshLab and Open3D read; returns how many points it holds.

    `points` (..., 3) are `point_cloud`'s, `colours` (..., 3) the picture's bytes at the same size; unknown points and
    those beyond `furthest` metres are left out. Binary PLY, little endian: x to the right, y up, z backwards (the
    camera sits at 0 and looks along -z), float, metres; red, green, blue, uchar. The file is written under a
    temporary name and renamed. Raises ValueError like `viewer_points`, OSError naming a file that cannot be written.
    """
    xyz, rgb = viewer_points(points, colours, furthest)
    names = ("x", "y", "z", "red", "green", "blue")
    vertices = np.empty(len(xyz), dtype=list(zip(names, ["<f4"] * 3 + ["u1"] * 3, strict=True)))
    for name, values in zip(names, [*xyz.T, *rgb.T], strict=True):
        vertices[name] = values
    header = ["ply", "format binary_little_endian 1.0", "comment metres; x right, y up, the camera looks along -z"]
    header += [f"element vertex {len(xyz)}"]
    header += [f"property {kind} {name}" for kind, name in zip(["float"] * 3 + ["uchar"] * 3, names, strict=True)]
    with atomic_write(Path(path)) as partial:
        partial.write_bytes("\n".join([*header, "end_header\n"]).encode("ascii") + vertices.tobytes())
    return len(xyz)


def preview(path: str | Path, most_bytes: int = 100_000) -> bytes:
    """A smaller copy of a gif, to store inside a notebook: fewer frames, pixels and colours, the same duration.

    Returns the first of several reductions that fits into `most_bytes`, else the smallest one.
    """
    with Image.open(path) as film:
        count: int = film.n_frames  # type: ignore[attr-defined]
        every = -(-count // 48)  # of a long film, at most 48 frames are held in memory
        frames = []
        for number in range(0, count, every):
            film.seek(number)
            frames.append(film.convert("RGB"))
        milliseconds = every * film.info.get("duration", 100)
    for step, share in ((1, 1.0), (2, 0.6), (2, 0.5), (3, 0.5), (3, 0.4), (4, 0.4), (6, 0.4), (6, 0.3), (8, 0.25)):
        width, height = (max(1, round(share * side)) for side in frames[0].size)
        small = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames[::step]]
        first, *others = [frame.quantize(32, dither=Image.Dither.NONE) for frame in small]
        buffer = io.BytesIO()
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=step * milliseconds, loop=0)
        if buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()
