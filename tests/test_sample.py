"""The committed sample drives: complete, small, and true."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import kitti
from monodepth_lib.losses import warp

SAMPLE = Path(__file__).parents[1] / "data/sample"
SIDES = ("train", "val", "test")
METRES = 0.30947


@pytest.fixture(scope="module")
def drives():
    """Side -> drive name -> its pairs."""
    return {
        side: {name: kitti.find_pairs(folder) for name, folder in kitti.select_drives(SAMPLE, side).items()}
        for side in SIDES
    }


def test_enough_drives_and_pairs_in_few_bytes(drives):
    assert [len(drives[side]) >= least for side, least in zip(SIDES, (10, 2, 2), strict=True)] == [True] * 3
    assert sum(len(pairs) for side in SIDES for pairs in drives[side].values()) >= 200
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 25 * 10**6


def test_no_drive_is_on_two_sides(drives):
    names = [name for side in SIDES for name in drives[side]]
    assert len(names) == len(set(names))


def test_one_test_drive_is_long_enough_for_a_clip(drives):
    frames = [[int(pair.left.stem) for pair in pairs] for pairs in drives["test"].values()]
    assert any(len(f) >= 48 and f == list(range(f[0], f[0] + len(f))) for f in frames)


def test_pictures_are_128_by_416(drives):
    for side in SIDES:
        for pairs in drives[side].values():
            for path in (pairs[0].left, pairs[0].right):
                with Image.open(path) as image:
                    assert (image.size, image.mode) == ((416, 128), "RGB"), path


def test_truth_is_where_it_is_promised(drives):
    for side in SIDES:
        for name, pairs in drives[side].items():
            promised = pairs[:1] if side == "train" else pairs
            assert [pair.name for pair in promised if pair.truth is None] == [], name


def test_truth_reaches_from_near_to_far(drives):
    truths = [kitti.read_uint16(p.truth) for side in SIDES for pairs in drives[side].values() for p in pairs if p.truth]
    assert min(t[t > 0].min() for t in truths) < 8
    assert max(t.max() for t in truths) > 70
    assert all(t.shape == (128, 416) for t in truths)


def test_every_drive_has_the_calibration_of_the_set(drives, recwarn):
    for side in SIDES:
        for pairs in drives[side].values():
            assert pairs[0].calibration.focal_baseline == pytest.approx(METRES, abs=1e-4)
    assert not recwarn.list


def test_mean_inverse_depth_is_there_and_plausible():
    values = np.load(SAMPLE / "mean_inverse_depth.npy")
    assert (values.dtype, values.shape) == (np.float32, (128, 416))
    assert np.isfinite(values).all() and values.min() >= 0
    assert values[-16:].mean() > 2 * values[48:64].mean()  # the road before us is nearer than the horizon


def visible_in_both(disparity):
    """Pixels of the left view that the right one sees too, from the left disparity in px (H, W) alone."""
    at = np.arange(disparity.shape[1]) - disparity  # where each lands in the right view
    seen = at >= 0
    for row, places, values in zip(seen, at, disparity, strict=True):
        close = np.abs(places[:, None] - places[None, :]) <= 1
        nearer = values[None, :] >= values[:, None] + 1
        row &= ~(close & nearer).any(axis=1)
    return seen


def test_visibility_by_hand():
    wall = np.ones((1, 12))
    assert visible_in_both(wall).tolist() == [[False] + [True] * 11]
    wall[0, 6:9] = 4  # a box that hides what lands on 2, 3, 4 and 1 px beside it
    assert np.flatnonzero(~visible_in_both(wall)).tolist() == [0, 2, 3, 4, 5]


def checked_pairs(drives):
    """Every pair with truth: the first of each training drive, all of the others."""
    return [pair for side in SIDES for pairs in drives[side].values() for pair in pairs if pair.truth]


def to_batch(path):
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)[None]


def test_views_agree_under_the_true_depth_and_not_under_its_negative(drives):
    wrong = {}
    assert len(checked_pairs(drives)) >= 80
    for pair in checked_pairs(drives):
        truth = kitti.read_uint16(pair.truth)
        known = truth > 0
        disparity = np.divide(METRES, truth, out=np.zeros_like(truth), where=known)
        seen = known & visible_in_both(disparity * truth.shape[1])
        assert seen.mean() > 0.5, pair.name
        left, right, d = to_batch(pair.left), to_batch(pair.right), torch.from_numpy(disparity)[None, None]
        true, negated = ((left - warp(right, sign * d)).abs().mean(1)[0].numpy()[seen].mean() for sign in (-1, 1))
        if not (true <= 4 and true < 0.7 * negated):  # of 255
            wrong[pair.name] = f"{true:.1f}, negated {negated:.1f}"
    assert wrong == {}
