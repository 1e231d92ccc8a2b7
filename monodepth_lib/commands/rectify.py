"""Checks whether pairs are fit for training: `monodepth rectify data/mine` looks at a few pairs of each drive.

A rectified pair shows every point in the same row of both pictures, further left in the right one (notebook 01). This
command searches some hundred corners of the left picture in the right one, also in the rows above and below. The result
shows common faults of your own cameras: views that are rotated or shifted against each other, swapped views, pictures
of unequal size, pictures of different moments. It writes one picture per drive that shows what it found.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from .. import kitti, plots
from ..files import atomic_write, picture_size, read_picture
from . import command_parser, here, names, number, start
from .outputs import Outputs

WIDE = 640  # px: wider pictures are reduced to this, which is enough for a tenth of a pixel
WINDOW = 11  # px, side of the compared square
REACH, RISE = 0.15, 0.03  # how far to search sideways, and up or down, as shares of the width
DETAIL = 1e-4  # least corner strength: grey values (0 to 1) that change by 0.01 per pixel in every direction
ALIKE = 0.8  # least correlation of two windows of the same point
SMALLEST = (200, 60)  # px, width and height: offsets are measured to a tenth of a px; at this width 0.16 px are allowed
STEADY = 0.5  # px of the reduced picture: points of a pair are this close to a smooth surface of offsets

# What is allowed. KITTI's drives have up to 0.4 px of 1242 at the centre and the edges, the grey ones 1.5 px in
# the corners; at least 38 % of a pair's points are found again, and at most 1 % of them further right.
TOLERANCE = 0.0008  # vertical offset at the centre or an edge, as a share of the width: 1 px of 1242
BENT = 2.5  # a corner may have this many times more
LEAST_FOUND = 0.25  # pictures of different places have 2 %
OUT_OF_STEP = 0.1  # another frame may not have a share of found points larger by this
SOME_NEGATIVE, SWAPPED = 0.2, 0.8  # shares of negative disparities; swapped views have nearly 1


def reduced(picture: Image.Image) -> Tensor:
    """The picture in grey values 0 to 1, (H, W), at most `WIDE` px wide."""
    wide = min(WIDE, picture.width)
    high = max(WINDOW, round(picture.height * wide / picture.width))
    return to_tensor(picture.convert("L").resize((wide, high), Image.Resampling.BICUBIC))[0]


def corners(image: Tensor) -> Tensor:
    """Corners of a picture (H, W), with detail in every direction: (N, 2) columns and rows, one per small square.

    The strength is the smaller eigenvalue of the mean of (gx², gx·gy; gx·gy, gy²) over a window (Shi and Tomasi 1994).
    """
    gy, gx = torch.gradient(image)
    products = torch.stack([gx * gx, gy * gy, gx * gy])
    xx, yy, xy = F.avg_pool2d(products, 7, 1, 3)
    strength = (xx + yy) / 2 - ((xx - yy).square() / 4 + xy.square()).sqrt()
    edge = WINDOW // 2
    inner = F.pad(strength[edge:-edge, edge:-edge], [edge] * 4)
    best, place = F.max_pool2d(inner[None], min(max(8, image.shape[1] // 30), image.shape[0]), return_indices=True)
    place = place[best > DETAIL]
    return torch.stack([place % image.shape[1], place // image.shape[1]], dim=1)


def look_for(one: Tensor, other: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the points (N, 2) of `one` in `other`: their shifts (N, 2), right and down in px, and r (N).

    r is the correlation of the two windows, so brightness and contrast of the cameras do not matter; it is 0 when the
    best place is at the border of the search. A parabola through r gives fractions of a pixel.
    """
    half, count = WINDOW // 2, len(points)
    reach, rise = round(REACH * one.shape[1]), max(3, round(RISE * one.shape[1]))
    column, row = points.T
    window = one.unfold(0, WINDOW, 1).unfold(1, WINDOW, 1)[row - half, column - half]
    window = window - window.mean((1, 2), keepdim=True)
    window = window / window.norm(dim=(1, 2), keepdim=True).clamp(min=1e-6)

    def around(image: Tensor, more: int, fill: float) -> Tensor:  # (N, 2·(rise + more) + 1, 2·(reach + more) + 1)
        wide = F.pad(image, [reach + more] * 2 + [rise + more] * 2, value=fill)
        return wide.unfold(0, 2 * (rise + more) + 1, 1).unfold(1, 2 * (reach + more) + 1, 1)[row, column]

    mean, square = F.avg_pool2d(torch.stack([other, other.square()]), WINDOW, 1)
    spread = WINDOW * (square - mean.square()).clamp(min=1e-6).sqrt()
    spread = F.pad(spread, [half] * 4, value=math.inf)  # no window fits there
    product = F.conv2d(around(other, half, 0.0)[None], window[:, None], groups=count)[0]
    r = product / around(spread, 0, math.inf)

    best, place = r.flatten(1).max(dim=1)
    y, x = place // (2 * reach + 1), place % (2 * reach + 1)
    inside = (y > 0) & (y < 2 * rise) & (x > 0) & (x < 2 * reach)
    y, x, n = y.clamp(1, 2 * rise - 1), x.clamp(1, 2 * reach - 1), torch.arange(count)

    def peak(before: Tensor, after: Tensor) -> Tensor:
        bend = (before - 2 * best + after).clamp(max=-1e-6)
        return ((before - after) / (2 * bend)).clamp(-0.5, 0.5)

    right = x - reach + peak(r[n, y, x - 1], r[n, y, x + 1])
    down = y - rise + peak(r[n, y - 1, x], r[n, y + 1, x])
    return torch.stack([right, down], dim=1), best * inside


