"""What lies on disk and at the source: drives, frames, calibration, true depth, named splits.

A *drive* is one recording. Its pictures lie in one folder for each camera; a *pair* is the left and the right
picture of one moment, found by the number in the file's name. Both of KITTI's layouts open (date folders or none),
and KITTI stereo 2012/2015, whose `image_2` and `image_3` hold one pair a scene.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CAMERAS = {
    "colour": [("image_02/data", "image_03/data"), ("image_2", "image_3")],
    "grey": [("image_00/data", "image_01/data"), ("image_0", "image_1")],
}
PICTURES = {".png", ".jpg", ".jpeg"}
SPLIT_FOLDERS = {"train": "train", "val": "vals", "test": "test"}

# Where true depth may lie inside a drive: KITTI's depth layout (metres·256), then stereo 2012/2015 (pixels·256).
TRUE_DEPTH = {"colour": "proj_depth/groundtruth/image_02", "grey": "proj_depth/groundtruth/image_00"}
TRUE_DISPARITY = ("disp_occ_0", "disp_occ", "disp_noc_0", "disp_noc")

# The thirteen drives of the lab this project grew from, split so that no drive is on two sides.
# "lab" follows the split of the authors' code inside the thirteen; eight of them are Eigen test drives, so an
# Eigen number of a model trained on "lab" would be measured on its own training drives: use "eigen-conform" for that.
SPLITS = {
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
}

# Focal length in px by the width of the rectified picture (which tells KITTI's recording date) and the baselines in
# metres, from the calibration files of the raw data set. The grey cameras stand a little further apart.
FOCAL_PX = {1224: 707.0493, 1226: 707.0912, 1238: 718.3351, 1241: 718.8560, 1242: 721.5377}
BASELINE_M = {
    "colour": {1224: 0.53726, 1226: 0.53790, 1238: 0.53014, 1241: 0.53233, 1242: 0.53273},
    "grey": {1226: 0.53715, 1238: 0.53719, 1241: 0.53717, 1242: 0.53715},
}


def project_root() -> Path:
    """The project's folder: the first one upward from here, else from this file, with our `pyproject.toml`."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "monodepth_lib").is_dir():
                return folder
    return Path.cwd()


def project_path(path: str | Path) -> Path:
    """`path` itself where it is absolute; a relative one counts from the project's folder, wherever one stands."""
    return project_root() / Path(path).expanduser()


# --- drives and pairs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The left and right picture of one moment. `name` is "drive/file", so that every output says where it is from."""

    folder: Path
    left: Path
    right: Path
    truth: Path | None = None

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


def is_drive(folder: Path) -> bool:
    return any((folder / left).is_dir() for pairs in CAMERAS.values() for pair in pairs for left in pair)


