"""Notebook 05: the training loop, its schedule, its checkpoints and its history."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .data import pick_device, set_epoch, to_device
from .losses import MonodepthLoss
from .networks import Monodepth, save_model

# What a run costs, chosen by one word. "full" is the lab's recipe: Unet, 256x512, 50 epochs, Adam 1e-4, batch 8.
PROFILES: dict[str, dict] = {
    "tiny": dict(
        model="unet", width=4, height=32, image_width=96, epochs=1, batch_size=8, learning_rate=1e-3,
        workers=0, precision="float32",
    ),
    "class": dict(
        model="unet", width=8, height=48, image_width=160, epochs=40, batch_size=8, learning_rate=2e-3,
        workers=0, precision="float32",
    ),
    "full": dict(
        model="unet", width=64, height=256, image_width=512, epochs=50, batch_size=8, learning_rate=1e-4,
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


class Mean:
    """Means of the loss and its parts over an epoch, weighted by batch size; they stay on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor], batch_size: int) -> None:
        self.count += batch_size
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach() * batch_size

    def read(self) -> dict[str, float]:
        return {name: float(value) / self.count for name, value in self.sums.items()}


def train_one_epoch(
    model: nn.Module, loader: DataLoader, loss: nn.Module, optimizer, scheduler, device: torch.device,
    precision: str = "float32", scaler: torch.amp.GradScaler | None = None,
) -> dict[str, float]:  # fmt: skip
    """One pass over the training pairs. Returns the epoch's mean loss and its parts."""
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    model.train()
    mean = Mean()
    for batch in loader:
        batch = to_device(batch, device)
        left, right = batch["left_image"], batch["right_image"]
        with autocast(device, precision):
            disparities = model(left)  # only the left view is seen
        total, parts = loss(disparities, left, right)  # the right one is the teacher
        if device.type == "cpu" and not torch.isfinite(total):
            # on a CPU grid_sample's backward ends the process on such values (pytorch issue 24823); a GPU run, which
            # must not wait for the loss in every step, is checked once an epoch
            raise FloatingPointError("the loss is not finite")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        mean.add({"loss": total, **parts}, len(left))
    return mean.read()


@torch.no_grad()
def validate(
    model: nn.Module, loader: DataLoader, loss: nn.Module, device: torch.device, precision: str = "float32"
) -> dict[str, float]:
    """Mean loss and parts over pairs the model does not learn from, and the mean and spread of its left disparities.

    `spread` is standard deviation / mean of a map, averaged; near 0 the model says the same everywhere.
    """
    model.eval()
    mean = Mean()
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
    on_epoch: Callable[[Monodepth, int], None] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Trains with Adam and returns the history, one dict an epoch; one line an epoch goes to `log`.

    Writes to `output_dir`: `last.pt` (everything a resumed run needs), `weights.safetensors` (the epoch with the lowest
    validation loss, or the last one without validation) and `history.csv`. `resume` goes on from `last.pt` where
    there is one: training 1 epoch and resuming for 1 more gives the weights of training 2. `stop_after` ends after
    that epoch of the run, with the schedule of all `epochs`. `on_epoch(model, epoch)` is called with the untrained
    model (epoch 0) and after every epoch. Raises ValueError for a checkpoint of another run, FloatingPointError for a
    loss that is not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; it must be at least 1")
    target = pick_device(device)
    precision = pick_precision(precision, target)
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    loss = loss or MonodepthLoss()
    model = model.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=target.type == "cuda")
    steps = epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: halve_twice(step, steps))
    scaler = torch.amp.GradScaler(target.type, enabled=precision == "fp16")
    history: list[dict] = []
    run = {"network": model.config, "epochs": epochs, "steps": steps, "learning_rate": learning_rate}
    checkpoint = output / "last.pt"
    if resume and checkpoint.is_file():
        history = load_checkpoint(checkpoint, model, optimizer, scheduler, scaler, run)
    elif on_epoch:
        on_epoch(model, 0)

    for epoch in range(len(history), epochs if stop_after is None else min(epochs, stop_after)):
        started = time.perf_counter()
        set_epoch(train_loader, epoch)
        rate = optimizer.param_groups[0]["lr"]
        try:
            trained = train_one_epoch(model, train_loader, loss, optimizer, scheduler, target, precision, scaler)
            validated = validate(model, val_loader, loss, target, precision) if val_loader else {}
            if not all(map(math.isfinite, [*trained.values(), *validated.values()])):
                raise FloatingPointError("the mean loss is not finite")
        except FloatingPointError as error:
            raise FloatingPointError(
                f"the loss is not finite in epoch {epoch + 1}: lower learning_rate, or use precision='float32'; "
                f"{checkpoint} still holds the epoch before"
            ) from error
        row = {"epoch": epoch + 1, "learning_rate": rate}
        row |= {f"train_{k}": v for k, v in trained.items()} | {f"val_{k}": v for k, v in validated.items()}
        row["seconds"] = time.perf_counter() - started
        history.append(row)
        if validated and validated["spread"] < 0.05:
            warnings.warn(
                f"epoch {epoch + 1}: the disparity is nearly the same everywhere (spread {validated['spread']:.3f}); "
                "try a smaller learning rate or start_disparity",
                stacklevel=2,
            )
        best = not validated or validated["loss"] <= min(r.get("val_loss", math.inf) for r in history)
        if best:
            save_model(model, output / "weights.safetensors", size, epoch=epoch + 1)
        save_checkpoint(checkpoint, model, optimizer, scheduler, scaler, run, history)
        write_history(history, output / "history.csv")
        said = f"  val {validated['loss']:.3f}" if validated else ""
        log(f"epoch {epoch + 1:>3}/{epochs}  train {trained['loss']:.3f}{said}  {row['seconds']:.1f} s{' *' * best}")
        if on_epoch:
            on_epoch(model, epoch + 1)
    return history


def save_checkpoint(path: Path, model: Monodepth, optimizer, scheduler, scaler, run: dict, history: list[dict]) -> None:
    """Writes all of a run's state beside `path` and renames it, so a kill or a full disk leaves the old one whole."""
    state = {
        "run": run,
        "history": history,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
    }
    partial = path.with_name(path.name + ".tmp")
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({error}): free space or choose another output folder") from error


def load_checkpoint(path: Path, model: Monodepth, optimizer, scheduler, scaler, run: dict) -> list[dict]:
    """Puts a run's state back and returns its history. Raises ValueError naming a checkpoint of another run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["run"]
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise ValueError(f"{path} is no checkpoint of this project: remove it or use resume=False") from error
    if found != run:
        other = ", ".join(f"{key} {found.get(key)} (here {run[key]})" for key in run if found.get(key) != run[key])
        raise ValueError(f"{path} is of another run: {other}; choose another output folder or use resume=False")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    scaler.load_state_dict(state["scaler"])
    return state["history"]


def write_history(history: list[dict], path: str | Path) -> None:
    """The history as CSV, one row an epoch."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in history for key in row)))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[dict]:
    """A history written by `write_history`, numbers as floats."""
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
