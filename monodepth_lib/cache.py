"""Notebook 01, behind it: pictures are decoded and resized once, and then read from one file."""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from . import kitti
from .data import PairLoader, StereoPairs
from .files import write_npy_header
from .transforms import VIEWS, AugmentImagePair, RandomFlip, ResizeImage, change_colours


class CachedPairs(StereoPairs):
    """The same samples as `StereoPairs` with `image_transforms`, from pictures decoded and resized once.

    Two things make it fast, and neither changes a value. A batch is filled in place, without intermediate images. And
    because a stored picture has 256 levels, a change of colours is computed once for each level and then looked up.
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
            self.pictures = np.load(self.file, mmap_mode="c")  # torch wants it writable; the file stays
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
    """Decodes and resizes every pair once, into a uint8 file (pairs, 2, height, width, 3) in `folder`; its path.

    The file's name holds the size and a fingerprint of the pictures (path, bytes, time of change). When one of them
    changes, a new file replaces the old one of the same pictures and size. A killed preparation continues where it
    stopped; the file gets its name only when it is complete. Raises OSError when the disk has too little free space.
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
        with FileLock(folder / f".{which}.lock"):  # a second run waits and then finds the file
            if not path.is_file():
                write_cache(pairs, size, path, workers, log)
    except OSError as error:
        raise OSError(f"{path} could not be written ({error}): free space or choose another cache folder") from error
    for old in folder.glob(f"{which}-*"):
        if old != path:
            old.unlink(missing_ok=True)  # another run may clear it, too
    return path


def write_cache(pairs: Sequence[kitti.Pair], size: tuple[int, int], path: Path, workers: int, log: Callable) -> None:
    """Writes the array of `prepare_cache`; continues where a killed preparation stopped."""
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
        file.seek(start + done * bytes_a_pair)  # an incomplete last pair is overwritten
        resized = StereoPairs(pairs[done:], ResizeImage(size))
        for sample in PairLoader(resized, None, num_workers=workers):
            for view in VIEWS:
                file.write(np.asarray(sample[view]).tobytes())
    os.replace(partial, path)


def fingerprint(lines: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the lines' SHA-256."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
