"""Another checkout to measure beside, in a process of its own: `--peer FOLDER`.

It is this project at an older commit, or the lab's base code, OniroAI/MonoDepth-PyTorch, which takes two names from
`collections` that Python 3.10 removed; they are put back in memory. None of its files are changed.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import importlib
import inspect
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

BASE_CODE = "models_resnet.py"


def kind(folder: Path) -> str:
    """ "older" or "base code". Raises ValueError for a folder that is neither."""
    if (folder / "monodepth_lib/losses.py").is_file():
        return "older"
    if (folder / BASE_CODE).is_file():
        return "base code"
    raise ValueError(f"{folder} has neither monodepth_lib nor {BASE_CODE}: give a checkout of this project or of "
                     "OniroAI/MonoDepth-PyTorch")  # fmt: skip


def module(folder: Path, name: str):
    """Imports one of its modules; from then on its folder is first on the path of this process."""
    if str(folder) not in sys.path:
        for known in [known for known in sys.modules if known.split(".")[0] == "monodepth_lib"]:
            del sys.modules[known]
        sys.path.insert(0, str(folder))
        for lost in ("Mapping", "Sequence"):
            if not hasattr(collections, lost):
                setattr(collections, lost, getattr(collections.abc, lost))
    return importlib.import_module(name)


def training_step(folder: Path, name: str, channels: int, left: Tensor, right: Tensor) -> Callable[[], nn.Module]:
    """A function that makes one step of its training: forward, loss, backward, Adam."""
    return (older_step if kind(folder) == "older" else base_code_step)(folder, name, channels, left, right)


def older_step(folder: Path, name: str, channels: int, left: Tensor, right: Tensor) -> Callable[[], nn.Module]:
    get_model = module(folder, "monodepth_lib.networks").get_model
    option = "width" if "width" in inspect.signature(get_model).parameters else "base_channels"
    network = get_model(name, **{option: channels}).to(memory_format=torch.channels_last).train()
    loss_function = module(folder, "monodepth_lib.losses").MonodepthLoss()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    left, right = (view.contiguous(memory_format=torch.channels_last) for view in (left, right))
    if (folder / "monodepth_lib/memory.py").is_file():  # as its training has it
        module(folder, "monodepth_lib.memory").kept_memory().__enter__()
    elif (folder / "monodepth_lib/fast.py").is_file():
        module(folder, "monodepth_lib.fast").faster_training(network, loss_function).__enter__()

    def step() -> nn.Module:
        optimizer.zero_grad()
        loss, _ = loss_function(network(left), left, right)
        loss.backward()
        optimizer.step()
        loss.item()
        return network

    return step


def base_code_step(folder: Path, name: str, channels: int, left: Tensor, right: Tensor) -> Callable[[], nn.Module]:
    network = module(folder, "utils").get_model(name).train()
    loss_function = module(folder, "loss").MonodepthLoss(n=4, SSIM_w=0.85, disp_gradient_w=0.1, lr_w=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> nn.Module:
        optimizer.zero_grad()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # as of old code under a new torch
            warnings.simplefilter("ignore")
            loss = loss_function(network(left), [left, right])
        loss.backward()
        optimizer.step()
        loss.item()  # its loop reads the loss in every step
        return network

    return step
