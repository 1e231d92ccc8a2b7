"""The calibration of a drive's cameras, from KITTI's files or your own, and that of KITTI's laser scanner."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

CameraName = Literal["colour", "grey"]
CAMERA_NUMBERS = {"colour": (2, 3), "grey": (0, 1)}  # in KITTI's calibration files

# Focal length in px and baseline in metres, by the width of the rectified picture (each recording date of KITTI has its
# own width), from the calibration files of the raw data set. The grey cameras are a little further apart.
FOCAL_PX = {1224: 707.0493, 1226: 707.0912, 1238: 718.3351, 1241: 718.8560, 1242: 721.5377}
BASELINE_M = {
    "colour": {1224: 0.53726, 1226: 0.53790, 1238: 0.53014, 1241: 0.53233, 1242: 0.53273},
    "grey": {1224: 0.53714, 1226: 0.53715, 1238: 0.53719, 1241: 0.53717, 1242: 0.53715},
}


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
        """f·B/W in metres: depth = focal_baseline / d, with d the disparity as a fraction of its picture's width."""
        return self.focal_px * self.baseline_m / self.width


def check_camera(focal_px: float, baseline_m: float, width: int) -> None:
    """Raises ValueError, asking for the unit, for numbers that no camera has; `width` of the pictures in px."""
    if not 0 < baseline_m <= 10:
        asked = f". Is it in millimetres? Then write {baseline_m / 1000:g}" if baseline_m > 10 else ""
        raise ValueError(f"baseline_m is {baseline_m:g}; cameras stand more than 0 and at most 10 metres apart{asked}")
    if not 0.2 <= focal_px / width <= 5:
        raise ValueError(
            f"focal_px is {focal_px:g} for pictures {width} px wide; cameras have 0.2 to 5 times the width. Is it in "
            "millimetres? Then write it times the width in px, divided by the sensor's width in millimetres"
        )


def read_calibration_lines(path: str | Path) -> dict[str, np.ndarray]:
    """The lines "key: numbers" of a KITTI calibration file, float64; lines without numbers (a date) are skipped."""
    lines = {}
    for line in Path(path).read_text(encoding="ascii", errors="replace").splitlines():
        key, _, values = line.partition(":")
        with contextlib.suppress(ValueError):
            lines[key.strip()] = np.array(values.split(), dtype=float)
    return lines


def _matrix(lines: dict[str, np.ndarray], key: str, columns: int, path: str | Path) -> np.ndarray:
    """The matrix (3, columns) of a line. Raises ValueError naming the file and the missing line."""
    values = lines.get(key, np.empty(0))
    if values.size != 3 * columns or not np.isfinite(values).all():
        lack = f"it has no line {key} of {3 * columns} numbers"
        raise ValueError(f"{path} is not a whole KITTI calibration ({lack}): fetch the calibration archive again")
    return values.reshape(3, columns)


def _projection(lines: dict[str, np.ndarray], camera: int, path: str | Path) -> np.ndarray:
    """P (3, 4) of the rectified camera 0 to 3: the line P_rect_02 of raw drives and stereo 2015, else P2."""
    return _matrix(lines, f"P{camera}" if f"P{camera}" in lines else f"P_rect_{camera:02d}", 4, path)


def read_calibration_file(path: str | Path, cameras: CameraName = "colour", width: int = 0) -> Calibration:
    """Reads a KITTI calibration of any kind: raw, stereo 2012 and 2015, odometry, object.

    B = (P_left[0,3] - P_right[0,3]) / f. The files of raw drives and stereo 2015 hold the pictures' width. For the
    others, give the `width` in px; the pictures must have KITTI's own size. Raises ValueError naming file and line.
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
    if not (focal > 0 and 0 < baseline < np.inf and width > 0):
        raise ValueError(f"{path} gives f = {focal} px, B = {baseline} m, W = {width} px: all must be positive")
    return Calibration(focal, baseline, width, str(path), (float(p_left[0, 2]), float(p_left[1, 2])))


def read_camera_file(path: str | Path) -> Calibration:
    """Reads `camera.json`, the calibration of your own rectified cameras.

    {"focal_px": 721.5, "baseline_m": 0.53, "width": 1242, "centre_px": [609.6, 172.9]}: focal length in px, distance
    between the cameras in metres, the picture width in px at which the focal length holds (pictures of another
    width are fine), and, if known, the principal point (column, row). Raises ValueError naming the file and the key.
    """
    example = '{"focal_px": 721.5, "baseline_m": 0.53, "width": 1242}'
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


def own_path(drive: str | Path) -> Path:
    """The absolute path of a drive. A symbolic link keeps its own name, except in a path with ".."."""
    return Path(drive).resolve() if ".." in Path(drive).parts else Path(drive).absolute()


def own_names(drive: Path) -> list[str]:
    """The name of a drive and, for a symbolic link, the name of its target."""
    return list(dict.fromkeys([drive.name, drive.resolve().name]))


def nearest_file(drive: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is a file in the drive or, if not there, in the three folders above it.

    For a symbolic link, the folders above the link come first, then those above its target.
    """
    folders = [folder for place in (drive, drive.resolve()) for folder in (place, *place.parents[:3])]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _dated(drive: Path, file: str) -> list[str]:
    """Where a raw drive's file may be: beside the drive or in its date's folder, also after Windows' "Extract all"."""
    dates = [name[:10] for name in own_names(drive)]
    return [file, *(f"{place}/{file}" for date in dates for place in (date, f"{date}_calib/{date}"))]


