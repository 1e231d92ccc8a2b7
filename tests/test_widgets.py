"""The panels: they draw what their controls say, and they do not swallow an error."""

import io

import pytest
from PIL import Image

from monodepth_lib import widgets
from monodepth_lib.widgets import Panel, plots, png, slider


def draw(red, green=0):
    if red == 3:
        raise ValueError("frame 3 is missing")
    return Image.new("RGB", (8, 4), (10 * red, 10 * green, 0))


def frame_slider(draw, count):
    return Panel(lambda frame: draw(frame), {"frame": slider(0, 0, count - 1, "frame")})


def shown(panel):
    return Image.open(io.BytesIO(panel.picture.value)).getpixel((0, 0))[:2]


def test_png_keeps_the_picture():
    assert Image.open(io.BytesIO(png(draw(2)))).getpixel((0, 0)) == (20, 0, 0)


def test_moving_a_slider_draws_its_frame():
    panel = frame_slider(draw, 5)
    slider = panel.controls["frame"]
    assert (slider.min, slider.max, shown(panel)) == (0, 4, (0, 0))
    slider.value = 2
    assert shown(panel) == (20, 0)
    assert list(panel.children) == [slider, panel.picture, panel.message]


def test_every_control_counts():
    panel = Panel(draw, {"red": slider(1, 0, 9, "red"), "green": slider(2, 0, 9, "green")})
    assert shown(panel) == (10, 20)
    panel.controls["green"].value = 7
    assert shown(panel) == (10, 70)


def test_an_error_is_shown_and_raised_and_goes_away():
    panel = frame_slider(draw, 5)
    with pytest.raises(ValueError, match="frame 3 is missing"):
        panel.controls["frame"].value = 3
    assert "ValueError: frame 3 is missing" in panel.message.value
    panel.controls["frame"].value = 4
    assert panel.message.value == ""
    assert shown(panel) == (40, 0)


def test_the_words_of_an_error_are_no_html():
    def fail(frame):
        raise ValueError("expected data/<drive>/left & right")

    with pytest.raises(ValueError):
        frame_slider(fail, 2)
    assert widgets.in_red("a <drive> & b") == '<b style="color:#b00020">a &lt;drive&gt; &amp; b</b>'
    panel = frame_slider(draw, 2)
    panel.draw = fail
    with pytest.raises(ValueError):
        panel.controls["frame"].value = 1
    assert "data/&lt;drive&gt;/left &amp; right" in panel.message.value


def test_a_sheet_shows_positions_and_moves_nothing():
    panel = frame_slider(draw, 5)
    figure = panel.sheet("frame", [1, 4])
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    assert [int(picture[0, 0, 0]) for picture in pictures] == [10, 40]
    assert [axis.get_title() for axis in figure.axes] == ["frame 1", "frame 4"]
    assert panel.controls["frame"].value == 0 and shown(panel) == (0, 0)
    plots.plt.close("all")
