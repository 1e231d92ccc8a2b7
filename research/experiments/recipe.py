"""A recipe is a list of switches; this module says what each of them does to the loss, the network and the batch.

The defaults are the library's method, so a switch that stays where it is changes nothing. Some exist only to show what
they cost (the lab's warp, batch normalisation in the head): they live here and not in the library.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monodepth_lib import losses
from monodepth_lib.depth import resize_map
from monodepth_lib.networks import SMALLEST, DisparityHead, Monodepth, get_model, load_model
from monodepth_lib.testing import semi_global_matching
from monodepth_lib.transforms import VIEWS

CHOICES = {"judged": ("own", "twice", "full"), "schedule": ("halve_twice", "cosine")}


@dataclass(frozen=True)
class Recipe:
    """Everything that tells one training from another, except the pictures, the time and the seed."""

    # the network
    network: str = "unet"  # a name of `networks.get_model`
    width: int = 16  # channels of unet
    size: tuple[int, int] = (128, 416)  # height, width of its pictures
    start: float = 0.03  # what the fresh network says everywhere, as a fraction of the width
    head_batch_norm: bool = False  # batch normalisation before the sigmoid, as the lab has it
    init: str = ""  # weights to begin from: a name in models/ or a .safetensors file; "": random ones
    # the warp
    zero_padding: bool = False  # beyond the border lies black, not the border's pixel
    unaligned: bool = False  # the lab's grid, which is half a pixel off at the border
    # the loss
    ssim_weight: float = 0.85  # 0: without SSIM; 1: without the L1 part
    smoothness_weight: float = 0.1
    consistency_weight: float = 1.0
    edge: float = 1.0  # smoothness ends at edges of the picture: exp(-edge·|∂I|)
    mean_normalised: bool = False  # smoothness of d / mean(d), which does not grow with nearness
    maps: tuple[int, ...] = (0, 1, 2, 3)  # which of the four scales are judged
    judged: str = "own"  # the size at which: a map's own, twice its size, or the full one
    mask_outside: bool = False  # leave out what the other view cannot show, beyond its border
    mask_occluded: bool = False  # leave out what, by the other view's map, lies behind something nearer
    stereo_hints: float = 0.0  # weight of |log d - log hint|, hints by a stereo matcher, where they explain more
    grey_loss: bool = False  # compare brightness alone: a third of the numbers
    # the batch
    batch_size: int = 8
    flip: bool = True  # half of the pairs mirrored, views swapped: mirrored right views as inputs
    colours: bool = True  # the paper's change of colours, the same in both views
    zoom: float = 1.0  # below 1: most pairs are a crop, down to this share of height and width, enlarged
    graft: float = 0.0  # probability of a batch whose lower part comes from another pair, in both views alike
    erase: float = 0.0  # probability of one to three grey boxes in what the network sees (not in the loss)
    disturb: float = 0.0  # probability of changed contrast in what the network sees; 1/2 of it noise, 1/3 blur
    draw_twice: str = ""  # drives whose name begins so are drawn twice as often
    also: str = ""  # a folder of further pairs in colour, such as rendered streets: a third of those drawn come from it
    small_until: float = 0.0  # for this share of the time the pictures have 3/4 of the size
    # the optimiser: AdamW, which without weight decay is Adam
    learning_rate: float = 5e-4
    schedule: str = "halve_twice"  # at 3/5 and 4/5 of the time, as in the paper; or cosine, down to 1/200
    warm_up: int = 0  # steps in which the learning rate grows from 0
    weight_decay: float = 0.0  # of kernels, not of biases and batch normalisation
    clip: float = 0.0  # largest norm of the gradient; 0: any
    ema: float = 0.0  # the answer is the running average of the weights with this decay; 0: the last weights

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if len(self.size) != 2 or min(self.size) < SMALLEST:
            raise ValueError(f"size is {self.size}; it must be height and width, both at least {SMALLEST}")
        if not 0 < self.zoom <= 1:
            raise ValueError(f"zoom is {self.zoom}; it must be above 0 and at most 1")
        if not self.maps or not set(self.maps) <= {0, 1, 2, 3}:
            raise ValueError(f"maps is {self.maps}; it must name some of the scales 0, 1, 2, 3")

    def switches(self) -> dict:
        """All of them, as a JSON file gives them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def stored_size(self) -> tuple[int, int]:
        """The size at which pictures are kept: half as large again when parts of them are enlarged."""
        height, width = self.size
        return self.size if self.zoom == 1 else (height * 3 // 2, width * 3 // 2)

    def size_at(self, share: float) -> tuple[int, int]:
        """The size of the pictures when this share of the training is over."""
        height, width = self.size
        if share >= self.small_until:
            return self.size
        return round(height * 3 / 4 / 32) * 32, math.ceil(width * 3 / 4 / 32) * 32


def changed(recipe: Recipe, changes: dict, row: str) -> Recipe:
    """`recipe` with some switches set otherwise. Raises ValueError naming the row and what is wrong in it."""
    known = asdict(Recipe())
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"row {row}: no switch is named {name!r}; there are {', '.join(known)}")
        kind = type(known[name])
        value = tuple(value) if isinstance(value, list) else value
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind or (isinstance(value, tuple) and any(type(number) is not int for number in value)):
            raise ValueError(f"row {row}: {name} is {value!r}; it must be of type {kind.__name__}")
        values[name] = value
    try:
        return replace(recipe, **values)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from error


