"""What lies on disk and at the source: drives, frames, calibration, true depth, named splits.

A *drive* is one recording. Its pictures lie in one folder for each camera; a *pair* is the left and the right
picture of one moment, found by the number in the file's name. Both of KITTI's layouts open (date folders or none),
and KITTI stereo 2012/2015, whose `image_2` and `image_3` hold one pair a scene. A drive of your own has the folders
`left` and `right`, and a `camera.json` in it or above it (`read_camera_file`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .files import project_path as project_path

CAMERAS = {
    "colour": [("image_02/data", "image_03/data"), ("image_2", "image_3"), ("left", "right")],  # the last: your own
    "grey": [("image_00/data", "image_01/data"), ("image_0", "image_1")],
}
PICTURES = {".png", ".jpg", ".jpeg"}
SPLIT_FOLDERS = {"train": "train", "val": "vals", "test": "test"}

# Where truth may lie inside a drive: KITTI's depth layout (metres·256), stereo 2012/2015 (pixels·256), laser scans.
TRUE_DEPTH = {"colour": "proj_depth/groundtruth/image_02", "grey": "proj_depth/groundtruth/image_00"}
TRUE_DISPARITY = ("disp_occ_0", "disp_occ", "disp_noc_0", "disp_noc")
SCANS = ("velodyne_points/data", "velodyne")  # raw drives; odometry and object
TRUTHS = ("auto", "depth", "disparity", "disparity-noc", "scan", "scan-x")


def _drives(text: str) -> list[str]:
    """Names of drives of 2011: "09_26: 0001 0002, 09_28: 0001"."""
    dates = [part.split(": ") for part in text.split(", ")]
    return [f"2011_{date}_drive_{number}_sync" for date, numbers in dates for number in numbers.split()]


# The thirteen drives of the lab this project grew from, split so that no drive is on two sides.
# "lab" follows the split of the authors' code inside the thirteen; eight of them are Eigen test drives, so an
# Eigen number of a model trained on "lab" would be measured on its own training drives: use "eigen-conform" for that,
# or, with all of KITTI raw, the split that published models train on.
# "eigen" and "stereo_2015" have the drives of the authors' public lists for these two tests (22,600 and 29,000 training
# pairs); those put single frames aside for validation, these two whole drives. Their test sides are TEST_LISTS.
SPLITS: dict[str, dict[str, list[str]]] = {
    "lab": {
        "train": [
            "2011_09_26_drive_0002_sync",
            "2011_09_26_drive_0035_sync",
            "2011_09_26_drive_0117_sync",
            "2011_09_30_drive_0020_sync",
            "2011_09_30_drive_0033_sync",
            "2011_10_03_drive_0027_sync",
        ],
        "val": ["2011_09_26_drive_0020_sync", "2011_09_26_drive_0079_sync"],
        "test": [
            "2011_09_26_drive_0014_sync",
            "2011_09_26_drive_0056_sync",
            "2011_09_26_drive_0084_sync",
            "2011_09_26_drive_0101_sync",
            "2011_09_29_drive_0071_sync",
        ],
    },
    "eigen-conform": {
        "train": [
            "2011_09_26_drive_0014_sync",
            "2011_09_26_drive_0035_sync",
            "2011_09_30_drive_0020_sync",
            "2011_09_30_drive_0033_sync",
        ],
        "val": ["2011_09_26_drive_0079_sync"],
        "test": [
            "2011_09_26_drive_0002_sync",
            "2011_09_26_drive_0020_sync",
            "2011_09_26_drive_0056_sync",
            "2011_09_26_drive_0084_sync",
            "2011_09_26_drive_0101_sync",
            "2011_09_26_drive_0117_sync",
            "2011_09_29_drive_0071_sync",
            "2011_10_03_drive_0027_sync",
        ],
    },
    "eigen": {
        "train": _drives(
            "09_26: 0001 0005 0011 0014 0015 0017 0018 0019 0022 0028 0032 0035 0039 0051 0057 0060 0061 0070 0087 "
            "0095 0104 0113, 09_28: 0001, 09_29: 0004 0026, 09_30: 0020 0028 0033 0034, 10_03: 0034 0042"
        ),
        "val": _drives("09_26: 0079 0091"),
    },
    "stereo_2015": {
        "train": _drives(
            "09_26: 0001 0002 0020 0023 0035 0039 0048 0052 0060 0061 0064 0086 0087 0093 0095 0106 0113 0117, "
            "09_28: 0001, 09_29: 0026, 09_30: 0016 0018 0020 0027 0028 0033 0034, 10_03: 0027 0034 0042"
        ),
        "val": _drives("09_26: 0079 0091"),
    },
}

# Drives that scenes of stereo 2015 were taken from: the authors' lists leave all of them out of training.
STEREO_2015_DRIVES = _drives(
    "09_26: 0005 0009 0011 0013 0014 0015 0017 0018 0019 0022 0027 0028 0029 0032 0036 0046 0051 0056 0057 0059 0070 "
    "0084 0096 0101 0104, 09_28: 0002, 09_29: 0004 0071, 10_03: 0047"
)

# The test list of Eigen et al. (NIPS 2014), on which most published figures are measured: 697 frames of 28 drives, as
# "first-last/step". (Checked against the lists in the public code of Monodepth and Monodepth2, which agree.)
EIGEN_TEST = {
    "2011_09_26_drive_0002_sync": "0-63/3 69-75/3",
    "2011_09_26_drive_0009_sync": "0-176/16 196-388/16",
    "2011_09_26_drive_0013_sync": "0-10/5 20 30-50/5 60-70/5 80-140/5",
    "2011_09_26_drive_0020_sync": "0-21/3 27 33-36/3 42-78/3 84",
    "2011_09_26_drive_0023_sync": "18-216/18 252-468/18",
    "2011_09_26_drive_0027_sync": "0-98/7 112-147/7 161-182/7",
    "2011_09_26_drive_0029_sync": "0-196/14 268 296-408/14",
    "2011_09_26_drive_0036_sync": "0-704/32 768-800/32",
    "2011_09_26_drive_0046_sync": "0-120/5",
    "2011_09_26_drive_0048_sync": "0-21/1",
    "2011_09_26_drive_0052_sync": "0-22/2 26-32/2 36-52/2",
    "2011_09_26_drive_0056_sync": "11-121/11 143-286/11",
    "2011_09_26_drive_0059_sync": "0-154/14 182-238/14 274-372/14",
    "2011_09_26_drive_0064_sync": "0-110/22 154-550/22",
    "2011_09_26_drive_0084_sync": "49-153/13 179-374/13",
    "2011_09_26_drive_0086_sync": "7-520/27 574-682/27",
    "2011_09_26_drive_0093_sync": "0-256/16 305-417/16",
    "2011_09_26_drive_0096_sync": "0-456/19",
    "2011_09_26_drive_0101_sync": "80-216/34 284-930/34",
    "2011_09_26_drive_0106_sync": "15 35-219/8",
    "2011_09_26_drive_0117_sync": "0-494/26 546-650/26",
    "2011_09_28_drive_0002_sync": "0-12/3 18-24/3 30-39/3 45-63/3 72 78-90/3",
    "2011_09_29_drive_0071_sync": "0-612/36 735-807/36 879-951/36 1054",
    "2011_09_30_drive_0016_sync": "0-88/11 110-275/11",
    "2011_09_30_drive_0018_sync": "0-214/107 428-2247/107 2419-2740/107",
    "2011_09_30_drive_0027_sync": "0-656/41 753-958/41 1040-1081/41",
    "2011_10_03_drive_0027_sync": "0-543/181 734-2001/181 2363-4535/181",
    "2011_10_03_drive_0047_sync": "0-224/32 288-800/32",
}


def _numbers(text: str) -> set[tuple[int, ...]]:
    """Frames written as "first-last/step" or as one number, separated by blanks: "0-6/3 9" is 0, 3, 6 and 9."""
    frames: set[tuple[int, ...]] = set()
    for part in text.split():
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        frames |= {(number,) for number in range(int(first), int(last or first) + 1, int(step or 1))}
    return frames


# Test sets that are lists of frames: by drive, the numbers in the names of their pictures.
TEST_LISTS: dict[str, dict[str, set[tuple[int, ...]]]] = {
    "eigen": {drive: _numbers(text) for drive, text in EIGEN_TEST.items()},
    "stereo_2015": {"stereo_2015": {(scene, 10) for scene in range(200)}},
}

# Focal length in px by the width of the rectified picture (which tells KITTI's recording date) and the baselines in
# metres, from the calibration files of the raw data set. The grey cameras stand a little further apart.
FOCAL_PX = {1224: 707.0493, 1226: 707.0912, 1238: 718.3351, 1241: 718.8560, 1242: 721.5377}
BASELINE_M = {
    "colour": {1224: 0.53726, 1226: 0.53790, 1238: 0.53014, 1241: 0.53233, 1242: 0.53273},
    "grey": {1226: 0.53715, 1238: 0.53719, 1241: 0.53717, 1242: 0.53715},
}


# --- drives and pairs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The left and right picture of one moment. `name` is "drive/file", so that every output says where it is from."""

    folder: Path
    left: Path
    right: Path
    truth: Path | None = None
    laser_x: bool = False  # the truth is a scan, and its depth the laser's x: "scan-x"

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.left.stem}"


