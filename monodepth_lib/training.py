"""Notebook 05: the training loop and its schedule, in one process or in many.

On several GPUs (the settings are the notebook's; the batch is shared out among the processes):

    torchrun --nproc-per-node=4 -m monodepth_lib.training --profile full --data data --train-drives lab --val-drives lab
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from .checkpoints import AverageMeter, Checkpoints, check_finite, collapsed_epochs
from .data import pick_device, prepare_dataloader, set_epoch, to_device
from .files import project_path
from .kitti import check_split, select_drives, select_pairs
from .losses import MonodepthLoss
from .memory import kept_memory
from .networks import SMALLEST, Monodepth, get_model, load_model, save_model
from .processes import join_group, process, share_model

CLOCK_STEPS = 20  # within an epoch, the clock is looked at so often

# What a run costs, chosen by one word. "full" is the lab's recipe: Unet, 256x512, 50 epochs, Adam 1e-4, batch 8.
PROFILES: dict[str, dict] = {
    "tiny": dict(
        model="unet", base_channels=4, height=32, image_width=96, epochs=1, batch_size=8, learning_rate=1e-3,
        workers=0, precision="float32",
    ),
    "class": dict(
        model="unet", base_channels=8, height=48, image_width=160, epochs=40, batch_size=8, learning_rate=2e-3,
        workers=0, precision="float32",
    ),
    "full": dict(
        model="unet", base_channels=64, height=256, image_width=512, epochs=50, batch_size=8, learning_rate=1e-4,
        workers=8, precision="auto",
    ),
}  # fmt: skip


def settings(profile: str, **changes) -> dict:
    """A profile's settings with the `changes` that are not None.

    Raises ValueError for an unknown profile, setting or type of value (papermill passes `-p epochs 1e1` as it is read).
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    chosen = dict(PROFILES[profile])
    for name, value in changes.items():
        if name not in chosen:
            raise ValueError(f"no setting is named {name!r}; there are {', '.join(chosen)}")
        if value is None:
            continue
        kind = type(chosen[name])
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise ValueError(f"{name} is {value!r}; it must be of type {kind.__name__} (in YAML, 1.0e-4 is a float)")
        chosen[name] = value
    for name in ("height", "image_width"):
        if chosen[name] < SMALLEST:
            raise ValueError(
                f"{name} is {chosen[name]}; it must be at least {SMALLEST}: the smallest maps are 1/8 of it"
            )
    return chosen


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Mixed precision for the network's forward pass: "float32" is none; see `pick_precision`."""
    kind = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return contextlib.nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


def pick_precision(precision: str, device: torch.device) -> str:
    """ "auto" is float32 on a CPU, bf16 on a GPU that has it, else fp16; "float32", "bf16", "fp16" are themselves."""
    if precision not in ("auto", "float32", "bf16", "fp16"):
        raise ValueError(f"precision is {precision!r}; it must be 'auto', 'float32', 'bf16' or 'fp16'")
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def halve_twice(step: int, steps: int) -> float:
    """The learning rate's factor: 1, then 1/2 after 3/5 and 1/4 after 4/5 of all steps (paper, section 4)."""
    return 1.0 if step < 0.6 * steps else 0.5 if step < 0.8 * steps else 0.25


def train_one_epoch(
    model: nn.Module, loader: Iterable[dict], loss: Callable, optimizer, scheduler, device: torch.device,
    precision: str = "float32", scaler: torch.amp.GradScaler | None = None,
    mean: AverageMeter | None = None, after_step: Callable[[AverageMeter], None] | None = None,
) -> dict[str, float]:  # fmt: skip
    """One pass over the training pairs. Returns the epoch's mean loss and its parts.

    `mean` holds what the epoch's earlier batches gave, when `loader` has only the rest of them; `after_step` is called
    with it after every step.
    """
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    model.train()
    mean = mean or AverageMeter()
    for batch in loader:
        batch = to_device(batch, device)
        left, right = batch["left_image"], batch["right_image"]
        optimizer.zero_grad(set_to_none=True)  # here, so that the last step's gradients are gone when memory is fullest
        with autocast(device, precision):
            disparities = model(left)  # only the left view is seen
        total, parts = loss(disparities, left, right)  # the right one is the teacher
        if device.type == "cpu" and not torch.isfinite(total):
            # on a CPU grid_sample's backward ends the process on such values (pytorch issue 24823); a GPU run, which
            # must not wait for the loss in every step, is checked before each checkpoint
            raise FloatingPointError("the loss is not finite")
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        mean.add({"loss": total, **parts}, len(left))
        if after_step:
            after_step(mean)
    return mean.read()


