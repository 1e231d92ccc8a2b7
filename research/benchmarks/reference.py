"""The same method, written the plain way: what the library's speed and answers are measured against.

Nothing here is tuned, and nothing is imported from `monodepth_lib`: it stays what it is while the library changes.
Layers have the library's names: `load_state_dict` takes the weights of `networks.get_model` as they are. Symbols and
formulas are those of notebooks 03 and 04.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import hflip, to_tensor

# --- networks -----------------------------------------------------------------------------------------------------


def conv_block(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ELU(),
    )


class UnetEncoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.channels = [width * m for m in (1, 2, 4, 8, 16, 16)]
        self.stages = nn.ModuleList()
        before = 3
        for channels in self.channels:
            self.stages.append(nn.Sequential(conv_block(before, channels), conv_block(channels, channels)))
            before = channels

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stages[0](x)]
        for stage in self.stages[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2, ceil_mode=True)))
        return features


class Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.body = nn.Sequential(conv_block(channels_in, channels, 3, stride), *last)
        shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.body(x) + self.shortcut(x))


class Resnet18Encoder(nn.Module):
    channels = (64, 64, 64, 128, 256, 512)

    def __init__(self):
        super().__init__()
        self.stem = conv_block(3, 64, 7, 2)
        self.stages = nn.ModuleList()
        for before, channels in zip(self.channels[1:], self.channels[2:], strict=False):
            self.stages.append(nn.Sequential(Residual(before, channels, 2), Residual(channels, channels, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        features.append(F.max_pool2d(features[-1], 3, 2, 1))
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class Head(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return 0.3 * torch.sigmoid(self.conv(x))


def upsample(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, tuple(size), mode="nearest")


class Network(nn.Module):
    """unet or resnet18_md: pictures (N, 3, H, W) in [0, 1] -> four disparities (N, 2, h, w), full size first."""

    def __init__(self, name: str, width: int = 64):
        super().__init__()
        if name == "unet":
            self.encoder: nn.Module = UnetEncoder(base_channels)
            skips, widths = self.encoder.channels[:-1], self.encoder.channels[:-1]
        elif name == "resnet18_md":
            self.encoder = Resnet18Encoder()
            skips, widths = [0, *self.encoder.channels[:-1]], [16, 32, 64, 128, 256, 512]  # no skip at full size
        else:
            raise ValueError(f"the reference has no network {name!r}; it has unet and resnet18_md")
        self.decoder = Decoder(self.encoder.channels[-1], skips, widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.decoder(self.encoder(images), images.shape[-2:])


class Decoder(nn.Module):
    def __init__(self, channels: int, skips: list[int], widths: list[int]):
        super().__init__()
        self.up, self.join, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):  # level 0 is full size, level 1 half of it
            self.up.append(conv_block(channels, widths[level]))
            coarser = 2 if level < 3 else 0  # channels of the disparity one level below
            self.join.append(conv_block(widths[level] + skips[level] + coarser, widths[level]))
            if level < 4:
                self.heads.append(Head(widths[level]))
            channels = widths[level]

    def forward(self, features: list[Tensor], size: torch.Size) -> list[Tensor]:
        x = features.pop()
        disparities: list[Tensor] = []
        for level in reversed(range(len(self.up))):
            place = len(self.up) - 1 - level
            skip = [features.pop()] if features else []
            target = skip[0].shape[-2:] if skip else size
            x = self.up[place](upsample(x, target))
            coarser = [upsample(disparities[-1], target)] if disparities else []
            x = self.join[place](torch.cat([x, *skip, *coarser], dim=1))
            if level < 4:
                disparities.append(self.heads[3 - level](x))
        return disparities[::-1]


# --- loss ---------------------------------------------------------------------------------------------------------


def warp(image: Tensor, disparity: Tensor) -> Tensor:
    count, _, height, width = image.shape
    y = (torch.arange(height, dtype=image.dtype) + 0.5) / height
    x = (torch.arange(width, dtype=image.dtype) + 0.5) / width
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    grid_x = grid_x.repeat(count, 1, 1) + disparity[:, 0]
    grid_y = grid_y.repeat(count, 1, 1)
    grid = 2 * torch.stack((grid_x, grid_y), dim=3) - 1
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    c1, c2 = 0.01**2, 0.03**2
    mean = nn.AvgPool2d(3, 1)
    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a**2
    variance_b = mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))


def appearance(image: Tensor, estimate: Tensor) -> Tensor:
    dissimilarity = torch.clamp((1 - ssim(image, estimate)) / 2, 0, 1)
    return 0.85 * dissimilarity.mean() + 0.15 * (image - estimate).abs().mean()


def smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    total: Tensor | float = 0.0
    for axis in (2, 3):
        slope = disparity.diff(dim=axis).abs()
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (slope * torch.exp(-edge)).mean()
    return total  # type: ignore[return-value]


def monodepth_loss(disparities: list[Tensor], left: Tensor, right: Tensor) -> Tensor:
    total: Tensor | float = 0.0
    for scale, disparity in enumerate(disparities):
        size = disparity.shape[-2:]
        small_left = F.interpolate(left, tuple(size), mode="area")
        small_right = F.interpolate(right, tuple(size), mode="area")
        d_left, d_right = disparity[:, :1], disparity[:, 1:]
        total = total + appearance(small_left, warp(small_right, -d_left))
        total = total + appearance(small_right, warp(small_left, d_right))
        total = total + 0.1 * (smoothness(d_left, small_left) + smoothness(d_right, small_right)) / 2**scale
        total = total + (d_left - warp(d_right, -d_left)).abs().mean()
        total = total + (d_right - warp(d_left, d_right)).abs().mean()
    return total  # type: ignore[return-value]


def training_step(
    name: str, width: int, left: Tensor, right: Tensor, state: dict | None = None
) -> Callable[[], object]:
    """A function that makes one step of training: forward, loss, backward, Adam; what it returns is the network."""
    network = Network(name, width)
    if state:
        network.load_state_dict(state)
    network = network.to(left.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=False)
    network.train()

    def step() -> nn.Module:
        optimizer.zero_grad()
        loss = monodepth_loss(network(left), left, right)
        loss.backward()
        optimizer.step()
        loss.item()
        return network

    return step


# --- loading ------------------------------------------------------------------------------------------------------


class Pairs(Dataset):
    """The pairs of a drive in KITTI's layout, one sample at a time: resize, flip, change of colours."""

    def __init__(self, drive: Path, size: tuple[int, int], augment: bool):
        self.lefts, self.rights = (sorted((drive / camera / "data").iterdir()) for camera in ("image_02", "image_03"))
        self.size, self.augment = size, augment

    def __len__(self) -> int:
        return len(self.lefts)

    def __getitem__(self, index: int) -> dict:
        left, right = self.read(self.lefts[index]), self.read(self.rights[index])
        if self.augment and torch.rand(()) < 0.5:
            left, right = hflip(right), hflip(left)
        left, right = to_tensor(left), to_tensor(right)
        if self.augment and torch.rand(()) < 0.5:
            gamma, brightness = np.random.uniform(0.8, 1.2), np.random.uniform(0.5, 2.0)
            colours = torch.empty(3, 1, 1).uniform_(0.8, 1.2)
            left, right = ((image**gamma * brightness * colours).clamp(0, 1) for image in (left, right))
        return {"left_image": left, "right_image": right}

    def read(self, path: Path) -> Image.Image:
        height, width = self.size
        return Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def loader(drive: Path, size: tuple[int, int], batch_size: int, augment: bool) -> DataLoader:
    return DataLoader(Pairs(drive, size, augment), batch_size, shuffle=True)


# --- testing ------------------------------------------------------------------------------------------------------


def post_process(disparity: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Both (H, W), the second one mirrored back (paper, section 4.1)."""
    height, width = disparity.shape
    x, _ = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    left = 1 - np.clip(20 * (x - 0.05), 0, 1)
    right = np.fliplr(left)
    return right * disparity + left * mirrored + (1 - left - right) * (disparity + mirrored) / 2


@torch.no_grad()
def test_drive(network: nn.Module, drive: Path, size: tuple[int, int], output: Path) -> np.ndarray:
    """Predicts a drive's left views one by one, with their mirror images, and writes both arrays."""
    network.eval()
    plain, processed = [], []
    for path in sorted((drive / "image_02" / "data").iterdir()):
        picture = Image.open(path).convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
        image = to_tensor(picture)
        maps = network(torch.stack([image, image.flip(2)]))[0][:, 0].numpy()
        plain.append(maps[0])
        processed.append(post_process(maps[0], np.fliplr(maps[1])).astype(np.float32))
    np.save(output / "disparities.npy", np.array(plain))
    np.save(output / "disparities_pp.npy", np.array(processed))
    return np.array(processed)