def camera_folders(drive: Path, cameras: str) -> tuple[Path, Path]:
    """The folders (left, right) of a drive for `cameras` "colour" or "grey".

    Raises FileNotFoundError when the drive lacks one of them, ValueError for another word.
    """
    if cameras not in CAMERAS:
        raise ValueError(f"cameras is {cameras!r}; it must be one of {', '.join(map(repr, CAMERAS))}")
    for left, right in CAMERAS[cameras]:
        have = (drive / left).is_dir(), (drive / right).is_dir()
        if all(have):
            return drive / left, drive / right
        if any(have):
            missing = drive / (right if have[0] else left)
            raise FileNotFoundError(f"{missing} is missing: a pair needs both cameras; fetch the drive again")
    other = next(name for name in CAMERAS if name != cameras)
    if any((drive / folder).is_dir() for pair in CAMERAS[other] for folder in pair):
        raise FileNotFoundError(f"{drive} has no {cameras} cameras, but {other} ones: use cameras={other!r}")
    expected = " and ".join(CAMERAS[cameras][0])
    raise FileNotFoundError(f"{drive} has no {cameras} pictures: it must hold {expected} (left and right)")


def _list_folder(folder: Path) -> list[Path]:
    """What lies in a folder, hidden things left out, in no order. Raises PermissionError with the remedy."""
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except PermissionError as error:
        raise PermissionError(f"{folder} may not be read ({error.strerror}): give yourself the right to it") from error


