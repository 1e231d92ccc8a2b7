"""The data on disk: drives, pairs, true depth, named splits.

A *drive* is one recording. Its pictures lie in one folder per camera; a *pair* is the left and the right picture of
one moment, found by the number in the file's name. Both of KITTI's layouts work (with date folders or without), and
KITTI stereo 2012/2015, whose `image_2` and `image_3` hold one pair a scene. A drive of your own has the folders
`left` and `right`, and a `camera.json` in it or above it (`calibration.read_camera_file`).
"""

from __future__ import annotations

import functools
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

from .calibration import (
    Calibration,
    CameraName,
    calibration,
    laser_to_picture,
    own_names,
    own_path,
    project_scan,
    read_scan,
)
from .files import OTHER_PICTURES, PICTURE_ERRORS, PICTURES, picture_size
from .files import project_path as project_path

Side = Literal["train", "val", "test"]
TruthKind = Literal["auto", "depth", "disparity", "disparity-noc", "scan", "scan-x"]

TRUTHS = get_args(TruthKind)
SPLIT_FOLDERS: dict[str, str] = {"train": "train", "val": "vals", "test": "test"}
SMALLEST_SIDE = 8  # px; smaller views hold too little to be matched

# Folders of the left and right pictures; "left" and "right" are those of your own drives.
CAMERAS = {
    "colour": [("image_02/data", "image_03/data"), ("image_2", "image_3"), ("left", "right")],
    "grey": [("image_00/data", "image_01/data"), ("image_0", "image_1")],
}

# Where truth may lie inside a drive: KITTI's depth layout (metres·256), stereo 2012/2015 (pixels·256), laser scans.
TRUE_DEPTH = {"colour": "proj_depth/groundtruth/image_02", "grey": "proj_depth/groundtruth/image_00"}
TRUE_DISPARITY = ("disp_occ_0", "disp_occ", "disp_noc_0", "disp_noc")
SCANS = ("velodyne_points/data", "velodyne")  # raw drives; odometry and object


# --- splits and test lists: text files beside this module -------------------------------------------------------


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", name))


def frame_key(path: Path) -> tuple[int, ...]:
    """The numbers in a file's name: (5,) for 0000000005.png, scene and moment (12, 10) for stereo's 000012_10.png."""
    return _numbers(path.stem)


def read_list(name: str) -> list[str]:
    """The lines of `splits/NAME.txt` without empty lines and comments (#)."""
    text = (Path(__file__).parent / "splits" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def read_test_list(name: str) -> dict[str, set[tuple[int, ...]]]:
    """A test set of single frames: drive -> the frames' numbers (see `frame_key`), of a list, one a line."""
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
        "eigen": "train val",  # their test side is a test list
        "stereo_2015": "train val",
    }.items()
}
TEST_LISTS = {name: read_test_list(name) for name in ("eigen", "stereo_2015")}
STEREO_2015_DRIVES = read_list("stereo_2015_scenes")


