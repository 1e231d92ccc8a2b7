"""Sliders for the notebooks: controls of ipywidgets above one picture; they also work outside a notebook.

Panels use `observe`, not `interact`: an error in a callback is shown in red below the picture and raised again, so a
headless run fails (`interact` would hide the error).
"""

from __future__ import annotations

import contextlib
import html
import io
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipyevents
import ipywidgets
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_tensor

from . import checkpoints, data, depth, files, gif, kitti, losses, networks, plots, testing, transforms

WIDTH = 832  # px of every panel's picture: fits beside JupyterLab's file list
TEXT, LINE = 20, 28  # px, font size and line height: readable on a projector and on half-size sheets
WIDE = {"width": "60%"}  # layout of a slider
DPI = 120  # of the figures in panels: matplotlib's 12 points are 20 px


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG, compressed fast rather than small: the browser is on the same machine."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def in_red(words: str) -> str:
    """An error message as red HTML; a <drive> in it is escaped."""
    return f'<b style="color:#b00020">{html.escape(words)}</b>'


class Panel(ipywidgets.VBox):
    """Controls above a picture; `draw(**values)` returns the picture for their values and runs after each change.

    `controls`: name of an argument of `draw` -> an ipywidget with a `value`. `picture` is the ipywidgets.Image,
    `message` a line that shows "computing ..." and errors.
    """

    def __init__(
        self, draw: Callable[..., Image.Image], controls: dict[str, ipywidgets.ValueWidget], width: int = WIDTH
    ):
        self.draw, self.controls = draw, controls
        self.picture = ipywidgets.Image(format="png", width=width)
        self.message = ipywidgets.HTML()
        super().__init__([*controls.values(), self.picture, self.message])
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def image(self, **values) -> Image.Image:
        """The picture for the controls' values; `values` replaces some of them."""
        return self.draw(**{name: control.value for name, control in self.controls.items()} | values)

    def update(self, _change=None) -> None:
        self.message.value = "computing ..."
        try:
            self.picture.value = png(self.image())
        except Exception as error:
            self.message.value = in_red(f"{type(error).__name__}: {error}")
            raise
        self.message.value = ""

    def sheet(self, control: str, positions: list, titles: list[str] | None = None, columns: int = 2) -> Figure:
        """The pictures at several positions of one control, because GitHub and PDF show no sliders."""
        images = [self.image(**{control: position}) for position in positions]
        return plots.grid(images, titles or [f"{control} {position}" for position in positions], columns, width=12)

    def move(self, **values) -> None:
        """Sets several controls at once and draws only once."""
        controls = [self.controls[name] for name in values]
        for control in controls:
            control.unobserve(self.update, names="value")
        try:
            for control, value in zip(controls, values.values(), strict=True):
                control.value = value
        finally:
            for control in controls:
                control.observe(self.update, names="value")
        self.update()


def slider(
    value: float, low: float, high: float, description: str, step: float = 1, live: bool = True
) -> ipywidgets.IntSlider | ipywidgets.FloatSlider:
    """A slider wide enough for a projector: over integers for an int `step`, else over floats.

    It updates while it is dragged; with `live=False`, for panels that take more than 0.15 s, when it is released.
    """
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    span = {"min": low, "max": high, "step": step}
    return kind(value=value, **span, description=description, continuous_update=live, layout=WIDE)


def choices(options: list[float], value: float, description: str, live: bool = True) -> ipywidgets.SelectionSlider:
    """A `slider` over a list of numbers."""
    named = [(f"{option:g}", option) for option in options]
    return ipywidgets.SelectionSlider(
        options=named, value=value, description=description, continuous_update=live, layout=WIDE
    )


def photograph(view: torch.Tensor) -> Image.Image:
    """A view (3, H, W) in [0, 1] as a picture."""
    return Image.fromarray((255 * plots.to_array(view)).round().astype(np.uint8))


def coloured(values, low: float, high: float, size: tuple[int, int], colours: str = plots.COLOURS) -> Image.Image:
    """Values (H, W) in colours from `low` to `high`, enlarged to `size` (width, height) without smoothing."""
    image = Image.fromarray(plots.colour_map(values, low, high, colours))
    return image.resize(size, Image.Resampling.NEAREST)


def quarters(low: float, high: float, form: str) -> list[tuple[float, str]]:
    """Five ticks of `plots.scale_bar`, from `low` to `high`."""
    return [(share / 4, format(low + share / 4 * (high - low), form)) for share in range(5)]


def sentence(words: str) -> Image.Image:
    """A strip with one line of words."""
    strip = Image.new("RGB", (WIDTH, LINE), "white")
    ImageDraw.Draw(strip).text((4, 1), words, fill="black", font=plots.text_font(TEXT))
    return strip


