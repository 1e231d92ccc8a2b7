"""Makes the files of models/: weights, a card (as JSON and Markdown) and a picture.

    python tools/make_model.py sample                           trains unet_sample by notebook 05 with its defaults
    python tools/make_model.py kitti --run FOLDER --data KITTI  a finished `python -m research train` is unet_kitti
                                                                (with --name unet_kitti_small, that model)
    python tools/make_model.py measure NAME --data DRIVES       one more measurement in the card

Weights are stored as float16 if that changes no metric by 1 % or more, else as float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # research/ is a folder beside this one

from monodepth_lib import checkpoints, data, depth, files, gif, kitti, networks, plots, testing, training
from monodepth_lib.commands import evaluate, run
from monodepth_lib.transforms import image_transforms
from research.benchmarks.measure import machine
from research.recipe import Recipe
from research.train import read_result

MODELS = files.project_root() / "models"
SAMPLE = "data/sample"
GIF_DRIVE = "2025_01_01_drive_0201_sync"
MAPS = 8  # scenes whose disparity a picture of real frames shows
NOT_GOOD_FOR = {
    "unet_sample": "real photographs: it has seen rendered streets alone; measuring distances that matter",
    "unet_kitti": "other cameras than KITTI's without a new calibration, other places than German roads by day; "
    "Eigen's test list, which holds 2011_10_03_drive_0027; measuring distances that matter",
}
LICENCES = {
    "unet_sample": "CC0 1.0",
    "unet_kitti": "CC BY-NC-SA 3.0, as the KITTI pictures that it was trained on: research and teaching only",
}


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(weights: str, folder: str, *more: str) -> dict:
    """The results of `monodepth evaluate`: means, standard deviation over images, and the references' means."""
    options = ["--weights", weights, "--data", folder, *more]
    with tempfile.TemporaryDirectory() as output:
        if evaluate.main([*options, "--output", output]):
            sys.exit(f"{weights} could not be measured on {folder}: see the line above")
        report = json.loads((Path(output) / "metrics.json").read_text(encoding="utf-8"))
    sample = files.project_path(folder).resolve() == files.project_path(SAMPLE).resolve()
    named = [SAMPLE if sample else f"KITTI/{Path(folder).name}", *more]

    def rounded(row: dict) -> dict:
        return {key: round(row[key], 6) for key in depth.METRICS}

    return {
        "drives": report["drives"],
        "images": report["images"],
        "cameras": " and ".join(report["cameras"]),
        "truth": report["truth"],
        "command": " ".join(["monodepth evaluate --weights", Path(weights).stem, "--data", *named]),
        "date": date.today().isoformat(),
        "mean": rounded(report["means"][0]),
        "standard deviation over images": rounded(report["standard_deviations"][0]),
        "beside it": {row["name"]: rounded(row) for row in report["means"][1:]},
    }


def store(name: str, trained: Path, *sides: tuple[str, ...]) -> tuple[str, list[dict]]:
    """Writes models/NAME.safetensors, as float16 unless that moves a metric on one of `sides` (folder, options) by 1 %.

    Returns how it is stored, and the measurements of what is stored.
    """
    model, target = checkpoints.load_model(trained), MODELS / f"{name}.safetensors"
    before = [measure(str(trained), *side)["mean"] for side in sides]
    for stored_as, made in (("float16", model.half), ("float32", lambda: checkpoints.load_model(trained))):
        checkpoints.save_model(made(), target, model.size, **model.notes)  # type: ignore[arg-type]
        found = [measure(str(target), *side) for side in sides]
        moved = max(
            abs(after["mean"][key] - full[key]) / max(full[key], 0.01)  # near 0 a larger share is fine
            for after, full in zip(found, before, strict=True)
            for key in depth.METRICS
        )
        print(f"{stored_as} moves a metric by {moved:.2%}, {target.stat().st_size / 1e6:.1f} MB")
        if moved < 0.01:
            break
    return stored_as, found


def shipped(name: str) -> networks.Monodepth:
    return checkpoints.load_model(MODELS / f"{name}.safetensors")


# --- cards ----------------------------------------------------------------------------------------------------------


def write_card(card: dict) -> None:
    path = MODELS / f"{card['name']}.json"
    for file, text in ((path, json.dumps(card, indent=2) + "\n"), (path.with_suffix(".md"), readable(card))):
        with files.atomic_write(file) as partial:
            partial.write_text(text, encoding="utf-8")


