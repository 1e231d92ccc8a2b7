"""Your own pictures, from the shell: `python -m monodepth_lib.commands.predict photo.jpg folder clip.mp4 --weights unet_sample`.

Every PATH is a picture, a gif, a video, or a folder of them. Whatever its size, a picture is resized to the size the
network was trained at (or `--size`), and the answer is brought back. For `photo.jpg` the output folder gets

- `photo_disparity.npy`: float32 (H, W) at the picture's own size, disparity as a fraction of the width;
- `photo_disparity.png`: 16 bits, disparity in px of the picture, times 256 (65535 says 256 px or more); or, with a
  camera, `photo_depth.png`: 16 bits, depth in metres times 256, as KITTI stores it (65535 says 256 m or more);
- `photo_colour.png`: the picture beside its disparity, bright is near; with a camera, the distances colours stand for.

For `clip.mp4` or a gif: `clip_disparity.npy`, float32 (frames, h, w) at the network's size; with a camera also
`clip_depth.npy`, metres; and `clip_colour.mp4` (or .gif) with one range of colours over the clip, without sound. Frames
pass through a few at a time, so memory does not grow with the clip; on disk each array takes 4·h·w bytes a frame.

A camera is a focal length f and a baseline B: depth = f·B / (W·d). The focal length is that of the camera that took the
picture, in px of the picture. The baseline is that of the stereo cameras whose pairs the network was *trained* on
(KITTI: 0.54 m): a single picture has none; from how large things look, the network tells how far they would move
between those two cameras.

The exit status is 0 when all is done, 1 when something was skipped (it is named), 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import chain, count, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import GifImagePlugin, Image, ImageOps, ImageSequence
from torch import Tensor
from torchvision.transforms.functional import to_tensor
from tqdm import tqdm

from .. import depth, gif, testing
from ..data import pick_device, read_picture, write_npy_header
from ..files import atomic_write, project_path
from ..kitti import read_camera_file
from ..memory import kept_memory
from ..networks import MAX_DISPARITY, SMALLEST, Monodepth, for_prediction, load_model

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
CLIPS = (".gif", *VIDEOS)
ENDS = ("_disparity.npy", "_disparity.png", "_depth.npy", "_depth.png", "_colour.png", "_colour.gif", "_colour.mp4")
FAILURES = (ValueError, OSError, RuntimeError, MemoryError)  # of one file; RuntimeError: torch, out of memory

Frame = tuple[Image.Image, float]  # a clip's picture and the seconds it is shown


# --- prediction -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predict_maps(
    model: Monodepth, pictures: Sequence[Image.Image], size: tuple[int, int], post_process: bool = True
) -> Tensor:
    """Left disparities (N, h, w) of RGB pictures of any sizes, all resized to `size` (h, w): float32, on the CPU."""
    resized = [picture.resize((size[1], size[0]), Image.Resampling.BILINEAR) for picture in pictures]
    images = torch.stack([to_tensor(picture) for picture in resized])
    images = images.to(next(model.parameters()).device, memory_format=torch.channels_last)
    disparity = testing.predict(model, images)[1] if post_process else model(images)[0][:, 0].float()
    return disparity.cpu()


def predict_picture(
    model: Monodepth, picture: Image.Image | str | Path, size: tuple[int, int] | None = None, post_process: bool = True
) -> Tensor:
    """Disparity of one picture, or picture file, at its own size (H, W), float32, as a fraction of the width.

    The network sees it at `size` (height, width), by default the size it was trained at. Raises ValueError naming a
    file that is no picture, or when neither `size` nor the model says at what size to look.
    """
    size = size or model.size
    if size is None:
        raise ValueError("the model does not know the size it was trained at: give size=(height, width)")
    image = picture.convert("RGB") if isinstance(picture, Image.Image) else open_picture(picture)
    disparity = predict_maps(model, [image], size, post_process)[0]
    return depth.resize_map(disparity, (image.height, image.width))


# --- what is there to predict -----------------------------------------------------------------------------------


def open_picture(path: str | Path) -> Image.Image:
    """`data.read_picture`, turned as the camera was held (EXIF). Raises ValueError naming a file that is no picture."""
    picture = read_picture(path)
    with contextlib.suppress(Exception):  # Pillow reads EXIF only now; where that is damaged, the picture is not
        return ImageOps.exif_transpose(picture)
    return picture


def is_own_output(path: Path) -> bool:
    """Whether an earlier run wrote this: street_colour.png with street_disparity.npy beside it."""
    match = re.fullmatch(r"(.+)_(disparity|depth|colour)", path.stem)
    return bool(match) and path.with_name(f"{match[1]}_disparity.npy").is_file()  # type: ignore[index]


def find_inputs(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The picture and clip files among `paths` and directly in their folders; and what is wrong with a path, in words.

    What an earlier run wrote is left out. A file that is named is taken whatever its suffix.
    """
    found: dict[Path, Path] = {}
    problems = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
            files = [p for p in files if p.suffix.lower() in PICTURES + CLIPS and not is_own_output(p)]
            if not files:
                problems.append(f"{path} holds no picture or clip (looked for {', '.join(PICTURES + CLIPS)})")
        elif path.is_file():
            files = [path] if not is_own_output(path) else []
        else:
            files = []
            problems.append(f"{path} is missing: name a picture, a gif, a video, or a folder of them")
        found |= {file.resolve(): file for file in files}
    return list(found.values()), problems


