"""What lies on disk: drives, pairs, calibration, true depth, named splits.

A *drive* is one recording. Its pictures lie in one folder for each camera; a *pair* is the left and the right
picture of one moment, found by the number in the file's name. Both of KITTI's layouts open (date folders or none),
and KITTI stereo 2012/2015, whose `image_2` and `image_3` hold one pair a scene. A drive of your own has the folders
`left` and `right`, and a `camera.json` in it or above it (`read_camera_file`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from .files import OTHER_PICTURES, PICTURE_ERRORS, PICTURES, picture_size
from .files import project_path as project_path

CameraName = Literal["colour", "grey"]
Side = Literal["train", "val", "test"]
TruthKind = Literal["auto", "depth", "disparity", "disparity-noc", "scan", "scan-x"]

TRUTHS = get_args(TruthKind)
SPLIT_FOLDERS: dict[str, str] = {"train": "train", "val": "vals", "test": "test"}
SMALLEST_SIDE = 8  # px; there is nothing in a smaller view to find again in the other one

# Folders of the left and right pictures; "left" and "right" are those of your own drives.
CAMERAS = {
    "colour": [("image_02/data", "image_03/data"), ("image_2", "image_3"), ("left", "right")],
    "grey": [("image_00/data", "image_01/data"), ("image_0", "image_1")],
}
CAMERA_NUMBERS = {"colour": (2, 3), "grey": (0, 1)}  # in KITTI's calibration files

# Where truth may lie inside a drive: KITTI's depth layout (metres·256), stereo 2012/2015 (pixels·256), laser scans.
TRUE_DEPTH = {"colour": "proj_depth/groundtruth/image_02", "grey": "proj_depth/groundtruth/image_00"}
TRUE_DISPARITY = ("disp_occ_0", "disp_occ", "disp_noc_0", "disp_noc")
SCANS = ("velodyne_points/data", "velodyne")  # raw drives; odometry and object

# Focal length in px by the width of the rectified picture (which tells KITTI's recording date) and the baselines in
# metres, from the calibration files of the raw data set. The grey cameras stand a little further apart.
FOCAL_PX = {1224: 707.0493, 1226: 707.0912, 1238: 718.3351, 1241: 718.8560, 1242: 721.5377}
BASELINE_M = {
    "colour": {1224: 0.53726, 1226: 0.53790, 1238: 0.53014, 1241: 0.53233, 1242: 0.53273},
    "grey": {1224: 0.53714, 1226: 0.53715, 1238: 0.53719, 1241: 0.53717, 1242: 0.53715},
}


# --- splits and test lists: text files beside this module -------------------------------------------------------


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", name))


def frame_key(path: Path) -> tuple[int, ...]:
    """The numbers in a file's name: (5,) for 0000000005.png, scene and moment (12, 10) for stereo's 000012_10.png."""
    return _numbers(path.stem)


def read_list(name: str) -> list[str]:
    """The lines of `splits/NAME.txt`; those that begin with # are remarks."""
    text = (Path(__file__).parent / "splits" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def read_test_list(name: str) -> dict[str, set[tuple[int, ...]]]:
    """A test set of single frames, a line each: by drive, the numbers in the names of their pictures."""
    frames: dict[str, set[tuple[int, ...]]] = {}
    for line in read_list(f"{name}_test"):
        drive, frame = line.split()
        frames.setdefault(drive, set()).add(_numbers(frame))
    return frames


SPLITS: dict[str, dict[str, list[str]]] = {
    name: {side: read_list(f"{name}_{side}") for side in sides.split()}
    for name, sides in {
        "lab": "train val test",
        "eigen-conform": "train val test",
        "eigen": "train val",  # their test sides are the test lists
        "stereo_2015": "train val",
    }.items()
}
TEST_LISTS = {name: read_test_list(name) for name in ("eigen", "stereo_2015")}
STEREO_2015_DRIVES = read_list("stereo_2015_scenes")


# --- pairs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The left and right picture of one moment: it knows its files, its cameras and its calibration.

    `truth` is the file of true depth, if there is one, and `truth_kind` what it holds: "depth", "disparity", "scan",
    or "scan-x" (see `project_scan`).
    """

    folder: Path
    left: Path
    right: Path
    cameras: CameraName = "colour"
    truth: Path | None = None
    truth_kind: str = ""

    @property
    def name(self) -> str:
        """ "drive/frame", so that every output says where it is from."""
        return f"{self.folder.name}/{self.left.stem}"

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The cameras' calibration, from the drive's files, else from KITTI's table (see `calibration`)."""
        return calibration(self.folder, picture_size(self.left)[0], self.cameras, self.left.stem)

    def ground_truth(self) -> np.ndarray:
        """True depth of the left view in metres, float32 (H, W), 0 = unknown.

        Raises ValueError when the pair has no truth, or one of another size than its picture.
        """
        if self.truth is None:
            raise ValueError(f"{self.name} has no true depth")
        width, height = picture_size(self.left)
        if self.truth_kind.startswith("scan"):
            points, matrix = read_scan(self.truth), laser_to_picture(self)
            if self.calibration.width != width:
                sizes = f"{self.left} is {width} px wide, and {self.calibration.source} is for {self.calibration.width}"
                raise ValueError(f"{sizes} px: a laser scan fits pictures of KITTI's own size only")
            return project_scan(points, matrix, (height, width), laser_x=self.truth_kind == "scan-x")
        values = read_uint16(self.truth)
        if values.shape != (height, width):
            sizes = f"{self.truth} is {values.shape[1]}x{values.shape[0]} px, {self.left} is {width}x{height}"
            raise ValueError(f"{sizes}: truth and picture must be of one size")
        if self.truth_kind == "disparity":
            focal_baseline = self.calibration.focal_baseline * width  # px·m at the truth's own width
            return np.divide(focal_baseline, values, out=np.zeros_like(values), where=values > 0)
        return values


def find_pairs(drive: str | Path, cameras: CameraName = "colour", truth: TruthKind = "auto") -> list[Pair]:
    """The pairs of one drive in the order of their numbers, with the file of truth where there is one.

    `truth` says which kind a drive's pairs get: "depth" (KITTI's improved depth or a dense one, in the drive or, as
    KITTI packs it, in `train/<drive>` or `val/<drive>` of a folder above), "disparity" (stereo 2012 and 2015: of all
    pixels where there is such a folder, else of those that both cameras see), "disparity-noc" (of those alone), "scan"
    (the laser's) or "scan-x" (the same, see `project_scan`). "auto" is the first of depth, disparity and scan that the
    drive has. Raises FileNotFoundError when a picture has no partner (named) or the drive has no picture, ValueError
    for another word.
    """
    pairs, alone = _pairs_and_alone(drive, cameras, truth)
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise FileNotFoundError(f"{alone[0]}{more} {NO_PARTNER}")
    return pairs


NO_PARTNER = "has no partner in the other camera's folder: add or remove it"


def _pairs_and_alone(drive: str | Path, cameras: CameraName, truth: TruthKind) -> tuple[list[Pair], list[Path]]:
    """The pairs of `find_pairs`, and the pictures without a partner."""
    drive = _own_path(drive)
    folders = camera_folders(drive, cameras)
    left, right = (_frames(folder) for folder in folders)
    for folder, frames in zip(folders, (left, right), strict=True):
        if not frames:
            raise FileNotFoundError(f"{folder} holds no picture: {_found_suffixes(folder)}")
    if not left.keys() & right.keys():
        one, other = next(iter(left.values())), next(iter(right.values()))
        remedy = "pairs are found by all numbers in the names: rename them alike, as left_0001.png and right_0001.png"
        raise FileNotFoundError(f"{one} and {other} share no number, nor do the pictures after them; {remedy}")
    alone = [left.get(key) or right[key] for key in sorted(left.keys() ^ right.keys())]
    truths, kind = _find_truths(drive, cameras, truth)
    pairs = [
        Pair(drive, left[key], right[key], cameras, truths.get(key), kind if key in truths else "")
        for key in left
        if key in right
    ]
    scanned = [pair for pair in pairs if pair.truth_kind == "scan"]
    if truth == "auto" and scanned:
        try:
            laser_to_picture(scanned[0])
        except (FileNotFoundError, ValueError) as error:  # training and pictures do without
            warnings.warn(f"{drive.name}: its laser scans are left out, for {error}", stacklevel=3)
            pairs = [Pair(drive, pair.left, pair.right, cameras) for pair in pairs]
    return pairs, alone


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


def _own_path(drive: str | Path) -> Path:
    """The absolute path of a drive. A symbolic link keeps its own name, and the folders around it."""
    return Path(drive).resolve() if ".." in Path(drive).parts else Path(drive).absolute()


def _own_names(drive: Path) -> list[str]:
    """The name of a drive and, of a symbolic link, that of what it points to."""
    return list(dict.fromkeys([drive.name, drive.resolve().name]))


def _list_folder(folder: Path) -> list[Path]:
    """What lies in a folder, hidden things left out, in no order. Raises PermissionError with the remedy."""
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except PermissionError as error:
        raise PermissionError(f"{folder} may not be read ({error.strerror}): give yourself the right to it") from error


def _found_suffixes(folder: Path) -> str:
    """What is looked for, and what is there instead."""
    found = sorted({path.suffix.lower() or path.name for path in _list_folder(folder)})
    there = f"; it has {', '.join(found[:5])}" if found else ""
    return f"expected 0000000000.png and so on ({', '.join(PICTURES)}){there}"


def _frames(folder: Path, suffixes: Collection[str] = PICTURES) -> dict[tuple[int, ...], Path]:
    """Pictures of a folder (or files of other `suffixes`) by the numbers in their name, in order."""
    frames: dict[tuple[int, ...], Path] = {}
    left_out = []
    for path in _list_folder(folder):
        if path.suffix.lower() not in suffixes:
            left_out += [path.suffix] if path.suffix.lower() in OTHER_PICTURES else []
            continue
        key = frame_key(path)
        if not key:
            raise ValueError(f"{path} has no frame number in its name: rename or remove it")
        if key in frames:
            raise ValueError(f"{path} and {frames[key].name} are the same frame: keep one of them")
        frames[key] = path
    if frames and left_out:
        kinds = ", ".join(sorted(set(left_out)))
        warnings.warn(f"{folder}: {len(left_out)} files are left out ({kinds}): store them as .png", stacklevel=4)
    return dict(sorted(frames.items()))


def _find_truths(drive: Path, cameras: str, truth: str) -> tuple[dict[tuple[int, ...], Path], str]:
    """The files of truth of one kind by their frame, empty when there are none; and what they hold."""
    if truth not in TRUTHS:
        raise ValueError(f"truth is {truth!r}; it must be one of {', '.join(map(repr, TRUTHS))}")
    above = [
        folder / packed / side / name
        for folder in drive.parents[:3]
        for packed in ("", "data_depth_annotated")  # Windows' "Extract all" adds a folder of the archive's name
        for side in ("train", "val")
        for name in _own_names(drive)
    ]
    places = {
        "depth": [folder / TRUE_DEPTH[cameras] for folder in (drive, *above)],
        "disparity": [drive / name for name in TRUE_DISPARITY],
        "disparity-noc": [drive / name for name in TRUE_DISPARITY if "noc" in name],
        "scan": [drive / name for name in SCANS],
        "scan-x": [drive / name for name in SCANS],
    }
    for kind in ("depth", "disparity", "scan") if truth == "auto" else (truth,):
        for folder in places[kind]:
            files = _frames(folder, {".bin"} if kind.startswith("scan") else PICTURES) if folder.is_dir() else {}
            if files:
                return files, kind.removesuffix("-noc")
    return {}, ""


# --- drives and sides ---------------------------------------------------------------------------------------------


def is_drive(folder: Path) -> bool:
    return any((folder / left).is_dir() for pairs in CAMERAS.values() for pair in pairs for left in pair)


def find_drives(root: str | Path, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """All drives at `root` and up to two folders below it, by name: with date or split folders between, or none.

    A folder of a date is looked into wherever it is. Raises FileNotFoundError when `root` is missing or holds no
    drive, ValueError when two folders share a name that is `wanted` (None: any).
    """
    root = _own_path(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{root} is missing: give the folder that holds the drives as data_dir")
    found: dict[str, Path] = {}
    level = [root]
    for depth in range(4):
        below = []
        for folder in level:
            if is_drive(folder):
                name = folder.name
                if name in found:
                    if wanted is None or name in wanted:
                        told = f"two drives are named {name}: {found[name]} and {folder}"
                        raise ValueError(f"{told}; remove one, or give a folder further down as data_dir")
                    name = f"{folder.parent.name}/{name}"  # benchmarks of KITTI's have a folder "training" each
                found[name] = folder
            elif depth < 2 or re.fullmatch(r"\d{4}_\d\d_\d\d", folder.name):
                below += sorted(path for path in _list_folder(folder) if path.is_dir())
        level = below
    if not found:
        expected = f"{root}/train/<drive>/image_02/data, or {root}/train/<drive>/left for pictures of your own"
        raise FileNotFoundError(f"{root} holds no drive: expected folders such as {expected}")
    return found


def select_drives(root: str | Path, side: Side, names: str | Sequence[str] | None = None) -> dict[str, Path]:
    """The drives of one side ("train", "val" or "test").

    `names` None takes the folder train, vals or test below `root`; a split's name ("lab", "eigen-conform", "eigen",
    "stereo_2015") takes that split's drives; a list, or names separated by commas, takes those; "none" takes none. The
    test sides of "eigen" and "stereo_2015" are lists of frames: those of their drives that are there, of which
    `select_pairs` takes the list's frames. Raises FileNotFoundError naming what is missing and what is there.
    """
    root = Path(root)
    if side not in SPLIT_FOLDERS:
        raise ValueError(f"side is {side!r}; it must be 'train', 'val' or 'test'")
    if names is None:
        folder = root / SPLIT_FOLDERS[side]
        if root.is_dir() and not folder.is_dir():
            remedy = f"make it, or name drives with {side}_drives (a list, a split such as 'lab', or 'none')"
            raise FileNotFoundError(f"{folder} is missing: {remedy}")
        return find_drives(folder if root.is_dir() else root)
    if names == "none":
        return {}
    if side == "test" and isinstance(names, str) and names in TEST_LISTS:
        return _drives_of_list(root, names)
    if isinstance(names, str):
        names = SPLITS[names][side] if names in SPLITS else [name.strip() for name in names.split(",")]
    there = find_drives(root, names)
    by_name = {folder.resolve().name: folder for folder in there.values()} | there  # a link's own name comes first
    missing = [name for name in names if name not in by_name]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}; it has {', '.join(there)}")
    return {name: by_name[name] for name in names}


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
    side: Side,
    drives: str | Sequence[str] | None = None,
    *,
    cameras: CameraName = "colour",
    truth: TruthKind = "auto",
    bad_pairs: Literal["refuse", "skip"] = "refuse",
) -> list[Pair]:
    """The pairs of one side, every picture looked at: all frames of `select_drives`, or those of a test list.

    `truth`: see `find_pairs`; published Eigen figures are measured with "scan-x". A pair that `check_pictures` finds
    fault with, or that lacks a view, is an error with `bad_pairs` "refuse"; with "skip" it is left out and counted in a
    warning. Frames of a test list ("eigen", "stereo_2015") that are not there are counted and named in a warning.
    Raises FileNotFoundError or ValueError when no pair is left, ValueError for another word.
    """
    if bad_pairs not in ("refuse", "skip"):
        raise ValueError(f"bad_pairs is {bad_pairs!r}; it must be 'refuse' or 'skip'")
    pairs: dict[str, list[Pair]] = {}
    faults: list[str] = []
    for name, folder in select_drives(root, side, drives).items():
        if bad_pairs == "refuse":
            pairs[name] = find_pairs(folder, cameras, truth)
        else:
            pairs[name], alone = _pairs_and_alone(folder, cameras, truth)
            faults += [f"{path} {NO_PARTNER}" for path in alone]
    if side == "test" and isinstance(drives, str) and drives in TEST_LISTS:
        pairs = _listed(pairs, drives, Path(root))
    found = [pair for some in pairs.values() for pair in some]
    bad = check_pictures(found)
    faults += bad.values()
    if not faults:
        return found
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if bad_pairs == "refuse":
        raise ValueError(f"{faults[0]}{more}, or leave bad pairs out with bad_pairs='skip'")
    good = [pair for pair in found if pair not in bad]
    if not good:
        raise ValueError(f"{root} has no good pair for {side!r}: {faults[0]}{more}")
    warnings.warn(f"{len(faults)} of {len(good) + len(faults)} pairs are left out: {faults[0]}{more}", stacklevel=2)
    return good


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


def check_pictures(pairs: Sequence[Pair], workers: int = 8, whole: bool = False) -> dict[Pair, str]:
    """Looks at both pictures of every pair; those that cannot be used, each with what is wrong and the remedy.

    That is: a file that is empty, cut short, no picture or not to be read, views of unequal or next to no size. Seconds
    for the lab's 11,282 pairs: only the ends of a file are read. With `whole` every picture is decoded, which finds
    damage in the middle, too, and takes as long as an epoch's reading. `workers` are threads.
    """

    def fault(pair: Pair) -> str:
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


def check_equal_size(pair: Pair, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Raises ValueError naming both pictures when their sizes (width, height) differ."""
    if left != right:
        sizes = f"{pair.left} is {left[0]}x{left[1]} px, {pair.right} is {right[0]}x{right[1]} px"
        raise ValueError(f"{sizes}: both views of a pair must have one size; fetch them again or remove both")


def check_split(train: dict[str, Path], other: dict[str, Path]) -> None:
    """Raises ValueError naming the drives that are on both sides: neighbouring frames are nearly the same picture.

    Two links to one folder are one drive, whatever their names.
    """
    targets = {folder.resolve() for folder in train.values()}
    both = sorted(name for name, folder in other.items() if name in train or folder.resolve() in targets)
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


def read_calibration_file(path: str | Path, cameras: CameraName = "colour", width: int = 0) -> Calibration:
    """Reads a KITTI calibration of any kind: raw, stereo 2012 and 2015, odometry, object.

    B = (P_left[0,3] - P_right[0,3]) / f. The files of raw drives and stereo 2015 tell the pictures' width; for the
    others, give the `width` in px of the pictures, which must be KITTI's own. Raises ValueError naming file and line.
    """
    lines = read_calibration_lines(path)
    left, right = CAMERA_NUMBERS[cameras]
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


def nearest_file(drive: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in the drive or, if not there, in the three folders above it.

    For a symbolic link the folders around the link come first, those around what it points to second.
    """
    folders = [folder for place in (drive, drive.resolve()) for folder in (place, *place.parents[:3])]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _dated(drive: Path, file: str) -> list[str]:
    """A raw drive's file, beside the drive or in its date's folder, also as Windows' "Extract all" leaves it."""
    dates = [name[:10] for name in _own_names(drive)]
    return [file, *(f"{place}/{file}" for date in dates for place in (date, f"{date}_calib/{date}"))]


def _calibration_path(drive: Path, frame: str) -> Path | None:
    """The file that holds the calibration of a frame: your own, stereo 2015, stereo 2012 and object, odometry, raw."""
    scene = frame.partition("_")[0]
    of_frame = [f"calib_cam_to_cam/{scene}.txt", f"calib/{scene}.txt", "calib.txt"]
    return nearest_file(drive, ["camera.json", *of_frame, *_dated(drive, "calib_cam_to_cam.txt")])


def calibration(drive: str | Path, width: int, cameras: CameraName = "colour", frame: str = "") -> Calibration:
    """The calibration of a drive whose pictures are `width` px wide.

    Looks for your own `camera.json` and for KITTI's files in the drive, in the folders above it (three levels; the
    nearest counts) and, for raw drives, in their folder of the drive's date: `calib_cam_to_cam.txt` (raw), `calib.txt`
    (odometry), and, for a `frame` such as "000012_10", `calib/000012.txt` (object, stereo 2012) or
    `calib_cam_to_cam/000012.txt` (stereo 2015). Else it uses KITTI's table by picture width, with a warning. Raises
    ValueError when neither is there.
    """
    drive = _own_path(drive)
    path = _calibration_path(drive, frame)
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
    except PICTURE_ERRORS as error:
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
    path = _calibration_path(pair.folder, pair.left.stem)
    if path is None:
        raise FileNotFoundError(f"{pair.folder} has no calib_cam_to_cam.txt in or above it: fetch the date's calib.zip")
    if path.name == "camera.json":
        raise FileNotFoundError(f"{path} says nothing of a laser: only KITTI's scans can be used")
    lines = read_calibration_lines(path)
    rectify, move = np.eye(4), np.eye(4)
    if "Tr" in lines:
        move[:3] = _matrix(lines, "Tr", 4, path)
    elif "Tr_velo_to_cam" in lines:
        rectify[:3, :3] = _matrix(lines, "R0_rect", 3, path)
        move[:3] = _matrix(lines, "Tr_velo_to_cam", 4, path)
    else:
        name = "calib_velo_to_cam.txt"
        laser = nearest_file(pair.folder, _dated(pair.folder, name))
        if laser is None:
            raise FileNotFoundError(f"{pair.folder} has no {name} in or above it: fetch the date's calib.zip")
        rectify[:3, :3] = _matrix(lines, "R_rect_00", 3, path)
        laser_lines = read_calibration_lines(laser)
        move[:3] = np.hstack([_matrix(laser_lines, "R", 3, laser), _matrix(laser_lines, "T", 1, laser)])
    return _projection(lines, CAMERA_NUMBERS[pair.cameras][0], path) @ rectify @ move


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
