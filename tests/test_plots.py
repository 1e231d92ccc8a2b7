"""What is drawn from numbers."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import plots

PICTURE, MAP = np.zeros((16, 52, 3), np.uint8), np.linspace(0, 1, 16 * 52).reshape(16, 52)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plots.plt.close("all")


def box(artist):
    """Left, bottom, right, top in px, as drawn."""
    return artist.get_window_extent().extents


def drawn(figure):
    figure.canvas.draw()
    return figure


def test_importing_the_library_changes_no_setting_of_matplotlib():
    code = """
import matplotlib, sys
import ipykernel  # as in a notebook's kernel
from matplotlib import pyplot
before = dict(matplotlib.rcParams)
from monodepth_lib import gif, plots, widgets
plots.grid([[[0.0, 1.0]]], ["a"])
changed = [key for key, value in matplotlib.rcParams.items() if value != before[key]]
assert not changed, changed
assert "matplotlib_inline.backend_inline" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_our_figures_look_the_same_with_and_without_the_notebooks_style():
    with plots.matplotlib.rc_context():
        plain = plots.figure_image(plots.grid([MAP], ["a map"], columns=1))
        plots.notebook_style()
        assert plots.plt.rcParams["figure.dpi"] == 80
        assert plots.figure_image(plots.grid([MAP], ["a map"], columns=1)).tobytes() == plain.tobytes()


@pytest.mark.parametrize("columns, width", [(1, 7), (2, 9), (3, 12)])
def test_a_colour_bar_is_as_tall_as_its_map_and_nothing_is_cut_off(columns, width):
    figure = drawn(plots.grid([PICTURE, MAP, MAP, MAP], ["a\nb", "c", "d", "e"], columns, width, bar="px"))
    for axis in figure.axes[1:]:
        (bar,) = axis.child_axes
        (_, low, right, high), (left, bar_low, _, bar_high) = box(axis.images[0]), box(bar)
        assert (bar_low, bar_high) == pytest.approx((low, high), abs=1) and 0 < left - right < 20
        assert bar.get_ylabel() == "px"
    assert not figure.axes[0].child_axes
    for axis in figure.axes:
        left, low, right, high = axis.get_tightbbox().extents
        assert left >= 0 and low >= 0 and right <= figure.bbox.width and high <= figure.bbox.height


def test_a_last_row_that_is_not_full_stands_in_the_middle():
    figure = drawn(plots.grid([PICTURE] * 5, list("abcde"), columns=3, width=9))
    assert [axis.get_title() for axis in figure.axes] == list("abcde")  # and no empty one
    a, _, c, d, e = (box(axis.images[0]) for axis in figure.axes)
    assert a[1] == pytest.approx(c[1], abs=2) and a[1] > d[3] and d[1] == pytest.approx(e[1], abs=2)
    assert d[0] - a[0] == pytest.approx(c[2] - e[2], abs=15)  # before matplotlib 3.11, less exactly
    assert d[2] - d[0] == pytest.approx(a[2] - a[0], rel=0.1)


def test_the_pipeline_lights_one_block_and_cuts_nothing_off():
    pictures = {plots.figure_image(plots.pipeline(lit)).tobytes() for lit in ("", *plots.PIPELINE)}
    assert len(pictures) == 1 + len(plots.PIPELINE) == 8
    figure = drawn(plots.pipeline("losses"))
    for text in figure.axes[0].texts:
        if text.get_text():
            left, low, right, high = box(text)
            assert left >= 0 and low >= 0 and right <= figure.bbox.width and high <= figure.bbox.height
    with pytest.raises(ValueError, match="lit is 'loss'; it must be one of 'data', 'transforms'"):
        plots.pipeline("loss")


def test_the_words_of_a_block_stay_inside_it():
    figure = drawn(plots.pipeline())
    shapes = [patch for patch in figure.axes[0].patches if isinstance(patch, plots.FancyBboxPatch)]
    blocks = [block for blocks in plots.PIPELINE.values() for block in blocks]
    for block, shape in zip(blocks, shapes, strict=True):
        left, low, right, high = box(shape)
        for words in block[-2:]:
            (text,) = [text for text in figure.axes[0].texts if text.get_text() == words]
            extents = box(text)
            assert extents[0] > left and extents[1] > low and extents[2] < right and extents[3] < high, words


def test_pairs_stand_on_cards_of_their_own():
    both = [(np.zeros((4, 4)), np.full((4, 4), 0.5))] * 3
    figure = plots.pairs(both, ["one", "two\nlines", "three"], names=("view", "rebuilt view"))
    assert [card.get_suptitle() for card in figure.subfigs] == ["one", "two\nlines", "three"]
    labels = [[axis.get_xlabel() for axis in card.axes] for card in figure.subfigs]
    assert labels == [["view", "rebuilt view"]] * 3
    plots.plt.close(figure)


def test_the_way_ends_where_it_is_said_to():
    points = torch.zeros(4, 8, 3)
    picture = Image.new("RGB", (8, 4))
    for distance, row in ((20.0, 400 - 160), (torch.tensor(10.0), 400 - 80)):
        red = (np.asarray(plots.free_way(points, picture, distance)) == [255, 0, 0]).all(-1)
        assert abs(red[:, 200].nonzero()[0].mean() - row) <= 1
    for nothing in (None, ..., 70.0):
        assert not (np.asarray(plots.free_way(points, picture, nothing)) == [255, 0, 0]).all(-1).any()


def test_points_between_fill_a_surface_and_no_gap_between_two():
    points = torch.ones(6, 8, 3) * 10
    points[:, 4:] = 30
    dense = plots.between(points, 4)
    assert dense.shape == (24, 32, 3)
    assert set(dense[..., 2].unique().tolist()) == {0.0, 10.0, 30.0}
    assert (dense[:, 12:20, 2] == 0).all()  # nothing in the air between 10 m and 30 m


def test_a_metric_of_every_image_has_a_curve_per_answer_and_a_line_per_drive():
    rows = [{"answer": a, "name": f"{d}/0", "abs_rel": 0.1} for a in ("plain", "other") for d in ("one", "two")]
    (axis,) = plots.by_image(rows, ["plain", "other"]).axes
    assert [text.get_text() for text in axis.texts] == ["one", "two"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["plain", "other"]
    (empty,) = plots.by_image([], []).axes
    assert [text.get_text() for text in empty.texts] == ["no ground truth"]
