"""Sliders for the notebooks: ipywidgets' controls and one image, usable outside a notebook as well.

`slider.observe` is used throughout: an error in a callback shows in red below the picture and is raised again, so that
a headless run fails where `interact` would swallow it.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import ipywidgets
from PIL import Image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def picture_slider(
    draw: Callable[[int], Image.Image], count: int, description: str = "frame", width: int = 832
) -> ipywidgets.VBox:
    """A slider from 0 to `count` - 1 above the picture that `draw(position)` returns.

    The box's `children` are the slider, the picture (`ipywidgets.Image`) and a line for errors.
    """
    slider = ipywidgets.IntSlider(0, 0, count - 1, description=description, continuous_update=False)
    slider.layout.width = "60%"
    picture = ipywidgets.Image(value=png(draw(0)), format="png", width=width)
    message = ipywidgets.HTML()

    def update(change: dict) -> None:
        try:
            picture.value = png(draw(change["new"]))
            message.value = ""
        except Exception as error:
            message.value = f'<b style="color:#b00020">{type(error).__name__}: {error}</b>'
            raise

    slider.observe(update, names="value")
    return ipywidgets.VBox([slider, picture, message])