def _calibration_path(drive: Path, frame: str) -> Path | None:
    """The calibration file of a frame, the first of: your own, stereo 2015, stereo 2012 or object, odometry, raw."""
    scene = frame.partition("_")[0]
    of_frame = [f"calib_cam_to_cam/{scene}.txt", f"calib/{scene}.txt", "calib.txt"]
    return nearest_file(drive, ["camera.json", *of_frame, *_dated(drive, "calib_cam_to_cam.txt")])


def calibration(drive: str | Path, width: int, cameras: CameraName = "colour", frame: str = "") -> Calibration:
    """The calibration of a drive whose pictures are `width` px wide.

    Looks for your own `camera.json` and for KITTI's files in the drive, in the folders above it (three levels; the
    nearest counts) and, for raw drives, in their folder of the drive's date: `calib_cam_to_cam.txt` (raw), `calib.txt`
    (odometry), and, for a `frame` such as "000012_10", `calib/000012.txt` (object, stereo 2012) or
    `calib_cam_to_cam/000012.txt` (stereo 2015). Without such a file it warns and uses KITTI's table by picture width.
    Raises ValueError when the table lacks the width.
    """
    drive = own_path(drive)
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


# --- laser scans: sparse true depth ---------------------------------------------------------------------------------


def read_scan(path: str | Path) -> np.ndarray:
    """A laser scan of KITTI: (N, 4) float32; x ahead, y to the left, z up in metres, and the reflectance.

    Raises ValueError naming a file that is not a laser scan.
    """
    content = Path(path).read_bytes()
    found = f"{len(content)} bytes, not 16 for each point"
    if content and len(content) % 16 == 0:
        points = np.frombuffer(content, dtype="<f4").reshape(-1, 4)
        if (np.abs(points[:, :3]) < 1000).all():  # the scanner reaches 120 m
            return points
        found = "points beyond 1 km"
    raise ValueError(f"{path} cannot be read as a laser scan ({found}): fetch it again or remove it")


def laser_to_picture(drive: Path, frame: str = "", cameras: CameraName = "colour") -> np.ndarray:
    """The matrix (3, 4) from a laser point (x, y, z, 1) to (u·Z, v·Z, Z) in the left picture; Z is its depth in m.

    Raw drives: P_rect_02 · R_rect_00 · [R|T] of `calib_velo_to_cam.txt` (grey cameras: P_rect_00); object: P2 ·
    R0_rect · Tr_velo_to_cam; odometry: P2 · Tr. Raises FileNotFoundError naming the file that is missing.
    """
    path = _calibration_path(drive, frame)
    if path is None:
        raise FileNotFoundError(f"{drive} has no calib_cam_to_cam.txt in or above it: fetch the date's calib.zip")
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
        laser = nearest_file(drive, _dated(drive, name))
        if laser is None:
            raise FileNotFoundError(f"{drive} has no {name} in or above it: fetch the date's calib.zip")
        rectify[:3, :3] = _matrix(lines, "R_rect_00", 3, path)
        laser_lines = read_calibration_lines(laser)
        move[:3] = np.hstack([_matrix(laser_lines, "R", 3, laser), _matrix(laser_lines, "T", 1, laser)])
    return _projection(lines, CAMERA_NUMBERS[cameras][0], path) @ rectify @ move


def project_scan(points: np.ndarray, matrix: np.ndarray, size: tuple[int, int], laser_x: bool = False) -> np.ndarray:
    """Laser points (N, 4) as sparse depth (H, W) of a picture of that `size`, float32 metres along the optical axis.

    0 = unknown; `matrix` comes from `laser_to_picture`. Points behind the scanner (x < 0) are dropped. u and v are
    rounded and reduced by 1, as in KITTI's Matlab development kit, whose pixels count from 1, and in the evaluation
    code of published figures (Monodepth, Monodepth2). It takes the laser's x as depth; x counts from the laser and is
    some 0.28 m larger. `laser_x` does the same. Of several points in a pixel the nearest one counts, because it
    hides the others. One fault of that code is not copied: its search for points in the same pixel confuses the last
    pixel of a row with the first pixel of the next row.
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
