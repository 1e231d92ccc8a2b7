"""Notebook 05, behind it: the device of a network, its numerical precision, and its group of processes."""

from __future__ import annotations

import contextlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU that torch sees (NVIDIA's or AMD's cuda, else Apple's mps), else the CPU.

    Any other name is torch's own ("cpu", "cuda", "cuda:1", "mps"). Apple's is taken from torch 2.13 on: earlier ones
    cannot repeat the border in `grid_sample` there. Raises ValueError for a GPU that is not there, or another name.
    """
    can_warp = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and can_warp}
    if device == "auto":
        return torch.device(next((kind for kind, found in there.items() if found), "cpu"))
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; it must be 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    missing = found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    if missing or not there.get(found.type, True):
        raise ValueError(
            f"device is {device!r}, but torch {torch.__version__} has no such GPU here: use device='auto' or 'cpu'"
        )
    return found


def to_device(batch: dict, device: str | torch.device = "auto") -> dict:
    """Moves a batch's images to `device` in channels-last order, which is fastest for convolutions; keeps names."""
    target = pick_device(device) if isinstance(device, str) else device
    return {
        key: value.to(target, non_blocking=True, memory_format=torch.channels_last)
        if isinstance(value, torch.Tensor) and value.ndim == 4
        else value
        for key, value in batch.items()
    }


def pick_precision(precision: str, device: torch.device) -> str:
    """ "auto" is float32 on a CPU or Apple's GPU, bf16 on a GPU that has it, else fp16; other names stay."""
    if precision not in ("auto", "float32", "bf16", "fp16"):
        raise ValueError(f"precision is {precision!r}; it must be 'auto', 'float32', 'bf16' or 'fp16'")
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """The context for the network's forward pass in a `precision` ("float32", "bf16", "fp16"; see `pick_precision`)."""
    kind = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return contextlib.nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


def process() -> tuple[int, int]:
    """This process's number in its group and how many there are: (0, 1) without a group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Wraps `model` for a group of processes: equal weights at the start, gradients averaged in every step.

    Batch normalisation then sees only the process's share of the batch. On GPUs it is replaced (in place) by a version
    with statistics over all processes, which torch offers for CUDA only.
    """
    if device.type != "cuda":
        return DistributedDataParallel(model)
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, device_ids=[device.index])
