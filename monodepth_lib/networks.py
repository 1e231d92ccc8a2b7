"""Notebook 04: encoders, the decoder they share, and the models made of them.

Every model takes images (N, 3, H, W) in [0, 1] and returns four disparity maps (N, 2, h, w), full size first, then
1/2, 1/4 and 1/8. Channel 0 is the left view's disparity, channel 1 the right view's, as fractions of the width.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .files import atomic_write, project_root

MAX_DISPARITY = 0.3
SMALLEST = 32  # px: they halve a picture five or six times, and the loss looks at 1/8 of it through windows of 3x3
TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NETWORKS = ("unet", "unet_light", "resnet18_md", "resnet50_md", *TORCHVISION)


def conv_block(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ELU; same size at stride 1, half of it at stride 2."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ELU(inplace=True),
    )


# --- encoders: a picture -> features, finest first ----------------------------------------------------------------
# `channels` lists the features' channels, `first` the size of the first one: 1 = full, 2 = half.


class UnetEncoder(nn.Module):
    """Double 3x3 convolutions with max pooling between, w·(1, 2, 4, 8, 16, 16) channels at 1, 1/2, ..., 1/32.

    The fifth pool is ours: with four, a deep pixel sees about 140 px, less than the width of a near car.
    """

    first = 1

    def __init__(self, base_channels: int):
        super().__init__()
        self.channels = [base_channels * m for m in (1, 2, 4, 8, 16, 16)]
        before = [3, *self.channels[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(a, b), conv_block(b, b)) for a, b in zip(before, self.channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2, ceil_mode=True) if features else x)
            features.append(x)
        return features


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions, or the bottleneck 1x1, 3x3, 1x1 with four times the channels out.

    Every shortcut is a 1x1 convolution, as in the authors' code, also where the input could pass as it is; with
    `identity` it then does pass.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, bottleneck: bool = False, identity: bool = False):
        super().__init__()
        channels_out = channels * 4 if bottleneck else channels
        if bottleneck:
            body = [conv_block(channels_in, channels, 1), conv_block(channels, channels, 3, stride)]
            last = nn.Conv2d(channels, channels_out, 1, bias=False)
        else:
            body = [conv_block(channels_in, channels, 3, stride)]
            last = nn.Conv2d(channels, channels_out, 3, padding=1, bias=False)
        self.body = nn.Sequential(*body, last, nn.BatchNorm2d(channels_out))
        self.shortcut: nn.Module = nn.Identity()
        if not (identity and stride == 1 and channels_in == channels_out):
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.body(x) + self.shortcut(x), inplace=True)


class LightEncoder(nn.Module):
    """Residual blocks on a stem that halves the picture at once: features 1/2 to 1/32.

    A convolution at full size costs four times one at half size, and a picture's finest disparity edges are not worth
    that on a CPU: the decoder of this encoder ends at 1/2.
    """

    first = 2
    finest = 1  # where the decoder ends
    channels = (32, 64, 128, 224, 256)

    def __init__(self) -> None:
        super().__init__()
        widths = self.channels
        self.stem = nn.Sequential(conv_block(3, widths[0], 5, 2), conv_block(widths[0], widths[0]))
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(a, b, 2), Residual(b, b, 1, identity=True)) for a, b in itertools.pairwise(widths)
        )
        self.stages[-1].append(Residual(widths[-1], widths[-1], 1, identity=True))  # type: ignore[operator]

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem((x - 0.5) * 4)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class ResnetMdEncoder(nn.Module):
    """The residual encoder of the paper's code: 7x7 stem, pool, four stages that each halve: features 1/2 to 1/64."""

    first = 2

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool):
        super().__init__()
        self.stem = conv_block(3, 64, 7, 2)
        stages, channels = [], 64
        self.channels = [64, 64]
        for planes, count in zip((64, 128, 256, 512), blocks, strict=True):
            stage = []
            for block in range(count):
                stage.append(Residual(channels, planes, 2 if block == 0 else 1, bottleneck))
                channels = planes * 4 if bottleneck else planes
            stages.append(nn.Sequential(*stage))
            self.channels.append(channels)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        features.append(F.max_pool2d(features[-1], 3, 2, 1))
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class TorchvisionEncoder(nn.Module):
    """torchvision's ResNet, features 1/2 to 1/32, optionally with its ImageNet weights.

    The input is normalised here, once, with ImageNet's mean and deviation. Raises RuntimeError when the weights are
    wanted and cannot be fetched.
    """

    first = 2
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, imagenet: bool):
        super().__init__()
        try:
            net = torchvision.models.get_model(name, weights="IMAGENET1K_V1" if imagenet else None)
        except OSError as error:
            raise RuntimeError(
                f"ImageNet weights of {name} could not be fetched ({error}): use imagenet=False"
            ) from error
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.pool = net.maxpool
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        expansion = 4 if name not in ("resnet18", "resnet34") else 1
        self.channels = [64, *(c * expansion for c in (64, 128, 256, 512))]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stem((x - self.mean) / self.std)]
        x = self.pool(features[-1])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


