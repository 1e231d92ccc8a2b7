"""Matching: what both views tell."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import street_pair, texture, to_picture

from monodepth_lib import files, kitti, stereo


def test_holes_take_the_further_neighbour_of_their_row():
    filled = stereo.fill_holes(np.array([[0, 5, 0, 0, 3, 0], [0, 0, 0, 0, 0, 0], [2, 0, 0, 7, 0, 1]], dtype=np.float32))
    assert filled.tolist() == [[5, 5, 3, 3, 3, 3], [5, 5, 3, 3, 3, 3], [2, 2, 2, 7, 1, 1]]
    assert filled.dtype == np.float32
    assert stereo.fill_holes(np.zeros((2, 3))).tolist() == [[0, 0, 0]] * 2


@pytest.fixture
def street(tmp_path):
    """A pair of a near box (24 px) before a wall (6 px), 96x320, and its true left disparity (H, W)."""
    left, right, truth, _ = street_pair(96, 320, near=24, far=6)
    drive = tmp_path / "2020_01_01_drive_0001_sync"
    for folder, view in (("image_02", left), ("image_03", right)):
        (drive / folder / "data").mkdir(parents=True)
        to_picture(view).save(drive / folder / "data/0000000000.png")
    return kitti.find_pairs(drive)[0], truth[0, 0]


def test_semi_global_matching_finds_both_depths_and_answers_everywhere(street):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    pair, truth = street
    found = stereo.match_views(pair)
    assert found.shape == truth.shape and found.dtype == torch.float32
    assert (found > 0).all()
    off = (found - truth).abs() * 320
    assert off.median() < 0.5 and (off < 1).float().mean() > 0.93
    views = (np.asarray(Image.open(path).convert("L")) for path in (pair.left, pair.right))
    pixels = stereo.semi_global_matching(*views)
    assert (pixels == 0).any() and (pixels[pixels != 0] >= 1).all()


def test_semi_global_matching_sees_near_things_at_the_left_border(street):
    """The search goes 48 px to the left: within these columns OpenCV by itself has no answer."""
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    wall, box = texture(96, 326, seed=7), texture(96, 326, seed=8)
    views = [wall[..., shift // 4 : shift // 4 + 320].clone() for shift in (0, 12)]  # the wall: 3 px
    views[0][..., 14:44] = box[..., 14:44]
    views[1][..., 2:32] = box[..., 14:44]  # the box: 12 px
    for path, view in zip((street[0].left, street[0].right), views, strict=True):
        to_picture(view).save(path)
    found = stereo.match_views(street[0]) * 320
    assert ((found[:, 18:40] - 12).abs() < 1).float().mean() > 0.9


def test_views_of_two_sizes_are_named(street):
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    with Image.open(street[0].right) as image:
        smaller = image.resize((300, 96))
    smaller.save(street[0].right)
    with pytest.raises(ValueError, match=r"image_03.* both views of a pair must have one size"):
        stereo.match_views(street[0])


def test_the_pinned_opencv_is_the_one_the_table_names():
    text = (files.project_root() / "pyproject.toml").read_text()
    assert re.search(r'^sgm = \["(.+?)"\]', text, re.MULTILINE).group(1) == stereo.OPENCV


def test_the_search_finds_the_shift_and_hidden_pixels_are_left_of_near_things():
    right = torch.rand(1, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    found = stereo.search_disparity(right.roll(5, dims=-1), right)
    assert (found[:, 8:] == 5 / 64).all()
    noisy = right.roll(5, dims=-1) + 0.5 * torch.randn(right.shape, generator=torch.Generator().manual_seed(1))
    assert (stereo.search_disparity(noisy, right)[:, 8:] == 5 / 64).float().mean() > 0.95  # single pixels: 0.8
    disparity = torch.zeros(2, 64)
    disparity[:, 20:30] = 4 / 64  # a near thing covers the four pixels to its left
    assert stereo.hidden(disparity)[0].nonzero().flatten().tolist() == [16, 17, 18, 19]
    assert stereo.hidden(torch.full((1, 64), 3 / 64))[0].nonzero().flatten().tolist() == [0, 1, 2]
    disparity = torch.zeros(1, 64)
    disparity[0, 3], disparity[0, 5] = 10 / 64, 5 / 64  # the first one falls outside: it hides nothing
    assert stereo.hidden(disparity)[0].nonzero().flatten().tolist() == [0, 3]


@pytest.mark.parametrize("share", [0, 0.2, 0.97, 1])
def test_the_reference_is_the_truth_its_gaps_searched(share):
    left, right, truth, _ = street_pair(48, 160, near=12, far=4)
    focal_baseline = 0.3
    metres = (focal_baseline / truth[0, 0]).numpy().astype(np.float32)
    metres[np.random.default_rng(0).random(metres.shape) > share] = 0  # as a laser leaves them
    pair = SimpleNamespace(
        truth=Path("truth.png") if share else None,
        calibration=SimpleNamespace(focal_baseline=focal_baseline),
        ground_truth=lambda: metres,
    )
    reference, known, source = stereo.reference_disparity(pair, left, right)
    searched = stereo.search_disparity(left, right)
    assert torch.equal(known, torch.from_numpy(metres > 0) if share else torch.ones_like(known))
    if share:
        assert torch.allclose(reference[known], truth[0, 0][known], atol=1e-6) and source == "true disparity"
    if share < 1:
        gaps = torch.from_numpy(metres == 0)
        assert torch.equal(reference[gaps], searched[gaps] if share < 0.9 else torch.zeros_like(searched[gaps]))
    assert share or "no truth" in source


def test_known_disparity_at_another_size_blends_no_unknown_pixel_in():
    metres = np.zeros((8, 16), np.float32)
    metres[::2, ::2] = 10
    pair = SimpleNamespace(
        truth=Path("truth.png"), calibration=SimpleNamespace(focal_baseline=0.3), ground_truth=lambda: metres
    )
    assert torch.allclose(stereo.known_disparity(pair, (4, 8)), torch.tensor(0.03))
