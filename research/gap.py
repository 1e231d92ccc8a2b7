"""Where a finished model errs: on pictures that it learnt from and on others, by distance, by the image's scale."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from monodepth_lib import depth, kitti, testing
from monodepth_lib.checkpoints import load_model

from .batch import Pictures
from .hints import prepare_hints
from .train import JUDGED_SIZE, predicted

HEADS = ("pictures", "judged by", "mean error of log d", "D1-all", "spread of the images' scale")


def against_matching(pairs: list[kitti.Pair], maps: list[Tensor], hints: np.ndarray) -> list[str]:
    """The means over the images of |log d - log d*| and D1-all, and the deviation of their median of log d - log d*."""
    rows = []
    for pair, disparity, hint in zip(pairs, maps, torch.from_numpy(hints[:, 0].astype(np.float32)), strict=True):
        known = hint > 0
        apart, off = (disparity / hint)[known].log(), (disparity - hint)[known].abs()
        bad = (off * pair.calibration.width > 3) & (off > 0.05 * hint[known])
        rows.append([float(apart.abs().mean()), float(bad.float().mean()), float(apart.median())])
    error, bad_share, scale = np.array(rows).T
    return [f"{error.mean():.3f}", f"{bad_share.mean():.3f}", f"{100 * scale.std():.1f} %"]


def gap(weights: str, pictures: Pictures, also: str, count: int = 49) -> list[str]:
    """Lines of Markdown: two tables about a model. Takes `count` training pictures, drawn with seed 0.

    Matching judges pictures of both kinds, the truth only those that are kept apart. Raises what `load_model` and
    `prepare_hints` do.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*using KITTI's f and B")
        return tables(weights, pictures, also, count)


def tables(weights: str, pictures: Pictures, also: str, count: int) -> list[str]:
    model = load_model(weights)
    size = model.size or JUDGED_SIZE
    learnt = pictures.pairs("train") + pictures.further(also)
    chosen = np.sort(np.random.default_rng(0).choice(len(learnt), min(count, len(learnt)), replace=False))
    learnt, kept = [learnt[index] for index in chosen], pictures.pairs("test")
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for name, pairs in (("learnt from", learnt), ("kept apart", kept)):
        _, maps = predicted(model, pictures.stored(pairs, size))
        hints = np.load(prepare_hints(pairs, size, pictures.cache_dir), mmap_mode="r")
        row = [f"{len(pairs)} {name}", "semi-global matching", *against_matching(pairs, maps, hints)]
        lines.append(f"| {' | '.join(row)} |")
    rows = testing.score(kept, maps, by_distance=True)
    scaled = testing.score(kept, maps, depth.Protocol(median_scaling=True))
    lines += ["", "| kept apart, judged by the truth | Abs Rel | D1-all |", "|---|---|---|"]
    means = [
        ("all", testing.mean_row(rows, "")),
        ("with the scale of each image put right", testing.mean_row(scaled, "")),
    ]
    means += [(f"{band['from']:g} to {band['to']:g} m", band) for band in testing.distance_rows(rows, "")]
    lines += [f"| {name} | {mean['abs_rel']:.3f} | {mean['d1_all']:.3f} |" for name, mean in means]
    return lines
