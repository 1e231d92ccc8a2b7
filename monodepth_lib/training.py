"""Notebook 05: the settings of a training, the training loop, validation."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .checkpoints import Checkpoints, save_model, write_history
from .data import set_epoch
from .devices import autocast, pick_device, pick_precision, process, share_model, to_device
from .fast import faster_training
from .losses import MonodepthLoss
from .networks import SMALLEST, Monodepth

LOW_SPREAD = 0.05  # standard deviation / mean of a disparity map; below it, the map is nearly the same everywhere
COLLAPSE_EPOCHS, COLLAPSE_STEPS = 3, 300  # a run is stopped after this many such epochs and steps


# --- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a training costs and how it runs. The defaults are the lab's recipe: Unet, 256x512, 50 epochs, Adam 1e-4."""

    model: str = "unet"
    base_channels: int = 64
    height: int = 256
    image_width: int = 512
    epochs: int = 50
    batch_size: int = 8
    learning_rate: float = 1e-4
    workers: int = 8
    precision: str = "auto"  # "float32", "bf16", "fp16", or "auto" (see `pick_precision`)

    def __post_init__(self) -> None:
        """Raises ValueError naming a setting that has the wrong type or an impossible value."""
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                hint = " (in YAML, 1.0e-4 is a float)" if kind is float else ""
                raise ValueError(f"{field.name} is {value!r}; it must be of type {kind.__name__}{hint}")
        for name in ("height", "image_width"):
            if getattr(self, name) < SMALLEST:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least {SMALLEST}: the smallest maps are 1/8 of it"
                )
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; it must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures that the network sees."""
        return self.height, self.image_width


# All settings of a run, chosen by one word.
PROFILES = {
    "tiny": Settings("unet", 4, 32, 96, epochs=1, learning_rate=1e-3, workers=0, precision="float32"),
    "class": Settings("unet", 8, 48, 160, epochs=40, learning_rate=2e-3, workers=0, precision="float32"),
    "full": Settings(),
}


def settings(profile: str, **changes: object) -> Settings:
    """The settings of a profile, with the `changes` that are not None. Raises ValueError for an unknown name."""
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    known = asdict(PROFILES[profile])
    for name in changes:
        if name not in known:
            raise ValueError(f"no setting is named {name!r}; there are {', '.join(known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(PROFILES[profile], **given)  # type: ignore[arg-type]


# --- one epoch --------------------------------------------------------------------------------------------------------


class AverageMeter:
    """Means of the loss and its parts over an epoch, weighted by batch size. The sums stay on the device until `read`.

    In a group of processes, each one adds its own pairs, and `read` returns the mean over the pairs of all of them.
    """

    def __init__(self) -> None:
        self.count, self.sums = 0, dict[str, Tensor]()

    def add(self, values: dict[str, Tensor], batch_size: int) -> None:
        self.count += batch_size
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach() * batch_size

    def read(self) -> dict[str, float]:
        shares = [(self.count, {name: float(value) for name, value in self.sums.items()})]
        if process()[1] > 1:
            mine, shares = shares[0], [(0, {})] * dist.get_world_size()
            dist.all_gather_object(shares, mine)
        count = sum(number for number, _ in shares)
        names = dict.fromkeys(name for _, sums in shares for name in sums)  # a process may have had no batch
        return {name: sum(sums.get(name, 0.0) for _, sums in shares) / count for name in names}


def train_one_epoch(
    model: nn.Module,
    loader: Iterable[dict],
    loss: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
    precision: str = "float32",
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, float]:
    """One pass over the training pairs; the schedule moves with every step. Returns the mean loss and its parts.

    The arguments are the parts of a run, as the notebook builds them. On a CPU, a loss that is not finite raises
    FloatingPointError. On a GPU, this check in every step would cost time, so `train` checks after the epoch.
    """
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    meter = AverageMeter()
    model.train()
    for batch in loader:
        batch = to_device(batch, device)
        left, right = batch["left_image"], batch["right_image"]
        optimizer.zero_grad()
        with autocast(device, precision):
            disparities = model(left)  # the network sees only the left view
        total, parts = loss(disparities, left, right)  # the right view is the supervision
        if device.type == "cpu" and not torch.isfinite(total):
            # grid_sample's backward pass would end the process (pytorch issue 24823)
            raise FloatingPointError("the loss is not finite")
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        meter.add({"loss": total, **parts}, len(left))
    return meter.read()


@torch.no_grad()
def validate(
    model: nn.Module, loader: Iterable[dict], loss: nn.Module, device: torch.device, precision: str = "float32"
) -> dict[str, float]:
    """Mean loss and parts over pairs the model does not learn from, and the mean and spread of its left disparities.

    `spread` is standard deviation / mean of a map, averaged. Near 0, a map is nearly the same everywhere.
    """
    meter = AverageMeter()
    model.eval()
    for batch in loader:
        batch = to_device(batch, device)
        left, right = batch["left_image"], batch["right_image"]
        with autocast(device, precision):
            disparities = model(left)
        total, parts = loss(disparities, left, right)
        maps = disparities[0][:, 0].float().flatten(1)
        spread = (maps.std(1) / maps.mean(1)).mean()
        meter.add({"loss": total, **parts, "disparity": maps.mean(), "spread": spread}, len(left))
    return meter.read()


# --- the run ----------------------------------------------------------------------------------------------------------


def train(
    model: Monodepth,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    output_dir: str | Path,
    settings: Settings,
    *,
    device: str = "auto",
    loss: nn.Module | None = None,
    resume: bool = False,
    fast: bool = True,
    compile: bool = False,
    on_epoch: Callable[[Monodepth, int], dict[str, float] | None] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Trains with Adam, the learning rate halved at 3/5 and 4/5 of all steps (paper, section 4); returns the history.

    The first five arguments say what is trained and for how long. Writes to `output_dir`: `last.pt` (`Checkpoints`)
    before the first epoch and after each one, `weights.safetensors` (of the epoch with the lowest validation loss, or
    of the last epoch without validation) and `history.csv`.

    `resume` continues from last.pt if there is one; on a CPU, the final weights then equal those of a run that was not
    interrupted. Without `resume` a run starts from the beginning. `fast=False` runs the plain code of the course (see
    `fast.py`). `compile` uses torch.compile for network and loss. `on_epoch(model, epoch)` is called before epoch 1 (as
    epoch 0) and after each epoch; its numbers are added to the epoch's row.

    In a group of processes (torchrun, `commands/train.py`) all train one model: each loads its share of the pairs, the
    gradients are averaged, and only the first process writes, logs and calls `on_epoch`.

    Raises ValueError for a checkpoint of another run, FloatingPointError for a loss or weights that are not finite,
    RuntimeError for a disparity that stays the same everywhere, OSError for a full disk. last.pt is kept in each case.
    """
    rank, processes = process()
    if rank > 0:
        on_epoch, log = None, lambda _: None
    target = pick_device(device)
    precision = pick_precision(settings.precision, target)
    output = Path(output_dir)
    if val_loader is not None and not len(val_loader.dataset):  # type: ignore[arg-type]
        val_loader = None  # no pairs at all; the share of a single process may be empty
    steps_an_epoch = len(train_loader)
    steps = settings.epochs * steps_an_epoch

    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network: nn.Module = share_model(model, target) if processes > 1 else model
    loss = loss or MonodepthLoss()
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, fused=target.type != "mps")
    scheduler = schedule(optimizer, steps)
    scaler = torch.amp.GradScaler(target.type, enabled=precision == "fp16")
    criterion: Callable = loss
    if compile:
        network, criterion = torch.compile(network), torch.compile(loss)  # type: ignore[assignment]

    drives = {"train_drives": drive_names(train_loader), "val_drives": drive_names(val_loader)}
    run = {"network": model.config, "size": settings.size, "epochs": settings.epochs, "steps": steps, **drives}
    run |= {"batch_size": (train_loader.batch_size or 1) * processes}
    run |= {"seed": getattr(train_loader.dataset, "seed", None)}
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    checkpoints = Checkpoints(output, run, parts)
    history = checkpoints.load(log) if resume else None
    if history is None:
        check_finite(model, [])
        checkpoints.start()
        history = []
        if on_epoch:
            on_epoch(model, 0)
    else:
        change_learning_rate(scheduler, settings.learning_rate, log)
        if history and rank == 0:
            write_history(history, output / "history.csv")  # a kill may have hit after last.pt

    with faster_training(model, loss) if fast else contextlib.nullcontext():
        for epoch in range(len(history) + 1, settings.epochs + 1):
            started, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
            set_epoch(train_loader, epoch - 1)
            try:
                trained = train_one_epoch(
                    network, train_loader, criterion, optimizer, scheduler, target, precision, scaler
                )
                if processes > 1:
                    for buffer in model.buffers():  # running averages of batch normalisation: take the first process's
                        dist.broadcast(buffer, 0)
                validated = validate(model, val_loader, loss, target, precision) if val_loader is not None else {}
                check_finite(model, [*trained.values(), *validated.values()])
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"{error} in epoch {epoch}: lower learning_rate, or use precision='float32', and go on with "
                    f"resume=True; {checkpoints.last} still holds the epoch before"
                ) from error
            row = {"epoch": epoch, "learning_rate": rate}
            row |= {f"train_{k}": v for k, v in trained.items()} | {f"val_{k}": v for k, v in validated.items()}
            row["seconds"] = time.perf_counter() - started
            if on_epoch:
                row |= on_epoch(model, epoch) or {}
            history.append(row)

            stop_if_collapsed(history, steps_an_epoch, checkpoints)
            best = not validated or validated["loss"] <= min(r.get("val_loss", math.inf) for r in history)
            if best and rank == 0:
                seen = with_earlier(model, drives)
                save_model(model, output / "weights.safetensors", settings.size, epoch=epoch, **seen)
            checkpoints.save(history, good=not collapsed_epochs(history))
            if rank == 0:
                write_history(history, output / "history.csv")
            said = f"  val {validated['loss']:.3f}" if validated else ""
            shown = f"epoch {epoch:>3}/{settings.epochs}  train {trained['loss']:.3f}{said}"
            log(f"{shown}  {row['seconds']:.1f} s{' *' * best}")
    return history


def schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.MultiStepLR:
    """Halves the learning rate after 3/5 and after 4/5 of all steps (paper, section 4). Call its `step` every step."""
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [math.ceil(0.6 * steps), math.ceil(0.8 * steps)], gamma=0.5)


def drive_names(loader: DataLoader | None) -> list[str]:
    """The names of a loader's drives. They are stored with the weights, so a test can tell what the model has seen."""
    pairs = getattr(loader.dataset, "pairs", []) if loader is not None else []
    return sorted({pair.folder.name for pair in pairs})


def with_earlier(model: Monodepth, drives: dict[str, list[str]]) -> dict[str, list[str]]:
    """`drives` of each side, and those that the weights had seen before this training."""
    return {side: sorted({*names, *model.notes.get(side, [])}) for side, names in drives.items()}


def change_learning_rate(scheduler, learning_rate: float, log: Callable[[str], None]) -> None:
    """Replaces the learning rate of the checkpoint by another one; the schedule continues at the same step."""
    before = scheduler.base_lrs[0]
    if before != learning_rate:
        log(f"learning_rate was {before:g}, from here on it is {learning_rate:g}")
        scheduler.base_lrs = [learning_rate]
        scheduler.optimizer.param_groups[0]["lr"] *= learning_rate / before


# --- alarms -----------------------------------------------------------------------------------------------------------


