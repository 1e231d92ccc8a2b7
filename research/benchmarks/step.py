"""A step of training: fast beside plain, and beside another checkout's; the shipped network also in half precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .measure import Options, Row, apart, in_turn, rates

SHIPPED = "unet_kitti_small"


@dataclass(frozen=True)
class Case:
    """A network, the size of its pictures and how many a step has; `repeat` steps are measured together."""

    network: str
    channels: int
    size: tuple[int, int]
    batch: int
    repeat: int = 1

    def __str__(self) -> str:
        channels = f" of {self.channels} channels" if self.network == "unet" else ""
        return f"{self.network}{channels}, {self.size[0]}x{self.size[1]}, batch {self.batch}"

    def views(self) -> tuple[Tensor, Tensor]:
        """Random pictures with detail: the content does not change the time."""
        generator = torch.Generator().manual_seed(0)
        small = torch.rand(self.batch, 3, self.size[0] // 8, self.size[1] // 8, generator=generator)
        left = nn.functional.interpolate(small, self.size, mode="bilinear")
        return left, left.roll(-8, -1)


CASES = [
    Case("unet", 8, (48, 160), 8, 10),  # the class profile
    Case("unet", 16, (128, 416), 8),
    Case("unet", 16, (256, 512), 4),
    Case("resnet18_md", 64, (256, 512), 4),
]
QUICK = [Case("unet", 4, (64, 96), 2)]


def training_step(
    name: str, channels: int, left: Tensor, right: Tensor, fast: bool, device: str = "cpu", precision: str = "float32"
) -> Callable[[], nn.Module]:
    """A function that makes one step as `training.train` does: forward, loss, backward, Adam."""
    from monodepth_lib import checkpoints, losses, networks, training  # the process may be another checkout's
    from monodepth_lib.fast import faster_training

    if name == SHIPPED:
        network = checkpoints.load_model(name).train()
    else:
        network = networks.get_model(name, base_channels=channels).train()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss_function = losses.MonodepthLoss()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    batch = training.to_device({"left_image": left, "right_image": right}, torch.device(device))
    views = batch["left_image"], batch["right_image"]
    tuned = contextlib.ExitStack()  # `step` keeps it open: thrown away, it would switch the plain code on again
    if fast:
        tuned.enter_context(faster_training(network, loss_function))

    def step(tuned: contextlib.ExitStack = tuned) -> nn.Module:
        optimizer.zero_grad()
        with training.autocast(torch.device(device), precision):
            disparities = network(views[0])
        loss, _ = loss_function(disparities, *views)
        loss.backward()
        optimizer.step()
        loss.item()
        return network

    return step


def ours(case: Case, fast: bool, device: str = "cpu", precision: str = "float32") -> Callable[[], object]:
    step = training_step(case.network, case.channels, *case.views(), fast, device, precision)
    return lambda: [step() for _ in range(case.repeat)]


def theirs(case: Case, folder: Path) -> Callable[[], object]:
    from . import peer

    step = peer.training_step(folder, case.network, case.channels, *case.views())
    return lambda: [step() for _ in range(case.repeat)]


def run(options: Options) -> list[Row]:
    if options.device != "cpu":  # the lab's Unet and the shipped network
        gpu = [Case("unet", 64, (256, 512), 8, 20), Case(SHIPPED, 0, (128, 416), 8, 20)]
        return by_precision(options, QUICK if options.quick else gpu)
    rows = []
    for case in QUICK if options.quick else CASES:
        contenders = {"fast": apart(ours, case, True), "plain": apart(ours, case, False)}
        if options.peer:
            from .peer import kind

            name = kind(options.peer)
            if name == "older" or case.network == "resnet18_md":
                contenders[name] = apart(theirs, case, options.peer)
        seconds = in_turn(contenders, options)
        speeds = {key: rates(values, case.batch * case.repeat) for key, values in seconds.items()}
        rows += [Row("step", str(case), "pictures/s", speeds["fast"], other, speeds[other]) for other in [*speeds][1:]]
    return rows + by_precision(options, QUICK if options.quick else [Case(SHIPPED, 0, (128, 416), 8)])


def by_precision(options: Options, cases: list[Case]) -> list[Row]:
    """Networks in plain float32, beside fast float32 and both in half precision."""
    rows = []
    for case in cases:
        kinds = [(fast, precision) for precision in ("float32", "bf16") for fast in (False, True)]
        names = {f"{'fast' if fast else 'plain'} {precision}": (fast, precision) for fast, precision in kinds}
        contenders = {name: apart(ours, case, fast, options.device, half) for name, (fast, half) in names.items()}
        speeds = {key: rates(s, case.batch * case.repeat) for key, s in in_turn(contenders, options).items()}
        for name, values in speeds.items():
            beside = ("plain float32", speeds["plain float32"]) if name != "plain float32" else ("", [])
            rows.append(Row("step", f"{case}, {name}", "pictures/s", values, *beside))
    return rows
