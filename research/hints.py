"""Disparity hints: semi-global matching of both photographs teaches a network that sees only one of them.

The matcher compares the views at their native size, so it finds edges and thin objects that the photometric loss at the
network's size misses. It is a classical method without learning (Depth Hints, Watson et al., 2019).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from monodepth_lib import stereo
from monodepth_lib.cache import fingerprint
from monodepth_lib.files import read_picture
from monodepth_lib.kitti import Pair

AGREEMENT = 1.5  # px; the matches of a point in both views may differ by this much
LEAST, LEVELS = 1e-3, 127  # the smallest disparity and the number of steps of a stored hint


def agreed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The left disparity (H, W) in px, 0 where the right one at x - d disagrees or is unknown."""
    height, width = left.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    match = np.rint(columns - left).astype(int)
    other = right[rows, match.clip(0, width - 1)]
    agrees = (left > 0) & (other > 0) & (match >= 0) & (np.abs(left - other) <= AGREEMENT)
    return np.where(agrees, left, 0).astype(np.float32)


def guess_hidden(disparity: np.ndarray) -> np.ndarray:
    """Fills a left disparity (H, W) in px with guesses, as negative numbers, where the right view shows nothing.

    A near object hides a strip to its left in the right view. The strip's width is the difference of the disparities of
    object and background. A hole of about this width, with a nearer object on its right side, gets the background's
    disparity from its left; a hole of a few columns gets that of its farther side. Other holes, as in the sky, stay 0.
    """
    width = disparity.shape[1]
    valid = disparity > 0
    column = np.arange(width)
    before = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, column, width)[:, ::-1], axis=1)[:, ::-1]
    inside = ~valid & (before >= 0) & (after < width)
    left = np.take_along_axis(disparity, before.clip(min=0), axis=1)
    right = np.take_along_axis(disparity, after.clip(max=width - 1), axis=1)
    hole = after - before - 1
    hidden = inside & ((hole <= 6) | (hole <= 1.3 * (right - left) + 6))
    return np.where(hidden, -np.minimum(left, right), disparity)


def matches(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Disparities (2, H, W) in px of the left and the right view of two grey pictures, 0 where they do not agree.

    The second is of the mirrored pair, in which the right view is the left one.
    """
    in_left = stereo.semi_global_matching(left, right)
    in_right = stereo.semi_global_matching(*(np.ascontiguousarray(view[:, ::-1]) for view in (right, left)))
    return np.stack([agreed(in_left, in_right[:, ::-1]), agreed(in_right, in_left[:, ::-1])])


def match_both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hints (2, H, W) for the left and the right view of two grey uint8 pictures (H, W), as fractions of the width.

    Positive: both views agree. Negative: minus a guess, either from the same search in the halved pictures, whose
    windows cover twice the range (a car's textureless side), or from one view alone (`guess_hidden`). 0: unknown.
    """
    found = matches(left, right)
    halved = (np.asarray(Image.fromarray(view).reduce(2)) for view in (left, right))
    coarse = sample_hints(torch.from_numpy(2 * matches(*halved)), left.shape).numpy()
    hints = [guess_hidden(np.where(fine > 0, fine, -guess)) for fine, guess in zip(found, coarse, strict=True)]
    return np.stack([hints[0], hints[1][:, ::-1]]) / np.float32(left.shape[1])


def sample_hints(hints: Tensor, size: Sequence[int]) -> Tensor:
    """Hints (..., H, W) at another size: the nearest one, because a mean over an edge is wrong on both sides."""
    flat = hints.reshape(1, -1, *hints.shape[-2:])
    return F.interpolate(flat, tuple(size), mode="nearest-exact").reshape(*hints.shape[:-2], *size)


# --- on disk ------------------------------------------------------------------------------------------------------


def hint_file(pair: Pair) -> Path:
    """The file of hints beside pictures that were reduced (`research pack`)."""
    return pair.folder / "hints" / f"{pair.left.stem}.png"


def write_hints(hints: np.ndarray, path: Path) -> None:
    """Hints (2, H, W) as a grey PNG (2·H, W): 0 none, 1 to 127 the logarithm of a match, 128 more for a guess."""
    place = np.log(np.abs(hints).clip(min=LEAST) / LEAST) / -np.log(LEAST) * (LEVELS - 1) + 1
    codes = np.where(hints == 0, 0, np.rint(place).clip(1, LEVELS) + 128 * (hints < 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(codes.astype(np.uint8).reshape(-1, hints.shape[-1])).save(path)


def read_hints(path: Path) -> np.ndarray:
    """Reads what `write_hints` wrote, with an error up to 3 %."""
    with Image.open(path) as image:
        codes = np.asarray(image, dtype=np.int16)
    value = LEAST * np.exp(((codes % 128) - 1) / (LEVELS - 1) * -np.log(LEAST))
    return np.where(codes == 0, 0, np.where(codes > 128, -value, value)).reshape(2, -1, codes.shape[1])


def pair_hints(pair: Pair, size: tuple[int, int]) -> np.ndarray:
    """Hints of a pair, computed at its native size (or read from beside it), at `size`: float16 (2, height, width)."""
    if hint_file(pair).is_file():
        hints = read_hints(hint_file(pair))
    else:
        left, right = (np.asarray(read_picture(path).convert("L")) for path in (pair.left, pair.right))
        hints = match_both(left, right)
    return sample_hints(torch.from_numpy(hints), size).numpy().astype(np.float16)


def prepare_hints(
    pairs: list[Pair], size: tuple[int, int], folder: Path, workers: int = 2, log: Callable = print
) -> Path:
    """Computes the hints of every pair once, into one float16 array (pairs, 2, height, width) in `folder`; its path.

    A pair takes 0.7 s on one core. The file's name follows from the pictures' paths, bytes and times of change, as in
    `cache.prepare_cache`. Raises ValueError without OpenCV.
    """
    if not stereo.has_opencv() and not all(hint_file(pair).is_file() for pair in pairs):
        raise ValueError("hints need OpenCV: pip install -e '.[sgm]'")
    stamps = [f"{path} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for p in pairs for path in (p.left, p.right)]
    path = folder / f"hints-{size[0]}x{size[1]}-{fingerprint(stamps)}.npy"
    if path.is_file():
        return path
    log(f"matching {len(pairs)} pairs for hints of {size[0]}x{size[1]} in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    array = np.lib.format.open_memmap(part, "w+", np.float16, (len(pairs), 2, *size))
    with ThreadPoolExecutor(workers) as pool:  # OpenCV releases Python's lock
        for place, found in enumerate(pool.map(partial(pair_hints, size=size), pairs)):
            array[place] = found
    array.flush()
    os.replace(part, path)
    return path
