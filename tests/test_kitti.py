"""Drives, frames, splits, calibration and truth as they lie on disk."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from synthetic import make_drive, make_stereo_2015, write_calibration, write_uint16

from monodepth_lib import kitti

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


@pytest.mark.parametrize("split", kitti.SPLITS)
def test_split_covers_the_thirteen_drives_once(split):
    names = [name for side in kitti.SPLITS[split].values() for name in side]
    assert len(names) == 13
    assert set(names) == LAB_NAMES


def test_eigen_conform_split_tests_on_all_eigen_drives_and_trains_on_none():
    assert len(EIGEN_TEST) == 8
    assert set(kitti.SPLITS["eigen-conform"]["test"]) == EIGEN_TEST


def test_check_split_names_the_shared_drive(tmp_path):
    train = {"a_sync": tmp_path / "a", "b_sync": tmp_path / "b"}
    kitti.check_split(train, {"c_sync": tmp_path / "c"})
    with pytest.raises(ValueError, match="b_sync"):
        kitti.check_split(train, {"b_sync": tmp_path / "elsewhere"})


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


def test_two_drives_of_one_name_are_refused(tmp_path):
    for side in ("a", "b"):
        make_drive(tmp_path / side / "2020_01_01_drive_0001_sync", [0])
    with pytest.raises(ValueError, match="2020_01_01_drive_0001_sync"):
        kitti.find_drives(tmp_path)


def test_missing_and_empty_data_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        kitti.find_drives(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no drive"):
        kitti.find_drives(tmp_path / "empty")


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


def test_unknown_mode_and_missing_side_are_named(tmp_path, data_dir):
    with pytest.raises(ValueError, match="'vals'"):
        kitti.select_drives(data_dir, "vals")
    make_drive(tmp_path / "train/2020_01_01_drive_0001_sync", [0])
    with pytest.raises(FileNotFoundError, match=r"vals is missing.*val_drives"):
        kitti.select_drives(tmp_path, "val")


# --- pairs ---


def put(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 4)).save(folder / name, format="PNG")


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


@pytest.mark.parametrize("side", ["image_02", "image_03"])
def test_missing_or_stray_frame_is_named(tmp_path, side):
    drive = make_drive(tmp_path / "drive", range(4))
    other = "image_03" if side == "image_02" else "image_02"
    (drive / side / "data/0000000002.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{other}/data/0000000002\.png has no partner"):
        kitti.find_pairs(drive)
    (drive / side / "data/0000000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0000000001\.png \(and 1 more\)"):
        kitti.find_pairs(drive)


def test_half_a_pair_of_cameras_is_named(tmp_path):
    drive = tmp_path / "drive"
    put(drive / "image_02/data", ["0.png"])
    with pytest.raises(FileNotFoundError, match="image_03/data is missing"):
        kitti.find_pairs(drive)


def test_grey_cameras_are_found_and_offered(tmp_path):
    drive = make_drive(tmp_path / "drive", range(2), cameras="grey")
    assert kitti.find_pairs(drive, "grey")[0].right.parts[-3] == "image_01"
    with pytest.raises(FileNotFoundError, match="but grey ones: use cameras='grey'"):
        kitti.find_pairs(drive)


def test_unknown_cameras_are_named(tmp_path):
    with pytest.raises(ValueError, match="'color'"):
        kitti.find_pairs(make_drive(tmp_path / "drive", [0]), "color")


def test_stray_files_that_are_no_pictures_or_hidden_are_left_out(tmp_path):
    drive = make_drive(tmp_path / "drive", range(2))
    for name in (".0000000007.png", "._0000000001.png", "Thumbs.db", "timestamps.txt", ".DS_Store"):
        (drive / "image_02/data" / name).write_bytes(b"")
    assert len(kitti.find_pairs(drive)) == 2


def test_a_picture_without_a_number_is_named(tmp_path):
    drive = make_drive(tmp_path / "drive", [0])
    put(drive / "image_02/data", ["preview.png"])
    with pytest.raises(ValueError, match=r"preview\.png"):
        kitti.find_pairs(drive)


def test_an_empty_camera_folder_is_named(tmp_path):
    put(tmp_path / "drive/image_02/data", [])
    put(tmp_path / "drive/image_03/data", [])
    with pytest.raises(FileNotFoundError, match="image_02/data holds no picture"):
        kitti.find_pairs(tmp_path / "drive")


def test_png_and_jpeg_pair_up_but_not_twice_for_one_frame(tmp_path):
    drive = tmp_path / "drive"
    put(drive / "image_02/data", ["0000000000.png", "0000000001.PNG"])
    put(drive / "image_03/data", ["0000000000.jpg", "0000000001.jpeg"])
    assert [pair.right.suffix for pair in kitti.find_pairs(drive)] == [".jpg", ".jpeg"]
    put(drive / "image_02/data", ["0000000001.jpg"])
    with pytest.raises(ValueError, match=r"0000000001\.(jpg|PNG) are the same frame"):
        kitti.find_pairs(drive)


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
    colour, grey = kitti.read_calibration_file(path), kitti.read_calibration_file(path, "grey")
    assert (colour.focal_px, colour.width) == (721.5377, 1242)
    assert colour.baseline_m == pytest.approx(0.53)
    assert grey.baseline_m == pytest.approx(0.54)
    assert colour.metres == pytest.approx(721.5377 * 0.53 / 1242)
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
    "width, metres", [(1242, 0.30949), (1224, 0.31035), (1238, 0.30761), (1226, 0.31023), (1241, 0.30836)]
)
def test_calibration_falls_back_to_the_table_and_says_so(tmp_path, width, metres):
    with pytest.warns(UserWarning, match=f"drive_0001_sync.*{width} px"):
        camera = kitti.calibration(tmp_path / "2020_01_01_drive_0001_sync", width)
    assert camera.metres == pytest.approx(metres, abs=1e-5)


def test_a_width_that_kitti_does_not_have_is_named(tmp_path):
    with pytest.raises(ValueError, match="640 px"):
        kitti.calibration(tmp_path / "drive", 640)


@pytest.mark.parametrize("text", ["", "P_rect_02: 1 2 3", "P_rect_02: a b c d e f g h i j k l", "\x00\xff\x89PNG"])
def test_a_file_that_is_no_calibration_is_named(tmp_path, text):
    path = tmp_path / "calib_cam_to_cam.txt"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"calib_cam_to_cam\.txt"):
        kitti.read_calibration_file(path)


def test_a_negative_baseline_is_refused(tmp_path):
    path = write_calibration(tmp_path / "calib_cam_to_cam.txt", baseline=-0.5)
    with pytest.raises(ValueError, match=r"calib_cam_to_cam\.txt gives f = .*B = -0\.5"):
        kitti.read_calibration_file(path)


# --- truth ---


def test_uint16_png_is_read_as_256ths(tmp_path):
    path = write_uint16(tmp_path / "d.png", np.array([[0, 1.5], [80, 255.99609375]]))
    values = kitti.read_uint16(path)
    assert values.dtype == np.float32
    assert values.tolist() == [[0, 1.5], [80, 255.99609375]]


def test_files_that_are_no_16_bit_png_are_named(tmp_path):
    whole = write_uint16(tmp_path / "whole.png", np.random.default_rng(0).random((32, 32))).read_bytes()
    contents = {"eight.png": None, "zero.png": b"", "cut.png": whole[: len(whole) // 2], "text.png": b"no picture"}
    for name, content in contents.items():
        if content is None:
            Image.new("L", (4, 4)).save(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            kitti.read_uint16(tmp_path / name)


def test_true_depth_from_a_disparity_file_is_focal_times_baseline_over_disparity(tmp_path):
    pair = kitti.find_pairs(make_stereo_2015(tmp_path / "scenes", 1, shift=4))[0]
    camera = kitti.Calibration(100.0, 0.5, 96, "")  # 50 px·m at the picture's own width
    depth = kitti.read_truth(pair, camera)
    assert depth.dtype == np.float32
    assert (depth[0] == 0).all()
    assert depth[1:] == pytest.approx(50 / 4)


def test_true_depth_of_a_depth_file_is_its_metres(tmp_path):
    pair = kitti.find_pairs(make_drive(tmp_path / "drive", [0], truth=True, metres=0.3, shift=4))[0]
    assert kitti.read_truth(pair, kitti.Calibration(1.0, 1.0, 1, "")) == pytest.approx(0.3 * 96 / 4, abs=1 / 256)


def test_a_pair_without_truth_is_named(tmp_path):
    pair = kitti.find_pairs(make_drive(tmp_path / "drive", [7]))[0]
    with pytest.raises(ValueError, match="drive/0000000007"):
        kitti.read_truth(pair, kitti.Calibration(1.0, 1.0, 1, ""))


# --- paths ---


def test_relative_paths_count_from_the_project_wherever_one_stands(monkeypatch):
    root = kitti.project_root()
    monkeypatch.chdir(root / "monodepth_lib")
    assert kitti.project_path("data/sample") == root / "data/sample"
    assert kitti.project_path("/data") == kitti.Path("/data")
