"""Makes models/unet_sample: notebook 05 with its defaults, the weights in half precision, a card and a gif beside."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from monodepth_lib import batch, data, depth, gif, kitti, networks, testing, training

NAME = "unet_sample"
SAMPLE = "data/sample"
GIF_DRIVE = "2025_01_01_drive_0201_sync"


def measure(model: networks.Monodepth, output: Path) -> dict[str, dict]:
    """Metrics on the sample's test drives, mean and spread over images, with post-processing; and the baseline's."""
    loader = data.prepare_dataloader(SAMPLE, "test", size=model.size)  # type: ignore[arg-type]
    pairs = loader.dataset.pairs  # type: ignore[attr-defined]
    _, _, disparities = testing.predict_loader(model, loader, output)
    baseline, source = testing.baseline(pairs, SAMPLE, size=model.size)  # type: ignore[arg-type]
    rows = testing.score(pairs, disparities)
    return {
        "images": {"count": len(rows)},
        "mean": {key: round(float(np.mean([row[key] for row in rows])), 4) for key in depth.METRICS},
        "standard deviation over images": {
            key: round(float(np.std([row[key] for row in rows])), 4) for key in depth.METRICS
        },
        f"baseline ({source})": {
            key: round(value, 4)
            for key, value in testing.mean_row(testing.score(pairs, baseline), "baseline").items()
            if key != "name"
        },
    }


def draw(model: networks.Monodepth, output: Path, path: Path) -> None:
    """Every second frame of the sample's long test drive beside its disparity, as a small gif for the README."""
    loader = data.prepare_dataloader(SAMPLE, "test", GIF_DRIVE, size=model.size)  # type: ignore[arg-type]
    _, _, disparities = testing.predict_loader(model, loader, output)
    pairs = loader.dataset.pairs  # type: ignore[attr-defined]
    limits = gif.colour_range(disparities)
    camera = kitti.calibration(pairs[0].folder, 416)
    frames = [
        gif.side_by_side(data.read_picture(p.left), d, limits, metres=camera.metres)
        for p, d in zip(pairs, disparities, strict=True)
    ]
    gif.write_gif(frames[::2], path, frames_per_second=5)


def main() -> None:
    output = kitti.project_path("output") / NAME
    started = time.perf_counter()
    batch.run("05_training", {"output_dir": str(output)}, output)
    minutes = (time.perf_counter() - started) / 60
    model = networks.load_model(output / "weights.safetensors")
    full = measure(model, output)["mean"]

    target = kitti.project_root() / "models" / f"{NAME}.safetensors"
    networks.save_model(model.half(), target, model.size, **model.notes)  # type: ignore[arg-type]
    stored = networks.load_model(NAME)
    scores = measure(stored, output)
    moved = max(abs(scores["mean"][key] - full[key]) / full[key] for key in depth.METRICS)
    if moved > 0.01:
        sys.exit(f"half precision moves a metric by {moved:.1%}: store float32 instead")

    with open(output / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    card = {
        "name": NAME,
        "network": model.config,
        "parameters": networks.count_parameters(stored),
        "picture size (height, width)": model.size,
        "training data": "data/sample/train (rendered streets, CC0 1.0), photographs alone",
        "settings": training.settings("class"),
        "seed": 0,
        "command": "make model",
        "minutes": round(minutes, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "last epoch": {key: round(float(last[key]), 4) for key in ("train_loss", "val_loss")},
        "test drives of the sample, post-processed": scores,
        "stored as": "float16",
        "licence": "CC0 1.0",
        "not good for": "real photographs: it has seen rendered streets alone; measuring distances that matter",
    }
    target.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    draw(stored, output, target.with_suffix(".gif"))
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