def output_stems(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each input's outputs go, without their ends: folder/a for a.png, folder/a_jpg if there is an a.jpg as well.

    A number is added as long as another input has the name, or an output would replace one of the inputs.
    """
    shared = Counter(path.stem.casefold() for path in paths)
    inputs = {path.resolve() for path in paths}
    stems: dict[Path, Path] = {}
    taken: set[str] = set()
    for path in paths:
        name = path.stem if shared[path.stem.casefold()] == 1 else f"{path.stem}_{path.suffix[1:].lower()}"
        for number in count(1):
            stem = folder / (name if number == 1 else f"{name}_{number}")
            outputs = {stem.with_name(stem.name + end).resolve() for end in ENDS}
            if stem.name.casefold() not in taken and not outputs & inputs:
                break
        taken.add(stem.name.casefold())
        stems[path] = stem
    return stems


# --- one picture ------------------------------------------------------------------------------------------------


def write_uint16(values: Tensor, path: Path) -> float:
    """Writes values (H, W) times 256 as a 16-bit PNG; returns the share of pixels that were too large for 16 bits."""
    scaled = (values * 256).round()
    array = scaled.clamp(1, 65535).numpy().astype(np.uint16)  # 0 would say "unknown"
    with atomic_write(path) as partial_path:
        Image.fromarray(array).save(partial_path, format="PNG")
    return float((scaled > 65535).float().mean())


def draw(
    picture: Image.Image, disparity: Tensor, limits: tuple[float, float], focal_baseline: float | None, width: int
) -> Image.Image:
    """The picture beside its disparity (h, w), each at most `width` px wide and never wider than the picture."""
    width = min(width, picture.width)
    height = max(1, round(width * picture.height / picture.width))
    small = picture.resize((width, height), Image.Resampling.BILINEAR)
    return gif.side_by_side(small, depth.resize_map(disparity, (height, width)).numpy(), limits, width, focal_baseline)


def write_picture(
    picture: Image.Image, disparity: Tensor, stem: Path, focal_baseline: float | None = None, width: int = 640
) -> str | None:
    """Writes a picture's outputs, `stem`_disparity.npy and so on; returns a sentence when 16 bits were too few.

    disparity: (h, w) of any size, as a fraction of the width. `metres`: the camera's f·B/W, where known.
    """
    own = depth.resize_map(disparity, (picture.height, picture.width))
    with atomic_write(stem.with_name(f"{stem.name}_disparity.npy")) as partial_path, open(partial_path, "wb") as file:
        write_npy_header(file, tuple(own.shape))
        file.write(own.numpy().astype("<f4").data)  # np.save would not notice that the disk is full
    note = None
    if focal_baseline is not None:
        write_uint16(depth.disparity_to_depth(own, focal_baseline), stem.with_name(f"{stem.name}_depth.png"))
    else:
        path = stem.with_name(f"{stem.name}_disparity.png")
        if too_large := write_uint16(own * picture.width, path):
            note = f"{path.name}: {too_large:.1%} of the pixels exceed the 256 px that fit in 16 bits; use the .npy"
    drawn = draw(picture, disparity, gif.colour_range(own.numpy()), focal_baseline, width)
    with atomic_write(stem.with_name(f"{stem.name}_colour.png")) as partial_path:
        drawn.save(partial_path, format="PNG")
    return note


# --- clips: frame after frame -----------------------------------------------------------------------------------


def import_av():
    """PyAV, which reads and writes videos. Raises ValueError saying how to install it."""
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
    """A phone's video is turned as it was held; the seconds come from the frames' time stamps, so they may vary."""
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
    """The frames of a gif or a video, RGB, in order. Raises ValueError naming a file that cannot be read to its end."""
    errors: tuple[type[Exception], ...] = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
    frames = gif_frames
    if path.suffix.lower() != ".gif":
        errors, frames = (*errors, import_av().FFmpegError), video_frames
    try:
        yield from frames(path)
    except errors as error:
        raise ValueError(f"{path} cannot be read as a clip ({error}): record or fetch it again") from error


def count_frames(path: Path) -> int | None:
    """How many frames a clip says it has, for the progress bar; None when it does not say."""
    with contextlib.suppress(Exception):  # what is wrong with it, reading it will tell
        if path.suffix.lower() == ".gif":
            with Image.open(path) as image:
                return image.n_frames  # type: ignore[attr-defined]
        with import_av().open(str(path)) as container:
            return container.streams.video[0].frames or None
    return None


def stream_gif(frames: Iterable[Frame], path: Path) -> None:
    """Writes an endless gif frame by frame; `gif.write_gif`, through Pillow, would hold all frames of a long clip.

    A frame that equals the one before it stays a frame of its own, and each has its own 256 colours.
    """
    with open(path, "wb") as file:
        for index, (picture, seconds) in enumerate(frames):
            if index == 0:
                file.write(b"GIF89a" + struct.pack("<HHBBB", *picture.size, 0, 0, 0))
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # repeat for ever
            indexed = picture.quantize(256)
            for block in GifImagePlugin.getdata(indexed, duration=round(1000 * seconds), include_color_table=True):
                file.write(block)
        file.write(b";")


def stream_video(frames: Iterable[Frame], path: Path) -> None:
    """Writes an mp4 (H.264, no sound) frame by frame, each shown as long as it says."""
    av = import_av()
    ticks, elapsed = 90_000, 0.0  # a second in MPEG's usual unit
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "20", "bf": "0"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, ticks)
        for picture, seconds in frames:
            if elapsed == 0:  # the format has one colour for two by two pixels: sizes must be even
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
    """Writes maps that come in chunks (n, h, w) as one float32 .npy (frames, h, w). Writes nothing when none come."""
    with atomic_write(path) as partial_path, open(partial_path, "wb") as file:
        total, shape = 0, (0, 0)
        for chunk in chunks:
            if total == 0:
                shape = chunk.shape[1:]
                write_npy_header(file, (0, *shape))
            file.write(np.ascontiguousarray(chunk, dtype="<f4").tobytes())
            total += len(chunk)
        file.seek(0)
        write_npy_header(file, (total, *shape))  # as long as before: NumPy leaves room for the first axis to grow


def batched(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def write_clip(
    path: Path,
    stem: Path,
    predict: Callable[[list[Image.Image]], Tensor],
    metres_at: Callable[[int], float | None] = lambda width: None,
    width: int = 640,
    batch_size: int = 4,
) -> None:
    """Writes the outputs of one gif or video, which is read twice: to predict, and to draw with one range of colours.

    `predict` turns pictures into disparities (N, h, w), `metres_at` a picture's width into the camera's f·B/W. Raises
    ValueError naming a clip that cannot be read or is empty.
    """
    bar = partial(tqdm, unit="frame", leave=False, disable=None)
    counts, edges = np.histogram([], bins=10_000, range=(0, MAX_DISPARITY))
    focal_baseline: float | None = None

    def disparities() -> Iterator[np.ndarray]:
        nonlocal counts, focal_baseline
        frames = bar(read_frames(path), total=count_frames(path), desc=f"{path.name}, predicting")
        for chunk in batched((picture for picture, _ in frames), batch_size):
            focal_baseline = metres_at(chunk[0].width)
            maps = predict(chunk).numpy()
            counts = counts + np.histogram(maps, edges)[0]
            yield maps
        if not counts.any():
            raise ValueError(f"{path} holds no frame: record or fetch it again")

    disparity_path = stem.with_name(f"{stem.name}_disparity.npy")
    write_maps(disparities(), disparity_path)
    maps = np.load(disparity_path, mmap_mode="r")
    if focal_baseline is not None:
        write_maps(
            (focal_baseline / np.maximum(chunk, 1e-6)[None] for chunk in maps), stem.with_name(f"{stem.name}_depth.npy")
        )

    high = float(edges[1:][np.searchsorted(counts.cumsum(), 0.99 * counts.sum())])  # as gif.colour_range, to 0.01 %
    shown = bar(zip(read_frames(path), maps, strict=True), total=len(maps), desc=f"{path.name}, drawing")
    drawn = (
        (draw(picture, torch.from_numpy(values.copy()), (0, high), focal_baseline, width), seconds)
        for (picture, seconds), values in shown
    )
    stream, suffix = (stream_gif, ".gif") if path.suffix.lower() == ".gif" else (stream_video, ".mp4")
    with atomic_write(stem.with_name(f"{stem.name}_colour{suffix}")) as partial_path:
        stream(drawn, partial_path)


# --- the command ------------------------------------------------------------------------------------------------


def positive(kind: type) -> Callable[[str], float]:
    """A command line's number above 0."""

    def read(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} must be more than 0")
        return value

    read.__name__ = kind.__name__  # argparse names it when `text` is no number
    return read


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m monodepth_lib.commands.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a picture, a gif, a video, or a folder of them")
    add("--weights", required=True, help="a .safetensors file, or a name in models/ such as unet_sample")
    add("--output", metavar="FOLDER", help="where to write (default: output/predict in the project)")
    add("--focal-px", type=positive(float), metavar="F", help="focal length, in px of the pictures given")
    add(
        "--baseline-m",
        type=positive(float),
        metavar="B",
        help="baseline of the training cameras in metres (KITTI: 0.54)",
    )
    add("--camera", metavar="FILE", help="camera.json with focal_px, baseline_m and width, in place of those two")
    add("--size", nargs=2, type=positive(int), metavar=("H", "W"), help="what the network sees (default: as trained)")
    add(
        "--no-post-process",
        action="store_true",
        help="do not blend with the mirrored picture's prediction: half the work",
    )
    add("--width", type=positive(int), default=640, help="px, of picture and map in the colour outputs (default: 640)")
    add("--batch-size", type=positive(int), default=4, help="pictures at a time (default: 4)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    options = parser.parse_args(arguments)
    if (options.focal_px is None) != (options.baseline_m is None):
        parser.error("--focal-px and --baseline-m belong together: depth takes both")
    if options.camera and options.focal_px:
        parser.error("--camera holds focal length and baseline: leave --focal-px and --baseline-m out")
    if options.camera and not Path(options.camera).is_file():
        parser.error(f"--camera {options.camera} is missing: write focal_px, baseline_m and width there, as JSON")
    if options.size and min(options.size) < SMALLEST:
        parser.error(
            f"--size {options.size[0]} {options.size[1]} is too small: the networks want {SMALLEST} px at least"
        )
    return options


@kept_memory()
def run(
    stems: dict[Path, Path],
    predict: Callable[[list[Image.Image]], Tensor],
    metres_at: Callable[[int], float | None] = lambda width: None,
    width: int = 640,
    batch_size: int = 4,
) -> list[Path]:
    """Predicts every input of `stems` (`output_stems`) and returns those that were skipped, after saying why."""
    skipped: list[Path] = []

    @contextlib.contextmanager
    def skipping(*paths: Path) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            skipped.extend(paths)
            names = ", ".join(map(str, paths))
            tqdm.write(f"skipped: {error}" if names in str(error) else f"skipped: {names}: {error}", file=sys.stderr)

    clips = [path for path in stems if path.suffix.lower() in CLIPS]
    with tqdm(total=len(stems), unit="file", disable=None) as bar:
        for chunk in batched((path for path in stems if path not in clips), batch_size):
            pictures: dict[Path, Image.Image] = {}
            for path in chunk:
                with skipping(path):
                    pictures[path] = open_picture(path)
            maps: Sequence[Tensor] | Tensor = []
            if pictures:
                with skipping(*pictures):
                    maps = predict(list(pictures.values()))
            for (path, picture), disparity in zip(pictures.items(), maps, strict=False):  # no maps when it failed
                with skipping(path):
                    note = write_picture(picture, disparity, stems[path], metres_at(picture.width), width)
                    if note:
                        tqdm.write(note)
            bar.update(len(chunk))
        for path in clips:
            with skipping(path):
                write_clip(path, stems[path], predict, metres_at, width, batch_size)
            bar.update()
    return skipped


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 something was skipped, 2 nothing could be done."""
    options = read_options(arguments)
    paths, problems = find_inputs(options.paths)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not paths:
        print("there is nothing to predict (what earlier runs wrote is left out)", file=sys.stderr)
        return 2
    try:
        weights = Path(options.weights).expanduser()
        model = for_prediction(load_model(weights.resolve() if weights.is_file() else options.weights))
        model = model.to(pick_device(options.device), memory_format=torch.channels_last)  # type: ignore[call-overload]
        camera = read_camera_file(options.camera) if options.camera else None
    except FAILURES as error:
        print(error, file=sys.stderr)
        return 2

    def metres_at(width: int) -> float | None:
        if camera:
            return camera.focal_baseline
        return options.focal_px * options.baseline_m / width if options.focal_px else None

    height, width = options.size or model.size or (0, 0)
    print(f"the network sees every picture at {height}x{width} (height x width); answers get the picture's size back")
    predict = partial(predict_maps, model, size=(height, width), post_process=not options.no_post_process)
    folder = Path(options.output).expanduser() if options.output else project_path("output/predict")
    stems = output_stems(paths, folder)
    skipped = run(stems, predict, metres_at, options.width, options.batch_size)
    print(f"{len(stems) - len(skipped)} of {len(stems)} files are done; results are in {folder}")
    return 1 if skipped or problems else 0


if __name__ == "__main__":
    sys.exit(main())
