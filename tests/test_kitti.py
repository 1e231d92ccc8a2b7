"""Drives, frames, splits, calibration and truth as they lie on disk."""

import json
import pickle
import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from synthetic import (
    make_drive,
    make_stereo_2015,
    write_calibration,
    write_laser_calibration,
    write_scan,
    write_uint16,
)

from monodepth_lib import calibration, files, kitti

# the thirteen drives of the lab: date, number
LAB = [("2011_09_26", n) for n in (2, 14, 20, 35, 56, 79, 84, 101, 117)] + [
    ("2011_09_29", 71), ("2011_09_30", 20), ("2011_09_30", 33), ("2011_10_03", 27),
]  # fmt: skip
LAB_NAMES = {f"{date}_drive_{number:04d}_sync" for date, number in LAB}
EIGEN_TEST = {
    f"{date}_drive_{number:04d}_sync"
    for date, number in LAB
    if (date, number) not in {("2011_09_26", n) for n in (14, 35, 79)} | {("2011_09_30", 20), ("2011_09_30", 33)}
}


# --- splits ---


@pytest.mark.parametrize("split", kitti.SPLITS)
def test_no_drive_is_on_two_sides_of_a_split(split):
    for one, other in combinations(kitti.SPLITS[split].values(), 2):
        assert not set(one) & set(other)


@pytest.mark.parametrize("split", ["lab", "eigen-conform"])
def test_split_covers_the_thirteen_drives_once(split):
    names = [name for side in kitti.SPLITS[split].values() for name in side]
    assert len(names) == 13
    assert set(names) == LAB_NAMES


def test_eigen_conform_split_tests_on_all_eigen_drives_and_trains_on_none():
    assert len(EIGEN_TEST) == 8
    assert set(kitti.SPLITS["eigen-conform"]["test"]) == EIGEN_TEST


def test_published_splits_are_all_drives_but_those_of_the_test():
    """The paper: 61 scenes; 28 of Eigen's list and 33 others, 29 of stereo 2015 and 32 others."""
    eigen, stereo = ({drive for side in kitti.SPLITS[name].values() for drive in side} for name in kitti.TEST_LISTS)
    assert (len(eigen), len(stereo), len(kitti.STEREO_2015_DRIVES)) == (33, 32, 29)
    all_scenes = eigen | set(kitti.TEST_LISTS["eigen"])
    assert len(all_scenes) == 61 and all_scenes == stereo | set(kitti.STEREO_2015_DRIVES)


def test_training_sides_of_test_lists_are_whole_drives(tmp_path):
    for drive in kitti.SPLITS["eigen"]["val"]:
        make_drive(tmp_path / drive, [0, 1])
    assert len(kitti.select_pairs(tmp_path, "val", "eigen")) == 4
    with pytest.raises(FileNotFoundError, match=r"lacks 2011_09_26_drive_0001_sync, .*_0042_sync; it has"):
        kitti.select_pairs(tmp_path, "train", "eigen")


def test_check_split_names_the_shared_drive(tmp_path):
    train = {"a_sync": tmp_path / "a", "b_sync": tmp_path / "b"}
    kitti.check_split(train, {"c_sync": tmp_path / "c"})
    with pytest.raises(ValueError, match="b_sync"):
        kitti.check_split(train, {"b_sync": tmp_path / "elsewhere"})


# --- test lists ---


def test_eigens_list_has_697_frames_of_28_drives():
    frames = kitti.TEST_LISTS["eigen"]
    assert len(frames) == 28
    assert sum(map(len, frames.values())) == 697
    assert {name: len(found) for name, found in frames.items() if len(found) != 25} == {
        "2011_09_26_drive_0048_sync": 22
    }
    assert set(frames) & LAB_NAMES == EIGEN_TEST


@pytest.mark.parametrize(
    "drive, first, inside, outside, last",
    [  # read off the public lists
        ("2011_09_26_drive_0009_sync", 0, {176, 196, 212}, {1, 177, 180, 192, 404}, 388),
        ("2011_09_26_drive_0048_sync", 0, {1, 2, 20}, {22}, 21),
        ("2011_09_26_drive_0106_sync", 15, {35, 43}, {0, 23}, 219),
        ("2011_09_28_drive_0002_sync", 0, {12, 18, 72}, {15, 27, 42, 66, 69, 75}, 90),
        ("2011_09_29_drive_0071_sync", 0, {612, 735, 951}, {843, 987, 1058}, 1054),
        ("2011_10_03_drive_0027_sync", 0, {543, 734, 2363}, {724, 2182, 4543}, 4535),
    ],
)
def test_eigens_frames_of_some_drives(drive, first, inside, outside, last):
    numbers = {number for (number,) in kitti.TEST_LISTS["eigen"][drive]}
    assert (min(numbers), max(numbers)) == (first, last)
    assert inside <= numbers
    assert not outside & numbers


def test_eigens_list_takes_its_frames_and_names_what_is_missing(tmp_path):
    make_drive(tmp_path / "2011_09_26/2011_09_26_drive_0002_sync", [0, 1, 3, 66, 75])
    make_drive(tmp_path / "2011_09_26/2011_09_26_drive_0048_sync", range(24))
    make_drive(tmp_path / "2011_09_26/2011_09_26_drive_0014_sync", [0])
    with pytest.warns(UserWarning, match="has 25 of the 697 frames of 'eigen'") as caught:
        pairs = kitti.select_pairs(tmp_path, "test", "eigen")
    assert [int(p.left.stem) for p in pairs] == [0, 3, 75, *range(22)]
    said = str(caught[0].message)
    assert "all of 2011_09_26_drive_0009_sync, " in said and said.count("_sync") == 27  # 26 whole drives and 0002
    assert "of 2011_09_26_drive_0002_sync 6 9 12 " in said
    assert "0048" not in said and "0014" not in said


