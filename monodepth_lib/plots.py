"""Pictures for all notebooks. This module only draws; the numbers are computed elsewhere.

Disparity is drawn with "magma": bright is near, dark is far, also in grey print and for colour-blind readers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image, ImageDraw, ImageFont

COLOURS = "magma"
STYLE = {"font.size": 12.0, "axes.titlesize": 12.0, "figure.dpi": 80.0, "savefig.dpi": 80.0}


@contextlib.contextmanager
def _look() -> Iterator[None]:
    plt.draw_if_interactive()  # loads a notebook's backend; loaded inside rc_context, it would show no figures
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


styled = _look()  # a decorator: figures of the function get this style


def notebook_style(jpeg_quality: int = 80) -> None:
    """Gives all figures of a notebook our style, and stores them as JPEG: photographs take a fifth of a PNG's bytes.

    A notebook calls it in its set-up cell. Outside a notebook it only sets the style.
    """
    plt.rcParams.update(STYLE)  # type: ignore[arg-type]
    if "ipykernel" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        how = {"quality": jpeg_quality, "optimize": True, "progressive": True}
        set_matplotlib_formats("jpeg", pil_kwargs=how)


def to_array(image) -> np.ndarray:
    """Turns a tensor (3, H, W) or (H, W), an array or a Pillow image into an array that matplotlib can draw."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float()
        return (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
    return np.asarray(image)


def colour_map(values, low: float, high: float, colours: str = COLOURS) -> np.ndarray:
    """Values (H, W) as colours, uint8 (H, W, 3): `low` is the map's first colour, `high` its last."""
    scaled = np.clip((to_array(values) - low) / max(high - low, 1e-9), 0, 1)
    return (matplotlib.colormaps[colours](scaled)[..., :3] * 255).round().astype(np.uint8)


@styled
def grid(
    images: Sequence, titles: Sequence[str], columns: int = 2, width: float = 12.0, limits: Sequence | None = None,
    bar: str | Sequence[str] | None = None, colours: str = COLOURS,
) -> Figure:  # fmt: skip
    """Images in a grid with a title each; maps (H, W) are coloured, between `limits` (low, high) where given.

    `bar`: the unit of the colour bars beside the maps, or a list of units, one per image. An incomplete last row is
    centred.
    """
    arrays = [to_array(image) for image in images]
    columns = min(columns, len(arrays))
    rows = -(-len(arrays) // columns)
    height, image_width = arrays[0].shape[:2]
    units = [bar] * len(arrays) if bar is None or isinstance(bar, str) else bar
    with_bar = {index % columns for index, array in enumerate(arrays) if units[index] and array.ndim == 2}
    cell = (width - 0.9 * len(with_bar)) / columns
    lines = max(title.count("\n") + 1 for title in titles)
    size = (width, rows * (cell * height / image_width + 0.25 + 0.2 * lines))
    figure = plt.figure(figsize=size, layout="constrained")
    cells = figure.add_gridspec(rows, 2 * columns)  # in half columns, so that a row can stand in the middle
    for index, (array, title) in enumerate(zip(arrays, titles, strict=True)):
        row, column = divmod(index, columns)
        start = 2 * column + columns - min(columns, len(arrays) - row * columns)
        axis = figure.add_subplot(cells[row, start : start + 2])
        axis.axis("off")
        low, high = limits[index] if limits is not None and limits[index] is not None else (None, None)
        drawn = axis.imshow(array, cmap=colours, vmin=low, vmax=high)
        axis.set_title(title)
        if units[index] and array.ndim == 2:
            figure.colorbar(drawn, cax=axis.inset_axes((1.02, 0, 0.03, 1)), label=units[index])
    return figure


@styled
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


@styled
def curves(histories: dict[str, list[dict]]) -> Figure:
    """The histories of several runs, by name: one chart for each column of `CURVES` that a history has."""
    shown = [key for key in CURVES if any(key in row for rows in histories.values() for row in rows)]
    height = 3.6 + 0.25 * -(-len(histories) // 3)
    figure, axes = plt.subplots(1, len(shown), figsize=(13, height), squeeze=False, layout="constrained")
    for axis, key in zip(axes[0], shown, strict=True):
        for index, (name, rows) in enumerate(histories.items()):
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            style = ("-", "--", ":", "-.")[index // 10 % 4]  # there are ten colours
            axis.plot([x for x, _ in points], [y for _, y in points], style, marker="o", markersize=3, label=name)
        axis.set(title=CURVES[key], xlabel="epoch")
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def figure_image(figure: Figure) -> Image.Image:
    """Draws the figure as an RGB picture, for a slider, and closes it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    plt.close(figure)
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


# --- 06 and 07: small charts, and pictures drawn without matplotlib, fast enough for a slider ----------------------


def chart(figure: Figure) -> Image.Image:
    """A figure of curves and bars as a picture of 32 colours: a fifth of a JPEG's bytes in a notebook."""
    return figure_image(figure).quantize(32, dither=Image.Dither.NONE)


@styled
def by_image(rows: Sequence[dict], answers: Sequence[str]) -> Figure:
    """Abs Rel of every image, one curve per answer (three at most), a line before each drive.

    `rows`: the `per_image` of a report, with `answer`, `name` ("drive/frame") and `abs_rel`. Without rows, the figure
    says so.
    """
    figure, axis = plt.subplots(figsize=(10, 3.2), layout="constrained")
    for answer, style in zip(answers, ("-", "--", ":"), strict=False):
        own = [row for row in rows if row["answer"] == answer]
        axis.plot([row["abs_rel"] for row in own], style, linewidth=2, label=answer)
    if not answers:
        axis.text(0.5, 0.5, "no ground truth", ha="center", transform=axis.transAxes)
        return figure
    drives = [row["name"].split("/")[0] for row in own]
    for drive in dict.fromkeys(drives):
        axis.axvline(drives.index(drive) - 0.5, color="black", linewidth=0.8)
        axis.text(drives.index(drive) - 0.4, axis.get_ylim()[1], drive[-15:], va="bottom", fontsize=11)
    axis.set(xlabel="image", ylabel="Abs Rel", ylim=(0, 1.25 * axis.get_ylim()[1]))
    axis.legend(loc="upper center", ncols=3, fontsize=11)
    return figure


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of our figures, which comes with matplotlib, for Pillow."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def scale_bar(
    ticks: Sequence[tuple[float, str]], width: int, label: str = "", colours: str = COLOURS, text: int = 13
) -> Image.Image:
    """A horizontal colour bar, 0 to 1, with ticks (place, words) below it and `label` to its left; `width` in px.

    Ticks outside 0 to 1 are left out, and so are ticks whose words would overlap the previous ones.
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


def between(points: torch.Tensor, times: int, apart: float = 1.15) -> torch.Tensor:
    """Interpolates points (H, W, 3) to (times·H, times·W, 3), so a surface seen from above has no gaps.

    Points belong to one surface if depths of neighbours differ by less than a factor `apart`; else Z is 0 (unknown).
    """
    maps = points.permute(2, 0, 1)[None]
    dense = F.interpolate(maps, scale_factor=times, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    z = maps[:, 2:]
    padded = F.pad(z, (1, 1, 1, 1), mode="replicate")
    low, high = -F.max_pool2d(-padded, 3, stride=1), F.max_pool2d(padded, 3, stride=1)
    one_surface = ((low > 0) & (high < apart**2 * low)).float()
    return dense * F.interpolate(one_surface, scale_factor=times, mode="nearest")[0, 0, :, :, None]


AHEAD, SIDEWAYS, HIGHEST = 50, 20, 3  # what `from_above` draws, in metres
PIXELS, MARGIN = 8, 78  # pixels a metre; pixels to the left of the ground, for its words


def from_above(points: torch.Tensor, picture) -> Image.Image:
    """Points (H, W, 3) of `depth.point_cloud` seen from above, in the colours of their `picture` (H, W).

    It draws points up to 50 m in front of the camera, 20 m beside it and 3 m above it (no treetops, no sky), 8 pixels a
    metre and a line every 10 m. Higher points cover lower ones. Gaps within a surface are filled (`between`).
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray((to_array(picture) * 255).astype(np.uint8))
    seen = points.detach().cpu().float()
    layers = [seen, between(seen, 4)]  # every point, and interpolated ones within a surface
    sizes = [(layer.shape[1], layer.shape[0]) for layer in layers]
    resized = [np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)) for size in sizes]
    colours = np.concatenate([array.reshape(-1, 3) for array in resized])
    x, y, z = torch.cat([layer.reshape(-1, 3) for layer in layers]).numpy().T
    keep = (z > 0) & (z < AHEAD) & (np.abs(x) < SIDEWAYS) & (y > -HIGHEST)
    order = np.flatnonzero(keep)
    order = order[np.argsort(-y[order], kind="stable")]  # Y points down: the highest are drawn last, on top
    column = ((x[order] + SIDEWAYS) * PIXELS).astype(int)
    row = ((AHEAD - z[order]) * PIXELS).astype(int)
    height, width, font = AHEAD * PIXELS, 2 * SIDEWAYS * PIXELS, text_font(20)
    ground = np.full((height, width, 3), 225, np.uint8)
    ground[PIXELS * 10 :: PIXELS * 10] = 160
    ground[:, [width // 4, 3 * width // 4]] = 190
    ground[:, width // 2] = 160
    for right in (1, 0):  # a point is 2 x 2 dots, so that near surfaces do not fall apart
        for down in (1, 0):
            ground[np.minimum(row + down, height - 1), np.minimum(column + right, width - 1)] = colours[order]
    view = Image.new("RGB", (MARGIN + width, height + 34), "white")
    view.paste(Image.fromarray(ground), (MARGIN, 0))
    pen = ImageDraw.Draw(view)
    for metres in range(0, AHEAD, 10):
        pen.text((MARGIN - 6, height - metres * PIXELS), f"{metres} m", fill="black", font=font, anchor="rs")
    for metres in (-10, 0, 10):
        place = MARGIN + width / 2 + metres * PIXELS
        pen.text((place, height + 25), f"{metres:+d} m" if metres else "camera", fill="black", font=font, anchor="ms")
    return view


def free_way(points: torch.Tensor, picture, distance: float | None = None) -> Image.Image:
    """`from_above` with the lane straight ahead, a metre to either side, and a red line at its end.

    `distance`: how many metres are free (0 to 50); with None or something else, no end is drawn.
    """
    view = from_above(points, picture)
    pen, bottom, middle = ImageDraw.Draw(view), AHEAD * PIXELS, MARGIN + SIDEWAYS * PIXELS
    known = isinstance(distance, int | float | torch.Tensor) and 0 < float(distance) < AHEAD
    end = bottom - float(distance) * PIXELS if known else 0  # type: ignore[arg-type]
    for side in (middle - PIXELS, middle + PIXELS):
        pen.line([(side, bottom), (side, end)], fill="blue", width=2)
    if known:
        pen.line([(middle - 40, end), (middle + 40, end)], fill="red", width=3)
        words = f"{float(distance):.1f} m free"  # type: ignore[arg-type]
        look: dict[str, Any] = {"fill": "red", "stroke_width": 2, "stroke_fill": "white", "font": text_font(20)}
        pen.text((middle + 46, end - 12), words, **look)
    return view


# --- the pipeline figure on top of every notebook -------------------------------------------------------------------

# Its blocks: centre (x, y), width and height, title, words. "losses" has two: the sampler and the loss terms.
PIPELINE: dict[str, list[tuple[float, float, float, float, str, str]]] = {
    "data": [(1.15, 3.8, 2.3, 1.4, "data", "drives, pairs,\nbatches")],
    "transforms": [(1.15, 1.9, 2.3, 1.4, "transforms", "resize, flip,\ncolours")],
    "network": [(5.55, 3.8, 1.9, 1.4, "network", "encoder,\ndecoder")],
    "losses": [(9.95, 2.85, 2.3, 1.5, "sampler", "$I^r(x - d^l)$\n$I^l(x + d^r)$"),
               (14.3, 2.85, 2.5, 2.1, "three losses", "appearance\nsmoothness\nconsistency\non four scales")],
    "training": [(8.9, 0.55, 4.2, 1.0, "training", "gradients change the weights")],
    "testing": [(7.7, 5.4, 4.2, 1.0, "testing", "$Z = f B\\,/\\,(W d^l)$ metres, metrics")],
    "gif": [(13.0, 5.4, 3.6, 1.0, "gif", "a film, points in space")],
}  # fmt: skip


@styled
def pipeline(lit: str = "", width: float = 13.0) -> Figure:
    """The course in one figure: from the drives to the losses, back to the weights, and on to metres.

    The block `lit` is highlighted: one of `PIPELINE`, or "" for none. Raises ValueError for another name.
    """
    if lit and lit not in PIPELINE:
        raise ValueError(f"lit is {lit!r}; it must be one of {', '.join(map(repr, PIPELINE))}")
    wide, tall = 15.75, 6.0
    figure = plt.figure(figsize=(width, width * tall / wide))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-0.1, wide - 0.1), ylim=(0, tall))
    axis.axis("off")
    words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": width, "linespacing": 1.1}

    def arrow(*corners: tuple[float, float], colour: str = "#555555") -> None:
        axis.plot(*zip(*corners, strict=True), color=colour, linewidth=2, solid_joinstyle="miter")
        look = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "color": colour, "linewidth": 2, "shrinkA": 0}
        axis.annotate("", corners[-1], corners[-2], arrowprops={**look, "shrinkB": 0})

    def picture(x: float, y: float, sign: str, name: str, colours: Sequence[str]) -> None:
        """A view, or maps of several scales behind each other, with the symbol `sign` inside and the name below."""
        for scale, colour in reversed(list(enumerate(colours))):
            corner = x - 0.65 + 0.2 * scale, y - 0.4 + 0.17 * scale
            size = 1.3 - 0.2 * scale, 0.8
            axis.add_patch(Rectangle(corner, *size, facecolor=colour, edgecolor="white", linewidth=1.5))
        axis.text(x, y, f"${sign}$", **{**words, "fontsize": 1.2 * width, "color": "white"})
        axis.text(x, y - 0.62, name, **words)

    arrow((1.15, 3.1), (1.15, 2.6))
    for y in (3.8, 1.9):
        arrow((2.3, 1.9), (2.5, 1.9), (2.5, y), (2.75, y))
        arrow((11.1, 2.85), (11.25, 2.85), (11.25, y), (11.45, y))
    arrow((4.1, 3.8), (4.6, 3.8))
    arrow((6.5, 3.8), (7.0, 3.8))
    arrow((8.35, 3.8), (8.6, 3.8), (8.6, 3.2), (8.8, 3.2))
    arrow((4.1, 1.9), (8.6, 1.9), (8.6, 2.5), (8.8, 2.5))
    arrow((12.75, 3.8), (12.9, 3.8), (12.9, 3.3), (13.05, 3.3))
    arrow((12.75, 1.9), (12.9, 1.9), (12.9, 2.4), (13.05, 2.4))
    back = "#cc4400" if lit == "training" else "#999999"
    arrow((14.3, 1.8), (14.3, 0.55), (11.0, 0.55), colour=back)
    arrow((6.8, 0.55), (5.55, 0.55), (5.55, 3.1), colour=back)
    arrow((7.9, 4.71), (7.9, 4.9))
    arrow((9.8, 5.4), (11.2, 5.4))
    blue, maps = ["#33638d"], ["#b63679", "#8c2981", "#641a80", "#3b0f70"]
    picture(3.45, 3.8, "I^l", "left view", blue)
    picture(3.45, 1.9, "I^r", "right view", blue)
    picture(7.7, 3.8, "d^l, d^r", "disparity", maps)
    picture(12.1, 3.8, r"\tilde{I}^l", "rebuilt", blue)
    picture(12.1, 1.9, r"\tilde{I}^r", "rebuilt", blue)
    for name, boxes in PIPELINE.items():
        for x, y, box_width, box_height, title, text in boxes:
            look: dict[str, Any] = {"facecolor": "#eeeeee", "edgecolor": "#999999", "linewidth": 1.5}
            if name == lit:
                look = {"facecolor": "#ffc266", "edgecolor": "#cc4400", "linewidth": 3.0}
            corner = x - box_width / 2 + 0.1, y - box_height / 2 + 0.1
            shape = FancyBboxPatch(corner, box_width - 0.2, box_height - 0.2, boxstyle="round,pad=0.1", **look)
            axis.add_patch(shape)
            axis.text(x, y + box_height / 2 - 0.28, title, **words, fontweight="bold")
            axis.text(x, y - 0.22, text, **words)
    return figure


# --- the check of one's own pairs (`rectification`) ---------------------------------------------------------------


@styled
def rectification(
    left: Image.Image, right: Image.Image, title: str, found: tuple[np.ndarray, np.ndarray] | None = None,
    everywhere: tuple[np.ndarray, np.ndarray] | None = None, shares: dict[str, float] | None = None,
) -> Figure:  # fmt: skip
    """A pair with lines along its rows; below it, charts that show whether it is rectified.

    `found`: the same points in both pictures, (N, 2) px each. `everywhere`: the points of all pairs, (N, 2) in -1 to 1,
    and their shifts, (N, 2) px right and down. `shares`: frame -> the share of points found again in it.
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


# --- 03: pairs of pictures ----------------------------------------------------------------------------------------


@styled
def pairs(pictures: Sequence[tuple], titles: Sequence[str], names: tuple[str, str], width: float = 13.0) -> Figure:
    """Pairs of pictures (H, W) in [0, 1], drawn in grey; each pair has its own card with its title.

    `names` are written below the first and the second picture of every pair.
    """
    height = 0.45 * width / len(pictures) + 0.3 + 0.25 * max(title.count("\n") + 1 for title in titles)
    figure = plt.figure(figsize=(width, height), layout="constrained")
    places = figure.add_gridspec(1, len(pictures), wspace=0.08)
    for index, (both, title) in enumerate(zip(pictures, titles, strict=True)):
        card = figure.add_subfigure(places[0, index], facecolor="#e4e9f0")
        card.suptitle(title, fontsize=12)
        for axis, picture, name in zip(card.subplots(1, 2), both, names, strict=True):
            axis.imshow(to_array(picture), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[], xlabel=name)
    return figure
