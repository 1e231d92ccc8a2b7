"""What is measured of the library: its own loop, loader and test, as the notebooks call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monodepth_lib import data, kitti, losses, networks, testing, training


def training_step(
    name: str, width: int, left: Tensor, right: Tensor, state: dict | None = None
) -> Callable[[], object]:
    """A function that makes one step of `training.train`: forward, loss, backward, Adam; it returns the network."""
    network = networks.get_model(name, base_channels=width)
    if state:
        network.load_state_dict(state)
    network = network.to(left.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    device, loss = torch.device("cpu"), losses.MonodepthLoss()
    batch = data.to_device({"left_image": left, "right_image": right}, device)

    def step() -> nn.Module:
        training.train_one_epoch(network, [batch], loss, optimizer, scheduler, device)  # type: ignore[arg-type]
        return network

    return step


def network_step(name: str, width: int, left: Tensor, state: dict) -> Callable[[], object]:
    """The same step without a loss: the network forward and backward, and Adam."""
    network = networks.get_model(name, base_channels=width)
    network.load_state_dict(state)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    images = left.contiguous(memory_format=torch.channels_last)
    slopes = [torch.full_like(map_, 1e-6) for map_ in network(images)]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(network(images), slopes)
        optimizer.step()

    return step


def loader(
    drive: Path, size: tuple[int, int], batch_size: int, augment: bool, cache: Path | None = None, workers: int = 0
) -> DataLoader:
    """The loader of training; with `cache`, from pictures that are decoded once, here and now."""
    return data.prepare_dataloader(
        kitti.find_pairs(drive),
        train=True,
        size=size,
        batch_size=batch_size,
        augment=augment,
        workers=workers,
        cache_dir=cache,
    )


def test_drive(network: nn.Module, drive: Path, size: tuple[int, int], output: Path, batch_size: int = 1):
    """Predicts a drive as notebook 06 does, `batch_size` pictures at a time; returns the post-processed maps."""
    tests = data.prepare_dataloader(kitti.find_pairs(drive), size=size, batch_size=batch_size)
    return testing.predict_loader(network, tests, output, "cpu")[2]  # type: ignore[arg-type]