def check_finite(model: nn.Module, means: Iterable[float]) -> None:
    """Raises FloatingPointError for a mean or a weight that is not finite: the last step may spoil only the weights."""
    if not all(map(math.isfinite, means)):
        raise FloatingPointError("the loss is not finite")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise FloatingPointError("a weight of the network is not finite")


def collapsed_epochs(history: list[dict]) -> int:
    """The number of epochs in a row, up to the last one, whose disparity was nearly the same everywhere."""
    low = [row.get("val_spread", 1.0) < LOW_SPREAD for row in history]
    return low[::-1].index(False) if False in low else len(low)


def stop_if_collapsed(history: list[dict], steps_an_epoch: int, checkpoints: Checkpoints) -> None:
    """Warns when the disparity is nearly the same everywhere; raises RuntimeError when it stays so.

    A fresh network also predicts nearly the same everywhere, so a run first gets some epochs. When the error is raised,
    last.pt is the checkpoint before the first of these epochs.
    """
    low = collapsed_epochs(history)
    if not low:
        return
    spread = history[-1]["val_spread"]
    remedy = "try a smaller learning_rate or start_disparity, and look at a pair: are left and right swapped?"
    if low < COLLAPSE_EPOCHS or low * steps_an_epoch < COLLAPSE_STEPS:
        said = f"epoch {len(history)}: the disparity is nearly the same everywhere (spread {spread:.3f})"
        if checkpoints.first:
            warnings.warn(f"{said}; {remedy}", stacklevel=3)
        return
    if checkpoints.first:
        write_history(history, checkpoints.last.with_name("history.csv"))
        checkpoints.go_back()
    raise RuntimeError(
        f"epochs {len(history) - low + 1} to {len(history)}: the disparity is nearly the same everywhere (spread "
        f"{spread:.3f}); {remedy} {checkpoints.last} is the checkpoint of epoch {len(history) - low}: go on from it "
        "with resume=True"
    )