def is_drive(folder: Path) -> bool:
    return any((folder / left).is_dir() for pairs in CAMERAS.values() for pair in pairs for left in pair)


def find_drives(root: str | Path, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """All drives at `root` and up to two folders below it, by name: with date or split folders between, or none.

    Raises FileNotFoundError when `root` is missing or holds no drive, ValueError when two folders share a name that is
    `wanted` (None: any).
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing: give the folder that holds the drives as data_dir")
    found: dict[str, Path] = {}
    level = [root]
    for depth in range(3):
        below = []
        for folder in level:
            if is_drive(folder):
                name = folder.resolve().name
                if name in found:
                    if wanted is None or name in wanted:
                        told = f"two drives are named {name}: {found[name]} and {folder}"
                        raise ValueError(f"{told}; remove one, or give a folder further down as data_dir")
                    name = f"{folder.parent.name}/{name}"  # benchmarks of KITTI's have a folder "training" each
                found[name] = folder
            elif depth < 2:
                below += sorted(path for path in _list_folder(folder) if path.is_dir())
        level = below
    if not found:
        expected = f"{root}/train/<drive>/image_02/data, or {root}/train/<drive>/left for pictures of your own"
        raise FileNotFoundError(f"{root} holds no drive: expected folders such as {expected}")
    return found


def select_drives(root: str | Path, mode: str, drives: str | list[str] | None = None) -> dict[str, Path]:
    """The drives of one side ("train", "val" or "test").

    `drives` None takes the folder train, vals or test below `root`; a split's name ("lab", "eigen-conform", "eigen",
    "stereo_2015") takes that split's drives; a list, or names separated by commas, takes those; "none" takes none. The
    test sides of "eigen" and "stereo_2015" are lists of frames: those of their drives that are there, of which
    `select_pairs` takes the list's frames. Raises FileNotFoundError naming what is missing and what is there.
    """
    root = Path(root)
    if mode not in SPLIT_FOLDERS:
        raise ValueError(f"mode is {mode!r}; it must be 'train', 'val' or 'test'")
    if drives is None:
        folder = root / SPLIT_FOLDERS[mode]
        if root.is_dir() and not folder.is_dir():
            remedy = f"make it, or name drives with {mode}_drives (a list, a split such as 'lab', or 'none')"
            raise FileNotFoundError(f"{folder} is missing: {remedy}")
        return find_drives(folder if root.is_dir() else root)
    if drives == "none":
        return {}
    if mode == "test" and isinstance(drives, str) and drives in TEST_LISTS:
        return _drives_of_list(root, drives)
    if isinstance(drives, str):
        drives = SPLITS[drives][mode] if drives in SPLITS else [name.strip() for name in drives.split(",")]
    there = find_drives(root, drives)
    missing = [name for name in drives if name not in there]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}; it has {', '.join(there)}")
    return {name: there[name] for name in drives}


def is_stereo_2015(folder: Path) -> bool:
    """Does the folder hold scenes of KITTI stereo 2015? Their true disparity is told by its folder's name."""
    return (folder / "disp_occ_0").is_dir() or (folder / "disp_noc_0").is_dir()