def find_drives(root: str | Path) -> dict[str, Path]:
    """All drives at `root` and up to two folders below it, by name: with date or split folders between, or none.

    Raises FileNotFoundError when `root` is missing or holds no drive, ValueError when two folders share a name.
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
                    raise ValueError(f"two drives are named {name}: {found[name]} and {folder}; remove one")
                found[name] = folder
            elif depth < 2:
                below += sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        level = below
    if not found:
        raise FileNotFoundError(f"{root} holds no drive: expected folders such as {root}/train/<drive>/image_02/data")
    return found


def select_drives(root: str | Path, mode: str, drives: str | list[str] | None = None) -> dict[str, Path]:
    """The drives of one side ("train", "val" or "test").

    `drives` None takes the folder train, vals or test below `root`; a split's name ("lab", "eigen-conform") takes that
    split's drives; a list, or names parted by commas, takes those; "none" takes none. Raises FileNotFoundError naming
    what is missing and what is there.
    """
    root = Path(root)
    if mode not in SPLIT_FOLDERS:
        raise ValueError(f"mode is {mode!r}; it must be 'train', 'val' or 'test'")
    if drives is None:
        folder = root / SPLIT_FOLDERS[mode]
        if root.is_dir() and not folder.is_dir():
            remedy = f"make it, or name drives with {mode}_drives (a list, a split such as 'lab', or 'none')"
            raise FileNotFoundError(f"{folder} is missing: {remedy}")
        return find_drives(folder)
    if drives == "none":
        return {}
    if isinstance(drives, str):
        drives = SPLITS[drives][mode] if drives in SPLITS else [name.strip() for name in drives.split(",")]
    there = find_drives(root)
    missing = [name for name in drives if name not in there]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}; it has {', '.join(there)}")
    return {name: there[name] for name in drives}


def check_split(train: dict[str, Path], other: dict[str, Path]) -> None:
    """Raises ValueError naming the drives that are on both sides: neighbouring frames are nearly the same picture."""
    both = sorted(set(train) & set(other))
    if both:
        raise ValueError(f"{', '.join(both)} would be in train and held out too: choose other drives for one side")


def _frames(folder: Path) -> dict[tuple[int, ...], Path]:
    """Pictures of a folder by the numbers in their name (KITTI stereo: scene and moment), in order."""
    frames: dict[tuple[int, ...], Path] = {}
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if path.name.startswith(".") or path.suffix.lower() not in PICTURES:
            continue
        key = tuple(int(digits) for digits in re.findall(r"\d+", path.stem))
        if not key:
            raise ValueError(f"{path} has no frame number in its name: rename or remove it")
        if key in frames:
            raise ValueError(f"{path} and {frames[key].name} are the same frame: keep one of them")
        frames[key] = path
    return dict(sorted(frames.items()))


def find_pairs(drive: str | Path, cameras: str = "colour") -> list[Pair]:
    """The pairs of one drive in the order of their numbers, with the file of true depth where there is one.

    Raises FileNotFoundError when a picture has no partner (named) or the drive has no picture.
    """
    drive = Path(drive).resolve()
    left_folder, right_folder = camera_folders(drive, cameras)
    left, right = _frames(left_folder), _frames(right_folder)
    alone = [left.get(key) or right[key] for key in sorted(left.keys() ^ right.keys())]
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise FileNotFoundError(f"{alone[0]}{more} has no partner in the other camera's folder: add or remove it")
    if not left:
        raise FileNotFoundError(f"{left_folder} holds no picture: expected 0000000000.png and so on")
    truth_folders = [drive / folder for folder in (TRUE_DEPTH[cameras], *TRUE_DISPARITY)]
    truths = next((_frames(folder) for folder in truth_folders if folder.is_dir()), {})
    return [Pair(drive, left[key], right[key], truths.get(key)) for key in left]


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
    def metres(self) -> float:
        """f·B/W in metres: depth = metres / d, with d the disparity as a fraction of the width (any picture size)."""
        return self.focal_px * self.baseline_m / self.width


def read_calibration_file(path: str | Path, cameras: str = "colour") -> Calibration:
    """Reads KITTI's `calib_cam_to_cam.txt`. B = (P_left[0,3] - P_right[0,3]) / f. Raises ValueError naming the line."""
    left, right = ("02", "03") if cameras == "colour" else ("00", "01")
    lines = {}
    for line in Path(path).read_text(encoding="ascii", errors="replace").splitlines():
        key, _, values = line.partition(":")
        lines[key.strip()] = values
    try:
        p_left = np.array(lines[f"P_rect_{left}"].split(), dtype=float).reshape(3, 4)
        p_right = np.array(lines[f"P_rect_{right}"].split(), dtype=float).reshape(3, 4)
        width = int(float(lines[f"S_rect_{left}"].split()[0]))
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not a KITTI camera calibration ({error}): fetch the date's calib.zip") from error
    focal = float(p_left[0, 0])
    baseline = float(p_left[0, 3] - p_right[0, 3]) / focal if focal > 0 else 0.0
    if not (focal > 0 and baseline > 0 and width > 0):
        raise ValueError(f"{path} gives f = {focal} px, B = {baseline} m, W = {width} px: all must be positive")
    return Calibration(focal, baseline, width, str(path), (float(p_left[0, 2]), float(p_left[1, 2])))


def calibration(drive: str | Path, width: int, cameras: str = "colour") -> Calibration:
    """The calibration of a drive whose pictures are `width` px wide.

    Looks for `calib_cam_to_cam.txt` in the drive, in the folders above it (three levels) and in their folder of the
    drive's date; else uses KITTI's table by picture width, with a warning. Raises ValueError when neither is there.
    """
    drive = Path(drive).resolve()
    date = drive.name[:10]
    for folder in (drive, *list(drive.parents)[:3]):
        for path in (folder / "calib_cam_to_cam.txt", folder / date / "calib_cam_to_cam.txt"):
            if path.is_file():
                return read_calibration_file(path, cameras)
    if width not in BASELINE_M[cameras]:
        raise ValueError(
            f"{drive} has no calib_cam_to_cam.txt, and its pictures are {width} px wide, a width KITTI does not have: "
            "put the date's calibration file beside the drive"
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
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a 16-bit PNG ({error}): fetch it again or remove it") from error


def read_truth(pair: Pair, calibration: Calibration) -> np.ndarray:
    """True depth of a pair's left view in metres, float32 (H, W), 0 = unknown, from a depth or a disparity file."""
    if pair.truth is None:
        raise ValueError(f"{pair.name} has no true depth")
    values = read_uint16(pair.truth)
    if pair.truth.parent.name not in TRUE_DISPARITY:
        return values
    focal_baseline = calibration.metres * values.shape[1]  # px·m at the truth's own width
    return np.divide(focal_baseline, values, out=np.zeros_like(values), where=values > 0)
