"""A camera or a film beside its disparity, live in a notebook's cell: `live.play(live.camera(), predictor)` (07)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import ipywidgets
import numpy as np
from IPython.display import display
from PIL import Image

from . import gif
from .pictures import Predictor
from .widgets import png


def camera(number: int = 0) -> Iterator[Image.Image]:
    """The RGB pictures of a camera of this computer, live. Closing the iterator releases the camera.

    Raises ModuleNotFoundError without OpenCV, ValueError for a camera that cannot be opened.
    """
    try:
        import cv2
    except ImportError as error:
        raise ModuleNotFoundError('a camera needs OpenCV: pip install -e ".[sgm]" in the project\'s folder') from error
    device = cv2.VideoCapture(number)
    try:
        if not device.isOpened():
            raise ValueError(f"camera {number} cannot be opened: plug it in, close what uses it, or take another")
        while True:
            taken, picture = device.read()
            if not taken:
                return
            yield Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))  # OpenCV's order is BGR
    finally:
        device.release()


def play(pictures: Iterable[Image.Image], predictor: Predictor, seconds: float = 20.0, width: int = 416) -> int:
    """Shows each picture, at most `width` px wide, beside its disparity as soon as the network has it.

    Ends with the last picture, after `seconds`, or when the kernel is interrupted. Returns how many it showed.
    The end of the colour scale changes slowly, so a single picture does not make the film flicker.
    """
    screen, words = ipywidgets.Image(format="png"), ipywidgets.HTML()
    display(ipywidgets.VBox([screen, words]))
    begun, high, count = time.monotonic(), 0.0, 0
    try:
        for picture in pictures:
            disparity = predictor.predict(picture).disparity
            newest = gif.colour_range(disparity)[1]
            high = 0.9 * high + 0.1 * newest if count else newest
            screen.value = png(gif.side_by_side(picture, disparity, (0.0, high), min(width, picture.width)))
            count, passed = count + 1, time.monotonic() - begun
            words.value = f"{count / passed:.1f} pictures a second"
            if passed >= seconds:
                break
    except KeyboardInterrupt:
        words.value += ", stopped"
    finally:
        if hasattr(pictures, "close"):  # releases a camera at once
            pictures.close()
    return count
