"""Made-up stereo data with known truth: pairs, drives in KITTI's layouts, calibration files, tiny notebooks."""

from pathlib import Path

import nbformat
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from monodepth_lib import kitti
from monodepth_lib.data import prepare_dataloader

CAMERA_NAMES = {"colour": ("image_02", "image_03"), "grey": ("image_00", "image_01")}


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A random picture (1, 3, H, W) in [0, 1] with detail at several scales, so that every shift shows."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for cell in (16, 8, 4, 2):
        coarse = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=generator)
        total += F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (total / 4).clamp(0, 1)


def shifted_pair(height: int, width: int, shift: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(left, right) of one flat wall: what the left view has at x, the right one has at x - shift."""
    wide = texture(height, width + shift, seed)
    return wide[..., :width], wide[..., shift:]


def street_pair(height: int = 64, width: int = 128, near: int = 12, far: int = 3, seed: int = 0):
    """A near box before a wall: (left, right, d_left, d_right), disparities (1, 1, H, W) in fractions of the width."""
    wall, box = texture(height, width + near, seed), texture(height, width + near, seed + 1)
    mask = torch.zeros(1, 1, height, width + near)
    mask[..., height // 4 : -height // 8, width // 2 : width // 2 + width // 4] = 1

    def view(offset: float) -> tuple[torch.Tensor, torch.Tensor]:
        at_box, at_wall = int(offset * near), int(offset * far)
        inside = mask[..., at_box : at_box + width]
        colour = inside * box[..., at_box : at_box + width] + (1 - inside) * wall[..., at_wall : at_wall + width]
        return colour, (inside * near + (1 - inside) * far) / width

    (left, d_left), (right, d_right) = view(0), view(1)
    return left, right, d_left, d_right


def to_picture(image: torch.Tensor) -> Image.Image:
    """A tensor (1, 3, H, W) in [0, 1] as a Pillow picture."""
    return Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())


def write_uint16(path: Path, values: np.ndarray) -> Path:
    """Values · 256 as a 16-bit PNG, as KITTI stores depth and disparity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(values) * 256).round().astype(np.uint16)).save(path)
    return path


def make_drive(
    drive: Path,
    frames=range(3),
    *,
    cameras: str = "colour",
    size: tuple[int, int] = (32, 96),
    shift: int = 4,
    suffix: str = ".png",
    truth: bool = False,
    focal_baseline: float = 0.3,
    seed: int = 0,
) -> Path:
    """A drive in KITTI's layout: one wall a frame, `shift` px of disparity everywhere, true depth where asked for."""
    left_name, right_name = CAMERA_NAMES[cameras]
    for frame in frames:
        views = shifted_pair(*size, shift, seed * 1000 + frame)
        for name, view in zip((left_name, right_name), views, strict=True):
            path = drive / name / "data" / f"{frame:010d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_picture(view).save(path)
        if truth:
            depth = np.full(size, focal_baseline * size[1] / shift)
            write_uint16(drive / "proj_depth/groundtruth/image_02" / f"{frame:010d}.png", depth)
    return drive


def make_stereo_2015(root: Path, scenes: int = 3, size: tuple[int, int] = (32, 96), shift: int = 4) -> Path:
    """KITTI stereo 2015's layout: image_2, image_3 and disp_occ_0, one pair a scene, named 000000_10.png."""
    for scene in range(scenes):
        views = shifted_pair(*size, shift, scene)
        for folder, view in zip(("image_2", "image_3"), views, strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            to_picture(view).save(root / folder / f"{scene:06d}_10.png")
        disparity = np.full(size, float(shift))
        disparity[0] = 0  # unknown
        write_uint16(root / "disp_occ_0" / f"{scene:06d}_10.png", disparity)
    return root


def side_loader(root: Path, side: str, drives=None, *, cameras="colour", truth="auto", **options) -> DataLoader:
    """The loader of one side of a data folder, with `options` of `prepare_dataloader`."""
    pairs = kitti.select_pairs(root, side, drives, cameras=cameras, truth=truth)
    return prepare_dataloader(pairs, train=side == "train", **options)


def write_calibration(
    path: Path, focal: float = 721.5377, baseline: float = 0.53, width: int = 1242, grey_baseline: float = 0.54
) -> Path:
    """A calib_cam_to_cam.txt whose colour cameras stand `baseline` m apart, with KITTI's offset of the left one."""
    shifts = {"00": 0.0, "01": -focal * grey_baseline, "02": 44.0, "03": 44.0 - focal * baseline}
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.950000e-02"]
    for camera, shift in shifts.items():
        lines.append(f"S_rect_{camera}: {width:e} 3.75e+02")
        lines.append(f"P_rect_{camera}: {focal} 0 609.5593 {shift} 0 {focal} 172.854 0 0 0 1 0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def write_laser_calibration(folder: Path, name: str = "calib_velo_to_cam.txt") -> Path:
    """A calib_velo_to_cam.txt: the laser looks where the camera looks, 1 m behind it (depth is x - 1)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -1\ndelta_f: 0 0\n")
    return folder / name


def write_scan(path: Path, points) -> Path:
    """Laser points (x, y, z) as KITTI stores them, with a reflectance of 0.5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.asarray(points, dtype="<f4").reshape(-1, 3)
    np.hstack([points, np.full((len(points), 1), 0.5, "<f4")]).tofile(path)
    return path


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook of one cell tagged `parameters`, and those after it."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    others = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=[first, *others], metadata={"kernelspec": kernel}), path)
    return path