def _drives_of_list(root: Path, name: str) -> dict[str, Path]:
    """The drives of a test list that are below `root`, by the list's names for them."""
    there = find_drives(root, TEST_LISTS[name])
    if name == "stereo_2015" and name not in there:  # KITTI's archive names the folder "training"
        scenes = [folder for folder in there.values() if is_stereo_2015(folder)]
        if len(scenes) == 1:
            return {name: scenes[0]}
    found = {drive: there[drive] for drive in TEST_LISTS[name] if drive in there}
    if not found:
        raise FileNotFoundError(f"{root} has no drive of the test list {name!r}; it has {', '.join(there)}")
    return found


def select_pairs(
    root: str | Path,
    mode: str,
    drives: str | list[str] | None = None,
    cameras: str = "colour",
    truth: str = "auto",
    faults: list[str] | None = None,
) -> list[Pair]:
    """The pairs of one side: all frames of `select_drives`, or those of a test list ("eigen", "stereo_2015").

    `truth`, `faults`: see `find_pairs`; published Eigen figures are measured with "scan-x". Frames of a test list that
    are not there are counted and named in a warning. Raises FileNotFoundError when none is there.
    """
    folders = select_drives(root, mode, drives)
    pairs = {name: find_pairs(folder, cameras, truth, faults) for name, folder in folders.items()}
    if mode == "test" and isinstance(drives, str) and drives in TEST_LISTS:
        pairs = _listed(pairs, drives, Path(root))
    return [pair for found in pairs.values() for pair in found]


def _listed(pairs: dict[str, list[Pair]], name: str, root: Path) -> dict[str, list[Pair]]:
    """Of every drive's pairs those of a test list, with a warning that counts and names what is missing."""
    wanted = TEST_LISTS[name]
    found = {drive: [p for p in pairs[drive] if frame_key(p.left) in wanted[drive]] for drive in pairs}
    count, total = sum(map(len, found.values())), sum(map(len, wanted.values()))
    if not count:
        raise FileNotFoundError(f"{root} has none of the {total} frames of {name!r}: fetch drives of that list")
    there = {drive: {frame_key(pair.left) for pair in found.get(drive, [])} for drive in wanted}
    missing = {drive: sorted(frames - there[drive]) for drive, frames in wanted.items()}
    whole = [drive for drive in wanted if not there[drive]]
    parts = [f"all of {', '.join(whole)}"] if whole else []
    for drive, keys in missing.items():
        if keys and there[drive]:
            numbers = " ".join("_".join(map(str, key)) for key in keys[:25])
            parts.append(f"of {drive} {numbers}" + (f" and {len(keys) - 25} more" if len(keys) > 25 else ""))
    if parts:
        said = f"{root} has {count} of the {total} frames of {name!r}; missing: {'; '.join(parts)}"
        warnings.warn(said, stacklevel=3)
    return found


def check_split(train: dict[str, Path], other: dict[str, Path]) -> None:
    """Raises ValueError naming the drives that are on both sides: neighbouring frames are nearly the same picture."""
    both = sorted(set(train) & set(other))
    if both:
        raise ValueError(f"{', '.join(both)} would be in train and held out too: choose other drives for one side")


def test_list_warning(train_drives: Collection[str] | None, test_pairs: Sequence[Pair]) -> str:
    """What must be said beside the figures of `test_pairs` when these are of Eigen's list or stereo 2015, else "".

    `train_drives` are the names of all drives the model has learnt from or was chosen on; None when nobody knows.
    """
    frames = TEST_LISTS["eigen"]
    if test_pairs and all(frame_key(p.left) in frames.get(p.folder.name, set()) for p in test_pairs):
        name, test, drives = "eigen", "frames of Eigen's test list", list(frames)
    elif test_pairs and all(is_stereo_2015(folder) for folder in {p.folder for p in test_pairs}):
        name, test, drives = "stereo_2015", "scenes of KITTI stereo 2015", STEREO_2015_DRIVES
    else:
        return ""
    if train_drives is None:
        return (
            f"these are {test}, and the weights do not say which drives they were trained on: put the figures beside "
            f"published ones only if none of the {len(drives)} drives that they are from was among them"
        )
    seen = sorted(set(train_drives) & set(drives))
    if not seen:
        return ""
    clean = "'eigen', or on 'eigen-conform', for that" if name == "eigen" else f"{name!r} for that"
    return (
        f"these are {test}, and the model was trained or chosen on {', '.join(seen)}, which such frames are from: do "
        f"not put the figures beside published ones; train on the split {clean}"
    )


