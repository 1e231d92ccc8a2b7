"""The same results, faster: optimised versions of the taught code, with the same parameter names.

`training.train` and `testing.predict_loader` use them unless `fast=False`. Tests show that each one equals the plain
code, and `python -m research.benchmarks` measures how much time it saves.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from . import losses
from .losses import MonodepthLoss, box_sum
from .networks import Monodepth, UpBlock


@contextlib.contextmanager
def faster_training(model: nn.Module, loss: nn.Module) -> Iterator[None]:
    """Inside this context, `model` and `loss` compute the same values and gradients (up to rounding), faster."""
    blocks = [module for module in model.modules() if type(module) is UpBlock]
    for block in blocks:
        block.__class__ = SummedUpBlock
    own = loss if isinstance(loss, MonodepthLoss) and loss.appearance_loss is losses.appearance_loss else None
    if own:
        own.appearance_loss = appearance_loss
    try:
        with kept_memory(), QuickDepthwise():
            yield
    finally:
        for block in blocks:
            block.__class__ = UpBlock
        if own:
            own.appearance_loss = losses.appearance_loss


def faster_prediction(model: Monodepth) -> Monodepth:
    """A faster copy of `model` in eval mode, with the same predictions (up to rounding); it cannot be trained.

    In eval mode batch normalisation is a fixed scale and shift, so it is folded into the convolution before it. The
    kernels of `SummedUpBlock` are summed once. Unchanged weights are shared with `model`, not copied.
    """
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    model = copy.deepcopy(model, shared).eval()  # type: ignore[arg-type]
    for module in [m for m in model.modules() if not isinstance(m, nn.BatchNorm2d)]:
        features = getattr(module, "return_layers", {})  # of timm: a child whose output is a feature stays as it is
        for (own, one), (name, next_one) in itertools.pairwise(list(module.named_children())):
            if own not in features and isinstance(one, nn.Conv2d) and isinstance(next_one, nn.BatchNorm2d):
                norm: Any = next_one
                one.weight, one.bias = fuse_conv_bn_weights(
                    one.weight, one.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(module, name, getattr(norm, "act", nn.Identity()))  # a norm of timm includes the activation
        if type(module) is UpBlock:
            module.__class__ = SummedUpBlock
            kernel = summed_kernel(module[0].weight).detach()  # type: ignore[arg-type]
            module.register_buffer("kernel", kernel.contiguous(memory_format=torch.channels_last), persistent=False)
    return model.requires_grad_(False)


# --- upsampling and convolution in one -------------------------------------------------------------------------------


class SummedUpBlock(UpBlock):
    """`UpBlock` without writing the upsampled features.

    After upsampling by 2, the four new pixels of an old one are equal, so a 3x3 window covers at most 2x2 different
    values. One transposed convolution with sums of the kernel's weights gives the same result with 4/9 of the
    multiplications. For other sizes, and for pictures too small to gain from it, the plain code runs.
    """

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        convolution, norm, activation = self
        height, width = x.shape[-2:]
        if tuple(size) != (2 * height, 2 * width) or x.shape[0] * height * width < 256:
            return super().forward(x, size)
        kernel = self.kernel if hasattr(self, "kernel") else summed_kernel(convolution.weight)  # type: ignore[arg-type]
        return activation(norm(F.conv_transpose2d(x, kernel, convolution.bias, stride=2, padding=1)))  # type: ignore[arg-type]


def summed_kernel(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) -> (in, out, 4, 4): the weights with which an old pixel enters the 4x4 new ones around it.

    Along one axis, the kernel is w1, w2, w3. An old pixel becomes two upsampled pixels, so it enters four new pixels in
    a row with the weights w3, w3 + w2, w2 + w1, w1.
    """
    w1, w2, w3 = weight.unbind(-2)
    rows = torch.stack([w3, w3 + w2, w2 + w1, w1], dim=-2)
    w1, w2, w3 = rows.unbind(-1)
    return torch.stack([w3, w3 + w2, w2 + w1, w1], dim=-1).transpose(0, 1)


# --- the appearance loss with its derivative written out --------------------------------------------------------------


