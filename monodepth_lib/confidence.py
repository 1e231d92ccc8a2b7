"""Notebook 06, behind it: the uncertainty of a prediction, and where the prediction is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from . import depth, kitti
from .depth import Protocol
from .losses import warp
from .testing import as_map, left_ramp, truth_or

# --- uncertainty: where the network contradicts itself ----------------------------------------------------------------


def flip_disagreement(plain: Tensor, post_processed: Tensor) -> Tensor:
    """|d - d'| of maps (..., h, w): d is predicted from the picture, d' from its mirror image and mirrored back.

    It is computed from the blend of `post_process`, d_pp = d + w·(d' - d) with w = m_l + (1 - m_l - m_r) / 2. At the
    right border w is 0 and says nothing about d': the value of the last column with w of 1/4 or more is used there.
    """
    width = plain.shape[-1]
    left = left_ramp(width, plain.device)
    share = left + (1 - left - left.flip(0)) / 2
    last = int((share >= 0.25).nonzero().max())
    apart = (post_processed - plain).abs() / share.clamp(min=0.25)
    return apart[..., torch.arange(width).clamp(max=last)]


def left_right_disagreement(maps: Tensor) -> Tensor:
    """|d_l(x) - d_r(x - d_l(x))| of a network's output (N, 2, h, w): (N, h, w), fractions of the width.

    The right map is sampled where the left one points, as in the consistency loss: both should be equal.
    """
    left, right = maps[:, :1], maps[:, 1:]
    return (left - warp(right, -left))[:, 0].abs()


# --- does uncertainty know where the errors are? ----------------------------------------------------------------------


def sparsification(error: Tensor, uncertainty: Tensor, steps: int = 50) -> Tensor:
    """Mean error of the remaining pixels after the most uncertain k/steps are removed, k = 0 ... steps: (steps + 1,).

    `error` and `uncertainty` hold one number per pixel, in any shape; pixels whose error is nan (unknown) do not count.
    The last value, without pixels, is 0. A good uncertainty makes the curve fall at once. When no error is known, the
    whole curve is nan.
    """
    known = ~error.isnan()
    order = uncertainty[known].argsort(descending=True, stable=True)
    sorted_error = error[known].double()[order]
    count = len(sorted_error)
    if not count:
        return torch.full((steps + 1,), torch.nan, dtype=torch.float64)
    left = sorted_error.flip(0).cumsum(0).flip(0)  # the sum from each place to the end
    gone = [k * count // steps for k in range(steps)]
    return torch.stack([*(left[first] / (count - first) for first in gone), left.new_zeros(())])


def ause(error: Tensor, uncertainty: Tensor, steps: int = 50) -> float:
    """Area under the sparsification error: between the curves sorted by `uncertainty` and by the error itself.

    AUSE = ∫ S_uncertainty(x) - S_error(x) dx over the removed share x from 0 to 1, in the unit of the error; 0 is the
    best. Ilg et al. (ECCV 2018, arXiv 1802.07095), steps of 2 % and no normalisation as in Poggi et al. (CVPR 2020).
    """
    apart = sparsification(error, uncertainty, steps) - sparsification(error, error, steps)
    return float(torch.trapezoid(apart, dx=1 / steps))


def aurg(error: Tensor, uncertainty: Tensor, steps: int = 50) -> float:
    """Area under the random gain: how far the curve by `uncertainty` is below that of removing pixels at random.

    AURG = mean error - ∫ S_uncertainty(x) dx (Poggi et al., CVPR 2020, arXiv 2005.06209): random removal does not
    change the mean. Higher is better; 0 is no better than chance.
    """
    curve = sparsification(error, uncertainty, steps)
    return float(curve[0] - torch.trapezoid(curve, dx=1 / steps))


def score_confidence(
    pairs: Sequence[kitti.Pair],
    disparities: Iterable[np.ndarray | Tensor],
    uncertainties: Iterable[np.ndarray | Tensor],
    protocol: Protocol = Protocol(),  # noqa: B008  (it is frozen)
) -> list[dict]:
    """AUSE and AURG of each pair that has ground truth, on |error| / depth: rows with `name`, `ause`, `aurg`.

    Both maps are (h, w), one per pair. `uncertainties` are disagreements |Δd| of disparities. As a share of the depth,
    such a disagreement is |Δd| / d, so pixels are sorted by |Δd| / d.
    """
    rows = []
    for pair, disparity, uncertainty in zip(pairs, disparities, uncertainties, strict=True):
        if pair.truth is None:
            continue
        truth, focal_baseline = torch.from_numpy(pair.ground_truth()), pair.calibration.focal_baseline
        maps = torch.stack([as_map(one) for one in (disparity, uncertainty)])
        answer, doubt = depth.resize_map(maps, truth.shape)
        predicted = depth.disparity_to_depth(answer, focal_baseline)
        pred, gt, _ = depth.valid_pixels(predicted, truth, protocol)
        sorted_by = depth.valid_pixels(doubt / answer.clamp(min=1e-6), truth, Protocol(protocol.cap, protocol.crop))[0]
        error = (pred.clamp(depth.MIN_DEPTH, protocol.cap) - gt).abs() / gt
        rows.append({"name": pair.name, "ause": ause(error, sorted_by), "aurg": aurg(error, sorted_by)})
    return rows


def error_maps(pair: kitti.Pair, disparity: np.ndarray | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and true depth in metres, and |p - t| / t, of a pair: (H, W), nan where unknown.

    Without ground truth, all true depths are unknown, and the maps have the size of the disparity.
    """
    answer = as_map(disparity)
    truth = truth_or(pair, torch.zeros(answer.shape))
    fraction = depth.resize_map(answer, truth.shape)
    predicted = depth.disparity_to_depth(fraction, pair.calibration.focal_baseline)
    predicted = predicted.clamp(depth.MIN_DEPTH, depth.MAX_DEPTH)
    truth = torch.where((truth > depth.MIN_DEPTH) & (truth < depth.MAX_DEPTH), truth, torch.nan)
    return predicted, truth, (predicted - truth).abs() / truth