def frame_key(path: Path) -> tuple[int, ...]:
    """The numbers in a file's name: (5,) for 0000000005.png, scene and moment (12, 10) for stereo's 000012_10.png."""
    return tuple(int(digits) for digits in re.findall(r"\d+", path.stem))


def _frames(folder: Path, suffixes: Collection[str] = PICTURES) -> dict[tuple[int, ...], Path]:
    """Pictures of a folder (or files of other `suffixes`) by the numbers in their name, in order."""
    frames: dict[tuple[int, ...], Path] = {}
    for path in _list_folder(folder):
        if path.suffix.lower() not in suffixes:
            continue
        key = frame_key(path)
        if not key:
            raise ValueError(f"{path} has no frame number in its name: rename or remove it")
        if key in frames:
            raise ValueError(f"{path} and {frames[key].name} are the same frame: keep one of them")
        frames[key] = path
    return dict(sorted(frames.items()))


def find_pairs(
    drive: str | Path, cameras: str = "colour", truth: str = "auto", faults: list[str] | None = None
) -> list[Pair]:
    """The pairs of one drive in the order of their numbers, with the file of truth where there is one.

    `truth` says which kind a drive's pairs get: "depth" (KITTI's improved depth or a dense one, in the drive or, as
    KITTI packs it, in `train/<drive>` or `val/<drive>` of a folder above), "disparity" (stereo 2012 and 2015: of all
    pixels where there is such a folder, else of those that both cameras see), "disparity-noc" (of those alone), "scan"
    (the laser's) or "scan-x" (the same, see `project_scan`). "auto" is the first of depth, disparity and scan that the
    drive has. Raises FileNotFoundError when a
    picture has no partner (named) or the drive has no picture, ValueError for another word. Given a list of `faults`,
    a picture without a partner is named there and left out instead.
    """
    drive = Path(drive).resolve()
    left_folder, right_folder = camera_folders(drive, cameras)
    left, right = _frames(left_folder), _frames(right_folder)
    if left and right and not left.keys() & right.keys():
        one, other = next(iter(left.values())), next(iter(right.values()))
        remedy = "pairs are found by all numbers in the names: rename them alike, as left_0001.png and right_0001.png"
        raise FileNotFoundError(f"{one} and {other} share no number, nor do the pictures after them; {remedy}")
    alone = [left.get(key) or right[key] for key in sorted(left.keys() ^ right.keys())]
    if faults is not None:
        faults += [f"{path} has no partner in the other camera's folder: add or remove it" for path in alone]
    elif alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise FileNotFoundError(f"{alone[0]}{more} has no partner in the other camera's folder: add or remove it")
    if not left:
        raise FileNotFoundError(f"{left_folder} holds no picture: expected 0000000000.png and so on")
    truths = _find_truths(drive, cameras, truth)
    laser_x = truth == "scan-x"
    pairs = [Pair(drive, left[key], right[key], truths.get(key), laser_x) for key in left if key in right]
    scanned = [pair for pair in pairs if pair.truth and truth_kind(pair.truth) == "scan"]
    if truth == "auto" and scanned:
        try:
            laser_to_picture(scanned[0])
        except FileNotFoundError as error:  # training and pictures do without
            warnings.warn(f"{drive.name}: its laser scans are left out, for {error}", stacklevel=2)
            return [Pair(drive, pair.left, pair.right) for pair in pairs]
    return pairs


def _find_truths(drive: Path, cameras: str, truth: str) -> dict[tuple[int, ...], Path]:
    """The files of truth of one kind by their frame, empty when there are none."""
    if truth not in TRUTHS:
        raise ValueError(f"truth is {truth!r}; it must be one of {', '.join(map(repr, TRUTHS))}")
    above = [folder / side / drive.name for folder in drive.parents[:3] for side in ("train", "val")]
    places = {
        "depth": [folder / TRUE_DEPTH[cameras] for folder in (drive, *above)],
        "disparity": [drive / name for name in TRUE_DISPARITY],
        "scan": [drive / name for name in SCANS],
        "disparity-noc": [drive / name for name in TRUE_DISPARITY if "noc" in name],
        "scan-x": [drive / name for name in SCANS],
    }
    for kind in ("depth", "disparity", "scan") if truth == "auto" else (truth,):
        for folder in places[kind]:
            files = _frames(folder, {".bin"} if kind.startswith("scan") else PICTURES) if folder.is_dir() else {}
            if files:
                return files
    return {}


def truth_kind(path: Path) -> str:
    """What a file of truth holds: "depth", "disparity" or "scan"."""
    if path.suffix.lower() == ".bin":
        return "scan"
    return "disparity" if path.parent.name in TRUE_DISPARITY else "depth"