def test_two_folders_of_one_name_matter_only_where_the_name_is_wanted(tmp_path):
    make_drive(tmp_path / "object/training", [0], cameras="colour")
    scenes = make_stereo_2015(tmp_path / "scene_flow/training", 2)
    make_drive(tmp_path / "2020_01_01_drive_0001_sync", [0])
    assert list(kitti.select_drives(tmp_path, "train", "2020_01_01_drive_0001_sync")) == ["2020_01_01_drive_0001_sync"]
    assert kitti.select_drives(tmp_path, "test", "stereo_2015") == {"stereo_2015": scenes}
    for look in (lambda: kitti.find_drives(tmp_path), lambda: kitti.select_drives(tmp_path, "train", "training")):
        with pytest.raises(ValueError, match=r"two drives are named training: .* or give a folder further down"):
            look()


def test_a_whole_list_is_taken_without_a_word(tmp_path, monkeypatch):
    make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(4))
    monkeypatch.setitem(kitti.TEST_LISTS, "mine", {"2020_01_01_drive_0001_sync": {(1,), (3,)}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [p.left.stem[-1] for p in kitti.select_pairs(tmp_path, "test", "mine")] == ["1", "3"]


def test_drives_of_the_list_without_its_frames_are_an_error(tmp_path):
    make_drive(tmp_path / "2011_09_26_drive_0002_sync", [1, 2])
    with pytest.raises(FileNotFoundError, match="none of the 697 frames of 'eigen'"):
        kitti.select_pairs(tmp_path, "test", "eigen")


@pytest.mark.parametrize("name", kitti.TEST_LISTS)
def test_a_test_list_needs_its_drives(data_dir, name):
    with pytest.raises(FileNotFoundError, match=rf"no drive of the test list '{name}'; it has .*drive_0001_sync"):
        kitti.select_pairs(data_dir, "test", name)


def test_a_drive_of_eigens_list_cannot_be_trained_on_and_tested(tmp_path):
    make_drive(tmp_path / "2011_09_26_drive_0002_sync", [0])
    train = kitti.select_drives(tmp_path, "train", ["2011_09_26_drive_0002_sync"])
    with pytest.raises(ValueError, match="2011_09_26_drive_0002_sync"):
        kitti.check_split(train, kitti.select_drives(tmp_path, "test", "eigen"))


@pytest.mark.parametrize("folder", ["stereo_2015", "training"])
def test_stereo_2015_is_its_scenes_first_frames(tmp_path, folder):
    root = make_stereo_2015(tmp_path / "data" / folder, 3)
    make_drive(tmp_path / "data/2020_01_01_drive_0001_sync", [0])
    for side in ("image_2", "image_3"):  # KITTI's archive has the moment after each as well, without truth
        (root / side / "000001_11.png").write_bytes((root / side / "000001_10.png").read_bytes())
    for place in (tmp_path / "data", root):
        with pytest.warns(
            UserWarning, match=r"has 3 of the 200 frames of 'stereo_2015'; missing: .* 3_10 4_10.*172 more"
        ):
            pairs = kitti.select_pairs(place, "test", "stereo_2015")
        assert [pair.left.name for pair in pairs] == ["000000_10.png", "000001_10.png", "000002_10.png"]
        assert all(pair.truth for pair in pairs)


def test_pairs_of_a_side_are_those_of_its_drives_in_order(data_dir):
    pairs = kitti.select_pairs(data_dir, "train")
    assert [pair.folder.name[-6] for pair in pairs] == ["1"] * 5 + ["2"] * 4
    assert kitti.select_pairs(data_dir, "test", "none") == []


def eigen_pairs(*frames, drive="2011_09_26_drive_0048_sync"):
    folder = kitti.Path("/data") / drive
    return [kitti.Pair(folder, folder / f"image_02/data/{n:010d}.png", folder / f"{n}.png") for n in frames]


def test_figures_of_a_model_that_saw_drives_of_the_test_list_are_warned_of(tmp_path):
    lab = kitti.SPLITS["lab"]
    said = kitti.test_list_warning(lab["train"] + lab["val"], eigen_pairs(0, 1))
    assert "Eigen" in said and "eigen-conform" in said
    seen = {"2011_09_26_drive_0002_sync", "2011_09_26_drive_0020_sync", "2011_09_26_drive_0117_sync",
            "2011_10_03_drive_0027_sync"}  # fmt: skip
    assert {word.strip(",") for word in said.split() if "_drive_" in word} == seen
    assert "do not say which drives" in kitti.test_list_warning(None, eigen_pairs(0))
    scenes = kitti.find_pairs(make_stereo_2015(tmp_path / "training", 2))
    said = kitti.test_list_warning(kitti.SPLITS["eigen-conform"]["train"], scenes)
    assert "stereo 2015" in said and "2011_09_26_drive_0014_sync" in said and "_0035_" not in said
    assert "none of the 29 drives" in kitti.test_list_warning(None, scenes)


def test_figures_that_are_clean_or_of_no_test_list_are_not_warned_of(tmp_path):
    scenes = kitti.find_pairs(make_stereo_2015(tmp_path / "training", 2))
    for split, pairs in (("eigen-conform", eigen_pairs(0, 21)), ("eigen", eigen_pairs(0)), ("stereo_2015", scenes)):
        sides = kitti.SPLITS[split]
        assert kitti.test_list_warning(sides["train"] + sides["val"], pairs) == ""
    lab = kitti.SPLITS["lab"]["train"]
    for pairs in ([], eigen_pairs(0, 22), eigen_pairs(0, drive="2020_01_01_drive_0001_sync"), scenes + eigen_pairs(0)):
        assert kitti.test_list_warning(lab, pairs) == kitti.test_list_warning(None, pairs) == ""


# --- drives ---


def test_drives_are_found_flat_and_below_date_folders(tmp_path):
    make_drive(tmp_path / "flat/2020_01_01_drive_0001_sync", [0])
    make_drive(tmp_path / "nested/2020_01_02/2020_01_02_drive_0002_sync", [0])
    assert list(kitti.find_drives(tmp_path / "flat")) == ["2020_01_01_drive_0001_sync"]
    assert list(kitti.find_drives(tmp_path / "nested")) == ["2020_01_02_drive_0002_sync"]
    assert len(kitti.find_drives(tmp_path / "nested/2020_01_02/2020_01_02_drive_0002_sync")) == 1


def test_hidden_folders_are_no_drives(tmp_path):
    make_drive(tmp_path / "2020_01_01_drive_0001_sync", [0])
    make_drive(tmp_path / ".trash/2020_01_01_drive_0002_sync", [0])
    assert list(kitti.find_drives(tmp_path)) == ["2020_01_01_drive_0001_sync"]


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("train", ["2020_01_01_drive_0001_sync", "2020_01_01_drive_0002_sync"]),
        ("val", ["2020_01_01_drive_0003_sync"]),
        ("test", ["2020_01_01_drive_0004_sync"]),
    ],
)
def test_sides_come_from_the_folders_train_vals_test(data_dir, mode, expected):
    assert list(kitti.select_drives(data_dir, mode)) == expected