def difference(recipe: Recipe, other: Recipe) -> str:
    """The switches in which `recipe` is not `other`, as in "zoom 0.65, flip off"."""
    mine, theirs = asdict(recipe), asdict(other)
    words = {True: "on", False: "off"}
    said = {name: words[value] if isinstance(value, bool) else value for name, value in mine.items()}
    return ", ".join(f"{name} {said[name]}" for name in mine if mine[name] != theirs[name])


# --- the network --------------------------------------------------------------------------------------------------


def make_model(recipe: Recipe, grey: bool, seed: int) -> Monodepth:
    """The network as training begins with it. Raises FileNotFoundError or ValueError for weights that do not fit."""
    torch.manual_seed(seed)
    model = get_model(recipe.network, base_channels=recipe.width, start_disparity=recipe.start, grey=grey)
    if recipe.init:
        try:
            model.load_state_dict(load_model(recipe.init).state_dict())
        except RuntimeError as error:
            raise ValueError(f"init {recipe.init} is not of {recipe.network}: {str(error)[:200]}") from error
    for head in heads(model) if recipe.head_batch_norm else []:
        norm = nn.BatchNorm2d(2)
        norm.load_state_dict({"bias": head.conv.bias}, strict=False)  # the level is now its own to give
        head.conv = nn.Sequential(head.conv, norm)  # type: ignore[assignment]
    return model


def without_head_batch_norm(model: Monodepth) -> Monodepth:
    """The same answers in eval mode from the library's network: the normalisation goes into the convolution."""
    for head in heads(model):
        if isinstance(head.conv, nn.Sequential):
            head.conv = torch.nn.utils.fuse_conv_bn_eval(*head.conv.eval())
    return model


def heads(model: nn.Module) -> list[DisparityHead]:
    return [module for module in model.modules() if isinstance(module, DisparityHead)]


# --- the loss -----------------------------------------------------------------------------------------------------


def warp(image: Tensor, disparity: Tensor, zero_padding: bool = False, unaligned: bool = False) -> Tensor:
    """`losses.warp`, or what the lab's base code has in its place.

    Its grid runs from -1 to 1, the picture's outer edges where it means the centres of the outermost pixels: what it
    takes for column x lies at x·W/(W-1) - 1/2, off by -1/2 px at the left, nothing in the middle and +1/2 px at the
    right; rows alike. `zero_padding`: samples beyond the border are black.
    """
    if not (zero_padding or unaligned):
        return losses.warp(image, disparity)
    height, width = image.shape[-2:]
    x, y = (torch.linspace(-1, 1, n) if unaligned else (torch.arange(n) * 2 + 1) / n - 1 for n in (width, height))
    grid_x = x.to(image) + 2 * disparity[:, 0]
    grid = torch.stack([grid_x, y.to(image)[:, None].expand_as(grid_x)], dim=-1)
    return F.grid_sample(image, grid, "bilinear", "zeros" if zero_padding else "border", align_corners=False)