@torch.no_grad()
def validate(
    model: nn.Module, loader: DataLoader, loss: nn.Module, device: torch.device, precision: str = "float32"
) -> dict[str, float]:
    """Mean loss and parts over pairs the model does not learn from, and the mean and spread of its left disparities.

    `spread` is standard deviation / mean of a map, averaged; near 0 the model says the same everywhere.
    """
    model.eval()
    mean = AverageMeter()
    for batch in loader:
        batch = to_device(batch, device)
        left, right = batch["left_image"], batch["right_image"]
        with autocast(device, precision):
            disparities = model(left)
        total, parts = loss(disparities, left, right)
        maps = disparities[0][:, 0].float().flatten(1)
        spread = (maps.std(1) / maps.mean(1)).mean()
        mean.add({"loss": total, **parts, "disparity": maps.mean(), "spread": spread}, len(left))
    return mean.read()


@kept_memory()
def train(
    model: Monodepth,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    output_dir: str | Path,
    *,
    epochs: int,
    learning_rate: float = 1e-4,
    loss: nn.Module | None = None,
    device: str = "auto",
    precision: str = "float32",
    resume: bool = False,
    stop_after: int | None = None,
    size: tuple[int, int] = (128, 416),
    save_minutes: float = 10,
    compile: bool = False,
    sync_batch_norm: bool = True,
    on_epoch: Callable[[Monodepth, int], dict[str, float] | None] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Trains with Adam and returns the history, one dict an epoch; one line an epoch goes to `log`.

    Writes to `output_dir`: `last.pt` (everything a resumed run needs; see `Checkpoints`), `weights.safetensors` (the
    epoch with the lowest validation loss, or the last one without validation; its notes name the drives) and
    `history.csv`. `last.pt` is written before the first epoch, after each, and within one every `save_minutes`: no more
    is lost when a run is killed. `resume` goes on from it where there is one and, on a CPU, ends with the very weights
    of a run that was never interrupted; without `resume` a run starts anew and replaces it. `stop_after` ends after
    that epoch of the run, with the schedule of all `epochs`. `on_epoch(model, epoch)` is called with the untrained
    model (epoch 0) and after every epoch, whose row of the history takes the numbers that it returns. `compile` hands
    the network and the loss to torch.compile.

    In a process of a group (torch.distributed, see `main`) all processes train one model: each one's loader gives its
    share, gradients are averaged, and the first process writes, logs and calls `on_epoch`. On GPUs `sync_batch_norm`
    lets batch normalisation see the whole batch instead of the process's share.

    Raises ValueError for a checkpoint of another run, FloatingPointError for a loss or weights that are not finite,
    RuntimeError for a disparity that stays the same everywhere, OSError for a full disk; last.pt outlives them all.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; it must be at least 1")
    rank, processes = process()
    if rank > 0:
        on_epoch, log = None, lambda _: None
    target = pick_device(device)
    precision = pick_precision(precision, target)
    output = Path(output_dir)
    if val_loader is not None and not len(val_loader.dataset):  # type: ignore[arg-type]
        val_loader = None  # none at all; one process's share alone may be empty
    loss = loss or MonodepthLoss()
    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network: nn.Module = share_model(model, target, sync_batch_norm) if processes > 1 else model
    criterion: Callable = loss
    if compile:
        network, criterion = torch.compile(network), torch.compile(loss)  # type: ignore[assignment]
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    steps = epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: halve_twice(step, steps))
    scaler = torch.amp.GradScaler(target.type, enabled=precision == "fp16")
    drives = {"train_drives": drive_names(train_loader), "val_drives": drive_names(val_loader)}
    run = {"network": model.config, "size": tuple(size), "epochs": epochs, "steps": steps}
    run |= {"batch_size": (train_loader.batch_size or 1) * processes, **drives}
    run |= {"seed": getattr(train_loader.dataset, "seed", None)}
    checkpoints = Checkpoints(output, run, target, model, optimizer, scheduler, scaler)

    history: list[dict] = []
    mean, seconds = AverageMeter(), 0.0  # of an epoch that had begun
    if not resume or not checkpoints.load(log):
        checkpoints.start()
    else:
        history, mean, seconds = checkpoints.history, checkpoints.mean, checkpoints.seconds
        if (before := scheduler.base_lrs[0]) != learning_rate:
            log(f"learning_rate was {before:g}, from here on it is {learning_rate:g}")
            scheduler.base_lrs = [learning_rate]
            optimizer.param_groups[0]["lr"] = learning_rate * halve_twice(scheduler.last_epoch, steps)
        if history:
            checkpoints.write_history(history)  # a kill may have come between last.pt and this
    if on_epoch and not history and not mean.steps:
        on_epoch(model, 0)

    for epoch in range(len(history), epochs if stop_after is None else min(epochs, stop_after)):
        started = time.perf_counter() - seconds

        def after_step(mean: AverageMeter, started: float = started) -> None:
            if mean.steps % CLOCK_STEPS == 0 and mean.steps < len(train_loader) and checkpoints.due(save_minutes):
                checkpoints.save(history, mean, time.perf_counter() - started)

        set_epoch(train_loader, epoch)
        batches = iter(rest_of_epoch(train_loader, mean.steps))
        if mean.steps:
            checkpoints.restore_random()  # making the iterator has drawn a number, as it had before the kill
        try:
            trained = train_one_epoch(
                network, batches, criterion, optimizer, scheduler, target, precision, scaler, mean, after_step
            )
            if processes > 1:
                for buffer in model.buffers():  # batch normalisation's running averages: the first process's
                    dist.broadcast(buffer, 0)
            validated = validate(model, val_loader, loss, target, precision) if val_loader is not None else {}
            check_finite(model, [*trained.values(), *validated.values()])
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{error} in epoch {epoch + 1}: lower learning_rate, or use precision='float32', and go on with "
                f"resume=True; {checkpoints.last} still holds what came before"
            ) from error
        row = {"epoch": epoch + 1, "learning_rate": learning_rate * halve_twice(epoch * len(train_loader), steps)}
        row |= {f"train_{k}": v for k, v in trained.items()} | {f"val_{k}": v for k, v in validated.items()}
        row["seconds"] = time.perf_counter() - started
        if on_epoch:
            row |= on_epoch(model, epoch + 1) or {}
        history.append(row)
        mean, seconds = AverageMeter(), 0.0
        if collapsed_epochs(history):
            checkpoints.warn_or_stop(history, len(train_loader))
        best = not validated or validated["loss"] <= min(r.get("val_loss", math.inf) for r in history)
        if best and rank == 0:
            save_model(model, output / "weights.safetensors", size, epoch=epoch + 1, **drives)
        checkpoints.save(history)
        checkpoints.write_history(history)
        said = f"  val {validated['loss']:.3f}" if validated else ""
        log(f"epoch {epoch + 1:>3}/{epochs}  train {trained['loss']:.3f}{said}  {row['seconds']:.1f} s{' *' * best}")
    return history


