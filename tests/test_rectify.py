"""The check of one's own pairs: every fault is found and named, and nothing else."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from synthetic import street_pair, texture, to_picture

from monodepth_lib import files, kitti
from monodepth_lib.commands import rectify

SIZE = (128, 400)


def views(seed=0):
    """(left, right) of a near box before a wall, as Pillow pictures; all disparities positive."""
    left, right, *_ = street_pair(*SIZE, near=24, far=8, seed=10 * seed)
    return to_picture(left), to_picture(right)


def moved(picture, right=0.0, down=0.0):
    matrix = (1, 0, -right, 0, 1, -down)
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def half_moved(picture):
    """What cameras that look towards each other give: the upper half, far away, further right than in the left view."""
    far = moved(picture, right=20).crop((0, 0, picture.width, picture.height // 2))
    mixed = picture.copy()
    mixed.paste(far, (0, 0))
    return mixed


def grown(picture, factor):
    x, y = (picture.width - 1) / 2, (picture.height - 1) / 2
    matrix = (1 / factor, 0, x - x / factor, 0, 1 / factor, y - y / factor)
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def make(root, spoil=lambda left, right: (left, right), frames=3, name="mine"):
    """A drive of one's own with `frames` different pairs, each spoilt; its folder."""
    for frame in range(frames):
        for side, picture in zip(("left", "right"), spoil(*views(frame)), strict=True):
            path = root / name / side / f"{side}_{frame:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root / name


def faults(root, spoil, **options):
    return rectify.check_drive(make(root, spoil, **options)).faults


# --- the search ---


@pytest.mark.parametrize("right, down", [(-3, 0), (-9, 2), (4, -1), (-7.25, 0.5), (-2.5, -1.75)])
def test_points_are_found_where_they_moved_to_within_a_tenth_of_a_pixel(right, down):
    fine = texture(4 * 96, 4 * 240)  # four samples a pixel, so that quarters can be cut exactly
    margin = 48

    def cut(x, y):
        part = fine[..., margin - y : 4 * 96 - margin - y, margin - x : 4 * 240 - margin - x]
        return F.avg_pool2d(part, 4)[0].mean(0)

    one, other = cut(0, 0), cut(round(4 * right), round(4 * down))
    points = rectify.corners(one)
    offsets, r = rectify.look_for(one, other, points)
    inner = (points[:, 0] > 25) & (points[:, 0] < one.shape[1] - 25) & (points[:, 1] > 12) & (points[:, 1] < 60)
    assert inner.sum() > 20
    assert r[inner].min() > 0.6
    assert offsets[inner].median(0).values.tolist() == pytest.approx([right, down], abs=0.1)


def test_what_moved_further_than_the_search_reaches_is_not_taken_for_found():
    rise = round(rectify.RISE * 400)
    y, x = torch.meshgrid(torch.arange(128 + 2 * rise), torch.arange(400), indexing="ij")
    tall = 0.5 + 0.25 * (torch.sin(x / 9) + torch.sin(y / 14))  # broad spots: near the right place r is large
    one, near, far = (tall[2 * rise - down :][:128] for down in (0, rise - 1, rise + 2))
    points = torch.tensor([[200, 60], [180, 64], [230, 70]])
    assert (rectify.look_for(one, near, points)[1] > 0.9).all()
    assert (rectify.look_for(one, far, points)[1] == 0).all()


def test_corners_lie_where_there_is_detail_in_both_directions():
    image = torch.zeros(60, 120)
    image[:, 20:] = 0.5  # an edge: no corner along it
    image[30:, 80:] = 1.0  # a corner at column 80, row 30
    points = rectify.corners(image)
    assert len(points)
    assert (points - torch.tensor([80, 30])).abs().max() <= 8


def test_a_course_is_not_bent_by_wrong_points():
    generator = np.random.default_rng(0)
    points = generator.uniform(-1, 1, (200, 2))
    values = 1.0 + 2.0 * points[:, 0] - 0.5 * points[:, 1]
    values[:40] = generator.uniform(5, 20, 40)
    factors, left_over = rectify.course(points, values)
    assert factors == pytest.approx([1, 2, -0.5, 0, 0, 0], abs=0.05)
    assert np.abs(left_over[40:]).max() < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_next_to_nothing_is_found_in_a_picture_of_something_else(seed):
    one, other = (texture(*SIZE, seed=seed + step)[0].mean(0) for step in (0, 50))
    found = rectify.find_points(one, other)
    assert found.corners > 100
    assert found.share < 0.04


# --- drives ---


