"""The library's loss with a recipe's switches, and a loss for the hints of semi-global matching."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monodepth_lib import losses
from monodepth_lib.depth import resize_map

from .hints import sample_hints
from .recipe import Recipe


def warp(image: Tensor, disparity: Tensor, zero_padding: bool = False, unaligned: bool = False) -> Tensor:
    """`losses.warp`, or with `unaligned` the warp of the lab's base code.

    The lab's grid runs from -1 to 1, which are the outer edges of the picture, not the centres of its outermost pixels.
    So column x is sampled at x·W/(W-1) - 1/2: off by -1/2 px at the left, 0 in the middle and +1/2 px at the right;
    rows alike. `zero_padding`: samples beyond the border are black.
    """
    if not (zero_padding or unaligned):
        return losses.warp(image, disparity)
    height, width = image.shape[-2:]
    x, y = (torch.linspace(-1, 1, n) if unaligned else (torch.arange(n) * 2 + 1) / n - 1 for n in (width, height))
    grid_x = x.to(image) + 2 * disparity[:, 0]
    grid = torch.stack([grid_x, y.to(image)[:, None].expand_as(grid_x)], dim=-1)
    return F.grid_sample(image, grid, "bilinear", "zeros" if zero_padding else "border", align_corners=False)


class RecipeLoss(losses.MonodepthLoss):
    """`losses.MonodepthLoss` with the recipe's switches; without any, exactly the same values.

    `forward(disparities, left, right, hints, share)`: `hints` (N, 2, H, W) are those of `hints.match_both`, `share` is
    the finished part of the training, 0 to 1.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe

    def forward(
        self, disparities: list[Tensor], left: Tensor, right: Tensor, hints: Tensor | None = None, share: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        r = self.recipe
        left, right = left.contiguous(), right.contiguous()  # sums over neighbours are faster in this order
        if r.grey_loss:
            left, right = left.mean(1, keepdim=True), right.mean(1, keepdim=True)
        appearance = smoothness = consistency = torch.zeros((), device=left.device)
        for scale in r.maps:
            judged = 0 if r.full_scale else scale
            size = disparities[judged].shape[-2:]
            both = disparities[scale].float()
            d_l, d_r = (both if judged == scale else resize_map(both, size)).split(1, dim=1)
            (image_l,), (image_r,) = losses.pyramid(left, [size]), losses.pyramid(right, [size])
            appearance = appearance + self.appearance_loss(image_l, self.warp(image_r, -d_l), r.ssim_weight)
            appearance = appearance + self.appearance_loss(image_r, self.warp(image_l, d_r), r.ssim_weight)
            smooth = self.smoothness(d_l, image_l) + self.smoothness(d_r, image_r)
            smoothness = smoothness + smooth / 2**judged
            if r.consistency_weight:
                apart = (d_l - self.warp(d_r, -d_l)).abs().mean() + (d_r - self.warp(d_l, d_r)).abs().mean()
                consistency = consistency + apart
        parts = {"appearance": r.appearance_weight * appearance, "smoothness": r.smoothness_weight * smoothness}
        parts["consistency"] = r.consistency_weight * consistency
        if hints is not None:
            parts["hints"] = (r.hints[0] + (r.hints[1] - r.hints[0]) * share) * self.from_hints(disparities, hints)
        total = torch.stack([*parts.values()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def warp(self, image: Tensor, disparity: Tensor) -> Tensor:
        return warp(image, disparity, self.recipe.zero_padding, self.recipe.unaligned)

    def smoothness(self, disparity: Tensor, image: Tensor) -> Tensor:
        if self.recipe.mean_normalised:
            disparity = disparity / disparity.mean((2, 3), keepdim=True).clamp(min=1e-4)
        return losses.smoothness_loss(disparity, self.recipe.edge * image)

    def from_hints(self, disparities: list[Tensor], hints: Tensor) -> Tensor:
        """Σ over the maps of mean |log d - log hint|, guesses count less, plus that of their steps (`steps`)."""
        r, total = self.recipe, torch.zeros((), device=hints.device)
        for scale, (both, weight) in enumerate(zip(disparities, r.hint_maps, strict=True)):
            both, hint = both.float().contiguous(), sample_hints(hints, both.shape[-2:])
            trust = (hint > 0).float() + r.hint_guess * (hint < 0).float()
            apart = both.clamp(min=1e-4).log() - hint.abs().clamp(min=1e-4).log()
            total = total + weight * (apart.abs() * trust).sum() / trust.sum().clamp(min=1)
            if scale < 2 and r.hint_steps:
                total = total + weight * r.hint_steps * steps(apart, (hint != 0).float())
        return total


def steps(apart: Tensor, known: Tensor) -> Tensor:
    """The difference between the steps of log d and of log hint over 1 and 4 pixels, in both directions.

    `apart` is log d - log hint; it changes from pixel to pixel where only one of them has a step (MegaDepth, Li and
    Snavely, 2018).
    """
    total = torch.zeros((), device=apart.device)
    for stride in (1, 4):
        for axis in (-2, -1):
            length = max(0, apart.shape[axis] - stride)
            change = apart.narrow(axis, stride, length) - apart.narrow(axis, 0, length)
            both = known.narrow(axis, stride, length) * known.narrow(axis, 0, length)
            total = total + (change.abs().clamp(max=1.5) * both).sum() / both.sum().clamp(min=1)
    return total / 2
