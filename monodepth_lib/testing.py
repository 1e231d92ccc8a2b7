"""Notebook 06: predictions of a trained model, as arrays with names, and their score against true depth.

From the shell: `python -m monodepth_lib.testing --weights unet_sample --data data/sample` prints the table of a model
beside two references, the guess of one that does not look and the answer of one that sees both views.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import depth, kitti
from .data import StereoPairs, pick_device, read_picture, to_device, write_npy_header
from .files import atomic_write
from .memory import kept_memory
from .networks import Monodepth, for_prediction, load_model, weights_path
from .transforms import image_transforms

OPENCV = "opencv-python-headless==5.0.0.93"  # as in pyproject.toml, extra "sgm"
TRAINING_TRUTHS = 200  # about as many are enough for a mean


def post_process(disparity: Tensor, mirrored: Tensor) -> Tensor:
    """Blends a prediction with the un-mirrored one of the mirrored picture (paper, section 4.1), both (N, H, W).

    The right view does not show the left border of the left view, nor what lies just left of a near thing: training
    could not match it, and the prediction there is a guess. In the mirrored picture that is the right side. So the left
    5 % come from the mirrored prediction, the right 5 % from the plain one, and what lies between is their mean, with
    ramps of 5 %.
    """
    width = disparity.shape[-1]
    x = torch.linspace(0, 1, width, device=disparity.device)
    left = 1 - (20 * (x - 0.05)).clamp(0, 1)
    right = left.flip(0)
    return right * disparity + left * mirrored + (1 - left - right) * (disparity + mirrored) / 2


@torch.inference_mode()
def predict_scales(model: torch.nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """`predict` at each of the network's scales, finest first: pairs (plain, post-processed), each (N, h, w)."""
    results = []
    for maps in model(torch.cat([images, images.flip(-1)])):
        plain, mirrored = maps[:, 0].float().chunk(2)
        results.append((plain, post_process(plain, mirrored.flip(-1))))
    return results


def predict(model: Monodepth, images: Tensor) -> tuple[Tensor, Tensor]:
    """Left disparities of images (N, 3, H, W), plain and post-processed, float32 (N, H, W), fractions of the width.

    The picture and its mirror image go through the network as one batch.
    """
    return predict_scales(model, images)[0]