# --- calibration and truth --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """A rectified stereo camera: focal length in px and baseline in metres, for pictures `width` px wide."""

    focal_px: float
    baseline_m: float
    width: int
    source: str
    centre_px: tuple[float, float] | None = None

    @property
    def focal_baseline(self) -> float:
        """f·B/W in metres: depth = metres / d, with d the disparity as a fraction of the width (any picture size)."""
        return self.focal_px * self.baseline_m / self.width


def check_camera(focal_px: float, baseline_m: float, width: int) -> None:
    """Raises ValueError asking for the unit of a number that no stereo camera has; `width` is the pictures' in px."""
    if not 0 < baseline_m <= 10:
        asked = f". Is it in millimetres? Then write {baseline_m / 1000:g}" if baseline_m > 10 else ""
        raise ValueError(f"baseline_m is {baseline_m:g}; cameras stand more than 0 and at most 10 metres apart{asked}")
    if not 0.2 <= focal_px / width <= 5:
        raise ValueError(
            f"focal_px is {focal_px:g} for pictures {width} px wide; cameras have 0.2 to 5 times the width. Is it in "
            "millimetres? Then write it times the width in px, divided by the sensor's width in millimetres"
        )


def read_calibration_lines(path: str | Path) -> dict[str, np.ndarray]:
    """The lines "key: numbers" of one of KITTI's calibration files, float64; lines of words (a date) are left out."""
    lines = {}
    for line in Path(path).read_text(encoding="ascii", errors="replace").splitlines():
        key, _, values = line.partition(":")
        with contextlib.suppress(ValueError):
            lines[key.strip()] = np.array(values.split(), dtype=float)
    return lines


def _matrix(lines: dict[str, np.ndarray], key: str, columns: int, path: str | Path) -> np.ndarray:
    """The matrix (3, columns) of a line. Raises ValueError naming the file and the line that it lacks."""
    values = lines.get(key, np.empty(0))
    if values.size != 3 * columns or not np.isfinite(values).all():
        lack = f"it has no line {key} of {3 * columns} numbers"
        raise ValueError(f"{path} is not a whole KITTI calibration ({lack}): fetch the calibration archive again")
    return values.reshape(3, columns)


def _projection(lines: dict[str, np.ndarray], camera: int, path: str | Path) -> np.ndarray:
    """P (3, 4) of a rectified camera 0 to 3: named P_rect_02 with raw drives and stereo 2015, else P2."""
    return _matrix(lines, f"P{camera}" if f"P{camera}" in lines else f"P_rect_{camera:02d}", 4, path)


def read_calibration_file(path: str | Path, cameras: str = "colour", width: int = 0) -> Calibration:
    """Reads a KITTI calibration of any kind: raw, stereo 2012 and 2015, odometry, object.

    B = (P_left[0,3] - P_right[0,3]) / f. The files of raw drives and stereo 2015 tell the pictures' width; for the
    others, give the `width` in px of the pictures, which must be KITTI's own. Raises ValueError naming file and line.
    """
    lines = read_calibration_lines(path)
    left, right = (2, 3) if cameras == "colour" else (0, 1)
    p_left, p_right = _projection(lines, left, path), _projection(lines, right, path)
    if f"P{left}" not in lines:
        size = lines.get(f"S_rect_{left:02d}", np.empty(0))
        width = int(size[0]) if size.size and np.isfinite(size[0]) else 0
    elif abs(p_left[0, 2] / max(width, 1) - 0.5) > 0.1:
        raise ValueError(
            f"{path} has its optical centre at column {p_left[0, 2]:.0f}, which is far from the middle of pictures "
            f"{width} px wide: take pictures of KITTI's own size"
        )
    focal = float(p_left[0, 0])
    baseline = float(p_left[0, 3] - p_right[0, 3]) / focal if focal > 0 else 0.0
    if not (focal > 0 and baseline > 0 and width > 0):
        raise ValueError(f"{path} gives f = {focal} px, B = {baseline} m, W = {width} px: all must be positive")
    return Calibration(focal, baseline, width, str(path), (float(p_left[0, 2]), float(p_left[1, 2])))


