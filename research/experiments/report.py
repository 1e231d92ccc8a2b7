"""The page of results: a table of all rows, and where the loss and the depth disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from monodepth_lib import files

from .run import JUDGED_SIZE, read_result
from .sweep import Row

NEAR = 1.3  # rows whose loss and error are below so many times those of the best row are drawn enlarged
METRICS = {"abs_rel": "Abs Rel", "rmse": "RMSE", "a1": "a1", "d1_all": "D1-all"}

INTRODUCTION = f"""\
- Time: the processor's, of all threads together, divided by their number, while batches are made and steps done.
  Measuring does not count, and a busy machine favours no row. Pre-training (`init`) comes on top.
- Loss: the library's MonodepthLoss at {JUDGED_SIZE[0]}x{JUDGED_SIZE[1]} for every row, so that rows can be compared:
  those trained with another loss or size are judged by this one, too. In brackets, the row's rank by it.
- Depth: the figure above is with post-processing, the one below without; sorted by Abs Rel with it. ± is half the range
  of the seeds. Spread over images: the standard deviation of this Abs Rel over the images.
- Moves: whether Abs Rel differs from the row it is like (base, where no other is named) by more than the larger of both
  rows' ranges over the seeds. With few seeds this is a hint, no proof."""

SHIPPED = """
One of them is shipped as [models/unet_kitti](../models/unet_kitti.md), with every measurement made of it. What it says
of eight scenes of stereo_2012, disparity only (bright is near), each from one photograph:

![eight disparity maps](../models/unet_kitti.png)

And of a rendered drive, a kind of picture that KITTI does not have:

![a rendered street and its disparity](../models/unet_kitti.gif)
"""


@dataclass(frozen=True)
class Line:
    """A row of the sweep and the results of its seeds."""

    row: Row
    results: list[dict]

    def values(self, *keys: str) -> np.ndarray:
        found: list = self.results
        for key in keys:
            found = [result[key] for result in found]
        return np.array(found, dtype=float)

    def cell(self, *keys: str) -> str:
        """The seeds' mean ± half their range."""
        values = self.values(*keys)
        return f"{values.mean():.3f}" + (f" ± {np.ptp(values) / 2:.3f}" if len(values) > 1 else "")


def read_lines(rows: Sequence[Row], output: Path) -> list[Line]:
    """The rows with finished runs in `output`, best Abs Rel first. Raises ValueError when a row has changed since."""
    lines = []
    for row in rows:
        recipe, paths = row.recipe.switches(), sorted((output / row.name).glob("seed*/result.json"))
        results = [
            result for path in paths if (result := read_result(path, recipe)) and {"pp", "val_loss"} <= {*result}
        ]
        if results:
            lines.append(Line(row, results))
    return sorted(lines, key=lambda line: line.values("pp", "abs_rel").mean())


def moves(line: Line, lines: Sequence[Line]) -> str:
    """Whether a row's Abs Rel differs from that of the row it is like by more than the seeds' range of either."""
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


def table(lines: Sequence[Line]) -> list[str]:
    """The table, a line of Markdown a row."""
    by_loss = ranks(lines, "val_loss")
    heads = ["row", "what differs", "minutes", "steps", "M parameters", "loss on vals", *METRICS.values()]
    heads += ["spread over images", "moves more than the seeds do"]
    text = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for line in lines:
        row, first = line.row, line.results[0]
        cells = [f"**{row.name}**", (f"as {row.like}, but " if row.like not in ("", "base") else "") + row.differs]
        cells.append(f"{first['steps']} steps" if first["steps"] else f"{first['minutes']:g}")
        cells += [f"{line.values('trained_steps').mean():.0f}", f"{first['parameters'] / 1e6:.1f}"]
        cells.append(f"{line.cell('val_loss')} ({by_loss[row.name]})")
        cells += [f"{line.cell('pp', key)}<br>{line.cell('plain', key)}" for key in METRICS]
        cells += [f"{line.values('spread', 'abs_rel').mean():.3f}", moves(line, lines)]
        text.append(f"| {' | '.join(cells)} |")
    return text


