"""Notebook 03: the three terms that teach depth from two photographs.

Symbols of the paper (Godard et al., CVPR 2017, arXiv 1609.03677, section 3): I^l, I^r the views; d^l, d^r the
disparities as fractions of the width; C_ap, C_ds, C_lr the appearance, smoothness and left-right terms. Everything is
float32 (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def warp(image: Tensor, disparity: Tensor) -> Tensor:
    """Backward warp: for every x, the value of `image` at x + disparity·W; bilinear, the edge is repeated outside.

    image (N, C, H, W), disparity (N, 1, H, W) in fractions of the width. The left view is estimated from the right one
    by `warp(right, -d_l)`, the right one from the left by `warp(left, d_r)`.

    The grid is made of pixel centres (`align_corners=False`), so a zero disparity returns the image itself at every
    size. Code written before torch 1.3 does not set `align_corners`; with a newer torch it is off by up to half a
    pixel, most at the border. The paper's code samples zeros outside. Here the edge is repeated, because a black border
    pulls the disparity at the edge to zero.
    """
    _, _, height, width = image.shape
    # pixel centres in grid_sample's coordinates, where the image spans -1 to 1
    y = (torch.arange(height, device=image.device, dtype=image.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=image.device, dtype=image.dtype) * 2 + 1) / width - 1
    grid_x = x + 2 * disparity[:, 0]  # (N, H, W): a fraction of the width is twice that in a span of 2
    grid_y = y[:, None].expand_as(grid_x)
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def box_sum(x: Tensor) -> Tensor:
    """Sum over 3x3 windows: (N, C, H, W) -> (N, C, H - 2, W - 2)."""
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of two images over 3x3 box windows: (N, C, H - 2, W - 2), 1 where they are equal.

    SSIM = (2·μa·μb + C1)(2·σab + C2) / ((μa² + μb² + C1)(σa² + σb² + C2)), C1 = 0.01², C2 = 0.03²; μ, σ² and σab are
    means, variances and covariance over the window (Wang et al., 2004). Values lie in [-1, 1].
    """
    mean_a, mean_b = box_sum(a) / 9, box_sum(b) / 9
    variances = box_sum(a * a + b * b) / 9 - mean_a**2 - mean_b**2
    covariance = box_sum(a * b) / 9 - mean_a * mean_b
    means = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return means * (2 * covariance + 0.03**2) / (variances + 0.03**2)


def appearance_loss(image: Tensor, estimate: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """C_ap = α·mean((1 - SSIM)/2) + (1 - α)·mean|I - Ĩ|, α = 0.85: how much a view I differs from its rebuilt Ĩ."""
    dissimilarity = ((1 - ssim(image, estimate)) / 2).mean()
    residual = (image - estimate).abs().mean()
    return ssim_weight * dissimilarity + (1 - ssim_weight) * residual


def photometric_error(image: Tensor, estimate: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """The cost of `appearance_loss` at every pixel: (N, 1, H, W), mean over the channels.

    SSIM has no value at the outermost pixels, because its window does not fit there. The nearest value is repeated.
    """
    dissimilarity = F.pad((1 - ssim(image, estimate)) / 2, (1, 1, 1, 1), mode="replicate")
    return (ssim_weight * dissimilarity + (1 - ssim_weight) * (image - estimate).abs()).mean(1, keepdim=True)


def smoothness_loss(disparity: Tensor, image: Tensor) -> Tensor:
    """C_ds = mean(|∂x d|·exp(-|∂x I|)) + mean(|∂y d|·exp(-|∂y I|)): a step in d costs less at an edge of I.

    |∂I| is the mean over the channels. Both directions count; the authors' released code uses only x (a list bug).
    """
    image_dx = (image[..., :, 1:] - image[..., :, :-1]).abs().mean(1, keepdim=True)
    image_dy = (image[..., 1:, :] - image[..., :-1, :]).abs().mean(1, keepdim=True)
    disparity_dx = (disparity[..., :, 1:] - disparity[..., :, :-1]).abs()
    disparity_dy = (disparity[..., 1:, :] - disparity[..., :-1, :]).abs()
    return (disparity_dx * torch.exp(-image_dx)).mean() + (disparity_dy * torch.exp(-image_dy)).mean()


def consistency_loss(left: Tensor, right: Tensor) -> Tensor:
    """C_lr = mean|d^l(x) - d^r(x - d^l)| + mean|d^r(x) - d^l(x + d^r)|, maps (N, 1, H, W): they must agree.

    The paper prints d^r(x + d^l). By its own definition the match of a left pixel is at x - d^l, as in its code.
    """
    return (left - warp(right, -left)).abs().mean() + (right - warp(left, right)).abs().mean()


def pyramid(image: Tensor, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    """The image at each (height, width) of `sizes`; a new pixel is the mean of the area that it covers."""
    return [F.interpolate(image, tuple(size), mode="area") if size != image.shape[-2:] else image for size in sizes]


class MonodepthLoss(nn.Module):
    """C = Σ over scales s = 0..3 of C_ap + w_ds·C_ds/2^s + w_lr·C_lr, each term the sum over both views.

    `forward(disparities, left, right)` takes the network's list of (N, 2, h, w), full size first, and the views
    (N, 3, H, W) in [0, 1]. It returns the total, and a dict of its weighted parts (detached scalars that add up to it).
    The defaults are the paper's: α = 0.85, w_ds = 0.1, w_lr = 1.
    """

    def __init__(self, ssim_weight: float = 0.85, smoothness_weight: float = 0.1, consistency_weight: float = 1.0):
        super().__init__()
        self.appearance_loss = appearance_loss  # while training, `fast` puts its faster version here
        self.ssim_weight = ssim_weight
        self.smoothness_weight = smoothness_weight
        self.consistency_weight = consistency_weight

    def forward(self, disparities: list[Tensor], left: Tensor, right: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        sizes = [d.shape[-2:] for d in disparities]
        left, right = left.contiguous(), right.contiguous()  # sums over neighbours are faster in this order
        appearance = smoothness = consistency = torch.zeros((), device=left.device)
        for scale, (both, image_l, image_r) in enumerate(
            zip(disparities, pyramid(left, sizes), pyramid(right, sizes), strict=True)
        ):
            d_l, d_r = both.float().split(1, dim=1)  # float32 even when the network ran in half precision
            appearance = appearance + self.appearance_loss(image_l, warp(image_r, -d_l), self.ssim_weight)
            appearance = appearance + self.appearance_loss(image_r, warp(image_l, d_r), self.ssim_weight)
            smoothness = smoothness + (smoothness_loss(d_l, image_l) + smoothness_loss(d_r, image_r)) / 2**scale
            consistency = consistency + consistency_loss(d_l, d_r)
        smoothness = self.smoothness_weight * smoothness
        consistency = self.consistency_weight * consistency
        parts = {"appearance": appearance, "smoothness": smoothness, "consistency": consistency}
        return appearance + smoothness + consistency, {name: part.detach() for name, part in parts.items()}