# --- decoder ------------------------------------------------------------------------------------------------------


def resize_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize; doubles at even sizes, and makes odd ones meet, so that any picture size works."""
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, tuple(size), mode="nearest")


class UpBlock(nn.Sequential):
    """Nearest upsampling to `size`, then a `conv_block`: convolution, batch normalisation, ELU.

    Twice as large, the four new pixels of an old one are equal, so a 3x3 window over them meets at most 2x2 different
    values. One transposed convolution with the sums of the kernel's weights gives the same result (to rounding) with
    4/9 of the multiplications, and the upsampled features are never written. At other sizes, and where the picture is
    so small that summing the weights costs more than it saves, the two steps are done as they are said.
    """

    kernel: Tensor | None  # the summed weights, where they no longer change (see `for_prediction`)
    gives: Tensor  # which weights are summed; a buffer, since a GPU would wait for a tensor made of a list

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(*conv_block(channels_in, channels_out))
        self.register_buffer("kernel", None, persistent=False)
        gives = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("gives", gives, persistent=False)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        convolution, norm, activation = self
        height, width = x.shape[-2:]
        exporting = torch.onnx.is_in_onnx_export()  # a file for any number of pictures cannot choose by their number
        if not exporting and tuple(size) == (2 * height, 2 * width) and x.shape[0] * height * width >= 256:
            kernel = self.summed_kernel() if self.kernel is None else self.kernel
            x = F.conv_transpose2d(x, kernel, convolution.bias, stride=2, padding=1)  # type: ignore[arg-type]
        else:
            x = convolution(resize_to(x, size))
        return activation(norm(x))

    def summed_kernel(self) -> Tensor:
        """(in, out, 4, 4): what an old pixel gives to the 4x4 new ones around it, from the weights (out, in, 3, 3).

        Along one axis, a new pixel sees old ones through w1, w2, w3; an old one covers two, so it gives w3, w3 + w2,
        w2 + w1, w1 to four new ones in a row.
        """
        return torch.einsum("ai,bj,ocij->coab", self.gives, self.gives, self[0].weight)  # type: ignore[arg-type]


class DisparityHead(nn.Module):
    """3x3 convolution to two channels, then 0.3·sigmoid: disparities in (0, 0.3) of the width.

    Its bias makes a fresh model say `start` everywhere. At 0.15, where a bias of zero starts, everything would be 2 m
    away, and the photometric loss has no slope from there to the truth (notebook 03). No batch normalisation here: the
    level of the disparity is the answer, and it must be the same in training and in testing.
    """

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.01)
        nn.init.constant_(self.conv.bias, math.log(start / (MAX_DISPARITY - start)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return MAX_DISPARITY * torch.sigmoid(self.conv(x))
        with torch.autocast(x.device.type, enabled=False):  # bf16 knows some 50 disparities around 0.03
            return MAX_DISPARITY * torch.sigmoid(self.conv(x.float()))


class Decoder(nn.Module):
    """From the coarsest feature to full size: upsample, convolve, join the skip, convolve; heads at 1/8, 1/4, 1/2, 1.

    The coarser disparity, upsampled, is joined too, so each level refines the one before. With `finest` 1 the last
    convolutions are those at 1/2, and the full-size disparity is theirs, interpolated.
    """

    def __init__(self, skips: Sequence[int], widths: list[int], first: int, start: float, finest: int = 0):
        """`skips`: the encoder's channels, finest first; `widths`: this decoder's, for levels 1, 1/2, 1/4, ..."""
        super().__init__()
        self.finest = finest
        self.levels = len(skips) if first == 2 else len(skips) - 1
        skip_at = ([0, *skips] if first == 2 else list(skips))[: self.levels]
        self.up, self.join, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = skips[-1]
        for level in reversed(range(finest, self.levels)):
            disparity = 2 if level < 3 else 0
            self.up.append(UpBlock(channels, widths[level]))
            self.join.append(conv_block(widths[level] + skip_at[level] + disparity, widths[level]))
            if level < 4:
                self.heads.append(DisparityHead(widths[level], start))
            channels = widths[level]

    def forward(self, features: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """`size` is the picture's (height, width)."""
        skips: list[Tensor | None] = [*features] if features[0].shape[-2:] == size else [None, *features]
        x = features[-1]
        del skips[-1]
        disparities: list[Tensor] = []
        for up, join in zip(self.up, self.join, strict=True):
            skip = skips.pop()
            target = size if skip is None else skip.shape[-2:]
            parts = [up(x, target)]
            if skip is not None:
                parts.append(skip)
            if disparities:
                parts.append(resize_to(disparities[0], target))
            x = join(torch.cat(parts, dim=1))
            if len(skips) < 4:
                disparities.insert(0, self.heads[3 - len(skips)](x))
        if self.finest:
            disparities.insert(0, F.interpolate(disparities[0], tuple(size), mode="bilinear", align_corners=False))
        return disparities