def test_a_rectified_drive_is_well(tmp_path):
    report = rectify.check_drive(make(tmp_path))
    assert report.faults == []
    assert len(report.looks) == 3
    assert report.share > 0.5
    assert report.negative < 0.05
    assert [float(px) for px in report.thirds()] == pytest.approx([0, 0, 0], abs=0.1)
    assert "ok (3 of 3 pairs" in report.line()


def test_other_brightness_contrast_and_grey_pictures_are_no_fault(tmp_path):
    dark = make(tmp_path, lambda left, right: (left, right.point(lambda v: int(v * 0.6 + 20)).convert("L")))
    assert rectify.check_drive(dark).faults == []


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda left, right: (left, moved(right, down=2)), r"not rectified: the right view lies 2\.0 px too low"),
        (lambda left, right: (left, moved(right, down=-2)), r"not rectified: the right view lies 2\.0 px too high"),
        (lambda left, right: (left, right.rotate(0.5, Image.Resampling.BICUBIC)), r"turned by 0\.5\d deg.* anticlock"),
        (lambda left, right: (left, right.rotate(-0.5, Image.Resampling.BICUBIC)), r"turned by 0\.5\d degrees clock"),
        (lambda left, right: (left, grown(right, 1.02)), r"not rectified: the right view is 2\.\d % too large"),
        (lambda left, right: (left, grown(right, 0.98)), r"not rectified: the right view is \d\.\d % too small"),
        (lambda left, right: (right, left), "views are swapped: .* exchange left and right"),
        (lambda left, right: (left, half_moved(right)), r"\d\d % of the disparities are negative"),
        (lambda left, right: (left, moved(right, down=40)), "views do not fit: of mine/left_.* more than 12 px"),
    ],
)
def test_a_fault_is_found_and_named_and_no_other(tmp_path, spoil, words):
    found = faults(tmp_path, spoil)
    assert len(found) == 1
    assert re.search(words, found[0]), found


def test_two_faults_are_both_named(tmp_path):
    found = faults(tmp_path, lambda left, right: (right, moved(left, down=2)))
    assert len(found) == 2
    assert "swapped" in found[0]
    assert "too low" in found[1]


@pytest.mark.parametrize("step, side", [(1, "before"), (-1, "after")])
def test_frames_that_are_out_of_step_are_named_with_the_better_one(tmp_path, step, side):
    drive = make(tmp_path, frames=5)
    numbers = [(frame + step) % 5 for frame in range(5)]
    pictures = [(drive / "right" / f"right_{number:04d}.png").read_bytes() for number in numbers]
    for frame, picture in enumerate(pictures):
        (drive / "right" / f"right_{frame:04d}.png").write_bytes(picture)
    (fault,) = rectify.check_drive(drive).faults
    assert f"fits the right one of the frame {side} better than its own" in fault
    assert "in 4 of 5 pairs" in fault


def test_one_pair_of_two_moments_among_good_ones_is_named(tmp_path):
    drive = make(tmp_path, frames=5)
    to_picture(texture(*SIZE, seed=99)).save(drive / "right/right_0002.png")
    (fault,) = rectify.check_drive(drive).faults
    assert fault.startswith("views do not fit: of mine/left_0002")
    assert "in 1 of 5 pairs" in fault


def test_unequal_sizes_are_named_wherever_they_are(tmp_path):
    drive = make(tmp_path, frames=4)
    path = drive / "right/right_0003.png"
    Image.open(path).resize((200, 64)).save(path)
    report = rectify.check_drive(drive, frames=1)
    (fault,) = report.faults
    assert "left_0003.png is 400x128 px" in fault
    assert "right_0003.png is 200x64 px" in fault
    assert rectify.draw(report).width > 500


def test_pictures_without_detail_are_not_judged(tmp_path):
    (fault,) = faults(tmp_path, lambda left, right: (Image.new("RGB", left.size, "grey"), right))
    assert fault.startswith("too little detail, 0 corners in 3 pictures")


def test_only_some_pairs_of_a_long_drive_are_looked_at(tmp_path):
    report = rectify.check_drive(make(tmp_path, frames=7), frames=2)
    assert [look.pair.left.name for look in report.looks] == ["left_0002.png", "left_0004.png"]


def test_pictures_of_two_sizes_in_one_drive_are_measured_together(tmp_path):
    drive = make(tmp_path, lambda left, right: (left, moved(right, down=2)), frames=2)
    for path in drive.rglob("*_0001.png"):
        Image.open(path).resize((800, 256), Image.Resampling.BICUBIC).save(path)
    (fault,) = rectify.check_drive(drive).faults
    assert "lies 2.0 px too low" in fault  # px of the first pair


