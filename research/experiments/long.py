"""The page of trainings of hours: what they reached, beside the paper, and what limits them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from monodepth_lib.networks import load_model

from . import report
from .recipe import Recipe, changed, difference
from .run import JUDGED_SIZE, Pictures, read_result, standard_loss

ALIKE = "stereo_2012"  # training drives whose name begins so are of the kind that vals are
FINISHED = "stereo_2015"  # the folder in a run where `monodepth evaluate` left its report

PAPER = """\
| *the paper's network (VGG)* | 29,000 colour pairs at 256x512 | 25 on a GPU | | 31 | | | | .124 | .303 |
| *its released model, measured in the authors' issue 50* | the same | | | | | | | .117 | .309 |"""

INTRODUCTION = """\
- Depth: all pixels with truth up to 80 m, with post-processing, no median scaling; ± is the standard deviation over
  images. stereo_2012 chose the recipes; stereo_2015 was measured once, when a run was finished (and what is
  shipped again, as it is stored: its card has these measurements).
- The paper's two lines are of all 200 scenes of stereo 2015, non-occluded truth, no post-processing, by networks that
  learnt from colour pictures; ours of {images} of these scenes, with the truth of all pixels and post-processing, by
  networks that learnt KITTI from {cameras} pictures.
- Hours: the processor's time, of all threads together, divided by their number, while batches are made and steps done.
  What a run began from (`init`) comes on top.
- Loss: the library's MonodepthLoss at {size} of pairs that were trained on ({alike}) and of vals, which were not.
  More pairs would close what lies between these two; what still falls where the curves end, more time would lower.
- Curves begin where a run was first measured, and jump where its pictures grow (`small_until`): the network has yet
  to learn the new size."""


@dataclass(frozen=True)
class Run:
    """A finished run, the training drives most like vals, its loss on them, and its report on stereo 2015, if any."""

    result: dict
    alike: list[str]
    train_loss: float
    report: dict | None

    @property
    def name(self) -> str:
        return f"{self.result['row']}, seed {self.result['seed']}"

    def cells(self) -> list[str]:
        result = self.result
        recipe = changed(Recipe(), {key: result[key] for key in Recipe().switches()}, result["row"])
        cells = [f"**{self.name}**", difference(recipe, Recipe()), f"{result['trained_minutes'] / 60:.2f}"]
        cells += [str(result["trained_steps"]), f"{result['parameters'] / 1e6:.1f}"]
        cells.append(f"{self.train_loss:.3f}, {result['val_loss']:.3f}")
        cells += [f"{result['pp'][key]:.3f} ± {result['spread'][key]:.3f}" for key in ("abs_rel", "d1_all")]
        if self.report is None:
            return [*cells, "not measured", "not measured"]
        mean, spread = self.report["means"][0], self.report["standard_deviations"][0]
        return [*cells, *(f"{mean[key]:.3f} ± {spread[key]:.3f}" for key in ("abs_rel", "d1_all"))]


def read_run(folder: Path, pictures: Pictures) -> Run:
    """Raises ValueError where the run is not finished, or was trained without measuring loss and depth."""
    result = read_result(folder / "result.json", {})
    if result is None or not {"pp", "val_loss"} <= {*result}:
        raise ValueError(f"{folder} holds no finished run with loss and depth: go on with the `train` that began it")
    pictures = replace(pictures, cameras=result["cameras"])
    alike = [name for name in result["train_drives"] if name.startswith(ALIKE)] or result["train_drives"]
    as_they_are = "val"  # in order, all of them, not augmented
    loaders = (pictures.loader(as_they_are, tuple(size), drives=alike) for size in (result["size"], JUDGED_SIZE))
    loss = standard_loss(load_model(folder / "weights.safetensors"), *loaders)
    measured = folder / FINISHED / "metrics.json"
    return Run(result, alike, loss, json.loads(measured.read_text()) if measured.is_file() else None)


def curves(runs: Sequence[Run]) -> Figure:
    """Loss on vals, Abs Rel and D1-all on the way."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, name in zip(axes, ("loss on vals", "Abs Rel, stereo_2012", "D1-all, stereo_2012"), strict=True):
        axis.set(xlabel="minutes", title=name)
        axis.grid(alpha=0.3)
    for run in runs:
        points = [*run.result["history"], {**run.result, "minutes": run.result["trained_minutes"]}]
        minutes = [point["minutes"] for point in points]
        axes[0].plot(minutes, [point["val_loss"] for point in points], label=run.name)
        for axis, key in zip(axes[1:], ("abs_rel", "d1_all"), strict=True):
            axis.plot(minutes, [point["pp"][key] for point in points], label=run.name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    return figure


def write_long(folders: Sequence[Path], pictures: Pictures, page: Path, command: str) -> str:
    """Writes the page and, beside it, its picture; returns a sentence."""
    runs = [read_run(folder, pictures) for folder in folders]
    heads = ["run", "what differs from the defaults", "hours", "steps", "M parameters", "loss: trained on, vals"]
    heads += [f"{where}, {metric}" for where in ("stereo_2012", "stereo_2015") for metric in ("Abs Rel", "D1-all")]
    machines = sorted({"{processor}, {threads} threads, torch {torch}, {date}, commit {commit}".format(
        **run.result["machine"]) for run in runs})  # fmt: skip
    text = [
        "# Trainings of hours, beside the paper\n",
        "Written by a command, so do not edit. Recipes: `experiments/recipe.py` explains the switches.\n",
        f"- Command: `{command}`",
        f"- Machine: {'; '.join(machines)}.",
        INTRODUCTION.format(
            size=f"{JUDGED_SIZE[0]}x{JUDGED_SIZE[1]}",
            images=" or ".join(sorted({str(run.report["images"]) for run in runs if run.report})) or "some",
            cameras=" or ".join(sorted({run.result["cameras"] for run in runs})),
            alike=", ".join(sorted({name for run in runs for name in run.alike})),
        )
        + "\n",
        f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}",
        *(f"| {' | '.join(run.cells())} |" for run in runs),
        PAPER,
        f"\n![loss and depth over the minutes]({page.with_suffix('.png').name})\n",
    ]
    if (page.parent / "../models/unet_kitti.md").is_file():
        text.append(report.SHIPPED)
    report.write_page(page, text, curves(runs))
    return f"{page}: {len(runs)} runs"
