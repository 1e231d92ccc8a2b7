"""Notebook 06: predictions of a trained model, and their scores against ground truth beside two references.

From the shell: `monodepth evaluate --weights unet_sample --data data/sample`.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import depth, kitti, stereo
from .calibration import nearest_file
from .depth import Protocol
from .devices import pick_device, to_device
from .fast import faster_prediction
from .files import atomic_write, write_npy_header
from .networks import Monodepth
from .report import Report

REFERENCE_IMAGES = 200  # enough for a stable mean


# --- prediction -------------------------------------------------------------------------------------------------------


def left_ramp(width: int, device: torch.device | None = None) -> Tensor:
    """1 in the left 5 % of the columns, then a ramp down to 0 over 5 %: (width,)."""
    x = torch.linspace(0, 1, width, device=device)
    return 1 - (20 * (x - 0.05)).clamp(0, 1)


def post_process(disparity: Tensor, mirrored: Tensor) -> Tensor:
    """Blends two predictions (N, H, W): of the picture, and of its mirror image, mirrored back (paper, section 4.1).

    The right view does not show the left border of the left view, nor the strip just left of a near object. Training
    could not match these pixels, so their prediction is a guess. In the mirrored picture, the guesses are on the right.
    So the left 5 % come from `mirrored`, the right 5 % from `disparity`, and the rest is their mean, with ramps of 5 %
    between them.
    """
    left = left_ramp(disparity.shape[-1], disparity.device)
    right = left.flip(0)
    return right * disparity + left * mirrored + (1 - left - right) * (disparity + mirrored) / 2


@torch.inference_mode()
def predict(model: Monodepth, images: Tensor, scale: int = 0) -> tuple[Tensor, Tensor]:
    """Left disparities of images (N, 3, H, W), plain and post-processed, float32 (N, h, w), fractions of the width.

    The picture and its mirror image go through the network as one batch. `scale` picks the output: 0 (full size) to 3.
    """
    maps = model(torch.cat([images, images.flip(-1)]))[scale]
    plain, mirrored = maps[:, 0].float().chunk(2)
    return plain, post_process(plain, mirrored.flip(-1))


def predict_loader(
    model: Monodepth, loader: DataLoader, device: str = "auto", fast: bool = True
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Names, plain and post-processed disparities (N, h, w) of a test loader, batch by batch, on the CPU.

    The given model is not changed or moved. `fast=False` runs the plain network (see `fast.py`).
    """
    target = pick_device(device)
    network = faster_prediction(model) if fast else copy.deepcopy(model).eval()
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for batch in loader:
        plain, post_processed = predict(network, to_device(batch, target)["left_image"])
        yield batch["name"], plain.cpu(), post_processed.cpu()


