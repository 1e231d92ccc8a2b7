"""Notebook 06: from disparity to depth in metres, and the error of that depth.

Depth is metres along the optical axis, 0 = unknown. The metrics are those of Eigen et al. (2014), section 4, computed
for each image and then averaged over images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0
# The metrics' names as papers print them. For a1, a2, a3 higher is better, for all others lower.
METRICS = {
    "abs_rel": "Abs Rel",
    "sq_rel": "Sq Rel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "a1": "a1",
    "a2": "a2",
    "a3": "a3",
    "d1_all": "D1-all",
}
HIGHER_IS_BETTER = ("a1", "a2", "a3")
DISTANCES = (0.0, 10.0, 20.0, 40.0, 80.0)  # metres, the edges of the bands

# The rows (from, to) and columns (from, to) that count, as shares of the truth's height and width. The constants are
# from the authors' evaluation code (mrharicot/monodepth, utils/evaluate_kitti.py), which found Eigen's by trial.
CROPS = {
    "none": (0.0, 1.0, 0.0, 1.0),
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}


@dataclass(frozen=True)
class Protocol:
    """Which pixels of an image are measured, and how. Raises ValueError for an unknown crop or an impossible cap.

    `cap`: ground truth at or beyond this distance in metres is left out. `crop`: the part of the picture that counts,
    see `CROPS`. `median_scaling` multiplies each prediction by median(truth) / median(prediction): for methods whose
    depth has no metric scale.
    """

    cap: float = MAX_DEPTH
    crop: str = "none"
    median_scaling: bool = False

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"crop is {self.crop!r}; it must be one of {', '.join(map(repr, CROPS))}")
        if not MIN_DEPTH < self.cap < float("inf"):
            raise ValueError(f"cap is {self.cap} m; it must be above {MIN_DEPTH} m")


def disparity_to_depth(disparity: Tensor, focal_baseline: float) -> Tensor:
    """depth = f·B / (W·d): `disparity` d is a fraction of the width, `focal_baseline` the camera's f·B/W.

    The fraction does not depend on the size at which the network works, so the depth does not either.
    """
    return focal_baseline / disparity.clamp(min=1e-6)


def resize_map(values: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of maps (..., H, W) to `size`; a disparity as a fraction of the width keeps its value."""
    flat = values.reshape(1, -1, *values.shape[-2:])
    return F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False).reshape(*values.shape[:-2], *size)