def test_drives_are_selected_by_list_by_commas_and_none(data_dir):
    names = ["2020_01_01_drive_0003_sync", "2020_01_01_drive_0001_sync"]
    assert list(kitti.select_drives(data_dir, "test", names)) == names
    assert list(kitti.select_drives(data_dir, "test", ", ".join(names))) == names
    assert kitti.select_drives(data_dir, "val", "none") == {}


def test_drives_are_selected_by_a_splits_name(tmp_path):
    for name in kitti.SPLITS["lab"]["val"]:
        (tmp_path / name[:10] / name / "image_02/data").mkdir(parents=True)
    assert list(kitti.select_drives(tmp_path, "val", "lab")) == kitti.SPLITS["lab"]["val"]
    with pytest.raises(FileNotFoundError, match="2011_09_26_drive_0002_sync"):
        kitti.select_drives(tmp_path, "train", "lab")


@pytest.mark.parametrize("drives", ["labb", ["2020_01_01_drive_9999_sync"]])
def test_unknown_drives_and_splits_are_named_with_what_is_there(data_dir, drives):
    with pytest.raises(FileNotFoundError, match=r"lacks (labb|2020_01_01_drive_9999_sync); it has .*drive_0001_sync"):
        kitti.select_drives(data_dir, "train", drives)


def test_unknown_and_missing_sides_are_named(tmp_path, data_dir):
    with pytest.raises(ValueError, match="'vals'"):
        kitti.select_drives(data_dir, "vals")
    make_drive(tmp_path / "train/2020_01_01_drive_0001_sync", [0])
    with pytest.raises(FileNotFoundError, match=r"vals is missing.*val_drives"):
        kitti.select_drives(tmp_path, "val")


def linked(link, target):
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    return link


def test_a_linked_drive_has_the_links_name_and_the_calibration_around_the_link(tmp_path):
    disk = tmp_path / "disk"
    for number in (1, 2):  # two folders of one name
        put(disk / f"rec{number}/seq/left", ["0001.png"])
        put(disk / f"rec{number}/seq/right", ["0001.png"])
        linked(tmp_path / f"mine/test/walk{number}", disk / f"rec{number}/seq")
    write_camera(tmp_path / "mine", CAMERA)
    drives = kitti.select_drives(tmp_path / "mine", "test")
    assert list(drives) == ["walk1", "walk2"]
    for name, drive in drives.items():
        (pair,) = kitti.find_pairs(drive)
        assert pair.name == f"{name}/0001" and pair.folder == tmp_path / "mine/test" / name
        assert pair.calibration.source == str(tmp_path / "mine/camera.json")
    (tmp_path / "mine/camera.json").unlink()
    write_camera(disk / "rec1", {**CAMERA, "focal_px": 700})  # second, around what the link points to
    assert kitti.find_pairs(drives["walk1"])[0].calibration.focal_px == 700


def test_a_linked_drive_is_found_by_either_name_with_its_scans_and_truth(tmp_path):
    drive = scanned_drive(tmp_path / "disk")
    depth = f"disk/train/{drive.name}/proj_depth/groundtruth/image_02/0000000001.png"
    write_uint16(tmp_path / depth, np.full((32, 96), 7.0))
    link = linked(tmp_path / "mine/test/walk", drive)
    for name in ("walk", drive.name):
        assert kitti.select_drives(tmp_path / "mine", "test", [name]) == {name: link}
    scans = kitti.find_pairs(link, truth="scan")
    assert [pair.truth_kind for pair in scans] == ["scan"] * 3
    assert scans[0].ground_truth().max() == 10.5
    assert [bool(pair.truth) for pair in kitti.find_pairs(link)] == [False, True, False]


def test_two_links_to_one_drive_are_not_two_drives_of_a_split(tmp_path):
    drive = make_drive(tmp_path / "disk/seq", [0])
    one, other = (linked(tmp_path / f"mine/{side}/walk_{side}", drive) for side in ("train", "vals"))
    with pytest.raises(ValueError, match="walk_vals would be in train and held out"):
        kitti.check_split({"walk_train": one}, {"walk_vals": other})


def test_archives_that_windows_unpacked_into_folders_of_their_names_are_found(tmp_path):
    name = "2020_01_01_drive_0001_sync"
    drive = make_drive(tmp_path / "data" / name / "2020_01_01" / name, range(2))
    write_calibration(tmp_path / "data/2020_01_01_calib/2020_01_01/calib_cam_to_cam.txt", focal=500.0, width=96)
    truth = f"data_depth_annotated/train/{name}/proj_depth/groundtruth/image_02/0000000000.png"
    write_uint16(tmp_path / "data" / truth, np.full((32, 96), 7.0))
    assert kitti.find_drives(tmp_path / "data") == {name: drive}
    pair = kitti.find_pairs(drive)[0]
    assert pair.calibration.focal_px == 500 and pair.ground_truth().max() == 7


# --- pairs ---


def put(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 4)).save(folder / name, format="PNG")


@pytest.mark.parametrize("suffix", [suffix for suffix in files.PICTURES if suffix != ".pgm"])
def test_pairs_of_every_format_that_is_read_are_found(tmp_path, suffix):
    drive = make_drive(tmp_path / "drive", range(2), suffix=suffix.upper())
    assert [pair.left.suffix for pair in kitti.select_pairs(tmp_path, "train", ["drive"])] == [suffix.upper()] * 2
    assert kitti.find_pairs(drive)[1].name == "drive/0000000001"


