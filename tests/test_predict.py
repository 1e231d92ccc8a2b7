"""Own pictures and clips from the shell: every kind of file, what is written, what is skipped."""

import json
import re
import struct
import sys
import wave
import weakref

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from synthetic import texture, to_picture
from torchvision.transforms.functional import to_tensor

import monodepth_lib
from monodepth_lib import checkpoints, depth, files, gif, kitti, networks, pictures, plots, testing
from monodepth_lib.commands import export, predict
from monodepth_lib.commands.outputs import Outputs
from monodepth_lib.pictures import Predictor, answer
from monodepth_lib.transforms import image_transforms

SIZE = (32, 96)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = networks.get_model("unet", base_channels=4).eval()
    for head in model.decoder.heads:  # a fresh model answers nearly the same everywhere: make it vary
        torch.nn.init.normal_(head.conv.weight, std=2.0)
    model.size = SIZE
    return model


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoints.save_model(model, path, SIZE)
    return path


@pytest.fixture
def run(weights, tmp_path):
    """Runs the command on `paths` into tmp_path/out, on the CPU; returns the exit status."""

    def command(*paths, output=tmp_path / "out"):
        options = ["--weights", str(weights), "--output", str(output), "--device", "cpu"]
        return predict.main([*map(str, paths), *options])

    return command


def picture(height=40, width=100, seed=0):
    return to_picture(texture(height, width, seed))


def expected(model, image, post_process=True):
    """What `testing.predict` says of an RGB picture, brought to the picture's own size."""
    view = image_transforms("test", SIZE)({"left_image": image, "right_image": image})["left_image"]
    plain, processed = testing.predict(model, view[None])
    return depth.resize_map(processed if post_process else plain, (image.height, image.width))[0].numpy()


