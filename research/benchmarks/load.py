"""Loading pairs: from PNG, from JPEG, from a prepared cache, and with workers, beside Pillow alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from monodepth_lib import kitti
from monodepth_lib.data import prepare_dataloader

from .measure import Options, Row, in_turn, rates
from .pictures import describe, make_drive

BATCH = 4


def pillow(drive: Path, size: tuple[int, int]) -> None:
    """Decodes and resizes every picture of a drive with Pillow alone: no loader of these files can be faster."""
    for camera in ("image_02", "image_03"):
        for path in sorted((drive / camera / "data").iterdir()):
            with Image.open(path) as image:
                image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)


def loader(drive: Path, size: tuple[int, int], augment: bool, cache: Path | None = None, workers: int = 0):
    """The loader of training; with `cache`, from pictures that are decoded once, in this call."""
    pairs = kitti.select_pairs(drive.parent, "train", [drive.name])
    options = dict(size=size, batch_size=BATCH, augment=augment, workers=workers, cache_dir=cache)
    return prepare_dataloader(pairs, train=True, **options)  # type: ignore[arg-type]


def passes(batches: Iterable, times: int = 1) -> Callable[[], object]:
    """A function that goes through all batches of a loader, `times` times."""
    return lambda: [None for _ in range(times) for _batch in batches]


def pairs_a_second(batches: Iterable, workers: int) -> float:
    """Pairs per second with running workers: measured from the first batch on, when each has made one."""
    started = iter(batches)
    next(started)
    start = time.perf_counter()
    count = sum(1 for _ in started) - (max(workers, 1) - 1)
    return count * BATCH / (time.perf_counter() - start)


def run(options: Options) -> list[Row]:
    size, pairs, times = ((64, 96), 16, 1) if options.quick else ((256, 512), 48, 10)
    png = make_drive(options.folder / "png", options.data, pairs)
    jpeg = make_drive(options.folder / "jpeg", options.data, pairs, ".jpg")
    cache = options.folder / "cache"
    contenders: dict[str, Callable] = {
        "Pillow, PNG": lambda: pillow(png, size),
        "PNG": passes(loader(png, size, False)),
        "Pillow, JPEG": lambda: pillow(jpeg, size),
        "JPEG": passes(loader(jpeg, size, False)),
        "cache": passes(loader(png, size, False, cache), times),
        "cache, augmented": passes(loader(png, size, True, cache), times),
    }
    seconds = in_turn(contenders, options)
    speeds = {key: rates(values, pairs * (times if "cache" in key else 1)) for key, values in seconds.items()}
    rows = []
    for key in ("PNG", "JPEG", "cache", "cache, augmented"):
        other = f"Pillow, {'JPEG' if key == 'JPEG' else 'PNG'}"
        note = describe(jpeg if key == "JPEG" else png) if "cache" not in key else ""
        rows.append(Row("load", f"{key}, {size[0]}x{size[1]}", "pairs/s", speeds[key], other, speeds[other], note))
    alone: list[float] = []
    for workers in (0, 1, 2):
        found = [pairs_a_second(loader(png, size, True, None, workers), workers) for _ in range(options.repeats)]
        alone = alone or found
        beside = ("no worker", alone) if workers else ()
        rows.append(Row("load", f"PNG, augmented: {workers} workers", "pairs/s", found, *beside))
    return rows
