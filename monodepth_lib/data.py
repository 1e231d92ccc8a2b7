"""Notebook 01: from drives on disk to batches on the device."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from . import kitti
from .transforms import VIEWS, AugmentImagePair, RandomFlip, ResizeImage, change_colours, image_transforms

PICTURE_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}  # the last bytes of a whole file
SMALLEST_SIDE = 8  # px; there is nothing in a smaller view to find again in the other one


def read_picture(path: str | Path) -> Image.Image:
    """A picture as an 8-bit RGB Pillow image; grey is repeated, 16 bits are scaled down, transparency is dropped.

    Raises ValueError naming a file that is cut short, is no picture, may not be read or is huge.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        remedy = "fetch it again"
        if isinstance(error, PermissionError):
            remedy = "give yourself the right to it"
        elif isinstance(error, Image.DecompressionBombError):
            remedy = "make it smaller"
        raise ValueError(f"{path} cannot be read as a picture ({error}): {remedy} or remove it") from error


def picture_size(path: Path, whole: bool = False) -> tuple[int, int]:
    """(width, height) of a picture that is there to its end, from its first and last bytes.

    It is decoded only where these leave a doubt, or if `whole`. Raises ValueError as `read_picture` does.
    """
    if not whole:
        with contextlib.suppress(Exception), open(path, "rb") as file, Image.open(file) as image:
            file.seek(-8, os.SEEK_END)
            if file.read().endswith(PICTURE_ENDS[image.format or ""]):
                return image.size
    return read_picture(path).size


def check_pictures(pairs: list[kitti.Pair], workers: int = 8, whole: bool = False) -> dict[kitti.Pair, str]:
    """Looks at both pictures of every pair; those that cannot be used, each with what is wrong and the remedy.

    That is: a file that is empty, cut short, no picture or not to be read, views of unequal or next to no size. Seconds
    for the lab's 11,282 pairs: only the ends of a file are read. With `whole` every picture is decoded, which finds
    damage in the middle, too, and takes as long as an epoch's reading. `workers` are threads.
    """

    def fault(pair: kitti.Pair) -> str:
        try:
            left, right = picture_size(pair.left, whole), picture_size(pair.right, whole)
            check_equal_size(pair, left, right)
        except ValueError as error:
            return str(error)
        if min(left) < SMALLEST_SIDE:
            return f"{pair.left} is {left[0]}x{left[1]} px, too small to see anything in: fetch it again or remove it"
        return ""

    with ThreadPoolExecutor(workers) as pool:
        return {pair: said for pair, said in zip(pairs, pool.map(fault, pairs), strict=True) if said}


