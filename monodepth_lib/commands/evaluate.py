"""Measures weights against true depth: `monodepth evaluate --weights unet_sample --data data/sample`.

Prints the metrics of the model and of two references: one does not look at the picture, one sees both views. Writes
`metrics.json` and `metrics.csv` (one line per image and answer). Results of other weights or data are never replaced:
the output folder then gets a number, and a line says so.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from torch import Tensor

from .. import depth, kitti, testing
from ..checkpoints import load_model, weights_path
from ..confidence import flip_disagreement, score_confidence
from ..data import prepare_dataloader
from ..networks import SMALLEST
from ..report import Report
from . import command_parser, here, in_the_shell, names, number, positive, start, weights
from .outputs import Outputs

FILES = "metrics.json", "metrics.csv"


def find_test_pairs(root: Path, drives: str | None, **kind) -> list[kitti.Pair]:
    """The pairs of the test side (`kitti.select_pairs`); without a folder "test", the pairs of all drives."""
    if drives is None and not (root / kitti.SPLIT_FOLDERS["test"]).is_dir():
        found = kitti.find_drives(root)
        return [pair for folder in found.values() for pair in kitti.find_pairs(folder, **kind)]
    return kitti.select_pairs(root, "test", drives, **kind)


def find_training_pairs(root: Path, drives: str | None, **kind) -> list[kitti.Pair]:
    """The training pairs that belong to the test `drives`: of the same split, else of the folder train; [] without."""
    try:
        return kitti.select_pairs(root, "train", drives if drives in kitti.SPLITS else None, bad_pairs="skip", **kind)
    except FileNotFoundError:
        return []


def free_folder(wanted: Path, source: str) -> Path:
    """`wanted`, or the first of wanted_2, wanted_3, ... without results of another source or other files."""
    for copy in count(1):
        folder = wanted if copy == 1 else wanted.with_name(f"{wanted.name}_{copy}")
        outputs = Outputs(folder)
        if all(outputs.is_free(file, source) for file in FILES):
            break
    return folder


def run(options: argparse.Namespace) -> Report:
    """Loads the model and the pairs, predicts and scores, as `options` say."""
    path = weights_path(options.weights)
    model = load_model(path)
    height, width = options.size or model.size or (128, 416)
    root, kind = options.data, {"cameras": options.cameras, "truth": options.truth}
    known = [pair for pair in find_test_pairs(root, options.drives, **kind) if pair.truth is not None]
    if not known:
        raise ValueError(
            f"{root}: no pair has a truth of the kind asked for ({options.truth}), nothing can be measured: "
            "--truth auto takes any kind"
        )
    loader = prepare_dataloader(known, size=(height, width), batch_size=options.batch_size, left_only=True)
    batches = testing.predict_loader(model, loader, options.device)
    protocol = testing.usual_protocol(known, crop=options.crop, cap=options.cap, median_scaling=options.median_scaling)
    confidence: list[dict] = []

    def answers() -> Iterator[Tensor]:  # batch by batch: the maps of a long drive would not fit in memory
        for _, plain, processed in batches:
            chosen, doubt = processed if options.post_process else plain, flip_disagreement(plain, processed)
            some = known[len(confidence) : len(confidence) + len(plain)]
            yield from chosen  # first, since its errors name the file
            confidence.extend(score_confidence(some, chosen, doubt, protocol))

    report = testing.evaluate(
        {f"{path.stem}, {'post-processed' if options.post_process else 'plain'}": answers()},
        known,
        protocol,
        train=find_training_pairs(root, options.drives, **kind),
        size=(height, width),
        model=model,
    )
    report.confidence = {key: float(np.mean([row[key] for row in confidence])) for key in ("ause", "aurg")}
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    report.settings = {
        "data": str(root),
        "weights": path.name,
        "sha256": digest,
        "post_processing": options.post_process,
        "size": [height, width],
        "split": options.drives or "",
    }
    return report


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    example = "monodepth evaluate --weights unet_sample --data data --split eigen --truth scan-x"
    parser = command_parser("evaluate", __doc__, example)
    add = parser.add_argument
    add("--weights", required=True, type=weights, help="a name in models/, or the path of a .safetensors file")
    add(
        "--data",
        required=True,
        type=here,
        help="the folder with the drives, or one drive; KITTI stereo 2012 or 2015 is a drive",
    )
    known = ", ".join(kitti.SPLITS)
    add(
        "--drives",
        "--split",
        type=names,
        help=f"separated by commas, or one of {known} (default: folder test, or all where there is none)",
    )
    add("--cameras", choices=list(kitti.CAMERAS), default="colour")
    add("--truth", choices=kitti.TRUTHS, default="auto", help="which truth, if a drive has several (default: auto)")
    cap = positive(float)
    add("--cap", type=cap, default=depth.MAX_DEPTH, metavar="METRES", help="leaves out truth beyond it (default: 80)")
    crops = ["auto", *depth.CROPS]
    add("--crop", choices=crops, default="auto", help="the part that counts; auto: garg for laser scans, else none")
    add("--median-scaling", action="store_true", help="scale each prediction by median(truth) / median(prediction)")
    add("--post-process", action=argparse.BooleanOptionalAction, default=True, help="use the mirrored picture, too")
    add("--size", type=number(int, SMALLEST, highest=4096), nargs=2, metavar=("H", "W"), help="default: as trained")
    add("--output", type=here, default="output/evaluate", help="folder of the two files (default: output/evaluate)")
    add("--batch-size", type=number(int, 1, highest=1024), default=8)
    add("--device", default="auto", help="auto (the GPU when there is one), cpu, cuda, ...")
    return parser.parse_args(arguments)


def said_once(warned: list[warnings.WarningMessage]) -> list[str]:
    return list(dict.fromkeys(str(one.message) for one in warned))


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 2 wrong arguments or data."""
    options = read_options(arguments)
    warned: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            report = run(options)
        report.notes += said_once(warned)
        source = f"{options.weights} {report.settings['data']} {report.settings['split']}"
        folder = free_folder(options.output, source)
        files = report.write(folder)
        for file in files:
            Outputs(folder).note(file.name, source)
    except (ValueError, OSError, ImportError, RuntimeError) as error:  # the last: a device that is not there
        for note in said_once(warned):  # they may explain the error
            print(f"note: {note}", file=sys.stderr)
        print(in_the_shell(error).removesuffix(", or leave bad pairs out with --bad-pairs skip"), file=sys.stderr)
        return 2
    print(report.text())
    if folder != options.output:
        print(f"\n{options.output} holds results of other weights or data, or files of your own; they are kept")
    print(f"\nthe metrics of every image are in {files[1]}, the report in {files[0]}")
    return 0


if __name__ == "__main__":
    start(main)
