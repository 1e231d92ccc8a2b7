"""The live cell of notebook 07: a camera, a film, and what ends them."""

import builtins
import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from monodepth_lib import live
from monodepth_lib.pictures import Predictor


class Camera:
    """Stands in for OpenCV's: three frames, blue in OpenCV's order."""

    released = 0

    def __init__(self, number):
        self.opened, self.left = number == 0, 3

    def isOpened(self):
        return self.opened

    def read(self):
        self.left -= 1
        frame = np.zeros((40, 60, 3), np.uint8)
        frame[..., 0] = 255
        return self.left >= 0, frame

    def release(self):
        Camera.released += 1


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Camera))
    monkeypatch.setattr(Camera, "released", 0)


@pytest.fixture
def shown(monkeypatch):
    boxes = []
    monkeypatch.setattr(live, "display", boxes.append)
    return boxes


@pytest.fixture
def predictor():
    ramp = torch.linspace(0.01, 0.2, 64).expand(1, 2, 32, 64)
    return Predictor(lambda images: [ramp.expand(len(images), -1, -1, -1)], (32, 64))


def test_a_cameras_pictures_are_rgb_and_it_is_free_at_the_end(stand_in):
    pictures = list(live.camera())
    assert [picture.size for picture in pictures] == [(60, 40)] * 3
    assert pictures[0].getpixel((5, 5)) == (0, 0, 255)
    assert Camera.released == 1


def test_a_camera_that_cannot_be_opened_is_named(stand_in):
    with pytest.raises(ValueError, match="camera 7 cannot be opened"):
        next(live.camera(7))
    assert Camera.released == 1


def test_without_opencv_the_remedy_is_said(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **options):
        if name == "cv2":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        next(live.camera())


def test_every_picture_is_shown_beside_its_disparity(stand_in, shown, predictor):
    assert live.play(live.camera(), predictor, seconds=1e9) == 3
    (box,) = shown
    screen, words = box.children
    assert screen.value[:4] == b"\x89PNG"
    assert words.value.endswith("pictures a second")


def test_it_ends_in_time_and_the_camera_is_free(stand_in, shown, predictor):
    pictures = live.camera()  # a notebook keeps it, so it is not free by itself
    assert live.play(pictures, predictor, seconds=0.0) == 1
    assert Camera.released == 1


def test_the_colours_follow_slowly(shown, monkeypatch):
    """A picture that is ten times as near as those before it changes the end of the scale by a little."""
    maps = [np.full((40, 60), value, np.float32) for value in (0.01, 0.1)]
    answers = iter(maps)
    ends = []
    monkeypatch.setattr(live.gif, "side_by_side", lambda p, d, limits, w: ends.append(limits[1]) or p)
    stand_in = SimpleNamespace(predict=lambda picture: SimpleNamespace(disparity=next(answers)))
    live.play([Image.new("RGB", (60, 40))] * 2, stand_in, seconds=1e9)
    assert ends == pytest.approx([0.01, 0.9 * 0.01 + 0.1 * 0.1])


def test_an_interrupted_kernel_ends_it_without_an_error(shown, predictor):
    def film():
        yield Image.new("RGB", (60, 40))
        raise KeyboardInterrupt

    assert live.play(film(), predictor) == 1
    assert shown[0].children[1].value.endswith("stopped")


def test_a_film_may_be_any_iterable(shown, predictor):
    pictures = itertools.repeat(Image.new("RGB", (900, 40)), 2)
    assert live.play(pictures, predictor) == 2