def check_equal_size(pair: kitti.Pair, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Raises ValueError naming both pictures when their sizes (width, height) differ."""
    if left != right:
        sizes = f"{pair.left} is {left[0]}x{left[1]} px, {pair.right} is {right[0]}x{right[1]} px"
        raise ValueError(f"{sizes}: both views of a pair must have one size; fetch them again or remove both")


def checked_pairs(
    data_dir: str | Path,
    mode: str,
    drives: str | list[str] | None = None,
    cameras: str = "colour",
    truth: str = "auto",
    bad_pairs: str = "refuse",
) -> list[kitti.Pair]:
    """The pairs of `kitti.select_pairs`, every one of them looked at before the first is used.

    A pair that `check_pictures` finds fault with, or that lacks a view, is an error with "refuse"; with "skip" it is
    left out and counted in a warning. Raises ValueError for another word, and when no pair is left.
    """
    if bad_pairs not in ("refuse", "skip"):
        raise ValueError(f"bad_pairs is {bad_pairs!r}; it must be 'refuse' or 'skip'")
    alone: list[str] | None = [] if bad_pairs == "skip" else None
    pairs = kitti.select_pairs(kitti.project_path(data_dir), mode, drives, cameras, truth, alone)
    bad = check_pictures(pairs)
    faults = [*(alone or []), *bad.values()]
    if not faults:
        return pairs
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if bad_pairs == "refuse":
        raise ValueError(f"{faults[0]}{more}, or leave bad pairs out with bad_pairs='skip'")
    good = [pair for pair in pairs if pair not in bad]
    if not good:
        raise ValueError(f"{data_dir} has no good pair for {mode!r}: {faults[0]}{more}")
    warnings.warn(f"{len(faults)} of {len(good) + len(faults)} pairs are left out: {faults[0]}{more}", stacklevel=3)
    return good


def match_blocks(
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


class StereoPairs(Dataset):
    """Pairs of drives as samples: a dict of `left_image`, `right_image` and `name` ("drive/frame").

    The random choices of a sample depend on `seed`, `epoch` and the sample's index alone: not on the number of workers,
    nor on what was drawn before, so a resumed run repeats them. Raises ValueError naming a pair of unequal size.
    """

    def __init__(self, pairs: list[kitti.Pair], transform=None, seed: int = 0):
        self.pairs, self.transform, self.seed, self.epoch = pairs, transform, seed, 0
        self.left_alone = False  # prediction needs no right view, and reading it would take as long again

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        pair = self.pairs[index]
        sample: dict = {"left_image": read_picture(pair.left)}
        if not self.left_alone:
            left, right = sample["left_image"], read_picture(pair.right)
            check_equal_size(pair, left.size, right.size)
            sample["right_image"] = right
        sample["name"] = pair.name
        if self.transform is None:
            return sample
        with self.random_choices(index):
            return self.transform(sample)

    @contextlib.contextmanager
    def random_choices(self, index: int) -> Iterator[None]:
        """Within it, torch draws the numbers of this (seed, epoch, index)."""
        with torch.random.fork_rng(devices=[]):
            seed = int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0])
            torch.default_generator.manual_seed(seed)  # torch.manual_seed also notes it for GPUs, in a growing list
            yield


class CachedPairs(StereoPairs):
    """The same samples as `StereoDrives` with `image_transforms`, from pictures decoded and resized once.

    Two things make it fast, and neither changes a value. A batch is filled in place, without a picture in between.
    And as a stored picture has 256 levels, a change of colours is a table: computed for the levels, then looked up.
    """

    def __init__(self, pairs: list[kitti.Pair], pictures: Path, augment: bool, seed: int = 0):
        """`pictures`: a file of `prepare_cache`; `augment`: flip and colours as in training."""
        super().__init__(pairs, None, seed)
        self.file, self.augment = pictures, augment
        self.pictures: np.ndarray | None = None  # opened by each worker for itself
        self.flip, self.colours = RandomFlip(), AugmentImagePair()

    def __getitems__(self, indices: list[int]) -> dict:
        """A whole batch, as DataLoader asks for it: images (N, 3, H, W) in channels-last order."""
        if self.pictures is None:
            self.pictures = np.load(self.file, mmap_mode="c")  # torch wants a writable one; the file stays as it is
        batch = torch.empty(2, len(indices), *self.pictures.shape[2:])
        levels = torch.arange(256).expand(3, 1, 256) / 255
        channel_starts = torch.tensor([0, 256, 512], dtype=torch.int32)
        for place, index in enumerate(indices):
            views = torch.from_numpy(self.pictures[index])  # (2, H, W, 3)
            change = None
            if self.augment:
                with self.random_choices(index):
                    if self.flip.draw():
                        views = views.flip(0, 2)
                    change = self.colours.draw()
            for view, picture in enumerate(views):
                target = batch[view, place]
                if change is None:
                    target.copy_(picture).div_(255)
                else:
                    table = change_colours(levels, *change).flatten()
                    torch.index_select(table, 0, (picture + channel_starts).flatten(), out=target.flatten())
        left, right = batch.permute(0, 1, 4, 2, 3)
        return {"left_image": left, "right_image": right, "name": [self.pairs[index].name for index in indices]}


def prepare_cache(
    pairs: list[kitti.Pair], size: tuple[int, int], folder: str | Path, workers: int = 0, log: Callable = print
) -> Path:
    """Decodes and resizes every pair once, into one uint8 array (pairs, 2, height, width, 3) in `folder`; its path.

    The name holds a fingerprint of the pictures (path, bytes, time of change) and the size: when one changes, the file
    is made anew and the old one of the same drives and size removed. A killed preparation goes on where it stopped;
    the file has its name only once it is whole. Raises OSError when the disk has no room, which is asked first.
    """
    folder = kitti.project_path(folder)
    files = [file for pair in pairs for file in (pair.left, pair.right)]
    stamps = [f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in ((file, file.stat()) for file in files)]
    which = f"{size[0]}x{size[1]}-{fingerprint(map(str, files))}"
    path = folder / f"{which}-{fingerprint(stamps)}.npy"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{which}.lock"):  # a second run waits, and finds it done
            if not path.is_file():
                write_cache(pairs, size, path, workers, log)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): free space or choose another cache folder") from error
    for old in folder.glob(f"{which}-*"):
        if old != path:
            old.unlink()
    return path


def write_cache(pairs: list[kitti.Pair], size: tuple[int, int], path: Path, workers: int, log: Callable) -> None:
    """Writes the array of `prepare_cache`, from where a killed preparation stopped."""
    partial = path.with_suffix(".part")
    shape = (len(pairs), 2, *size, 3)
    header = io.BytesIO()
    write_npy_header(header, shape, "|u1")
    start, bytes_a_pair = header.tell(), math.prod(shape[1:])
    done = max(0, partial.stat().st_size - start) // bytes_a_pair if partial.is_file() else 0
    needed = (len(pairs) - done) * bytes_a_pair
    log(f"preparing {len(pairs) - done} pairs of {size[0]}x{size[1]}: {needed / 1e9:.2f} GB in {path.parent}")
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(f"{free / 1e9:.2f} GB are free")
    with open(partial, "r+b" if done else "wb") as file:
        file.write(header.getvalue())
        file.seek(start + done * bytes_a_pair)  # a pair cut short is written over
        resized = StereoPairs(pairs[done:], ResizeImage(size))
        for sample in DataLoader(resized, None, num_workers=workers):
            for view in VIEWS:
                file.write(np.asarray(sample[view]).tobytes())
    os.replace(partial, path)


def write_npy_header(file: BinaryIO, shape: tuple[int, ...], kind: str = "<f4") -> None:
    """Begins a .npy of values of a `kind` (float32 unless told), which are then written one after the other."""
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


def fingerprint(lines: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the lines' SHA-256."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def prepare_dataloader(
    data_dir: str | Path,
    mode: str,
    drives: str | list[str] | None = None,
    *,
    cameras: str = "colour",
    truth: str = "auto",
    size: tuple[int, int] = (128, 416),
    batch_size: int = 8,
    augment: bool = True,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    cache_dir: str | Path | None = None,
    bad_pairs: str = "refuse",
) -> DataLoader:
    """Batches of the drives of one side, shuffled and augmented for "train", in order for "val" and "test".

    Images are float32 (N, 3, height, width) in [0, 1]. In training the last, smaller batch is left out. `drives`,
    `cameras`, `truth` and what is raised for missing ones: `kitti.select_pairs`. All pictures are looked at first;
    `bad_pairs` "refuse" or "skip": `checked_pairs`. With several processes, `rank` of `world_size` draws its share.
    With `cache_dir`, pictures are decoded and resized once into that folder (`prepare_cache`), and every epoch reads
    them from there. Raises ValueError when a training set is smaller than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    pairs = checked_pairs(data_dir, mode, drives, cameras, truth, bad_pairs)
    train = mode == "train"
    if train and len(pairs) < batch_size * world_size:
        raise ValueError(
            f"{data_dir} has {len(pairs)} training pairs, fewer than one batch of {batch_size * world_size}"
        )
    dataset = StereoPairs(pairs, image_transforms(mode, size, augment), seed)
    if cache_dir is not None:
        dataset = CachedPairs(pairs, prepare_cache(pairs, size, cache_dir, workers), train and augment, seed)
    share: DistributedSampler = DistributedSampler(dataset, world_size, rank, train, seed, drop_last=train)
    return DataLoader(
        dataset,
        batch_size,
        sampler=share if train else range(rank, len(dataset), world_size),  # unlike `share`, none twice
        num_workers=workers,
        drop_last=train,
        pin_memory=torch.cuda.is_available(),
        collate_fn=None if cache_dir is None else dict,
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
