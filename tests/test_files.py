"""Files that are written whole or not at all, and pictures of every kind read by one reader."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from monodepth_lib import files
from monodepth_lib.files import atomic_write, picture_size, read_picture

# --- writing ---


def test_of_two_writers_of_one_file_none_fails_and_the_last_one_wins(tmp_path):
    path = tmp_path / "weights.pt"
    with atomic_write(path) as one:
        one.write_text("one")
        with atomic_write(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("old")
    killed, busy = tmp_path / "weights.pt.00000000.tmp", tmp_path / "weights.pt.11111111.tmp"
    own = tmp_path / "weights.pt of May.tmp"  # the user's
    for file in (killed, busy, own):
        file.write_text("half")
        if file != busy:
            os.utime(file, (time.time() - 4000,) * 2)
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([path, busy, own])


def test_what_cannot_be_written_is_named_with_the_right_remedy(tmp_path, monkeypatch):
    with (
        pytest.raises(OSError, match=r"could not be written .*: choose a shorter name"),
        atomic_write(tmp_path / ("n" * 300)) as partial,
    ):
        partial.write_text("x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(OSError, match=r"a\.txt could not be written .*: change its permissions or choose"),
        atomic_write(tmp_path / "a.txt") as partial,
    ):
        partial.write_text("x")
    assert not list(tmp_path.iterdir())


# --- pictures ---

# what EXIF's orientation asks of a picture that was stored turned
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, 1),
}
RAMP = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4


def stored(path, image, orientation):
    exif = Image.Exif()
    exif[files.ORIENTATION] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {"quality": 100} if path.suffix == ".jpg" else {}
    image.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    "suffix, mode",
    [(".png", "RGB"), (".png", "L"), (".png", "I;16"), (".jpg", "L"), (".webp", "RGB")]
    + [(".tif", mode) for mode in ("L", "RGB", "RGBA", "CMYK", "I;16")],
)
def test_a_turned_picture_of_any_kind_is_read_upright(tmp_path, suffix, mode, orientation):
    if mode == "I;16":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(RAMP).convert("RGB" if mode == "CMYK" else mode).convert(mode)
    path = stored(tmp_path / f"0{suffix}", image, orientation)
    picture = read_picture(path)
    expected = TURNS[orientation](RAMP)
    assert np.abs(np.asarray(picture)[..., 0].astype(int) - expected).max() <= (3 if suffix == ".jpg" else 0)
    assert picture_size(path) == picture.size == expected.shape[::-1]


def test_fractions_are_scaled_and_other_numbers_refused(tmp_path):
    for top, expected in ((1.0, [0, 128, 255]), (200.0, [0, 100, 200])):
        path = tmp_path / f"{top}.tif"
        Image.fromarray(np.array([[0, top / 2, top]], np.float32)).save(path)
        assert np.abs(np.asarray(read_picture(path))[0, :, 0].astype(int) - expected).max() <= 1
    for name, worst in (("large", 1000.0), ("negative", -1.0), ("none", np.nan)):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(np.array([[0, worst, 1]], np.float32)).save(path)
        with pytest.raises(ValueError, match=rf"{name}\.tif .*its numbers go from .* brightness from 0 to 255"):
            read_picture(path)


@pytest.mark.parametrize("suffix", files.PICTURES)
def test_each_format_of_the_list_is_read(tmp_path, suffix):
    path = tmp_path / f"0{suffix}"
    Image.new("RGB" if suffix != ".pgm" else "L", (12, 9), "white").save(path)
    assert read_picture(path).size == picture_size(path) == (12, 9)
    assert np.asarray(read_picture(path)).min() >= 254


@pytest.mark.parametrize(
    "error, remedy",
    [
        (PermissionError(13, "Permission denied"), "change its permissions or remove it"),
        (OSError(24, "Too many open files"), "too many files are open: use fewer workers"),
        (FileNotFoundError(2, "No such file or directory"), "fetch it again or remove it"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_right_remedy(tmp_path, monkeypatch, error, remedy):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=rf"0\.png cannot be read as a picture \(.*\): .*{remedy}"):
        read_picture(tmp_path / "0.png")


def test_a_folder_and_a_page_of_the_web_are_no_pictures(tmp_path):
    with pytest.raises(ValueError, match="name a file, not a folder"):
        read_picture(tmp_path)
    (tmp_path / "0.png").write_text("<html>")
    with pytest.raises(ValueError, match=r"0\.png cannot be read as a picture \(its format is not known\)"):
        read_picture(tmp_path / "0.png")
