"""Item 2: loading pairs, from PNG, from JPEG, from a prepared cache, and with workers."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from . import ours, reference
from .measure import Options, Row, in_turn, quiet, rates
from .peer import Peer
from .pictures import describe, make_drive

BATCH = 4


def pillow(drive: Path, size: tuple[int, int], cameras: Sequence[str] = ("image_02", "image_03")) -> None:
    """Decodes and resizes every picture of a drive with Pillow alone: the floor of any loader from these files."""
    for camera in cameras:
        for path in sorted((drive / camera / "data").iterdir()):
            with Image.open(path) as image:
                image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)


def passes(loader: Iterable, times: int = 1) -> Callable[[], None]:
    """A function that goes through all batches of a loader, `times` times."""

    def go() -> None:
        with quiet():
            for _ in range(times):
                for _batch in loader:
                    pass

    return go


def pairs_a_second(loader, workers: int) -> float:
    """Pairs a second once the workers run: from the first batch on, by which time each of them has made one."""
    with quiet():
        batches = iter(loader)
        next(batches)
        start = time.perf_counter()
        count = sum(1 for _ in batches) - (max(workers, 1) - 1)
    return count * BATCH / (time.perf_counter() - start)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of `work`, here and in processes that it starts and ends."""
    before = os.times()
    work()
    return sum(b - a for a, b in zip(before[:4], os.times()[:4], strict=True))


def run(options: Options, peer: Peer | None) -> list[Row]:
    size, pairs, cached_passes = ((64, 96), 16, 1) if options.quick else ((256, 512), 48, 10)
    png = make_drive(options.folder / "png", options.data, pairs)
    jpeg = make_drive(options.folder / "jpeg", options.data, pairs, ".jpg")
    cache = options.folder / "cache"
    contenders: dict[str, Callable] = {
        "Pillow, PNG": lambda: pillow(png, size),
        "ours, PNG": passes(ours.loader(png, size, BATCH, False)),
        "reference, PNG": passes(reference.loader(png, size, BATCH, False)),
        "Pillow, JPEG": lambda: pillow(jpeg, size),
        "ours, JPEG": passes(ours.loader(jpeg, size, BATCH, False)),
        "reference, JPEG": passes(reference.loader(jpeg, size, BATCH, False)),
        "reference, PNG, augmented": passes(reference.loader(png, size, BATCH, True)),
    }
    with quiet():  # the cache says how large it will be
        cached, augmented = (ours.loader(png, size, BATCH, augment, cache) for augment in (False, True))
    contenders["ours, cache"] = passes(cached, cached_passes)
    contenders["ours, cache, augmented"] = passes(augmented, cached_passes)
    if peer:
        contenders["base code, PNG"] = passes(peer.loader(png, size, BATCH, False))
        contenders["base code, JPEG"] = passes(peer.loader(jpeg, size, BATCH, False))
        contenders["base code, PNG, augmented"] = passes(peer.loader(png, size, BATCH, True))
    seconds = in_turn(contenders, options)
    speeds = {
        name: rates(values, pairs * (cached_passes if "cache" in name else 1)) for name, values in seconds.items()
    }

    def beside(mine: str, other: str, target: str = "") -> list[Row]:
        if other not in speeds:
            return []
        what = f"{mine.removeprefix('ours, ')}, {size[0]}x{size[1]}"
        return [Row("2 load", what, "pairs/s", speeds[mine], other, speeds[other], target)]

    rows = [
        *beside("ours, PNG", "Pillow, PNG", ">= 0.909"),
        *beside("ours, JPEG", "Pillow, JPEG"),
    ]
    for other in ("base code", "reference"):
        asked = other == "base code" or peer is None
        rows += [
            *beside("ours, PNG", f"{other}, PNG"),
            *beside("ours, JPEG", f"{other}, PNG", ">= 2.5" if asked else ""),
            *beside("ours, JPEG", f"{other}, JPEG"),
            *beside("ours, cache", f"{other}, PNG", ">= 30" if asked else ""),
            *beside("ours, cache, augmented", f"{other}, PNG, augmented", ">= 15" if asked else ""),
        ]
    rows[0].note = describe(png)
    rows[1].note = describe(jpeg)
    return rows + workers_rows(options, png, size, cache)


def workers_rows(options: Options, drive: Path, size: tuple[int, int], cache: Path) -> list[Row]:
    """Pairs a second by number of workers, and what eight would feed on a machine with as many cores: an estimate."""
    rows = []
    for what, folder in (("PNG, augmented", None), ("cache, augmented", cache)):
        speeds: dict[int, list[float]] = {0: [], 1: [], 2: []}
        for _ in range(options.repeats):
            for workers, values in speeds.items():
                loader = ours.loader(drive, size, BATCH, True, folder, workers)
                values.append(pairs_a_second(loader, workers))
        for workers, values in speeds.items():
            rows.append(Row("2 load", f"{what}: {workers} workers", "pairs/s", values))
        doubled = median(speeds[2]) / median(speeds[1])
        if doubled <= 1:
            rows[-1].note = "such a batch is sooner made than handed from process to process: workers=0 is fastest"
            continue
        note = f"estimate: one worker's rate, times {doubled:.2f} (two workers' gain, measured here) for each doubling"
        eight = median(speeds[1]) * doubled ** math.log2(8)
        rows.append(Row("2 load", f"{what}: 8 workers on 8 cores", "pairs/s", [eight], note=note))
    return rows
