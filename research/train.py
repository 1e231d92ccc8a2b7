"""One run: trains a recipe until its time is over, across any number of interruptions, and then measures it."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from monodepth_lib import devices, files, testing
from monodepth_lib.checkpoints import save_model
from monodepth_lib.depth import resize_map
from monodepth_lib.fast import faster_prediction, faster_training
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import Monodepth, count_parameters
from monodepth_lib.training import AverageMeter, with_earlier

from .batch import Pairs, Pictures
from .benchmarks.measure import machine
from .loss import RecipeLoss
from .recipe import Recipe, Row, frozen_parts, make_model, without_head_batch_norm

JUDGED_SIZE = (128, 416)  # the loss of every run is computed at this size, so runs can be compared


@dataclass(frozen=True)
class Budget:
    """How long and where a run trains; only the time identifies the run."""

    minutes: float = 10
    steps: int | None = None  # end after this many steps instead
    every: int = 0  # measure and log after every so many steps; 0: only at the end
    save_minutes: float = 0.5
    device: str = "cpu"
    precision: str = "float32"


class Course:
    """The progress of a run: its steps, its seconds, and the learning rate that follows from them.

    On a CPU, seconds are the processor time of all threads divided by their number, so another program on the machine
    does not shorten a run. They count only while a batch is made and a step is done, not during measurements.
    """

    def __init__(self, recipe: Recipe, budget: Budget):
        self.recipe, self.budget = recipe, budget
        self.steps, self.seconds, self.since = 0, 0.0, 0.0

    @property
    def share(self) -> float:
        """The finished part of the run; at 1 it is over."""
        if self.budget.steps is not None:
            return self.steps / self.budget.steps
        return self.seconds / (60 * self.budget.minutes) if self.budget.minutes else 1.0

    def factor(self) -> float:
        """The factor of the learning rate for the next step."""
        growth = min(1.0, (self.steps + 1) / self.recipe.warm_up) if self.recipe.warm_up else 1.0
        if self.recipe.schedule == "cosine":
            return growth * (0.005 + 0.995 * (1 + math.cos(math.pi * self.share)) / 2)
        return growth * (1.0 if self.share < 0.6 else 0.5 if self.share < 0.8 else 0.25)

    def clock(self) -> float:
        return time.process_time() / torch.get_num_threads() if self.budget.device == "cpu" else time.monotonic()

    def begin_step(self) -> None:
        self.since = self.clock()

    def end_step(self) -> None:
        self.steps += 1
        self.seconds += self.clock() - self.since


def make_average(recipe: Recipe, model: nn.Module) -> AveragedModel:
    """The running average of the weights. At first its memory is short, so it forgets the fresh network."""

    def average(averaged: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        keep = min(recipe.ema, (int(steps) + 1) / (int(steps) + 10))
        return averaged.lerp(new, 1 - keep) if averaged.is_floating_point() else new

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def make_optimizer(recipe: Recipe, model: Monodepth) -> torch.optim.Optimizer:
    """AdamW; weight decay only for kernels; the encoder has its own share of the learning rate."""
    groups = []
    for part, share in ((model.encoder, recipe.encoder_rate), (model.decoder, 1.0)):
        for kernels, decay in ((True, recipe.weight_decay), (False, 0.0)):
            weights = [p for p in part.parameters() if p.requires_grad and (p.ndim > 1) == kernels]
            groups.append({"params": weights, "weight_decay": decay, "share": share})
    return torch.optim.AdamW(groups, recipe.learning_rate, fused=True)


def described(recipe: Recipe, pictures: Pictures, budget: Budget) -> dict:
    """All that identifies a run, except its name and seed."""
    time_given = {"steps": budget.steps, "minutes": budget.minutes if budget.steps is None else None}
    return {**time_given, "cameras": pictures.cameras, **pictures.named(), **recipe.switches()}


def train(
    row: Row, pictures: Pictures, output: Path, budget: Budget = Budget(), seed: int = 0, log: Callable = print
) -> dict:
    """Trains a row's recipe until its budget is spent and returns what `result.json` in `output` then holds.

    A finished run is not repeated. A killed one goes on from `last.pt`: random choices follow from seed and step, so
    with a budget of steps it ends with the weights of an uninterrupted run. `weights.safetensors` are the last weights
    (the running average if the recipe has one); no measurement chooses them.
    Raises ValueError where `output` holds another run, FloatingPointError for a loss that is not finite.
    """
    recipe, name = row.recipe, f"{row.name}, seed {seed}"
    run = {"row": row.name, "seed": seed, **described(recipe, pictures, budget)}
    if (found := read_result(output / "result.json", run)) is not None:
        log(f"{name}: finished before, {said(found)}")
        return found

    device = torch.device(budget.device)
    pairs, loss, course = Pairs(recipe, pictures, seed), RecipeLoss(recipe), Course(recipe, budget)
    model = make_model(recipe, pictures.cameras == "grey", seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kept = [part.requires_grad_(False) for part in frozen_parts(recipe, model)]
    kept += [model.encoder] * recipe.fixed_encoder
    optimizer = make_optimizer(recipe, model)
    average = make_average(recipe, model) if recipe.ema else None
    answer: Monodepth = average.module if average else model  # type: ignore[assignment]
    meter, history, last = AverageMeter(), [], output / "last.pt"
    if state := read_checkpoint(last, run):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.load_state_dict(state["average"])
        course.steps, course.seconds, history = state["steps"], state["seconds"], state["history"]
        meter.count, meter.sums = state["meter"]
        log(f"{name}: goes on from step {course.steps}")

    def save() -> None:
        state = {"run": run, "steps": course.steps, "seconds": course.seconds, "history": history}
        state |= {"meter": (meter.count, meter.sums), "model": model.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "average": average.state_dict() if average else None}
        with files.atomic_write(last) as partial:
            torch.save(state, partial)

    before = measure(answer, recipe, pictures) if recipe.init and budget.every and not course.steps else {}
    if before:
        history.append({"step": 0, "minutes": 0.0, **before})
    saved = time.monotonic()
    with faster_training(model, loss):
        while course.share < 1:
            course.begin_step()
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * group["share"] * course.factor()
            batch = devices.to_device(pairs.batch(course.steps, course.share), device)
            model.train(course.share < recipe.fixed_from)
            for part in kept:
                part.eval()
            optimizer.zero_grad()
            with devices.autocast(device, budget.precision):
                disparities = model(batch["seen"])
            views = batch["left_image"], batch["right_image"]
            total, parts = loss(disparities, *views, batch.get("hints"), course.share)
            if not torch.isfinite(total):
                raise FloatingPointError(
                    f"{name}, step {course.steps}: the loss is not finite; lower learning_rate or set clip"
                )
            total.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
            if torch.isfinite(norm):
                optimizer.step()
            if average:
                average.update_parameters(model)
            meter.add({"loss": total, **parts}, recipe.batch_size)
            course.end_step()
            if budget.every and course.steps % budget.every == 0 and course.share < 1:
                means, found = meter.read(), measure(answer, recipe, pictures)
                done = {"step": course.steps, "minutes": course.seconds / 60, "train_loss": means["loss"]}
                log(f"step {course.steps:>6} {done['minutes']:6.1f} min  train {means['loss']:.4f}  {said(found)}")
                history.append({**done, **found})
                meter = AverageMeter()
            elif time.monotonic() - saved < 60 * budget.save_minutes:
                continue
            save()
            saved = time.monotonic()

    answer = without_head_batch_norm(answer).cpu()
    seen = sorted({pair.folder.name for pair in pairs.pairs})
    held = {"train_drives": seen if course.steps else [], "val_drives": run["val_drives"] + run["test_drives"]}
    matched = any(recipe.hints) or "matching" in answer.notes.get("supervision", "")
    notes = {**with_earlier(answer, held), "supervision": "photographs" + " and semi-global matching" * matched}
    save_model(answer, output / "weights.safetensors", recipe.size, row=row.name, seed=seed, **notes)
    result = {**run, "used_pairs": len(pairs.chosen) if course.steps else 0, "seen_drives": seen}
    result |= {"trained_steps": course.steps, "trained_minutes": course.seconds / 60}
    result |= {"history": history, "device": budget.device, "precision": budget.precision}
    result |= {"parameters": count_parameters(answer), "machine": machine(torch.get_num_threads())}
    result |= measure(answer, recipe, pictures)
    with files.atomic_write(output / "result.json") as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    last.unlink(missing_ok=True)
    log(f"{name}: {course.steps} steps in {course.seconds / 60:.1f} min, {said(result)}")
    return result


def read_checkpoint(path: Path, run: dict) -> dict | None:
    """The state in a file; None when there is none. Raises ValueError for another run's or an unreadable file."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["run"]
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise ValueError(f"{path} is no checkpoint of a run: remove it") from error
    refuse_other(path, found, run)
    return state


