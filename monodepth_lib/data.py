"""Notebook 01: from drives on disk to batches on the device."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from . import kitti
from .files import picture_size as picture_size
from .files import read_picture
from .transforms import VIEWS, AugmentImagePair, RandomFlip, ResizeImage, change_colours, image_transforms


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

    def __init__(self, pairs: Sequence[kitti.Pair], transform=None, seed: int = 0, left_only: bool = False):
        """`left_only`: without the right view, which prediction does not need and which takes as long again to read."""
        self.pairs, self.transform, self.seed, self.epoch = pairs, transform, seed, 0
        self.left_only = left_only

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        pair = self.pairs[index]
        sample: dict = {"left_image": read_picture(pair.left)}
        if not self.left_only:
            left, right = sample["left_image"], read_picture(pair.right)
            kitti.check_equal_size(pair, left.size, right.size)
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
    """The same samples as `StereoPairs` with `image_transforms`, from pictures decoded and resized once.

    Two things make it fast, and neither changes a value. A batch is filled in place, without a picture in between.
    And as a stored picture has 256 levels, a change of colours is a table: computed for the levels, then looked up.
    """

    def __init__(
        self, pairs: Sequence[kitti.Pair], pictures: Path, augment: bool, seed: int = 0, left_only: bool = False
    ):
        """`pictures`: a file of `prepare_cache`; `augment`: flip and colours as in training."""
        super().__init__(pairs, None, seed, left_only)
        self.file, self.augment = pictures, augment
        self.pictures: np.ndarray | None = None  # opened by each worker for itself
        self.flip, self.colours = RandomFlip(), AugmentImagePair()

    def __getitems__(self, indices: list[int]) -> dict:
        """A whole batch, as DataLoader asks for it: images (N, 3, H, W) in channels-last order."""
        if self.pictures is None:
            self.pictures = np.load(self.file, mmap_mode="c")  # torch wants a writable one; the file stays as it is
        names = VIEWS[:1] if self.left_only else VIEWS
        batch = torch.empty(len(names), len(indices), *self.pictures.shape[2:])
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
            for target, picture in zip(batch[:, place], views, strict=False):
                if change is None:
                    target.copy_(picture).div_(255)
                else:
                    table = change_colours(levels, *change).flatten()
                    torch.index_select(table, 0, (picture + channel_starts).flatten(), out=target.flatten())
        images = dict(zip(names, batch.permute(0, 1, 4, 2, 3), strict=True))
        return {**images, "name": [self.pairs[index].name for index in indices]}


def prepare_cache(
    pairs: Sequence[kitti.Pair], size: tuple[int, int], folder: str | Path, workers: int = 0, log: Callable = print
) -> Path:
    """Decodes and resizes every pair once, into one uint8 array (pairs, 2, height, width, 3) in `folder`; its path.

    The name holds a fingerprint of the pictures (path, bytes, time of change) and the size: when one changes, the file
    is made anew and the old one of the same drives and size removed. A killed preparation goes on where it stopped;
    the file has its name only once it is whole. Raises OSError when the disk has no room, which is asked first.
    """
    folder = Path(folder)
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


def write_cache(pairs: Sequence[kitti.Pair], size: tuple[int, int], path: Path, workers: int, log: Callable) -> None:
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
        for sample in PairLoader(resized, None, num_workers=workers):
            for view in VIEWS:
                file.write(np.asarray(sample[view]).tobytes())
    os.replace(partial, path)


def write_npy_header(file: BinaryIO, shape: tuple[int, ...], kind: str = "<f4") -> None:
    """Begins a .npy of values of a `kind` (float32 unless told), which are then written one after the other."""
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})


def fingerprint(lines: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the lines' SHA-256."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


class PairLoader(DataLoader):
    """A DataLoader that says in one sentence when its workers have no shared memory left for their batches."""

    def __iter__(self) -> Iterator[dict]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            remedy = "use workers=0, or give it more (docker run --shm-size=1g)"
            raise RuntimeError(
                f"{self.num_workers} workers have too little shared memory in /dev/shm: {remedy}"
            ) from error


def prepare_dataloader(
    pairs: Sequence[kitti.Pair],
    train: bool = False,
    *,
    size: tuple[int, int] = (128, 416),
    batch_size: int = 8,
    workers: int = 0,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    augment: bool = True,
    left_only: bool = False,
) -> DataLoader:
    """Batches of pairs (of `kitti.select_pairs`): in order, or, to `train` on, shuffled and augmented.

    Images are float32 (N, 3, height, width) in [0, 1]. In training the last, smaller batch is left out. `left_only`:
    a test loader that reads left views alone. With `cache_dir`, pictures are decoded and resized once into that folder
    (`prepare_cache`), and every epoch reads them from there. In a group of processes (torch.distributed) each loads its
    share, in batches of `batch_size`. Each argument is one decision about loading, so there are more than seven.
    Raises ValueError when a training set is smaller than one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if train and left_only:
        raise ValueError("left_only is for prediction; training compares both views")
    rank, processes = process()
    if train and len(pairs) < batch_size * processes:
        raise ValueError(f"there are {len(pairs)} training pairs, fewer than one batch of {batch_size * processes}")
    transform = image_transforms("train" if train else "test", size, augment)
    dataset = StereoPairs(pairs, transform, seed, left_only)
    if cache_dir is not None:
        pictures = prepare_cache(pairs, size, cache_dir, workers)
        dataset = CachedPairs(pairs, pictures, train and augment, seed, left_only)
    sampler: DistributedSampler | range = range(rank, len(pairs), processes)
    if train:  # the same number for each process; a `range` has none twice
        sampler = DistributedSampler(dataset, processes, rank, shuffle=True, seed=seed, drop_last=True)
    return PairLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=train,
        pin_memory=torch.cuda.is_available(),
        collate_fn=None if cache_dir is None else dict,
    )


def process() -> tuple[int, int]:
    """This process's number in its group and how many there are: (0, 1) without a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Gives a training loader the order and the augmentation of `epoch` (0, 1, ...)."""
    loader.dataset.epoch = epoch  # type: ignore[attr-defined]
    if isinstance(loader.sampler, DistributedSampler):
        loader.sampler.set_epoch(epoch)


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU that torch sees (NVIDIA's or AMD's cuda, else Apple's mps), else the CPU.

    Any other name is torch's own ("cpu", "cuda", "cuda:1", "mps"). Apple's is taken from torch 2.13 on: earlier ones
    cannot repeat the border in `grid_sample` there. Raises ValueError for a GPU that is not there.
    """
    can_warp = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and can_warp}
    if device == "auto":
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    if not there.get(device.partition(":")[0], True):
        raise ValueError(
            f"device is {device!r}, but torch {torch.__version__} has no such GPU here: use device='auto' or 'cpu'"
        )
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