# --- the command ---


def test_command_says_a_line_for_each_drive_and_leaves_a_picture_of_each(tmp_path, capsys):
    make(tmp_path / "data/train", name="good")
    make(tmp_path / "data/vals", lambda left, right: (right, left), name="bad")
    make(tmp_path / "data/train", frames=1, name="torn")
    (tmp_path / "data/train/torn/right/right_0000.png").write_bytes(b"no picture")
    output = tmp_path / "pictures"
    assert rectify.main([str(tmp_path / "data"), "--output", str(output)]) == 1
    good, torn, bad, last = capsys.readouterr().out.splitlines()
    assert good.startswith("good: ok")
    assert "right_0000.png cannot be read" in torn
    assert bad.startswith("bad: views are swapped")
    assert last.startswith("1 of 3 drives are ok")
    assert sorted(path.name for path in output.glob("*.png")) == ["bad.png", "good.png"]
    with Image.open(output / "bad.png") as picture:
        assert picture.width > 800
    assert rectify.main([str(tmp_path / "data"), "--drives", "good", "--output", str(output)]) == 0


@pytest.mark.parametrize(
    "folder, options, words",
    [
        ("nowhere", [], "nowhere is missing"),
        (".", ["--drives", "x"], "lacks x; it has mine"),
    ],
)
def test_command_names_what_it_cannot_do(tmp_path, capsys, folder, options, words):
    make(tmp_path / "train", frames=1)
    assert rectify.main([str(tmp_path / folder), *options]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--frames", "0"], "argument --frames: 0 must be"), (["--drives", "x,"], "argument --drives")],
)
def test_an_argument_that_makes_no_sense_is_named(tmp_path, capsys, options, words):
    with pytest.raises(SystemExit):
        rectify.main([str(tmp_path), *options])
    assert words in capsys.readouterr().err


def test_the_users_picture_and_those_of_other_drives_stay(tmp_path, capsys, monkeypatch):
    for folder in ("here", "there"):
        make(tmp_path / folder, frames=1)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "output/rectify"
    output.mkdir(parents=True)
    (output / "mine.png").write_bytes(b"my own")
    for folder in ("here", "there", "here"):
        assert rectify.main([folder]) == 0
    assert "stay: mine becomes mine_2" in capsys.readouterr().out
    assert (output / "mine.png").read_bytes() == b"my own"
    assert sorted(path.name for path in output.glob("*.png")) == ["mine.png", "mine_2.png", "mine_3.png"]


@pytest.mark.parametrize("size", [(1, 1), (9, 30), (26, 80), (40, 120), (52, 160), (59, 640)])
def test_pictures_that_are_too_small_are_not_judged(tmp_path, size):
    """Perfect pairs of 80 px were called misaligned."""
    wide = texture(size[0], size[1] + 4)
    for side, view in (("left", wide[..., :-4]), ("right", wide[..., 4:])):
        (tmp_path / "mine" / side).mkdir(parents=True)
        to_picture(view).save(tmp_path / "mine" / side / "0.png")
    (fault,) = rectify.check_drive(tmp_path / "mine").faults
    assert fault == f"too small to tell, {size[1]}x{size[0]} px: look at pictures of 200x60 px or more"


def test_the_sample_is_well():
    drive = files.project_root() / "data/sample/test/2025_01_01_drive_0202_sync"
    assert rectify.check_drive(drive, frames=2).faults == []


@pytest.mark.skipif("MONODEPTH_KITTI" not in os.environ, reason="MONODEPTH_KITTI is not set: it names KITTI pictures")
@pytest.mark.parametrize(
    "spoil, words",
    [
        (None, None),
        (lambda picture: moved(picture, down=2), "too low"),
        (lambda picture: picture.rotate(0.5, Image.Resampling.BICUBIC), "anticlockwise"),
        (lambda picture: grown(picture, 1.01), "too large"),
    ],
)
def test_kittis_pictures_are_well_until_they_are_spoilt(tmp_path, spoil, words):
    drive = Path(os.environ["MONODEPTH_KITTI"]) / "train/2011_10_03_drive_0027_sync"
    for pair in kitti.find_pairs(drive, "grey")[48:51]:
        for side, path in (("left", pair.left), ("right", pair.right)):
            picture = Image.open(path)
            (tmp_path / side).mkdir(exist_ok=True)
            (spoil(picture) if spoil and side == "right" else picture).save(tmp_path / side / f"{path.stem}.png")
    found = rectify.check_drive(tmp_path, frames=2).faults
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