# --- pairs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The left and right picture of one moment, with their files, cameras and calibration.

    `truth` is the file of true depth, if there is one, and `truth_kind` is what it holds: "depth", "disparity", "scan",
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
        """ "drive/frame": every output can name its source."""
        return f"{self.folder.name}/{self.left.stem}"

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The cameras' calibration, from the drive's files, else from KITTI's table (see `calibration`)."""
        return calibration(self.folder, picture_size(self.left)[0], self.cameras, self.left.stem)

    def ground_truth(self) -> np.ndarray:
        """True depth of the left view in metres, float32 (H, W), 0 = unknown.

        Raises ValueError when the pair has no truth, or when truth and picture differ in size.
        """
        if self.truth is None:
            raise ValueError(f"{self.name} has no true depth")
        width, height = picture_size(self.left)
        if self.truth_kind.startswith("scan"):
            points, matrix = read_scan(self.truth), laser_to_picture(self.folder, self.left.stem, self.cameras)
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

    `truth` picks the kind of ground truth. "depth": KITTI's improved depth or a dense one, in the drive or, as KITTI
    packs it, in `train/<drive>` or `val/<drive>` of a folder above. "disparity" (stereo 2012 and 2015): of all pixels
    if there is such a folder, else of the pixels that both cameras see; "disparity-noc": only of these. "scan": the
    laser's; "scan-x": the same, with the laser's x as depth (see `project_scan`). "auto": the first of depth, disparity
    and scan that the drive has. Raises FileNotFoundError for a picture without a partner (named) or a drive without
    pictures, ValueError for an unknown `truth`.
    """
    pairs, alone = _pairs_and_alone(drive, cameras, truth)
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise FileNotFoundError(f"{alone[0]}{more} {NO_PARTNER}")
    return pairs


NO_PARTNER = "has no partner in the other camera's folder: add or remove it"


def _pairs_and_alone(drive: str | Path, cameras: CameraName, truth: TruthKind) -> tuple[list[Pair], list[Path]]:
    """The pairs of `find_pairs`, and the pictures without a partner."""
    drive = own_path(drive)
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
            laser_to_picture(drive, scanned[0].left.stem, cameras)
        except (FileNotFoundError, ValueError) as error:  # training needs no truth
            warnings.warn(f"{drive.name}: its laser scans are left out, for {error}", stacklevel=3)
            pairs = [Pair(drive, pair.left, pair.right, cameras) for pair in pairs]
    return pairs, alone


def camera_folders(drive: Path, cameras: str) -> tuple[Path, Path]:
    """The folders (left, right) of a drive for `cameras` "colour" or "grey".

    Raises FileNotFoundError when the drive lacks one of them, ValueError for other `cameras`.
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
    """The entries of a folder without hidden ones, in no order. Raises PermissionError with the remedy."""
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except PermissionError as error:
        raise PermissionError(f"{folder} may not be read ({error.strerror}): change its permissions") from error


def _found_suffixes(folder: Path) -> str:
    """For an error message: which files are expected, and which suffixes are there instead."""
    found = sorted({path.suffix.lower() or path.name for path in _list_folder(folder)})
    there = f"; it has {', '.join(found[:5])}" if found else ""
    return f"expected 0000000000.png and so on, or left_0001 and right_0001 ({', '.join(PICTURES)}){there}"


def _frames(folder: Path, suffixes: Collection[str] = PICTURES) -> dict[tuple[int, ...], Path]:
    """Pictures of a folder (or files with other `suffixes`) by the numbers in their names, sorted by these."""
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
    """The files of one kind of truth by frame (empty when there are none), and what they hold."""
    if truth not in TRUTHS:
        raise ValueError(f"truth is {truth!r}; it must be one of {', '.join(map(repr, TRUTHS))}")
    above = [
        folder / packed / side / name
        for folder in dict.fromkeys([*drive.parents[:3], *drive.resolve().parents[:3]])
        for packed in ("", "data_depth_annotated")  # Windows' "Extract all" adds a folder of the archive's name
        for side in ("train", "val")
        for name in own_names(drive)
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
    """All drives at `root` or up to two folders below it, by name, with or without date and split folders between.

    A date folder counts as no level. Raises FileNotFoundError when `root` is missing or holds no drive, ValueError when
    two drives share a name that is `wanted` (None: any name).
    """
    root = own_path(root)
    if not os.path.isdir(root):
        fault = "is a file" if os.path.exists(root) else "is missing"
        raise FileNotFoundError(f"{root} {fault}: give the folder that holds the drives as data_dir")
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
                    name = f"{folder.parent.name}/{name}"  # every benchmark of KITTI has a folder "training"
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
    "stereo_2015") takes the drives of that split; a list, or names separated by commas, takes these; "none" takes none.
    The test sides of "eigen" and "stereo_2015" are lists of frames: this returns their drives that are below `root`,
    and `select_pairs` then takes the listed frames. Raises FileNotFoundError naming what is missing and what is there.
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
    by_name = {folder.resolve().name: folder for folder in there.values()} | there  # a link's own name counts first
    missing = [name for name in names if name not in by_name]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}; it has {', '.join(there)}")
    return {name: by_name[name] for name in names}


