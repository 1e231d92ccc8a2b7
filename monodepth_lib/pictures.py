"""One picture, one answer: `monodepth_lib.load("unet_kitti").predict("street.jpg")`.

The network sees every picture at its training size; the disparity is resized to the size of the picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from . import depth, gif, testing
from .calibration import check_camera
from .checkpoints import load_model
from .devices import pick_device
from .fast import faster_prediction
from .files import read_picture
from .plots import colour_map

Picture = Image.Image | np.ndarray | str | Path


@dataclass(frozen=True)
class Prediction:
    """The prediction for a picture (H, W): `disparity` float32 (H, W), fraction of the width; `depth` in metres."""

    picture: Image.Image
    disparity: np.ndarray
    depth: np.ndarray | None = None  # float32 (H, W), when the camera is known

    @property
    def coloured(self) -> Image.Image:
        """The disparity as a picture: bright is near."""
        return Image.fromarray(colour_map(self.disparity, *gif.colour_range(self.disparity)))


class OnnxNetwork:
    """A file of `monodepth export`, run on the CPU by onnxruntime. It is called like a network."""

    def __init__(self, path: str | Path) -> None:
        """Raises ModuleNotFoundError without onnxruntime, FileNotFoundError or ValueError naming the file."""
        try:
            import onnxruntime
        except ImportError as error:
            raise ModuleNotFoundError('ONNX files need onnxruntime: pip install -e ".[onnx]"') from error
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing: make it with monodepth export")
        try:
            self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (given,) = self.session.get_inputs()
            _, channels, height, width = given.shape
            answers = [output.name for output in self.session.get_outputs()]
            if (given.name, channels) != ("images", 3) or "disparity" not in answers:
                raise ValueError(f"it takes {given.name} {given.shape} and answers {', '.join(answers)}")
            self.size = int(height), int(width)
        except Exception as error:  # onnxruntime's errors have no common class
            raise ValueError(
                f"{path} holds no network of monodepth export ({str(error)[:200]}): export again"
            ) from error

    def __call__(self, images: Tensor) -> list[Tensor]:
        """The disparities [(N, 2, H, W)] of images (N, 3, H, W), only at full size."""
        (answer,) = self.session.run(["disparity"], {"images": images.numpy()})
        return [torch.from_numpy(answer)]


@dataclass(frozen=True)
class Predictor:
    """A network that is ready for pictures. It sees each of them at `size` (height, width)."""

    network: Callable[[Tensor], list[Tensor]]
    size: tuple[int, int]
    device: str | torch.device = "cpu"
    post_process: bool = True

    @torch.inference_mode()
    def maps(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Left disparities (N, h, w) of RGB pictures of any sizes, at the network's `size`: float32, on the CPU."""
        height, width = self.size
        resized = [picture.resize((width, height), Image.Resampling.BILINEAR) for picture in pictures]
        images = torch.stack([to_tensor(picture) for picture in resized])
        images = images.to(self.device, memory_format=torch.channels_last)
        if self.post_process:
            return testing.predict(self.network, images)[1].cpu()  # type: ignore[arg-type]
        return self.network(images)[0][:, 0].float().cpu()

    def predict(
        self, picture: Picture, *, focal_px: float | None = None, baseline_m: float | None = None
    ) -> Prediction:
        """The prediction for a picture, an array (H, W) or (H, W, 3), or a picture file.

        With both numbers of a camera it includes depth in metres. `focal_px`: focal length in px of this picture.
        `baseline_m`: baseline of the stereo cameras of the training pairs (KITTI: 0.53 m). Raises ValueError naming a
        file that is not a picture, or an impossible number.
        """
        image = to_picture(picture)
        if (focal_px is None) != (baseline_m is None):
            raise ValueError("focal_px and baseline_m belong together: depth takes both")
        focal_baseline = None
        if focal_px is not None and baseline_m is not None:
            check_camera(focal_px, baseline_m, image.width)
            focal_baseline = focal_px * baseline_m / image.width
        return answer(image, self.maps([image])[0], focal_baseline)


def answer(image: Image.Image, disparity: Tensor, focal_baseline: float | None = None) -> Prediction:
    """The `Prediction` from a network's disparity (h, w), resized to the picture; `focal_baseline`: f·B/W in metres."""
    own = depth.resize_map(disparity, (image.height, image.width))
    metres = None if focal_baseline is None else depth.disparity_to_depth(own, focal_baseline).numpy()
    return Prediction(image, own.numpy(), metres)


def to_picture(picture: Picture) -> Image.Image:
    """An RGB picture of 8 bits. Arrays hold 0 to 255 (uint8), 0 to 65535 (uint16) or 0 to 1 (float)."""
    if isinstance(picture, str | Path):
        return read_picture(picture)
    if isinstance(picture, Image.Image) and not picture.mode.startswith(("I", "F")):  # those are not 8 bits
        with contextlib.suppress(Exception):  # damaged EXIF data do not damage the picture
            picture = ImageOps.exif_transpose(picture)
        return picture.convert("RGB")
    array = np.asarray(picture)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"the array's shape is {array.shape}; a picture is (height, width) or (height, width, 3)")
    if array.dtype == np.int32 and 0 <= array.min() <= array.max() < 65536:
        array = array.astype(np.uint16)  # how Pillow holds 16 bits
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"the array holds {array.min():g} to {array.max():g}; floats must lie from 0 to 1")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"the array holds {array.dtype}; give uint8, uint16, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def load(
    weights: str | Path, *, size: tuple[int, int] | None = None, device: str = "auto", post_process: bool = True
) -> Predictor:
    """The network of a name in `models/` ("unet_kitti") or of a .safetensors file, ready for `predict`.

    `size` (height, width) is the network's input size, by default that of its training. `post_process` blends the
    prediction with that of the mirrored picture. Raises FileNotFoundError naming the missing file, ValueError for a
    file that holds no weights of this library.
    """
    path = Path(weights)
    model = load_model(path.absolute() if path.is_file() else weights)
    seen = size or model.size
    if seen is None:
        raise ValueError("the model does not know the size it was trained at: give size=(height, width)")
    target = pick_device(device)
    network = faster_prediction(model).to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Predictor(network, seen, target, post_process)
