"""The training of notebook 05, in one process, or with torchrun in many processes on one or several machines.

The settings are the notebook's. The batch is divided among the processes, so the recipe stays the same.

    torchrun --nproc-per-node=4 -m monodepth_lib.commands.train --profile full --data data --train-drives lab
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from ..checkpoints import load_model
from ..data import prepare_dataloader
from ..devices import pick_device, process
from ..files import project_path
from ..kitti import CAMERAS, Side, check_split, select_drives, select_pairs
from ..networks import get_model
from ..training import PROFILES, Settings, settings, train
from . import command_parser, here, in_the_shell, names, number, positive, seed, start, weights

# The limits of the settings, for argparse.
KINDS = {"workers": number(int, 0), **{name: positive(int) for name in ("base_channels", "epochs", "batch_size")}}
HELPS = {"batch_size": "pairs in a step, in all processes together", "workers": "loading processes of each process"}


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_parser("train", __doc__, "monodepth train --profile class --epochs 10 --output output/mine")
    add = parser.add_argument
    add(
        "--data-dir",
        "--data",
        type=here,
        default=project_path("data/sample"),
        help="the drives (default: the sample)",
    )
    add("--output-dir", "--output", type=here, default="output/train", help="default: %(default)s")
    add("--cameras", default="colour", choices=list(CAMERAS))
    add("--train-drives", type=names, help="separated by commas, or a split such as lab; default: folder train")
    add("--val-drives", type=names, help="the same, or none; default: folder vals")
    add("--bad-pairs", default="refuse", choices=("refuse", "skip"), help="what to do with damaged pairs")
    add("--cache-dir", type=here, help="decode and resize the pictures once, into this folder")
    add("--seed", type=seed, default=0)
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--profile", default="class", choices=PROFILES, help="defaults of the settings below (default: class)")
    for field in fields(Settings):
        flags = ["--model", "--model-name"] if field.name == "model" else [f"--{field.name.replace('_', '-')}"]
        kind = KINDS.get(field.name, positive(float) if field.name == "learning_rate" else type(field.default))
        add(*flags, dest=field.name, type=kind, help=HELPS.get(field.name))
    add("--init", type=weights, help="start from these weights: a name in models/, or a .safetensors file")
    add("--imagenet", action="store_true", help="start encoders of torchvision or timm from ImageNet weights")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    begin.add_argument("--restart", action="store_true", help="start from the beginning and replace the files there")
    add("--plain", action="store_true", help="the plain code of the course, without the faster versions")
    add("--compile", action="store_true", help="torch.compile the network and the loss")
    return parser.parse_args(arguments)


def join_group(device: str) -> str:
    """Joins the group of processes if torchrun started this one; returns the device of this process.

    Raises ValueError when there are more processes than GPUs.
    """
    if "LOCAL_RANK" not in os.environ:  # some clusters set the other variables themselves
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


def loaders(options: argparse.Namespace, config: Settings) -> tuple[DataLoader, DataLoader]:
    """The loaders of this process's share of the training and validation pairs.

    Raises ValueError when the batch cannot be divided evenly, and when a drive is on both sides.
    """
    processes = process()[1]
    if config.batch_size % processes:
        raise ValueError(f"batch_size is {config.batch_size}; {processes} processes cannot share it out evenly")
    sides: dict[Side, str | None] = {"train": options.train_drives, "val": options.val_drives}
    check_split(*(select_drives(options.data_dir, side, drives) for side, drives in sides.items()))
    train_pairs, val_pairs = (
        select_pairs(options.data_dir, side, drives, cameras=options.cameras, bad_pairs=options.bad_pairs)
        for side, drives in sides.items()
    )
    common = {
        "size": config.size,
        "batch_size": config.batch_size // processes,
        "workers": config.workers,
        "cache_dir": options.cache_dir,
    }
    return prepare_dataloader(train_pairs, True, seed=options.seed, **common), prepare_dataloader(val_pairs, **common)


def run(options: argparse.Namespace) -> None:
    """The part of one process in the training."""
    config = settings(options.profile, **{field.name: getattr(options, field.name) for field in fields(Settings)})
    output = options.output_dir
    there = [name for name in ("last.pt", "weights.safetensors", "history.csv") if (output / name).exists()]
    if there and not options.resume and not options.restart:
        what = "a checkpoint: --resume goes on from it" if there[0] == "last.pt" else "there, without a last.pt"
        raise ValueError(f"{output / there[0]} is {what}, --restart replaces it, --output writes elsewhere")
    device = join_group(options.device)
    rank, processes = process()
    for turn in range(processes if options.cache_dir else 1):  # the first one fills the cache, the others read it
        if turn == rank or not options.cache_dir:
            train_loader, val_loader = loaders(options, config)
        if processes > 1:
            dist.barrier()  # also: nobody writes a checkpoint before all have looked for one
    torch.manual_seed(options.seed)
    if options.init:
        if options.model or options.base_channels or options.imagenet:
            raise ValueError("--init brings its own network: leave out --model, --base-channels and --imagenet")
        model = load_model(options.init)
    else:
        grey = options.cameras == "grey"
        model = get_model(config.model, base_channels=config.base_channels, imagenet=options.imagenet, grey=grey)
    train(
        model,
        train_loader,
        val_loader,
        output,
        config,
        device=device,
        resume=options.resume,
        fast=not options.plain,
        compile=options.compile,
        log=lambda line: print(line, flush=True),
    )
    if processes > 1:
        dist.barrier()  # no process ends while another one still needs it
        dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> int:
    """The command line, for one process or started by torchrun in many. Returns the exit status."""
    options = read_options(arguments)
    try:
        run(options)
    except KeyboardInterrupt:
        print("stopped; --resume goes on from the last epoch", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        rank, processes = process()
        where = f"process {rank} of {processes}: " if processes > 1 else ""
        print(f"{where}{in_the_shell(error)}", file=sys.stderr)
        if processes > 1 and isinstance(error, RuntimeError):
            print(f"{where}if another process has ended, start again with --resume", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    start(main)
