"""The lab's base code, OniroAI/MonoDepth-PyTorch, run from a checkout of the user's own: `--peer FOLDER`.

None of its code is here, and none of its files are changed. It takes two names from `collections` that Python 3.10
removed; they are put back in memory.
"""

from __future__ import annotations

import argparse
import collections
import collections.abc
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .measure import quiet

AUGMENTATION = [0.8, 1.2, 0.5, 2.0, 0.8, 1.2]  # its default: gamma, brightness, colour


class Peer:
    """The checkout in `folder`. Raises ValueError where it is another one."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser().resolve()
        if not (self.folder / "models_resnet.py").is_file():
            raise ValueError(f"{self.folder} has no models_resnet.py: give a checkout of OniroAI/MonoDepth-PyTorch")
        for name in ("Mapping", "Sequence"):
            if not hasattr(collections, name):
                setattr(collections, name, getattr(collections.abc, name))

    def module(self, name: str):
        """One of its modules; they import each other by bare names, so its folder leads the path meanwhile."""
        sys.path.insert(0, str(self.folder))
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(str(self.folder))

    def training_step(self, name: str, left: Tensor, right: Tensor) -> Callable[[], object]:
        """A function that makes one step of its loop, with its loss's weights: forward, loss, backward, Adam."""
        network = self.module("utils").get_model(name)
        loss_function = self.module("loss").MonodepthLoss(n=4, SSIM_w=0.85, disp_gradient_w=0.1, lr_w=1)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        network.train()

        def step() -> nn.Module:
            optimizer.zero_grad()
            with quiet():
                loss = loss_function(network(left), [left, right])
            loss.backward()
            optimizer.step()
            loss.item()  # its loop reads the loss in every step
            return network

        return step

    def loader(self, drive: Path, size: tuple[int, int], batch_size: int, augment: bool) -> DataLoader:
        """Its loader of training pairs of the only drive in the folder above `drive`."""
        with quiet():
            prepare = self.module("utils").prepare_dataloader
            return prepare(str(drive.parent), "train", AUGMENTATION, augment, batch_size, size, 0)[1]

    def tester(self, name: str, drive: Path, size: tuple[int, int], output: Path) -> Callable[[], None]:
        """Its own test loop, over the only drive in the folder above `drive`, with weights as they come."""
        weights = output / "peer.pth"
        torch.save(self.module("utils").get_model(name).state_dict(), weights)
        arguments = argparse.Namespace(
            mode="test",
            device="cpu",
            model=name,
            model_path=str(weights),
            data_dir=str(drive.parent),
            output_directory=str(output),
            input_height=size[0],
            input_width=size[1],
            input_channels=3,
            num_workers=0,
            pretrained=False,
            use_multiple_gpu=False,
        )
        with quiet():
            model = self.module("main_monodepth_pytorch").Model(arguments)

        def test() -> None:
            with quiet():
                model.test()

        return test