@pytest.mark.parametrize("side", ["image_02", "image_03"])
def test_a_folder_of_other_files_is_named_with_what_it_holds(tmp_path, side):
    drive = make_drive(tmp_path / "drive", range(2))
    for path in (drive / side / "data").iterdir():
        path.rename(path.with_suffix(".heic"))
    (drive / side / "data/notes").touch()
    said = rf"{side}/data holds no picture: expected .* \(\.png, \.jpg, .*\.webp.*\); it has \.heic, notes"
    with pytest.raises(FileNotFoundError, match=said):
        kitti.find_pairs(drive)


def test_pictures_of_formats_that_are_not_read_are_counted_beside_others(tmp_path):
    drive = make_drive(tmp_path / "drive", range(2))
    for side in ("image_02", "image_03"):
        (drive / side / "data/0000000002.heic").touch()
    with pytest.warns(UserWarning, match=r"image_0[23]/data: 1 files are left out \(\.heic\): store them as \.png"):
        assert len(kitti.find_pairs(drive)) == 2


def test_pairs_come_in_the_order_of_their_numbers(tmp_path):
    drive = tmp_path / "drive"
    put(drive / "image_02/data", ["10.png", "9.png", "2.png"])
    put(drive / "image_03/data", ["10.png", "9.png", "2.png"])
    assert [pair.name for pair in kitti.find_pairs(drive)] == ["drive/2", "drive/9", "drive/10"]


@given(st.dictionaries(st.integers(0, 10**6), st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1))
def test_pairing_is_by_frame_number_whatever_the_padding(tmp_path_factory, frames):
    drive = tmp_path_factory.mktemp("padding")
    for side, folder in enumerate(("image_02/data", "image_03/data")):
        (drive / folder).mkdir(parents=True)
        for number, padding in frames.items():
            (drive / folder / f"{number:0{padding[side]}d}.png").touch()
    pairs = kitti.find_pairs(drive)
    assert [(int(p.left.stem), int(p.right.stem)) for p in pairs] == [(n, n) for n in sorted(frames)]


def test_grey_cameras_are_found_and_offered(tmp_path):
    drive = make_drive(tmp_path / "drive", range(2), cameras="grey")
    assert kitti.find_pairs(drive, "grey")[0].right.parts[-3] == "image_01"
    with pytest.raises(FileNotFoundError, match="but grey ones: use cameras='grey'"):
        kitti.find_pairs(drive)


def test_unknown_cameras_are_named(tmp_path):
    with pytest.raises(ValueError, match="'color'"):
        kitti.find_pairs(make_drive(tmp_path / "drive", [0]), "color")


def test_png_and_jpeg_pair_up_but_not_twice_for_one_frame(tmp_path):
    drive = tmp_path / "drive"
    put(drive / "image_02/data", ["0000000000.png", "0000000001.PNG"])
    put(drive / "image_03/data", ["0000000000.jpg", "0000000001.jpeg"])
    assert [pair.right.suffix for pair in kitti.find_pairs(drive)] == [".jpg", ".jpeg"]
    put(drive / "image_02/data", ["0000000001.jpg"])
    with pytest.raises(ValueError, match=r"0000000001\.(jpg|PNG) are the same frame"):
        kitti.find_pairs(drive)


@pytest.mark.parametrize(
    "cameras, left, right",
    [
        ("colour", "image_02/data", "image_03/data"),
        ("colour", "image_2", "image_3"),
        ("colour", "left", "right"),
        ("grey", "image_00/data", "image_01/data"),
        ("grey", "image_0", "image_1"),
    ],
)
def test_in_every_layout_the_left_picture_is_that_of_the_left_camera(tmp_path, cameras, left, right):
    for folder in (left, right):
        put(tmp_path / folder, ["000001_10.png"])
    (pair,) = kitti.find_pairs(tmp_path, cameras)
    assert (pair.left.parent, pair.right.parent) == (tmp_path / left, tmp_path / right)


def test_stereo_2015_scenes_open_with_their_truth(tmp_path):
    pairs = kitti.find_pairs(make_stereo_2015(tmp_path / "stereo_2015"))
    assert [pair.name for pair in pairs] == [f"stereo_2015/{scene:06d}_10" for scene in range(3)]
    assert all(
        p.truth is not None and (p.truth.parent.name, p.truth.name) == ("disp_occ_0", p.left.name) for p in pairs
    )


def test_truth_belongs_to_the_frame_of_the_same_number(tmp_path):
    drive = make_drive(tmp_path / "drive", range(3), truth=True)
    (drive / "proj_depth/groundtruth/image_02/0000000001.png").unlink()
    truths = [pair.truth and pair.truth.name for pair in kitti.find_pairs(drive)]
    assert truths == ["0000000000.png", None, "0000000002.png"]


# --- calibration ---


def test_calibration_of_both_camera_pairs(tmp_path):
    path = write_calibration(tmp_path / "calib_cam_to_cam.txt")
    colour, grey = calibration.read_calibration_file(path), calibration.read_calibration_file(path, "grey")
    assert (colour.focal_px, colour.width) == (721.5377, 1242)
    assert colour.baseline_m == pytest.approx(0.53)
    assert grey.baseline_m == pytest.approx(0.54)
    assert colour.focal_baseline == pytest.approx(721.5377 * 0.53 / 1242)
    assert colour.centre_px == (609.5593, 172.854)


