"""Notebook 06: predictions of a trained model, as arrays with names, and their score against true depth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from . import depth, kitti
from .data import pick_device, to_device
from .networks import Monodepth


def post_process(disparity: Tensor, mirrored: Tensor) -> Tensor:
    """Blends a prediction with the un-mirrored one of the mirrored picture (paper, section 4.1), both (N, H, W).

    The left view cannot see what the right one hides at objects' left sides and at its own left border: there the
    prediction is a guess. In the mirrored picture that is the right side. So the left 5 % come from the mirrored
    prediction, the right 5 % from the plain one, and what lies between is their mean, with ramps of 5 %.
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
    `output_dir`, batch by batch, so memory does not grow with the drive. Raises ValueError for an empty loader.
    """
    if not len(loader.dataset):  # type: ignore[arg-type]
        raise ValueError("there is no picture to predict: name test_drives")
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    target = pick_device(device)
    model = model.to(target, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    names: list[str] = []
    paths = output / "disparities.npy", output / "disparities_pp.npy"
    try:
        with open(paths[0], "wb") as plain, open(paths[1], "wb") as processed:
            for batch in loader:
                results = predict(model, to_device(batch, target)["left_image"])
                for file, result in zip((plain, processed), results, strict=True):
                    if not names:
                        shape = (len(loader.dataset), *result.shape[1:])  # type: ignore[arg-type]
                        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                    file.write(result.cpu().numpy().tobytes())
                names += batch["name"]
        (output / "names.json").write_text(json.dumps(names, indent=0))
    except OSError as error:
        raise OSError(f"{output} could not be written ({error}): free space or choose another output folder") from error
    return names, np.load(paths[0], mmap_mode="c"), np.load(paths[1], mmap_mode="c")


def read_pair_truth(pair: kitti.Pair, cameras: str) -> tuple[Tensor, kitti.Calibration]:
    """True depth (H, W) in metres of a pair's left view, and the camera it was taken with."""
    with Image.open(pair.left) as image:
        camera = kitti.calibration(pair.folder, image.width, cameras)
    return torch.from_numpy(kitti.read_truth(pair, camera)), camera


def score(
    pairs: Sequence[kitti.Pair], disparities: Sequence[np.ndarray | Tensor], cameras: str = "colour", cap: float = 80.0
) -> list[dict]:
    """Metrics for each pair that has true depth, in order: rows with `name` and `depth.METRICS`.

    `disparities` are (h, w) of any size, one a pair; each is resized to its truth and turned into metres with the
    drive's own calibration.
    """
    rows = []
    for pair, disparity in zip(pairs, disparities, strict=True):
        if pair.truth is None:
            continue
        truth, camera = read_pair_truth(pair, cameras)
        values = disparity if isinstance(disparity, Tensor) else torch.from_numpy(np.array(disparity))
        resized = depth.resize_map(values, truth.shape)
        predicted = depth.disparity_to_depth(resized, camera.metres)
        try:
            rows.append({"name": pair.name, **depth.metrics(predicted, truth, camera.metres, cap)})
        except ValueError as error:
            raise ValueError(f"{pair.truth}: {error}") from error
    return rows


def baseline(
    pairs: Sequence[kitti.Pair], data_dir: str | Path, cameras: str = "colour", size: tuple[int, int] = (128, 416)
) -> tuple[list[Tensor], str]:
    """What one would answer without looking: the per-pixel mean of 1/depth, as disparities, and of what it is.

    From `mean_inverse_depth.npy` of the data's folder (made of training truth) where there is one; else, for each
    image, from the truth of all other images with truth.
    """
    path = kitti.project_path(data_dir) / "mean_inverse_depth.npy"
    known = [pair for pair in pairs if pair.truth is not None]
    if not known:
        return [torch.zeros(size) for _ in pairs], "no true depth"
    read = [read_pair_truth(pair, cameras) for pair in known]
    if path.is_file():
        inverse = torch.from_numpy(np.load(path))
        maps, source = {pair.name: inverse for pair in known}, "mean of the training truth"
    else:
        parts = [depth.mean_inverse_depth([truth], size) for truth, _ in read]
        total, count = sum(parts), sum((part > 0).float() for part in parts)
        maps = {
            pair.name: (total - part) / (count - (part > 0).float()).clamp(min=1)
            for pair, part in zip(known, parts, strict=True)
        }
        source = "mean of the other images' truth" if len(known) > 1 else "80 m everywhere, for want of other truth"
    metres = {pair.name: camera.metres for pair, (_, camera) in zip(known, read, strict=True)}
    return [metres[p.name] * maps[p.name] if p.name in maps else torch.zeros(size) for p in pairs], source


def mean_row(rows: list[dict], name: str) -> dict:
    """The mean of every metric over the images' rows. Raises ValueError when there is no row."""
    if not rows:
        raise ValueError(f"{name}: no image has true depth, so there is nothing to average")
    return {"name": name, **{key: float(np.mean([row[key] for row in rows])) for key in depth.METRICS}}


def table(rows: list[dict]) -> str:
    """Rows as aligned text, three decimals: fit for a notebook, a log and a diff."""
    heads = {"abs_rel": "Abs Rel", "sq_rel": "Sq Rel", "rmse": "RMSE", "rmse_log": "RMSE log", "d1_all": "D1-all"}
    width = max(len(row["name"]) for row in rows)
    lines = [" " * width + "".join(f"{heads.get(key, key):>10}" for key in depth.METRICS)]
    lines += [f"{row['name']:<{width}}" + "".join(f"{row[key]:>10.3f}" for key in depth.METRICS) for row in rows]
    return "\n".join(lines)
