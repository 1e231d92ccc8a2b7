"""Notebook 01: from drives on disk to batches on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from . import kitti
from .transforms import image_transforms


def read_picture(path: str | Path) -> Image.Image:
    """A picture as an 8-bit RGB Pillow image; grey is repeated, 16 bits are scaled down, transparency is dropped.

    Raises ValueError naming a file that is cut short or is no picture.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}): fetch it again or remove the pair") from error


def row_search(
    left: Tensor, right: Tensor, down: int = 0, furthest: int = 48, window: int = 7
) -> tuple[Tensor, Tensor]:
    """Looks for every pixel of `left` along one row of `right`: (least cost, its shift in px), both (H, W).

    left, right: (C, H, W). The cost at a shift s is the mean |left(y, x) - right(y + down, x - s)| over channels and a
    square window; s = 0..`furthest`. In a rectified pair the mean cost is least at `down` = 0: if it is least
    elsewhere, or at different `down` in different parts of the picture, the cameras are not aligned row by row.
    """
    height, width = left.shape[-2:]
    rows = (torch.arange(height) + down).clamp(0, height - 1)  # beyond the border, its edge
    padded = F.pad(right[:, rows], (furthest, 0), mode="replicate")
    moved = padded.unfold(-1, width, 1)  # (C, H, furthest + 1, W): at place k the right view moved by furthest - k
    difference = (left[:, :, None] - moved).abs().mean(0).transpose(0, 1)  # (furthest + 1, H, W)
    cost = F.avg_pool2d(difference, window, 1, window // 2, count_include_pad=False)
    least, place = cost.min(dim=0)
    return least, (furthest - place).float()


class StereoDrives(Dataset):
    """Pairs of drives as samples: a dict of `left_image`, `right_image` and `name` ("drive/frame").

    The random choices of a sample depend on `seed`, `epoch` and the sample's index alone: not on the number of workers,
    nor on what was drawn before, so a resumed run repeats them. Raises ValueError naming a pair of unequal size.
    """

    def __init__(self, pairs: list[kitti.Pair], transform=None, seed: int = 0):
        self.pairs, self.transform, self.seed, self.epoch = pairs, transform, seed, 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        pair = self.pairs[index]
        left, right = read_picture(pair.left), read_picture(pair.right)
        if left.size != right.size:
            raise ValueError(f"{pair.left} is {left.size} px, {pair.right} is {right.size}: views must be of one size")
        sample = {"left_image": left, "right_image": right, "name": pair.name}
        if self.transform is None:
            return sample
        with torch.random.fork_rng(devices=[]):
            # an integer of its own for every (seed, epoch, index)
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0]))
            return self.transform(sample)


def prepare_dataloader(
    data_dir: str | Path,
    mode: str,
    drives: str | list[str] | None = None,
    *,
    cameras: str = "colour",
    size: tuple[int, int] = (128, 416),
    batch_size: int = 8,
    augment: bool = True,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Batches of the drives of one side, shuffled and augmented for "train", in order for "val" and "test".

    Images are float32 (N, 3, height, width) in [0, 1]. In training the last, smaller batch is left out. `drives` and
    what is raised for missing ones: `kitti.select_drives`. With several processes, `rank` of `world_size` draws its
    share. Raises ValueError when a training set is smaller than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    folders = kitti.select_drives(kitti.project_path(data_dir), mode, drives)
    pairs = [pair for folder in folders.values() for pair in kitti.find_pairs(folder, cameras)]
    train = mode == "train"
    if train and len(pairs) < batch_size * world_size:
        raise ValueError(f"{data_dir} has {len(pairs)} training pairs, fewer than one batch of {batch_size}")
    dataset = StereoDrives(pairs, image_transforms(mode, size, augment), seed)
    share: DistributedSampler = DistributedSampler(dataset, world_size, rank, train, seed, drop_last=train)
    return DataLoader(
        dataset,
        batch_size,
        sampler=share if train or world_size > 1 else None,
        num_workers=workers,
        drop_last=train,
        pin_memory=torch.cuda.is_available(),
    )


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Gives a training loader the order and the augmentation of `epoch` (0, 1, ...)."""
    loader.dataset.epoch = epoch  # type: ignore[attr-defined]
    if isinstance(loader.sampler, DistributedSampler):
        loader.sampler.set_epoch(epoch)


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU when torch sees one, else the CPU; any other name is torch's own ("cpu", "cuda", "cuda:1")."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch sees no GPU here: use device='auto' or 'cpu'")
    return torch.device(device)


def to_device(batch: dict, device: str | torch.device = "auto") -> dict:
    """Moves a batch's images to `device` in channels-last order, the one convolutions are fastest in; keeps names."""
    target = pick_device(device) if isinstance(device, str) else device
    return {
        key: value.to(target, non_blocking=True, memory_format=torch.channels_last)
        if isinstance(value, torch.Tensor) and value.ndim == 4
        else value
        for key, value in batch.items()
    }