@pytest.mark.parametrize("place", ["root/date/drive", "root/date", "root", "root/2020_01_01"])
def test_calibration_file_is_found_beside_or_above_the_drive(tmp_path, place):
    drive = tmp_path / "root/date/drive".replace("drive", "2020_01_01_drive_0001_sync")
    drive.mkdir(parents=True)
    write_calibration(tmp_path / place.replace("drive", drive.name) / "calib_cam_to_cam.txt", focal=500.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kitti.calibration(drive, 1242).focal_px == 500.0


# f·B/W of the five recording dates by width, from the calibration files
@pytest.mark.parametrize(
    "width, focal_baseline", [(1242, 0.30949), (1224, 0.31035), (1238, 0.30761), (1226, 0.31023), (1241, 0.30836)]
)
def test_calibration_falls_back_to_the_table_and_says_so(tmp_path, width, focal_baseline):
    with pytest.warns(UserWarning, match=f"drive_0001_sync.*{width} px"):
        camera = kitti.calibration(tmp_path / "2020_01_01_drive_0001_sync", width)
    assert camera.focal_baseline == pytest.approx(focal_baseline, abs=1e-5)


# f·B in px·m of the grey cameras: P_rect_01[0, 3] of the five dates' files, with the sign turned
@pytest.mark.parametrize(
    "width, px_metres", [(1224, 379.7842), (1226, 379.8145), (1238, 385.8846), (1241, 386.1448), (1242, 387.5744)]
)
def test_the_table_has_the_grey_cameras_of_all_five_dates(tmp_path, width, px_metres):
    with pytest.warns(UserWarning, match=f"{width} px"):
        camera = kitti.calibration(tmp_path / "2020_01_01_drive_0001_sync", width, "grey")
    assert camera.focal_baseline * width == pytest.approx(px_metres, abs=0.01)


def test_a_width_that_kitti_does_not_have_is_named(tmp_path):
    for cameras in kitti.CAMERAS:
        with pytest.raises(ValueError, match="640 px"):
            kitti.calibration(tmp_path / "drive", 640, cameras)


def test_a_pair_knows_its_calibration_and_reads_it_once(tmp_path):
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(2))
    path = write_calibration(tmp_path / "calib_cam_to_cam.txt", width=96)
    colour = kitti.find_pairs(drive)[0]
    assert colour.calibration == kitti.calibration(drive, 96)
    path.unlink()
    assert colour.calibration.source == str(path)
    make_drive(drive, range(2), cameras="grey")
    write_calibration(tmp_path / "calib_cam_to_cam.txt", width=96)
    grey = kitti.find_pairs(drive, "grey")[0]
    assert (grey.cameras, grey.calibration.baseline_m) == ("grey", pytest.approx(0.54))
    assert pickle.loads(pickle.dumps(grey)) == grey and hash(grey) != hash(colour)


P = """P0: 100 0 48 0 0 100 16 0 0 0 1 0
P1: 100 0 48 -54 0 100 16 0 0 0 1 0
P2: {f} 0 48 4 0 {f} 16 0 0 0 1 0
P3: {f} 0 48 {right} 0 {f} 16 0 0 0 1 0
"""


def projections(focal=100.0, baseline=0.5):
    """P0 to P3 as the odometry, object and stereo 2012 files have them."""
    return P.format(f=focal, right=4 - focal * baseline)


def put_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_odometry_calibration_of_both_camera_pairs(tmp_path, recwarn):
    put_text(tmp_path / "sequences/00/calib.txt", projections(baseline=0.5))
    colour = kitti.calibration(tmp_path / "sequences/00", 96)
    assert (colour.focal_px, colour.width, colour.centre_px) == (100.0, 96, (48.0, 16.0))
    assert colour.baseline_m == pytest.approx(0.5)
    assert kitti.calibration(tmp_path / "sequences/00", 96, "grey").baseline_m == pytest.approx(0.54)
    assert not recwarn.list


@pytest.mark.parametrize("names", [("000012", "000013"), ("000012_10", "000013_10")])
def test_object_and_stereo_2012_have_a_calibration_for_each_frame(tmp_path, names):
    put_text(tmp_path / "calib/000012.txt", projections(100.0) + "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_imu_to_velo: 1\n")
    put_text(tmp_path / "calib/000013.txt", projections(110.0))
    assert [kitti.calibration(tmp_path, 96, "colour", name).focal_px for name in names] == [100.0, 110.0]


def test_stereo_2015_has_a_calibration_for_each_frame_and_it_counts_before_the_dates(tmp_path):
    write_calibration(tmp_path / "calib_cam_to_cam.txt", focal=300.0)
    for scene in (12, 13):
        write_calibration(tmp_path / f"calib_cam_to_cam/{scene:06d}.txt", focal=100.0 * scene, width=1000 + scene)
    cameras = [kitti.calibration(tmp_path, 1242, "colour", f"{scene:06d}_10") for scene in (12, 13, 14)]
    assert [(camera.focal_px, camera.width) for camera in cameras] == [(1200, 1012), (1300, 1013), (300, 1242)]


def test_a_frame_without_its_file_falls_back_to_the_table(tmp_path):
    put_text(tmp_path / "calib/000012.txt", projections())
    for frame in ("000099_10", ""):
        with pytest.warns(UserWarning, match="1242 px"):
            assert kitti.calibration(tmp_path, 1242, "colour", frame).focal_px == 721.5377


def test_pictures_that_are_not_of_the_calibrations_size_are_refused(tmp_path):
    path = put_text(tmp_path / "calib.txt", projections())
    for width in (48, 192):
        with pytest.raises(ValueError, match=rf"calib\.txt has its optical centre at column 48.*{width} px"):
            calibration.read_calibration_file(path, width=width)


# --- laser scans ---

# f = 10 px, centre (20, 10), depth Z = x + 2: u·Z = 10·(-y) + 20·Z, v·Z = 10·(-z) + 10·Z
MATRIX = np.array([[20.0, -10, 0, 40], [10, 0, -10, 20], [1, 0, 0, 2]])
SCAN_SIZE = (20, 40)


def laser_points(*pixels):
    """Points that MATRIX sends to (u, v, Z), counted as KITTI does, from 1."""
    points = [(z - 2, -(u - 20) * z / 10, -(v - 10) * z / 10, 0.5) for u, v, z in pixels]
    return np.array(points, dtype=np.float32).reshape(-1, 4)


def test_a_laser_point_lands_in_its_pixel_with_its_camera_depth():
    # by hand: x 8, y 2, z -1 is Z = 10, u = 20 - 10·2/10 = 18, v = 10 + 10·1/10 = 11; from 1, so column 17, row 10
    depth = kitti.project_scan(np.array([[8, 2, -1, 0.3]], dtype=np.float32), MATRIX, SCAN_SIZE)
    assert depth.dtype == np.float32 and depth.shape == SCAN_SIZE
    assert np.argwhere(depth).tolist() == [[10, 17]]
    assert depth[10, 17] == 10  # not 8, the laser's x
    published = kitti.project_scan(np.array([[8, 2, -1, 0.3]], dtype=np.float32), MATRIX, SCAN_SIZE, laser_x=True)
    assert np.argwhere(published).tolist() == [[10, 17]] and published[10, 17] == 8


