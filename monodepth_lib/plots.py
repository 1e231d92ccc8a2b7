"""Pictures for all notebooks. Numbers are computed elsewhere; here they are only drawn.

Disparity is drawn with "magma": bright is near, dark is far, in grey print and for colour-blind readers too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

COLOURS = "magma"
plt.rcParams.update({"font.size": 12.0, "axes.titlesize": 12.0, "figure.dpi": 80.0, "savefig.dpi": 80.0})  # type: ignore[arg-type]


if "ipykernel" in sys.modules:  # a notebook stores its figures: photographs take a fifth of the space as JPEG
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 80, "optimize": True, "progressive": True})


def to_array(image) -> np.ndarray:
    """A tensor (3, H, W) or (H, W), an array or a Pillow image as an array matplotlib draws."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float()
        return (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
    return np.asarray(image)


def colour_map(values, low: float, high: float, colours: str = COLOURS) -> np.ndarray:
    """Values (H, W) as colours, uint8 (H, W, 3): `low` is the map's first colour, `high` its last."""
    scaled = np.clip((to_array(values) - low) / max(high - low, 1e-9), 0, 1)
    return (matplotlib.colormaps[colours](scaled)[..., :3] * 255).round().astype(np.uint8)


def grid(
    images: Sequence, titles: Sequence[str], columns: int = 2, width: float = 12.0, limits: Sequence | None = None,
    bar: str | None = None, colours: str = COLOURS,
) -> Figure:  # fmt: skip
    """Images in a grid with a title each; maps (H, W) are coloured, between `limits` (low, high) where given.

    `bar` names the unit of a colour bar that is drawn beside every map.
    """
    rows = -(-len(images) // columns)
    height, image_width = to_array(images[0]).shape[:2]
    cell = width / columns
    size = (width, rows * (cell * height / image_width + 0.45))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index >= len(images):
            continue
        array = to_array(images[index])
        low, high = limits[index] if limits is not None and limits[index] is not None else (None, None)
        drawn = axis.imshow(array, cmap=colours, vmin=low, vmax=high)
        axis.set_title(titles[index])
        if bar and array.ndim == 2:
            figure.colorbar(drawn, ax=axis, label=bar, shrink=0.9)
    return figure


def history(rows: list[dict]) -> Figure:
    """Training and validation loss over the epochs, and the parts of the training loss."""
    epochs = [row["epoch"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    left.plot(epochs, [row["train_loss"] for row in rows], "o-", label="train")
    if "val_loss" in rows[0]:
        left.plot(epochs, [row["val_loss"] for row in rows], "s--", label="validation")
    left.set(title="Loss", xlabel="epoch", ylabel="sum over 4 scales, 2 views")
    for name, style in (("appearance", "-"), ("smoothness", "--"), ("consistency", ":")):
        right.plot(epochs, [row[f"train_{name}"] for row in rows], style, label=name, linewidth=2)
    right.set(title="Parts of the training loss (weighted)", xlabel="epoch", yscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def figure_image(figure: Figure) -> Image.Image:
    """The figure as an RGB picture, drawn at once and closed: what a slider shows."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


# --- 06 and 07: charts that take little room, and pictures drawn without matplotlib, fast enough for a slider ------


def jpeg_quality(quality: int) -> None:
    """How finely a notebook with many photographs stores its figures (80 unless told); nothing outside a notebook."""
    if "ipykernel" in sys.modules:
        set_matplotlib_formats("jpeg", pil_kwargs={"quality": quality})


def chart(figure: Figure) -> Image.Image:
    """A figure of curves and bars as a picture of 32 colours: in a notebook it takes a fifth of a JPEG's room."""
    return figure_image(figure).quantize(32, dither=Image.Dither.NONE)


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of our figures, which comes with matplotlib, for Pillow."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def scale_bar(
    ticks: Sequence[tuple[float, str]], width: int, label: str = "", colours: str = COLOURS, text: int = 13
) -> Image.Image:
    """A colour map from left (0) to right (1) with ticks (place, words) below it and `label` before it.

    Ticks outside 0 to 1 are left out, and so are words that would run into those of a tick before them.
    """
    font = text_font(text)
    bar = Image.new("RGB", (width, 2 * text + 10), "white")
    pen = ImageDraw.Draw(bar)
    start = 8 + (round(pen.textlength(label + "  ", font=font)) if label else text)
    length = max(width - start - 2 * text, 2)
    pen.text((8, 2), label, fill="black", font=font)
    ramp = colour_map(np.linspace(0, 1, length)[None].repeat(text, axis=0), 0, 1, colours)
    bar.paste(Image.fromarray(ramp), (start, 4))
    free = 0.0
    for place, words in sorted(ticks):
        x, half = start + place * (length - 1), pen.textlength(words, font=font) / 2
        if 0 <= place <= 1 and x - half >= free:
            pen.line([(x, text + 1), (x, text + 6)], fill="black", width=1)
            pen.text((x - half, text + 6), words, fill="black", font=font)
            free = x + half + 4
    return bar


def from_above(
    points: torch.Tensor, picture, ahead: float = 50.0, sideways: float = 20.0, pixels: int = 8, highest: float = 3.0
) -> Image.Image:
    """Points (H, W, 3) of `depth.point_cloud` seen from above, in the colours of their `picture` (H, W).

    Drawn are points up to `ahead` metres before and `sideways` metres beside the camera, and at most `highest` metres
    above it (no roofs of leaves, no sky), `pixels` to the metre, with a line every 10 m. Higher ones cover lower ones.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray((to_array(picture) * 255).astype(np.uint8))
    tall, wide = points.shape[:2]
    colours = np.asarray(image.convert("RGB").resize((wide, tall), Image.Resampling.BILINEAR)).reshape(-1, 3)
    x, y, z = points.detach().cpu().float().reshape(-1, 3).numpy().T
    keep = (z > 0) & (z < ahead) & (np.abs(x) < sideways) & (y > -highest)
    order = np.flatnonzero(keep)
    order = order[np.argsort(-y[order], kind="stable")]  # Y points down: the highest come last and stay on top
    column = ((x[order] + sideways) * pixels).astype(int)
    row = ((ahead - z[order]) * pixels).astype(int)
    height, width, margin, font = round(ahead * pixels), round(2 * sideways * pixels), 60, text_font(13)
    ground = np.full((height, width, 3), 25, np.uint8)
    tens = np.arange(10, max(ahead, 2 * sideways), 10)
    ground[((ahead - tens[tens < ahead]) * pixels).astype(int)] = 90
    for ten in tens[tens < sideways]:
        ground[:, [round((sideways - ten) * pixels), round((sideways + ten) * pixels)]] = 60
    ground[:, width // 2] = 90
    for right in (1, 0):  # a point is 2 x 2 dots, so that near surfaces do not fall apart
        for down in (1, 0):
            ground[np.minimum(row + down, height - 1), np.minimum(column + right, width - 1)] = colours[order]
    view = Image.new("RGB", (width + margin, height + 26), "white")
    view.paste(Image.fromarray(ground), (margin, 0))
    pen = ImageDraw.Draw(view)
    for metres in (0, *tens[tens < ahead]):
        pen.text((margin - 5, height - metres * pixels), f"{metres:.0f} m", fill="black", font=font, anchor="rs")
    for metres in (-sideways / 2, 0, sideways / 2):
        place = margin + width / 2 + metres * pixels
        pen.text((place, height + 4), f"{metres:+.0f} m" if metres else "camera", fill="black", font=font, anchor="mt")
    return view