class RecipeLoss(nn.Module):
    """`losses.MonodepthLoss` with the recipe's switches; with none of them set, its very values."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        if recipe.stereo_hints and not importlib.util.find_spec("cv2"):
            raise ValueError("stereo_hints needs OpenCV: pip install -e '.[sgm]'")

    def forward(self, disparities: list[Tensor], left: Tensor, right: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        r = self.recipe
        left, right = left.contiguous(), right.contiguous()  # as in the library
        hint_l, hint_r = stereo_hints(left, right) if r.stereo_hints else (None, None)
        if r.grey_loss:
            left, right = left.mean(1, keepdim=True), right.mean(1, keepdim=True)
        parts = {name: torch.zeros((), device=left.device) for name in ("appearance", "smoothness", "consistency")}
        if r.stereo_hints:
            parts["hints"] = torch.zeros((), device=left.device)
        for scale in r.maps:
            judged = {"own": scale, "twice": max(0, scale - 1), "full": 0}[r.judged]
            size = disparities[judged].shape[-2:]
            both = disparities[scale].float()
            d_l, d_r = (both if judged == scale else resize_map(both, size)).split(1, dim=1)
            image_l, image_r = losses.pyramid(left, [size])[0], losses.pyramid(right, [size])[0]
            other_l, other_r = self.warp(d_r, -d_l), self.warp(d_l, d_r)
            for image, other, d, there, hint, side in (
                (image_l, image_r, d_l, other_l, hint_l, -1),
                (image_r, image_l, d_r, other_r, hint_r, +1),
            ):
                estimate, seen = self.warp(other, side * d), self.seen(d, there, side)
                parts["appearance"] = parts["appearance"] + masked_appearance(image, estimate, seen, r.ssim_weight)
                if hint is not None:
                    parts["hints"] = parts["hints"] + r.stereo_hints * self.from_hint(hint, d, image, other, side)
            smooth = self.smoothness(d_l, image_l) + self.smoothness(d_r, image_r)
            parts["smoothness"] = parts["smoothness"] + r.smoothness_weight * smooth / 2**judged
            apart = (d_l - other_l).abs().mean() + (d_r - other_r).abs().mean()
            parts["consistency"] = parts["consistency"] + r.consistency_weight * apart
        total = torch.stack([*parts.values()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def warp(self, image: Tensor, disparity: Tensor) -> Tensor:
        return warp(image, disparity, self.recipe.zero_padding, self.recipe.unaligned)

    def from_hint(self, hint: Tensor, disparity: Tensor, image: Tensor, other: Tensor, side: int) -> Tensor:
        """How far `disparity` is from the hint, the mean over a view's pixels; 0 where the hint explains no more."""
        hint = F.interpolate(hint, disparity.shape[-2:], mode="nearest-exact")
        with torch.no_grad():
            by_hint, by_disparity = (
                losses.photometric_error(image, self.warp(other, side * d), self.recipe.ssim_weight)
                for d in (hint, disparity)
            )
            better = (by_hint < by_disparity) & (hint > 0)
        apart = (disparity.clamp(min=1e-4).log() - hint.clamp(min=1e-4).log()).abs()
        return (apart * better).mean()

    def smoothness(self, disparity: Tensor, image: Tensor) -> Tensor:
        if self.recipe.mean_normalised:
            disparity = disparity / disparity.mean((2, 3), keepdim=True).clamp(min=1e-4)
        return losses.smoothness_loss(disparity, self.recipe.edge * image)

    @torch.no_grad()
    def seen(self, disparity: Tensor, other: Tensor, side: int) -> Tensor | None:
        """Which pixels (N, 1, H, W) of a view have a partner that the other view shows; None: all of them count.

        `other` is the other view's disparity where this one's points to, at x + side·d. It shows something nearer
        there when `other` is larger, by more than a tenth of d and a hundredth of the width.
        """
        mask = None
        if self.recipe.mask_outside:
            x = (torch.arange(disparity.shape[-1], device=disparity.device) + 0.5) / disparity.shape[-1]
            place = x + side * disparity
            mask = (place > 0) & (place < 1)
        if self.recipe.mask_occluded:
            visible = other - disparity < 0.01 + 0.1 * disparity
            mask = visible if mask is None else mask & visible
        return None if mask is None else mask.float()


