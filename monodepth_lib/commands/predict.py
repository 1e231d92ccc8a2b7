"""Disparity and depth of your own pictures, gifs and videos.

Every PATH is a picture, a gif, a video, or a folder of them. A picture of any size is resized to the network's training
size (or `--size`), and the disparity is resized back. For `photo.jpg` the output folder gets

- `photo_disparity.npy`: float32 (H, W) at the picture's own size, disparity as a fraction of the width;
- `photo_disparity.png`: 16 bits, disparity in px of the picture, times 256 (65535 means 256 px or more); or, with a
  camera, `photo_depth.png`: 16 bits, depth in metres times 256, as KITTI stores it (65535 means 256 m or more);
- `photo_colour.png`: the picture beside its disparity, bright is near; with a camera, a bar of distances below.

For `clip.mp4` or a gif: `clip_disparity.npy`, float32 (frames, h, w) at the network's size; with a camera also
`clip_depth.npy`, metres; and `clip_colour.mp4` (or .gif) with one range of colours for the clip, without sound. Only a
few frames are in memory at a time, so a clip may be long; on disk each array takes 4·h·w bytes per frame.

A camera is a focal length f and a baseline B: depth = f·B / (W·d). The focal length is that of the camera that took the
picture, in px of the picture. The baseline is that of the stereo cameras whose pairs the network was *trained* on
(KITTI: 0.53 m). A single picture has no baseline: from the look of the scene, the network predicts how far things would
move between those two cameras.

A run replaces only the results of an earlier run for the same file. Other names get a number, and a line says so.
The exit status is 0 when all is done, 1 when something was skipped (it is named), 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor
from tqdm import tqdm

from .. import depth, gif
from ..calibration import check_camera, read_camera_file
from ..files import OTHER_PICTURES, PICTURES, atomic_write, write_npy_header
from ..networks import MAX_DISPARITY, SMALLEST
from ..pictures import OnnxNetwork, Prediction, Predictor, answer, load, read_picture
from . import command_parser, here, number, positive, start, weights
from .outputs import Outputs

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
CLIPS = (".gif", *VIDEOS)
# formats that are not read: a message names such files in a folder
OTHERS = {*OTHER_PICTURES, ".raw", ".cr3", ".psd", ".svg", ".exr", ".hdr", ".apng"}
OTHERS |= {".wmv", ".flv", ".3gp", ".mts", ".mpg", ".mpeg"}
ENDS = ("_disparity.npy", "_disparity.png", "_depth.npy", "_depth.png", "_colour.png", "_colour.gif", "_colour.mp4")
FAILURES = (ValueError, OSError, RuntimeError, MemoryError, ImportError)  # RuntimeError: torch, out of memory

Frame = tuple[Image.Image, float]  # a picture of a clip, and its duration in seconds


# --- what is there to predict -----------------------------------------------------------------------------------


def find_inputs(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The pictures and clips among `paths` and directly in folders of `paths`; and a sentence for each problem.

    Results of an earlier run are left out. A file that is named itself may have any suffix.
    """
    found: dict[Path, None] = {}
    problems = []
    for path in paths:
        files: list[Path] = []
        if os.path.isdir(path):
            try:
                there = sorted(p for p in path.iterdir() if not p.name.startswith(".") and os.path.isfile(p))
            except OSError as error:
                problems.append(f"{path} may not be read ({error.strerror}): change its permissions (chmod u+rx)")
                continue
            files = [p for p in there if p.suffix.lower() in (*PICTURES, *CLIPS)]
            others = Counter(p.suffix.lower() for p in there if p not in files and p.suffix.lower() in OTHERS)
            if others:
                told = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
                problems.append(
                    f"{path}: left out, because this format is not read: {told}; save as .jpg, .png or .mp4"
                )
            elif not files:
                known = ", ".join(sorted({*PICTURES, *CLIPS}))
                problems.append(f"{path} holds no picture or clip (looked for {known})")
        elif os.path.isfile(path):
            files = [path]
        else:
            problems.append(f"{path} is missing: name a picture, a gif, a video, or a folder of them")
        records = {folder: Outputs(folder) for folder in {file.parent for file in files}}
        found |= {file: None for file in files if not records[file.parent].is_ours(file.name)}
    return list(found), problems


def output_stems(paths: Sequence[Path], outputs: Outputs) -> dict[Path, Path]:
    """Input -> path of its outputs without their ends: folder/a for a.png; a_png and a_jpg if there is a.jpg, too.

    A number is added if another input has this name, or if a file would be replaced that is not a result of this input.
    """
    shared = Counter(path.stem.casefold() for path in paths)
    stems: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        name = path.stem if shared[path.stem.casefold()] == 1 else f"{path.stem}_{path.suffix[1:].lower()}"
        name = outputs.choose(name, ENDS, str(path), lambda name: name.casefold() in taken)
        taken.add(name.casefold())
        stems[path] = outputs.folder / name
    return stems


