"""Item 1: a step of training beside the base code's and the reference's, and beside parts of itself alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType
from unittest import mock

import torch
from monodepth_lib.fast import kept_memory
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from . import ours, reference
from .measure import Options, Row, in_turn, rates, second
from .peer import Peer
from .pictures import make_drive

CASES = [  # network, width (unet), size, batches
    ("resnet18_md", 64, (256, 512), (4, 8)),
    ("resnet18_md", 64, (128, 384), (4, 8)),
    ("unet", 16, (256, 512), (4, 8)),
    ("unet", 16, (128, 416), (4, 8)),
    ("unet", 32, (256, 512), (4,)),
]
QUICK = [("resnet18_md", 64, (64, 128), (2,)), ("unet", 4, (64, 96), (2,))]
OTHER_LAYERS = "its upsampling is bilinear, its head has batch norm, its convolutions pad by copying"


class Convolutions(TorchDispatchMode):
    """Notes every convolution that is computed within it, forward and backward: the call, and its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            shapes = tuple((tuple(a.shape), a.stride()) if isinstance(a, Tensor) else a for a in args)
            self.calls.append((function, shapes, flop_registry[function.overloadpacket](*args, out_val=result)))
        return result


def convolution_seconds(calls: list[tuple[Callable, tuple, int]]) -> tuple[float, float]:
    """Seconds of all the calls, each done alone on tensors of its shapes; the best one's operations a second."""
    total, best = 0.0, 0.0
    for function, shapes, operations in calls:
        args = [torch.empty_strided(*a).fill_(0.5) if is_tensor(a) else a for a in shapes]
        start = time.perf_counter()
        function(*args)
        seconds = time.perf_counter() - start
        total, best = total + seconds, max(best, operations / seconds)
    return total, best


def is_tensor(argument: object) -> bool:
    """Whether an argument noted by `Convolutions` is a tensor's (shape, strides)."""
    return isinstance(argument, tuple) and len(argument) == 2 and all(isinstance(part, tuple) for part in argument)


def measure_case(
    name: str, width: int, left: Tensor, right: Tensor, options: Options, peer: Peer | None = None
) -> list[Row]:
    """The rows of one network, for one batch of pictures (N, 3, H, W)."""
    batch, _, *size = left.shape
    what = f"{name}{f' of width {width}' if name == 'unet' else ''}, {size[0]}x{size[1]}, batch {batch}"
    torch.manual_seed(0)
    weights = reference.Network(name, width).state_dict()
    step = ours.training_step(name, width, left, right, weights)
    plain_step = reference.training_step(name, width, left, right, weights)
    with Convolutions() as done:
        step()
    with Convolutions() as done_plainly:
        plain_step()
    no_loss = ours.network_step(name, width, left, weights)
    contenders: dict[str, Callable] = {
        "ours": lambda: second(step, kept_memory()),  # as in `training.train`
        "reference": lambda: second(plain_step),
        "no loss": lambda: second(no_loss, kept_memory()),
    }
    if peer and name == "resnet18_md":
        their_step = peer.training_step(name, left, right)
        contenders["base code"] = lambda: second(their_step)
        contenders["base code, kept memory"] = lambda: second(their_step, kept_memory())
    best: list[float] = []

    def convolutions() -> float:
        seconds, rate = convolution_seconds(done.calls)
        best.append(rate)
        return seconds

    seconds = in_turn({**contenders, "convolutions": convolutions}, options)
    alone = median(seconds["convolutions"])
    rows = []
    for other in ("base code", "base code, kept memory", "reference"):
        if other not in contenders:
            continue
        target = ">= 1.5" if name == "unet" else ">= 2.0" if other == "base code" or peer is None else ""
        floor = f"{median(seconds[other]) / median(seconds['no loss']):.2f} times if our loss took no time, "
        floor += f"{median(seconds[other]) / alone:.2f} if only our convolutions took time"
        note = f"{floor}; {OTHER_LAYERS}" if other.startswith("base code") else floor
        speeds = (rates(seconds[key], batch) for key in ("ours", other))
        rows.append(Row("1 step", what, "pictures/s", next(speeds), other, next(speeds), target, note))
    operations, plain = (sum(call[2] for call in calls) for calls in (done.calls, done_plainly.calls))
    note = (
        f"{operations / batch / 1e9:.1f} GFLOP a picture, {plain / batch / 1e9:.1f} in the plain layers; "
        f"convolutions alone {operations / alone / 1e9:.0f} GFLOP/s, the best of them {median(best) / 1e9:.0f}"
    )
    shares = [c / s for c, s in zip(seconds["convolutions"], seconds["ours"], strict=True)]
    rows.append(Row("1 step", f"{what}: share of the convolutions' rate", "", shares, note=note))
    return rows


def run(options: Options, peer: Peer | None) -> list[Row]:
    cases = QUICK if options.quick else CASES
    most = max(max(batches) for *_, batches in cases)
    drive = make_drive(options.folder / "step", options.data, most)
    rows: list[Row] = []
    for name, width, size, batches in cases:
        pairs = [reference.Pairs(drive, size, augment=False)[index] for index in range(max(batches))]
        for batch in batches:
            left, right = (
                torch.stack([pair[view] for pair in pairs[:batch]]) for view in ("left_image", "right_image")
            )
            if batch == batches[0] and not (options.quick and name == "resnet18_md"):
                rows += gradients_rows(name, width, left[:2], right[:2])
            rows += measure_case(name, width, left, right, options, peer)
    return rows


def gradients_rows(name: str, width: int, left: Tensor, right: Tensor) -> list[Row]:
    """How far the first step's gradients are from the reference's in float64: ours in float64, and ours in float32.

    The distance is |a - b| / |b| over all parameters together. Beside float32's stands the reference's own, which is
    rounding and nothing else: once with pictures in channels-last order, which we use, once as it is.
    """
    torch.manual_seed(0)
    weights = reference.Network(name, width).state_dict()

    def gradients(module: ModuleType, dtype: torch.dtype, order: torch.memory_format) -> Tensor:
        views = (view.to(dtype, memory_format=order) for view in (left, right))
        # the loss turns half precision into float32 by `.float()`, which must leave float64 as it is here
        with mock.patch.object(Tensor, "float", lambda x: x) if dtype == torch.float64 else contextlib.nullcontext():
            network = module.training_step(name, width, *views, weights)()
        return torch.cat([p.grad.flatten() for p in network.parameters()]).double()

    plain, last = torch.contiguous_format, torch.channels_last
    exact = gradients(reference, torch.float64, plain)

    def distance(module: ModuleType, dtype: torch.dtype, order: torch.memory_format) -> list[float]:
        return [float((gradients(module, dtype, order) - exact).norm() / exact.norm())]

    what = f"{name}, {left.shape[2]}x{left.shape[3]}: gradients' distance from the reference's in float64, ours in"
    rounded = distance(ours, torch.float32, last)
    same_order, as_it_is = (distance(reference, torch.float32, order) for order in (last, plain))
    note = "torch's batch norm on a CPU sums pictures in channels-last order less exactly"
    return [
        Row("1 step", f"{what} float64", "", distance(ours, torch.float64, last), target="<= 1e-9"),
        Row("1 step", f"{what} float32", "", rounded, "reference, channels last", same_order, "<= 2"),
        Row("1 step", f"{what} float32", "", rounded, "reference", as_it_is, note=note),
    ]