@pytest.mark.parametrize("u, column", [(18.4, 17), (17.6, 17), (18.6, 18), (17.4, 16)])
def test_pixels_are_rounded_and_counted_from_0(u, column):
    depth = kitti.project_scan(laser_points((u, u / 2, 10)), MATRIX, SCAN_SIZE)
    assert np.argwhere(depth).tolist() == [[round(u / 2) - 1, column]]


def test_the_nearest_point_of_a_pixel_wins_in_any_order():
    pixels = [(5, 5, 30), (5, 5, 7), (5.2, 4.9, 12), (6, 5, 40)]
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]):
        depth = kitti.project_scan(laser_points(*pixels)[order], MATRIX, SCAN_SIZE)
        assert depth[4, 4] == pytest.approx(7, abs=1e-5) and depth[4, 5] == pytest.approx(40, abs=1e-4)
        assert np.count_nonzero(depth) == 2


def test_points_outside_are_dropped_and_never_wrap_to_another_row():
    inside = laser_points((1, 1, 5), (40, 1, 6), (1, 20, 7), (40, 20, 8))
    depth = kitti.project_scan(inside, MATRIX, SCAN_SIZE)
    assert np.argwhere(depth).tolist() == [[0, 0], [0, 39], [19, 0], [19, 39]]
    outside = laser_points((41, 3, 5), (0, 3, 5), (-3, 3, 5), (3, 0, 5), (3, 21, 5), (45, 3, 5))
    assert not kitti.project_scan(outside, MATRIX, SCAN_SIZE).any()
    # the last column of row 3 and the first of row 4 stay two pixels
    two = kitti.project_scan(laser_points((40, 4, 9), (1, 5, 6)), MATRIX, SCAN_SIZE)
    assert two[3, 39] == pytest.approx(9, abs=1e-5) and two[4, 0] == pytest.approx(6, abs=1e-5)


def test_points_behind_the_laser_or_the_camera_are_dropped():
    behind_laser = np.array([[-1, 0, 0, 0]], dtype=np.float32)  # Z = 1: before the camera, yet not to be used
    assert not kitti.project_scan(behind_laser, MATRIX, SCAN_SIZE).any()
    # seen by a camera that looks backwards, Z is -10 and u, v are the same
    assert not kitti.project_scan(laser_points((20, 10, 10)), -MATRIX, SCAN_SIZE).any()


def test_projection_is_that_of_a_plain_loop():
    generator = np.random.default_rng(0)
    points = generator.uniform([-5, -20, -8, 0], [30, 20, 8, 1], (3000, 4)).astype(np.float32)
    expected = np.zeros(SCAN_SIZE)
    for x, y, z, _ in points.tolist():
        depth = x + 2
        if x < 0:
            continue
        column, row = round((20 * depth - 10 * y) / depth) - 1, round((10 * depth - 10 * z) / depth) - 1
        if 0 <= column < 40 and 0 <= row < 20 and not 0 < expected[row, column] < depth:
            expected[row, column] = depth
    found = kitti.project_scan(points, MATRIX, SCAN_SIZE)
    assert np.count_nonzero(expected) > 300
    assert np.allclose(found, expected, rtol=1e-6)


def test_a_scan_is_read_as_it_was_written(tmp_path):
    path = write_scan(tmp_path / "0.bin", [[1, 2, 3], [4, 5, 6]])
    assert kitti.read_scan(path).tolist() == [[1, 2, 3, 0.5], [4, 5, 6, 0.5]]


RAW = """S_rect_00: 96 32
S_rect_02: 96 32
R_rect_00: -1 0 0 0 -1 0 0 0 1
R_rect_02: 0 0 1 0 1 0 1 0 0
P_rect_00: 10 0 20 0 0 10 10 0 0 0 1 0
P_rect_01: 10 0 20 -5 0 10 10 0 0 0 1 0
P_rect_02: 10 0 20 5 0 10 10 0 0 0 1 0.5
P_rect_03: 10 0 20 0 0 10 10 0 0 0 1 0
"""  # f = 10 px, B = 0.5 m


def scanned_drive(root, frames=range(3), cameras="colour", points=((11, 2, -1),), scans=None):
    """A raw drive of 32 x 96 px with `points` in the scan of every frame of `scans`, and its calibration."""
    drive = make_drive(root / "2020_01_01/2020_01_01_drive_0001_sync", frames, cameras=cameras)
    for frame in frames if scans is None else scans:
        write_scan(drive / f"velodyne_points/data/{frame:010d}.bin", points)
    put_text(drive.parent / "calib_cam_to_cam.txt", RAW)
    write_laser_calibration(drive.parent)
    return drive


def test_a_raw_drives_scan_goes_through_rectification_and_projection(tmp_path):
    # by hand: laser (11, 2, -1) is (-2, 1, 10) in camera 0, turned by R_rect_00 (2, -1, 10);
    # Z = 10 + 0.5, u = (10·2 + 20·10 + 5) / 10.5 = 21.4, v = (10·(-1) + 10·10) / 10.5 = 8.6
    pair = kitti.find_pairs(scanned_drive(tmp_path))[0]
    truth = pair.ground_truth()
    assert truth.shape == (32, 96)
    assert np.argwhere(truth).tolist() == [[8, 20]]
    assert truth[8, 20] == 10.5


def test_a_grey_pairs_scan_is_seen_by_camera_0(tmp_path):
    # P_rect_00 has no offset: Z = 10, u = (20 + 200) / 10 = 22, v = 9
    pair = kitti.find_pairs(scanned_drive(tmp_path, cameras="grey"), "grey")[0]
    truth = pair.ground_truth()
    assert np.argwhere(truth).tolist() == [[8, 21]] and truth[8, 21] == 10