def masked_appearance(image: Tensor, estimate: Tensor, seen: Tensor | None, ssim_weight: float) -> Tensor:
    """`losses.appearance_loss`, or the mean of `losses.pixel_cost` over the pixels where `seen` (N, 1, H, W) is 1."""
    if seen is None:
        return losses.appearance_loss(image, estimate, ssim_weight)
    return (losses.photometric_error(image, estimate, ssim_weight) * seen).sum() / seen.sum().clamp(min=1)


def stereo_hints(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right disparities (N, 1, H, W) by a stereo matcher, fractions of the width, 0 where it has none.

    The matcher knows photographs alone, as the network does, but both of them (Depth Hints, Watson et al., 2019).
    """

    def match(views: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.stack([semi_global_matching(*pair) for pair in zip(views, others, strict=True)])[:, None]

    grey_l, grey_r = ((255 * view.mean(1)).round().byte().cpu().numpy() for view in (left, right))
    mirrored = (np.ascontiguousarray(view[..., ::-1]) for view in (grey_r, grey_l))  # in a mirror, right is left
    hints = match(grey_l, grey_r), match(*mirrored)[..., ::-1].copy()
    hint_l, hint_r = (torch.from_numpy(hint).to(left) / left.shape[-1] for hint in hints)
    return hint_l, hint_r


# --- the batch ------------------------------------------------------------------------------------------------------


def zoom_and_resize(batch: dict, size: tuple[int, int], zoom: float, rng: np.random.Generator) -> dict:
    """The batch at `size`; with `zoom` below 1, seven of ten pairs are cropped first, both views alike.

    A crop keeps its rows together and its proportions, so the pair stays rectified, and a thing that looks larger has
    a disparity that is larger by as much: what nearer things look like.
    """
    height, width = batch[VIEWS[0]].shape[-2:]
    if zoom == 1 and (height, width) == tuple(size):
        return batch
    result: dict = {view: [] for view in VIEWS}
    for place in range(len(batch[VIEWS[0]])):
        share = rng.uniform(zoom, 1) if zoom < 1 and rng.random() < 0.7 else 1.0
        rows, columns = round(height * share), round(width * share)
        top = round((height - rows) * float(np.clip(rng.normal(0.46, 0.2), 0, 1)))  # mostly the middle, some road
        start = int(rng.integers(0, width - columns + 1))
        for view in VIEWS:
            crop = batch[view][place : place + 1, :, top : top + rows, start : start + columns]
            result[view].append(F.interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False))
    return {**batch, **{view: torch.cat(crops) for view, crops in result.items()}}


def graft(batch: dict, probability: float, rng: np.random.Generator) -> dict:
    """With this probability, all pairs get the part below one row from another pair of the batch, in both views.

    A view's place in the picture then tells less about depth, so the network must look at what is there.
    """
    count, height = len(batch[VIEWS[0]]), batch[VIEWS[0]].shape[-2]
    if count < 2 or rng.random() >= probability:
        return batch
    row, shift = int(rng.integers(height // 5, height - height // 5)), int(rng.integers(1, count))
    joined = {v: torch.cat([batch[v][:, :, :row], batch[v].roll(shift, 0)[:, :, row:]], dim=2) for v in VIEWS}
    return {**batch, **joined}


def disturb(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """What the network sees in place of `images` (N, 3, H, W): other contrast, noise, blur, boxes (not the loss)."""
    images = images.clone()
    height, width = images.shape[-2:]
    for image in images:
        if rng.random() < recipe.disturb:
            mean = image.mean()
            image.sub_(mean).mul_(rng.uniform(0.6, 1.5)).add_(mean + rng.uniform(-0.15, 0.15)).clamp_(0, 1)
        if rng.random() < recipe.disturb / 2:
            noise = rng.standard_normal((1, height, width), dtype=np.float32) * np.float32(rng.uniform(0, 0.05))
            image.add_(torch.from_numpy(noise))
        if rng.random() < recipe.disturb / 3:
            image.copy_(F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0])
        for _ in range(int(rng.integers(1, 4)) if rng.random() < recipe.erase else 0):
            rows, columns = int(rng.integers(height // 12, height // 4)), int(rng.integers(width // 24, width // 8))
            top, start = int(rng.integers(0, height - rows)), int(rng.integers(0, width - columns))
            image[:, top : top + rows, start : start + columns] = image.mean()
    return images
