"""The page `summary.html` of a sweep: a table, curves, and one picture with the disparity of every run."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .. import kitti, plots
from ..checkpoints import read_history
from ..depth import HIGHER_IS_BETTER, METRICS
from ..files import atomic_write, project_path, read_picture

SHOWN = ("abs_rel", "rmse", "a1", "d1_all")  # the metrics in a sweep's table


@dataclass(frozen=True)
class Result:
    """One run to compare: its name, its parameters in the sweep, its folder and its status.json."""

    name: str
    parameters: dict
    folder: Path
    status: dict


def read_metrics(folder: Path) -> list[dict]:
    """The rows of a run's metrics.json, the post-processed one first if there is one; [] without metrics."""
    path = folder / "metrics.json"
    means = json.loads(path.read_text(encoding="utf-8"))["means"] if path.is_file() else []
    return sorted(means, key=lambda row: row["name"] != "post-processed")


def varied(runs: Sequence[Result]) -> list[str]:
    """The parameters that differ between the runs."""
    keys = dict.fromkeys(key for one in runs for key in one.parameters)
    return [key for key in keys if any(one.parameters.get(key) != runs[0].parameters.get(key) for one in runs)]


def compare(runs: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """The heads of a table and a row of text for each run: settings, state, losses, metrics, minutes of training.

    The best value of a column has a star. The last row is the baseline, if it was measured.
    """
    settings = varied(runs)
    numbers: list[dict[str, float]] = []  # of each run, by head
    for one in runs:
        rows = read_history(one.folder / "history.csv") if (one.folder / "history.csv").is_file() else []
        values = {}
        if rows:
            values["epochs"], values["train"] = rows[-1]["epoch"], rows[-1]["train_loss"]
            values["minutes"] = sum(row["seconds"] for row in rows) / 60
            if losses := [row["val_loss"] for row in rows if "val_loss" in row]:
                values["vals, lowest"] = min(losses)
        for row in read_metrics(one.folder)[:1]:
            values |= {METRICS[key]: row[key] for key in SHOWN}
        numbers.append(values)
    highest = {METRICS[key] for key in HIGHER_IS_BETTER}
    heads = ["epochs", "minutes", "train", "vals, lowest", *(METRICS[key] for key in SHOWN)]
    heads = [head for head in heads if any(head in values for values in numbers)]
    best = {}
    for head in set(heads) - {"epochs", "minutes"}:
        there = [values[head] for values in numbers if head in values]
        best[head] = max(there) if head in highest else min(there)

    def text(values: dict, head: str) -> str:
        if head not in values:
            return "–"
        shown = f"{values[head]:.0f}" if head == "epochs" else f"{values[head]:.{1 if head == 'minutes' else 3}f}"
        return shown + (" *" if values[head] == best.get(head) and len(runs) > 1 else "")

    lines: list[list[str]] = []
    for one, values in zip(runs, numbers, strict=True):
        chosen = [str(one.parameters.get(key, "–")) for key in settings]
        lines.append([one.name, *chosen, one.status["state"], *(text(values, head) for head in heads)])
    baselines = [row for one in runs for row in read_metrics(one.folder) if row["name"].startswith("baseline")]
    for row in baselines[:1]:
        values = {METRICS[key]: row[key] for key in SHOWN}
        lines.append([row["name"], *("" for _ in settings), "", *(text(values, head).strip("– *") for head in heads)])
    return ["run", *settings, "state", *heads], lines


def same_picture(runs: Sequence[Result]) -> tuple[list, list[str]]:
    """One test picture and its disparity by every run: images and titles for `plots.grid`, or empty lists."""
    maps: dict[str, dict[str, np.ndarray]] = {}  # run -> picture -> disparity
    for one in runs:
        for folder in (one.folder, one.folder / "test"):  # where notebooks 06 and 05 write them
            with contextlib.suppress(OSError, ValueError, EOFError):  # no file, or one of a run that was killed
                array = np.load(folder / "disparities_pp.npy", mmap_mode="r")
                named = json.loads((folder / "names.json").read_text(encoding="utf-8"))
                maps[one.name] = dict(zip(named, array, strict=False))
                break
    if not maps:
        return [], []
    names = list(next(iter(maps.values())))
    name = names[len(names) // 2]
    pictures: list[Image.Image] = []
    for values in next(one.status["notebooks"] for one in runs if one.name in maps).values():
        with contextlib.suppress(KeyError, OSError, ValueError):  # the data may have moved
            root = project_path(values["data_dir"])
            pairs = kitti.select_pairs(root, "test", values["test_drives"], cameras=values["cameras"], bad_pairs="skip")
            pictures = [read_picture({pair.name: pair.left for pair in pairs}[name])]
    images = [Image.fromarray(np.asarray(found[name])) for found in maps.values() if name in found]
    size = (pictures or images)[0].size  # one size for all networks: fractions of the width do not change
    images = [image.resize(size, Image.Resampling.BILINEAR) for image in images]
    titles = [one for one, found in maps.items() if name in found]
    return [*pictures, *map(np.asarray, images)], [name] * len(pictures) + titles


def picture_tag(image: Image.Image, words: str) -> str:
    """A picture embedded in the page, as HTML."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; margin: 1em 0 }} td, th {{ padding: .25em .8em; border-bottom: 1px solid #ccc }}
td, th {{ white-space: nowrap }} td {{ text-align: right }} td:first-child, th {{ text-align: left }}
.best {{ font-weight: bold }}
img {{ max-width: 100% }}
</style>
<h1>{title}</h1>
{parts}
</html>
"""


Part = str | tuple[list[str], list[list[str]]] | Image.Image  # a paragraph, a table (heads, rows) or a picture


def write_page(path: Path, title: str, parts: Sequence[Part]) -> None:
    """A page of paragraphs (in Markdown), tables and pictures: Markdown if `path` ends in .md, else HTML.

    Markdown has its pictures in files beside it, HTML embeds them; `info["words"]` describes a picture. In HTML, a cell
    that ends in a star is bold. Raises OSError naming a file that cannot be written.
    """
    markdown = path.suffix == ".md"
    text, pictures = [f"# {title}"] if markdown else [], 0
    for part in parts:
        if isinstance(part, Image.Image):
            pictures += 1
            beside = path.with_name(f"{path.stem}{pictures if pictures > 1 else ''}.png")
            if markdown:
                with atomic_write(beside) as partial:
                    part.save(partial, "PNG")
            words = part.info.get("words", "figure")
            text.append(f"![{words}]({beside.name})" if markdown else picture_tag(part, words))
        elif isinstance(part, str):
            text.append(part.strip() if markdown else to_html(part))
        elif markdown:
            text.append("\n".join(f"| {' | '.join(row)} |" for row in [part[0], ["---"] * len(part[0]), *part[1]]))
        else:
            rows = ["".join(f"<th>{html.escape(head)}</th>" for head in part[0])]
            for row in part[1]:
                marks = ((' class="best"' if cell.endswith(" *") else "", html.escape(cell)) for cell in row)
                rows.append("".join(f"<td{mark}>{cell}</td>" for mark, cell in marks))
            text.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
    content = "\n\n".join(text) + "\n"
    with atomic_write(path) as partial:
        page = content if markdown else PAGE.format(title=html.escape(title), parts=content)
        partial.write_text(page, encoding="utf-8")


def to_html(paragraph: str) -> str:
    """A paragraph with **bold** words, or a heading "## ...", as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(paragraph, quote=False))
    return f"<h2>{text[3:]}</h2>" if text.startswith("## ") else f"<p>{text}</p>"


def named(words: str, image: Image.Image) -> Image.Image:
    """The picture with a description for readers who cannot see it."""
    image.info["words"] = words
    return image


def write_summary(runs: Sequence[Result], path: Path) -> None:
    """Writes the page: a table, the reasons of failures, curves, and one picture with the disparity of every run."""
    states = [one.status["state"] for one in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    parts: list[Part] = [
        f"{len(runs)} run{'s' * (len(runs) > 1)}: {counts}.",
        compare(runs),
        "train, vals: the loss of the last epoch, and the lowest one of vals. Abs Rel, RMSE, D1-all: lower is better; "
        "a1: higher. A star marks the best of a column; – means the default, or no value. Runs that differ only in "
        "their seed show how large a difference by chance is.",
        *(f"**{one.name}**: {one.status['said']}" for one in runs if one.status["said"]),
    ]
    histories = {one.name: one.folder / "history.csv" for one in runs}
    if there := {name: read_history(path) for name, path in histories.items() if path.is_file()}:
        parts += ["## Epoch by epoch", named("curves", plots.chart(plots.curves(there)))]
    images, titles = same_picture(runs)
    if images:
        maps = [image for image in images if isinstance(image, np.ndarray)]
        limits = [(0, max(float(np.percentile(image, 99)) for image in maps))] * len(images)
        figure = plots.grid(images, titles, columns=min(len(images), 3), limits=limits)
        parts += ["## One test picture", "Bright is near; all maps have the same range of colours."]
        parts.append(named("disparities", plots.figure_image(figure)))
    write_page(path, path.parent.name, parts)


def table(heads: list[str], lines: list[list[str]]) -> str:
    """The table as aligned text, for the terminal."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return "\n".join(
        "  ".join(x.ljust(n) for x, n in zip(line, widths, strict=True)).rstrip() for line in [heads, *lines]
    )