def appearance_loss(image: Tensor, estimate: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """`losses.appearance_loss` with a hand-written derivative."""
    return Appearance.apply(image, estimate, ssim_weight)


class Appearance(torch.autograd.Function):
    """Computes value and derivative together: it keeps one map per view for the backward pass, autograd keeps 20."""

    @staticmethod
    def forward(ctx, image: Tensor, estimate: Tensor, ssim_weight: float) -> Tensor:
        by_image, by_estimate, _ = ctx.needs_input_grad
        similarity, *slopes = ssim_mean(image, estimate, by_image, by_estimate)
        difference = estimate - image
        weight = (1 - ssim_weight) / difference.numel()
        residual = difference.abs().mean()
        for slope, sign in zip(slopes, (-1, 1), strict=True):
            if slope is not None:
                slope.mul_(-ssim_weight / 2).add_(difference.sign(), alpha=sign * weight)
        ctx.save_for_backward(*slopes)
        return ssim_weight * (1 - similarity) / 2 + (1 - ssim_weight) * residual

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        by_image, by_estimate = (slope if slope is None else slope * gradient for slope in ctx.saved_tensors)
        return by_image, by_estimate, None


def box_spread(x: Tensor) -> Tensor:
    """The derivative of `box_sum`, (N, C, H - 2, W - 2) -> (N, C, H, W): a pixel gets the sum over its windows."""
    return box_sum(F.pad(x, (2, 2, 2, 2)))


def ssim_mean(a: Tensor, b: Tensor, by_a: bool, by_b: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The mean of `losses.ssim(a, b)`, and its derivative by `a` and by `b` where asked for.

    With sums Σ over nine pixels instead of means (numerator and denominator both grow by 81²),
        A1 = 2·Σa·Σb + 81·C1,  A2 = 18·Σab - 2·Σa·Σb + 81·C2,
        B1 = (Σa)² + (Σb)² + 81·C1,  B2 = 9·(Σa² + Σb²) - (Σa)² - (Σb)² + 81·C2,  SSIM = A1·A2 / (B1·B2).
    """
    c1, c2 = 81 * 0.01**2, 81 * 0.03**2
    sum_a, sum_b = box_sum(a), box_sum(b)
    product, squares = sum_a * sum_b, sum_a.square().add_(sum_b.square())
    a2 = box_sum(a * b).mul_(18).sub_(product, alpha=2).add_(c2)
    b2 = box_sum((a * a).add_(b * b)).mul_(9).sub_(squares).add_(c2)
    a1, b1 = product.mul_(2).add_(c1), squares.add_(c1)
    if not (by_a or by_b):
        return a1.mul_(a2).div_(b1).div_(b2).mean(), None, None
    below = (b1 * b2).reciprocal_()
    by_a2, by_a1 = a1.mul_(below), below.mul_(a2)
    similarity = a2.mul_(by_a2)
    by_b2 = torch.div(similarity, b2, out=b2)  # without its minus sign, like the part of B1: see below
    by_squares = torch.sub(by_b2, torch.div(similarity, b1, out=b1), out=b1)  # the squares are in B1 and B2,
    by_product = by_a1.sub_(by_a2)  # Σa·Σb in A1 and A2
    spread_a2, spread_b2 = box_spread(by_a2).mul_(18), box_spread(by_b2).mul_(18)
    share = 1 / similarity.numel()

    def slope(mine: Tensor, other: Tensor, sum_mine: Tensor, sum_other: Tensor) -> Tensor:
        by_sum = (by_product * sum_other).addcmul_(by_squares, sum_mine).mul_(2)
        return box_spread(by_sum).addcmul_(spread_a2, other).addcmul_(spread_b2, mine, value=-1).mul_(share)

    return (
        similarity.mean(),
        slope(a, b, sum_a, sum_b) if by_a else None,
        slope(b, a, sum_b, sum_a) if by_b else None,
    )


# --- depthwise convolutions in bfloat16 -------------------------------------------------------------------------------


class QuickDepthwise(TorchFunctionMode):
    """Inside this context, a CPU's depthwise convolutions in bfloat16 get the derivative of `Depthwise`.

    timm's networks are made of them. torch's own derivative is quick for 3x3 kernels of stride 1 and, for the others,
    several times slower than in float32.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.conv2d or len(args) != 7 or not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        x, weight, bias, stride, padding, dilation, groups = args
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        depthwise = groups == x.shape[1] == len(weight) and bias is None and set(dilation) == {1}
        odd = weight.shape[-2:] in ((3, 3), (5, 5), (7, 7)) and stride[0] == stride[1] and padding[0] == padding[1]
        slow = weight.shape[-1] > 3 or stride[0] > 1
        if not (kind == torch.bfloat16 and x.device.type == "cpu" and depthwise and odd and slow):
            return func(*args)
        return Depthwise.apply(x.to(kind), weight.to(kind), stride[0], padding[0])


class Depthwise(torch.autograd.Function):
    """A depthwise convolution whose derivatives are made of convolutions that torch has quick code for.

    By the input: a convolution of the gradient, its pixels `stride` apart, with the mirrored kernel. By the kernel: one
    of 5x5 is put together from windows of 3x3, each the derivative for a part of the input.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (x, weight), stride, padding = ctx.saved_tensors, ctx.stride, ctx.padding
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        count, side = len(weight), weight.shape[-1]
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:
            apart = [length + 2 * padding - side + 1 for length in x.shape[-2:]]
            spread = gradient.new_zeros(*x.shape[:2], *apart).contiguous(memory_format=torch.channels_last)
            spread[..., ::stride, ::stride] = gradient
            by_x = F.conv2d(spread, weight.flip(2, 3), None, 1, side - 1 - padding, 1, count)
        if ctx.needs_input_grad[1]:
            padded, by_weight = F.pad(x, [padding] * 4), torch.empty_like(weight)
            height, width = (stride * (length - 1) + 3 for length in gradient.shape[-2:])
            for top in range(0, side - 2, 2):
                for left in range(0, side - 2, 2):
                    part = padded[..., top : top + height, left : left + width]
                    part = part.contiguous(memory_format=torch.channels_last)
                    found = conv2d_weight(part, [count, 1, 3, 3], gradient, stride, groups=count)
                    by_weight[..., top : top + 3, left : left + 3] = found
        return by_x, by_weight, None, None


# --- memory that is kept between the steps--------------------------------------------------------------------------

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # parameters of glibc's `mallopt`, see malloc.h
DEFAULTS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}  # as after freeing a block of 32 MB


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Inside this context, the process keeps the memory of freed tensors; afterwards it returns it to the system.

    glibc asks the system for every block above 32 MB and returns it when it is freed; the system clears each page at
    its first use. Training at 256x512 makes many such tensors in every step. Without glibc this does nothing.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for name, value in DEFAULTS.items():
            libc.mallopt(name, value)
        libc.malloc_trim(0)
