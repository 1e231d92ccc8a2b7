"""One picture after the other through the shipped networks: torch plain, torch fast, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from monodepth_lib import checkpoints, networks
from monodepth_lib.fast import faster_prediction

from .measure import Options, Row, apart, in_turn, rates
from .step import SHIPPED


def load(name: str) -> networks.Monodepth:
    return networks.get_model("unet", base_channels=4).eval() if name == "tiny" else checkpoints.load_model(name)


def torch_network(name: str, size: tuple[int, int], count: int, fast: bool) -> Callable[[], object]:
    model = load(name)
    if fast:
        model = faster_prediction(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = torch.rand(1, 3, *size)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(count):
            model(picture.contiguous(memory_format=torch.channels_last))

    return work


def onnx_network(name: str, size: tuple[int, int], count: int, file: Path) -> Callable[[], object]:
    import onnxruntime

    from monodepth_lib.commands.export import export_onnx

    export_onnx(load(name), file, size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    picture = torch.rand(1, 3, *size).numpy()

    def work() -> None:
        for _ in range(count):
            session.run(["disparity"], {"images": picture})

    return work


def run(options: Options) -> list[Row]:
    if options.quick:
        return speeds_of("tiny", (64, 96), 2, options)
    return speeds_of(SHIPPED, (128, 416), 20, options) + speeds_of("unet_kitti", (192, 624), 20, options)


def speeds_of(name: str, size: tuple[int, int], count: int, options: Options) -> list[Row]:
    contenders = {
        "torch, plain": apart(torch_network, name, size, count, False),
        "torch, fast": apart(torch_network, name, size, count, True),
        "ONNX Runtime": apart(onnx_network, name, size, count, options.folder / f"{name}.onnx"),
    }
    speeds = {key: rates(values, count) for key, values in in_turn(contenders, options).items()}
    what = f"{name}, {size[0]}x{size[1]}, one at a time, as they are (post-processing takes two answers)"
    plain = "torch, plain"
    return [
        Row("predict", f"{what}: {key}", "pictures/s", values, *((plain, speeds[plain]) if key != plain else ()))
        for key, values in speeds.items()
    ]