def readable(card: dict) -> str:
    """A card as Markdown."""
    heads = {key: depth.METRICS[key] for key in ("abs_rel", "rmse", "a1", "d1_all")}
    facts = {key: value for key, value in card.items() if key not in ("name", "measurements", "settings")}
    facts["settings"] = ", ".join(f"{key} {value}" for key, value in card["settings"].items())
    lines = [f"# {card['name']}\n", "Written by `tools/make_model.py`, so do not edit.\n"]
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        lines.append(f"- **{key}**: {value}")
    lines.append("\n## Measurements\n")
    lines.append(
        "Every `monodepth evaluate` of it on these pictures: with post-processing, up to 80 m, no median scaling,\n"
        "unless the numbered command says otherwise; ± is the standard deviation over images. stereo_2012 is scenes 0\n"
        "to 49 without 22, with the truth of pixels that are not occluded (`disp_noc`); stereo_2015 is scenes 2 to 69\n"
        "without 4, 5 and 6, with that of all pixels (`disp_occ_0`). In KITTI's own folders the commands would take\n"
        "every scene: keep only these, and add `--truth disparity-noc` for stereo_2012.\n"
    )
    lines.append(f"| what | {' | '.join(heads.values())} |\n|---|{'---|' * len(heads)}")
    for number, found in enumerate(card["measurements"], 1):
        spread = found.get("standard deviation over images")
        cells = [f"{found['mean'][key]:.3f}" + (f" ± {spread[key]:.3f}" if spread else "") for key in heads]
        where = f"{found['images']} images of {', '.join(found['drives'])}, {found['cameras']}, {found['date']}"
        lines.append(f"| **{number}. {where}** | {' | '.join(cells)} |")
        for name, mean in found["beside it"].items():
            lines.append(f"| {name} | {' | '.join(f'{mean[key]:.3f}' for key in heads)} |")
    lines.append("")
    lines += [f"{number}. `{found['command']}`" for number, found in enumerate(card["measurements"], 1)]
    lines.append("")
    return "\n".join(lines)


def about(name: str, stored_as: str) -> dict:
    """The part of a card about the network itself."""
    model = shipped(name)
    return {
        "name": name,
        "network": model.config,
        "parameters": networks.count_parameters(model),
        "picture size (height, width)": list(model.size or ()),
        "stored as": stored_as,
        "licence": LICENCES[name.removesuffix("_small")],
        "not good for": NOT_GOOD_FOR[name.removesuffix("_small")],
    }


# --- pictures -------------------------------------------------------------------------------------------------------


def disparities_of(name: str, pairs: list[kitti.Pair]) -> list[torch.Tensor]:
    """The post-processed disparities of the shipped model for the pairs' left views."""
    model = shipped(name)
    loader = DataLoader(data.StereoPairs(pairs, image_transforms("test", model.size), left_only=True), MAPS)  # type: ignore[arg-type]
    return [one for _, _, processed in testing.predict_loader(model, loader) for one in processed]


def draw_gif(name: str) -> None:
    """Every second frame of the sample's long test drive beside its disparity, as a small gif for the README."""
    pairs = kitti.select_pairs(files.project_path(SAMPLE), "test", GIF_DRIVE)
    disparities = disparities_of(name, pairs)
    limits = gif.colour_range(torch.stack(disparities).numpy())
    frames = [
        gif.side_by_side(files.read_picture(p.left), d, limits, focal_baseline=p.calibration.focal_baseline)
        for p, d in zip(pairs, disparities, strict=True)
    ]
    gif.write_gif(frames[::2], MODELS / f"{name}.gif", frames_per_second=5)