def drive_names(loader: DataLoader | None) -> list[str]:
    """The names of a loader's drives: stored with the weights, so that a test can tell what the model has seen."""
    pairs = getattr(loader.dataset, "pairs", []) if loader is not None else []
    return sorted({pair.folder.name for pair in pairs})


def rest_of_epoch(loader: DataLoader, done: int) -> DataLoader:
    """`loader` without its first `done` batches, which are not read either. Call `set_epoch` first."""
    if not done:
        return loader
    return DataLoader(
        loader.dataset,
        batch_sampler=list(loader.batch_sampler or [])[done:],
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        collate_fn=loader.collate_fn,
    )


# --- the command ------------------------------------------------------------------------------------------------------


def loaders(options: argparse.Namespace, config: dict) -> tuple[DataLoader, DataLoader]:
    """This process's shares of the pairs of training and validation; `config` is that of `settings`.

    Raises ValueError when the batch cannot be shared out evenly, and when a drive is on both sides.
    """
    rank, processes = process()
    if config["batch_size"] % processes:
        raise ValueError(f"batch_size is {config['batch_size']}; {processes} processes cannot share it out evenly")
    root = project_path(options.data_dir)
    check_split(
        select_drives(root, "train", options.train_drives),
        select_drives(root, "val", options.val_drives),
    )
    chosen = {"cameras": options.cameras, "bad_pairs": options.bad_pairs}
    common = {
        "size": (config["height"], config["image_width"]),
        "batch_size": config["batch_size"] // processes,
        "workers": config["workers"],
        "cache_dir": options.cache_dir,
    }
    train = select_pairs(root, "train", options.train_drives, **chosen)
    val = select_pairs(root, "val", options.val_drives, **chosen)
    return prepare_dataloader(train, train=True, seed=options.seed, **common), prepare_dataloader(val, **common)