@pytest.mark.parametrize(
    "name, lines",
    [
        ("calib.txt", "Tr: 0 -1 0 0 0 0 -1 0 1 0 0 -1"),
        ("calib/{}.txt", "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -1"),
        ("calib/{}.txt", "R0_rect: -1 0 0 0 -1 0 0 0 1\nTr_velo_to_cam: 0 1 0 0 0 0 1 0 1 0 0 -1"),
    ],
)
def test_scans_of_odometry_and_object_use_their_own_calibration(tmp_path, name, lines):
    drive = tmp_path / "drive"
    for frame in ("000012", "000013"):
        put(drive / "image_2", [f"{frame}.png"])
        put(drive / "image_3", [f"{frame}.png"])
        write_scan(drive / f"velodyne/{frame}.bin", [(11, 2, -1)])
        put_text(drive / name.format(frame), projections() + lines)
    pair = kitti.find_pairs(drive)[1]
    assert pair.truth == drive.resolve() / "velodyne/000013.bin"
    # by hand: (-2, 1, 10) in the camera, u·Z = 100·(-2) + 48·10 + 4, v·Z = 100·1 + 16·10
    assert calibration.laser_to_picture(pair.folder, pair.left.stem) @ [11, 2, -1, 1] == pytest.approx([284, 260, 10])


def test_frames_without_a_scan_are_without_truth(tmp_path):
    pairs = kitti.find_pairs(scanned_drive(tmp_path, range(4), scans=[1, 3]))
    assert [pair.truth and pair.truth.name for pair in pairs] == [None, "0000000001.bin", None, "0000000003.bin"]


def test_own_folders_with_scans_and_kittis_calibration_are_seen_by_camera_2(tmp_path):
    drive = scanned_drive(tmp_path)
    for folder, side in (("image_02/data", "left"), ("image_03/data", "right")):
        (drive / folder).rename(drive / side)
    pair = kitti.find_pairs(drive)[0]
    truth = pair.ground_truth()
    assert np.argwhere(truth).tolist() == [[8, 20]] and truth[8, 20] == 10.5


def test_a_scan_beside_ones_own_camera_is_left_out_and_said(tmp_path):
    drive = scanned_drive(tmp_path)
    write_camera(drive, {"focal_px": 80, "baseline_m": 0.5, "width": 96})
    with pytest.warns(UserWarning, match=r"its laser scans are left out, for .*camera\.json says nothing of a laser"):
        assert not any(pair.truth for pair in kitti.find_pairs(drive))


@pytest.mark.parametrize("name", ["calib_velo_to_cam.txt", "calib_cam_to_cam.txt"])
def test_scans_without_the_lasers_calibration_are_left_out_or_an_error(tmp_path, name):
    drive = scanned_drive(tmp_path)
    (drive.parent / name).unlink()
    with pytest.warns(UserWarning, match=rf"0001_sync: its laser scans are left out, for .* has no {name}"):
        assert not any(pair.truth for pair in kitti.find_pairs(drive))
    pair = kitti.find_pairs(drive, truth="scan")[0]
    with pytest.raises(FileNotFoundError, match=rf"0001_sync has no {name}.*calib\.zip"):
        pair.ground_truth()


@pytest.mark.parametrize(
    "name, line",
    [("calib_velo_to_cam.txt", "R"), ("calib_velo_to_cam.txt", "T"), ("calib_cam_to_cam.txt", "R_rect_00")],
)
def test_a_lasers_calibration_that_lacks_a_line_names_it(tmp_path, name, line):
    pair = kitti.find_pairs(scanned_drive(tmp_path))[0]
    path = pair.folder.parent / name
    path.write_text("\n".join(text for text in path.read_text().splitlines() if not text.startswith(f"{line}:")))
    with pytest.raises(ValueError, match=rf"{name} is not a whole KITTI calibration \(it has no line {line} of"):
        calibration.laser_to_picture(pair.folder, pair.left.stem)


# --- truth ---


def every_truth(tmp_path):
    """A drive that has truth of every kind."""
    drive = scanned_drive(tmp_path, range(2))
    for frame in range(2):
        write_uint16(drive / f"proj_depth/groundtruth/image_02/{frame:010d}.png", np.full((32, 96), 7.0))
        write_uint16(drive / f"disp_noc_0/{frame:010d}.png", np.full((32, 96), 4.0))
        write_uint16(drive / f"disp_occ_0/{frame:010d}.png", np.full((32, 96), 2.0))
    return drive


def test_each_kind_of_truth_can_be_asked_for_and_depth_comes_first(tmp_path):
    drive = every_truth(tmp_path)
    expected = {"depth": 7.0, "disparity": 2.5, "scan": 10.5}  # 10 px · 0.5 m / 2 px = 2.5 m
    expected |= {"disparity-noc": 1.25, "scan-x": 11.0}
    for truth in kitti.TRUTHS:
        kind = "depth" if truth == "auto" else truth
        pair = kitti.find_pairs(drive, truth=truth)[1]
        assert pair.truth_kind == kind.removesuffix("-noc")
        assert pair.ground_truth().max() == expected[kind]
    with pytest.raises(ValueError, match="truth is 'lidar'; it must be one of 'auto', 'depth'"):
        kitti.find_pairs(drive, truth="lidar")


def test_auto_takes_disparity_before_a_scan_and_skips_empty_folders(tmp_path):
    drive = every_truth(tmp_path)
    for path in (drive / "proj_depth/groundtruth/image_02").iterdir():
        path.unlink()
    assert {pair.truth_kind for pair in kitti.find_pairs(drive)} == {"disparity"}
    assert not any(pair.truth for pair in kitti.find_pairs(drive, truth="depth"))


def test_non_occluded_truth_is_not_replaced_by_that_of_all_pixels(tmp_path):
    assert not any(pair.truth for pair in kitti.find_pairs(make_stereo_2015(tmp_path), truth="disparity-noc"))


def test_a_side_takes_the_truth_that_is_asked_for(tmp_path):
    drive = every_truth(tmp_path)
    for truth in ("disparity", "scan", "scan-x"):
        pairs = kitti.select_pairs(tmp_path, "test", [drive.name], truth=truth)
        assert {pair.truth_kind for pair in pairs} == {truth}


