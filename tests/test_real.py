"""KITTI's own pictures and truth, where MONODEPTH_KITTI names a folder that holds a sample of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import kitti, testing
from monodepth_lib.data import prepare_dataloader
from monodepth_lib.depth import resize_map
from monodepth_lib.losses import warp

pytestmark = pytest.mark.skipif(
    "MONODEPTH_KITTI" not in os.environ, reason="MONODEPTH_KITTI is not set: it names a folder with KITTI pictures"
)

FRAMES = {
    "2011_09_26_drive_0039_sync": 200,
    "2011_09_30_drive_9001_sync": 51,
    "2011_10_03_drive_0027_sync": 100,
    "2011_10_03_drive_9002_sync": 51,
    "stereo_2012_part_sync": 158,
}


@pytest.fixture(scope="module")
def root():
    return Path(os.environ["MONODEPTH_KITTI"])


def test_every_training_and_validation_pair_is_found(root):
    drives = kitti.select_drives(root, "train")
    assert {name: len(kitti.find_pairs(folder, "grey")) for name, folder in drives.items()} == FRAMES
    assert sum(FRAMES.values()) == 560
    colour = kitti.find_drives(root / "train_colour")
    assert sum(len(kitti.find_pairs(folder)) for folder in colour.values()) == 129
    held_out = kitti.select_drives(root, "val")
    assert [len(kitti.find_pairs(folder, "grey")) for folder in held_out.values()] == [49]
    kitti.check_split(drives, held_out)


def test_colour_is_refused_where_there_is_grey_alone(root):
    with pytest.raises(FileNotFoundError, match="use cameras='grey'"):
        kitti.find_pairs(root / "train/2011_10_03_drive_0027_sync")


def test_four_sizes_in_one_folder_load_as_one_batch(root):
    pairs = kitti.find_pairs(root / "train/stereo_2012_part_sync", "grey")
    sizes = {}
    for index, pair in enumerate(pairs):
        with Image.open(pair.left) as image:
            sizes.setdefault(image.size, index)
    assert set(sizes) == {(1242, 375), (1241, 376), (1226, 370), (1238, 374)}
    loader = prepare_dataloader(pairs, size=(64, 208), batch_size=4)
    batch = loader.collate_fn([loader.dataset[index] for index in sizes.values()])
    assert batch["left_image"].shape == (4, 3, 64, 208)
    assert torch.equal(batch["left_image"][:, 0], batch["left_image"][:, 1])  # grey


def test_calibration_from_the_dates_file(root, recwarn):
    drive = kitti.find_drives(root / "raw/2011_09_26")["2011_09_26_drive_0048_sync"]
    camera = kitti.calibration(drive, 1242)
    assert (camera.focal_px, camera.width) == (721.5377, 1242)
    assert camera.baseline_m == pytest.approx(0.53273, abs=1e-5)
    assert camera.source.endswith("2011_09_26/calib_cam_to_cam.txt")
    grey = kitti.calibration(drive, 1242, "grey")
    assert grey.focal_px * grey.baseline_m == pytest.approx(387.574, abs=0.01)
    assert not recwarn.list


def test_calibration_from_the_table_with_a_warning(root):
    drive = kitti.find_drives(root / "raw/2011_10_03")["2011_10_03_drive_0034_sync"]
    pairs = kitti.find_pairs(drive)
    assert len(pairs) == 12
    with Image.open(pairs[0].left) as image, pytest.warns(UserWarning, match="no calib_cam_to_cam"):
        camera = pairs[0].calibration
        assert camera.width == image.width
    assert (camera.width, camera.focal_px, camera.baseline_m) == (1241, 718.856, 0.53233)


@pytest.fixture(scope="module")
def scanned(root):
    """The frames of Eigen's test list that lie in `raw`, with their laser scans."""
    with pytest.warns(UserWarning, match="has 3 of the 697 frames of 'eigen'"):
        return kitti.select_pairs(root / "raw", "test", "eigen")


def test_eigens_frames_have_scans_and_other_drives_do_not(root, scanned):
    assert [pair.name for pair in scanned] == [f"2011_09_26_drive_0048_sync/{frame:010d}" for frame in range(3)]
    assert {pair.truth_kind for pair in scanned} == {"scan"}
    other = kitti.find_drives(root / "raw/2011_10_03")["2011_10_03_drive_0034_sync"]
    assert not any(pair.truth for pair in kitti.find_pairs(other))


def test_scans_are_sparse_depth_of_the_street(scanned):
    for pair in scanned:
        truth, camera = torch.from_numpy(pair.ground_truth()), pair.calibration
        known = truth > 0
        assert truth.shape == (375, 1242) and camera.source.endswith("calib_cam_to_cam.txt")
        assert 0.03 < known.float().mean() < 0.05
        assert not known[:100].any()  # the laser looks 2 degrees up at most
        assert known[150:].float().mean(1).min() > 0
        assert 2 < truth[known].min() < 5 < truth[known].median() < 20 < truth[known].max() < 120


