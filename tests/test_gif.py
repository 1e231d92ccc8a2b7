"""The gif, its one colour range over a clip, and the colours themselves."""

import dataclasses
import io
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from synthetic import make_drive, texture, to_picture, write_calibration

from monodepth_lib import gif, plots
from monodepth_lib.gif import colour_range, side_by_side, write_gif
from monodepth_lib.kitti import find_pairs
from monodepth_lib.plots import colour_map


@given(arrays(np.float32, (3, 5), elements=st.floats(-10, 10, width=32)), st.floats(-1, 1), st.floats(0, 1))
def test_colours_are_8_bit_and_ends_take_the_maps_ends(values, low, span):
    colours = colour_map(values, low, low + span)
    ends = colour_map(np.array([[0.0, 1.0]]), 0, 1)[0]
    assert colours.dtype == np.uint8 and colours.shape == (3, 5, 3)
    assert (colours[values <= low] == ends[0]).all()
    assert (colours[values > max(low + span, low + 1e-6)] == ends[1]).all()


def test_near_is_brighter_than_far():
    colours = colour_map(torch.linspace(0, 1, 50)[None], 0, 1)[0].astype(int)
    assert (np.diff(colours @ [299, 587, 114]) > 0).all()


def test_one_colour_range_over_the_whole_clip():
    clip = np.zeros((4, 10, 10))
    clip[2] = 0.2
    assert colour_range(clip) == pytest.approx((0, 0.2))
    clip[3, 0, 0] = 9  # one wild pixel does not dim the clip
    assert colour_range(clip)[1] == pytest.approx(0.2)
    assert colour_range(np.linspace(0, 1, 101))[1] == pytest.approx(0.99)


