"""Notebook 05, behind it: what a training has come to. Means of an epoch, the history, and files to go on from."""

from __future__ import annotations

import csv
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import atomic_write
from .processes import from_first, gather, process

CHECKPOINT_VERSION = 3  # of what lies in last.pt; a file of another one is refused
LOW_SPREAD = 0.05  # standard deviation / mean of a disparity map: below, it says nearly the same everywhere
COLLAPSE_EPOCHS, COLLAPSE_STEPS = 3, 300  # a run that says so for as long, both, is stopped


class AverageMeter:
    """Means of the loss and its parts over an epoch, weighted by batch size; they stay on the device until read.

    With several processes, each adds its own pairs and all read the mean over everyone's. `steps` counts the batches.
    """

    def __init__(self, steps: int = 0, count: int = 0, sums: dict[str, Tensor] | None = None) -> None:
        self.steps, self.count, self.sums = steps, count, dict(sums or {})

    def add(self, values: dict[str, Tensor], batch_size: int) -> None:
        self.steps += 1
        self.count += batch_size
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach() * batch_size

    def total(self) -> tuple[int, dict[str, float]]:
        """The number of pairs and the sums over all processes; one may have had no batch, and so no names."""
        shares = gather((self.count, {name: float(value) for name, value in self.sums.items()}))
        names = dict.fromkeys(name for _, sums in shares for name in sums)
        return sum(count for count, _ in shares), {n: sum(sums.get(n, 0.0) for _, sums in shares) for n in names}

    def read(self) -> dict[str, float]:
        count, sums = self.total()
        return {name: value / count for name, value in sums.items()}


def check_finite(model: nn.Module, means: Iterable[float]) -> None:
    """Raises FloatingPointError: the last step can spoil the weights while every loss was still finite."""
    if not all(map(math.isfinite, means)):
        raise FloatingPointError("the loss is not finite")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise FloatingPointError("a weight of the network is not finite")


def collapsed_epochs(history: list[dict]) -> int:
    """How many epochs in a row, up to the last one, had a disparity that is nearly the same everywhere."""
    lows = [row.get("val_spread", 1.0) < LOW_SPREAD for row in history]
    return lows[::-1].index(False) if False in lows else len(lows)