def test_the_right_view_moved_by_the_scans_disparity_is_the_left_one(scanned):
    """Best with the disparity itself: a pixel more or less on either side is worse."""
    errors = dict.fromkeys((-2, -1, 0, 1, 2), 0.0)
    for pair in scanned:
        truth, camera = torch.from_numpy(pair.ground_truth()), pair.calibration
        known = (truth > 4) & (truth < 40)
        d = torch.where(known, camera.focal_baseline / truth.clamp(min=1e-3), 0.0)[None, None]
        left, right = (
            torch.from_numpy(np.asarray(Image.open(path).convert("L"), dtype=np.float32))[None, None] / 255
            for path in (pair.left, pair.right)
        )
        for more in errors:
            moved = warp(right, -(d + more / camera.width))
            errors[more] += (left - moved).abs()[0, 0][known].mean().item()
    assert min(errors, key=errors.__getitem__) == 0
    assert errors[0] < 0.9 * min(errors[-2], errors[2])


@pytest.mark.filterwarnings("ignore:.*no calib_cam_to_cam")
@pytest.mark.parametrize("folder, cameras, count", [("stereo_2012", "grey", 49), ("stereo_2015", "colour", 65)])
def test_stereo_truth_is_depth_of_the_left_view(root, folder, cameras, count):
    pairs = kitti.find_pairs(root / folder, cameras)
    assert len(pairs) == count and all(pair.truth for pair in pairs)
    for pair in pairs[::16]:
        truth, camera = torch.from_numpy(pair.ground_truth()), pair.calibration
        pixels = np.asarray(Image.open(pair.truth), dtype=np.float64) / 256
        known = pixels > 0
        assert np.array_equal(truth.numpy() > 0, known)
        assert 0.1 < known.mean() < 0.5
        focal_baseline = camera.focal_px * camera.baseline_m
        assert np.allclose(truth.numpy()[known], focal_baseline / pixels[known], rtol=1e-4)
        assert 2 < np.median(truth.numpy()[known]) < 40
        with Image.open(pair.left) as image:
            assert image.size == (truth.shape[1], truth.shape[0])


def test_focal_times_baseline_of_the_stereo_cameras(root):
    with pytest.warns(UserWarning):
        grey = kitti.find_pairs(root / "stereo_2012", "grey")[0].calibration
        colour = kitti.find_pairs(root / "stereo_2015")[0].calibration
    known = {1226: 379.815, 1238: 385.885, 1241: 386.145, 1242: 387.574}
    assert grey.focal_px * grey.baseline_m == pytest.approx(known[grey.width], abs=0.01)
    assert colour.focal_px * colour.baseline_m == pytest.approx(384.38, abs=0.01)


@pytest.mark.filterwarnings("ignore:.*no calib_cam_to_cam")
@pytest.mark.parametrize("folder, cameras", [("stereo_2012", "grey"), ("stereo_2015", "colour")])
def test_sign_of_real_disparity(root, folder, cameras):
    """The right view moved by the true disparity is like the left one, moved the other way it is not."""
    pairs = kitti.find_pairs(root / folder, cameras)[::16]
    sums = np.zeros(2)
    for pair in pairs:
        truth, camera = torch.from_numpy(pair.ground_truth()), pair.calibration
        known = truth > 0
        d = torch.where(known, camera.focal_baseline / truth.clamp(min=1e-3), 0.0)[None, None]
        left, right = (
            torch.from_numpy(np.asarray(Image.open(path).convert("L"), dtype=np.float32))[None, None] / 255
            for path in (pair.left, pair.right)
        )
        sums += [(left - warp(right, sign * d)).abs()[0, 0][known].mean().item() for sign in (-1, 1)]
    assert sums[0] < 0.5 * sums[1]


@pytest.mark.filterwarnings("ignore:.*no calib_cam_to_cam")
def test_true_disparity_scores_perfectly_and_half_of_it_does_not(root):
    pairs = kitti.find_pairs(root / "stereo_2015")[:2]
    truths = [(torch.from_numpy(pair.ground_truth()), pair.calibration) for pair in pairs]
    disparities = [torch.where(t > 0, c.focal_baseline / t.clamp(min=1e-3), 0.0) for t, c in truths]
    perfect, half = (testing.score(pairs, [scale * d for d in disparities]) for scale in (1, 0.5))
    assert all(row["abs_rel"] < 1e-5 and row["d1_all"] == 0 for row in perfect)
    # twice the depth, of which the cap at 80 m takes some
    assert all(0.7 < row["abs_rel"] <= 1.001 and row["d1_all"] > 0.9 for row in half)
    assert resize_map(disparities[0], (128, 416)).shape == (128, 416)