def main(arguments: list[str] | None = None) -> int:
    """The command line, for one process or started by torchrun in many. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m monodepth_lib.training", description="Trains as notebook 05 does, also in many processes."
    )
    parser.add_argument("--data-dir", "--data", default="data/sample", help="folder with the drives")
    parser.add_argument("--output-dir", "--output", default="output/training", help="weights and checkpoints go here")
    parser.add_argument("--cameras", default="colour", choices=("colour", "grey"))
    parser.add_argument("--train-drives", help="separated by commas, or a split such as lab; default: folder train")
    parser.add_argument("--val-drives", help="the same, or none; default: folder vals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--profile", default="class", choices=PROFILES, help="the settings that follow, at once")
    helps = {"batch_size": "pairs a step, of all processes together", "workers": "loading processes of each process"}
    for name, value in PROFILES["full"].items():
        names = ["--model-name", "--model"] if name == "model" else [f"--{name.replace('_', '-')}"]
        parser.add_argument(*names, dest=name, type=type(value), help=helps.get(name))
    parser.add_argument("--init", metavar="WEIGHTS", help="begin from these: a name in models/, or a .safetensors file")
    parser.add_argument("--imagenet", action="store_true", help="begin torchvision's encoders with ImageNet weights")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument("--save-minutes", type=float, default=10, help="within an epoch, save this often (default 10)")
    parser.add_argument("--cache-dir", help="decode and resize the pictures once, into this folder")
    parser.add_argument("--bad-pairs", default="refuse", choices=("refuse", "skip"), help="damaged pairs: skip them?")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network and the loss")
    parser.add_argument("--no-sync-batch-norm", action="store_true", help="batch statistics of each GPU alone")
    options = parser.parse_args(arguments)
    try:
        config = settings(options.profile, **{name: getattr(options, name) for name in PROFILES["full"]})
        device = join_group(options.device)
        rank, processes = process()
        for turn in range(processes if options.cache_dir else 1):  # the first one fills the cache, the others find it
            if turn == rank or not options.cache_dir:
                train_loader, val_loader = loaders(options, config)
            if options.cache_dir and processes > 1:
                dist.barrier()
        torch.manual_seed(options.seed)
        named = {
            "base_channels": config["base_channels"],
            "imagenet": options.imagenet,
            "grey": options.cameras == "grey",
        }
        train(
            load_model(options.init) if options.init else get_model(config["model"], **named),
            train_loader,
            val_loader,
            project_path(options.output_dir),
            epochs=config["epochs"],
            learning_rate=config["learning_rate"],
            device=device,
            precision=config["precision"],
            resume=options.resume,
            size=(config["height"], config["image_width"]),
            save_minutes=options.save_minutes,
            compile=options.compile,
            sync_batch_norm=not options.no_sync_batch_norm,
            log=lambda line: print(line, flush=True),
        )
        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # nobody leaves while another still needs it
            dist.destroy_process_group()
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        rank, processes = process()
        where = f"process {rank} of {processes}: " if processes > 1 else ""
        print(f"{where}{error}", file=sys.stderr)
        if processes > 1 and isinstance(error, RuntimeError):
            print(f"{where}if another process has ended, start again with --resume", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
