"""The maker of random streets: KITTI's geometry, drives that open, and (where mitsuba is installed) true pairs."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monodepth_lib import kitti

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import render_streets as streets  # noqa: E402
from render_sample import BASE, calibration, warp_error  # noqa: E402


def test_calibration_is_the_committed_one():
    assert calibration() == (ROOT / "data/sample/2025_01_01/calib_cam_to_cam.txt").read_text()


@pytest.mark.parametrize("size", [(128, 416), (256, 832), (192, 640)])
def test_rays_pass_through_the_calibrated_pixels(size):
    rows = dict(line.split(": ") for line in calibration(*size).splitlines())
    p = np.array(rows["P_rect_02"].split(), float).reshape(3, 4)
    rays = streets.Lens(*size).rays().reshape(*size, 3)
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (70, 300)):
        u, v, one = p[:, :3] @ rays[y, x]
        assert (u, v, one) == pytest.approx((x, y, 1), abs=1e-3)
    right = np.array(rows["P_rect_03"].split(), float)[3]
    assert (p[0, 3] - right) / p[0, 0] == pytest.approx(BASE, abs=1e-5)


def test_spots_lie_evenly_over_a_pixel():
    spots = streets.spots(streets.RAYS)
    for axis in (0, 1):
        quarters = np.bincount(np.floor((spots[:, axis] + 0.5) * 4).astype(int), minlength=4)
        assert len(quarters) == 4 and quarters.min() >= 2
        assert abs(spots[:, axis].mean()) < 0.05
    assert np.abs(streets.ball(streets.RAYS).mean(0)).max() < 0.05


def test_warp_error_by_hand():
    size = (8, 416)
    z = np.full(size, streets.Lens(*size).f * BASE / 4)  # 4 px of disparity everywhere
    right = np.random.default_rng(0).uniform(0, 255, (*size, 3))
    left = np.roll(right, 4, axis=1)
    assert warp_error(left, right, z) < 1e-6
    assert warp_error(left, right, z / 2) > 30


def test_check_names_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="no pair with true depth: render some with --depth first"):
        streets.check(tmp_path)


def test_a_street_opens_as_a_drive_and_its_views_agree(tmp_path):
    pytest.importorskip("mitsuba", reason="renders only where mitsuba is installed: pip install -e .[render]")
    lens = streets.Lens(128, 416)
    number, made, _ = streets.job((tmp_path, 7, 2, 0, lens, True))
    assert (number, made) == (7, 2)
    (drive,) = kitti.select_drives(tmp_path, "train").values()
    pairs = kitti.find_pairs(drive)
    assert len(pairs) == 2
    for pair in pairs:
        with Image.open(pair.left) as left, Image.open(pair.right) as right:
            a, b = np.asarray(left, float), np.asarray(right, float)
        z = kitti.read_uint16(pair.truth).astype(float)
        assert warp_error(a, b, z) < 5  # of 255
        assert warp_error(a, b, z) < 0.5 * warp_error(b, a, z)
        assert z[z > 0].min() > 2 and z.max() > 60
        assert 40 < a.mean() < 200
    pairs[0].right.unlink()
    old = pairs[1].right.stat().st_mtime_ns
    assert streets.job((tmp_path, 7, 2, 0, lens, True))[1] == 1  # the missing one alone
    assert pairs[1].right.stat().st_mtime_ns == old
