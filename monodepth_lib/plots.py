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
    lines = max(title.count("\n") + 1 for title in titles)
    size = (width, rows * (cell * height / image_width + 0.25 + 0.2 * lines))
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


CURVES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_abs_rel": "Abs Rel of vals",
    "val_spread": "spread of the disparity",
}


def curves(histories: dict[str, list[dict]]) -> Figure:
    """Several runs over the epochs, by name: a chart for each column of `CURVES` that a history has."""
    shown = [key for key in CURVES if any(key in row for rows in histories.values() for row in rows)]
    height = 3.6 + 0.25 * -(-len(histories) // 3)
    figure, axes = plt.subplots(1, len(shown), figsize=(13, height), squeeze=False, layout="constrained")
    for axis, key in zip(axes[0], shown, strict=True):
        for index, (name, rows) in enumerate(histories.items()):
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            style = ("-", "--", ":", "-.")[index // 10 % 4]  # there are ten colours
            axis.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=name)
        axis.set(title=CURVES[key], xlabel="epoch")
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
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


def scan_over_picture(picture, depth, furthest: float = 80.0) -> Image.Image:
    """Sparse depth (H, W) in metres (0 = unknown) as dots of 2 x 2 px over its `picture` in grey: bright is near.

    Drawn up to `furthest` metres, near dots over far ones, with a bar that says which colour is which distance. Dots
    that follow poles, cars and kerbs say that laser and camera are calibrated.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray((to_array(picture) * 255).astype(np.uint8))
    metres = to_array(depth)
    rows, columns = np.nonzero((metres > 0) & (metres <= furthest))
    order = np.argsort(-metres[rows, columns], kind="stable")  # the nearest last: they stay on top
    rows, columns = rows[order], columns[order]
    found = metres[rows, columns]
    nearest = float(found.min(initial=furthest / 2))

    def place(z):
        return 1 - 0.8 * np.log(z / nearest) / np.log(furthest / nearest)  # 0.2 at the far end: dots on black show

    dots = np.array([(down, right) for down in (0, 1) for right in (0, 1)])
    view = np.asarray(image.convert("L").convert("RGB")) // 2
    height, width = metres.shape
    where = np.minimum(rows[:, None] + dots[:, 0], height - 1), np.minimum(columns[:, None] + dots[:, 1], width - 1)
    view[where] = colour_map(place(found)[None], 0, 1)[0][:, None]
    ticks = [(place(z), f"{z} m") for z in (2, 3, 5, 10, 20, 40, 80) if nearest <= z <= furthest]
    bar = scale_bar(ticks, width, "distance")
    sheet = Image.new("RGB", (width, height + bar.height))
    sheet.paste(Image.fromarray(view), (0, 0))
    sheet.paste(bar, (0, height))
    return sheet


# --- the check of one's own pairs (`rectification`) ---------------------------------------------------------------


def rectification(
    left: Image.Image, right: Image.Image, title: str, found: tuple[np.ndarray, np.ndarray] | None = None,
    everywhere: tuple[np.ndarray, np.ndarray] | None = None, shares: dict[str, float] | None = None,
) -> Figure:  # fmt: skip
    """A pair with lines along its rows; below it what tells whether it is rectified.

    `found`: the same points in both pictures, (N, 2) px each. `everywhere`: the points of all pairs, (N, 2) in -1 to 1,
    and how far they moved, (N, 2) px right and down. `shares`: how many points are found again, by frame.
    """
    heights = [6.5 * left.height / left.width + 0.4 + 0.25 * len(title.splitlines()), 2.6]
    heights = heights if everywhere is not None and len(everywhere[0]) else heights[:1]
    figure = plt.figure(figsize=(13, sum(heights)), layout="constrained")
    views, *others = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    views.suptitle(title, fontsize=12)
    for axis, name, picture, place in zip(views.subplots(1, 2), ("left", "right"), (left, right), (0, 1), strict=True):
        axis.imshow(picture)
        axis.set_title(f"{name}, {picture.width} x {picture.height} px")
        axis.axis("off")
        for row in np.linspace(0, left.height, 8)[1:-1]:
            axis.axhline(row, color="white", linewidth=0.8)
        if found and len(found[0]):
            some = np.linspace(0, len(found[0]) - 1, min(8, len(found[0]))).astype(int)
            for number, (x, y) in enumerate(found[place][some], start=1):
                axis.plot(x, y, "o", color="yellow", markeredgecolor="black", markersize=6)
                box = {"facecolor": "yellow", "pad": 1, "linewidth": 0}
                axis.annotate(str(number), (x, y), (5, 5), textcoords="offset points", fontsize=10, bbox=box)
    if everywhere is None or shares is None or not others:
        return figure
    (points, moved), below = everywhere, others[0]
    places, disparity, bars = below.subplots(1, 3, width_ratios=[1.5, 1, 1])
    column, row = ((points + 1) * 1.5).astype(int).clip(0, 2).T
    most = max(0.002 * left.width, float(np.percentile(np.abs(moved[:, 1]), 95)))
    look = {"s": 6, "cmap": "PuOr", "vmin": -most, "vmax": most, "edgecolors": "grey", "linewidths": 0.2}
    dots = places.scatter(*points.T, c=moved[:, 1], **look)
    for y, x in np.ndindex(3, 3):
        inside = moved[(row == y) & (column == x), 1]
        if len(inside) >= 10:
            box = {"facecolor": "white", "edgecolor": "grey", "pad": 2}
            words = f"{np.median(inside):+.1f}"
            places.text((x - 1) * 2 / 3, (y - 1) * 2 / 3, words, ha="center", va="center", bbox=box)
    for line in (-1 / 3, 1 / 3):
        places.axhline(line, color="grey", linewidth=0.8)
        places.axvline(line, color="grey", linewidth=0.8)
    places.set(xlim=(-1, 1), ylim=(1, -1), xticks=[], yticks=[], title="how much lower in the right picture (px)")
    below.colorbar(dots, ax=places)
    shift = -moved[:, 0]
    steps = np.linspace(min(shift.min(), 0), max(shift.max(), 0), 41)
    disparity.hist(shift[shift >= 0], steps, color="tab:blue")
    disparity.hist(shift[shift < 0], steps, color="tab:red")
    disparity.axvline(0, color="black", linewidth=1)
    disparity.set(title="further left in the right picture", xlabel="disparity (px)", ylabel="points")
    bars.bar(list(shares), [100 * share for share in shares.values()], color="tab:blue", width=0.6)
    bars.set(title="found again in the right picture of", ylabel="% of the points", ylim=(0, 100))
    return figure


# --- 03: what belongs together ------------------------------------------------------------------------------------


def pairs(pictures: Sequence[tuple], titles: Sequence[str], names: tuple[str, str], width: float = 13.0) -> Figure:
    """Pairs of pictures (H, W) in [0, 1], drawn in grey; each pair stands on a card of its own under its title.

    `names` are written below the first and the second picture of every pair.
    """
    height = 0.45 * width / len(pictures) + 0.3 + 0.25 * max(title.count("\n") + 1 for title in titles)
    figure = plt.figure(figsize=(width, height), layout="constrained")
    places = figure.add_gridspec(1, len(pictures), wspace=0.08)
    for place, both, title in zip(places, pictures, titles, strict=True):
        card = figure.add_subfigure(place, facecolor="#e4e9f0")
        card.suptitle(title, fontsize=12)
        for axis, picture, name in zip(card.subplots(1, 2), both, names, strict=True):
            axis.imshow(to_array(picture), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[], xlabel=name)
    return figure