def draw_maps(name: str, folder: str, cameras: str) -> None:
    """Disparity maps of real frames, evenly chosen, two a row, as models/NAME.png; no photograph is in it."""
    pairs = [pair for drive in kitti.find_drives(folder).values() for pair in kitti.find_pairs(drive, cameras)]  # type: ignore[arg-type]
    chosen = [pairs[place] for place in np.linspace(0, len(pairs) - 1, MAPS).round().astype(int)]
    maps = disparities_of(name, chosen)
    tiles = [Image.fromarray(plots.colour_map(d, 0, float(d.quantile(0.99)))) for d in maps]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (2 * width + 4, (height + 4) * (len(tiles) // 2) - 4), "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, ((place % 2) * (width + 4), (place // 2) * (height + 4)))
    sheet.save(MODELS / f"{name}.png")


# --- the commands ---------------------------------------------------------------------------------------------------


def make_sample() -> None:
    name, output = "unet_sample", files.project_path("output/unet_sample")
    started = time.perf_counter()
    run.run("05_training", {"output_dir": str(output), "fine_tune": "none"}, output)
    minutes = (time.perf_counter() - started) / 60
    stored_as, found = store(name, output / "weights.safetensors", (SAMPLE,))
    best = min(checkpoints.read_history(output / "history.csv"), key=lambda row: row["val_loss"])
    card = about(name, stored_as) | {
        "training data": "data/sample/train (rendered streets, CC0 1.0), photographs alone",
        "command": "make model",
        "seed": 0,
        "hours": round(minutes / 60, 3),
        "hours of": "the whole notebook",
        "machine": machine(torch.get_num_threads()),
        "best epoch": {
            "epoch": int(best["epoch"]),
            **{f"{s}_loss": round(best[f"{s}_loss"], 4) for s in ("train", "val")},
        },
        "settings": dataclasses.asdict(training.settings("class")),
        "measurements": found,
    }
    write_card(card)
    draw_gif(name)


def make_kitti(run: Path, folder: str, name: str = "unet_kitti", history: str = "") -> None:
    result = read_result(run / "result.json", {})
    if result is None:
        sys.exit(f"{run} holds no result.json: finish the run first, the same `python -m research train` goes on")
    truth = f"{folder}/stereo_2012"  # its grey pictures, whatever was trained on
    begun = result["init"] or ("ImageNet weights in its encoder" if result["imagenet"] else "")
    taught = "photographs" + (" and semi-global matching of them" if any(result["hints"]) else " alone")
    budget = f"--steps {result['steps']}" if result["steps"] else f"--minutes {result['minutes']:g}"
    for option, default in (("precision", "float32"), ("device", "cpu")):
        budget += f" --{option} {result[option]}" if result.get(option, default) != default else ""
    stored_as, found = store(name, run / "weights.safetensors", (truth, "--cameras", "grey"), (SAMPLE,))
    card = about(name, stored_as) | {
        "training data": f"KITTI (CC BY-NC-SA 3.0), {result['used_pairs']} pairs of "
        f"{', '.join(result['seen_drives'])}{begun and f', begun from {begun}'}; it learnt from {taught}; "
        "stereo_2012 chose the recipe",
        "command": f"python -m research train {result['row']} --seed {result['seed']} {budget} "
        f"--threads {result['machine']['threads']} --cameras {result['cameras']} --data KITTI",
        **({"how it was made": history} if history else {}),
        "seed": result["seed"],
        "hours": round(result["trained_minutes"] / 60, 2),
        "hours of": "processor time, divided by the threads" if result.get("device", "cpu") == "cpu" else "time",
        "steps": result["trained_steps"],
        "machine": result["machine"],
        "loss on vals": result.get("val_loss") and round(result["val_loss"], 4),
        "settings": {key: result[key] for key in Recipe().switches()},
        "measurements": found,
    }
    write_card(card)
    draw_maps(name, truth, "grey")
    draw_gif(name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sample")
    made = commands.add_parser("kitti")
    made.add_argument("--run", type=Path, required=True, help="the folder with its result.json and weights.safetensors")
    made.add_argument("--data", required=True, help="the folder with stereo_2012/")
    made.add_argument("--history", default="", help="what the card says on how it was made")
    made.add_argument("--name", default="unet_kitti", choices=("unet_kitti", "unet_kitti_small"))
    more = commands.add_parser("measure")
    more.add_argument("name", choices=sorted(path.stem for path in MODELS.glob("*.json")))
    more.add_argument("--data", required=True)
    options, passed = parser.parse_known_args(arguments)  # unknown options of `measure` go to `monodepth evaluate`
    if passed and options.command != "measure":
        parser.error(f"unknown: {' '.join(passed)}")
    if options.command == "sample":
        make_sample()
    elif options.command == "kitti":
        make_kitti(options.run, options.data, options.name, options.history)
    else:
        card = json.loads((MODELS / f"{options.name}.json").read_text(encoding="utf-8"))
        new = measure(options.name, options.data, *passed)
        measured = {one["command"]: one for one in card["measurements"]}
        card["measurements"] = [*(measured | {new["command"]: new}).values()]  # the same command's is replaced
        write_card(card)


if __name__ == "__main__":
    main()
