"""Notebook 04, behind it: the decoder of timm's networks, whose maps have outlines.

A decoder that answers with one number per pixel draws an outline as a slope. Here each pixel chooses among levels of
disparity, and the full-size map is put together from its neighbours at 1/4, with weights that follow the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import MAX_DISPARITY, DisparityHead, UpBlock, conv_block, resize_to

LEVELS, LEAST = 32, 0.002  # disparities to choose among, from LEAST to MAX_DISPARITY of the width
CHANNELS = {16: 128, 8: 96, 4: 64}  # reduction (the picture's size divided by a level's): channels of that level
STEP = 4  # the finest level that is computed; the last map is STEP times as large


class LevelHead(DisparityHead):
    """3x3 convolution, then softmax over `LEVELS` disparities per view; the answer is their mean on a log scale.

    A discrete disparity volume: two neighbouring pixels can choose distant levels, so an outline stays sharp (FAL-net,
    Gonzalez Bello and Kim, 2020). The levels lie evenly in log d, because an error of 5 % matters as much near as far.
    Its bias makes a fresh model say `start` everywhere: it favours near or far levels as much as that takes.
    """

    levels: Tensor

    def __init__(self, channels: int, start: float):
        super().__init__(channels, start, 2 * LEVELS)
        self.register_buffer("levels", torch.linspace(math.log(LEAST), math.log(MAX_DISPARITY), LEVELS), False)
        low, high = -100.0, 100.0  # the slope of the bias over the levels, by bisection
        for _ in range(50):
            slope = (low + high) / 2
            nearer = (torch.softmax(slope * self.levels, 0) @ self.levels).exp() > start
            low, high = (low, slope) if nearer else (slope, high)
        with torch.no_grad():
            self.conv.bias.copy_((slope * self.levels).repeat(2))  # type: ignore[union-attr]

    def answer(self, x: Tensor) -> Tensor:
        """Features (N, C, h, w) -> disparities (N, 2, h, w)."""
        return softmax_mean(self.conv(x).unflatten(1, (2, LEVELS)), self.levels[:, None, None]).exp()


def softmax_mean(logits: Tensor, values: Tensor) -> Tensor:
    """The mean of `values` over axis 2 with the weights softmax(`logits`).

    The softmax is written out: ONNX Runtime is slow at one over a middle axis.
    """
    weights = (logits - logits.detach().amax(2, keepdim=True)).exp()
    return (weights * values).sum(2) / weights.sum(2)


def enlarge(disparity: Tensor, weights: Tensor) -> Tensor:
    """Disparities (N, 2, h, w) at `STEP` times the size: every new pixel is a weighted mean of 3x3 old ones.

    `weights` (N, 2·9·STEP², h, w) become shares by a softmax over the nine, so no pixel leaves the range of its
    neighbours (convex upsampling; RAFT, Teed and Deng, 2020).
    """
    height, width = disparity.shape[-2:]
    padded = F.pad(disparity, (1, 1, 1, 1), mode="replicate")
    near = torch.stack([padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)], dim=2)
    found = softmax_mean(weights.unflatten(1, (2, 9, STEP * STEP)), near.unsqueeze(3))
    return F.pixel_shuffle(found.flatten(1, 2), STEP)


class SharpDecoder(nn.Module):
    """From the coarsest feature to 1/4 as in `networks.Decoder`, then `enlarge` to full size.

    Full size costs no convolution: the finer features, the picture's brightness among them, are folded into the level
    at 1/4 (4x4 pixels become 16 channels) and decide the weights of `enlarge`. The four disparities are the full-size
    one, its mean over 2x2 pixels, and the answers at 1/4 and 1/8.
    """

    def __init__(self, encoder: nn.Module, start: float):
        """`encoder` has `channels` and `reductions` of its features; `start`: see `networks.DisparityHead`."""
        super().__init__()
        self.encoder_reductions: tuple[int, ...] = encoder.reductions  # type: ignore[assignment]
        skips = dict(zip(encoder.reductions, encoder.channels, strict=True))  # type: ignore[arg-type]
        self.reductions = [reduction for reduction in CHANNELS if reduction < max(skips)]  # coarsest first
        self.fine = [reduction for reduction in skips if reduction < STEP]
        self.detail = conv_block(sum(skips[r] * (STEP // r) ** 2 for r in self.fine), 32)
        self.up, self.join, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = skips[max(skips)]
        for reduction in self.reductions:
            mine = CHANNELS[reduction]
            further = 2 + 32 if reduction == STEP else 0  # the disparity of 1/8, and the detail
            self.up.append(UpBlock(before, mine))
            self.join.append(conv_block(mine + skips.get(reduction, 0) + further, mine))
            if reduction <= 8:
                self.heads.append(LevelHead(mine, start))
            before = mine
        self.last = conv_block(before, before)
        self.weights = nn.Sequential(conv_block(before, 64), nn.Conv2d(64, 2 * 9 * STEP * STEP, 1))

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Features of the encoder -> four disparities, full size first. `size` is the picture's (height, width)."""
        skips = dict(zip(self.encoder_reductions, features, strict=True))
        sizes = {reduction: [math.ceil(length / reduction) for length in size] for reduction in self.reductions}
        x = features[-1]
        coarse: list[Tensor] = []
        for reduction, up, join in zip(self.reductions, self.up, self.join, strict=True):
            parts = [up(x, sizes[reduction])]
            if reduction in skips:
                parts.append(resize_to(skips[reduction], sizes[reduction]))
            if reduction == STEP:
                folded = [fold(skips[fine], STEP // fine, sizes[STEP]) for fine in self.fine]
                parts += [self.detail(torch.cat(folded, dim=1)), resize_to(coarse[0], sizes[STEP])]
            x = join(torch.cat(parts, dim=1))
            if reduction == 8:
                coarse = [self.heads[0](x)]
        x = self.last(x)
        quarter = self.heads[1](x)
        full = enlarge(quarter, self.weights(x).to(quarter.dtype))[..., : size[0], : size[1]]
        return [full, F.avg_pool2d(full, 2, ceil_mode=True), quarter, *coarse]


def fold(feature: Tensor, times: int, size: Sequence[int]) -> Tensor:
    """A feature whose `times` x `times` pixels become channels: (N, C, H, W) -> (N, C·times², *size)."""
    height, width = (times * length for length in size)
    missing = width - feature.shape[-1], height - feature.shape[-2]
    if any(missing):  # of pictures whose sides 4 does not divide
        feature = F.pad(feature, (0, missing[0], 0, missing[1]), mode="replicate")
    return F.pixel_unshuffle(feature, times)