def tiles(images: list[Image.Image], titles: list[str], below: list[Image.Image], columns: int = 2) -> Image.Image:
    """Pictures of one size in columns, each with a title above it, and the strips `below` under all of them."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + LINE) + sum(strip.height for strip in below)), "white")
    pen, font = ImageDraw.Draw(sheet), plots.text_font(TEXT)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = index % columns * width, index // columns * (height + LINE)
        pen.text((x + 4, y + 1), title, fill="black", font=font)
        sheet.paste(image, (x, y + LINE))
    y = rows * (height + LINE)
    for strip in below:
        sheet.paste(strip, (0, y))
        y += strip.height
    return sheet


class Chart:
    """A figure with a fixed background; only the `moving` artists are redrawn, in a few milliseconds."""

    def __init__(self, figure: Figure, moving: Sequence[Artist]):
        self.moving = moving
        for artist in moving:
            artist.set_animated(True)  # keeps it out of the background
        self.canvas = FigureCanvasAgg(figure)
        self.canvas.draw()
        figure.set_layout_engine("none")
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def image(self) -> Image.Image:
        self.canvas.restore_region(self.background)
        for artist in self.moving:
            artist.draw(self.canvas.get_renderer())
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3].copy())


def follow_pointer(panel: Panel, place: Callable[[float, float], dict[str, int] | None]) -> None:
    """Makes a click or a drag on the panel's picture move controls. It works without the internet.

    `place(x, y)`, in px of the picture, returns control -> value, or None where there is nothing to pick.
    """

    def heard(event: dict) -> None:
        if event["type"] == "mousemove" and not event.get("buttons"):
            return
        values = place(event["dataX"], event["dataY"])
        if values:
            panel.move(**values)

    look = {"source": panel.picture, "prevent_default_action": True}  # a browser would drag the picture away
    click = ipyevents.Event(watched_events=["mousedown"], **look)
    drag = ipyevents.Event(watched_events=["mousemove"], throttle_or_debounce="throttle", wait=120, **look)
    for event in (click, drag):
        event.on_dom_event(heard)
    panel.pointer = click, drag


# --- 01 ---


def views_panel(pairs: Sequence[kitti.Pair], width: int = 416) -> Panel:
    """(01) Browses `pairs`: both views, the right one laid over the left, and how much they differ (bright: much).

    Sliders: `pair`; `shift`, how many px the right view is moved to the right, of a picture at most `width` px wide;
    `rows`, how many px it is moved down. With a known calibration, a title gives the distance of things that fit.
    """

    @lru_cache(maxsize=8)
    def views(index: int) -> tuple[np.ndarray, np.ndarray]:
        pictures = [data.read_picture(path) for path in (pairs[index].left, pairs[index].right)]
        size = min(width, pictures[0].width), max(1, round(pictures[0].height * min(1, width / pictures[0].width)))
        left, right = (np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) for picture in pictures)
        return left, right

    @lru_cache(maxsize=8)
    def focal_baseline(index: int) -> float:
        with contextlib.suppress(ValueError):
            return pairs[index].calibration.focal_baseline
        return 0.0

    def draw(pair: int, shift: int, rows: int) -> Image.Image:
        left, right = views(pair)
        high, wide = left.shape[:2]
        moved = np.zeros_like(right)
        moved[max(rows, 0) : high + min(rows, 0), shift:] = right[max(-rows, 0) : high - max(rows, 0), : wide - shift]
        overlay = ((left.astype(np.uint16) + moved) // 2).astype(np.uint8)
        difference = np.abs(left.astype(np.float32) - moved).mean(axis=2)
        difference[:, :shift] = 0  # nothing to compare with
        images = [left, moved, overlay, plots.colour_map(difference, 0, 80)]
        metres = focal_baseline(pair) * wide / max(shift, 1)
        distance = f", fits at {metres:.1f} m" if metres and shift else ""
        moves = f"right, moved {shift} px, {rows} down"
        titles = [pairs[pair].name[-26:], moves, f"overlay{distance}", "|left - right|"]
        ticks = [(value / 80, str(value)) for value in range(0, 81, 20)]
        bar = plots.scale_bar(ticks, 2 * wide, "|left - right|, of 255", text=16)
        return tiles([Image.fromarray(image) for image in images], titles, [bar])

    controls = {
        "pair": slider(0, 0, len(pairs) - 1, "pair"),
        "shift": slider(0, 0, 60, "shift (px)"),
        "rows": slider(0, -8, 8, "rows (px)"),
    }
    return Panel(draw, controls, width=2 * width)


# --- 02 ---


def augment_panel(sample: dict, width: int = 416) -> Panel:
    """(02) A sample of Pillow images after the changes of training, set by hand; it uses the library's functions.

    Sliders: `gamma`, `brightness`, and factors `red`, `green`, `blue`, over the ranges of training; the checkbox
    `flip` mirrors and swaps the views.
    """
    height = round(sample["left_image"].height * width / sample["left_image"].width)
    resized = transforms.ResizeImage((height, width))(sample)
    views = [transforms.ToTensor()(transforms.RandomFlip(p=p)(resized)) for p in (0.0, 1.0)]

    def draw(gamma: float, brightness: float, red: float, green: float, blue: float, flip: bool) -> Image.Image:
        colour = torch.tensor([red, green, blue])
        images, titles = [], []
        for view, name in zip(transforms.VIEWS, ("left", "right"), strict=True):
            changed = transforms.change_colours(views[flip][view], gamma, brightness, colour)
            clipped = (changed == 1).float().mean()
            images.append(photograph(changed))
            titles.append(f"{name}: mean {changed.mean():.2f}, {100 * clipped:.0f} % at 1")
        return tiles(images, titles, [])

    controls: dict[str, ipywidgets.ValueWidget] = {
        "gamma": slider(1.0, 0.8, 1.2, "gamma", 0.05),
        "brightness": slider(1.0, 0.5, 2.0, "brightness", 0.05),
        "red": slider(1.0, 0.8, 1.2, "red", 0.05),
        "green": slider(1.0, 0.8, 1.2, "green", 0.05),
        "blue": slider(1.0, 0.8, 1.2, "blue", 0.05),
        "flip": ipywidgets.Checkbox(False, description="flip"),
    }
    return Panel(draw, controls, width=2 * width)


# --- 03 ---


def framed(image: Image.Image, box: tuple[float, float, float, float], line: float | None = None) -> Image.Image:
    """The picture with a frame around `box` (left, top, right, bottom, px) and a horizontal line at row `line`, px."""
    marked = image.copy()
    pen = ImageDraw.Draw(marked)
    left, top, right, bottom = box
    for colour, thick, far in (("black", 4, 3), ("white", 2, 2)):
        if line is not None:
            pen.line([(0, line), (image.width, line)], fill=colour, width=thick - 1)
        pen.rectangle((left - far, top - far, right + far, bottom + far), outline=colour, width=thick)
    inside = max(round(left), 0), max(round(top), 0), min(round(right), image.width), min(round(bottom), image.height)
    if line is not None and inside[0] < inside[2]:
        marked.paste(image.crop(inside), inside[:2])  # the line ends at the frame
    return marked


@plots.styled
def warp_panel(left: torch.Tensor, right: torch.Tensor, truth: torch.Tensor | None = None, limit: int = 80) -> Panel:
    """(03) A rectangle of the left view is rebuilt from the right view, `shift` px further left: does it fit?

    Views are (1, 3, H, W), `truth` (H, W) the true disparity as a fraction of the width, 0 unknown. Sliders: `shift`,
    0 to `limit` px; `row` and `column` of the rectangle's middle and its `size`, px. A click or a drag on a picture
    moves the rectangle, a click on the curve the shift. The curve is the mean cost of the rectangle's pixels.
    """
    height, width = left.shape[-2:]
    tall, enlarged = round(WIDTH / 2 * height / width), WIDTH // 2 / width

    def fetch(shift: int) -> torch.Tensor:
        return losses.warp(right, torch.full((1, 1, height, width), -shift / width))

    # all shifts are computed once, here; a move only looks them up
    residuals = torch.empty(limit + 1, height, width, dtype=torch.float16)
    dissimilar, costs = torch.empty_like(residuals), torch.empty(limit + 1, height, width)
    for shift in range(limit + 1):
        estimate = fetch(shift)
        residual = (left - estimate).abs().mean(1, keepdim=True)
        dissimilarity = losses.photometric_error(left, estimate, ssim_weight=1.0)
        residuals[shift], dissimilar[shift] = residual[0, 0], dissimilarity[0, 0]
        costs[shift] = (0.85 * dissimilarity + 0.15 * residual)[0, 0]  # photometric_error, with SSIM computed once

    bars = Image.new("RGB", (WIDTH, 2 * 16 + 10), "white")
    for place, (label, high) in enumerate((("residual", 0.5), ("SSIM cost", 1.0))):
        bars.paste(plots.scale_bar(quarters(0, high, "g"), WIDTH // 2, label, "cividis", 16), (place * WIDTH // 2, 0))
    figure = Figure(figsize=(WIDTH / DPI, 2.3), dpi=DPI, layout="constrained")
    curve = figure.subplots()
    (line,) = curve.plot(range(limit + 1), costs[:, 0, 0], color="tab:blue", linewidth=2, label="cost")
    here = curve.axvline(0, color="black", linestyle="--", label="this shift")
    best = curve.axvline(0, color="tab:orange", linestyle=":", linewidth=3, label="lowest")
    true = curve.axvline(0, color="tab:green", linestyle="-.", linewidth=2, label="truth")
    words = curve.set_title("cost")
    curve.set(xlabel=f"shift (px of {width})", ylabel="mean cost", xlim=(0, limit), ylim=(0, 0.6))
    handles = [line, here, best] + [true] * (truth is not None)
    curve.legend(handles=handles, ncols=4, loc="upper right", fontsize=10, columnspacing=1, handlelength=1.5)
    chart = Chart(figure, [line, here, best, true, words])

    def enlarge(image: Image.Image) -> Image.Image:
        return image.resize((WIDTH // 2, tall), Image.Resampling.BILINEAR)

    def costly(values: torch.Tensor, high: float) -> Image.Image:
        return enlarge(Image.fromarray(plots.colour_map(values, 0, high, "cividis")))

    def draw(shift: int, row: int, column: int, size: int) -> Image.Image:
        if not (row < height and column < width):
            raise IndexError(f"row {row}, column {column} lies outside the picture, {height} x {width}")
        half = size // 2
        rows, columns = slice(max(row - half, 0), row + half + 1), slice(max(column - half, 0), column + half + 1)
        left_edge, top, right_edge, bottom = (
            enlarged * edge for edge in (columns.start, rows.start, columns.stop, rows.stop)
        )
        box = left_edge, top, right_edge, bottom
        moved = left_edge - enlarged * shift, top, right_edge - enlarged * shift, bottom
        level = enlarged * (row + 0.5)
        rebuilt = left[0].clone()
        rebuilt[:, rows, columns] = fetch(shift)[0, :, rows, columns]

        cost = costs[:, rows, columns].mean((1, 2))
        lowest = int(cost.argmin())
        line.set_ydata(cost)
        here.set_xdata([shift, shift])
        best.set_xdata([lowest, lowest])
        known = truth is not None and float(truth[row, column]) > 0
        true.set_visible(known)
        if known:
            true.set_xdata([float(truth[row, column]) * width] * 2)  # type: ignore[index]
        words.set_text(f"row {row}, column {column}: cost {cost[shift]:.3f} at {shift} px, lowest at {lowest} px")
        images = [
            framed(enlarge(photograph(rebuilt)), box, level),
            framed(enlarge(photograph(right[0])), moved, level),
            framed(costly(residuals[shift], 0.5), box),
            framed(costly(dissimilar[shift], 1.0), box),
        ]
        titles = ["left view, rectangle rebuilt", f"right view, fetched {shift} px further left"]
        return tiles(images, [*titles, "residual |left - rebuilt|", "(1 - SSIM) / 2"], [bars, chart.image()])

    panel = Panel(
        draw,
        {
            "shift": slider(0, 0, limit, "shift"),
            "row": slider(int(0.35 * height), 0, height - 1, "row"),
            "column": slider(int(0.9 * width), 0, width - 1, "column"),
            "size": slider(min(25, height // 2 * 2 - 1), 5, min(61, height), "size", 2),
        },
    )

    def pick(x: float, y: float) -> dict[str, int] | None:
        band, down = divmod(y, tall + LINE)
        side, across = divmod(x, WIDTH // 2)
        if band < 2 and down >= LINE and side < 2:
            behind = panel.controls["shift"].value if (band, side) == (0, 1) else 0  # picked in the right view
            column = int(across / enlarged) + behind
            return {"row": min(int((down - LINE) / enlarged), height - 1), "column": min(column, width - 1)}
        if y > 2 * (tall + LINE) + bars.height:
            shift = round(float(curve.transData.inverted().transform((x, 0))[0]))
            return {"shift": shift} if 0 <= shift <= limit else None
        return None

    follow_pointer(panel, pick)
    return panel


@plots.styled
def terms_panel(answers: dict[str, list[torch.Tensor]], left: torch.Tensor, right: torch.Tensor) -> Panel:
    """(03) How the whole loss ranks some answers (name -> four scales, as a network returns them), best on top.

    Sliders: `alpha`, the share of SSIM in the appearance term, and the weights `smoothness` and `consistency`.
    """
    # the loss is linear in its weights: four sums per answer are enough for all positions
    sums = {}
    for name, answer in answers.items():
        _, parts = losses.MonodepthLoss(1.0, 1.0, 1.0)(answer, left, right)
        _, plain = losses.MonodepthLoss(0.0, 1.0, 1.0)(answer, left, right)
        difference = float(plain["appearance"])
        sums[name] = (float(parts["appearance"]), difference, float(parts["smoothness"]), float(parts["consistency"]))
    labels = ("α · SSIM cost", "(1 - α) · L1", "smoothness", "consistency")
    looks = (("#1f4e79", ""), ("#7fb2e5", "//"), ("#f2b134", ".."), ("#b04a5a", "xx"))

    figure = Figure(figsize=(WIDTH / DPI, 0.35 * len(answers) + 1.5), dpi=DPI, layout="constrained")
    axis, places = figure.subplots(), range(len(answers))
    axis.set_xlabel("loss, sum over 4 scales and 2 views")
    bars = [
        axis.barh(places, [0.0] * len(answers), label=label, color=colour, hatch=hatch, edgecolor="white")
        for label, (colour, hatch) in zip(labels, looks, strict=True)
    ]
    words = [axis.text(0, place, "", va="center") for place in places]
    look = {"ncols": 4, "fontsize": 10, "columnspacing": 1, "handlelength": 1.5}
    figure.legend(handles=bars, loc="outside lower center", **look)

    def draw(alpha: float, smoothness: float, consistency: float) -> Image.Image:
        weights = (alpha, 1 - alpha, smoothness, consistency)
        parts = {name: [w * s for w, s in zip(weights, four, strict=True)] for name, four in sums.items()}
        order = sorted(parts, key=lambda name: sum(parts[name]), reverse=True)
        longest = max(*(sum(four) for four in parts.values()), 1e-9)
        for place, name in enumerate(order):
            start = 0.0
            for term, value in zip(bars, parts[name], strict=True):
                term[place].set(x=start, width=value)
                start += value
            words[place].set(text=f"{start:.3f}", x=start + 0.01 * longest)
        axis.set_yticks(places, order)
        axis.set_xlim(0, 1.2 * longest)
        axis.set_title(f"weights: α {alpha:g}, smoothness {smoothness:g}, consistency {consistency:g}")
        return plots.figure_image(figure)

    draw(0.85, 0.1, 1.0)
    figure.set_layout_engine("none")  # laid out once; a move changes what is in the axes

    weights = [0.0, 0.1, 1.0, 10.0, 100.0, 1000.0]
    return Panel(
        draw,
        {
            "alpha": choices([0.0, 0.25, 0.5, 0.85, 1.0], 0.85, "α"),
            "smoothness": choices(weights, 0.1, "smoothness"),
            "consistency": choices(weights, 1.0, "consistency"),
        },
    )


def free_panel(
    run: Callable[[float, losses.MonodepthLoss], torch.Tensor], truth: torch.Tensor, measure: Callable[..., dict]
) -> Panel:
    """(03) The result of `run(start, loss)`, gradient descent without a network, for the weights that the sliders set.

    `run` returns both maps (1, 2, h, w); `measure` turns them into name -> number; `truth` is (h, w), 0 unknown.
    Sliders: `start`, the first disparity of every pixel; `alpha`, `smoothness`, `consistency`, the weights of the loss.
    A run takes a second or more, so the sliders update when they are released; results are kept.
    """
    high, width = float(truth[truth > 0].quantile(0.99)), truth.shape[-1]
    size = WIDTH // 2, round(WIDTH / 2 * truth.shape[0] / width)

    @lru_cache(maxsize=64)
    def answer(start: float, alpha: float, smoothness: float, consistency: float) -> torch.Tensor:
        return run(start, losses.MonodepthLoss(alpha, smoothness, consistency))

    def draw(start: float, alpha: float, smoothness: float, consistency: float) -> Image.Image:
        both = answer(start, alpha, smoothness, consistency)
        error = (both[0, 0] - truth).abs() * width
        shown = [plots.colour_map(truth, 0, high), plots.colour_map(both[0, 0], 0, high)]
        off = plots.colour_map(error, 0, 10, "cividis")
        off[(truth == 0).numpy()] = 150
        shown += [plots.colour_map(both[0, 1], 0, high), off]
        images = [Image.fromarray(array).resize(size, Image.Resampling.NEAREST) for array in shown]
        ticks = [(round(place / 100 / high, 3), f"{place / 100:g}") for place in range(0, 31)]
        bars = [plots.scale_bar(ticks, WIDTH, "disparity (of the width)", text=16)]
        ticks = [(place / 10, f"{place} px") for place in range(0, 11, 2)]
        bars.append(plots.scale_bar(ticks, WIDTH, f"error, of {width} px", "cividis", 16))
        words = sentence(",   ".join(f"{name} {value:.2f}" for name, value in measure(both).items()))
        titles = ["true left disparity", f"left map, from {start:g}", "right map", "error of the left map"]
        return tiles(images, titles, [*bars, words])

    return Panel(
        draw,
        {
            "start": choices([0.01, 0.02, 0.03, 0.06, 0.1, 0.15], 0.03, "start", False),
            "alpha": choices([0.0, 0.25, 0.5, 0.85, 1.0], 0.85, "α", False),
            "smoothness": choices([0.0, 0.1, 0.3, 1.0, 3.0, 10.0], 0.1, "smoothness", False),
            "consistency": choices([0.0, 0.1, 0.3, 1.0, 3.0, 10.0], 1.0, "consistency", False),
        },
    )


# --- 04 ---


def features_panel(image: torch.Tensor, features: list[torch.Tensor]) -> Panel:
    """(04) A picture (3, H, W) above one channel of one of its features, a list of (C, h, w), finest first.

    Slider `level` picks the feature, `channel` one of its channels, those that vary most first.
    """
    orders = [feature.flatten(1).std(1, correction=0).argsort(descending=True) for feature in features]
    last = min(len(order) for order in orders) - 1
    height, width = image.shape[-2:]
    tall = round(WIDTH * height / width)
    picture = photograph(image).resize((WIDTH, tall), Image.Resampling.NEAREST)

    def draw(level: int, channel: int) -> Image.Image:
        feature, number = features[level], int(orders[level][channel])
        titles = [f"the picture, {height} x {width}"]
        titles += [f"level {level} ({feature.shape[1]} x {feature.shape[2]}), channel {number} of {len(feature)}"]
        low, high = float(feature[number].min()), float(feature[number].max())
        shown = coloured(feature[number], low, high, (WIDTH, tall), "cividis")
        bar = plots.scale_bar(quarters(low, high, ".1f"), WIDTH, "activation", "cividis", 18)
        return tiles([picture, shown], titles, [bar], columns=1)

    levels, channels = slider(0, 0, len(features) - 1, "level"), slider(0, 0, last, "channel")
    return Panel(draw, {"level": levels, "channel": channels})


# --- 05 ---


@plots.styled
def epochs_panel(image: torch.Tensor, snapshots: dict[int, torch.Tensor], curves: dict[str, dict[int, float]]) -> Panel:
    """(05) A picture (3, H, W), its disparity (h, w) after the epoch of the slider `epoch`, and curves.

    `snapshots` and each of `curves` (name -> curve) map epochs to values; an epoch without one shows the
    snapshot before it. One chart shows up to two curves, each with its own scale. A move only looks up.
    """
    epochs = sorted(snapshots)
    high = max(float(snapshots[epochs[-1]].quantile(0.99)), 0.02)
    size = WIDTH, round(WIDTH * image.shape[-2] / image.shape[-1])
    picture = photograph(image).resize(size)
    bar = plots.scale_bar(quarters(0, high, ".3f"), WIDTH, "disparity (fraction of the width)", text=18)
    chart, places, foot = curves_chart(curves, epochs[0], epochs[-1])

    def draw(epoch: int) -> Image.Image:
        kept = max(known for known in epochs if known <= epoch)
        disparity = coloured(snapshots[kept], 0, high, size)
        marked = chart.copy()
        pen, x = ImageDraw.Draw(marked), places[epoch]
        pen.line([(x, 0), (x, foot)], fill="black", width=2)
        return tiles([picture, disparity], ["the picture", f"disparity after epoch {kept}"], [bar, marked], columns=1)

    return Panel(draw, {"epoch": slider(epochs[-1], epochs[0], epochs[-1], "epoch")})


def curves_chart(
    curves: dict[str, dict[int, float]], first: int, last: int
) -> tuple[Image.Image, dict[int, float], float]:
    """One chart of up to two curves over the epochs, `WIDTH` px wide; x of each epoch and y of the axis in px."""
    figure = Figure(figsize=(WIDTH / DPI, 2.1), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    looks = (("tab:blue", "o-"), ("tab:green", "s--"))
    lines = []
    for number, (name, curve) in enumerate(list(curves.items())[:2]):
        scale = axis.twinx() if number else axis
        colour, style = looks[number]
        lines += scale.plot(list(curve), list(curve.values()), style, color=colour, markersize=4, label=name)
        scale.set_ylabel(name, color=colour, fontsize=10)
        scale.set_yscale("log")
        limits = scale.get_ylim()
        ticks = [tick for tick in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 5) if limits[0] <= tick <= limits[1]]
        scale.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=10)
        scale.minorticks_off()
    axis.set(xlabel="epoch", xlim=(first - 0.5, last + 0.5))
    axis.locator_params(axis="x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend(handles=lines, fontsize=10, loc="upper right")
    drawn = plots.figure_image(figure)
    places = {epoch: float(axis.transData.transform((epoch, 1.0))[0]) for epoch in range(first, last + 1)}
    return drawn, places, drawn.height - float(axis.bbox.y0)


class LiveCurve(ipywidgets.VBox):
    """(05) The loss of a run, redrawn after every epoch while `training.train` runs.

    Show it before the training starts and pass its `log` to `train`: `log` prints the line and draws `history.csv` of
    the run in `folder`. Only a browser shows the curve; a headless run does not store it.
    """

    def __init__(self, folder: Path, epochs: int):
        self.file, self.epochs = folder / "history.csv", epochs
        self.message = ipywidgets.HTML("The curve starts after the first epoch.")
        self.picture = ipywidgets.Image(format="png", width=WIDTH)
        super().__init__([self.message])

    def log(self, line: str) -> None:
        print(line)
        if self.file.is_file():
            self.show(checkpoints.read_history(self.file))

    def show(self, rows: list[dict]) -> None:
        figure = Figure(figsize=(WIDTH / DPI, 2.4), dpi=DPI, layout="constrained")
        axis = figure.subplots()
        for key, style, label in (("train_loss", "o-", "train"), ("val_loss", "s--", "vals")):
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            if points:
                axis.plot(*zip(*points, strict=True), style, markersize=4, label=f"{label}: {points[-1][1]:.3f}")
        axis.set(xlabel="epoch", ylabel="loss", xlim=(0.5, max(self.epochs, 2) + 0.5), ylim=(0, None))
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
        self.picture.value = png(plots.figure_image(figure))
        self.message.value = f"epoch {len(rows)} of {self.epochs}"
        self.children = (self.message, self.picture)


# --- 06 ---


def cross_hair(image: Image.Image, down: float, right: float) -> Image.Image:
    """The picture with a cross-hair at the shares `down` and `right` of its height and width, black and white."""
    marked = image.copy()
    pen, x, y = ImageDraw.Draw(marked), right * image.width, down * image.height
    for colour, thick in (("black", 3), ("white", 1)):
        pen.line([(x, 0), (x, image.height)], fill=colour, width=thick)
        pen.line([(0, y), (image.width, y)], fill=colour, width=thick)
    return marked


def testing_panel(model: networks.Monodepth, pairs: Sequence[kitti.Pair]) -> Panel:
    """(06) A model's depth in metres for the left pictures of `pairs`, beside the true depth where it is known.

    Sliders: `frame`; `scale`, the network's output (0 finest to 3); `reach`, the metres at the ends of the colours;
    `row` and `column` of a cross-hair, in px of the network's input; its depth is shown below, and a click or a drag in
    a map moves it. Switches: `post_processing`, and `error_map` in place of the disparity. Each frame is predicted once
    and kept.
    """
    height, width = model.size  # type: ignore[misc]
    device = next(model.parameters()).device
    model.eval()

    @lru_cache(maxsize=64)
    def read(frame: int) -> tuple[Image.Image, torch.Tensor | None]:
        pair = pairs[frame]
        return data.read_picture(pair.left), torch.from_numpy(pair.ground_truth()) if pair.truth else None

    @lru_cache(maxsize=64)
    def predict(frame: int, scale: int) -> list[torch.Tensor]:
        image = to_tensor(read(frame)[0].resize((width, height), Image.Resampling.BILINEAR))
        return [maps[0].cpu() for maps in testing.predict(model, image[None].to(device), scale)]

    def draw(
        frame: int, scale: int, post_processing: bool, reach: tuple[int, int], error_map: bool, row: int, column: int
    ) -> Image.Image:
        picture, truth = read(frame)
        disparity, focal_baseline = predict(frame, scale)[post_processing], pairs[frame].calibration.focal_baseline
        full = truth.shape if truth is not None else (picture.height, picture.width)
        predicted = depth.disparity_to_depth(depth.resize_map(disparity, full), focal_baseline)
        size = 416, round(416 * picture.height / picture.width)

        def tile(values: torch.Tensor, low: float, high: float, colours: str, known=None) -> Image.Image:
            coloured = plots.colour_map(values, low, high, colours)
            if known is not None:
                coloured[~known.numpy()] = 150  # grey: unknown
            return Image.fromarray(coloured).resize(size, Image.Resampling.NEAREST)

        bars = [plots.scale_bar([((z - reach[0]) / max(reach[1] - reach[0], 1), f"{z} m") for z in range(0, 101, 10)],
                                2 * size[0], "depth", "magma_r", 18)]  # fmt: skip
        shown = [picture.resize(size, Image.Resampling.BILINEAR), tile(predicted, *reach, "magma_r")]
        titles = [pairs[frame].name[-26:], f"depth, scale {scale}{', post-processed' * post_processing}"]
        said = f"row {row}, column {column}: "
        here = int((row + 0.5) / height * full[0]), int((column + 0.5) / width * full[1])
        at_cross = float(predicted[here])
        said += f"{at_cross:.1f} m predicted"
        if truth is None:
            shown.append(Image.new("RGB", size, (150, 150, 150)))
            titles.append("no true depth here")
        else:
            known = (truth > depth.MIN_DEPTH) & (truth < depth.MAX_DEPTH)
            shown.append(tile(truth, *reach, "magma_r", known))
            titles.append("true depth (grey: not known)")
            top, left = int(row / height * full[0]), int(column / width * full[1])
            block = truth[top : max(here[0], int((row + 1) / height * full[0]) - 1) + 1,
                          left : max(here[1], int((column + 1) / width * full[1]) - 1) + 1]  # fmt: skip
            near = block[block > 0]
            true = float(near.median()) if len(near) else 0.0
            said += f", {true:.1f} m true, off by {abs(at_cross - true) / true:.0%}" if true else ", truth unknown"
        if error_map and truth is not None:
            error = (predicted.clamp(depth.MIN_DEPTH, depth.MAX_DEPTH) - truth).abs() / truth.clamp(min=depth.MIN_DEPTH)
            shown.append(tile(error, 0, 0.5, "magma_r", known))
            titles.append("error |predicted - true| / true")
            ticks = [(share / 0.5, f"{share:.0%}") for share in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
            bars.append(plots.scale_bar(ticks, 2 * size[0], "error", "magma_r", 18))
        else:
            shown.append(tile(disparity, 0, focal_baseline / max(reach[0], 1), plots.COLOURS))
            titles.append(f"its disparity, {disparity.shape[0]} x {disparity.shape[1]}")
        marked = [cross_hair(image, (row + 0.5) / height, (column + 0.5) / width) for image in shown]
        return tiles(marked, titles, [sentence(said), *bars])

    reach = ipywidgets.IntRangeSlider(
        value=(4, 50), min=1, max=100, description="metres", continuous_update=False, layout=WIDE
    )
    controls: dict[str, ipywidgets.ValueWidget] = {
        "frame": slider(len(pairs) // 2, 0, len(pairs) - 1, "frame", live=False),
        "scale": slider(0, 0, 3, "scale", live=False),
        "reach": reach,
        "row": slider(height * 3 // 4, 0, height - 1, "row"),
        "column": slider(width // 2, 0, width - 1, "column"),
        "post_processing": ipywidgets.Checkbox(True, description="post-processing"),
        "error_map": ipywidgets.Checkbox(False, description="error map"),
    }
    panel = Panel(draw, controls)

    def pick(x: float, y: float) -> dict[str, int] | None:
        picture = read(controls["frame"].value)[0]
        tall = round(416 * picture.height / picture.width)
        band, down = divmod(y, tall + LINE)
        if band > 1 or down < LINE:
            return None
        return {"row": int((down - LINE) / tall * height), "column": min(int(x % 416 / 416 * width), width - 1)}

    follow_pointer(panel, pick)
    return panel


# --- 07 ---


def film_panel(pairs: Sequence[kitti.Pair], disparities: Sequence, limits: tuple[float, float] | None = None) -> Panel:
    """(07) Slider `frame`: the left picture, its disparity in one colour range for all frames, the street from above.

    `disparities`: one (h, w) of any size per pair; `limits`: the ends of their colours (by default `gif.colour_range`).
    """
    low, high = limits or gif.colour_range(np.stack([np.asarray(disparity) for disparity in disparities]))

    @lru_cache(maxsize=64)
    def draw(frame: int) -> Image.Image:
        picture = data.read_picture(pairs[frame].left)
        camera = pairs[frame].calibration
        small = picture.resize((416, round(416 * picture.height / picture.width)), Image.Resampling.BILINEAR)
        disparity = depth.resize_map(torch.as_tensor(disparities[frame]), (small.height, small.width))
        size = small.height, small.width
        focal, centre = depth.scale_camera(camera.focal_px, camera.centre_px, camera.width, size)
        points = depth.point_cloud(depth.disparity_to_depth(disparity, camera.focal_baseline), focal, centre)
        above = plots.from_above(points, small)
        coloured = Image.fromarray(plots.colour_map(disparity, low, high))
        bar = gif.distance_bar((low, high), camera.focal_baseline, small.width)
        sheet = Image.new("RGB", (small.width + above.width, max(above.height, 2 * small.height + bar.height)), "white")
        for image, x, y in ((small, 0, 0), (coloured, 0, small.height), (bar, 0, 2 * small.height)):
            sheet.paste(image, (x, y))
        sheet.paste(above, (small.width, 0))
        words = f"frame {frame}: {pairs[frame].left.name}\npicture, disparity (bright is near),\nthe street from above"
        place = 8, 2 * small.height + bar.height + 8
        ImageDraw.Draw(sheet).text(place, words, fill="black", font=plots.text_font(TEXT))
        return sheet

    panel = Panel(draw, {"frame": slider(len(pairs) // 2, 0, len(pairs) - 1, "frame")})
    return panel


# --- 07: points in space ---


def point_view(points: torch.Tensor, colours: np.ndarray, furthest: float = 50.0, height: int = 480):
    """(07) A k3d plot of points (H, W, 3) of `depth.point_cloud` with `colours` (H, W, 3), bytes: drag to rotate.

    The first view is from a little behind and above the camera. Points of unknown depth and beyond `furthest` metres
    are left out. A point is twice as wide as its pixel's part of the surface, so a wall ahead has no holes. It works
    without the internet. Raises ImportError when k3d is missing.
    """
    try:
        import k3d
    except ImportError as error:
        raise ImportError(f"the 3-D view needs k3d ({error}): pip install -r requirements.txt") from error
    xyz, rgb = depth.viewer_points(points, colours, furthest)
    spread = np.ptp(xyz[:, 0] / xyz[:, 2]) / max(points.shape[1] - 1, 1)  # 1/f: from one pixel's ray to the next
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    plot = k3d.plot(
        height=height, menu_visibility=False, camera_auto_fit=False, grid_visible=False, camera_mode="orbit"
    )
    plot += k3d.points(xyz, colors=packed, point_sizes=-2 * spread * xyz[:, 2], shader="flat")
    plot.camera = [0, 1.5, 2, 0, -1, -15, 0, 1, 0]  # position, target, up
    return plot


def point_button(
    points: torch.Tensor, colours: np.ndarray, furthest: float = 50.0, label: str = "Open the 3-D view"
) -> ipywidgets.VBox:
    """(00, 07) A button that opens `point_view` below itself after a click, or says what is missing."""
    button = ipywidgets.Button(description=label, layout=ipywidgets.Layout(width="20em"))
    box = ipywidgets.VBox([button])

    def opened(_button) -> None:
        try:
            below: ipywidgets.DOMWidget = point_view(points, colours, furthest)
        except ImportError as error:
            below = ipywidgets.HTML(in_red(str(error)))
        box.children = (button, below)

    button.on_click(opened)
    return box


# --- 01: the rays of two cameras ---


@plots.styled
def rays_panel(width: int = 1242) -> Panel:
    """(01) Two cameras and a point, seen from above, and the point's column in both pictures, `width` px wide.

    Sliders: `baseline` (m), `focal` (px), and the point's position `X` and `Z` (m). The title is x_l - x_r = f·B/Z.
    """
    enlarged = 3 / 1000  # metres per px of f: the image plane is drawn so far ahead; really it is millimetres
    figure = Figure(figsize=(WIDTH / DPI, 3.9), dpi=DPI, layout="constrained")
    above, rows = figure.subplots(2, 1, height_ratios=[2.2, 1])
    above.set(xlim=(-0.8, 20.5), ylim=(2.4, -2.4), xlabel="ahead, Z (m)", ylabel="right, X (m)")
    rows.set(xlim=(-width / 2, width / 2), ylim=(-0.6, 1.6), yticks=[0, 1], yticklabels=["right", "left"])
    rows.set(xlabel="column (px from the principal point)")
    rows.axvline(0, color="grey", linewidth=1, linestyle=":")
    rays, axes, planes, hits, cameras, columns = [], [], [], [], [], []
    for name, colour, style, row in (("left", "tab:blue", "-", 1), ("right", "tab:orange", "--", 0)):
        rows.axhline(row, color="lightgrey", linewidth=12, zorder=0)
        axes += above.plot([], [], ":", color="grey", linewidth=1)
        rays += above.plot([], [], style, color=colour, linewidth=2, label=f"{name} camera's ray")
        planes += above.plot([], [], color="black", linewidth=1.5, label="plane of the pictures" if row else None)
        hits += above.plot([], [], color=colour, linewidth=4 + 6 * (1 - row), solid_capstyle="butt", zorder=2 + row)
        cameras += above.plot([], [], ">", color=colour, markersize=11)
        columns += rows.plot([], [], "o", color=colour, markersize=10)
    (point,) = above.plot([], [], "k*", markersize=15, label="the point")
    (shift,) = rows.plot([], [], color="tab:red", linewidth=4, solid_capstyle="butt")
    title = above.set_title("x")
    above.legend(loc="upper right", fontsize=10)
    moving = [*axes, *rays, *planes, *hits, *cameras, point, *columns, shift, title]
    chart = Chart(figure, moving)

    def draw(baseline: float, focal: float, X: float, Z: float) -> Image.Image:
        plane, found = enlarged * focal, []
        for index, place in enumerate((0.0, baseline)):
            column = focal * (X - place) / Z
            found.append(column)
            rays[index].set_data([0, Z], [place, X])
            axes[index].set_data([0, 20], [place, place])
            planes[index].set_data([plane, plane], [place - width / 2 * enlarged, place + width / 2 * enlarged])
            hits[index].set_data([plane, plane], [place, place + (X - place) * plane / Z])
            cameras[index].set_data([0], [place])
            columns[index].set_data([column], [1 - index])
        point.set_data([Z], [X])
        shift.set_data(found, [0.5, 0.5])
        second = f"{found[1]:.0f}" if found[1] >= 0 else f"({found[1]:.0f})"
        title.set_text(f"x_l - x_r = {found[0]:.0f} - {second} = {found[0] - found[1]:.1f} px = f·B/Z")
        return chart.image()

    sliders = {
        "baseline": slider(0.5, 0.1, 1.0, "B (m)", 0.05),
        "focal": slider(700, 300, 1000, "f (px)", 20.0),
        "X": slider(1.0, -2.0, 2.0, "X (m)", 0.05),
        "Z": slider(10, 5, 20, "Z (m)", 0.5),
    }
    return Panel(draw, sliders)


# --- 00 and 06: two points and the distance between them ----------------------------------------------------------


def uploaded(upload: ipywidgets.FileUpload, otherwise: str | Path, largest: int = 1248) -> Image.Image:
    """(00) The picture given to an upload button, else the file `otherwise`.

    It is reduced so that its longer side has at most `largest` px. Raises ValueError for a file that is not a picture.
    """
    if upload.value:
        given = upload.value[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(given["name"]).name
            path.write_bytes(given["content"])
            picture = data.read_picture(path)
    else:
        picture = data.read_picture(files.project_path(otherwise))
    picture.thumbnail((largest, largest))
    return picture


def measure_panel(picture: Image.Image, metres: np.ndarray | torch.Tensor, focal_px: float, centre_px=None) -> Panel:
    """(00, 06) Two points of a picture (H, W): the depth of each in `metres` (H, W), and how far apart they are.

    A click in either map moves the nearer of A and B, and so do the sliders `a_row`, `a_column`, `b_row`, `b_column`,
    px of the map. `focal_px` and `centre_px` (column, row) of the camera are in px of the map; without a centre, the
    middle of the map is used.
    """
    values = torch.as_tensor(np.array(metres))
    height, width = values.shape
    focal, centre = depth.scale_camera(focal_px, centre_px, width, (height, width))
    points = depth.point_cloud(values, focal, centre)
    scale = WIDTH // 2 / width
    size = WIDTH // 2, round(height * scale)
    far = min(float(values.flatten()[:: max(1, values.numel() // 10000)].quantile(0.9)), depth.MAX_DEPTH)
    distances = Image.fromarray(plots.colour_map(values, 0, far, "magma_r"))
    shown = [view.resize(size, Image.Resampling.BILINEAR) for view in (picture.convert("RGB"), distances)]
    step = next(step for step in (1, 2, 5, 10, 20) if far / step <= 10)
    bar = plots.scale_bar([(z / far, f"{z} m") for z in range(0, int(far) + 1, step)], WIDTH, "depth", "magma_r", 16)

    def marked(image: Image.Image, places: dict[str, tuple[float, float]]) -> Image.Image:
        image = image.copy()
        pen, font = ImageDraw.Draw(image), plots.text_font(TEXT)
        for colour, thick in (("black", 5), ("white", 2)):
            pen.line(list(places.values()), fill=colour, width=thick)
        for name, (x, y) in places.items():
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill="white", outline="black", width=2)
            look: dict[str, Any] = {"fill": "white", "stroke_width": 3, "stroke_fill": "black", "font": font}
            beside = (x + 8, y - 26) if x < image.width - 30 else (x - 26, y - 26)
            pen.text((beside[0], max(beside[1], 0)), name, **look)
        return image

    def draw(a_row: int, a_column: int, b_row: int, b_column: int) -> Image.Image:
        places = {"A": (a_row, a_column), "B": (b_row, b_column)}
        dots = {name: (scale * (column + 0.5), scale * (row + 0.5)) for name, (row, column) in places.items()}
        depths = [f"{name}: {float(values[place]):.1f} m ahead" for name, place in places.items()]
        apart = float((points[places["A"]] - points[places["B"]]).norm())
        words = sentence(",   ".join([*depths, f"from A to B: {apart:.1f} m"]))
        return tiles([marked(image, dots) for image in shown], ["the picture", "depth"], [words, bar])

    panel = Panel(
        draw,
        {
            "a_row": slider(height * 2 // 3, 0, height - 1, "A: row"),
            "a_column": slider(width // 4, 0, width - 1, "A: column"),
            "b_row": slider(height * 2 // 3, 0, height - 1, "B: row"),
            "b_column": slider(width * 3 // 4, 0, width - 1, "B: column"),
        },
    )

    def pick(x: float, y: float) -> dict[str, int] | None:
        column, row = int(x % size[0] / scale), int((y - LINE) / scale)
        if not (0 <= row < height and 0 <= column < width):
            return None
        control = {name: slider.value for name, slider in panel.controls.items()}
        away = {
            name: (control[f"{name}_row"] - row) ** 2 + (control[f"{name}_column"] - column) ** 2 for name in ("a", "b")
        }
        name = min(away, key=lambda one: away[one])
        return {f"{name}_row": row, f"{name}_column": column}

    follow_pointer(panel, pick)
    return panel