def test_picture_and_disparity_stand_side_by_side():
    picture, disparity = to_picture(texture(40, 100)), np.full((8, 25), 0.2)
    frame = side_by_side(picture, disparity, (0, 0.2), width=50)
    assert frame.size == (100, 20)
    brightest = colour_map(np.ones((1, 1)), 0, 1)[0, 0]
    assert (np.asarray(frame)[:, 50:] == brightest).all()
    expected = np.asarray(picture.resize((50, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(np.asarray(frame)[:, :50], expected)


def frames(count):
    return [Image.new("RGB", (16, 8), (40 * n, 0, 0)) for n in range(count)]


def test_a_gif_has_all_frames_their_size_and_speed_and_repeats(tmp_path):
    path = write_gif(frames(5), tmp_path / "new/clip.gif", frames_per_second=10)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"], gif.info["loop"]) == (5, (16, 8), 100, 0)
    assert [p.name for p in path.parent.iterdir()] == ["clip.gif"]


def test_the_frames_of_a_gif_are_never_in_memory_together(tmp_path):
    drawn: list[weakref.ref] = []

    def film():
        for frame in frames(6):
            assert sum(one() is not None for one in drawn) <= 2  # the one being written, at most the one before
            picture = frame.copy()
            drawn.append(weakref.ref(picture))
            yield picture
            del picture

    path = write_gif(film(), tmp_path / "clip.gif")
    with Image.open(path) as written:
        assert written.n_frames == len(drawn) == 6
        written.seek(4)
        assert written.convert("RGB").getpixel((3, 3)) == (160, 0, 0)


def test_a_gif_without_frames_is_refused(tmp_path):
    for nothing in ([], iter([])):
        with pytest.raises(ValueError, match="at least one frame"):
            write_gif(nothing, tmp_path / "clip.gif")
    assert not list(tmp_path.iterdir())


def test_figures_draw_pictures_maps_and_a_history():
    figure = plots.grid([texture(8, 16)[0], np.zeros((8, 16)), to_picture(texture(8, 16))], ["a", "b", "c"], bar="m")
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    parts = {"train_appearance": 1.0, "train_smoothness": 0.1, "train_consistency": 0.2}
    rows = [{"epoch": e, "train_loss": 2.0 - e, "val_loss": 3.0 - e, **parts} for e in (1.0, 2.0)]
    assert len(plots.history(rows).axes[0].lines) == 2
    assert len(plots.history([{k: v for k, v in row.items() if k != "val_loss"} for row in rows]).axes[0].lines) == 1
    plots.plt.close("all")


def test_flicker_by_hand():
    clip = np.array([[[0.05, 0.06]], [[0.07, 0.04]], [[0.07, 0.04]]], dtype=np.float32)
    assert gif.flicker(clip) == pytest.approx([0.02, 0.0], abs=1e-6)
    assert gif.flicker(clip[:1]).shape == (0,)


def test_a_film_beside_its_truth_is_nan_where_the_truth_is_unknown(tmp_path):
    drive = make_drive(tmp_path / "2020_01_01_drive_0001_sync", range(2), truth=True, focal_baseline=0.3, shift=4)
    write_calibration(drive / "calib_cam_to_cam.txt", focal=100.0, baseline=0.288, width=96)
    pairs, clip = find_pairs(drive), np.full((2, 16, 48), 0.05, np.float32)
    ours, true = gif.beside_truth(pairs, clip)
    known = torch.stack([torch.from_numpy(pair.ground_truth()) for pair in pairs]) > 0
    assert torch.equal(~true.isnan(), known)
    assert torch.equal(~ours.isnan(), known)
    assert torch.allclose(true[known], torch.tensor(4 / 96), atol=1e-4)
    assert torch.allclose(ours[known], torch.tensor(0.05))
    ours, true = gif.beside_truth([pairs[0], dataclasses.replace(pairs[1], truth=None)], clip)
    assert np.array_equal(ours.numpy(), clip)
    assert true.isnan().all()
    make_drive(drive, [1], size=(16, 48), truth=True)
    assert gif.beside_truth(find_pairs(drive), clip)[1].isnan().all()


def test_the_legend_is_drawn_below_and_the_frame_above_is_as_without():
    picture, disparity = Image.new("RGB", (100, 40), "red"), np.full((8, 25), 0.05)
    plain = gif.side_by_side(picture, disparity, (0, 0.1), width=50)
    legend = gif.side_by_side(picture, disparity, (0, 0.1), width=50, focal_baseline=0.3)
    assert legend.width == plain.width and legend.height > plain.height
    assert np.array_equal(np.asarray(legend)[: plain.height], np.asarray(plain))


def test_a_tick_stands_under_its_colour():
    bar = np.asarray(plots.scale_bar([(0.5, "x"), (1.5, "outside")], 400))
    ramp = (bar[6] != 255).any(-1).nonzero()[0]
    black = (bar[16] == 0).all(-1).nonzero()[0]  # the tick, below the colours
    assert black.tolist() == [round((ramp[0] + ramp[-1]) / 2)]


def test_distances_are_those_of_the_colours():
    """With f·B/W = 0.3 m, 6 m is a disparity of 0.05: half of a scale to 0.1."""
    bar = np.asarray(gif.distance_bar((0.0, 0.1), 0.3, 800))
    ramp = (bar[6] != 255).any(-1).nonzero()[0]
    ramp = ramp[np.flatnonzero(np.diff(ramp) > 1)[-1] + 1 :]  # behind the label
    ticks = (bar[16] == 0).all(-1).nonzero()[0]
    assert min(abs(ticks - (ramp[0] + ramp[-1]) / 2)) <= 1


def test_a_preview_is_small_and_plays_as_long(tmp_path):
    generator = np.random.default_rng(0)
    frames = [Image.fromarray(generator.integers(0, 255, (60, 120, 3), np.uint8)) for _ in range(12)]
    path = gif.write_gif(frames, tmp_path / "a.gif", 10)
    small = gif.preview(path, 30_000)
    assert len(small) <= 30_000 < path.stat().st_size
    with Image.open(io.BytesIO(small)) as film:
        assert film.n_frames * film.info["duration"] == 1200
        assert film.width < 120
    assert Image.open(io.BytesIO(gif.preview(path, 10**6))).size == (120, 60)
