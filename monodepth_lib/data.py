"""Notebook 01: from drives on disk to batches on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from . import kitti
from .devices import process
from .files import read_picture
from .transforms import image_transforms


def match_blocks(
    left: Tensor, right: Tensor, down: int = 0, furthest: int = 48, window: int = 7
) -> tuple[Tensor, Tensor]:
    """Searches one row of `right` for every pixel of `left`: returns (lowest cost, its shift in px), both (H, W).

    left, right: (C, H, W). The cost at a shift s is the mean |left(y, x) - right(y + down, x - s)| over channels and a
    square window; s = 0..`furthest`. In a rectified pair the mean cost is lowest at `down` = 0. If it is lowest at
    another `down`, or at a different one in each part of the picture, the cameras are not aligned row by row.
    """
    height, width = left.shape[-2:]
    rows = (torch.arange(height) + down).clamp(0, height - 1)  # beyond the border the edge is repeated
    padded = F.pad(right[:, rows], (furthest, 0), mode="replicate")
    moved = padded.unfold(-1, width, 1)  # (C, H, furthest + 1, W): at place k the right view moved by furthest - k
    difference = (left[:, :, None] - moved).abs().mean(0).transpose(0, 1)  # (furthest + 1, H, W)
    cost = F.avg_pool2d(difference, window, 1, window // 2, count_include_pad=False)
    least, place = cost.min(dim=0)
    return least, (furthest - place).float()


class StereoPairs(Dataset):
    """Pairs of drives as samples: a dict of `left_image`, `right_image` and `name` ("drive/frame").

    The random choices of a sample depend only on `seed`, `epoch` and its index. They do not depend on the number of
    workers or on earlier draws, so a resumed run repeats them. Raises ValueError naming a pair of unequal size.
    """

    def __init__(self, pairs: Sequence[kitti.Pair], transform=None, seed: int = 0, left_only: bool = False):
        """`left_only` leaves out the right view: prediction does not need it, and reading it doubles the time."""
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
        """Inside this context, torch draws the random numbers of (seed, epoch, index)."""
        with torch.random.fork_rng(devices=[]):
            seed = int(np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0])
            torch.default_generator.manual_seed(seed)  # torch.manual_seed also notes it for GPUs, in a growing list
            yield


class PairLoader(DataLoader):
    """A DataLoader whose workers' errors are the sentence alone: a damaged picture, too little shared memory."""

    def __iter__(self) -> Iterator[dict]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except (ValueError, OSError) as error:  # torch puts the worker's traceback before the sentence
            kind, said = type(error), str(error).rstrip()
            if "DataLoader worker" not in said:
                raise
            raise kind(said.rpartition(f"\n{kind.__name__}: ")[2]) from None
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
    """Makes batches of pairs (from `kitti.select_pairs`): in order, or with `train` shuffled and augmented.

    Images are float32 (N, 3, height, width) in [0, 1]. Training drops the last batch if it is smaller. `left_only`: a
    test loader that reads only left views. With `cache_dir`, pictures are decoded and resized once into that folder
    (`prepare_cache`), and every epoch reads them from there. In a group of processes (torch.distributed), each process
    loads its share, in batches of `batch_size`. Each argument is one decision about loading, so there are more than
    seven. Raises ValueError for a training set smaller than one batch, and for `train` together with `left_only`.
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
        from .cache import CachedPairs, prepare_cache  # the same samples, sooner

        pictures = prepare_cache(pairs, size, cache_dir, workers)
        dataset = CachedPairs(pairs, pictures, train and augment, seed, left_only)
    sampler: DistributedSampler | range = range(rank, len(pairs), processes)
    if train:  # every process gets the same number of pairs; a `range` repeats no pair
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


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Sets the order and the augmentation of a training loader to those of `epoch` (0, 1, ...)."""
    loader.dataset.epoch = epoch  # type: ignore[attr-defined]
    if isinstance(loader.sampler, DistributedSampler):
        loader.sampler.set_epoch(epoch)
