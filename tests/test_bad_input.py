"""Whatever can be wrong with what a user gives: the sentence he gets, and what stays as it was.

The tables below are meant to be read. Faults that need machinery of their own are listed where that lies: hostile and
cut archives in test_download.py, a single picture or video in test_predict.py, unrectified drives in test_rectify.py,
killed runs and collapsed disparities in test_resume.py, foreign weights in test_checkpoints.py, parameters of notebooks
in test_run.py.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import make_drive, write_laser_calibration, write_scan
from test_training import SIZE, equal, run, short

from monodepth_lib import checkpoints, data, files, gif, kitti, networks, training
from monodepth_lib.commands import __main__ as entry_point
from monodepth_lib.commands import sweep

pytestmark = pytest.mark.filterwarnings("ignore:epoch .*the disparity is nearly the same")
LEFT, RIGHT = "image_02/data", "image_03/data"
FRAME = "0000000001.png"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder: what must stay as it is."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def drive(tmp_path):
    """A good drive of four pairs, the only one of the side "train" in tmp_path/data."""
    return make_drive(tmp_path / "data/train/2020_01_01_drive_0001_sync", range(4))


def load(drive: Path, bad_pairs="refuse", **options):
    pairs = kitti.select_pairs(drive.parents[1], "train", bad_pairs=bad_pairs)
    return data.prepare_dataloader(pairs, True, size=(16, 48), **{"batch_size": 2, **options})


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(height: int = 32, width: int = 96) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def with_checksums(png: bytes) -> bytes:
    """A PNG whose every chunk's checksum fits what the chunk has become, as far as there are whole chunks."""
    place, repaired = 8, png[:8]
    while place + 12 <= len(png) and place + 12 + (length := int.from_bytes(png[place : place + 4])) <= len(png):
        chunk = png[place : place + 8 + length]
        repaired += chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
        place += 12 + length
    return repaired + png[place:]


def claims(width: int, height: int) -> bytes:
    """A small PNG that says it has so many pixels."""
    png = encoded(noise())
    return with_checksums(png[:16] + struct.pack(">II", width, height) + png[24:])


# --- a data folder ----------------------------------------------------------------------------------------------


def put(*files: str, content: bytes | None = None):
    """Spoils a drive by files of that content; without any, by their absence."""

    def spoil(drive: Path):
        for file in files:
            (drive / file).unlink(missing_ok=True)
            if content is not None:
                (drive / file).write_bytes(content)

    return spoil


def no_pictures(drive: Path):
    for path in drive.rglob("*.png"):
        path.unlink()


def jpeg(content: bytes):
    """Frame 1 of the left camera as a JPEG of that content."""
    return lambda drive: (put(f"{LEFT}/{FRAME}")(drive), put(f"{LEFT}/0000000001.jpg", content=content)(drive))


def folder_for_a_picture(drive: Path):
    put(f"{LEFT}/{FRAME}")(drive)
    (drive / LEFT / FRAME).mkdir()


TURNED = Image.Exif()
TURNED[0x112] = 6
PNG, JPEG = encoded(noise()), encoded(noise(), "JPEG")
UNREADABLE = r"cannot be read as a picture \(.*\): fetch it again or remove it"

