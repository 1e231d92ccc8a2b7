"""Notebook 06: from disparity to metres, and how good the metres are.

Depth is metres along the optical axis, 0 = unknown. The metrics are those of Eigen et al. (2014), section 4, computed
for each image and then averaged over images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "d1", "d2", "d3", "d1_all")


def disparity_to_depth(disparity: Tensor, metres: float) -> Tensor:
    """depth = f·B / (W·d): `disparity` d is a fraction of the width, `metres` the camera's f·B/W.

    The fraction does not depend on the size the network works at, so neither does the depth.
    """
    return metres / disparity.clamp(min=1e-6)


def resize_map(values: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of maps (..., H, W) to `size`; a disparity as a fraction of the width keeps its value."""
    flat = values.reshape(1, -1, *values.shape[-2:])
    return F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False).reshape(*values.shape[:-2], *size)


def garg_crop(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of Garg et al. (2016), used for Eigen-split numbers: 375x1242 -> [153:371, 44:1197]."""
    rows = slice(int(0.40810811 * height), int(0.99189189 * height))
    return rows, slice(int(0.03594771 * width), int(0.96405229 * width))


def metrics(depth: Tensor, truth: Tensor, metres: float, cap: float = MAX_DEPTH) -> dict[str, float]:
    """The seven standard depth metrics of one image, and KITTI's D1-all, over pixels with 1e-3 < truth < `cap` metres.

    depth, truth: (H, W) in metres, truth 0 = unknown; the prediction is clamped to [1e-3, cap]. D1-all is the share of
    pixels whose disparity, in pixels of this picture, is wrong by 3 px or more and by 5 % or more; it takes the
    camera's `metres` (f·B/W) and ignores the cap's clamp. Raises ValueError when no pixel has a truth in range.
    """
    known = (truth > MIN_DEPTH) & (truth < cap)
    if not known.any():
        raise ValueError("no pixel has a true depth in range: leave this image out")
    gt = truth[known].double()
    raw = depth[known].double()
    pred = raw.clamp(MIN_DEPTH, cap)
    ratio = torch.maximum(pred / gt, gt / pred)
    error = pred - gt
    focal_baseline = metres * truth.shape[1]  # px·m at this width
    gt_px, pred_px = focal_baseline / gt, focal_baseline / raw.clamp(min=MIN_DEPTH)
    wrong = (pred_px - gt_px).abs()
    values = {
        "abs_rel": (error.abs() / gt).mean(),
        "sq_rel": (error**2 / gt).mean(),
        "rmse": (error**2).mean().sqrt(),
        "rmse_log": ((pred.log() - gt.log()) ** 2).mean().sqrt(),
        "d1": (ratio < 1.25).double().mean(),
        "d2": (ratio < 1.25**2).double().mean(),
        "d3": (ratio < 1.25**3).double().mean(),
        "d1_all": ((wrong >= 3) & (wrong >= 0.05 * gt_px)).double().mean(),
    }
    return {name: float(value) for name, value in values.items()}


def mean_inverse_depth(truths: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Per-pixel mean of 1/depth over the known pixels of several (H, W) truths, at `size`: a guess without a picture.

    Every truth is brought to `size` by averaging 1/depth over its known pixels; a place that is known in none is 0.
    """
    total, count = torch.zeros(1, 1, *size), torch.zeros(1, 1, *size)
    for truth in truths:
        known = (truth > 0).float()[None, None]
        inverse = torch.where(truth > 0, 1 / truth.clamp(min=MIN_DEPTH), 0.0)[None, None]
        share = F.interpolate(known, size, mode="area")
        value = F.interpolate(inverse, size, mode="area") / share.clamp(min=1e-6)
        total += torch.where(share > 0, value, 0.0)
        count += (share > 0).float()
    return (total / count.clamp(min=1))[0, 0]


def scale_camera(
    focal_px: float, centre_px: tuple[float, float] | None, camera_width: int, size: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """Focal length and centre (column, row), in pixels of a map of `size` (H, W), of a camera `camera_width` px wide.

    s = W / camera_width; f' = s·f and c' = s·(c + 1/2) - 1/2, as pixel centres lie at whole numbers (a picture's left
    edge is at -1/2). Without a known centre (None) it is the map's middle.
    """
    height, width = size
    scale = width / camera_width
    if centre_px is None:
        return scale * focal_px, ((width - 1) / 2, (height - 1) / 2)
    column, row = centre_px
    return scale * focal_px, (scale * (column + 0.5) - 0.5, scale * (row + 0.5) - 0.5)


def point_cloud(depth: Tensor, focal_px: float, centre_px: tuple[float, float]) -> Tensor:
    """Where every pixel's surface lies before the camera: (H, W) metres -> (H, W, 3) metres, (X, Y, Z).

    X = (u - c_u)·Z / f to the right, Y = (v - c_v)·Z / f down, Z = depth ahead, for the pixel in column u and row v
    (0, 1, ...). `focal_px` f and `centre_px` (c_u, c_v) are in pixels of this map: `scale_camera` brings a calibration
    to it. A pixel of unknown depth (0) lands in the camera itself, (0, 0, 0): leave points with Z = 0 out.
    """
    height, width = depth.shape
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    x = (u - centre_px[0]) * depth / focal_px
    y = (v - centre_px[1]) * depth / focal_px
    return torch.stack([x, y, depth], dim=-1)
