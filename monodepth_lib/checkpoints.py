"""Notebook 05, behind it: saved weights, checkpoints to resume from, and the history of a run."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist

from .devices import process
from .files import atomic_write, project_root
from .networks import Monodepth, get_model

CHECKPOINT_VERSION = 4  # of the format of last.pt; a file of another version is refused


# --- weights: safetensors, which can hold no code ------------------------------------------------------------


def save_model(model: Monodepth, path: str | Path, size: tuple[int, int], **notes: object) -> None:
    """Writes the weights, the model's configuration and the picture `size` (height, width) of training to one file.

    `notes` are stored with them as JSON: `training.train` notes the epoch and the drives. After a full disk or a kill,
    the old file is still there. Raises OSError naming the file.
    """
    path = Path(path)
    metadata = {"config": json.dumps(model.config), "size": json.dumps(size), "notes": json.dumps(notes)}
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_write(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def weights_path(weights: str | Path) -> Path:
    """The `.safetensors` file of a path, or of a name in `models/`; a relative path counts from the project.

    Outside the repository, the models installed with the package are found. Raises FileNotFoundError naming the place
    that it expected.
    """
    path = Path(weights).expanduser()
    folders = [project_root() / "models", Path(__file__).parent / "models"]
    if path.suffix == ".safetensors":
        path = project_root() / path
        places = [path]
    else:
        places = [folder / f"{weights}.safetensors" for folder in folders]
    for place in places:
        if place.is_file():
            return place
    there = sorted({file.stem for folder in folders for file in folder.glob("*.safetensors")})
    raise FileNotFoundError(
        f"{places[0]} is missing: train with notebook 05, or take {' or '.join(there) or 'another'}"
    )


def load_model(weights: str | Path) -> Monodepth:
    """The model of a `.safetensors` file, or of a name in `models/` ("unet_sample"), in eval mode.

    `model.size` and `model.notes` are the saved ones. Raises FileNotFoundError naming the missing file, and ValueError
    for a file that holds no weights of this library.
    """
    path = weights_path(weights)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        config, size = json.loads(metadata["config"]), json.loads(metadata["size"])
        if "width" in config:  # the name in files of version 0.1
            config["base_channels"] = config.pop("width")
        model = get_model(config.pop("name"), **config)
        model.load_state_dict(safetensors.torch.load_file(path))
        if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
            raise ValueError("a weight is not a finite number")
        model.size = (int(size[0]), int(size[1]))
        model.notes = json.loads(metadata.get("notes", "{}"))
    except (safetensors.SafetensorError, LookupError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        remedy = "train again with notebook 05, or restore a shipped file with git checkout models"
        raise ValueError(f"{path} holds no monodepth weights ({str(error)[:200]}): {remedy}") from error
    return model.eval()


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Checkpoints:
    """`last.pt` and `previous.pt` of a run: everything that the next epoch depends on.

    They hold the states of weights, optimiser, schedule and scaler, the history, and torch's random state. Order and
    augmentation follow from seed and epoch. `previous.pt` is the end of the last good epoch before `last.pt` and
    replaces it when `last.pt` cannot be read. In a group of processes the first one reads and writes; the others get
    what it has read.
    """

    def __init__(self, folder: Path, run: dict, parts: dict):
        """`run`: settings that must be equal when the run is resumed. `parts`: name -> an object with a `state_dict`
        (model, optimiser, ...)."""
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"
        self.run, self.parts = {"version": CHECKPOINT_VERSION, **run}, parts
        self.first = process()[0] == 0
        self.good = False  # is last.pt the end of a good epoch of this run? Then it may become previous.pt

    def start(self) -> None:
        """Writes the untrained model as last.pt, so a folder that cannot be written fails at once."""
        self.save([], good=True)
        if self.first:
            self.previous.unlink(missing_ok=True)

    def save(self, history: list[dict], good: bool = True) -> None:
        """Writes the state after an epoch; `good`: a run may go back to it. Raises OSError if it cannot write."""
        if self.first:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"run": self.run, "history": history, "good": good, "random": torch.get_rng_state()}
            with atomic_write(self.last) as partial:
                with open(partial, "wb") as file:
                    try:
                        torch.save(state, file)
                    except RuntimeError as error:  # torch raises it for a full disk
                        raise OSError(error) from error
                    os.fsync(file.fileno())
                if self.good:
                    os.replace(self.last, self.previous)
        self.good = good

    def load(self, log: Callable[[str], None] = print) -> list[dict] | None:
        """Restores the saved states; returns the history, or None without a checkpoint. Raises what `read` raises."""
        box = [self.read(log) if self.first else None]
        if process()[1] > 1:
            dist.broadcast_object_list(box, 0)
        state = box[0]
        if state is None:
            return None
        for name, part in self.parts.items():
            if state[name]:  # a scaler that was switched off has no state
                part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])
        self.good = state.get("good", True)
        return state["history"]

    def read(self, log: Callable[[str], None]) -> dict | None:
        """The state in last.pt or, when that is missing or cannot be read, in previous.pt; None without either.

        Raises ValueError for a checkpoint of another run, naming the difference, and when neither file holds one;
        OSError when a file is there and cannot be opened.
        """
        fault: Exception | None = None
        for path in (self.last, self.previous):
            try:
                with open(path, "rb"):
                    pass
            except FileNotFoundError:
                continue
            except OSError as error:  # it may be whole, so nothing takes its place
                raise OSError(f"{path} cannot be opened ({error}): make it readable, then resume again") from error
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)  # runs no code that a file may hold
                found = dict(state["run"])
            except Exception as error:  # torch raises many kinds for a file that is no checkpoint
                fault = fault or error
                continue
            self.check_same_run(path, found)
            if path == self.previous:
                log(f"{self.last} cannot be read or is missing: going on from {path}, epoch {len(state['history'])}")
                os.replace(path, self.last)
            return state
        if fault:
            raise ValueError(f"{self.last} is no checkpoint of this project: remove it or use resume=False") from fault
        return None

    def check_same_run(self, path: Path, found: dict) -> None:
        if (version := found.get("version", 1)) != CHECKPOINT_VERSION:
            raise ValueError(
                f"{path} is of version {version} (here {CHECKPOINT_VERSION}); choose another output folder or use "
                "resume=False"
            )
        if differing := [key for key in self.run | found if found.get(key) != self.run.get(key)]:
            other = ", ".join(f"{key} {found.get(key)} (here {self.run.get(key)})" for key in differing)
            raise ValueError(
                f"{path} is of another run: {other}; choose another output folder, remove it or use resume=False"
            )

    def go_back(self) -> None:
        """Replaces last.pt by the state after the last good epoch."""
        if self.previous.is_file():
            os.replace(self.previous, self.last)


# --- history ----------------------------------------------------------------------------------------------------------


def write_history(history: list[dict], path: str | Path) -> None:
    """Writes the history as CSV, one row per epoch. Raises OSError when the file cannot be written."""
    with atomic_write(Path(path)) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in history for key in row)))
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[dict]:
    """A history written by `write_history`, numbers as floats."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