# --- one picture ------------------------------------------------------------------------------------------------


def write_uint16(values: np.ndarray, path: Path) -> float:
    """Writes values (H, W) times 256 as a 16-bit PNG; returns the share of pixels that were too large for 16 bits."""
    scaled = (values * 256).round()
    with atomic_write(path) as partial_path:  # 0 would mean "unknown"
        Image.fromarray(scaled.clip(1, 65535).astype(np.uint16)).save(partial_path, format="PNG")
    return float((scaled > 65535).mean())


def draw(
    picture: Image.Image, disparity: Tensor, limits: tuple[float, float], focal_baseline: float | None, width: int
) -> Image.Image:
    """The picture beside its disparity (h, w), each `width` px wide, or as wide as a smaller picture."""
    width = min(width, picture.width)
    height = max(1, round(width * picture.height / picture.width))
    small = picture.resize((width, height), Image.Resampling.BILINEAR)
    return gif.side_by_side(small, depth.resize_map(disparity, (height, width)).numpy(), limits, width, focal_baseline)


def write_picture(said: Prediction, stem: Path, focal_baseline: float | None = None, width: int = 640) -> str | None:
    """Writes a picture's outputs, `stem`_disparity.npy and so on; returns a sentence if values exceed 16 bits."""
    with atomic_write(stem.with_name(f"{stem.name}_disparity.npy")) as partial_path, open(partial_path, "wb") as file:
        write_npy_header(file, said.disparity.shape)
        file.write(said.disparity.astype("<f4").data)  # np.save would not notice a full disk
    if said.depth is not None:
        path, limit = stem.with_name(f"{stem.name}_depth.png"), "256 m"
        too_large = write_uint16(said.depth, path)
    else:
        path, limit = stem.with_name(f"{stem.name}_disparity.png"), "256 px"
        too_large = write_uint16(said.disparity * said.picture.width, path)
    limits = gif.colour_range(said.disparity)
    drawn = draw(said.picture, torch.from_numpy(said.disparity), limits, focal_baseline, width)
    with atomic_write(stem.with_name(f"{stem.name}_colour.png")) as partial_path:
        drawn.save(partial_path, format="PNG")
    if too_large == 0:
        return None
    return f"{path.name}: {too_large:.1%} of the pixels exceed the {limit} that fit in 16 bits; use the .npy"


# --- clips: frame after frame -----------------------------------------------------------------------------------


def import_av():
    """Imports PyAV, which reads and writes videos. Raises ValueError without it, with the remedy."""
    try:
        import av
    except ImportError as error:
        raise ValueError('videos need PyAV: pip install -e ".[video]" in the project\'s folder') from error
    return av


def gif_frames(path: Path) -> Iterator[Frame]:
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            yield frame.convert("RGB"), frame.info.get("duration", 0) / 1000