def read_camera_file(path: str | Path) -> Calibration:
    """Reads `camera.json`, the calibration of your own rectified cameras.

    {"focal_px": 721.5, "baseline_m": 0.54, "width": 1242, "centre_px": [609.6, 172.9]}: focal length in px, distance
    between the cameras in metres, the picture width in px that the focal length is given at (pictures of another size
    are fine), and, if known, the optical centre (column, row). Raises ValueError naming the file and the key.
    """
    example = '{"focal_px": 721.5, "baseline_m": 0.54, "width": 1242}'
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): write it as {example}") from error
    needed = "focal_px", "baseline_m", "width"
    if not isinstance(entries, dict) or (missing := [key for key in needed if key not in entries]):
        lack = f"lacks {', '.join(missing)}" if isinstance(entries, dict) else "is a list or a value"
        raise ValueError(f"{path} {lack}: write it as {example}")
    if unknown := sorted(set(entries) - {*needed, "centre_px"}):
        raise ValueError(f"{path} has {', '.join(unknown)}, but only {', '.join(needed)} and centre_px are known")

    named, centre = [(key, entries[key]) for key in needed], entries.get("centre_px")
    if centre is not None:
        if not isinstance(centre, list) or len(centre) != 2:
            raise ValueError(f"{path}: centre_px is {centre!r}; it must be [column, row] in px, or left out")
        named += [("centre_px", value) for value in centre]
    for key, value in named:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise ValueError(f"{path}: {key} is {value!r}; it must be a number above 0 and below 1e9")
        if key == "width" and value != int(value):
            raise ValueError(f"{path}: width is {value!r}; it must be a whole number of px")
    focal, baseline, width, *place = (float(value) for _, value in named)
    try:
        check_camera(focal, baseline, int(width))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Calibration(focal, baseline, int(width), str(path), (place[0], place[1]) if place else None)