@pytest.mark.parametrize("side", ["train", "val"])
def test_kittis_depth_is_found_in_its_own_tree_beside_the_raw_drives(tmp_path, side):
    drive = make_drive(tmp_path / "2020_01_01/2020_01_01_drive_0001_sync", range(2))
    tree = tmp_path / side / drive.name / "proj_depth/groundtruth/image_02"
    path = write_uint16(tree / "0000000001.png", np.full((32, 96), 7.0))
    assert [pair.truth for pair in kitti.find_pairs(drive)] == [None, path.resolve()]


def test_truth_of_another_size_than_its_picture_is_named_with_both(tmp_path):
    drive = every_truth(tmp_path)
    wrong = np.full((30, 96), 7.0)
    for truth, folder in (("depth", "proj_depth/groundtruth/image_02"), ("disparity", "disp_occ_0")):
        write_uint16(drive / folder / "0000000000.png", wrong)
        pair = kitti.find_pairs(drive, truth=truth)[0]
        with pytest.raises(ValueError, match=rf"{folder}/0000000000\.png is 96x30 px, .*image_02/data/0.* is 96x32"):
            pair.ground_truth()
    put_text(drive.parent / "calib_cam_to_cam.txt", RAW.replace("S_rect_02: 96", "S_rect_02: 1242"))
    pair = kitti.find_pairs(drive, truth="scan")[0]
    with pytest.raises(ValueError, match=r"image_02/data/0000000000\.png is 96 px wide, and .*\.txt is for 1242 px"):
        pair.ground_truth()


def test_uint16_png_is_read_as_256ths(tmp_path):
    path = write_uint16(tmp_path / "d.png", np.array([[0, 1.5], [80, 255.99609375]]))
    values = kitti.read_uint16(path)
    assert values.dtype == np.float32
    assert values.tolist() == [[0, 1.5], [80, 255.99609375]]


def test_true_depth_from_a_disparity_file_is_focal_times_baseline_over_disparity(tmp_path):
    pair = kitti.find_pairs(make_stereo_2015(tmp_path / "scenes", 1, shift=4))[0]
    write_camera(tmp_path, {"focal_px": 200, "baseline_m": 0.5, "width": 192})  # 50 px·m at the picture's own width
    depth = pair.ground_truth()
    assert depth.dtype == np.float32
    assert (depth[0] == 0).all()
    assert depth[1:] == pytest.approx(50 / 4)


def test_true_depth_of_a_depth_file_is_its_metres(tmp_path):
    pair = kitti.find_pairs(make_drive(tmp_path / "drive", [0], truth=True, focal_baseline=0.3, shift=4))[0]
    assert pair.ground_truth() == pytest.approx(0.3 * 96 / 4, abs=1 / 256)  # no calibration is needed


def test_a_pair_without_truth_is_named(tmp_path):
    pair = kitti.find_pairs(make_drive(tmp_path / "drive", [7]))[0]
    with pytest.raises(ValueError, match="drive/0000000007"):
        pair.ground_truth()


# --- paths ---


def test_relative_paths_count_from_the_project_wherever_one_stands(monkeypatch):
    root = files.project_root()
    monkeypatch.chdir(root / "monodepth_lib")
    assert kitti.project_path("data/sample") == root / "data/sample"
    assert kitti.project_path("/data") == kitti.Path("/data")


# --- your own pictures ---

CAMERA = {"focal_px": 500, "baseline_m": 0.12, "width": 640, "centre_px": [322.5, 240]}


def write_camera(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "camera.json").write_text(json.dumps(entries), encoding="utf-8-sig")  # as Windows' editor does
    return folder / "camera.json"


def test_own_drives_are_found_by_their_folders_left_and_right(tmp_path):
    for side, names in (("left", ["left_0010.png", "left_0002.png"]), ("right", ["right_0002.jpg", "right_0010.jpg"])):
        put(tmp_path / "mine/train/our street" / side, names)
    drives = kitti.select_drives(tmp_path / "mine", "train")
    assert list(drives) == ["our street"]
    pairs = kitti.find_pairs(drives["our street"])
    assert [(p.name, p.right.name) for p in pairs] == [
        ("our street/left_0002", "right_0002.jpg"),
        ("our street/left_0010", "right_0010.jpg"),
    ]


def test_a_folder_without_drives_says_what_both_layouts_look_like(tmp_path):
    put(tmp_path / "pictures", ["left_0001.png", "right_0001.png"])
    with pytest.raises(FileNotFoundError, match=r"<drive>/image_02/data, or .*<drive>/left"):
        kitti.find_drives(tmp_path)


@pytest.mark.parametrize("place", ["mine/train/street", "mine/train", "mine", "."])
def test_the_camera_file_is_found_in_the_drive_or_above(tmp_path, place):
    (tmp_path / "mine/train/street").mkdir(parents=True)
    path = write_camera(tmp_path / place, CAMERA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        camera = kitti.calibration(tmp_path / "mine/train/street", 1280)
    assert camera == kitti.Calibration(500.0, 0.12, 640, str(path.resolve()), (322.5, 240.0))
    assert camera.focal_baseline == pytest.approx(500 * 0.12 / 640)  # whatever the pictures' width


def test_the_nearest_calibration_counts(tmp_path):
    drive = tmp_path / "mine/train/street"
    write_camera(tmp_path / "mine", CAMERA)
    write_camera(drive, {**CAMERA, "focal_px": 700})
    assert kitti.calibration(drive, 640).focal_px == 700
    write_calibration(tmp_path / "mine/train/other/calib_cam_to_cam.txt", focal=300.0)
    assert kitti.calibration(tmp_path / "mine/train/other", 1242).focal_px == 300


def test_the_optical_centre_may_be_left_out(tmp_path):
    entries = {key: CAMERA[key] for key in ("focal_px", "baseline_m", "width")}
    assert calibration.read_camera_file(write_camera(tmp_path, entries)).centre_px is None


def test_own_pictures_without_a_camera_file_are_told_of_it(tmp_path):
    with pytest.raises(ValueError, match=r"640 px.*camera\.json"):
        kitti.calibration(tmp_path, 640)