def crop_window(crop: str, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that count: "none" all, "garg" Garg et al. (2016), "eigen" Eigen et al. (2014).

    Both crops are fractions of the truth's size, as in the authors' evaluation code; 375x1242 gives [153:371, 44:1197]
    and [124:342, 44:1197].
    """
    top, bottom, left, right = CROPS[crop]
    return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))


def valid_pixels(depth: Tensor, truth: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor, float | None]:
    """Prediction and ground truth at the valid pixels, float64 (P,), and the median ratio (None when it is off).

    A pixel is valid inside the crop where 1e-3 < truth < cap. Raises ValueError when none is.
    """
    window = crop_window(protocol.crop, *truth.shape)
    gt, pred = truth[window], depth[window]
    valid = (gt > MIN_DEPTH) & (gt < protocol.cap)
    if not valid.any():
        where = "" if protocol.crop == "none" else f" inside the {protocol.crop} crop"
        raise ValueError(f"no pixel has a true depth in range{where}: leave this image out")
    gt, pred = gt[valid].double(), pred[valid].double()
    if not protocol.median_scaling:
        return pred, gt, None
    ratio = gt.quantile(0.5) / pred.quantile(0.5).clamp(min=1e-9)
    return pred * ratio, gt, float(ratio)


def depth_errors(pred: Tensor, gt: Tensor, focal_baseline_px: float, cap: float) -> dict[str, float]:
    """`METRICS` over predicted and true metres (P,); `focal_baseline_px`: f·B in px·m of the truth's width."""
    pred_px, gt_px = focal_baseline_px / pred.clamp(min=MIN_DEPTH), focal_baseline_px / gt
    pred = pred.clamp(MIN_DEPTH, cap)
    error = pred - gt
    ratio = torch.maximum(pred / gt, gt / pred)
    wrong = (pred_px - gt_px).abs()
    values = {
        "abs_rel": (error.abs() / gt).mean(),
        "sq_rel": (error**2 / gt).mean(),
        "rmse": (error**2).mean().sqrt(),
        "rmse_log": ((pred.log() - gt.log()) ** 2).mean().sqrt(),
        "a1": (ratio < 1.25).double().mean(),
        "a2": (ratio < 1.25**2).double().mean(),
        "a3": (ratio < 1.25**3).double().mean(),
        "d1_all": ((wrong >= 3) & (wrong >= 0.05 * gt_px)).double().mean(),
    }
    return {name: float(value) for name, value in values.items()}


def metrics(depth: Tensor, truth: Tensor, focal_baseline: float, protocol: Protocol = Protocol()) -> dict[str, float]:
    """The seven standard depth metrics of one image, and KITTI's D1-all, over the valid pixels of the `protocol`.

    depth, truth: (H, W) in metres, truth 0 = unknown; the prediction is clamped to [1e-3, cap]. D1-all is the share of
    pixels whose disparity, in pixels of the truth's own width, is wrong by 3 px or more and by 5 % or more. It needs
    the camera's `focal_baseline` (f·B/W, metres) and is computed before the clamp. With median scaling the result
    also has the `ratio`. Raises ValueError when no pixel is valid.
    """
    pred, gt, ratio = valid_pixels(depth, truth, protocol)
    values = depth_errors(pred, gt, focal_baseline * truth.shape[1], protocol.cap)
    return values if ratio is None else {**values, "ratio": ratio}


def metrics_by_distance(
    depth: Tensor,
    truth: Tensor,
    focal_baseline: float,
    protocol: Protocol = Protocol(),
    edges: Sequence[float] = DISTANCES,
) -> list[dict[str, float]]:
    """`metrics` of one image for each band from <= truth < to: dicts `from`, `to` in metres, `pixels`, `METRICS`.

    The bands lie between neighbouring `edges`; the last one ends at the cap. A band without pixels holds nan. The
    prediction is median-scaled with the ratio of the whole image. Raises ValueError as `metrics` does.
    """
    pred, gt, _ = valid_pixels(depth, truth, protocol)
    bands = []
    for low, high in pairwise([*(edge for edge in edges if edge < protocol.cap), protocol.cap]):
        inside = (gt >= low) & (gt < high)
        values = depth_errors(pred[inside], gt[inside], focal_baseline * truth.shape[1], protocol.cap)
        bands.append({"from": low, "to": high, "pixels": int(inside.sum()), **values})
    return bands


def mean_inverse_depth(truths: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Per-pixel mean of 1/depth over the known pixels of several (H, W) truths, at `size`: needs no picture.

    Every truth is reduced to `size` by averaging 1/depth over its known pixels. A pixel known in no truth is 0.
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


def nearest_valid(values: Tensor, row: int, column: int) -> tuple[int, int]:
    """Row and column of the known (not 0) pixel of a map (H, W) that is nearest to the given row and column."""
    rows, columns = values.nonzero(as_tuple=True)
    place = ((rows - row) ** 2 + (columns - column) ** 2).argmin()
    return int(rows[place]), int(columns[place])


def fill_rows(values: Tensor) -> Tensor:
    """Fills the zeros (unknown) of a map (H, W) with the mean of their row's known values, else of all known values."""
    known = values > 0
    whole = values.sum() / known.sum().clamp(min=1)
    rows = torch.where(known.any(1), values.sum(1) / known.sum(1).clamp(min=1), whole)
    return torch.where(known, values, rows[:, None])


def copied_abs_rel(truth: Tensor, remembered: Sequence[Tensor], alike: Sequence[float], focal_baseline: float) -> float:
    """Abs Rel of the remembered depth map (H, W) with the highest number in `alike`, as an answer to `truth`.

    Its unknown pixels get the mean of their row. Maps of another size do not count; nan when none is left.
    """
    fitting = [(likeness, i) for i, likeness in enumerate(alike) if remembered[i].shape == truth.shape]
    if not fitting:
        return float("nan")
    copied = remembered[max(fitting)[1]]
    inverse = fill_rows(mean_inverse_depth([copied], (copied.shape[0], copied.shape[1])))
    return metrics(1 / inverse, truth, focal_baseline)["abs_rel"]


def scale_camera(
    focal_px: float, centre_px: tuple[float, float] | None, camera_width: int, size: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """Focal length and centre (column, row), in pixels of a map of `size` (H, W), of a camera `camera_width` px wide.

    s = W / camera_width; f' = s·f and c' = s·(c + 1/2) - 1/2, as pixel centres lie at whole numbers (a picture's left
    edge is at -1/2). A `centre_px` of None means the middle of the map.
    """
    height, width = size
    scale = width / camera_width
    if centre_px is None:
        return scale * focal_px, ((width - 1) / 2, (height - 1) / 2)
    column, row = centre_px
    return scale * focal_px, (scale * (column + 0.5) - 0.5, scale * (row + 0.5) - 0.5)


def point_cloud(depth: Tensor, focal_px: float, centre_px: tuple[float, float]) -> Tensor:
    """The 3-D point of every pixel, as the camera sees it: depth (H, W) in metres -> points (X, Y, Z), (H, W, 3).

    X = (u - c_u)·Z / f to the right, Y = (v - c_v)·Z / f down, Z = depth ahead, for the pixel in column u and row v
    (0, 1, ...). `focal_px` f and `centre_px` (c_u, c_v) are in pixels of this map (see `scale_camera`).
    A pixel of unknown depth (0) becomes (0, 0, 0), the camera itself: leave out points with Z = 0.
    """
    height, width = depth.shape
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    x = (u - centre_px[0]) * depth / focal_px
    y = (v - centre_px[1]) * depth / focal_px
    return torch.stack([x, y, depth], dim=-1)


def viewer_points(
    points: Tensor, colours: np.ndarray | Tensor, furthest: float = MAX_DEPTH
) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., 3) of `point_cloud` and their `colours` (..., 3), bytes, in the form of 3-D viewers: each (N, 3).

    Viewers open with y up and look along -z, so (X, Y, Z) becomes (X, -Y, -Z): half a turn about the x axis, which
    mirrors nothing. Points of unknown depth (Z = 0, or not finite) and beyond `furthest` metres are left out. Returns
    float32 metres and uint8 red, green, blue. Raises ValueError for other shapes or colours, and when no point is left.
    """
    flat = points.detach().cpu().reshape(-1, points.shape[-1]).float()
    rgb = np.asarray(colours.cpu() if isinstance(colours, Tensor) else colours)
    if flat.shape[1] != 3 or rgb.shape != tuple(points.shape) or rgb.dtype != np.uint8:
        raise ValueError(
            f"points are {tuple(points.shape)}, colours {rgb.shape} of {rgb.dtype}: both must be (..., 3), "
            "and colours uint8 from 0 to 255: resize the picture to the points"
        )
    keep = (flat[:, 2] > 0) & (flat[:, 2] <= furthest) & flat.isfinite().all(1)
    if not keep.any():
        raise ValueError(f"no point has a known depth up to {furthest} m: raise furthest, or take another picture")
    return (flat[keep] * torch.tensor([1.0, -1.0, -1.0])).numpy(), rgb.reshape(-1, 3)[keep.numpy()]