def video_frames(path: Path) -> Iterator[Frame]:
    """The frames, upright, with durations in seconds from their time stamps, so durations may vary."""
    with import_av().open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures, perhaps sound alone")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame, following in pairwise(chain(container.decode(stream), [None])):
            if following is not None and frame.time is not None and following.time is not None:
                seconds = following.time - frame.time
            else:  # the last frame, or a file without time stamps
                seconds = float(frame.duration * frame.time_base if frame.duration else 1 / (stream.average_rate or 25))
            picture = frame.to_image()
            yield picture.rotate(frame.rotation, expand=True) if frame.rotation else picture, max(seconds, 0.001)


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of a gif or a video, RGB, in order. Raises ValueError naming an unreadable or incomplete file."""
    errors: tuple[type[Exception], ...] = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
    frames = gif_frames
    if path.suffix.lower() != ".gif":
        errors, frames = (*errors, import_av().FFmpegError), video_frames
    try:
        yield from frames(path)
    except errors as error:
        raise ValueError(f"{path} cannot be read as a clip ({error}): record or fetch it again") from error


def stream_video(frames: Iterable[Frame], path: Path) -> None:
    """Writes an mp4 (H.264, no sound) frame by frame, each with its own duration."""
    av = import_av()
    ticks, elapsed = 90_000, 0.0  # ticks per second, as usual in MPEG
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "20", "bf": "0"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, ticks)
        for picture, seconds in frames:
            if elapsed == 0:  # four pixels share one colour in this format, so sizes must be even
                width, height = (side + side % 2 for side in picture.size)
                stream.width, stream.height = width, height
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            frame.pts, frame.time_base = round(elapsed * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
            elapsed += seconds
        for packet in stream.encode():
            packet.duration = round(seconds * ticks)  # else the last frame is shown for 1/30 s
            container.mux(packet)


def write_maps(chunks: Iterable[np.ndarray], path: Path) -> None:
    """Writes chunks (n, h, w) of maps as one float32 .npy (frames, h, w)."""
    with atomic_write(path) as partial_path, open(partial_path, "wb") as file:
        total, shape = 0, (0, 0)
        for chunk in chunks:
            if total == 0:
                shape = chunk.shape[1:]
                write_npy_header(file, (0, *shape))
            file.write(np.ascontiguousarray(chunk, dtype="<f4").data)
            total += len(chunk)
        file.seek(0)
        write_npy_header(file, (total, *shape))  # of the same length: NumPy reserves room for a larger first axis


def batched(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def write_clip(
    path: Path,
    stem: Path,
    predict: Callable[[list[Image.Image]], Tensor],
    focal_baseline_at: Callable[[int], float | None] = lambda width: None,
    width: int = 640,
    batch_size: int = 4,
) -> None:
    """Writes the outputs of one gif or video, which is read twice: to predict and to draw (one range of colours).

    `predict`: pictures -> disparities (N, h, w). `focal_baseline_at`: width of a picture -> f·B/W of the camera.
    Raises ValueError naming a clip that cannot be read or is empty.
    """
    bar = partial(tqdm, unit="frame", leave=False, disable=None)
    counts, edges = np.histogram([], bins=10_000, range=(0, 1.001 * MAX_DISPARITY))  # float32 may be above
    focal_baseline: float | None = None

    def disparities() -> Iterator[np.ndarray]:
        nonlocal counts, focal_baseline
        frames = bar(read_frames(path), desc=f"{path.name}, predicting")
        for chunk in batched((picture for picture, _ in frames), batch_size):
            focal_baseline = focal_baseline_at(chunk[0].width)
            maps = predict(chunk).numpy()
            counts = counts + np.histogram(maps, edges)[0]
            yield maps
        if not counts.any():
            raise ValueError(f"{path} holds no frame: record or fetch it again")

    disparity_path = stem.with_name(f"{stem.name}_disparity.npy")
    write_maps(disparities(), disparity_path)
    maps = np.load(disparity_path, mmap_mode="r")
    if focal_baseline is not None:
        metres = (focal_baseline / np.maximum(chunk, 1e-6)[None] for chunk in maps)
        write_maps(metres, stem.with_name(f"{stem.name}_depth.npy"))

    high = float(edges[1:][np.searchsorted(counts.cumsum(), 0.99 * counts.sum())])  # as gif.colour_range, to 0.01 %
    shown = bar(zip(read_frames(path), maps, strict=True), total=len(maps), desc=f"{path.name}, drawing")
    drawn = (
        (draw(picture, torch.from_numpy(values.copy()), (0, high), focal_baseline, width), seconds)
        for (picture, seconds), values in shown
    )
    stream, suffix = (gif.stream_gif, ".gif") if path.suffix.lower() == ".gif" else (stream_video, ".mp4")
    with atomic_write(stem.with_name(f"{stem.name}_colour{suffix}")) as partial_path:
        stream(drawn, partial_path)


# --- the command ------------------------------------------------------------------------------------------------


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    example = "monodepth predict holiday/ --weights unet_kitti --focal-px 1400 --baseline-m 0.53"
    parser = command_parser("predict", __doc__, example)
    add = parser.add_argument
    add("paths", nargs="+", type=here, metavar="PATH", help="a picture, a gif, a video, or a folder of them")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument(
        "--weights", type=weights, help="a .safetensors file, or a name in models/ such as unet_sample"
    )
    network.add_argument(
        "--onnx",
        type=here,
        metavar="FILE",
        help="a file of monodepth export, run by onnxruntime, one picture at a time",
    )
    add(
        "--output",
        type=here,
        default="output/predict",
        metavar="FOLDER",
        help="where to write (default: output/predict)",
    )
    add("--focal-px", type=positive(float), metavar="F", help="focal length, in px of the pictures given")
    add("--baseline-m", type=positive(float), metavar="B", help="baseline of the training cameras in m, such as 0.53")
    add(
        "--camera",
        type=here,
        metavar="FILE",
        help="camera.json with focal_px, baseline_m and width, in place of these two",
    )
    add("--size", nargs=2, type=number(int, SMALLEST, highest=4096), metavar=("H", "W"), help="what the network sees")
    add("--no-post-process", action="store_true", help="do not predict the mirrored picture, too: half the work")
    add("--width", type=positive(int), default=640, help="px of picture and map in the colour outputs (default: 640)")
    add(
        "--batch-size",
        type=number(int, 1, highest=1024),
        default=4,
        help="pictures at a time (default: 4; with --onnx: 1)",
    )
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    options = parser.parse_args(arguments)
    if (options.focal_px is None) != (options.baseline_m is None):
        parser.error("--focal-px and --baseline-m belong together: depth takes both")
    if options.camera and options.focal_px:
        parser.error("--camera holds focal length and baseline: leave --focal-px and --baseline-m out")
    if options.onnx and (options.size or options.device not in ("auto", "cpu")):
        parser.error("an ONNX file has its size and runs on the CPU: leave --size and --device out")
    return options


def load_network(options: argparse.Namespace) -> Predictor:
    """The network of `--weights` or `--onnx`. Raises one of FAILURES with what is wrong."""
    post_process = not options.no_post_process
    if options.onnx:
        network = OnnxNetwork(options.onnx)
        return Predictor(network, network.size, post_process=post_process)
    size = tuple(options.size) if options.size else None
    return load(options.weights, size=size, device=options.device, post_process=post_process)


def camera_of(options: argparse.Namespace) -> Callable[[int], float | None]:
    """Width of a picture -> f·B/W, None without a camera. Raises ValueError for impossible numbers."""
    if options.camera:
        file = options.camera
        if not file.is_file():
            raise FileNotFoundError(f"--camera {file} is missing: write focal_px, baseline_m and width there, as JSON")
        focal_baseline = read_camera_file(file).focal_baseline
        return lambda width: focal_baseline
    if options.focal_px is None:
        return lambda width: None
    check_camera(1, options.baseline_m, 1)  # checks the baseline; focal_baseline_at the rest

    def focal_baseline_at(width: int) -> float:
        check_camera(options.focal_px, options.baseline_m, width)
        return options.focal_px * options.baseline_m / width

    return focal_baseline_at


def run(
    stems: dict[Path, Path],
    predict: Callable[[list[Image.Image]], Tensor],
    focal_baseline_at: Callable[[int], float | None] = lambda width: None,
    width: int = 640,
    batch_size: int = 4,
    outputs: Outputs | None = None,
) -> list[Path]:
    """Predicts every input of `stems` (see `output_stems`); prints why an input is skipped and returns these inputs."""
    skipped: list[Path] = []

    @contextlib.contextmanager
    def skipping(*paths: Path) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            skipped.extend(paths)
            names = ", ".join(map(str, paths))
            tqdm.write(f"skipped: {error}" if names in str(error) else f"skipped: {names}: {error}", file=sys.stderr)

    def note(path: Path) -> None:
        for end in ENDS if outputs else ():
            if os.path.isfile(f"{stems[path]}{end}"):
                outputs.note(f"{stems[path].name}{end}", str(path))  # type: ignore[union-attr]

    clips = [path for path in stems if path.suffix.lower() in CLIPS]
    with tqdm(total=len(stems), unit="file", disable=None) as bar:
        for chunk in batched((path for path in stems if path not in clips), batch_size):
            pictures: dict[Path, Image.Image] = {}
            for path in chunk:
                with skipping(path):
                    pictures[path] = read_picture(path)
            maps: Sequence[Tensor] | Tensor = []
            if pictures:
                with skipping(*pictures):
                    maps = predict(list(pictures.values()))
            for (path, picture), disparity in zip(pictures.items(), maps, strict=False):  # no maps when it failed
                with skipping(path):
                    focal_baseline = focal_baseline_at(picture.width)
                    try:
                        said = write_picture(
                            answer(picture, disparity, focal_baseline), stems[path], focal_baseline, width
                        )
                    finally:
                        note(path)
                    if said:
                        tqdm.write(said)
            bar.update(len(chunk))
        for path in clips:
            with skipping(path):
                try:
                    write_clip(path, stems[path], predict, focal_baseline_at, width, batch_size)
                finally:
                    note(path)
            bar.update()
    return skipped


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 something was skipped, 2 nothing could be done."""
    options = read_options(arguments)
    paths, problems = find_inputs(options.paths)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not paths:
        print("there is nothing to predict (results of earlier runs are left out)", file=sys.stderr)
        return 2
    try:
        focal_baseline_at = camera_of(options)
        network = load_network(options)
        outputs = Outputs(options.output)
        stems = output_stems(paths, outputs)
    except FAILURES as error:
        print(error, file=sys.stderr)
        return 2
    height, width = network.size
    print(f"the network sees every picture at {height}x{width} (height x width); disparities get the picture's size")
    if outputs.numbered:
        print(outputs.told())
    if old := sum(any(os.path.lexists(f"{stem}{end}") for end in ENDS) for stem in stems.values()):
        print(f"{old} of {len(stems)} files have results of an earlier run in {outputs.folder}, which are replaced")
    batch_size = 1 if options.onnx else options.batch_size
    skipped = run(stems, network.maps, focal_baseline_at, options.width, batch_size, outputs)
    print(f"{len(stems) - len(skipped)} of {len(stems)} files are done; results are in {outputs.folder}")
    return 1 if skipped or problems else 0


if __name__ == "__main__":
    start(main)