def predict_loader(
    model: Monodepth, loader: DataLoader, output_dir: str | Path, device: str = "auto"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Predicts every picture of a test loader; returns names and both arrays (images, height, width), float32.

    Writes `disparities.npy`, `disparities_pp.npy` (post-processed) and `names.json` (the order of both) to
    `output_dir`, batch by batch, so memory does not grow with the drive; the files of an earlier run are replaced when
    all are whole. Raises ValueError for an empty loader, OSError naming a file that cannot be written.
    """
    if not len(loader.dataset):  # type: ignore[arg-type]
        raise ValueError("there is no picture to predict: name test_drives")
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    paths = [output / file for file in ("names.json", "disparities.npy", "disparities_pp.npy")]
    with contextlib.ExitStack() as stack:
        partial_names, *partial = [stack.enter_context(atomic_write(path)) for path in paths]
        files = [stack.enter_context(open(path, "wb")) for path in partial]
        for seen, *results in predicted_batches(model, loader, device):
            for file, result in zip(files, results, strict=True):
                if not names:
                    shape = (len(loader.dataset), *result.shape[1:])  # type: ignore[arg-type]
                    write_npy_header(file, shape)
                file.write(result.cpu().numpy().tobytes())
            names += seen
        partial_names.write_text(json.dumps(names, indent=0))
    return names, np.load(paths[1], mmap_mode="c"), np.load(paths[2], mmap_mode="c")


def predict_each(
    model: Monodepth, loader: DataLoader, device: str = "auto", post_processed: bool = True
) -> Iterator[Tensor]:
    """The left disparity (h, w) of every picture of a loader, one after the other: nothing is kept, nothing written."""
    for _, plain, processed in predicted_batches(model, loader, device):
        yield from (processed if post_processed else plain).cpu()


def predicted_batches(model: Monodepth, loader: DataLoader, device: str) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Names, plain and post-processed disparities, batch by batch; of `StereoDrives` only the left views are read."""
    target = pick_device(device)
    if type(loader.dataset) is StereoPairs:
        dataset = copy.copy(loader.dataset)
        dataset.left_only = True
        loader = DataLoader(
            dataset,
            batch_sampler=loader.batch_sampler,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
        )
    with kept_memory():
        model = for_prediction(model.to(target)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for batch in loader:
            yield batch["name"], *predict(model, to_device(batch, target)["left_image"])


# --- scores ---------------------------------------------------------------------------------------------------------


def score(
    pairs: Sequence[kitti.Pair],
    disparities: Iterable[np.ndarray | Tensor],
    cap: float = depth.MAX_DEPTH,
    crop: str = "none",
    median_scaling: bool = False,
    by_distance: bool = False,
) -> list[dict]:
    """Metrics for each pair that has true depth, in order: rows with `name` and `depth.METRICS`.

    `disparities` are (h, w) of any size, one a pair; each is resized to its truth and turned into metres with the
    drive's own calibration. `cap`, `crop`, `median_scaling`: see `depth.metrics`. With `by_distance` every row also
    holds `pixels`, how many were measured, and `by_distance`, the list of `depth.metrics_by_distance`.
    """
    rows = []
    for pair, disparity in zip(pairs, disparities, strict=True):
        if pair.truth is None:
            continue
        truth, camera = torch.from_numpy(pair.ground_truth()), pair.calibration
        values = disparity if isinstance(disparity, Tensor) else torch.from_numpy(np.array(disparity))
        resized = depth.resize_map(values, truth.shape)
        predicted = depth.disparity_to_depth(resized, camera.focal_baseline)
        chosen = predicted, truth, camera.focal_baseline, cap, crop, median_scaling
        try:
            row = {"name": pair.name, **depth.metrics(*chosen)}
        except ValueError as error:
            raise ValueError(f"{pair.truth}: {error}") from error
        if by_distance:
            bands = depth.metrics_by_distance(*chosen)
            row |= {"pixels": sum(band["pixels"] for band in bands), "by_distance": bands}
        rows.append(row)
    return rows


class OnDemand(Sequence[Tensor]):
    """One disparity a pair, made anew whenever it is asked for: the maps of a long drive would fill the memory."""

    def __init__(self, pairs: Sequence[kitti.Pair], make: Callable[[kitti.Pair], Tensor]):
        self.pairs, self.make = pairs, make

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.make(self.pairs[index])


# --- two references: one that does not look, one that sees both views -------------------------------------------------


def training_pairs(
    data_dir: str | Path,
    drives: str | list[str] | None,
    test: Sequence[kitti.Pair],
    cameras: kitti.CameraName = "colour",
    truth: kitti.TruthKind = "auto",
) -> list[kitti.Pair]:
    """Pairs with truth of the training side that belongs to the test `drives`, for `baseline`; [] where there is none.

    The side is that of the same split, else the folder train. Drives of `test` are left out, and of many pairs some 200
    are taken, evenly spread.
    """
    split = drives if isinstance(drives, str) and drives in kitti.SPLITS else None
    held_out = {pair.folder.name for pair in test}
    try:
        pairs = kitti.select_pairs(kitti.project_path(data_dir), "train", split, cameras=cameras, truth=truth)
    except FileNotFoundError:
        return []
    known = [pair for pair in pairs if pair.truth and pair.folder.name not in held_out]
    return known[:: max(1, round(len(known) / TRAINING_TRUTHS))]


def baseline(
    pairs: Sequence[kitti.Pair],
    data_dir: str | Path,
    size: tuple[int, int] = (128, 416),
    train: Sequence[kitti.Pair] = (),
) -> tuple[Sequence[Tensor], str]:
    """What one would answer without looking: the per-pixel mean of 1/depth, as disparities, and of what it is.

    From `mean_inverse_depth.npy` of the data's folder (made of training truth) where there is one; else from the truth
    of `train`; else, for each image, from the truth of all other images with truth. The maps are made when they are
    asked for.
    """
    path = kitti.project_path(data_dir) / "mean_inverse_depth.npy"
    known = [pair for pair in pairs if pair.truth is not None]
    if not known:
        return OnDemand(pairs, lambda pair: torch.zeros(size)), "no true depth"

    def part(pair: kitti.Pair) -> Tensor:
        return depth.mean_inverse_depth([torch.from_numpy(pair.ground_truth())], size)

    def of_training(pair: kitti.Pair) -> Tensor:
        return torch.zeros(size) if pair.truth is None else pair.calibration.focal_baseline * inverse

    if path.is_file():
        inverse, source = torch.from_numpy(np.load(path)), "mean of the training truth"
        return OnDemand(pairs, of_training), source
    if train:
        truths = (torch.from_numpy(pair.ground_truth()) for pair in train)
        inverse = depth.fill_rows(depth.mean_inverse_depth(truths, size))
        return OnDemand(pairs, of_training), f"mean of the training truth ({len(train)} images)"

    total, count = torch.zeros(size), torch.zeros(size)
    for pair in known:
        one = part(pair)
        total += one
        count += one > 0

    def of_others(pair: kitti.Pair) -> Tensor:
        if pair.truth is None:
            return torch.zeros(size)
        own = part(pair)
        others = count - (own > 0).float()
        mean = torch.where(others > 0, (total - own) / others.clamp(min=1), 0.0)
        return pair.calibration.focal_baseline * depth.fill_rows(mean)

    source = "mean of the other images' truth" if len(known) > 1 else "80 m everywhere, for want of other truth"
    return OnDemand(pairs, of_others), source


def fill_holes(disparity: np.ndarray) -> np.ndarray:
    """A disparity (H, W) whose pixels <= 0 are holes, filled row by row.

    A hole takes the smaller, further one of its neighbours left and right (most holes lie where a near thing hides the
    background), at the border the only one; a row without any value is that of the nearest row with one.
    """
    valid = disparity > 0
    rows = np.flatnonzero(valid.any(axis=1))
    if not len(rows):
        return disparity
    column = np.arange(disparity.shape[1])
    before = np.maximum.accumulate(np.where(valid, column, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, column, column.size)[:, ::-1], axis=1)[:, ::-1]
    left = np.where(before < 0, np.inf, np.take_along_axis(disparity, before.clip(min=0), axis=1))
    right = np.where(
        after == column.size, np.inf, np.take_along_axis(disparity, after.clip(max=column.size - 1), axis=1)
    )
    filled = np.where(valid, disparity, np.minimum(left, right))
    nearest = rows[np.abs(rows[:, None] - np.arange(len(disparity))).argmin(axis=0)]
    return filled[nearest].astype(disparity.dtype)


def match_views(pair: kitti.Pair) -> Tensor:
    """Left disparity (H, W), a fraction of the width, by semi-global matching of both views (Hirschmüller, 2008).

    What `semi_global_matching` leaves open is filled by `fill_holes`, so that every pixel has an answer. Raises
    ModuleNotFoundError where OpenCV is not installed.
    """
    left, right = (np.asarray(read_picture(path).convert("L")) for path in (pair.left, pair.right))
    if left.shape != right.shape:
        raise ValueError(f"{pair.left} and {pair.right} are not of one size: views must be")
    return torch.from_numpy(fill_holes(semi_global_matching(left, right)) / np.float32(left.shape[1]))


def semi_global_matching(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Left disparity (H, W) in px, 0 where there is none, of two grey uint8 pictures (H, W), up to 15 % of the width.

    OpenCV's StereoSGBM with the left-right check; a match at less than 1 px counts as none. Its settings were chosen
    on scenes of KITTI stereo 2012. Raises ModuleNotFoundError where OpenCV is not installed.
    """
    import cv2

    height, width = left.shape
    furthest, block = 16 * -(-round(0.15 * width) // 16), 5
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=furthest,
        blockSize=block,
        P1=8 * block**2,
        P2=96 * block**2,
        disp12MaxDiff=1,
        preFilterCap=63,
        uniquenessRatio=10,
        speckleWindowSize=round(height * width / 1160),  # 400 px in KITTI's pictures
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    # it leaves out the columns whose search would leave the picture: widen both by the border's pixels
    widened = (cv2.copyMakeBorder(view, 0, 0, furthest, 0, cv2.BORDER_REPLICATE) for view in (left, right))
    pixels = matcher.compute(*widened)[:, furthest:].astype(np.float32) / 16
    return np.where(pixels < 1, 0, pixels)


# --- tables and files -------------------------------------------------------------------------------------------------


def mean_row(rows: list[dict], name: str) -> dict:
    """The mean of every metric over the images' rows. Raises ValueError when there is no row."""
    if not rows:
        raise ValueError(f"{name}: no image has true depth, so there is nothing to average")
    return {"name": name, **{key: float(np.mean([row[key] for row in rows])) for key in depth.METRICS}}


def spread_row(rows: list[dict], name: str) -> dict:
    """The standard deviation of every metric over the images' rows: how much one image differs from another."""
    return {"name": name, **{key: float(np.std([row[key] for row in rows])) for key in depth.METRICS}}


def distance_rows(rows: list[dict], name: str) -> list[dict]:
    """For each band of distance the mean over the images that have pixels in it, with `pixels` and `images`.

    `rows` come from `score(..., by_distance=True)`. A band that no image has pixels in is left out.
    """
    result = []
    for bands in zip(*(row["by_distance"] for row in rows), strict=True):
        seen = [band for band in bands if band["pixels"]]
        if seen:
            where = {"from": bands[0]["from"], "to": bands[0]["to"]}
            counts = {"pixels": sum(band["pixels"] for band in seen), "images": len(seen)}
            result.append({**mean_row(seen, name), **where, **counts})
    return result


def table(rows: list[dict], title: str = "") -> str:
    """Rows as aligned text, three decimals: fit for a notebook, a log and a diff."""
    heads = {"abs_rel": "Abs Rel", "sq_rel": "Sq Rel", "rmse": "RMSE", "rmse_log": "RMSE log", "d1_all": "D1-all"}
    width = max(len(title), *(len(row["name"]) for row in rows))
    lines = [f"{title:<{width}}" + "".join(f"{heads.get(key, key):>10}" for key in depth.METRICS)]
    lines += [f"{row['name']:<{width}}" + "".join(f"{row[key]:>10.3f}" for key in depth.METRICS) for row in rows]
    return "\n".join(lines)


def evaluate(
    pairs: Sequence[kitti.Pair],
    answers: Mapping[str, Iterable[np.ndarray | Tensor]],
    data_dir: str | Path,
    *,
    size: tuple[int, int] = (128, 416),
    cap: float = depth.MAX_DEPTH,
    crop: str = "auto",
    median_scaling: bool = False,
    train: Sequence[kitti.Pair] = (),
) -> dict:
    """Scores every answer and the two references beside it: a report for `report_text` and `write_report`.

    `answers`: name -> disparities, one a pair. `crop` "auto" is Garg's for laser scans, as in published Eigen figures,
    and none for stereo disparity and dense depth. `size` is that of the baseline's map, `train` its truth (`baseline`).
    Raises ValueError when no pair has a truth.
    """
    known = [pair for pair in pairs if pair.truth is not None]
    if not known:
        raise ValueError(f"{data_dir}: no pair has a truth of the kind asked for, so there is nothing to measure")
    kinds = sorted({pair.truth_kind for pair in known})
    if crop == "auto":
        crop = "garg" if kinds in (["scan"], ["scan-x"]) else "none"

    guess, source = baseline(pairs, data_dir, size, train)
    rows_of = {**answers, f"baseline: {source}": guess}
    notes = []
    if len(kinds) > 1:
        notes.append(f"pictures with {' and with '.join(kinds)} are averaged: no published figure is, choose one truth")
    film = [pair for pair in known if len(kitti.frame_key(pair.left)) == 1]  # stereo 2012 and 2015: scene and moment
    if "other images" in source and len({pair.folder for pair in film}) < len(film):
        notes.append(
            "the baseline's other images hold neighbouring frames, nearly the same view: it is a strong one here"
        )
    try:
        import cv2  # noqa: F401

        matched = OnDemand(pairs, lambda pair: torch.zeros(size) if pair.truth is None else match_views(pair))
        rows_of["semi-global matching, sees both views"] = matched
    except ImportError:
        notes.append(f"no row of semi-global matching, which needs OpenCV: pip install {OPENCV}")

    report: dict = {
        "data": str(data_dir),
        "drives": sorted({pair.folder.name for pair in known}),
        "cameras": " and ".join(sorted({pair.cameras for pair in known})),
        "truth": kinds,
        "truth_folders": sorted({pair.truth.parent.name for pair in known if pair.truth}),
        "images": len(known),
        "cap_m": cap,
        "crop": crop,
        "median_scaling": median_scaling,
        "notes": notes,
        "means": [],
        "standard_deviations": [],
        "by_distance": [],
        "per_image": [],
    }
    for name, disparities in rows_of.items():
        shown = f"{name}, median-scaled" if median_scaling else name
        progress = tqdm(disparities, shown, len(pairs), disable=None, leave=False)  # in a terminal only
        rows = score(pairs, progress, cap, crop, median_scaling, by_distance=True)
        mean, spread = mean_row(rows, shown), spread_row(rows, shown)
        if median_scaling:
            ratios = [row["ratio"] for row in rows]
            mean["ratio"], spread["ratio"] = float(np.mean(ratios)), float(np.std(ratios))
        report["means"].append(mean)
        report["standard_deviations"].append(spread)
        report["by_distance"] += distance_rows(rows, shown)
        report["per_image"] += [
            {"answer": shown, **{key: value for key, value in row.items() if key != "by_distance"}} for row in rows
        ]
    return report


def report_text(report: dict) -> str:
    """A report of `evaluate` as text: what was measured and how, means, spread, bands of distance."""
    scaling = "median scaling ON" if report["median_scaling"] else "no median scaling"
    measured = f"{report['data']}: {report['images']} images, {report['cameras']} cameras, truth: "
    measured += f"{' and '.join(report['truth'])}; up to {report['cap_m']:g} m, crop {report['crop']}, {scaling}"
    parts = [measured, table(report["means"], "mean over images")]
    parts.append(table(report["standard_deviations"], "standard deviation over images"))
    if report["median_scaling"]:
        lines = ["each prediction was multiplied by median(truth) / median(prediction), mean ± deviation over images:"]
        for mean, spread in zip(report["means"], report["standard_deviations"], strict=True):
            lines.append(f"  {mean['name']}: {mean['ratio']:.3f} ± {spread['ratio']:.3f}")
        parts.append("\n".join(lines))
    for low, high in dict.fromkeys((band["from"], band["to"]) for band in report["by_distance"]):
        bands = [band for band in report["by_distance"] if (band["from"], band["to"]) == (low, high)]
        counts = f"{bands[0]['pixels']} pixels in {bands[0]['images']} images"
        parts.append(table(bands, f"{low:g} to {high:g} m, {counts}"))
    return "\n\n".join([*parts, *(["\n".join(f"note: {note}" for note in report["notes"])] if report["notes"] else [])])


def write_report(report: dict, output_dir: str | Path) -> tuple[Path, Path]:
    """Writes `metrics.json` (the report) and `metrics.csv` (a line an image and answer, the settings in each line).

    Raises OSError naming the folder when they cannot be written.
    """
    output = Path(output_dir)
    lists = ("drives", "truth_folders", "notes", "means", "standard_deviations", "by_distance", "per_image")
    settings = {key: value for key, value in report.items() if key not in lists}
    settings = {key: " ".join(map(str, v)) if isinstance(v, list | tuple) else v for key, v in settings.items()}
    lines = [{**row, **settings} for row in report["per_image"]]
    paths = output / "metrics.json", output / "metrics.csv"
    try:
        output.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(report, indent=1) + "\n")
        with open(paths[1], "w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    except OSError as error:
        raise OSError(f"{output} could not be written ({error}): free space or choose another output folder") from error
    return paths


# --- the command ------------------------------------------------------------------------------------------------------


def find_test_pairs(
    data_dir: str | Path, drives: str | None, cameras: kitti.CameraName, truth: kitti.TruthKind
) -> list[kitti.Pair]:
    """The pairs of the test side (`kitti.select_pairs`); of a folder that has no side "test", all its drives'."""
    root = kitti.project_path(data_dir)
    if drives is None and not (root / kitti.SPLIT_FOLDERS["test"]).is_dir():
        found = kitti.find_drives(root)
        return [pair for folder in found.values() for pair in kitti.find_pairs(folder, cameras, truth)]
    return kitti.select_pairs(root, "test", drives, cameras=cameras, truth=truth)


def seen_before(model: Monodepth, pairs: Sequence[kitti.Pair]) -> list[str]:
    """What must be said beside figures of `pairs` because of the drives that a model was trained or chosen on."""
    learnt = model.notes.get("train_drives")
    chosen = None if learnt is None else {*learnt, *model.notes.get("val_drives", [])}
    seen = sorted((chosen or set()) & {pair.folder.name for pair in pairs})
    told = [f"the weights were trained or chosen on {', '.join(seen)}: measure them on other drives"] if seen else []
    return [*told, *filter(None, [kitti.test_list_warning(chosen, pairs)])]


def run(options: argparse.Namespace) -> dict:
    """What the command does, given its options: loads, predicts, scores; returns the report."""
    path = weights_path(options.weights)
    model = load_model(path)
    size = tuple(options.size or model.size or (128, 416))
    pairs = find_test_pairs(options.data, options.drives, options.cameras, options.truth)
    known = [pair for pair in pairs if pair.truth is not None]
    loader = DataLoader(StereoPairs(known, image_transforms("test", size)), options.batch_size)
    name = f"{path.stem}, {'post-processed' if options.post_process else 'plain'}"
    report = evaluate(
        known,
        {name: predict_each(model, loader, options.device, options.post_process)},
        options.data,
        size=size,
        cap=options.cap,
        crop=options.crop,
        median_scaling=options.median_scaling,
        train=training_pairs(options.data, options.drives, known, options.cameras, options.truth),
    )
    report["notes"] += seen_before(model, known)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "weights": path.name,
        "sha256": digest,
        "post_processing": options.post_process,
        "size": list(size),
        "split": options.drives or "",
        **report,
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(
        prog="python -m monodepth_lib.testing",
        description="Measures weights against true depth, beside two references; writes metrics.json and metrics.csv.",
    )
    add = parser.add_argument
    add("--weights", required=True, help="a name in models/, or the path of a .safetensors file")
    add("--data", required=True, help="the folder with the drives, or one drive; KITTI stereo 2012 or 2015 is a drive")
    add(
        "--drives",
        "--split",
        help="separated by commas, or lab, eigen-conform, eigen, stereo_2015 (default: folder test)",
    )
    add("--cameras", choices=list(kitti.CAMERAS), default="colour")
    add("--truth", choices=kitti.TRUTHS, default="auto", help="which truth, where a drive has several (default: auto)")
    add(
        "--cap", type=float, default=depth.MAX_DEPTH, metavar="METRES", help="truth beyond it is left out (default: 80)"
    )
    add(
        "--crop",
        choices=["auto", *depth.CROPS],
        default="auto",
        help="the part of the picture that counts; auto: garg for laser scans, else none",
    )
    add("--median-scaling", action="store_true", help="scale each prediction by median(truth) / median(prediction)")
    add("--post-process", action=argparse.BooleanOptionalAction, default=True, help="blend with the mirrored answer")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="the network's picture (default: the weights' own)")
    add("--output", default="output/testing", help="folder of the two files (default: output/testing)")
    add("--batch-size", type=int, default=8)
    add("--device", default="auto", help="auto (the GPU when there is one), cpu, cuda, ...")
    options = parser.parse_args(arguments)

    said: list[str] = []

    def say(message, *_, **__) -> None:
        if str(message) not in said:
            said.append(str(message))

    try:
        with warnings.catch_warnings():
            warnings.showwarning = say
            report = run(options)
        report["notes"] += said
        files = write_report(report, kitti.project_path(options.output))
    except (ValueError, OSError, ModuleNotFoundError, RuntimeError) as error:  # the last: a device that is not there
        print(error, file=sys.stderr)
        return 2
    print(report_text(report))
    print(f"\nevery image is in {files[1]}, the report in {files[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