def course(points: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits a + bx + cy + dxy + ex² + fy² to values (N) at points (N, 2) in -1 to 1; returns (a ... f) and residuals.

    It minimises the sum of |residual| (by repeated weighted least squares), so a few wrong points do not matter.
    """
    x, y = points.T
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1)
    weight = np.ones_like(values)
    for _ in range(10):
        factors = np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0]
        left_over = values - terms @ factors
        weight = 1 / np.sqrt(np.maximum(np.abs(left_over), 0.1))
    return factors, left_over


@dataclass
class Found:
    """Points of a left picture found in a right one: `points` (N, 2) in -1 to 1, `moved` (N, 2) in widths.

    They were found in both directions, and their vertical offsets lie on a smooth surface (`course`). `share` is their
    share of all `corners` of the left picture. In pictures of two moments, near objects leave the surface.
    """

    corners: int
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    moved: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def share(self) -> float:
        return len(self.points) / max(self.corners, 1)


def find_points(left: Tensor, right: Tensor) -> Found:
    """Corners of `left` (H, W) that are found in `right`, and from there again in `left` at the same place."""
    high, wide = left.shape
    points = corners(left) if min(left.shape) > 2 * WINDOW else torch.zeros(0, 2)
    if len(points) < 12:  # twice what `course` needs
        return Found(len(points))
    moved, r = look_for(left, right, points)
    edge = WINDOW // 2
    landed = (points + moved).round().long()
    landed = torch.stack([landed[:, 0].clamp(edge, wide - 1 - edge), landed[:, 1].clamp(edge, high - 1 - edge)], dim=1)
    back, _ = look_for(right, left, landed)
    keep = (r > ALIKE) & ((landed + back - points).abs().amax(dim=1) < 1.5)
    if keep.sum() < 12:
        return Found(len(points))
    places = ((points[keep] + 0.5) / torch.tensor([wide, high]) * 2 - 1).double().numpy()
    offsets = moved[keep].double().numpy()
    steady = np.abs(course(places, offsets[:, 1])[1]) < STEADY
    return Found(len(points), places[steady], offsets[steady] / wide)


@dataclass
class Look:
    """One examined pair: the points found in its own right picture, and the share found in neighbouring ones."""

    pair: kitti.Pair
    size: tuple[int, int]  # (width, height) of its pictures, px
    own: Found
    beside: dict[str, float]  # "before", "after": share found in the right picture of the frame before, after

    @property
    def better(self) -> str:
        """The frame, "before" or "after", whose right picture fits clearly better; else ""."""
        best = max(self.beside, key=self.beside.__getitem__, default="")
        return best if best and self.beside[best] > self.own.share + OUT_OF_STEP else ""


def look_at(pairs: Sequence[kitti.Pair], index: int) -> Look:
    """Examines pair `index` of a drive; also searches its left picture in the right pictures before and after."""
    pair = pairs[index]
    picture = read_picture(pair.left)
    left = reduced(picture)
    beside = {}
    for name, place in (("before", index - 1), ("after", index + 1)):
        if 0 <= place < len(pairs):
            right = reduced(read_picture(pairs[place].right))
            if right.shape == left.shape:
                beside[name] = find_points(left, right).share
    return Look(pair, picture.size, find_points(left, reduced(read_picture(pair.right))), beside)


@dataclass
class Report:
    """The result for a drive: the examined pairs (`looks`) and the faults in words; no fault means ok."""

    name: str
    pairs: int
    looks: list[Look] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    shown: kitti.Pair | None = None  # the pair to draw: the one that fits worst

    @property
    def width(self) -> int:
        """Width in px of the first examined pair; all px below refer to it."""
        return self.looks[0].size[0]

    @property
    def points(self) -> np.ndarray:
        """All points found, (N, 2) in -1 to 1 (right and down)."""
        return np.concatenate([look.own.points for look in self.looks])

    @property
    def moved(self) -> np.ndarray:
        """How far each of them moved, (N, 2) in px, right and down."""
        return np.concatenate([look.own.moved for look in self.looks]) * self.width

    @property
    def share(self) -> float:
        """Share of all corners found again in their own right picture."""
        return len(self.points) / max(sum(look.own.corners for look in self.looks), 1)

    @property
    def negative(self) -> float:
        """Share of points further right in the right picture, of those that moved by more than 0.1 % of the width."""
        sideways = self.moved[:, 0][np.abs(self.moved[:, 0]) > 0.001 * self.width]
        return float((sideways > 0).mean()) if len(sideways) else 0.0

    def thirds(self) -> list[str]:
        """Median vertical offset in px of the picture's left, middle and right third; "?" for fewer than ten points."""
        part = ((self.points[:, 0] + 1) * 1.5).astype(int).clip(0, 2)
        down = [self.moved[part == third, 1] for third in range(3)]
        return [f"{np.median(px):+.1f}" if len(px) >= 10 else "?" for px in down]

    def line(self) -> str:
        """Verdict and numbers in one line."""
        verdict = "; ".join(self.faults) or "ok"
        if not len(self.looks) or not len(self.points):
            return f"{self.name}: {verdict}"
        beside = [share for look in self.looks for share in look.beside.values()]
        others = f", {100 * np.mean(beside):.0f} % a frame earlier or later" if beside else ""
        return (
            f"{self.name}: {verdict} ({len(self.looks)} of {self.pairs} pairs; vertical offset left, middle, right "
            f"{' '.join(self.thirds())} px; {100 * (1 - self.negative):.0f} % of the disparities positive; "
            f"{100 * self.share:.0f} % of the points found again{others})"
        )


def misaligned(report: Report) -> str | None:
    """A sentence about how the views are misaligned; None when they are within the tolerance."""
    if len(report.points) < 12:
        return None
    factors = course(report.points, report.moved[:, 1])[0]  # px at the picture's centre, edge or corner
    allowed = TOLERANCE * report.width * np.array([1, 1, 1, BENT, BENT, BENT])
    worst = int(np.argmax(np.abs(factors) / allowed))
    if abs(factors[worst]) <= allowed[worst]:
        return None
    width, height = report.looks[0].size
    angle, growth = math.degrees(math.atan(2 * factors[1] / width)), 200 * factors[2] / height
    kind = {
        0: f"lies {abs(factors[0]):.1f} px too {'low' if factors[0] > 0 else 'high'}",
        1: f"is turned by {abs(angle):.2f} degrees {'clockwise' if angle > 0 else 'anticlockwise'}",
        2: f"is {abs(growth):.1f} % too {'large' if growth > 0 else 'small'}",
    }.get(worst, "is bent against the left one")
    return (
        f"not rectified: the right view {kind} (vertical offset {abs(factors[worst]):.1f} px there, "
        f"{allowed[worst]:.1f} px are fine): rectify the pictures with a stereo calibration of your cameras"
    )


def find_faults(report: Report) -> list[str]:
    """The faults of the examined pairs, one sentence each, with the remedy."""
    width, height = report.looks[0].size
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return [f"too small to tell, {width}x{height} px: look at pictures of {SMALLEST[0]}x{SMALLEST[1]} px or more"]
    number = sum(look.own.corners for look in report.looks)
    if number < 20 * len(report.looks):
        return [f"too little detail, {number} corners in {len(report.looks)} pictures: look at more pairs (--frames)"]
    late = [look for look in report.looks if look.better]
    if late:
        look = min(late, key=lambda look: look.own.share)
        return [
            f"frames do not correspond: the left picture of {look.pair.name} fits the right one of the frame "
            f"{look.better} better than its own ({100 * look.beside[look.better]:.0f} % of the points found again, not "
            f"{100 * look.own.share:.0f} %), so in {len(late)} of {len(report.looks)} pairs: number the pictures anew"
        ]
    strange = [look for look in report.looks if look.own.share < LEAST_FOUND]
    if strange:
        look, rise = min(strange, key=lambda look: look.own.share), RISE * report.width
        return [
            f"views do not fit: of {look.pair.name} {100 * look.own.share:.0f} % of the points are found again, so in "
            f"{len(strange)} of {len(report.looks)} pairs: they show different moments or places, or are off by "
            f"more than {rise:.0f} px vertically, or rotated"
        ]
    faults = []
    if report.negative > SWAPPED:
        faults.append("views are swapped: points lie further right in the right picture: exchange left and right")
    elif report.negative > SOME_NEGATIVE:
        faults.append(
            f"{100 * report.negative:.0f} % of the disparities are negative: the cameras look towards each other, or "
            "the pictures are cut at different columns: rectify them so that the farthest things have disparity 0"
        )
    if fault := misaligned(report):
        faults.append(fault)
    return faults


def check_drive(drive: str | Path, cameras: kitti.CameraName = "colour", frames: int = 5) -> Report:
    """Examines `frames` pairs spread over a drive. An error of `kitti.find_pairs` or of reading is a fault, too."""
    report = Report(Path(os.path.abspath(drive)).name, 0)
    try:
        pairs = kitti.find_pairs(drive, cameras)
        report.pairs = len(pairs)
        for pair in pairs:
            left, right = picture_size(pair.left), picture_size(pair.right)
            report.shown = pair if left != right else None
            kitti.check_equal_size(pair, left, right)
        chosen = np.unique(np.linspace(0, len(pairs) - 1, 2 * min(frames, len(pairs)) + 1)[1::2].round().astype(int))
        report.looks = [look_at(pairs, int(index)) for index in chosen]
    except (OSError, ValueError) as error:
        report.faults = [str(error)]
        return report
    report.shown = min(report.looks, key=lambda look: look.own.share).pair
    report.faults = find_faults(report)
    return report


def draw(report: Report) -> Image.Image:
    """Draws the pair `shown` of a report, with the points found in all examined pairs."""
    assert report.shown is not None
    pair = report.shown
    views = read_picture(pair.left), read_picture(pair.right)
    title = textwrap.fill(f"{pair.name}: {'; '.join(report.faults) or 'ok'}", 130, break_on_hyphens=False)
    if not report.looks:
        return plots.figure_image(plots.rectification(*views, title))
    shown = next(look for look in report.looks if look.pair is pair)
    places = (shown.own.points + 1) / 2 * shown.size - 0.5
    shares = {"frame before": [look.beside["before"] for look in report.looks if "before" in look.beside]}
    shares["its own"] = [look.own.share for look in report.looks]
    shares["frame after"] = [look.beside["after"] for look in report.looks if "after" in look.beside]
    means = {frame: float(np.mean(found)) for frame, found in shares.items() if found}
    found = places, places + shown.own.moved * shown.size[0]
    return plots.figure_image(plots.rectification(*views, title, found, (report.points, report.moved), means))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 all drives are ok, 1 a drive has a fault or none was found."""
    parser = command_parser("rectify", __doc__, "monodepth rectify data/mine --frames 10")
    parser.add_argument("data", type=here, help="folder with drives")
    parser.add_argument("--cameras", default="colour", choices=list(kitti.CAMERAS), help="colour (default) or grey")
    parser.add_argument("--drives", type=names, help="names separated by commas (default: all)")
    parser.add_argument("--frames", type=number(int, 1), default=5, help="pairs to look at in each drive (default: 5)")
    parser.add_argument(
        "--output", type=here, default="output/rectify", help="where the pictures go (default: output/rectify)"
    )
    options = parser.parse_args(arguments)
    root, outputs = options.data, Outputs(options.output)
    try:
        drives = kitti.select_drives(root, "train", options.drives) if options.drives else kitti.find_drives(root)
        faults = 0
        for name, drive in drives.items():
            report = check_drive(drive, options.cameras, options.frames)
            faults += bool(report.faults)
            print(report.line(), flush=True)
            if report.shown:
                file = outputs.choose(name.replace("/", "_"), [".png"], str(drive)) + ".png"
                with atomic_write(outputs.folder / file) as partial:
                    draw(report).save(partial, format="PNG")
                outputs.note(file, str(drive))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if outputs.numbered:
        print(outputs.told())
    print(f"{len(drives) - faults} of {len(drives)} drives are ok; pictures are in {outputs.folder}")
    return 1 if faults or not drives else 0


if __name__ == "__main__":
    start(main)