def save_predictions(
    batches: Iterable[tuple[list[str], Tensor, Tensor]], count: int, output_dir: str | Path
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Writes what `predict_loader` yields; returns names and both arrays (count, h, w), float32, memory-mapped.

    The files are `disparities.npy`, `disparities_pp.npy` (post-processed) and `names.json` (the order of both). They
    are written batch by batch, so memory does not grow with the drive. They replace the files of an earlier run only
    when all are complete. Raises ValueError for a `count` of 0, OSError naming a file that cannot be written.
    """
    if not count:
        raise ValueError("there is no picture to predict: name test_drives")
    output = Path(output_dir)
    names: list[str] = []
    paths = [output / file for file in ("names.json", "disparities.npy", "disparities_pp.npy")]
    with contextlib.ExitStack() as stack:
        partial_names, *partial = [stack.enter_context(atomic_write(path)) for path in paths]
        files = [stack.enter_context(open(path, "wb")) for path in partial]
        for seen, *results in batches:
            for file, result in zip(files, results, strict=True):
                if not names:
                    write_npy_header(file, (count, *result.shape[1:]))
                file.write(result.numpy().tobytes())
            names += seen
        partial_names.write_text(json.dumps(names, indent=0, ensure_ascii=False), encoding="utf-8")
    return names, np.load(paths[1], mmap_mode="c"), np.load(paths[2], mmap_mode="c")


# --- scores -----------------------------------------------------------------------------------------------------------


def usual_protocol(pairs: Sequence[kitti.Pair], crop: str = "auto", **others) -> Protocol:
    """A `Protocol`. Crop "auto" means Garg's crop for laser scans, as in published Eigen figures, and else no crop."""
    if crop == "auto":
        kinds = {pair.truth_kind for pair in pairs if pair.truth}
        crop = "garg" if kinds in ({"scan"}, {"scan-x"}) else "none"
    return Protocol(crop=crop, **others)


def to_measure(pairs: Sequence[kitti.Pair]) -> list[int]:
    """The places of the pairs that have ground truth. When none has it, all places: predictions can still be shown."""
    return [index for index, pair in enumerate(pairs) if pair.truth] or list(range(len(pairs)))


def truth_or(pair: kitti.Pair, other: Tensor) -> Tensor:
    """The pair's true depth in metres (H, W), 0 = unknown; `other` when the pair has no ground truth."""
    return torch.from_numpy(pair.ground_truth()) if pair.truth else other


def as_map(values: np.ndarray | Tensor) -> Tensor:
    """The values as a tensor; an array, also a memory-mapped one, is copied."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def score(
    pairs: Sequence[kitti.Pair],
    disparities: Iterable[np.ndarray | Tensor],
    protocol: Protocol = Protocol(),  # noqa: B008  (it is frozen)
    by_distance: bool = False,
) -> list[dict]:
    """Metrics for each pair that has ground truth, in order: rows with `name` and `depth.METRICS`.

    `disparities`: one (h, w) of any size per pair. Each is resized to its truth and turned into metres with the pair's
    own calibration. With `by_distance`, every row also holds `pixels`, the number of valid pixels, and `by_distance`,
    the list of `depth.metrics_by_distance`. Raises ValueError naming a truth file without a valid pixel.
    """
    rows = []
    for pair, disparity in zip(pairs, disparities, strict=True):
        if pair.truth is None:
            continue
        truth, focal_baseline = torch.from_numpy(pair.ground_truth()), pair.calibration.focal_baseline
        predicted = depth.disparity_to_depth(depth.resize_map(as_map(disparity), truth.shape), focal_baseline)
        try:
            row = {"name": pair.name, **depth.metrics(predicted, truth, focal_baseline, protocol)}
        except ValueError as error:
            raise ValueError(f"{pair.truth}: {error}") from error
        if by_distance:
            bands = depth.metrics_by_distance(predicted, truth, focal_baseline, protocol)
            row |= {"pixels": sum(band["pixels"] for band in bands), "by_distance": bands}
        rows.append(row)
    return rows


def mean_row(rows: list[dict], name: str, average: Callable = np.mean) -> dict:
    """The mean (or another `average`) of every metric over the images' rows. Raises ValueError when there is no row."""
    if not rows:
        raise ValueError(f"{name}: no image has true depth, so there is nothing to average")
    keys = [*depth.METRICS, *(["ratio"] if "ratio" in rows[0] else [])]
    return {"name": name, **{key: float(average([row[key] for row in rows])) for key in keys}}


def distance_rows(rows: list[dict], name: str) -> list[dict]:
    """For each band of distance, the mean over the images with pixels in it, and the counts `pixels` and `images`.

    `rows` come from `score(..., by_distance=True)`. A band without pixels in any image is left out.
    """
    result = []
    for bands in zip(*(row["by_distance"] for row in rows), strict=True):
        if seen := [band for band in bands if band["pixels"]]:
            counts = {"pixels": sum(band["pixels"] for band in seen), "images": len(seen)}
            result.append({**mean_row(seen, name), "from": bands[0]["from"], "to": bands[0]["to"], **counts})
    return result


# --- the reference that does not look at the picture ------------------------------------------------------------------


class OnDemand(Sequence[Tensor]):
    """One disparity per pair, computed at each access: the maps of a long drive would not fit in memory."""

    def __init__(self, pairs: Sequence[kitti.Pair], make: Callable[[kitti.Pair], Tensor]):
        self.pairs, self.make = pairs, make

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.make(self.pairs[index])


def mean_depth_reference(
    pairs: Sequence[kitti.Pair], train: Sequence[kitti.Pair] = (), size: tuple[int, int] = (128, 416)
) -> tuple[Sequence[Tensor], str]:
    """A baseline that does not look at the picture: the per-pixel mean of 1/depth as disparities, and its source.

    The mean comes from `mean_inverse_depth.npy` (of training truth) in the drive or a folder above it, else from the
    truth of `train`, else, for each image, from the truth of all other images. Maps are computed at each access.
    """
    known = [pair for pair in pairs if pair.truth]
    if not known:
        return OnDemand(pairs, lambda pair: torch.zeros(size)), "no true depth"

    def inverse_depth(chosen: Sequence[kitti.Pair]) -> Tensor:
        return depth.mean_inverse_depth((torch.from_numpy(pair.ground_truth()) for pair in chosen), size)

    stored = nearest_file(known[0].folder, ["mean_inverse_depth.npy"])
    held_out = {pair.folder.name for pair in known}
    learnt = [pair for pair in train if pair.truth and pair.folder.name not in held_out]
    learnt = learnt[:: max(1, round(len(learnt) / REFERENCE_IMAGES))]
    if stored or learnt:
        source = "mean of the training truth"
        if stored:
            try:
                inverse = torch.from_numpy(np.load(stored))
            except (ValueError, EOFError, TypeError) as error:
                raise ValueError(f"{stored} cannot be read ({error}): restore or remove it") from error
        else:
            inverse, source = depth.fill_rows(inverse_depth(learnt)), f"{source} ({len(learnt)} images)"
        return OnDemand(
            pairs, lambda p: p.calibration.focal_baseline * inverse if p.truth else torch.zeros(size)
        ), source

    total, count = torch.zeros(size), torch.zeros(size)
    for pair in known:
        one = inverse_depth([pair])
        total += one
        count += one > 0

    def of_others(pair: kitti.Pair) -> Tensor:
        if pair.truth is None:
            return torch.zeros(size)
        own = inverse_depth([pair])
        others = count - (own > 0).float()
        mean = torch.where(others > 0, (total - own) / others.clamp(min=1), 0.0)
        return pair.calibration.focal_baseline * depth.fill_rows(mean)

    source = "mean of the other images' truth" if len(known) > 1 else "80 m everywhere, for want of other truth"
    return OnDemand(pairs, of_others), source


# --- the report -------------------------------------------------------------------------------------------------------


def evaluate(
    answers: Mapping[str, Iterable[np.ndarray | Tensor]],
    pairs: Sequence[kitti.Pair],
    protocol: Protocol | None = None,
    *,
    train: Sequence[kitti.Pair] = (),
    size: tuple[int, int] = (128, 416),
    model: Monodepth | None = None,
    missing_ok: bool = False,
) -> Report:
    """Scores every answer and two references: one does not look at the picture, the other one sees both views.

    `answers`: name -> disparities, one per pair. `protocol` None means `usual_protocol`. `train`: pairs whose ground
    truth makes the first reference, at `size` (`mean_depth_reference`). With the `model` of the answers, the report
    notes which of these drives the model was trained on. When no pair has ground truth, raises ValueError, or, with
    `missing_ok`, returns an empty report, whose text says so.
    """
    known = [pair for pair in pairs if pair.truth]
    if missing_ok and not known:
        return Report(protocol or usual_protocol(pairs), [], [], [], [], 0)
    if not known:
        raise ValueError("no pair has a truth of the kind asked for, so there is nothing to measure")
    protocol = protocol or usual_protocol(pairs)
    kinds = sorted({pair.truth_kind for pair in known})
    report = Report(
        protocol,
        drives=sorted({pair.folder.name for pair in known}),
        cameras=sorted({pair.cameras for pair in known}),
        truth=kinds,
        truth_folders=sorted({pair.truth.parent.name for pair in known if pair.truth}),
        images=len(known),
    )
    reference, source = mean_depth_reference(pairs, train, size)
    rows_of: dict[str, Iterable] = {**answers, f"baseline: {source}": reference}
    if stereo.has_opencv():
        matched = OnDemand(pairs, lambda pair: stereo.match_views(pair) if pair.truth else torch.zeros(size))
        rows_of["semi-global matching, sees both views"] = matched
    else:
        report.notes.append(f"no row of semi-global matching, which needs OpenCV: pip install {stereo.OPENCV}")
    if len(kinds) > 1:
        said = f"pictures with {' and with '.join(kinds)} are averaged, as in no published figure: choose one truth"
        report.notes.insert(0, said)
    film = [pair for pair in known if len(kitti.frame_key(pair.left)) == 1]  # stereo 2012 and 2015: scene and moment
    if "other images" in source and len({pair.folder for pair in film}) < len(film):
        said = "the baseline averages neighbouring frames of nearly the same view, so it is unusually strong here"
        report.notes.append(said)

    for name, disparities in rows_of.items():
        shown = f"{name}, median-scaled" if protocol.median_scaling else name
        progress = tqdm(disparities, shown, len(pairs), disable=None, leave=False)  # in a terminal only
        rows = score(pairs, progress, protocol, by_distance=True)
        report.means.append(mean_row(rows, shown))
        report.standard_deviations.append(mean_row(rows, shown, np.std))
        report.by_distance += distance_rows(rows, shown)
        report.per_image += [{"answer": shown, **{k: v for k, v in row.items() if k != "by_distance"}} for row in rows]
    if model is not None:
        report.notes += seen_before(model, known)
    return report


def seen_before(model: Monodepth, pairs: Sequence[kitti.Pair]) -> list[str]:
    """Warnings to print beside metrics of `pairs`, because of the drives that the model was trained or chosen on."""
    learnt = model.notes.get("train_drives")
    chosen = None if learnt is None else {*learnt, *model.notes.get("val_drives", [])}
    seen = sorted((chosen or set()) & {pair.folder.name for pair in pairs})
    told = [f"the weights were trained or chosen on {', '.join(seen)}: measure them on other drives"] if seen else []
    return [*told, *filter(None, [kitti.test_list_warning(chosen, pairs)])]


def watched_abs_rel(pairs: Sequence[kitti.Pair], disparities: Iterable[np.ndarray | Tensor]) -> float:
    """Mean Abs Rel of disparities (h, w), one per pair; nan when no pair has ground truth."""
    rows = score(pairs, disparities)
    return mean_row(rows, "watched")["abs_rel"] if rows else float("nan")