def names(folder):
    """What lies in a folder, our record left out."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".monodepth")


# --- pictures ---


@pytest.mark.parametrize(
    "kind", ["rgb.png", "rgb.JPG", "rgb.tif", "rgb.webp", "grey", "16", "palette", "rgba", "1", "cmyk"]
)
def test_every_kind_of_picture_gives_what_the_network_says_of_its_rgb_values(kind, model, run, tmp_path):
    image = picture()
    path = tmp_path / ("p.png" if "." not in kind else kind)
    if kind == "grey":
        image = image.convert("L")
    elif kind == "palette":
        image = image.quantize(16)
    elif kind == "1":
        image = image.convert("1")
    elif kind == "cmyk":
        path, image = tmp_path / "p.jpg", image.convert("CMYK")
    if kind == "16":
        image = image.convert("L")
        Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(path)
    elif kind == "rgba":
        see_through = image.copy()
        see_through.putalpha(40)
        see_through.save(path)
    else:
        image.save(path)
    if path.suffix in (".JPG", ".jpg", ".webp"):  # these lose a little: what counts is what is in the file
        with Image.open(path) as stored:
            image = stored.convert("RGB")
    assert run(path) == 0
    got = np.load(tmp_path / "out" / f"{path.stem}_disparity.npy")
    assert got.dtype == np.float32 and got.shape == (40, 100)
    assert got.std() > 0.001  # or the comparison would say little
    np.testing.assert_allclose(got, expected(model, image.convert("RGB")), atol=1e-5)


@pytest.mark.parametrize("size", [(33, 77), (200, 20), (1, 1), (1, 300), (400, 3)])
def test_any_size_and_aspect(size, model, run, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / "p.png")
    assert run(tmp_path / "p.png", "--focal-px", size[1], "--baseline-m", 0.5) == 0
    out = tmp_path / "out"
    np.testing.assert_allclose(np.load(out / "p_disparity.npy"), expected(model, image), atol=1e-5)
    assert kitti.read_uint16(out / "p_depth.png").shape == size
    assert Image.open(out / "p_colour.png").width == 2 * size[1]


def test_pictures_of_a_folder_differ_in_size_and_go_through_in_batches(model, run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    images = {f"p{n}": picture(20 + 7 * n, 50 + 11 * n, seed=n) for n in range(5)}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "._p0.png").write_text("what some systems leave beside a picture")
    assert run(folder, "--batch-size", 2) == 0
    for name, image in images.items():
        np.testing.assert_allclose(
            np.load(tmp_path / "out" / f"{name}_disparity.npy"), expected(model, image), atol=1e-5
        )
    ends = ("colour.png", "disparity.npy", "disparity.png")
    assert names(tmp_path / "out") == [f"{name}_{end}" for name in images for end in ends]


def test_without_post_processing_the_answer_is_the_plain_one(model, run, tmp_path):
    picture().save(tmp_path / "p.png")
    assert run(tmp_path / "p.png", "--no-post-process") == 0
    got = np.load(tmp_path / "out/p_disparity.npy")
    np.testing.assert_allclose(got, expected(model, picture(), post_process=False), atol=1e-5)
    assert abs(got - expected(model, picture())).max() > 1e-4


def test_the_16_bit_disparity_is_in_pixels_of_the_picture(run, tmp_path, capsys):
    picture().save(tmp_path / "p.png")
    assert run(tmp_path / "p.png") == 0
    stored = kitti.read_uint16(tmp_path / "out/p_disparity.png")
    np.testing.assert_allclose(stored, 100 * np.load(tmp_path / "out/p_disparity.npy"), atol=1 / 512 + 1e-5)
    assert "16 bits" not in capsys.readouterr().out


def test_what_16_bits_cannot_hold_is_said_and_not_wrapped_around(tmp_path):
    disparity = torch.full((4, 2000), 0.1)  # 200 px
    disparity[0] = 0.2  # 400 px
    note = predict.write_picture(answer(Image.new("RGB", (2000, 4)), disparity), tmp_path / "p")
    assert "p_disparity.png" in note and "25.0%" in note
    stored = kitti.read_uint16(tmp_path / "p_disparity.png")
    assert (stored[0] == 65535 / 256).all() and stored[1:] == pytest.approx(200, abs=1 / 256)


def test_depth_is_metres_with_the_pictures_own_focal_length(run, tmp_path):
    picture().save(tmp_path / "p.png")
    assert run(tmp_path / "p.png", "--focal-px", 60, "--baseline-m", 0.5) == 0
    disparity = np.load(tmp_path / "out/p_disparity.npy")
    stored = kitti.read_uint16(tmp_path / "out/p_depth.png")
    np.testing.assert_allclose(stored, 60 * 0.5 / (100 * disparity), atol=1 / 512 + 1e-4)
    assert not (tmp_path / "out/p_disparity.png").exists()


def test_a_camera_file_gives_the_same_depth_at_any_width(run, tmp_path):
    picture().save(tmp_path / "p.png")
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps({"focal_px": 600, "baseline_m": 0.5, "width": 1000}))
    assert run(tmp_path / "p.png", "--camera", camera) == 0
    stored = kitti.read_uint16(tmp_path / "out/p_depth.png")
    np.testing.assert_allclose(stored, 0.3 / np.load(tmp_path / "out/p_disparity.npy"), atol=1 / 512 + 1e-4)


def test_depth_beyond_16_bits_says_the_most_and_never_unknown(tmp_path):
    disparity = torch.tensor([[1e-7, 1e-4, 0.3]])
    said = answer(Image.new("RGB", (3, 1)), disparity, 0.0003)
    note = predict.write_picture(said, tmp_path / "p", 0.0003)
    assert note == "p_depth.png: 33.3% of the pixels exceed the 256 m that fit in 16 bits; use the .npy"
    stored = kitti.read_uint16(tmp_path / "p_depth.png")[0] * 256
    assert stored.tolist() == [65535, 768, 1]


def test_the_colour_picture_shows_the_picture_and_its_disparity(run, tmp_path):
    image = picture(40, 100)
    image.save(tmp_path / "p.png")
    assert run(tmp_path / "p.png") == 0
    disparity = np.load(tmp_path / "out/p_disparity.npy")
    drawn = np.asarray(Image.open(tmp_path / "out/p_colour.png"))
    assert np.array_equal(drawn[:, :100], np.asarray(image))
    coloured = plots.colour_map(disparity, *gif.colour_range(disparity))
    assert abs(drawn[:, 100:].astype(int) - coloured).max() <= 2


def test_the_colour_picture_is_no_wider_than_asked_for(run, tmp_path):
    picture(40, 100).save(tmp_path / "p.png")
    assert run(tmp_path / "p.png", "--width", 50) == 0
    assert Image.open(tmp_path / "out/p_colour.png").size == (100, 20)


def test_from_python_a_picture_an_array_or_a_path_gives_the_same(model, weights, tmp_path):
    image = picture()
    image.save(tmp_path / "p.png")
    network = monodepth_lib.load(weights, device="cpu")
    said = network.predict(image.convert("RGBA"))
    assert said.disparity.dtype == np.float32 and said.depth is None
    np.testing.assert_allclose(said.disparity, expected(model, image), atol=1e-5)
    array = np.asarray(image)
    for same in (tmp_path / "p.png", str(tmp_path / "p.png"), array, array / 255, array.astype(np.uint16) * 257):
        np.testing.assert_allclose(network.predict(same).disparity, said.disparity, atol=1e-6)
    assert said.coloured.size == (100, 40)
    metres = network.predict(image, focal_px=60, baseline_m=0.5).depth
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, 60 * 0.5 / (100 * said.disparity), rtol=1e-5)
    small = monodepth_lib.load(weights, device="cpu", size=(64, 64)).predict(image).disparity
    assert small.shape == (40, 100) and abs(small - said.disparity).max() > 1e-4


@pytest.mark.parametrize(
    ("given", "camera", "said"),
    [
        ("nothing.png", {}, "nothing.png"),
        (np.zeros((4, 5, 2), np.uint8), {}, r"shape is \(4, 5, 2\)"),
        (np.full((4, 5), 7.0), {}, "floats must lie from 0 to 1"),
        (np.full((4, 5), np.nan), {}, "floats must lie from 0 to 1"),
        (np.zeros((4, 5), int), {}, "holds int64"),
        (Image.fromarray(np.full((4, 5), 7.0, np.float32)), {}, "floats must lie from 0 to 1"),
        (Image.new("RGB", (100, 40)), {"focal_px": 60}, "belong together"),
        (Image.new("RGB", (100, 40)), {"focal_px": 60, "baseline_m": 533}, "baseline_m is 533.* write 0.533"),
        (Image.new("RGB", (100, 40)), {"focal_px": 4.25, "baseline_m": 0.5}, "focal_px is 4.25.* in millimetres"),
        (Image.new("RGB", (100, 40)), {"focal_px": 501, "baseline_m": 0.5}, "focal_px is 501"),
        (Image.new("RGB", (100, 40)), {"focal_px": float("nan"), "baseline_m": 0.5}, "focal_px is nan"),
    ],
)
def test_what_is_no_picture_or_no_camera_is_refused(weights, given, camera, said):
    with pytest.raises(ValueError, match=said):
        monodepth_lib.load(weights, device="cpu").predict(given, **camera)


def test_a_network_without_a_size_asks_for_one(monkeypatch):
    monkeypatch.setattr("monodepth_lib.pictures.load_model", lambda _: networks.get_model("unet", base_channels=2))
    with pytest.raises(ValueError, match="give size"):
        monodepth_lib.load("any")


# --- EXIF ---


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_a_turned_jpeg_gives_the_same_as_the_picture_turned_by_hand(run, tmp_path):
    picture(60, 40).save(tmp_path / "turned.jpg", exif=exif(6))
    with Image.open(tmp_path / "turned.jpg") as stored:
        stored.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    assert run(tmp_path / "turned.jpg", tmp_path / "upright.png") == 0
    turned, upright = (np.load(tmp_path / "out" / f"{name}_disparity.npy") for name in ("turned", "upright"))
    assert turned.shape == (40, 60)
    np.testing.assert_allclose(turned, upright, atol=1e-6)
    with Image.open(tmp_path / "turned.jpg") as stored:
        assert pictures.to_picture(stored).size == (60, 40)


def test_damaged_exif_does_not_cost_the_picture(run, tmp_path):
    picture().convert("L").save(tmp_path / "p.jpg", exif=exif(6))
    content = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(content.replace(b"Exif\x00\x00MM", b"Exif\x00\x00MX", 1))
    with pytest.raises(SyntaxError):
        ImageOps.exif_transpose(files.read_picture(tmp_path / "p.jpg"))
    assert run(tmp_path / "p.jpg") == 0


# --- what is skipped, names, and what is already there ---


def test_an_unreadable_file_is_named_and_the_rest_is_done(run, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    picture().save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "c.jpg").write_text("no picture")
    (folder / "d.gif").write_text("no gif")
    picture(seed=1).save(folder / "e.png")
    assert run(folder) == 1
    said = capsys.readouterr()
    for name in ("b.png", "c.jpg", "d.gif"):
        (line,) = [line for line in said.err.splitlines() if str(folder / name) in line]
        assert line.startswith("skipped: ")
    assert "2 of 5 files are done" in said.out
    assert {name[0] for name in names(tmp_path / "out")} == {"a", "e"}


def test_a_batch_of_nothing_but_unreadable_files(run, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 1


def test_a_missing_path_and_an_empty_folder_are_named(run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "a.png", tmp_path / "gone.png", tmp_path / "empty") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/gone.png is missing" in said and f"{tmp_path}/empty holds no picture" in said
    assert len(names(tmp_path / "out")) == 3


def test_nothing_to_predict_is_said(run, tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "nothing to predict" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_that_fails_is_a_sentence_that_names_the_pictures(model, tmp_path, capsys):
    def fails(pictures):
        raise torch.OutOfMemoryError("not enough memory")

    picture().save(tmp_path / "a.png")
    assert predict.run({tmp_path / "a.png": tmp_path / "out/a"}, fails) == [tmp_path / "a.png"]
    assert capsys.readouterr().err == f"skipped: {tmp_path}/a.png: not enough memory\n"


def test_a_second_run_into_the_same_folder_takes_the_same_inputs(run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    picture(seed=1).save(tmp_path / "b_depth.png")  # not ours: there is no b_disparity.npy
    gif.stream_gif([(picture(), 0.1)] * 2, tmp_path / "c.gif")
    for _ in range(2):
        assert run(tmp_path, "--focal-px", 50, "--baseline-m", 0.5, output=tmp_path) == 0
        assert "3 of 3 files" in capsys.readouterr().out
    assert run(*tmp_path.glob("*.png"), output=tmp_path) == 0  # named one by one, as a shell does
    assert "2 of 2 files" in capsys.readouterr().out


def test_equal_names_get_names_of_their_own(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "a.jpg", "b/a.png", "c.png", "C.gif", "d.png", "a_jpg.png")]
    stems = predict.output_stems(paths, Outputs(tmp_path / "out"))
    assert [stem.name for stem in stems.values()] == ["a_png", "a_jpg", "a_png_2", "c_png", "C_gif", "d", "a_jpg_2"]


def test_an_output_never_replaces_an_input(run, tmp_path):
    picture().save(tmp_path / "a.png")
    picture(seed=1).save(tmp_path / "a_colour.png")
    before = (tmp_path / "a_colour.png").read_bytes()
    assert run(tmp_path, output=tmp_path) == 0
    assert (tmp_path / "a_colour.png").read_bytes() == before
    assert (tmp_path / "a_2_colour.png").is_file() and (tmp_path / "a_colour_disparity.npy").is_file()


def test_what_no_run_wrote_is_never_replaced_and_the_other_name_is_said(run, tmp_path, capsys):
    picture().save(tmp_path / "a.jpg")
    gif.stream_gif([(picture(), 0.1)] * 2, tmp_path / "c.gif")
    mine = {"a_depth.png": b"ground truth", "c_depth.npy": b"measured", "c_2_colour.gif": b"holiday"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    for again in (False, True):
        assert run(tmp_path / "a.jpg", tmp_path / "c.gif", output=tmp_path) == 0
        said = capsys.readouterr().out
        assert "holds other files of that name, which stay: a becomes a_2 (and 1 more)" in said
        assert ("2 of 2 files have results of an earlier run in" in said) == again
    assert {name: (tmp_path / name).read_bytes() for name in mine} == mine
    ours = {path.name.rpartition("_")[0] for path in tmp_path.iterdir() if path.name not in mine} - {""}
    assert ours == {"a_2", "c_3"}


def test_two_runs_into_one_folder_do_not_replace_each_other(run, tmp_path, capsys):
    for folder in ("image_02", "image_03"):
        (tmp_path / folder).mkdir()
        picture(seed=len(capsys.readouterr().out)).save(tmp_path / folder / "0.png")
        assert run(tmp_path / folder) == 0
    assert names(tmp_path / "out") == [
        f"0_{end}"
        for end in (
            "2_colour.png",
            "2_disparity.npy",
            "2_disparity.png",
            "colour.png",
            "disparity.npy",
            "disparity.png",
        )
    ]
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    assert run(tmp_path / "image_02") == run(tmp_path / "image_03") == 0  # once more: the same names
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


def test_a_result_that_was_changed_since_is_the_users(run, tmp_path):
    picture().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png") == 0
    (tmp_path / "out/a_colour.png").write_bytes(b"painted over")
    assert run(tmp_path / "a.png") == 0
    assert (tmp_path / "out/a_colour.png").read_bytes() == b"painted over"
    assert (tmp_path / "out/a_2_colour.png").is_file()


def test_two_links_to_one_picture_are_both_done(run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    for name in ("one.png", "two.png"):
        (tmp_path / name).symlink_to("a.png")
    assert run(tmp_path / "one.png", tmp_path / "two.png") == 0
    assert "2 of 2 files" in capsys.readouterr().out


def test_formats_that_are_not_read_are_named(run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.avif"):
        (tmp_path / name).write_bytes(b"?")
    assert run(tmp_path) == 1
    assert f"{tmp_path}: left out, because this format is not read: 2 .heic, 1 .avif; save" in capsys.readouterr().err


@pytest.mark.parametrize("letter", ["x", "日"])
def test_a_long_name_is_shortened_and_stays_its_own(run, tmp_path, letter):
    stem = letter * (245 // len(letter.encode()))
    for name in (f"{stem}.png", f"{stem[:-1]}.png"):
        picture().save(tmp_path / name)
    assert run(tmp_path) == run(tmp_path) == 0
    ours = {name.rpartition("_")[0] for name in names(tmp_path / "out")}
    assert len(ours) == 2 and all(name.startswith(letter * 60) and len(name.encode()) <= 200 for name in ours)


def test_a_file_named_twice_is_done_once(run, tmp_path, monkeypatch, capsys):
    picture().save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, "a.png") == 0
    assert "1 of 1 files" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_outputs_and_nothing_half(run, full_disk, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    gif.stream_gif([(picture(seed=n), 0.1) for n in range(3)], tmp_path / "b.gif")
    assert run(tmp_path / "a.png", tmp_path / "b.gif") == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    for size in (0, 1000, 16_100, 20_000):
        with full_disk(size):
            assert run(tmp_path / "a.png", tmp_path / "b.gif") == 1
        assert "could not be written" in capsys.readouterr().err
        assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--focal-px", "50"], "belong together"),
        (["--focal-px", "50", "--baseline-m", "1", "--camera", "c.json"], "leave --focal-px"),
        (["--size", "8", "96"], "argument --size: 8 must be at least 32"),
        (["--size", "32", "9999999999999"], "argument --size: 9999999999999 must be at least 32 and at most 4096"),
        (["--batch-size", "0"], "argument --batch-size: 0 must be at least 1"),
        (["--onnx", "x.onnx"], "argument --weights: not allowed with argument --onnx"),
        (["--focal-px", "nan", "--baseline-m", "1"], "argument --focal-px: nan is not finite"),
        (["--width", "x"], "argument --width: invalid int"),
    ],
)
def test_wrong_options_are_refused(options, said, run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "a.png", *options)
    assert stop.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--camera", "gone.json"], "gone.json is missing: write focal_px"),
        (["--focal-px", "60", "--baseline-m", "533"], "baseline_m is 533; .* Is it in millimetres"),
    ],
)
def test_a_camera_that_cannot_be_is_asked_about_before_anything_is_done(options, said, run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", *options) == 2
    assert re.search(said, capsys.readouterr().err) and not (tmp_path / "out").exists()


def test_a_focal_length_in_millimetres_is_asked_about_at_the_picture(run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--focal-px", 4.25, "--baseline-m", 0.54) == 1
    assert f"skipped: {tmp_path}/a.png: focal_px is 4.25 for pictures 100 px wide" in capsys.readouterr().err


def test_weights_are_found_by_name_and_from_where_one_stands(weights, tmp_path, monkeypatch, capsys):
    picture().save(tmp_path / "a.png")
    monkeypatch.chdir(weights.parent)
    command = [str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main([*command, "--weights", "tiny.safetensors"]) == 0
    assert "32x96" in capsys.readouterr().out
    assert predict.main([*command, "--weights", "unet_sample", "--size", "64", "96"]) == 0
    assert "64x96" in capsys.readouterr().out
    assert predict.main([*command, "--weights", "gone"]) == 2
    assert "gone.safetensors is missing" in capsys.readouterr().err
    assert predict.main([*command, "--weights", "sub/gone.safetensors"]) == 2
    assert f"{weights.parent}/sub/gone.safetensors is missing" in capsys.readouterr().err


def test_the_default_folder_lies_where_one_stands(weights, tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert predict.main(["a.png", "--weights", str(weights), "--device", "cpu"]) == 0
    assert "a_disparity.npy" in names(tmp_path / "output/predict")


# --- ONNX ---


@pytest.fixture(scope="module")
def onnx_file(model, tmp_path_factory):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed (pip install -e '.[onnx]')")
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export.export_onnx(model, path)
    return path


def test_an_exported_file_gives_the_answers_of_its_weights(onnx_file, run, tmp_path, capsys):
    picture().save(tmp_path / "a.png")
    gif.stream_gif(clip_frames([0.1] * 3), tmp_path / "c.gif")
    assert run(tmp_path) == 0
    folder = tmp_path / "onnx"
    for options in ([], ["--no-post-process"]):
        assert predict.main([str(tmp_path), "--onnx", str(onnx_file), "--output", str(folder), *options]) == 0
        assert "at 32x96" in capsys.readouterr().out
        for name in ("a_disparity.npy", "c_disparity.npy"):
            difference = abs(np.load(folder / name) - np.load(tmp_path / "out" / name)).max()
            assert (difference > 1e-3) if options else (difference < 1e-4)


def test_another_file_is_no_network(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.onnx").write_bytes(b"no network")
    for file, said in (("a.onnx", "holds no network of monodepth export"), ("b.onnx", "is missing: make it with")):
        assert predict.main([str(tmp_path / "a.png"), "--onnx", str(tmp_path / file)]) == 2
        assert f"{tmp_path / file} {said}" in capsys.readouterr().err


# --- clips ---


def clip_frames(durations, size=(40, 100)):
    frames = [(picture(*size, seed=n), seconds) for n, seconds in enumerate(durations)]
    if len(frames) > 2:
        frames[2] = frames[1][0], frames[2][1]  # a picture that stands still stays a frame of its own
    return frames


def test_a_gif_gives_a_gif_of_the_same_frames_and_durations(model, run, tmp_path):
    durations = [0.1, 0.04, 0.04, 0.5, 0.1]
    gif.stream_gif(clip_frames(durations), tmp_path / "c.gif")
    assert run(tmp_path / "c.gif", "--focal-px", 60, "--baseline-m", 0.5, "--batch-size", 2) == 0
    frames = list(predict.read_frames(tmp_path / "c.gif"))
    disparities = np.load(tmp_path / "out/c_disparity.npy")
    assert disparities.dtype == np.float32 and disparities.shape == (5, *SIZE)
    for (image, _), disparity in zip(frames, disparities, strict=True):
        view = image_transforms("test", SIZE)({"left_image": image, "right_image": image})["left_image"]
        np.testing.assert_allclose(disparity, testing.predict(model, view[None])[1][0], atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "out/c_depth.npy"), 0.3 / disparities, rtol=1e-5)
    drawn = list(predict.read_frames(tmp_path / "out/c_colour.gif"))
    assert [seconds for _, seconds in drawn] == durations
    with Image.open(tmp_path / "out/c_colour.gif") as image:
        assert image.info["loop"] == 0
    limits = gif.colour_range(disparities)
    for (image, _), (source, _), disparity in zip(drawn, frames, disparities, strict=True):
        map_ = depth.resize_map(torch.from_numpy(disparity), (40, 100)).numpy()
        whole = gif.side_by_side(source, map_, limits, 100, 0.3)
        assert image.size == whole.size  # the legend of distances included
        difference = np.abs(np.asarray(image).astype(int) - np.asarray(whole))
        assert difference.mean() < 8  # 256 colours for a picture of noise and a map
    assert names(tmp_path / "out") == ["c_colour.gif", "c_depth.npy", "c_disparity.npy"]


def test_one_range_of_colours_over_the_clip(tmp_path):
    """A frame that is far away throughout is dark throughout, though another would not have been so near."""
    gif.stream_gif([(Image.new("RGB", (40, 20)), 0.1)] * 10, tmp_path / "c.gif")
    answers = iter([0.1] * 9 + [0.2])
    predict.write_clip(
        tmp_path / "c.gif", tmp_path / "c", lambda pictures: torch.full((1, 8, 16), next(answers)), batch_size=1
    )
    drawn = [np.asarray(image)[10, 60].astype(int) for image, _ in predict.read_frames(tmp_path / "c_colour.gif")]
    far, near = (plots.colour_map(np.full((1, 1), value), 0, 0.2)[0, 0].astype(int) for value in (0.1, 0.2))
    assert all(abs(colour - far).max() <= 6 for colour in drawn[:9])
    assert abs(drawn[9] - near).max() <= 6


def test_the_range_is_that_of_all_frames(tmp_path, monkeypatch):
    torch.manual_seed(1)
    maps = torch.rand(6, 8, 16) ** 3 * 0.3
    maps[4:] *= 0.3  # the last frames are far away
    gif.stream_gif([(Image.new("RGB", (40, 20)), 0.1)] * 6, tmp_path / "c.gif")
    seen = []
    draw = predict.draw
    monkeypatch.setattr(predict, "draw", lambda *given: seen.append(given[2]) or draw(*given))
    parts = iter(maps.split(4))
    predict.write_clip(tmp_path / "c.gif", tmp_path / "c", lambda pictures: next(parts), batch_size=4)
    assert len(set(seen)) == 1
    assert seen[0] == pytest.approx(gif.colour_range(maps.numpy()), abs=1e-3)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_memory_does_not_grow_with_the_clip(suffix, tmp_path, monkeypatch):
    """Of all the pictures a long clip has, only a few are ever there at once."""
    if suffix == ".mp4":
        pytest.importorskip("av", reason="videos need the extra `video`")
    alive: set[int] = set()
    most = [0, 0]  # of the pictures read, of the frames drawn
    draw = predict.draw

    def track(image, kind):
        number = len(alive) and max(alive) + 1
        alive.add(number)
        weakref.finalize(image, alive.discard, number)
        most[kind] = max(most[kind], len(alive))
        return image

    def frames(path):
        for number in range(60):
            yield track(Image.new("RGB", (32, 16), (4 * number, 0, 0)), 0), 0.1

    monkeypatch.setattr(predict, "read_frames", frames)
    monkeypatch.setattr(predict, "draw", lambda *given: track(draw(*given), 1))
    maps = lambda pictures: torch.full((len(pictures), 8, 16), 0.1)  # noqa: E731
    predict.write_clip(tmp_path / f"c{suffix}", tmp_path / "c", maps, batch_size=4)
    assert np.load(tmp_path / "c_disparity.npy").shape == (60, 8, 16)
    assert 4 <= most[0] <= 8 and 2 <= most[1] <= 8


def test_a_broken_gif_leaves_no_output(run, tmp_path, capsys):
    gif.stream_gif(clip_frames([0.1] * 4), tmp_path / "c.gif")
    content = (tmp_path / "c.gif").read_bytes()
    (tmp_path / "c.gif").write_bytes(content[: len(content) * 2 // 3])
    assert run(tmp_path / "c.gif") == 1
    assert f"skipped: {tmp_path}/c.gif cannot be read as a clip" in capsys.readouterr().err
    assert names(tmp_path / "out") == []


def test_without_the_extra_a_video_is_skipped_with_the_way_to_install_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "c.mp4").write_bytes(b"a video")
    picture().save(tmp_path / "a.png")
    gif.stream_gif(clip_frames([0.1] * 2), tmp_path / "b.gif")
    assert run(tmp_path) == 1
    said = capsys.readouterr()
    assert f"skipped: {tmp_path}/c.mp4: videos need PyAV: pip install" in said.err and "2 of 3" in said.out


# --- videos ---


@pytest.fixture
def av():
    return pytest.importorskip("av", reason="videos need the extra `video`")


DURATIONS = [0.04, 0.04, 0.2, 0.1, 1.0]


def test_a_video_gives_a_video_of_the_same_frames_and_times(av, model, run, tmp_path):
    frames = clip_frames(DURATIONS, (41, 101))
    predict.stream_video(frames, tmp_path / "c.mp4")
    assert run(tmp_path / "c.mp4", "--focal-px", 61.2, "--baseline-m", 0.5) == 0
    read = list(predict.read_frames(tmp_path / "c.mp4"))
    assert [seconds for _, seconds in read] == pytest.approx(DURATIONS, abs=1e-4)
    assert read[0][0].size == (102, 42)  # H.264 stores colours by two by two pixels
    disparities = np.load(tmp_path / "out/c_disparity.npy")
    assert disparities.shape == (5, *SIZE)
    for (image, _), disparity in zip(read, disparities, strict=True):
        images = to_tensor(image.resize(SIZE[::-1], Image.Resampling.BILINEAR))[None]
        np.testing.assert_allclose(disparity, testing.predict(model, images)[1][0], atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "out/c_depth.npy"), 0.3 / disparities, rtol=1e-5)
    drawn = list(predict.read_frames(tmp_path / "out/c_colour.mp4"))
    assert [seconds for _, seconds in drawn] == pytest.approx(DURATIONS, abs=1e-4)
    for (image, _), (source, _), disparity in zip(drawn, read, disparities, strict=True):
        values = depth.resize_map(torch.from_numpy(disparity), (42, 102)).numpy()
        whole = np.asarray(gif.side_by_side(source, values, gif.colour_range(disparities), 102, 0.3))
        shown = np.asarray(image).astype(int)[: whole.shape[0]]
        assert abs(shown - whole).mean() < 8


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_other_containers_open_and_give_an_mp4(av, suffix, run, tmp_path):
    codec = "mpeg4"
    with av.open(str(tmp_path / f"c{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 32, "yuv420p"
        for number in range(4):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(32, 96, seed=number))))
        container.mux(stream.encode())
    assert run(tmp_path / f"c{suffix}") == 0
    times = [seconds for _, seconds in predict.read_frames(tmp_path / "out/c_colour.mp4")]
    assert times == pytest.approx([0.1] * 4, abs=2e-3)  # mkv counts in milliseconds


def test_a_phones_turned_video_is_turned_back(av, tmp_path):
    image = Image.new("RGB", (64, 32))
    image.paste((250, 0, 0), (0, 0, 32, 32))  # red left of black
    predict.stream_video([(image, 0.1)] * 3, tmp_path / "c.mp4")
    content = bytearray((tmp_path / "c.mp4").read_bytes())
    matrix = content.find(b"tkhd") + 44
    assert struct.unpack(">9i", content[matrix : matrix + 36])[0] == 65536  # the identity
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # 90° clockwise
    (tmp_path / "c.mp4").write_bytes(content)
    turned = np.asarray(next(predict.read_frames(tmp_path / "c.mp4"))[0])
    assert turned.shape == (64, 32, 3)
    assert turned[:28, :, 0].min() > 200 and turned[36:, :, 0].max() < 50  # what was left is on top


def test_a_broken_video_and_one_without_pictures_are_named(av, run, tmp_path, capsys):
    predict.stream_video(clip_frames([0.1] * 5), tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) // 2])
    with wave.open(str(tmp_path / "b.avi"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    assert run(tmp_path) == 1
    said = capsys.readouterr().err
    assert f"skipped: {tmp_path}/a.mp4 cannot be read as a clip" in said
    assert f"skipped: {tmp_path}/b.avi cannot be read as a clip (it has no pictures, perhaps sound alone)" in said
    assert names(tmp_path / "out") == []


def test_a_full_disk_leaves_the_old_video(av, model, full_disk, tmp_path):
    predict.stream_video(clip_frames([0.1] * 5), tmp_path / "a.mp4")
    answer = Predictor(model, (8, 8)).maps
    predict.write_clip(tmp_path / "a.mp4", tmp_path / "out/a", answer)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with full_disk(3000), pytest.raises(OSError, match=r"a_colour\.mp4 could not be written"):
        predict.write_clip(tmp_path / "a.mp4", tmp_path / "out/a", answer)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