class Monodepth(nn.Module):
    """An encoder and the decoder. `config` holds what `get_model` needs to make the same model again."""

    luma: Tensor

    def __init__(self, encoder: nn.Module, widths: list[int], start_disparity: float, grey: bool, config: dict):
        super().__init__()
        self.encoder = encoder
        finest = getattr(encoder, "finest", 0)
        self.decoder = Decoder(encoder.channels, widths, encoder.first, start_disparity, finest)  # type: ignore[arg-type]
        self.grey = grey
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)
        self.config = config
        self.size: tuple[int, int] | None = None  # (height, width) it was trained at, known once loaded
        self.notes: dict = {}  # what `save_model` was told beside it, such as the drives it was trained on

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.grey:  # a model of grey cameras sees colour pictures as the grey ones it knows (ITU-R 601)
            images = (images * self.luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        return self.decoder(self.encoder(images), images.shape[-2:])


def get_model(
    name: str = "unet",
    *,
    base_channels: int = 64,
    start_disparity: float = 0.03,
    imagenet: bool = False,
    grey: bool = False,
) -> Monodepth:
    """Makes a model by name: unet, unet_light, resnet18_md, resnet50_md, or torchvision's resnet18, 34, 50, 101, 152.

    `base_channels` (unet) sets the channels, 64 for the full KITTI run; `start_disparity` what a fresh model answers, as a
    fraction of the width in (0, 0.3); `imagenet` (torchvision) starts from ImageNet weights, which are fetched;
    `grey` makes the model turn its input to grey first. Raises ValueError for another name or value.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network is named {name!r}; there are {', '.join(NETWORKS)}")
    if not 0 < start_disparity < MAX_DISPARITY:
        raise ValueError(f"start_disparity is {start_disparity}; it must lie between 0 and {MAX_DISPARITY}")
    if base_channels < 1:
        raise ValueError(f"base_channels is {base_channels}; it must be at least 1")
    if imagenet and name not in TORCHVISION:
        raise ValueError(f"imagenet=True works with {', '.join(TORCHVISION)}, not with {name}")
    encoder: nn.Module
    widths = [16, 32, 64, 128, 256, 512]
    if name == "unet":
        encoder = UnetEncoder(base_channels)
        widths = encoder.channels[:-1]
    elif name == "unet_light":
        encoder, widths = LightEncoder(), [0, 32, 48, 64, 128]
    elif name == "resnet18_md":
        encoder = ResnetMdEncoder((2, 2, 2, 2), bottleneck=False)
    elif name == "resnet50_md":
        encoder = ResnetMdEncoder((3, 4, 6, 3), bottleneck=True)
    else:
        encoder = TorchvisionEncoder(name, imagenet)
    config = {"name": name, "start_disparity": start_disparity, "grey": grey}
    if name == "unet":
        config["base_channels"] = base_channels
    return Monodepth(encoder, widths, start_disparity, grey, config)


class QuickElu(nn.Module):
    """ELU in place for prediction on a CPU, to rounding: max(x, exp(min(x, 0)) - 1), in pieces that fit its cache.

    torch's own computes exp(x) - 1 more exactly near 0, which takes twice as long; no sum here would show it.
    """

    PIECE = 1 << 17

    def forward(self, x: Tensor) -> Tensor:
        values = x.permute(0, 2, 3, 1)  # in the order in which a channels-last tensor lies in memory
        if x.device.type != "cpu" or not values.is_contiguous():
            return F.elu_(x)
        for piece in values.view(-1).split(self.PIECE):
            torch.maximum(piece, piece.clamp(max=0).exp_().sub_(1), out=piece)
        return x


def for_prediction(model: Monodepth) -> Monodepth:
    """A copy of `model` in eval mode that gives the same answers (to rounding) sooner, and cannot be trained.

    In eval mode batch normalisation is a fixed scale and shift, which the convolution before it takes over; the kernels
    of `UpBlock` are summed once; ELU is `QuickElu`. Weights that stay as they are are shared with `model`, not copied.
    """
    shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    model = copy.deepcopy(model, shared).eval()  # type: ignore[arg-type]
    for module in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
        for place, (one, next_one) in enumerate(itertools.pairwise(module)):
            if isinstance(one, nn.Conv2d) and isinstance(next_one, nn.BatchNorm2d):
                norm: Any = next_one
                one.weight, one.bias = fuse_conv_bn_weights(
                    one.weight, one.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                module[place + 1] = nn.Identity()
            if isinstance(next_one, nn.ELU):
                module[place + 1] = QuickElu()
        if isinstance(module, UpBlock):
            module.kernel = module.summed_kernel().detach().contiguous(memory_format=torch.channels_last)
    return model.requires_grad_(False)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- weights on disk: safetensors, which holds numbers and no code --------------------------------------------------


def save_model(model: Monodepth, path: str | Path, size: tuple[int, int], **notes: object) -> None:
    """Writes weights, the model's configuration and the picture `size` (height, width) it was trained at, in one piece.

    `notes` are kept with them, as JSON: `training.train` notes the epoch and the drives it learnt from. The file is
    written beside and renamed, so that a full disk or a kill leaves the old one. Raises OSError naming it.
    """
    path = Path(path)
    metadata = {"config": json.dumps(model.config), "size": json.dumps(size), "notes": json.dumps(notes)}
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def weights_path(weights: str | Path) -> Path:
    """The `.safetensors` file of a path, or of a name in `models/` ("unet_sample"); a relative path is the project's.

    Raises FileNotFoundError naming where it looked.
    """
    path = Path(weights).expanduser()
    if path.suffix != ".safetensors":
        path = project_root() / "models" / f"{weights}.safetensors"
    elif not path.is_absolute():
        path = project_root() / path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: train with notebook 05, or name a model that lies in models/")
    return path


def load_model(weights: str | Path) -> Monodepth:
    """The model of a `.safetensors` file, or of a name in `models/` ("unet_sample"), in eval mode.

    `model.size` and `model.notes` are those it was saved with. Raises FileNotFoundError naming where it looked and
    ValueError for a file that holds something else.
    """
    path = weights_path(weights)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        config, size = json.loads(metadata["config"]), json.loads(metadata["size"])
        if "width" in config:  # what files written before 0.2 call it
            config["base_channels"] = config.pop("width")
        model = get_model(config.pop("name"), **config)
        model.load_state_dict(safetensors.torch.load_file(path))
        if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
            raise ValueError("a weight is not a finite number")
        model.size = (int(size[0]), int(size[1]))
        model.notes = json.loads(metadata.get("notes", "{}"))
    except (safetensors.SafetensorError, LookupError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds no monodepth weights ({str(error)[:200]}): train again with notebook 05"
        ) from error
    return model.eval()


# --- ONNX: the same network for other programs ----------------------------------------------------------------------

ONNX_OUTPUTS = ("disparity", "disparity_2", "disparity_4", "disparity_8")
ONNX_TOLERANCE = 1e-4  # of the width: a file further from torch's answer is not kept


def export_onnx(model: Monodepth, path: str | Path, size: Sequence[int] | None = None) -> float:
    """Writes `model`, in eval mode, as an ONNX file, and runs it: returns its largest difference from torch's answer.

    Input `images` (N, 3, H, W), RGB in [0, 1], for any N; `size` (H, W) is fixed in the file, the one the weights were
    trained at unless given. Outputs `disparity`, `disparity_2`, `disparity_4`, `disparity_8` (N, 2, h, w) at 1, 1/2,
    1/4, 1/8, left and right, as fractions of the width. The file is written beside and renamed.
    Raises ImportError when the extra `onnx` is missing, ValueError for a missing or impossible size, RuntimeError when
    the file's answer is further than 1e-4 from torch's, OSError naming a file that cannot be written.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch's exporter uses it
    except ImportError as error:
        raise ImportError(f'ONNX export needs the extra "onnx" ({error}): pip install -e ".[onnx]"') from error
    height, width = size or model.size or (0, 0)
    if height < 1 or width < 1:
        raise ValueError(f"the picture size is {height} x {width}: give the (height, width) the network shall work at")
    path = Path(path)
    training = model.training
    model.eval()
    try:
        program = torch.onnx.export(
            model,
            (torch.rand(2, 3, height, width, device=next(model.parameters()).device),),
            input_names=["images"],
            output_names=list(ONNX_OUTPUTS),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.graph.metadata_props.clear()
        for node in program.model.graph:  # the exporter notes the source's paths on this machine
            node.metadata_props.clear()
        with atomic_write(path) as partial:
            program.save(partial, external_data=False)
            difference = onnx_difference(model, partial, (height, width))
            if not difference <= ONNX_TOLERANCE:
                raise RuntimeError(f"{path} is {difference:.1e} of the width away from torch's answer: it was not kept")
    finally:
        model.train(training)
    return difference


def onnx_difference(model: nn.Module, path: str | Path, size: tuple[int, int]) -> float:
    """Largest |difference| between `model` and its ONNX file, over all outputs for 1 and for 3 random pictures."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    device, largest = next(model.parameters()).device, []
    for count in (1, 3):
        images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(images.to(device))
        answers = session.run(list(ONNX_OUTPUTS), {"images": images.numpy()})
        largest += [(torch.from_numpy(a) - b.cpu()).abs().max() for a, b in zip(answers, expected, strict=True)]
    return float(torch.stack(largest).max())  # not a number when one of them is


def main(arguments: list[str] | None = None) -> int:
    """`python -m monodepth_lib.networks --weights unet_sample --onnx unet_sample.onnx`. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m monodepth_lib.networks", description="Weights as an ONNX file.")
    parser.add_argument("--weights", required=True, help="a name in models/, or the path of a .safetensors file")
    parser.add_argument("--onnx", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="default: the weights' own")
    options = parser.parse_args(arguments)
    try:
        model = load_model(options.weights)
        difference = export_onnx(model, options.onnx, options.size)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    height, width = options.size or model.size  # type: ignore[misc]
    print(f"{options.onnx}: {options.weights} for pictures of {height} x {width}, any number at a time")
    print(f"largest difference from torch under onnxruntime: {difference:.0e} of the width")
    return 0


if __name__ == "__main__":
    sys.exit(main())
