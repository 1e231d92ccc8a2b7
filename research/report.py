"""The page of a sweep: a table of all rows, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from monodepth_lib.commands.summary import Part, write_page
from monodepth_lib.depth import METRICS
from monodepth_lib.plots import figure_image

from .recipe import Row, Sweep
from .train import JUDGED_SIZE, read_result

NEAR = 1.3  # rows whose loss and error are below this many times the best row's are in the enlarged chart
KEYS = ("abs_rel", "rmse", "a1", "d1_all")

EXPLANATION = f"""\
- Time: the processor's, of all threads together, divided by their number, while batches are made and steps done.
  Measuring does not count, and a busy machine favours no row. What a row begins from (`init`, `imagenet`) comes on top.
- Loss: the library's MonodepthLoss at {JUDGED_SIZE[0]}x{JUDGED_SIZE[1]} for every row, so that rows can be compared;
  in brackets the row's rank by it.
- Depth: all pixels with truth (stereo 2012: those not occluded) up to 80 m, no median scaling; the figure above is with
  post-processing, the one below without. Sorted by Abs Rel with it. ± is half the range of the seeds; spread over
  images is the standard deviation of this Abs Rel over the images.
- Moves: whether Abs Rel differs from that of the row it is like (base, where no other is named) by more than the larger
  of both rows' ranges over the seeds. With few seeds this is a hint, no proof."""


@dataclass(frozen=True)
class Line:
    """A row of the sweep, and the results of its seeds."""

    row: Row
    results: list[dict]

    def values(self, *keys: str) -> np.ndarray:
        found: list = self.results
        for key in keys:
            found = [result[key] for result in found]
        return np.array(found, dtype=float)

    @property
    def error(self) -> float:
        return float(self.values("pp", "abs_rel").mean())

    @property
    def pairs(self) -> int:
        return self.results[0]["used_pairs"]

    @property
    def label(self) -> str:
        return self.row.name.rsplit("_", 1)[0]


def cell(values: np.ndarray) -> str:
    """The seeds' mean ± half their range."""
    return f"{values.mean():.3f}" + (f" ± {np.ptp(values) / 2:.3f}" if len(values) > 1 else "")


def read_lines(rows: Sequence[Row], output: Path) -> list[Line]:
    """The rows with finished runs in `output`, best Abs Rel first. Raises ValueError for a row that has changed."""
    lines = []
    for row in rows:
        expected, paths = row.recipe.switches(), sorted((output / row.name).glob("seed*/result.json"))
        found = [result for path in paths if (result := read_result(path, expected)) and "pp" in result]
        if found:
            lines.append(Line(row, found))
    return sorted(lines, key=lambda line: line.error)


def moves(line: Line, lines: Sequence[Line]) -> str:
    """Whether Abs Rel differs from that of the row it is like by more than the larger range over the seeds."""
    other = next((candidate for candidate in lines if candidate.row.name == line.row.like), None)
    if other is None:
        return ""
    mine, theirs = line.values("pp", "abs_rel"), other.values("pp", "abs_rel")
    if min(len(mine), len(theirs)) < 2:
        return "one seed"
    change = mine.mean() - theirs.mean()
    if abs(change) <= max(np.ptp(mine), np.ptp(theirs)):
        return "no"
    return f"**{'worse' if change > 0 else 'better'}** by {abs(change):.3f}"


def ranks(lines: Sequence[Line], *keys: str) -> dict[str, int]:
    """1 for the row with the smallest mean, and so on."""
    ordered = sorted(lines, key=lambda line: line.values(*keys).mean())
    return {line.row.name: place for place, line in enumerate(ordered, 1)}


