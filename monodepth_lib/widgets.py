"""Sliders for the notebooks: ipywidgets' controls above one picture, usable outside a notebook as well.

`observe` is used throughout, not `interact`: an error in a callback shows in red below the picture and is raised again,
so that a headless run fails where `interact` would swallow it.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image

from . import plots


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class Panel(ipywidgets.VBox):
    """Controls above the picture that `draw(**values)` returns for their values, drawn anew when one moves.

    `controls` are ipywidgets with a `value`, by the name `draw` knows them by. `picture` is the ipywidgets.Image,
    `message` a line that says when a picture is being computed, and errors.
    """

    def __init__(self, draw: Callable[..., Image.Image], controls: dict[str, ipywidgets.ValueWidget], width: int = 832):
        self.draw, self.controls = draw, controls
        self.picture = ipywidgets.Image(format="png", width=width)
        self.message = ipywidgets.HTML()
        super().__init__([*controls.values(), self.picture, self.message])
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def image(self, **values) -> Image.Image:
        """The picture at the controls' positions, with some of them given."""
        return self.draw(**{name: control.value for name, control in self.controls.items()} | values)

    def update(self, _change=None) -> None:
        self.message.value = "computing ..."
        try:
            self.picture.value = png(self.image())
        except Exception as error:
            self.message.value = f'<b style="color:#b00020">{type(error).__name__}: {error}</b>'
            raise
        self.message.value = ""

    def sheet(self, control: str, positions: list, titles: list[str] | None = None, columns: int = 2) -> Figure:
        """The pictures at some positions of one control, for print: GitHub and PDF show no sliders."""
        images = [self.image(**{control: position}) for position in positions]
        return plots.grid(images, titles or [f"{control} {position}" for position in positions], columns, width=15)


def int_slider(value: int, low: int, high: int, description: str) -> ipywidgets.IntSlider:
    """A slider over whole numbers that answers when it is let go, wide enough for a projector."""
    layout = ipywidgets.Layout(width="60%")
    return ipywidgets.IntSlider(value, low, high, description=description, continuous_update=False, layout=layout)


def frame_slider(draw: Callable[[int], Image.Image], count: int) -> Panel:
    """(06, 07) The picture that `draw(index)` returns for each of `count` frames."""
    return Panel(lambda frame: draw(frame), {"frame": int_slider(0, 0, count - 1, "frame")})