def disagreement(lines: Sequence[Line]) -> str:
    """How often, and in which rows most, the loss says something else than the depth."""
    loss, depth = ranks(lines, "val_loss"), ranks(lines, "pp", "abs_rel")
    pairs = list(combinations(loss, 2))
    crossed = sum((loss[a] - loss[b]) * (depth[a] - depth[b]) < 0 for a, b in pairs)
    furthest = sorted(loss, key=lambda name: -abs(loss[name] - depth[name]))[:3]
    named = [f"{n} (rank {loss[n]} by loss, {depth[n]} by Abs Rel)" for n in furthest if loss[n] != depth[n]]
    apart = f" Furthest apart: {', '.join(named)}." if named else ""
    return f"In {crossed} of {len(pairs)} pairs of rows the one with the lower loss has the worse depth.{apart}"


def scatter(lines: Sequence[Line]) -> Figure:
    """Loss against Abs Rel, a point a row with its seeds' range: all rows, and enlarged those near the best.

    There the names stand in a column, lowest the best; the others' stand beside their points.
    """
    best = lines[0].values("val_loss").mean(), lines[0].values("pp", "abs_rel").mean()
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
            whole.annotate(line.row.name, point, (-5, -4), textcoords="offset points", ha="right", va="top", size=9)
        for axis in (whole, part) if is_near else (whole,):
            axis.errorbar(*point, np.ptp(error) / 2, np.ptp(loss) / 2, fmt="o", color=f"C{place % 10}", markersize=5)
    for place, (name, point) in enumerate(near):
        arrow = dict(arrowstyle="-", color=f"C{place % 10}", linewidth=0.8, alpha=0.6, relpos=(0, 0.5))
        label = 1.04, (place + 0.5) / len(near)
        part.annotate(name, point, label, textcoords=part.transAxes, va="center", size=9, arrowprops=arrow)
    for axis, title in ((whole, "all rows"), (part, f"enlarged: both within {NEAR:g} times the best row's")):
        axis.set(xlabel="loss on vals", ylabel="Abs Rel with post-processing", title=title)
        axis.margins(0.1 if axis is part else 0.25, 0.1)
        axis.grid(alpha=0.3)
    return figure


def write_page(page: Path, text: Sequence[str], figure: Figure) -> None:
    """Writes the lines and, beside them, the picture."""
    with files.atomic_write(page.with_suffix(".png")) as partial:
        figure.savefig(partial, format="png", dpi=100)
    plt.close(figure)
    with files.atomic_write(page) as partial:
        partial.write_text("\n".join(text))


def write_report(rows: Sequence[Row], output: Path, page: Path, command: str) -> str:
    """Writes the page and, beside it, its picture; returns a sentence. Raises ValueError where no run is finished."""
    lines = read_lines(rows, output)
    if not lines:
        raise ValueError(f"{output} holds no finished run of {', '.join(row.name for row in rows)}: sweep first")
    results = [result for line in lines for result in line.results]

    def all_of(*keys: str) -> str:
        """What the runs say under these keys, each different thing once."""
        found: list = results
        for key in keys:
            found = [result[key] for result in found]
        return " and ".join(sorted({", ".join(value) if isinstance(value, list) else str(value) for value in found}))

    equal_time = len({(result["minutes"], result["steps"]) for result in results}) == 1
    missing = [row.name for row in rows if row.name not in {line.row.name for line in lines}]
    text = [
        "# What every design choice is worth\n",
        "Written by a command, so do not edit: `experiments/recipe.py` explains the switches, `experiments/sweep.toml`",
        "holds the rows.\n",
        f"- Command: `{command}`",
        f"- Machine: {all_of('machine', 'processor')}, {all_of('machine', 'cores')} cores, "
        f"{all_of('machine', 'threads')} threads a run, torch {all_of('machine', 'torch')}, "
        f"{all_of('machine', 'date')}, commit {all_of('machine', 'commit')}.",
        f"- Pictures: {all_of('pairs')} {all_of('cameras')} pairs of {all_of('train_drives')}; depth measured on "
        f"{all_of('images')} images of {all_of('test_drives')}. Seeds {all_of('seed')}.",
        INTRODUCTION + ("" if equal_time else "\n- **Rows have not had the same time.**") + "\n",
        *table(lines),
        f"\n{disagreement(lines)} A low loss is not good depth.\n",
        f"![loss against Abs Rel, a point a row]({page.with_suffix('.png').name})\n",
        *([f"Without a finished run: {', '.join(missing)}.\n"] if missing else []),
        *(
            ["[Trainings of hours](LONG.md) in place of minutes.", SHIPPED]
            if (page.parent / "LONG.md").is_file()
            else []
        ),
    ]
    write_page(page, text, scatter(lines))
    return f"{page}: {len(lines)} rows, {len(results)} runs; {len(missing)} rows without a run"