def table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Heads, and the cells of every row."""
    judged = [line for line in lines if all("val_loss" in result for result in line.results)]
    by_loss = ranks(judged, "val_loss")
    heads = ["row", "what differs", "minutes", "pairs", "steps", "M parameters", "loss on vals"]
    heads += [*(METRICS[key] for key in KEYS), "spread over images", "moves more than the seeds do"]
    cells = []
    for line in lines:
        row, first = line.row, line.results[0]
        texts = [f"**{row.name}**", (f"as {row.like}, but " if row.like not in ("", "base") else "") + row.differs]
        texts += [f"{line.values('trained_minutes').mean():.3g}", str(line.pairs)]
        texts += [f"{line.values('trained_steps').mean():.0f}", f"{first['parameters'] / 1e6:.1f}"]
        texts.append(f"{cell(line.values('val_loss'))} ({by_loss[row.name]})" if line in judged else "")
        texts += [f"{cell(line.values('pp', key))}<br>{cell(line.values('plain', key))}" for key in KEYS]
        texts += [f"{line.values('spread', 'abs_rel').mean():.3f}", moves(line, lines)]
        cells.append(texts)
    return heads, cells


def disagreement(lines: Sequence[Line]) -> str:
    """How often the loss and Abs Rel rank two rows differently, and the rows with the largest difference."""
    loss, depth = ranks(lines, "val_loss"), ranks(lines, "pp", "abs_rel")
    pairs = list(combinations(loss, 2))
    crossed = sum((loss[a] - loss[b]) * (depth[a] - depth[b]) < 0 for a, b in pairs)
    furthest = sorted(loss, key=lambda name: -abs(loss[name] - depth[name]))[:3]
    named = [f"{n} (rank {loss[n]} by loss, {depth[n]} by Abs Rel)" for n in furthest if loss[n] != depth[n]]
    apart = f" Furthest apart: {', '.join(named)}." if named else ""
    said = f"In {crossed} of {len(pairs)} pairs of rows the one with the lower loss has the worse depth.{apart}"
    return said + " A low loss is not good depth." * bool(crossed)


# --- figures --------------------------------------------------------------------------------------------------------


def scatter(lines: Sequence[Line]) -> Figure:
    """Loss against Abs Rel, one point per row with the range of its seeds: all rows, and enlarged those near the best.

    In the enlarged chart the names stand in a column, the best one lowest; in the other one beside their points.
    """
    best = lines[0].values("val_loss").mean(), lines[0].error
    figure, (whole, part) = plt.subplots(
        1, 2, figsize=(12, max(4.0, 0.24 * len(lines) + 1)), layout="constrained", width_ratios=(2, 3)
    )
    near = []
    for place, line in enumerate(lines):
        loss, error = line.values("val_loss"), line.values("pp", "abs_rel")
        point = loss.mean(), error.mean()
        if is_near := point[0] < NEAR * best[0] and point[1] < NEAR * best[1]:
            near.append((line.row.name, point))
        else:
            whole.annotate(line.row.name, point, (-5, 4), textcoords="offset points", ha="right", va="bottom", size=9)
        for axis in (whole, part) if is_near else (whole,):
            axis.errorbar(*point, np.ptp(error) / 2, np.ptp(loss) / 2, fmt="o", color=f"C{place % 10}", markersize=5)
    for place, (name, point) in enumerate(near):
        arrow = dict(arrowstyle="-", color=f"C{place % 10}", linewidth=0.8, alpha=0.6, relpos=(0, 0.5))
        label = 1.04, (place + 0.5) / len(near)
        part.annotate(name, point, label, textcoords=part.transAxes, va="center", size=9, arrowprops=arrow)
    for axis, title in ((whole, "all rows"), (part, f"enlarged: both within {NEAR:g} times the best row's")):
        axis.set(xlabel="loss on vals", ylabel="Abs Rel with post-processing", title=title)
        axis.margins(0.1 if axis is part else 0.25, 0.1)
    return figure


def over_minutes(lines: Sequence[Line]) -> Figure:
    """Abs Rel and D1-all over the minutes of training, one curve per run."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, key in zip(axes, ("abs_rel", "d1_all"), strict=True):
        axis.set(xlabel="minutes", title=METRICS[key])
        for color, line in enumerate(lines):
            for result in line.results:
                points = [*result["history"], {**result, "minutes": result["trained_minutes"]}]
                x, y = zip(*((point["minutes"], point["pp"][key]) for point in points), strict=True)
                label = line.row.name if result is line.results[0] else None
                axis.plot(x, y, ".-", color=f"C{color % 10}", label=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def over_pairs(lines: Sequence[Line]) -> Figure:
    """Abs Rel and D1-all over the number of pairs, one curve for rows whose names differ only in the last part.

    A row trained on no pair is a horizontal line, in the colour of the curve whose label it has.
    """
    colours = {label: f"C{place}" for place, label in enumerate(sorted({line.label for line in lines if line.pairs}))}
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, key in zip(axes, ("abs_rel", "d1_all"), strict=True):
        axis.set(xlabel="pairs", title=METRICS[key], xscale="log")
        for line in lines:
            if not line.pairs:
                colour = colours.get(line.label, "grey")
                axis.axhline(line.values("pp", key).mean(), color=colour, linestyle="--", label=line.row.name)
        for label, colour in colours.items():
            curve = sorted((line for line in lines if line.pairs and line.label == label), key=lambda line: line.pairs)
            values = [line.values("pp", key) for line in curve]
            half = [np.ptp(one) / 2 for one in values]
            pairs = [line.pairs for line in curve]
            axis.errorbar(pairs, [one.mean() for one in values], half, fmt=".-", capsize=3, color=colour, label=label)
        ticks = sorted({line.pairs for line in lines if line.pairs})
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.legend()
    return figure


# --- the page -------------------------------------------------------------------------------------------------------


def write_report(sweep: Sweep, output: Path, page: Path, command: str) -> str:
    """Writes the page and, beside it, its picture; returns a sentence. Raises ValueError when no run is finished."""
    rows = [*sweep.rows.values()]
    lines = read_lines(rows, output)
    if not lines:
        raise ValueError(
            f"{output} holds no finished run with a test side, of {', '.join(row.name for row in rows)}: sweep first"
        )
    results = [result for line in lines for result in line.results]

    def all_of(*keys: str) -> str:
        """The values of all runs under these keys, each one once."""
        found: list = results
        for key in keys:
            found = [result[key] for result in found]
        return " and ".join(sorted({", ".join(value) if isinstance(value, list) else str(value) for value in found}))

    missing = [row.name for row in rows if row.name not in {line.row.name for line in lines}]
    folders = sorted({line.row.recipe.also for line in lines} - {""})
    also = f", and colour pairs of the folder {' and '.join(folders)}" if folders else ""
    parts: list[Part] = [
        "Written by a command, so do not edit. `research/recipe.py` explains the switches, `research/recipes.toml` "
        f"holds the rows, in [{sweep.name}].",
        *([sweep.text] if sweep.text else []),
        f"""\
- Command: `{command}`
- Machine: {all_of("machine", "processor")}, {all_of("machine", "cores")} cores, {all_of("machine", "threads")} threads
  a run, torch {all_of("machine", "torch")}, {all_of("machine", "date")}, commit {all_of("machine", "commit")}.
- Pictures: {all_of("cameras")} pairs of {all_of("train_drives")}{also}; depth measured on {all_of("images")} images of
  {all_of("test_drives")}. Seeds {all_of("seed")}.
{EXPLANATION}""",
        table(lines),
    ]
    if len({line.row.recipe.pairs for line in lines}) > 1:
        parts += ["Error over the number of pairs:", drawn(over_pairs(lines))]
    elif any(result["history"] for result in results):
        parts += ["Error over the minutes:", drawn(over_minutes(lines))]
    elif all("val_loss" in result for result in results):
        parts += [disagreement(lines)] * (len(lines) > 1) + [drawn(scatter(lines))]
    if missing:
        parts.append(f"Without a result in this folder: {', '.join(missing)}.")
    if len(results) < (planned := len(rows) * len(sweep.seeds)):
        parts.append(f"{len(results)} of {planned} results are in this folder; a figure without ± is of one seed.")
    write_page(page, sweep.title, parts)
    return f"{page}: {len(lines)} rows, {len(results)} runs; {len(missing)} rows without a run"


def drawn(figure: Figure) -> Image.Image:
    """The figure, with a grid, as a picture."""
    for axis in figure.axes:
        axis.grid(alpha=0.3)
    return figure_image(figure)
