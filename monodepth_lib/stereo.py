"""Classical stereo: disparity by matching both views. It is a reference: the network sees only one view."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import depth, kitti, losses
from .files import read_picture

OPENCV = "opencv-python-headless==5.0.0.93"  # as in pyproject.toml, extra "sgm"


def has_opencv() -> bool:
    return importlib.util.find_spec("cv2") is not None


def fill_holes(disparity: np.ndarray) -> np.ndarray:
    """Fills the holes (pixels <= 0) of a disparity (H, W) row by row.

    A hole gets the smaller (farther) value of its neighbours left and right, because most holes are background hidden
    by a near object; at the border it gets the only neighbour. A row without any value copies the nearest row with one.
    A disparity without any value stays as it is.
    """
    valid = disparity > 0
    rows = np.flatnonzero(valid.any(axis=1))
    if not len(rows):
        return disparity
    column = np.arange(disparity.shape[1])
    before = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, column, column.size)[:, ::-1], axis=1)[:, ::-1]
    left = np.where(before < 0, np.inf, np.take_along_axis(disparity, before.clip(min=0), axis=1))
    right = np.where(
        after == column.size, np.inf, np.take_along_axis(disparity, after.clip(max=column.size - 1), axis=1)
    )
    filled = np.where(valid, disparity, np.minimum(left, right))
    nearest = rows[np.abs(rows[:, None] - np.arange(len(disparity))).argmin(axis=0)]
    return filled[nearest].astype(disparity.dtype)


def match_views(pair: kitti.Pair) -> Tensor:
    """Left disparity (H, W), a fraction of the width, by semi-global matching of both views (Hirschmüller, 2008).

    `fill_holes` fills what `semi_global_matching` leaves open, so every pixel has a value; where nothing matches at
    all, every value is 0. Raises ModuleNotFoundError without OpenCV, ValueError for views of unequal size.
    """
    views = [read_picture(path).convert("L") for path in (pair.left, pair.right)]
    kitti.check_equal_size(pair, views[0].size, views[1].size)
    left, right = (np.asarray(view) for view in views)
    return torch.from_numpy(fill_holes(semi_global_matching(left, right)) / np.float32(left.shape[1]))


def semi_global_matching(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Left disparity (H, W) in px, 0 where there is none, of two grey uint8 pictures (H, W), up to 15 % of the width.

    It is OpenCV's StereoSGBM with a left-right check; disparities below 1 px count as no match. Its settings were
    chosen on scenes of KITTI stereo 2012. Raises ModuleNotFoundError without OpenCV.
    """
    import cv2

    height, width = left.shape
    furthest, block = 16 * -(-round(0.15 * width) // 16), 5
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=furthest,
        blockSize=block,
        P1=8 * block**2,
        P2=96 * block**2,
        disp12MaxDiff=1,
        preFilterCap=63,
        uniquenessRatio=10,
        speckleWindowSize=round(height * width / 1160),  # 400 px in KITTI's pictures
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    # StereoSGBM skips columns whose search would leave the picture: so pad both pictures on the left
    widened = (cv2.copyMakeBorder(view, 0, 0, furthest, 0, cv2.BORDER_REPLICATE) for view in (left, right))
    pixels = matcher.compute(*widened)[:, furthest:].astype(np.float32) / 16
    return np.where(pixels < 1, 0, pixels)


def search_disparity(left: Tensor, right: Tensor, reach: float = 0.19) -> Tensor:
    """Left disparity (H, W), a fraction of the width, of views (1, 3, H, W): for each pixel the shift that fits best.

    It tries all whole shifts below `reach` of the width; the cost is `losses.photometric_error`, averaged over 5x5
    pixels. This is notebook 03's search: no smoothness, so textureless surfaces get any value.
    """
    height, width = left.shape[-2:]
    costs = []
    for shift in range(int(reach * width)):
        fetched = losses.warp(right, torch.full((1, 1, height, width), -shift / width))
        error = losses.photometric_error(left, fetched)
        costs.append(F.avg_pool2d(error, 5, stride=1, padding=2, count_include_pad=False)[0, 0])
    return torch.stack(costs).argmin(0) / width


def reference_disparity(pair: kitti.Pair, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, str]:
    """The reference for a pair's left disparity at the size of its views: map (H, W), known (H, W), its name.

    With ground truth it is the true disparity; the gaps of a sparse (laser) one are filled by `search_disparity` and
    are not `known`. Without ground truth, the searched disparity is used everywhere.
    """
    if not pair.truth:
        searched = search_disparity(left, right)
        return searched, torch.ones_like(searched, dtype=torch.bool), "searched disparity (no truth here)"
    size = left.shape[-2], left.shape[-1]
    true = pair.calibration.focal_baseline * depth.mean_inverse_depth([torch.from_numpy(pair.ground_truth())], size)
    known = true > 0
    if known.float().mean() < 0.9:
        true = torch.where(known, true, search_disparity(left, right))
    return true, known, "true disparity"


def hidden(disparity: Tensor) -> Tensor:
    """Which pixels of the left view (H, W) the right camera does not see, from the true left disparity.

    A pixel is hidden (occluded) where a nearer pixel falls on its place in the right view, or where that place is
    outside the left border.
    """
    width = disparity.shape[-1]
    target = (torch.arange(width) - disparity * width).round().long()
    inside = disparity.where(target >= 0, 0.0)
    nearest = torch.zeros_like(disparity).scatter_reduce(1, target.clamp(min=0), inside, "amax")
    return (target < 0) | (nearest.gather(1, target.clamp(min=0)) > disparity + 1.5 / width)


def known_disparity(pair: kitti.Pair, size: tuple[int, int]) -> Tensor:
    """Left disparity (h, w) at `size`, a fraction of the width: from the ground truth; 0 is unknown.

    A pair without ground truth gets the disparity that semi-global matching finds in both views (`match_views`);
    without OpenCV it is unknown everywhere.
    """
    if pair.truth is None:
        values = match_views(pair) if has_opencv() else torch.zeros(size)
    else:
        truth = torch.from_numpy(pair.ground_truth())
        values = torch.where(truth > 0, pair.calibration.focal_baseline / truth.clamp(min=depth.MIN_DEPTH), 0.0)
    return F.interpolate(values[None, None].float(), size, mode="nearest")[0, 0]
