"""Pictures to measure with: pairs of KITTI's size, as PNG and as JPEG, in a temporary folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from monodepth_lib import files, kitti
from monodepth_lib.files import read_picture

KITTI_SIZE = (1242, 375)  # width, height


def make_drive(folder: Path, source: Path | None, pairs: int, suffix: str = ".png") -> Path:
    """Writes a drive of `pairs` pairs to `folder`/drive in KITTI's layout, and returns it.

    `source` is a drive, or a folder of drives, of colour pictures; its first drive's are taken, in turn where they are
    fewer than `pairs`. PNG files are copied as they are. None takes the rendered sample, enlarged to KITTI's size, with
    noise as a camera has, since PNG's cost depends on it. JPEG is written with quality 92.
    """
    drive = folder / "drive"
    scene = next(iter(kitti.find_drives(source or files.project_root() / "data/sample").values()))
    found = kitti.find_pairs(scene)
    noise = np.random.default_rng(0)
    for number in range(pairs):
        pair = found[number % len(found)]
        for camera, path in (("image_02", pair.left), ("image_03", pair.right)):
            target = drive / camera / "data" / f"{number:010d}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            if number >= len(found):
                shutil.copyfile(drive / camera / "data" / f"{number % len(found):010d}{suffix}", target)
            elif source and path.suffix == suffix:
                shutil.copyfile(path, target)
            else:
                picture = read_picture(path)
                if not source:
                    values = np.asarray(picture.resize(KITTI_SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
                    noisy = values + noise.normal(0, 2, values.shape)
                    picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                picture.save(target, quality=92)
    return drive


def describe(drive: Path) -> str:
    """ "48 pairs of 1242x375, 0.84 MB a picture"."""
    files = sorted((drive / "image_02" / "data").iterdir())
    with Image.open(files[0]) as image:
        width, height = image.size
    size = sum(file.stat().st_size for file in files) / len(files) / 1e6
    return f"{len(files)} pairs of {width}x{height}, {size:.2f} MB a picture"
