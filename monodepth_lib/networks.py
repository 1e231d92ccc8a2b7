"""Notebook 04: encoders, one decoder for all of them, and the models built from them.

Every model takes images (N, 3, H, W) in [0, 1] and returns four disparity maps (N, 2, h, w), full size first, then
1/2, 1/4 and 1/8. Channel 0 is the left view's disparity, channel 1 the right view's, as fractions of the width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_DISPARITY = 0.3
SMALLEST = 32  # px: encoders halve a picture five or six times, and the loss needs 3x3 windows at 1/8 of its size
TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NETWORKS = ("unet", "unet_light", "resnet18_md", "resnet50_md", *TORCHVISION)
DECODER_CHANNELS = {1: 16, 2: 32, 4: 64, 8: 128, 16: 256, 32: 512}  # level (the picture's size divided by it): channels


def conv_block(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ELU; stride 1 keeps the size, stride 2 halves it."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ELU(inplace=True),
    )


# --- encoders: a picture -> features, finest first ----------------------------------------------------------------
# `channels`: of each feature; `reductions`: how many times smaller than the picture it is.


class UnetEncoder(nn.Module):
    """Pairs of 3x3 convolutions with max pooling between them; w·(1, 2, 4, 8, 16, 16) channels at 1, 1/2, ..., 1/32.

    The fifth pooling is our addition. With four, a deep pixel sees about 140 px, less than the width of a near car.
    """

    reductions = (1, 2, 4, 8, 16, 32)

    def __init__(self, base_channels: int):
        super().__init__()
        self.channels = [base_channels * m for m in (1, 2, 4, 8, 16, 16)]
        before = [3, *self.channels[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(a, b), conv_block(b, b)) for a, b in zip(before, self.channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2, ceil_mode=True) if features else x)
            features.append(x)
        return features


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions, or the bottleneck 1x1, 3x3, 1x1 with four times the channels out.

    As in the authors' code, every shortcut is a 1x1 convolution, even where input and output have the same shape.
    With `identity`, such an input passes unchanged.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, bottleneck: bool = False, identity: bool = False):
        super().__init__()
        channels_out = channels * 4 if bottleneck else channels
        if bottleneck:
            body = [conv_block(channels_in, channels, 1), conv_block(channels, channels, 3, stride)]
            last = nn.Conv2d(channels, channels_out, 1, bias=False)
        else:
            body = [conv_block(channels_in, channels, 3, stride)]
            last = nn.Conv2d(channels, channels_out, 3, padding=1, bias=False)
        self.body = nn.Sequential(*body, last, nn.BatchNorm2d(channels_out))
        self.shortcut: nn.Module = nn.Identity()
        if not (identity and stride == 1 and channels_in == channels_out):
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.body(x) + self.shortcut(x), inplace=True)


class LightEncoder(nn.Module):
    """Residual blocks after a stem that halves the picture at once: features at 1/2 to 1/32.

    A convolution at full size costs four times as much as at half size. On a CPU, slightly finer edges of the disparity
    are not worth it. The decoder of this encoder ends at 1/2.
    """

    channels = (32, 64, 128, 224, 256)
    reductions = (2, 4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        first, last = self.channels[0], self.channels[-1]
        self.stem = nn.Sequential(conv_block(3, first, 5, 2), conv_block(first, first))
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(a, b, 2), Residual(b, b, 1, identity=True))
            for a, b in itertools.pairwise(self.channels)
        )
        self.stages[-1].append(Residual(last, last, 1, identity=True))  # type: ignore[operator]

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem((x - 0.5) * 4)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class ResnetMdEncoder(nn.Module):
    """A residual encoder like the paper's: 7x7 stem, pooling, four stages that each halve; features at 1/2 to 1/64.

    Two things differ from the authors' code, which strides in the last block of a stage and has no batch norm.
    """

    reductions = (2, 4, 8, 16, 32, 64)

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool):
        super().__init__()
        self.stem = conv_block(3, 64, 7, 2)
        stages, channels = [], 64
        self.channels = [64, 64]
        for planes, count in zip((64, 128, 256, 512), blocks, strict=True):
            stage = []
            for block in range(count):
                stage.append(Residual(channels, planes, 2 if block == 0 else 1, bottleneck))
                channels = planes * 4 if bottleneck else planes
            stages.append(nn.Sequential(*stage))
            self.channels.append(channels)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        features.append(F.max_pool2d(features[-1], 3, 2, 1))
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


# --- decoder ------------------------------------------------------------------------------------------------------


def resize_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of (N, C, H, W) to `size` (height, width), so that pictures of odd sizes work, too."""
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, tuple(size), mode="nearest")