# --- measuring ------------------------------------------------------------------------------------------------------


def images(stored: np.ndarray, start: int, view: int, count: int = 8) -> Tensor:
    """`count` stored pictures of a view as the network takes them: (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(stored[start : start + count, view].astype(np.float32)).permute(0, 3, 1, 2) / 255


@torch.no_grad()
def standard_loss(model: nn.Module, own: np.ndarray, judged: np.ndarray) -> float:
    """The mean of the library's `MonodepthLoss` over pairs, whatever loss and size the network was trained with.

    `own` are the pictures at the network's size, `judged` the same ones at the size of the loss; maps get that size.
    """
    loss, mean = MonodepthLoss(), AverageMeter()
    for start in range(0, len(own), 8):
        left, right = images(judged, start, 0), images(judged, start, 1)
        height, width = left.shape[-2:]
        maps = [both.float().cpu() for both in model(images(own, start, 0).to(next(model.parameters()).device))]
        maps = [resize_map(both, (height >> scale, width >> scale)) for scale, both in enumerate(maps)]
        mean.add({"loss": loss(maps, left, right)[0]}, len(left))
    return mean.read()["loss"]


def predicted(model: Monodepth, stored: np.ndarray) -> tuple[list[Tensor], list[Tensor]]:
    """The left disparities (H, W) of stored pairs, as they are and with post-processing."""
    quick, device = faster_prediction(model), next(model.parameters()).device
    maps: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, len(stored), 8):
        for kept, new in zip(maps, testing.predict(quick, images(stored, start, 0).to(device)), strict=True):
            kept += new.cpu()
    return maps


def measure(model: Monodepth, recipe: Recipe, pictures: Pictures) -> dict:
    """`val_loss`; the mean metrics over the test images with truth, `plain` and with post-processing (`pp`), and these
    images' standard deviation (`spread`) and number (`images`). A side without pairs is left out.
    """
    found: dict = {}
    model = without_head_batch_norm(model)
    if pairs := pictures.pairs("val"):
        own, judged = (pictures.stored(pairs, one) for one in (recipe.size, JUDGED_SIZE))
        found["val_loss"] = standard_loss(model, own, judged)
    if pairs := pictures.pairs("test"):
        maps = predicted(model, pictures.stored(pairs, recipe.size))
        with warnings.catch_warnings():  # the focal length of stereo 2012 is known by its width
            warnings.filterwarnings("ignore", message=".*using KITTI's f and B")
            plain, processed = (testing.score(pairs, kept) for kept in maps)
        found |= {"plain": testing.mean_row(plain, "plain"), "pp": testing.mean_row(processed, "post-processed")}
        found |= {"spread": testing.mean_row(processed, "spread over images", np.std), "images": len(processed)}
    return found


def said(found: dict) -> str:
    """The measured figures as a short text."""
    parts = [f"loss {found['val_loss']:.4f}"] if "val_loss" in found else []
    if pp := found.get("pp"):
        parts.append(f"Abs Rel {pp['abs_rel']:.4f} RMSE {pp['rmse']:.2f} a1 {pp['a1']:.3f} D1-all {pp['d1_all']:.3f}")
    return "  ".join(parts)


def read_result(path: Path, expected: dict) -> dict | None:
    """The result in a file; None when there is none. Raises ValueError when it is of another run.

    A switch that is newer than the result counts as its default.
    """
    if not path.is_file():
        return None
    found = Recipe().switches() | json.loads(path.read_text(encoding="utf-8"))
    refuse_other(path, found, expected)
    return found


def refuse_other(path: Path, found: dict, expected: dict) -> None:
    other = [f"{key} {found.get(key)} (here {value})" for key, value in expected.items() if found.get(key) != value]
    if other:
        raise ValueError(f"{path} is of another run, {', '.join(other)}: remove its folder or choose another output")