def is_stereo_2015(folder: Path) -> bool:
    """Whether the folder holds scenes of KITTI stereo 2015, by the names of its folders of true disparity."""
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
    """The pairs of one side, all pictures checked: all frames of `select_drives`, or those of a test list.

    `truth`: see `find_pairs`; published Eigen figures are measured with "scan-x". With `bad_pairs` "refuse", a pair
    that lacks a view or fails `check_pictures` is an error; with "skip" it is left out, and a warning counts them. A
    warning also names the missing frames of a test list ("eigen", "stereo_2015"). Raises FileNotFoundError or
    ValueError when no pair is left, ValueError for an unknown `bad_pairs`.
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
    """The pairs of every drive that are in a test list; a warning counts and names the missing frames."""
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


def check_pictures(pairs: Sequence[Pair]) -> dict[Pair, str]:
    """Checks both pictures of every pair; returns the unusable pairs, each with its fault and the remedy.

    Faults: a file that is empty, incomplete, not a picture or not readable, views of unequal size or below 8 px. It
    takes seconds for the lab's 11,282 pairs, because only the ends of a file are read: damage in the middle shows when
    the picture is used.
    """

    def fault(pair: Pair) -> str:
        try:
            left, right = picture_size(pair.left), picture_size(pair.right)
            check_equal_size(pair, left, right)
        except ValueError as error:
            return str(error)
        if min(left) < SMALLEST_SIDE:
            return f"{pair.left} is {left[0]}x{left[1]} px, too small to see anything in: fetch it again or remove it"
        return ""

    with ThreadPoolExecutor(8) as pool:
        return {pair: said for pair, said in zip(pairs, pool.map(fault, pairs), strict=True) if said}


def check_equal_size(pair: Pair, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Raises ValueError naming both pictures when their sizes (width, height) differ."""
    if left != right:
        sizes = f"{pair.left} is {left[0]}x{left[1]} px, {pair.right} is {right[0]}x{right[1]} px"
        raise ValueError(f"{sizes}: both views of a pair must have one size; fetch them again or remove both")


def check_split(train: dict[str, Path], other: dict[str, Path]) -> None:
    """Raises ValueError naming the drives on both sides, because neighbouring frames are nearly the same picture.

    Two links to the same folder are one drive, even with different names.
    """
    targets = {folder.resolve() for folder in train.values()}
    both = sorted(name for name, folder in other.items() if name in train or folder.resolve() in targets)
    if both:
        raise ValueError(f"{', '.join(both)} would be in train and held out too: choose other drives for one side")


def test_list_warning(train_drives: Collection[str] | None, test_pairs: Sequence[Pair]) -> str:
    """A warning to print beside metrics of `test_pairs` from Eigen's list or stereo 2015; "" when none is needed.

    `train_drives`: the names of all drives that the model was trained or chosen on; None when they are unknown.
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
            f"these are {test}, and the weights do not say which drives they were trained on: compare with published "
            f"figures only if none of the {len(drives)} drives of this test was among them"
        )
    seen = sorted(set(train_drives) & set(drives))
    if not seen:
        return ""
    clean = "'eigen', or on 'eigen-conform', for that" if name == "eigen" else f"{name!r} for that"
    return (
        f"these are {test}, and the model was trained or chosen on {', '.join(seen)}, drives of this test: do not "
        f"compare the figures with published ones; train on the split {clean}"
    )


def read_uint16(path: str | Path) -> np.ndarray:
    """A 16-bit PNG as float32, divided by 256 as KITTI stores depth (m) and disparity (px); 0 = unknown.

    Raises ValueError naming a file that is not a 16-bit picture.
    """
    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                raise ValueError(f"it has mode {image.mode}, not 16 bits")
            return np.asarray(image, dtype=np.float32) / 256
    except PICTURE_ERRORS as error:
        raise ValueError(f"{path} cannot be read as a 16-bit PNG ({error}): fetch it again or remove it") from error
