"""Notebook 02: what happens to a pair between the disk and the network.

Each transform takes and returns a sample, a dict with `left_image` and `right_image` (for prediction, `left_image` may
be alone). `ResizeImage` and `RandomFlip` work on Pillow images, `AugmentImagePair` on tensors, so the order is
resize, flip, to tensor, augment. The input is not modified. Random choices come from torch's generator: after
`torch.manual_seed` they repeat.
"""

from __future__ import annotations

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.functional import to_tensor

VIEWS = ("left_image", "right_image")


class ResizeImage:
    """Resizes both views to `size` = (height, width); bilinear, averaged over the area that a new pixel covers.

    Disparity as a fraction of the width stays the same; disparity in pixels scales with the width.
    """

    def __init__(self, size: tuple[int, int]):
        if min(size) < 1:
            raise ValueError(f"size is {size}; it must be (height, width), both at least 1")
        self.size = tuple(size)

    def __call__(self, sample: dict) -> dict:
        height, width = self.size
        resized = {v: sample[v].resize((width, height), Image.Resampling.BILINEAR) for v in VIEWS if v in sample}
        return {**sample, **resized}


class RandomFlip:
    """With probability `p` mirrors both views and swaps them.

    The mirror image of a right view is a valid left view of a mirrored world. Without the swap, objects would move in
    the wrong direction between the views, and every disparity would be negative.
    """

    def __init__(self, p: float = 0.5):
        self.p = p

    def draw(self) -> bool:
        """Whether the next sample is flipped."""
        return bool(torch.rand(()) < self.p)

    def __call__(self, sample: dict) -> dict:
        if not self.draw():
            return sample
        left, right = (ImageOps.mirror(sample[view]) for view in VIEWS)
        return {**sample, "left_image": right, "right_image": left}


class ToTensor:
    """Turns both views into float32 tensors (3, H, W) in [0, 1]; grey is repeated in all three channels."""

    def __call__(self, sample: dict) -> dict:
        return {**sample, **{view: to_tensor(sample[view].convert("RGB")) for view in VIEWS if view in sample}}


def change_colours(image: Tensor, gamma: float | Tensor, brightness: float | Tensor, colour: Tensor) -> Tensor:
    """I' = min(1, b·c·I^γ): gamma, then a brightness b and a factor c for each channel, clipped to [0, 1].

    image (..., 3, H, W) in [0, 1], colour (3,) or (3, 1, 1). The input image is not modified.
    """
    return (image**gamma * (brightness * colour.reshape(3, 1, 1))).clamp(0, 1)


class AugmentImagePair:
    """With probability `p` changes gamma, brightness and colour, by the same random amounts in both views.

    The loss compares the views' pixels, so a change in one view alone would look like a wrong disparity. Ranges are the
    paper's: gamma in (0.8, 1.2), brightness in (0.5, 2.0), each colour channel in (0.8, 1.2); clipped to [0, 1].
    """

    def __init__(self, p: float = 0.5, gamma=(0.8, 1.2), brightness=(0.5, 2.0), colour=(0.8, 1.2)):
        self.p, self.gamma, self.brightness, self.colour = p, gamma, brightness, colour

    def draw(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The (gamma, brightness, colour) of the next sample, or None if the sample stays unchanged."""
        if torch.rand(()) >= self.p:
            return None
        gamma = torch.empty(()).uniform_(*self.gamma)
        brightness = torch.empty(()).uniform_(*self.brightness)
        return gamma, brightness, torch.empty(3).uniform_(*self.colour)

    def __call__(self, sample: dict) -> dict:
        change = self.draw()
        if change is None:
            return sample
        return {**sample, **{view: change_colours(sample[view], *change) for view in VIEWS}}


def image_transforms(mode: str, size: tuple[int, int] = (128, 416), augment: bool = True) -> Compose:
    """The transforms of `mode` "train", "val" or "test": resize and to-tensor; in "train" also flip and colours."""
    if mode not in ("train", "val", "test"):
        raise ValueError(f"mode is {mode!r}; it must be 'train', 'val' or 'test'")
    if mode == "train" and augment:
        return Compose([ResizeImage(size), RandomFlip(), ToTensor(), AugmentImagePair()])
    return Compose([ResizeImage(size), ToTensor()])
