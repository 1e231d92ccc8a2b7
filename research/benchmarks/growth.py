"""Item 6: cost against the amount of work. An exponent is the slope of log(cost) over log(work): 1 is in proportion."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader

from monodepth_lib import kitti, networks

from . import ours, reference
from .load import BATCH, cpu_seconds, passes
from .measure import Options, Row, in_turn
from .pictures import make_drive

PAIRS = 11_282  # of the lab's 13 drives
FASTER = "<= 1.1"  # in proportion, and what a measurement's noise adds


def exponent_row(what: str, make: Callable[[int], Callable], works: Sequence[int], options: Options, each: str) -> Row:
    """Cost at each of `works`, measured in turn; `make(work)` is the function that does it."""
    seconds = in_turn({str(work): make(work) for work in works}, options)
    points = [(float(work), median(seconds[str(work)])) for work in works]
    slope = float(np.polyfit(np.log(works), np.log([seconds for _, seconds in points]), 1)[0])
    said = ", ".join(f"{work:g}: {value:.3g}" for work, value in points)
    return Row("6 growth", f"{what}: exponent", "", [slope], target=FASTER, note=f"s by {each}: {said}", points=points)


def run(options: Options) -> list[Row]:
    name, width = ("unet", 4) if options.quick else ("resnet18_md", 64)
    heights = (64, 128) if options.quick else (64, 128, 192, 256)
    batches = (2, 4) if options.quick else (2, 4, 8)
    frames = (2, 4) if options.quick else (8, 16, 32)

    def step(batch: int, height: int) -> Callable:
        left = torch.rand(batch, 3, height, 2 * height)
        return ours.training_step(name, width, left, left.roll(-4, -1))

    model = networks.get_model("unet", base_channels=4)

    def test(count: int) -> Callable:
        drive = make_drive(options.folder / f"test{count}", options.data, count)
        return lambda: ours.test_drive(model, drive, (64, 192), options.folder / f"tested{count}")

    pixels = {2 * height**2: height for height in heights}
    rows = [
        exponent_row("step against pixels", lambda p: step(2, pixels[p]), list(pixels), options, "pixels"),
        exponent_row("step against batch", lambda b: step(b, heights[0] * 2), batches, options, "pictures"),
        exponent_row("testing against frames", test, frames, options, "frames"),
    ]
    drive = make_drive(options.folder / "workers", options.data, 8 if options.quick else 48)
    size, pairs = (64, 96), reference.Pairs(drive, (64, 96), False)
    loaders: dict[str, Callable] = {
        "ours": lambda workers: ours.loader(drive, size, BATCH, False, workers=workers),
        "reference": lambda workers: DataLoader(pairs, BATCH, num_workers=workers),
    }
    grown: dict[str, list[float]] = {whose: [] for whose in loaders}
    for _ in range(options.repeats):
        for whose, make in loaders.items():
            one, two = (cpu_seconds(passes(make(workers))) for workers in (1, 2))
            grown[whose].append(two / one)
    what = "loading by 2 workers: processor time beside that of 1, and how the plain loader's grows"
    note = "busy cores share caches and memory, which lengthens everyone's work"
    rows.append(Row("6 growth", what, "times", grown["ours"], "reference", grown["reference"], FASTER, note))
    return [*rows, listing_row(options)]


def listing_row(options: Options) -> Row:
    """Finding and pairing as many pairs as the lab's 13 drives hold: empty files in KITTI's layout."""
    split = kitti.SPLITS["lab"]
    drives = [name for side in split.values() for name in side]
    count = 260 if options.quick else PAIRS
    root = options.folder / "listing"
    for number, name in enumerate(drives):
        for camera in ("image_02", "image_03"):
            folder = root / name[:10] / name / camera / "data"
            folder.mkdir(parents=True)
            for frame in range(count // len(drives) + (number < count % len(drives))):
                (folder / f"{frame:010d}.png").touch()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        sides = [kitti.select_drives(root, side, "lab") for side in ("train", "val", "test")]
        found = sum(len(kitti.find_pairs(folder)) for side in sides for folder in side.values())
        seconds.append(time.perf_counter() - start)
        assert found == count, f"{found} pairs of {count} were found"
    return Row("6 growth", f"listing and pairing {count:,} pairs in 13 drives", "s", seconds, target="<= 1.0")


def draw(rows: list[Row], path: Path) -> None:
    """The measured costs over the work, each beside a line of growth in proportion."""
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.points]
    figure = Figure(figsize=(4 * len(drawn), 3.5), layout="constrained")
    for axes, row in zip(np.atleast_1d(figure.subplots(1, len(drawn))), drawn, strict=True):
        work, seconds = (np.array(values) for values in zip(*row.points, strict=True))
        axes.loglog(work, seconds, "o-", label="measured")
        axes.loglog(work, seconds[-1] * work / work[-1], "--", color="grey", label="in proportion")
        axes.set(
            title=row.what.removesuffix(": exponent"), ylabel="s", xlabel=row.what.split("against ")[-1].split(":")[0]
        )
        axes.legend()
    figure.savefig(path, dpi=100)