class Checkpoints:
    """`last.pt` and `previous.pt` of a run: all that the next step depends on.

    That is: weights, Adam's memory, the place in the schedule, the history, torch's random states, and within an epoch
    what its steps gave so far. Order and augmentation follow from seed, epoch and step. Files are written beside and
    renamed. `previous.pt` is the end of the last good epoch before `last.pt`, and takes its place when that cannot be
    read. With several processes the first one reads and writes; what it reads goes to all, however many they are.
    """

    def __init__(self, folder: Path, run: dict, device: torch.device, model: nn.Module, optimizer, scheduler, scaler):
        """`run` tells this run from others: settings that have to be the same when it is resumed."""
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"
        self.run = {"version": CHECKPOINT_VERSION, **run}
        self.device, self.model = device, model
        self.parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
        self.first = process()[0] == 0
        self.history: list[dict] = []
        self.mean, self.seconds = AverageMeter(), 0.0  # of an epoch that had begun
        self.random: list[Tensor] = []
        self.good = False  # is last.pt the end of a good epoch of this run? Then it may become previous.pt
        self.saved = time.monotonic()

    def start(self) -> None:
        """Makes last.pt the untrained model's: whatever run's it was, and to see that it can be written."""
        check_finite(self.model, [])
        self.save([])
        if self.first:
            self.previous.unlink(missing_ok=True)

    def due(self, minutes: float) -> bool:
        """Has the first process's clock gone on by so much since the last time?"""
        return from_first(time.monotonic() - self.saved >= 60 * minutes)

    def save(self, history: list[dict], mean: AverageMeter | None = None, seconds: float = 0.0) -> None:
        """Writes the end of an epoch or, within one, with its `mean` so far. Raises OSError when it cannot."""
        begun = None
        if mean:
            count, sums = mean.total()
            check_finite(self.model, sums.values())
            begun = {"steps": mean.steps, "count": count, "sums": sums, "seconds": seconds}
        if self.first:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"run": self.run, "history": history, "begun": begun, "random": self.random_states()}
            with atomic_write(self.last) as partial:
                with open(partial, "wb") as file:
                    try:
                        torch.save(state, file)
                    except RuntimeError as error:  # torch's word for a full disk
                        raise OSError(error) from error
                    os.fsync(file.fileno())
                if self.good:
                    os.replace(self.last, self.previous)
        self.good = begun is None and not collapsed_epochs(history)
        self.saved = time.monotonic()

    def load(self, log: Callable[[str], None]) -> bool:
        """Puts everything back as it was saved; False when there is nothing. Raises ValueError as `read` does."""
        state = from_first(self.read(log) if self.first else None)
        if state is None:
            return False
        for name, part in self.parts.items():
            if state[name]:  # a scaler of a run in another precision has none
                part.load_state_dict(state[name])
        self.history, self.random = state["history"], state["random"]
        self.restore_random()
        if begun := state["begun"]:
            self.seconds, self.mean = begun["seconds"], AverageMeter(begun["steps"])
            if self.first:  # what all processes had, whose number may have changed
                sums = {name: torch.tensor(value, device=self.device) for name, value in begun["sums"].items()}
                self.mean = AverageMeter(begun["steps"], begun["count"], sums)
        self.good = not begun and not collapsed_epochs(self.history)
        return True

    def read(self, log: Callable[[str], None]) -> dict | None:
        """The state in last.pt or, when that is missing or cannot be read, in previous.pt; None without either.

        Raises ValueError naming what is another run's, and when neither can be read.
        """
        faults: list[Exception] = []
        for path in (self.last, self.previous):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)  # runs no code that a file may hold
                found = dict(state["run"])
            except FileNotFoundError:
                continue
            except Exception as error:  # torch raises many kinds for a file that is no checkpoint
                faults.append(error)
                continue
            if (version := found.get("version", 1)) != CHECKPOINT_VERSION:
                raise ValueError(
                    f"{path} is of version {version} (here {CHECKPOINT_VERSION}); choose another output folder or use "
                    "resume=False"
                )
            if found != self.run:
                differing = [key for key in self.run | found if found.get(key) != self.run.get(key)]
                other = ", ".join(f"{key} {found.get(key)} (here {self.run.get(key)})" for key in differing)
                raise ValueError(
                    f"{path} is of another run: {other}; choose another output folder, remove it or use resume=False"
                )
            if path == self.previous:
                log(f"{self.last} cannot be read or is missing: going on from {path}, epoch {len(state['history'])}")
                os.replace(path, self.last)
            return state
        if faults:
            raise ValueError(
                f"{self.last} is no checkpoint of this project: remove it or use resume=False"
            ) from faults[0]
        return None

    def random_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else states

    def restore_random(self) -> None:
        torch.set_rng_state(self.random[0])
        if self.device.type == "cuda" and len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1], self.device)

    def write_history(self, history: list[dict]) -> None:
        if self.first:
            write_history(history, self.last.with_name("history.csv"))

    def warn_or_stop(self, history: list[dict], steps: int) -> None:
        """A warning that the disparity is nearly the same everywhere; RuntimeError when it stays so.

        A fresh network says the same everywhere, too: it is given time (`steps` are those of an epoch).
        Then last.pt becomes the one before the first of these epochs again.
        """
        low, spread = collapsed_epochs(history), history[-1]["val_spread"]
        remedy = "try a smaller learning_rate or start_disparity, and look at a pair: are left and right swapped?"
        if low < COLLAPSE_EPOCHS or low * steps < COLLAPSE_STEPS:
            if self.first:
                said = f"epoch {len(history)}: the disparity is nearly the same everywhere (spread {spread:.3f})"
                warnings.warn(f"{said}; {remedy}", stacklevel=3)
            return
        if self.first:
            self.write_history(history)
            if self.previous.is_file():
                os.replace(self.previous, self.last)
        raise RuntimeError(
            f"epochs {len(history) - low + 1} to {len(history)}: the disparity is nearly the same everywhere (spread "
            f"{spread:.3f}); {remedy} {self.last} is that of epoch {len(history) - low}, to go on from with resume=True"
        )


def write_history(history: list[dict], path: str | Path) -> None:
    """The history as CSV, one row an epoch. Raises OSError when it cannot be written."""
    with atomic_write(Path(path)) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in history for key in row)))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[dict]:
    """A history written by `write_history`, numbers as floats."""
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
