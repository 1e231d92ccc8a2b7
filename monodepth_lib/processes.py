"""Several processes that train one model, started by torchrun: who am I, and what do the others say?"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .data import pick_device, process


def gather(value: object) -> list:
    """The `value` of each process."""
    everyone = [value] * process()[1]
    if len(everyone) > 1:
        dist.all_gather_object(everyone, value)
    return everyone


def from_first(value):
    """The `value` of the first process, for all."""
    box = [value]
    if process()[1] > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


def share_model(model: nn.Module, device: torch.device, sync_batch_norm: bool = True) -> nn.Module:
    """`model` as each process trains it: the same weights at the start, and gradients averaged in every step.

    Batch normalisation of one process sees its share of the batch alone. On GPUs it is turned (in place) into one that
    takes its statistics over all of them, which torch has for CUDA only.
    """
    if device.type != "cuda":
        return DistributedDataParallel(model)
    if sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, device_ids=[device.index])


def join_group(device: str) -> str:
    """Joins the group that torchrun has announced, if it has; returns the device of this process.

    Raises ValueError when there are more processes than GPUs.
    """
    if "LOCAL_RANK" not in os.environ:  # some launchers of clusters set the others by themselves
        return device
    local = int(os.environ["LOCAL_RANK"])
    cuda = pick_device(device).type == "cuda"
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(f"process {local} has no GPU, torch sees {torch.cuda.device_count()}: lower --nproc-per-node")
    if cuda:
        torch.cuda.set_device(local)
    waits = timedelta(hours=6)  # the others wait while the first one fills a cache or validates
    dist.init_process_group("nccl" if cuda else "gloo", timeout=waits)
    return f"cuda:{local}" if cuda else device