def _nearest(drive: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in the drive or, if not there, in the three folders above it."""
    return next((f / name for f in (drive, *drive.parents[:3]) for name in names if (f / name).is_file()), None)


def _calibration_names(drive: Path, frame: str) -> list[str]:
    """Where KITTI's calibration of a frame may lie: stereo 2015, stereo 2012 and object, odometry, raw, raw's date."""
    scene = frame.partition("_")[0]
    raw = "calib_cam_to_cam.txt"
    return [f"calib_cam_to_cam/{scene}.txt", f"calib/{scene}.txt", "calib.txt", raw, f"{drive.name[:10]}/{raw}"]


def calibration(drive: str | Path, width: int, cameras: str = "colour", frame: str = "") -> Calibration:
    """The calibration of a drive whose pictures are `width` px wide.

    Looks for your own `camera.json` and for KITTI's files in the drive, in the folders above it (three levels; the
    nearest counts) and, for raw drives, in their folder of the drive's date: `calib_cam_to_cam.txt` (raw), `calib.txt`
    (odometry), and, for a `frame` such as "000012_10", `calib/000012.txt` (object, stereo 2012) or
    `calib_cam_to_cam/000012.txt` (stereo 2015). Else it uses KITTI's table by picture width, with a warning. Raises
    ValueError when neither is there.
    """
    drive = Path(drive).resolve()
    path = _nearest(drive, ["camera.json", *_calibration_names(drive, frame)])
    if path:
        return read_camera_file(path) if path.name == "camera.json" else read_calibration_file(path, cameras, width)
    if width not in BASELINE_M[cameras]:
        raise ValueError(
            f"{drive} has no calib_cam_to_cam.txt, and its pictures are {width} px wide, a width KITTI does not have: "
            "put the date's calibration file beside the drive, or a camera.json for cameras of your own"
        )
    warnings.warn(f"{drive.name}: no calib_cam_to_cam.txt; using KITTI's f and B for {width} px", stacklevel=2)
    return Calibration(FOCAL_PX[width], BASELINE_M[cameras][width], width, "table by picture width")


def read_uint16(path: str | Path) -> np.ndarray:
    """A 16-bit PNG as float32, divided by 256 as KITTI stores depth (m) and disparity (px); 0 = unknown.

    Raises ValueError naming a file that is no 16-bit picture.
    """
    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                raise ValueError(f"it has mode {image.mode}, not 16 bits")
            return np.asarray(image, dtype=np.float32) / 256
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a 16-bit PNG ({error}): fetch it again or remove it") from error


def read_scan(path: str | Path) -> np.ndarray:
    """A laser scan of KITTI: (N, 4) float32, x ahead, y to the left, z up in metres, and how much light came back.

    Raises ValueError naming a file that holds something else.
    """
    content = Path(path).read_bytes()
    found = f"{len(content)} bytes, not 16 for each point"
    if content and len(content) % 16 == 0:
        points = np.frombuffer(content, dtype="<f4").reshape(-1, 4)
        if (np.abs(points[:, :3]) < 1000).all():  # the scanner reaches 120 m
            return points
        found = "points beyond 1 km"
    raise ValueError(f"{path} cannot be read as a laser scan ({found}): fetch it again or remove it")


def laser_to_picture(pair: Pair) -> np.ndarray:
    """The matrix (3, 4) from a point (x, y, z, 1) of the laser to (u·Z, v·Z, Z) in the left picture, Z its depth, m.

    Raw drives: P_rect_02 · R_rect_00 · [R|T] of `calib_velo_to_cam.txt` (grey pairs: P_rect_00); object: P2 · R0_rect ·
    Tr_velo_to_cam; odometry: P2 · Tr. Raises FileNotFoundError naming the file that is missing.
    """
    path = _nearest(pair.folder, _calibration_names(pair.folder, pair.left.stem))
    if path is None:
        raise FileNotFoundError(f"{pair.folder} has no calib_cam_to_cam.txt in or above it: fetch the date's calib.zip")
    lines = read_calibration_lines(path)
    rectify, move = np.eye(4), np.eye(4)
    if "Tr" in lines:
        move[:3] = _matrix(lines, "Tr", 4, path)
    elif "Tr_velo_to_cam" in lines:
        rectify[:3, :3] = _matrix(lines, "R0_rect", 3, path)
        move[:3] = _matrix(lines, "Tr_velo_to_cam", 4, path)
    else:
        name = "calib_velo_to_cam.txt"
        laser = _nearest(pair.folder, [name, f"{pair.folder.name[:10]}/{name}"])
        if laser is None:
            raise FileNotFoundError(f"{pair.folder} has no {name} in or above it: fetch the date's calib.zip")
        rectify[:3, :3] = _matrix(lines, "R_rect_00", 3, path)
        laser_lines = read_calibration_lines(laser)
        move[:3] = np.hstack([_matrix(laser_lines, "R", 3, laser), _matrix(laser_lines, "T", 1, laser)])
    camera = int(pair.left.relative_to(pair.folder).parts[0][-1])  # image_02/data or image_2: camera 2
    return _projection(lines, camera, path) @ rectify @ move


def project_scan(points: np.ndarray, matrix: np.ndarray, size: tuple[int, int], laser_x: bool = False) -> np.ndarray:
    """Laser points (N, 4) as sparse depth (H, W) of a picture of that `size`, float32 metres along the optical axis.

    0 = unknown; `matrix` is that of `laser_to_picture`. Points behind the scanner (x < 0) are dropped. u and v are
    rounded and lowered by 1: KITTI's Matlab development kit draws them in Matlab's pixels, which count from 1, and the
    evaluation that published figures come from (Monodepth, Monodepth2) does the same. It takes the laser's x for depth,
    which is measured from the laser and not from the camera, some 0.28 m more: so does this with `laser_x`. Of several
    points in a pixel the nearest counts: it hides the others. One thing is left out: when it looks for points of one
    pixel, it takes the last pixel of a row and the first of the next for one.
    """
    height, width = size
    ahead = points[points[:, 0] >= 0, :3].astype(np.float64)
    u, v, depth = matrix[:, :3] @ ahead.T + matrix[:, 3:]
    front = depth > 0
    u, v, depth = u[front] / depth[front], v[front] / depth[front], depth[front]
    if laser_x:
        depth = ahead[front, 0]
    column, row = np.rint(u) - 1, np.rint(v) - 1
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = np.full(size, np.inf)
    np.minimum.at(nearest, (row[inside].astype(int), column[inside].astype(int)), depth[inside])
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


def read_truth(pair: Pair, calibration: Calibration) -> np.ndarray:
    """True depth of a pair's left view in metres, float32 (H, W), 0 = unknown, from whichever file `pair.truth` is.

    Raises ValueError when the pair has no truth, or one of another size than its picture.
    """
    if pair.truth is None:
        raise ValueError(f"{pair.name} has no true depth")
    with Image.open(pair.left) as image:
        width, height = image.size
    kind = truth_kind(pair.truth)
    if kind == "scan":
        if calibration.width != width:
            sizes = f"{pair.left} is {width} px wide, and {calibration.source} is for {calibration.width} px"
            raise ValueError(f"{sizes}: a laser scan fits pictures of KITTI's own size only")
        return project_scan(read_scan(pair.truth), laser_to_picture(pair), (height, width), pair.laser_x)
    values = read_uint16(pair.truth)
    if values.shape != (height, width):
        sizes = f"{pair.truth} is {values.shape[1]}x{values.shape[0]} px, {pair.left} is {width}x{height}"
        raise ValueError(f"{sizes}: truth and picture must be of one size")
    if kind == "depth":
        return values
    focal_baseline = calibration.focal_baseline * width  # px·m at the truth's own width
    return np.divide(focal_baseline, values, out=np.zeros_like(values), where=values > 0)