class UpBlock(nn.Sequential):
    """Nearest-neighbour upsampling to `size`, then a `conv_block`: convolution, batch normalisation, ELU."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(*conv_block(channels_in, channels_out))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        return super().forward(resize_to(x, size))


class DisparityHead(nn.Module):
    """3x3 convolution to two channels, then 0.3·sigmoid: disparities in (0, 0.3) of the width.

    Its bias makes a fresh model predict `start` everywhere. A bias of zero would start at 0.15: everything 2 m away,
    and the photometric loss has no gradient from there to the truth (notebook 03). There is no batch normalisation,
    because the level of the disparity is the answer: it must be the same in training and in testing.
    """

    def __init__(self, channels: int, start: float, channels_out: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.constant_(self.conv.bias, math.log(start / (MAX_DISPARITY - start)))  # type: ignore[arg-type]

    def answer(self, x: Tensor) -> Tensor:
        """Features (N, C, h, w) -> disparities (N, 2, h, w)."""
        return MAX_DISPARITY * torch.sigmoid(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return self.answer(x)
        with torch.autocast(x.device.type, enabled=False):  # bf16 has only some 50 disparities from 0.02 to 0.04
            return self.answer(x.float())


class Decoder(nn.Module):
    """From the coarsest feature to full size: upsample, convolve, join the skip, convolve; heads at 1/8, 1/4, 1/2, 1.

    Each level also gets the upsampled disparity of the level before and refines it. A decoder without channels for full
    size ends at 1/2; its full-size disparity is the one at 1/2, interpolated.
    """

    def __init__(self, encoder: nn.Module, channels: dict[int, int], start: float):
        """`channels`: reduction of a level (2: half size) -> channels of this decoder; `start`: see `DisparityHead`."""
        super().__init__()
        self.encoder_reductions: tuple[int, ...] = encoder.reductions  # type: ignore[assignment]
        skips = dict(zip(encoder.reductions, encoder.channels, strict=True))  # type: ignore[arg-type]
        self.reductions = sorted((r for r in channels if r < max(skips)), reverse=True)  # coarsest first
        self.up, self.join, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = skips[max(skips)]
        for reduction in self.reductions:
            mine, disparity = channels[reduction], 2 if reduction < 8 else 0
            self.up.append(UpBlock(before, mine))
            self.join.append(conv_block(mine + skips.get(reduction, 0) + disparity, mine))
            if reduction <= 8:
                self.heads.append(DisparityHead(mine, start))
            before = mine

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Features of the encoder -> four disparities, full size first. `size` is the picture's (height, width)."""
        skips = dict(zip(self.encoder_reductions, features, strict=True))
        disparities: list[Tensor] = []
        x = features[-1]
        for reduction, up, join in zip(self.reductions, self.up, self.join, strict=True):
            skip = skips.get(reduction)
            target = size if skip is None else skip.shape[-2:]
            parts = [up(x, target)]
            if skip is not None:
                parts.append(skip)
            if disparities:
                parts.append(resize_to(disparities[0], target))
            x = join(torch.cat(parts, dim=1))
            if reduction <= 8:
                disparities.insert(0, self.heads[len(disparities)](x))
        if len(disparities) < 4:
            disparities.insert(0, F.interpolate(disparities[0], tuple(size), mode="bilinear", align_corners=False))
        return disparities


class Monodepth(nn.Module):
    """An encoder and the decoder. `config` holds the arguments with which `get_model` makes the same model again."""

    luma: Tensor

    def __init__(self, encoder: nn.Module, decoder: nn.Module, config: dict):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.grey: bool = config["grey"]
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)
        self.config = config
        self.size: tuple[int, int] | None = None  # (height, width) of training; set when weights are loaded
        self.notes: dict = {}  # saved with the weights, such as the drives of training

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.grey:  # a model trained on grey pictures gets colour pictures turned to grey (ITU-R 601)
            images = (images * self.luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        return self.decoder(self.encoder(images), images.shape[-2:])


def get_model(
    name: str = "unet",
    *,
    base_channels: int = 64,
    start_disparity: float = 0.03,
    imagenet: bool = False,
    grey: bool = False,
) -> Monodepth:
    """Makes a model by name: unet, unet_light, resnet18_md, resnet50_md, torchvision's resnet18, 34, 50, 101, 152, or
    any feature network of timm, such as efficientnet_lite0.

    `base_channels` (unet): channels at full size, 64 for the full KITTI run. `start_disparity`: what a fresh model
    predicts, as a fraction of the width in (0, 0.3), with timm's in (0.002, 0.3). `imagenet` (torchvision, timm):
    download ImageNet weights. `grey`: the input is turned to grey first. Raises ValueError for a wrong name or value,
    RuntimeError without the download.
    """
    from . import encoders, sharp  # other libraries' encoders and a decoder for them, not part of the lesson

    name = encoders.ALIASES.get(name, name)
    of_timm = name not in NETWORKS and encoders.is_timm(name)
    if name not in NETWORKS and not of_timm:
        raise ValueError(f"no network is named {name!r}; there are {', '.join(NETWORKS)}, and those of {encoders.TIMM}")
    least = sharp.LEAST if of_timm else 0
    if not least < start_disparity < MAX_DISPARITY:
        raise ValueError(f"start_disparity is {start_disparity}; it must lie between {least} and {MAX_DISPARITY}")
    if base_channels < 1:
        raise ValueError(f"base_channels is {base_channels}; it must be at least 1")
    if imagenet and name not in TORCHVISION and not of_timm:
        raise ValueError(f"imagenet=True works with {', '.join(TORCHVISION)} and those of timm, not with {name}")
    config = {"name": name, "start_disparity": start_disparity, "grey": grey}
    channels = DECODER_CHANNELS
    encoder: nn.Module
    if name == "unet":
        config["base_channels"] = base_channels
        encoder = UnetEncoder(base_channels)
        channels = dict(zip(encoder.reductions, encoder.channels, strict=True))
    elif name == "unet_light":
        encoder, channels = LightEncoder(), {2: 32, 4: 48, 8: 64, 16: 128}
    elif name == "resnet18_md":
        encoder = ResnetMdEncoder((2, 2, 2, 2), bottleneck=False)
    elif name == "resnet50_md":
        encoder = ResnetMdEncoder((3, 4, 6, 3), bottleneck=True)
    elif of_timm:
        encoder = encoders.TimmEncoder(name, imagenet)
        return Monodepth(encoder, sharp.SharpDecoder(encoder, start_disparity), config)
    else:
        encoder = encoders.TorchvisionEncoder(name, imagenet)
    return Monodepth(encoder, Decoder(encoder, channels, start_disparity), config)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