# fault: (how a good drive of four pairs is spoilt, the sentence, how many pairs bad_pairs="skip" leaves)
FAULTS = {
    "folder missing": (lambda d: shutil.rmtree(d.parents[1]), "data is missing: give the folder that holds the", None),
    "folder empty": (lambda d: shutil.rmtree(d), "train holds no drive: expected folders such as", None),
    "side missing": (lambda d: d.parent.rename(d.parents[1] / "other"), "train is missing: make it, or name", None),
    "right camera missing": (
        lambda d: shutil.rmtree(d / RIGHT),
        "image_03/data is missing: a pair needs both cameras; fetch the drive again",
        None,
    ),
    "pictures of seven rows": (
        put(f"{LEFT}/{FRAME}", f"{RIGHT}/{FRAME}", content=encoded(noise(7, 90))),
        f"{LEFT}/{FRAME} is 90x7 px, too small",
        3,
    ),
    "cameras empty": (no_pictures, "image_02/data holds no picture: expected 0000000000.png", None),
    "pictures of a phone's format": (
        lambda d: [p.rename(p.with_suffix(".heic")) for p in (d / LEFT).iterdir()],
        r"image_02/data holds no picture: expected .*\.bmp.*; it has \.heic",
        None,
    ),
    "fractions beyond 1": (
        put(f"{LEFT}/{FRAME}", content=encoded(Image.fromarray(np.full((32, 96), 3e4, np.float32)), "TIFF")),
        f"{LEFT}/{FRAME} cannot be read as a picture .*brightness from 0 to 255",
        3,
    ),
    "one view turned": (
        put(f"{LEFT}/{FRAME}", content=encoded(noise(), exif=TURNED)),
        f"{LEFT}/{FRAME} is 32x96 px, .*{RIGHT}/{FRAME} is 96x32 px",
        3,
    ),
    "right frame missing": (put(f"{RIGHT}/{FRAME}"), f"{LEFT}/{FRAME} has no partner .*: add or remove it", 3),
    "left frame missing": (put(f"{LEFT}/{FRAME}"), f"{RIGHT}/{FRAME} has no partner .*: add or remove it", 3),
    "two frames missing": (
        put(f"{RIGHT}/{FRAME}", f"{LEFT}/0000000003.png"),
        rf"{LEFT}/{FRAME}( \(and 1 more\))? has no partner",
        2,
    ),
    "no number in common": (
        lambda d: [p.rename(p.with_name(f"1{p.name[1:]}")) for p in sorted((d / RIGHT).iterdir())],
        f"{LEFT}/0000000000.png and .* share no number.*rename them alike",
        None,
    ),
    "picture without a number": (
        put(f"{LEFT}/preview.png", content=PNG),
        "preview.png has no frame number in its name: rename or remove it",
        None,
    ),
    "frame as PNG and as JPEG": (
        put(f"{LEFT}/0000000001.jpg", content=JPEG),
        r"0000000001\.(jpg|png) are the same frame: keep one of them",
        None,
    ),
    "views of unequal size": (
        put(f"{RIGHT}/{FRAME}", content=encoded(noise(32, 95))),
        f"{LEFT}/{FRAME} is 96x32 px, .*{RIGHT}/{FRAME} is 95x32 px: both views of a pair must have one size; fetch",
        3,
    ),
    "PNG of zero bytes": (put(f"{LEFT}/{FRAME}", content=b""), f"{LEFT}/{FRAME} {UNREADABLE}", 3),
    "PNG cut in its header": (put(f"{LEFT}/{FRAME}", content=PNG[:12]), f"{LEFT}/{FRAME} {UNREADABLE}", 3),
    "PNG cut in the middle": (put(f"{RIGHT}/{FRAME}", content=PNG[:2000]), f"{RIGHT}/{FRAME} {UNREADABLE}", 3),
    "PNG cut at its end, then zeros": (
        put(f"{RIGHT}/{FRAME}", content=PNG[:-100] + bytes(100)),
        f"{RIGHT}/{FRAME} {UNREADABLE}",
        3,
    ),
    "JPEG of zero bytes": (jpeg(b""), f"0000000001.jpg {UNREADABLE}", 3),
    "JPEG cut in its header": (jpeg(JPEG[:12]), f"0000000001.jpg {UNREADABLE}", 3),
    "JPEG cut in the middle": (jpeg(JPEG[:2000]), f"0000000001.jpg {UNREADABLE}", 3),
    "page of the web": (put(f"{LEFT}/{FRAME}", content=b"<html>404</html>"), f"{LEFT}/{FRAME} {UNREADABLE}", 3),
    "folder named as a picture": (folder_for_a_picture, rf"{LEFT}/{FRAME} cannot .*: name a file, not a folder", 3),
    "pictures of one pixel": (
        put(f"{LEFT}/{FRAME}", f"{RIGHT}/{FRAME}", content=encoded(noise(1, 1))),
        f"{LEFT}/{FRAME} is 1x1 px, too small to see anything in: fetch it again or remove it",
        3,
    ),
    "huge picture": (
        put(f"{LEFT}/{FRAME}", content=claims(50_000, 50_000)),
        rf"{LEFT}/{FRAME} cannot be read as a picture \(Image size \(2500000000 pixels\).*: make it smaller or remove",
        3,
    ),
    "two bad pairs": (
        put(f"{LEFT}/{FRAME}", f"{LEFT}/0000000002.png", content=b""),
        rf"{LEFT}/{FRAME} {UNREADABLE} \(and 1 more\)",
        2,
    ),
    "every pair bad": (
        put(*(f"{LEFT}/{frame:010d}.png" for frame in range(4)), content=b""),
        rf"{LEFT}/0000000000.png {UNREADABLE} \(and 3 more\)",
        None,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_data_folder_is_refused_by_name_before_training_or_skipped_and_counted(drive, tmp_path, fault):
    spoil, says, left = FAULTS[fault]
    spoil(drive)
    before = tree(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{tmp_path}.*{says}"):
        load(drive)
    if left is None:
        with pytest.raises((ValueError, FileNotFoundError), match=f"{tmp_path}.*{says}"):
            load(drive, bad_pairs="skip")
    else:
        with pytest.warns(UserWarning, match=f"^{4 - left} of 4 pairs are left out: {tmp_path}.*{says}") as said:
            loader = load(drive, bad_pairs="skip")
        assert len(said) == 1
        names = [pair.left.stem for pair in loader.dataset.pairs]
        assert len(names) == left and "0000000001" not in names
        assert len(list(loader)) == left // 2
    assert tree(tmp_path) == before


def test_the_remedy_names_the_option_and_other_words_are_refused(drive):
    put(f"{LEFT}/{FRAME}", content=b"")(drive)
    with pytest.raises(ValueError, match=r"remove it, or leave bad pairs out with bad_pairs='skip'$"):
        load(drive)
    with pytest.raises(ValueError, match="bad_pairs is 'ignore'; it must be 'refuse' or 'skip'"):
        load(drive, bad_pairs="ignore")


def hidden_and_strange_files(drive: Path):
    names = (".0000000007.png", "._0000000001.png", ".DS_Store", "Thumbs.db", "timestamps.txt")
    put(*(f"{LEFT}/{name}" for name in names), content=b"")(drive)


def renumber(*numbers: str):
    def change(drive: Path):
        for camera in (LEFT, RIGHT):
            for path, number in zip(sorted((drive / camera).iterdir()), numbers, strict=True):
                path.rename(path.with_name(number))

    return change


def both(content: bytes):
    return put(f"{LEFT}/{FRAME}", f"{RIGHT}/{FRAME}", content=content)


def converted(suffix: str):
    def change(drive: Path):
        for path in drive.rglob("*.png"):
            with Image.open(path) as picture:
                (picture.convert("L") if suffix == ".pgm" else picture).save(path.with_suffix(suffix))
            path.unlink()

    return change


# what looks strange and is none: every one gives the four pairs of the good drive
NORMAL = {
    "hidden files and files that are no pictures": hidden_and_strange_files,
    "gaps in the numbers": renumber("0000000010.png", "0000000011.png", "0000000100.png", "0000004543.png"),
    "numbers without zeros before them": renumber("2.png", "9.png", "10.PNG", "100.png"),
    "PNG and JPEG mixed": jpeg(JPEG),
    "pairs of different sizes": both(encoded(noise(40, 80))),
    "grey": both(encoded(noise().convert("L"))),
    "palette": both(encoded(noise().quantize(16))),
    "palette with transparency": both(encoded(noise().quantize(16), transparency=3)),
    "RGBA": both(encoded(noise().convert("RGBA"))),
    "16 bit": both(encoded(Image.fromarray(np.arange(32 * 96, dtype=np.uint16).reshape(32, 96)))),
    "one bit": both(encoded(noise().convert("1"))),
    "bytes after the end": both(PNG + bytes(100)),
    "JPEG named .png": both(JPEG),
    **{f"as {suffix}": converted(suffix) for suffix in (".bmp", ".tif", ".TIFF", ".webp", ".pgm")},
    "fractions from 0 to 1": both(encoded(Image.fromarray(np.full((32, 96), 0.5, np.float32)), "TIFF")),
    "both views turned": both(encoded(noise(), exif=TURNED)),
    "CMYK": both(encoded(noise().convert("CMYK"), "JPEG")),
}


@pytest.mark.parametrize("case", NORMAL)
def test_what_only_looks_strange_is_taken(drive, case):
    NORMAL[case](drive)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = load(drive)
        batches = list(loader)
    numbers = [kitti.frame_key(pair.left) for pair in loader.dataset.pairs]
    assert len(numbers) == 4 and numbers == sorted(numbers)
    assert all(kitti.frame_key(pair.right) == kitti.frame_key(pair.left) for pair in loader.dataset.pairs)
    for batch in batches:
        assert batch["left_image"].shape == batch["right_image"].shape == (2, 3, 16, 48)
        assert batch["left_image"].min() >= 0 and batch["left_image"].max() <= 1


def test_only_the_ends_of_good_files_are_read_and_doubtful_ones_whole(drive, monkeypatch):
    both(PNG + bytes(100))(drive)
    read = []
    monkeypatch.setattr(files, "read_picture", lambda path: read.append(path.name) or noise())
    assert kitti.check_pictures(kitti.find_pairs(drive)) == {}
    assert read == [FRAME, FRAME]


def test_damage_in_the_middle_is_named_in_training(drive):
    damaged = bytearray(PNG)
    damaged[4000:4010] = bytes(10)
    put(f"{RIGHT}/{FRAME}", content=bytes(damaged))(drive)
    with pytest.raises(ValueError, match=f"{RIGHT}/{FRAME} {UNREADABLE}"):
        list(load(drive))


EMPTY, OTHER_SIZE = (b"", UNREADABLE), (encoded(noise(32, 95)), "is 95x32 px: both views")


@pytest.mark.parametrize("workers, content, says", [(0, *EMPTY), (0, *OTHER_SIZE), (1, *EMPTY)])
def test_pictures_that_go_bad_after_the_look_are_named_through_workers_too(drive, workers, content, says):
    loader = load(drive, workers=workers, batch_size=4)
    put(f"{RIGHT}/{FRAME}", content=content)(drive)
    with pytest.raises(ValueError, match=f"{RIGHT}/{FRAME} {says}"):
        list(loader)


# --- permissions: as a user whom the system stops, and simulated, for root it does not stop ---


def test_a_picture_that_may_not_be_read_is_named(drive, simulated_or_real):
    with simulated_or_real(drive / RIGHT / FRAME):
        with pytest.raises(ValueError, match=rf"{RIGHT}/{FRAME} cannot .*Permission denied.*: change its permissions"):
            load(drive)
        with pytest.warns(UserWarning, match=f"^1 of 4 pairs are left out: .*{RIGHT}/{FRAME}"):
            assert len(load(drive, bad_pairs="skip").dataset) == 3


@pytest.mark.parametrize("folder", [RIGHT, ".."])
def test_a_folder_that_may_not_be_read_is_named(drive, simulated_or_real, folder):
    path = (drive / folder).resolve()
    with simulated_or_real(path), pytest.raises(PermissionError, match=rf"{path} may not be read .*: change its"):
        load(drive)


@pytest.fixture(params=["simulated", "real"])
def simulated_or_real(request, monkeypatch):
    """Within it, a path may not be read."""

    @contextlib.contextmanager
    def really(path: Path):
        mode = path.stat().st_mode
        path.chmod(0o300)
        if os.access(path, os.R_OK):
            pytest.skip("the system does not stop this user from reading (root)")
        yield
        path.chmod(mode)

    @contextlib.contextmanager
    def simulated(path: Path):
        def stopped(function):
            def wrapped(what, *rest, **options):
                if str(what) == str(path):
                    raise PermissionError(13, "Permission denied", str(path))
                return function(what, *rest, **options)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", stopped(open))
            patch.setattr(os, "scandir", stopped(os.scandir))
            yield

    return really if request.param == "real" else simulated


# --- calibration and truth --------------------------------------------------------------------------------------

ONES = " ".join(["1"] * 12)
CAMERA = {"focal_px": 500, "baseline_m": 0.12, "width": 640, "centre_px": [322.5, 240]}
NOT_WHOLE = r"is not a whole KITTI calibration \(it has no line P"


def camera_with(**changes) -> str:
    return json.dumps({**CAMERA, **changes})


# fault: (file in the drive, its text, the sentence)
CALIBRATIONS = {
    "empty": ("calib_cam_to_cam.txt", "", NOT_WHOLE + r"_rect_02 of 12 numbers\): fetch the calibration archive again"),
    "too few numbers": ("calib_cam_to_cam.txt", "P_rect_02: 1 2 3", NOT_WHOLE),
    "words": ("calib_cam_to_cam.txt", "P_rect_02: a b c d e f g h i j k l", NOT_WHOLE),
    "binary": ("calib_cam_to_cam.txt", "\x00\xff\x89PNG", NOT_WHOLE),
    "right camera missing": ("calib_cam_to_cam.txt", f"P_rect_02: {ONES}", NOT_WHOLE + "_rect_03"),
    "not finite": ("calib.txt", f"P2: {'nan ' * 12}\nP3: {ONES}", NOT_WHOLE + "2"),
    "other cameras only": ("calib.txt", f"P0: {ONES}", NOT_WHOLE),
    "no baseline": (
        "calib.txt",
        "P2: 100 0 48 4 0 100 16 0 0 0 1 0\nP3: 100 0 48 4 0 100 16 0 0 0 1 0",
        "gives f = 100.0 px, B = 0.0 m, W = 96 px: all must be positive",
    ),
    "cameras exchanged": (
        "calib_cam_to_cam.txt",
        "S_rect_02: 96 32\nP_rect_02: 100 0 48 0 0 100 16 0 0 0 1 0\nP_rect_03: 100 0 48 50 0 100 16 0 0 0 1 0",
        "gives f = .* B = -0.5 m, W = 96 px: all must be positive",
    ),
    **{
        f"width {width!r}": (
            "calib_cam_to_cam.txt",
            f"S_rect_02: {width}\nP_rect_02: 9 0 48 9 0 9 9 0 0 0 1 0\nP_rect_03: 9 0 48 0 0 9 9 0 0 0 1 0",
            "gives f = 9.0 px, B = 1.0 m, W = 0 px",
        )
        for width in ("", "nan 32", "inf 32", "none")
    },
    "camera.json cut": ("camera.json", "{", r"is not JSON \(.*\): write it as \{.*focal_px"),
    "camera.json too deep": ("camera.json", "[" * 100_000, "is not JSON"),
    "camera.json a list": ("camera.json", "[1, 2]", "is a list or a value: write it as .*focal_px"),
    "camera.json lacks": ("camera.json", '{"width": 640}', "lacks focal_px, baseline_m: write it as .*focal_px"),
    "camera.json misspelt": ("camera.json", camera_with(center_px=[1, 2]), "has center_px, but only .*centre_px are"),
    "focal_px null": ("camera.json", camera_with(focal_px=None), "focal_px is None; it must be a number above 0"),
    "focal_px text": ("camera.json", camera_with(focal_px="500"), "focal_px is '500'; it must be a number"),
    "focal_px NaN": ("camera.json", camera_with(focal_px=float("nan")), "focal_px is nan; it must be a number"),
    "focal_px huge": ("camera.json", camera_with(focal_px=10**400), "focal_px is 10+; it must be .* below 1e9"),
    "baseline_m negative": ("camera.json", camera_with(baseline_m=-0.12), "baseline_m is -0.12; it must be"),
    "baseline_m true": ("camera.json", camera_with(baseline_m=True), "baseline_m is True; it must be a number"),
    "baseline in mm": (
        "camera.json",
        camera_with(baseline_m=533),
        "baseline_m is 533; .* Is it in millimetres.* 0.533",
    ),
    "focal in mm": ("camera.json", camera_with(focal_px=4.25), "focal_px is 4.25 for .*640 px.* Is it in millimetres"),
    "focal of no lens": ("camera.json", camera_with(focal_px=4000), "focal_px is 4000 for .*640 px wide"),
    "width 0": ("camera.json", camera_with(width=0), "width is 0; it must be a number above 0"),
    "width broken": ("camera.json", camera_with(width=640.5), "width is 640.5; it must be a whole number of px"),
    "centre_px one": ("camera.json", camera_with(centre_px=[320]), r"centre_px is \[320\]; it must be \[column, row\]"),
    "centre_px text": ("camera.json", camera_with(centre_px=[320, "240"]), "centre_px is '240'; it must be a number"),
}


@pytest.mark.parametrize("fault", CALIBRATIONS)
def test_a_broken_calibration_is_named_with_what_it_lacks(tmp_path, fault):
    name, text, says = CALIBRATIONS[fault]
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"{tmp_path.name}/{name}:? {says}"):
        kitti.calibration(tmp_path, 96)


HTML = b"<html>404</html>"
RAMP = Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
SCAN = "cannot be read as a laser scan .*: fetch it again or remove it"
UINT16 = "cannot be read as a 16-bit PNG .*: fetch it again or remove it"

# fault: (reader, content, the sentence)
TRUTHS = {
    "scan of zero bytes": (kitti.read_scan, b"", SCAN),
    "scan cut": (kitti.read_scan, bytes(15), SCAN),
    "scan a page of the web": (kitti.read_scan, HTML * 4, SCAN),
    "scan not finite": (kitti.read_scan, np.full(8, np.nan, "<f4").tobytes(), SCAN),
    "scan a pointer of Git LFS": (kitti.read_scan, b"version https://git", SCAN),
    "truth of zero bytes": (kitti.read_uint16, b"", UINT16),
    "truth cut": (kitti.read_uint16, encoded(RAMP)[:100], UINT16),
    "truth of 8 bits": (kitti.read_uint16, encoded(noise().convert("L")), "mode L, not 16 bits.*: fetch it again"),
    "truth a page of the web": (kitti.read_uint16, HTML, UINT16),
    "truth huge": (kitti.read_uint16, claims(50_000, 50_000), UINT16),
}


@pytest.mark.parametrize("fault", TRUTHS)
def test_a_broken_file_of_truth_is_named(tmp_path, fault):
    read, content, says = TRUTHS[fault]
    (tmp_path / "0000000003.any").write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/0000000003.any .*{says}"):
        read(tmp_path / "0000000003.any")


# --- a run ------------------------------------------------------------------------------------------------------


class Code:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def torch_file(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


# fault: what lies in last.pt; all get one sentence, and the file stays
CHECKPOINTS = {
    "zero bytes": b"",
    "text": b"no checkpoint",
    "cut": torch_file({"run": {}, "model": torch.zeros(1000)})[:1000],
    "code in a torch file": torch_file({"run": Code(), "history": []}),
    "code in a plain pickle": pickle.dumps({"run": Code(), "history": []}),
    "weights alone": torch_file({"conv.weight": torch.zeros(3)}),
    "another project's": torch_file({"run": "experiment 3", "model": {}}),
    "a list": torch_file([1, 2, 3]),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_a_foreign_checkpoint_is_refused_runs_nothing_and_stays(data_dir, tmp_path, tiny, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.pt").write_bytes(CHECKPOINTS[fault])
    model = tiny()
    with pytest.raises(ValueError, match=rf"{tmp_path}/last\.pt is no checkpoint.*: remove it or use resume=False"):
        run(model, data_dir, tmp_path, resume=True)
    assert equal(model.state_dict(), tiny().state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == CHECKPOINTS[fault]


def test_a_checkpoint_that_cannot_be_opened_for_a_moment_stays(tmp_path, monkeypatch):
    for name, epochs in (("last", [1, 2]), ("previous", [1])):
        (tmp_path / f"{name}.pt").write_bytes(torch_file({"run": {"version": 4}, "history": epochs}))

    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(checkpoints, "open", fail, raising=False)
    kept = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(OSError, match=rf"{tmp_path}/last\.pt cannot be opened .*: make it readable"):
        checkpoints.Checkpoints(tmp_path, {}, {}).load()
    assert (tmp_path / "last.pt").read_bytes() == kept and (tmp_path / "previous.pt").is_file()


def test_code_in_a_file_of_weights_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (CHECKPOINTS["code in a torch file"], CHECKPOINTS["code in a plain pickle"]):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.safetensors holds no monodepth weights .*: train again"):
            checkpoints.load_model(tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def not_finite(model):
    torch.nn.init.constant_(model.decoder.heads[3].conv.bias, float("nan"))
    return model


def test_weights_that_are_not_finite_are_refused_for_prediction_and_for_training(data_dir, tmp_path, tiny):
    checkpoints.save_model(not_finite(tiny()), tmp_path / "w.safetensors", SIZE)
    with pytest.raises(ValueError, match=r"w\.safetensors holds no .*a weight is not a finite number.*: train again"):
        checkpoints.load_model(tmp_path / "w.safetensors")
    with pytest.raises(FloatingPointError, match="a weight of the network is not finite"):
        run(not_finite(tiny()), data_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# fault: (what is asked for, the sentence)
REQUESTS = {
    "batch larger than the data": (
        lambda folder: data.prepare_dataloader(kitti.select_pairs(folder, "train"), True, batch_size=10),
        "there are 9 training pairs, fewer than one batch of 10",
    ),
    "empty batch": (lambda _: data.prepare_dataloader([], True, batch_size=0), "batch_size is 0; it must"),
    "negative batch": (lambda _: data.prepare_dataloader([], batch_size=-1), "batch_size is -1; it"),
    "empty size": (lambda _: data.prepare_dataloader([], size=(0, 96)), r"size is \(0, 96\); it"),
    "profile unknown": (lambda _: training.settings("huge"), "profile is 'huge'; it must be one of tiny, class, full"),
}


@pytest.mark.parametrize("fault", REQUESTS)
def test_what_cannot_be_done_is_refused_with_what_can(data_dir, fault):
    ask, says = REQUESTS[fault]
    with pytest.raises(ValueError, match=says):
        ask(data_dir)


def test_sizes_that_no_power_of_two_divides_are_trained_at(data_dir, tmp_path, tiny):
    loader = data.prepare_dataloader(kitti.select_pairs(data_dir, "train"), True, size=(33, 101), batch_size=5)
    (row,) = training.train(tiny(), loader, None, tmp_path, short(size=(33, 101)), log=lambda _: None)
    assert row["train_loss"] > 0


WRITERS = {
    "last.pt": lambda path, model, data_dir: run(model, data_dir, path.parent),
    "w.safetensors": lambda path, model, _: checkpoints.save_model(model, path, SIZE),
    "history.csv": lambda path, *_: checkpoints.write_history([{"epoch": 1}] * 1000, path),
    "clip.gif": lambda path, *_: gif.write_gif([noise()], path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("how", ["a file in the way", "read-only"])
def test_an_output_folder_that_cannot_be_written_is_named(data_dir, tmp_path, tiny, name, how):
    folder = tmp_path / "out"
    if how == "read-only":
        folder.mkdir(mode=0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("the system does not stop this user from writing (root)")
    else:
        folder.write_text("mine")
    with pytest.raises(
        OSError, match=rf"out/{name} could not be written .*(wanted,|permissions or) choose another output"
    ):
        WRITERS[name](folder / name, tiny(width=1), data_dir)
    assert tree(tmp_path) == ({} if how == "read-only" else {"out": b"mine"})


WRITERS["points.ply"] = lambda path, *_: gif.write_ply(path, torch.ones(99, 99, 3), np.zeros((99, 99, 3), np.uint8))


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "last.pt"])  # test_resume.py fills its disk
def test_a_full_disk_leaves_the_old_file_and_no_litter(data_dir, tmp_path, tiny, full_disk, name):
    (tmp_path / name).write_bytes(b"the old one")
    with full_disk(), pytest.raises(OSError, match=rf"{name} could not be written.*too large"):
        WRITERS[name](tmp_path / name, tiny(), data_dir)
    assert tree(tmp_path) == {name: b"the old one"}


# --- mutated files ----------------------------------------------------------------------------------------------

fuzz = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def a_sentence_or_nothing(name: str, seconds: int = 60):
    """What happens within ends in time, and either well or with a ValueError or OSError that names the file."""

    def hang(*_):
        pytest.fail(f"{name}: no answer after {seconds} s")

    if hasattr(signal, "SIGALRM"):
        before = signal.signal(signal.SIGALRM, hang)
        signal.alarm(seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, OSError) as error:
        assert name in str(error), f"{type(error).__name__} does not name {name}: {error}"
    finally:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


SEEDS = {
    "RGB": encoded(noise(12, 16)),
    "palette": encoded(noise(12, 16).quantize(8)),
    "16 bit": encoded(Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16))),
    "JPEG": encoded(noise(12, 16), "JPEG", exif=TURNED),
    "progressive": encoded(noise(12, 16), "JPEG", progressive=True),
    "TIFF": encoded(noise(12, 16), "TIFF"),
    "GIF": encoded(noise(12, 16), "GIF"),
}
edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 127, 255]) | st.integers(0, 255)))


@fuzz
@given(st.sampled_from(list(SEEDS)), edits, st.floats(0.1, 1.5), st.booleans())
def test_mutated_pictures_give_a_sentence(tmp_path, monkeypatch, kind, changes, length, repaired):
    content = bytearray(SEEDS[kind])
    for place, value in changes:
        content[int(place * len(content))] = value
    content = content[: int(length * len(content))]
    path = tmp_path / "0000000001.png"
    path.write_bytes(with_checksums(bytes(content)) if repaired and content[:4] == b"\x89PNG" else content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # a bomb is one, and costs no minutes
    for read in (files.read_picture, files.picture_size, kitti.read_uint16):
        with a_sentence_or_nothing(str(path)):
            read(path)
    with a_sentence_or_nothing(str(path)):
        assert all(str(path) in said for said in kitti.check_pictures([kitti.Pair(tmp_path, path, path)]).values())
    assert list(tmp_path.iterdir()) == [path]


PROJECTIONS = "".join(f"P{camera}: 100 0 48 {-50 * camera} 0 100 16 0 0 0 1 0\n" for camera in range(4))
LASER = "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -1\n"
TEXTS = {
    "calib_cam_to_cam.txt": (
        "S_rect_02: 96 32\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 100 0 48 5 0 100 16 0 0 0 1 0\n"
        "P_rect_03: 100 0 48 -50 0 100 16 0 0 0 1 0\n"
    ),
    "calib_velo_to_cam.txt": "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -1\n",
    "calib.txt": PROJECTIONS + LASER.replace("_velo_to_cam", ""),
    "calib/0000000001.txt": PROJECTIONS + "R0_rect: 1 0 0 0 1 0 0 0 1\n" + LASER,
    "camera.json": json.dumps(CAMERA, indent=1),
}
words = st.sampled_from(
    ["", "nan", "-inf", "1e999", "1e308", "-1", "0", "1e-320", "9" * 400, "9" * 5000, "[" * 50_000, "]", "{", "}", ",",
     ":", '"', "null", "true", "\n", "\0", "P2:", "S_rect_02:", "centre_px"]
) | st.text(max_size=8)  # fmt: skip


@fuzz
@given(st.sampled_from(list(TEXTS)), st.lists(st.tuples(st.integers(0, 80), words), min_size=1, max_size=4))
def test_mutated_calibrations_give_a_sentence(tmp_path, name, changes):
    """A word of the file becomes another one: what is broken is found before it is used."""
    pieces = TEXTS[name].replace("\n", " \n ").split(" ")
    for place, word in changes:
        pieces[place % len(pieces)] = word
    drive = tmp_path / "drive"
    shutil.rmtree(drive, ignore_errors=True)
    for folder in (LEFT, RIGHT, "calib", "velodyne"):
        (drive / folder).mkdir(parents=True)
    (drive / LEFT / FRAME).write_bytes(PNG)
    write_scan(drive / "velodyne/0000000001.bin", [(11, 2, -1)])
    if name == "calib_velo_to_cam.txt":
        (drive / "calib_cam_to_cam.txt").write_text(TEXTS["calib_cam_to_cam.txt"])
    else:
        write_laser_calibration(drive)
    (drive / name).write_text(" ".join(pieces), encoding="utf-8", errors="replace")
    scan = drive / "velodyne/0000000001.bin"
    pair = kitti.Pair(drive, drive / LEFT / FRAME, drive / RIGHT / FRAME, truth=scan, truth_kind="scan")
    with a_sentence_or_nothing(str(drive)):
        camera = kitti.calibration(drive, 96, frame="0000000001")
        assert camera.focal_px > 0 and camera.baseline_m > 0 and camera.width > 0 and np.isfinite(camera.focal_baseline)
    if name != "camera.json":
        with a_sentence_or_nothing(str(drive)):
            depth = pair.ground_truth()
            assert depth.shape == (32, 96) and (depth >= 0).all() and np.isfinite(depth).all()


@fuzz
@given(st.binary(max_size=200) | st.lists(st.floats(width=32), max_size=40).map(lambda v: np.array(v, "<f4").tobytes()))
def test_mutated_scans_give_a_sentence(tmp_path, content):
    path = tmp_path / "0000000001.bin"
    path.write_bytes(content)
    matrix = np.array([[20.0, -10, 0, 40], [10, 0, -10, 20], [1, 0, 0, 2]])
    with a_sentence_or_nothing(str(path)):
        depth = kitti.project_scan(kitti.read_scan(path), matrix, (20, 40))
        assert depth.shape == (20, 40) and (depth >= 0).all() and np.isfinite(depth).all()


# --- mutated command lines --------------------------------------------------------------------------------------

NOWHERE = "http://127.0.0.1:9"

# Every command, with arguments that are right or that end in a sentence before hours are spent.
COMMANDS = {
    "run": "nothing -p seed 3 --output out",
    "sweep": "sweep.yaml --jobs 2 --summary",
    "train": "--data empty --output out --epochs 1 --batch-size 2 --height 32 --image-width 64 --learning-rate 1e-4 "
    "--seed 3 --workers 0 --train-drives a,b --device cpu --init tiny.safetensors",
    "evaluate": "--weights tiny.safetensors --data data --output out --cap 80 --size 32 64 --batch-size 2 "
    "--drives 日本·é --device cpu",
    "predict": "mine photo.png --weights tiny.safetensors --output out --focal-px 60 --baseline-m 0.5 --size 32 64 "
    "--width 50 --batch-size 2 --device cpu",
    "download": f"2011_09_26_drive_0002 --to out --frames 0:20 --jpeg 92 --base-url {NOWHERE} --tries 1 --timeout 1",
    "rectify": "data --frames 2 --drives 日本·é --output out",
    "export": "--weights none --onnx out/net.onnx --size 32 64",
    "grade": "submissions --output out/marks.csv --seconds 20 --memory-gb 4",
    "check": "--help",
}
ODD = st.sampled_from(
    ["", " ", "-1", "0", "1", "-0.0", "nan", "-inf", "1e999", "1e-320", "1e308", "9" * 30, "9" * 5000, "0x10", "１２",
     "1_0", "true", ",", "a,", ",,", "..", "../..", "~nobody", "~", ".", "mine", "mine/notes.txt", "mine/notes.txt/x",
     "data", "/dev/null", "/proc/x", "日本", "a" * 300, "日" * 90, "\udce4.png", "photo\n.png", "--", "-x", "5:", ":5",
     "7:3", "cuda:99", "mps", "http://[", "lab", "eigen", "unet_sample.safetensors", "c\t*?.json"]
) | st.text(st.characters(exclude_characters="/\0", exclude_categories=[]), max_size=12)  # fmt: skip


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory):
    """A folder of a user's, where he stands: pictures, notes, data, weights."""
    folder = tmp_path_factory.mktemp("user") / "a/b"
    make_drive(folder / "data/test/日本·é", range(2), truth=True)
    (folder / "data/test/日本·é/camera.json").write_text('{"focal_px": 60, "baseline_m": 0.5, "width": 96}')
    for name in ("mine", "empty", "submissions"):
        (folder / name).mkdir()
    cells = [{"cell_type": "code", "source": 'def depth(*_): ...\nchecks.check("1.1", depth)'}]
    (folder / "submissions/日本·é_99_small.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    noise().save(folder / "photo.png")
    noise().save(folder / "日本·é.png")
    noise().save(folder / "mine/photo.png")
    for name in ("photo_depth.png", "photo_colour.png", "notes.txt", "one.png", "metrics.csv", "net.onnx"):
        (folder / "mine" / name).write_bytes(b"mine")
    (folder / "sweep.yaml").write_text("notebooks: [nothing]\nparameters: {seed: 3}\n")
    runs = "notebooks: [05_training]\nruns: {some: {}, other: {data_dir: 日本·é}}\n"
    (folder / "日本·é.yaml").write_text(runs, encoding="utf-8")
    torch.manual_seed(0)
    checkpoints.save_model(networks.get_model("unet", base_channels=1), folder / "tiny.safetensors", (32, 64))
    return folder, tree(folder)


def test_every_command_is_fed_mutated_arguments():
    assert list(COMMANDS) == list(entry_point.COMMANDS)


@settings(max_examples=120, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(COMMANDS)), st.lists(st.tuples(st.integers(0, 30), ODD), max_size=3))
def test_mutated_command_lines_give_a_sentence_or_a_result_and_change_nothing(users_folder, name, changes):
    folder, before = users_folder
    arguments = COMMANDS[name].split()
    for place, word in changes:
        arguments[place % len(arguments)] = word
    outcome, out, err = None, console(), console()
    with pytest.MonkeyPatch.context() as patch, a_sentence_or_nothing(name), contextlib.ExitStack() as stack:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder.parent))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            outcome = entry_point.main([name, *arguments])
        except SystemExit as stop:  # argparse
            outcome = stop.code
    assert outcome in (0, 1, 2), (arguments, outcome)
    said = "".join(stream.buffer.getvalue().decode() for stream in (out, err))  # flushed at every write
    assert "Traceback" not in said and (outcome == 0 or said.strip())
    shutil.rmtree(folder / "out", ignore_errors=True)
    after = tree(folder)
    assert {name: after[name] for name in before} == before


def console(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


# --- the machine's own encoding ---------------------------------------------------------------------------------

# Every command that writes text, about a drive, a picture, a student or a run whose name is 日本·é: (command, its file)
WRITES_TEXT = {
    "train": ("--data data --train-drives 日本·é --val-drives none --output out --epochs 1 --batch-size 2 --height 32 "
              "--image-width 64 --workers 0 --device cpu --init tiny.safetensors", "history.csv"),
    "evaluate": ("--weights tiny.safetensors --data data --output out --device cpu", "metrics.csv"),
    "predict": ("日本·é.png --weights tiny.safetensors --output out --device cpu", ".monodepth"),
    "rectify": ("data --frames 1 --output out", ".monodepth"),
    "grade": ("submissions --output out/marks.csv --seconds 100", "marks.csv"),
    "sweep": ("日本·é.yaml --summary", "日本·é/summary.html"),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "cp936"])
def test_files_are_utf_8_and_no_console_ends_a_run_whatever_the_system_s_encoding(users_folder, monkeypatch, encoding):
    """As on a Windows: open() without an encoding takes the machine's own, and the console spells what that has."""
    folder, before = users_folder
    opened, out = io.open, console(encoding)

    def open_as_here(file, mode="r", buffering=-1, code=None, *rest, **options):
        code = options.pop("encoding", code)
        return opened(file, mode, buffering, code or (None if "b" in mode else encoding), *rest, **options)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sweep, "project_path", lambda path: folder / "out" if path == "output" else folder / path)
    for module in ("builtins", "io"):
        monkeypatch.setattr(f"{module}.open", open_as_here)
    monkeypatch.setattr(io, "text_encoding", lambda code, *_: code or encoding)
    for name, (arguments, file) in WRITES_TEXT.items():
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = entry_point.main([name, *arguments.split()])
        said = out.buffer.getvalue().decode(encoding)
        assert status in (0, 1) and "Traceback" not in said and "codec" not in said, (name, said)
        written = (folder / "out" / file).read_text(encoding="utf-8")
        if name in ("evaluate", "grade", "sweep"):
            assert "日本·é" in written, name
        shutil.rmtree(folder / "out")
    after = tree(folder)
    assert {name: after[name] for name in before} == before
