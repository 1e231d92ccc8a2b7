"""One run: a recipe trained until its time is over, killed and gone on with as often as it takes, then measured."""

from __future__ import annotations

import copy
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monodepth_lib import files, kitti, testing, training
from monodepth_lib.checkpoints import AverageMeter, Checkpoints
from monodepth_lib.data import CachedPairs, prepare_cache, prepare_dataloader, to_device
from monodepth_lib.depth import resize_map
from monodepth_lib.fast import kept_memory
from monodepth_lib.losses import MonodepthLoss
from monodepth_lib.networks import Monodepth, count_parameters, save_model
from monodepth_lib.transforms import AugmentImagePair, RandomFlip
from research.benchmarks.measure import machine

from .recipe import Recipe, RecipeLoss, disturb, graft, make_model, without_head_batch_norm, zoom_and_resize

JUDGED_SIZE = (128, 416)  # every run's loss is computed at this size, or it could not be compared
CPU = torch.device("cpu")  # the clock counts what the processor does


@dataclass(frozen=True)
class Pictures:
    """Where a run's pictures come from: three sides of a data folder, decoded once into `cache_dir`."""

    folder: str
    cameras: kitti.CameraName = "grey"
    val_drives: str | None = None
    test_drives: str | None = None  # None: stereo_2012 where there is one, else the folder test
    cache_dir: str = "output/cache"

    def drives(self, side: str) -> str | None:
        """The drives of "train", "val" or "test", as `kitti.select_drives` takes them."""
        if side == "test" and self.test_drives is None and (files.project_path(self.folder) / "stereo_2012").is_dir():
            return "stereo_2012"
        return {"train": None, "val": self.val_drives, "test": self.test_drives}[side]

    def named(self) -> dict[str, list[str]]:
        """The names of the drives of the three sides, as a run and its result keep them.

        Raises ValueError where a drive is on two sides, and where scenes of stereo 2015 would be seen.
        """
        root = files.project_path(self.folder)
        train, val, test = (kitti.select_drives(root, side, self.drives(side)) for side in ("train", "val", "test"))
        kitti.check_split(train, {**val, **test})
        drives = {**train, **val, **test}
        if any(name == "stereo_2015" or kitti.is_stereo_2015(path) for name, path in drives.items()):
            raise ValueError(
                "stereo_2015 is for finished models, nothing is chosen on it: take other drives here, and measure with "
                "monodepth evaluate"
            )
        return {f"{side}_drives": sorted(names) for side, names in (("train", train), ("val", val), ("test", test))}

    def pairs(self, side: kitti.Side) -> list[kitti.Pair]:
        return kitti.select_pairs(files.project_path(self.folder), side, self.drives(side), cameras=self.cameras)

    def loader(self, side: kitti.Side, size: tuple[int, int], **options) -> DataLoader:
        """Pictures as they are and in order, unless `options` of `prepare_dataloader` say otherwise."""
        options = dict(train=side == "train", size=size, cache_dir=files.project_path(self.cache_dir)) | options
        return prepare_dataloader(self.pairs(side), **options)

    def training(self, recipe: Recipe, seed: int) -> CachedPairs:
        """The pairs to learn from, whose `__getitems__` makes a batch, and the `odds` with which each is drawn."""
        self.named()  # refuses before a picture is read
        loader = self.loader("train", recipe.stored_size, batch_size=recipe.batch_size, seed=seed)
        dataset: CachedPairs = loader.dataset  # type: ignore[assignment]
        own = len(dataset.pairs)
        if recipe.also:
            pairs = [*dataset.pairs, *kitti.select_pairs(files.project_path(recipe.also), "train")]
            dataset = CachedPairs(
                pairs, prepare_cache(pairs, recipe.stored_size, files.project_path(self.cache_dir)), True, seed
            )
        twice = [bool(recipe.draw_twice) and p.folder.name.startswith(recipe.draw_twice) for p in dataset.pairs]
        odds = 1.0 + np.array(twice)
        odds[own:] = odds[:own].sum() / 2 / max(1, len(odds) - own)
        dataset.odds = odds / odds.sum()
        dataset.flip = RandomFlip(0.5 if recipe.flip else 0.0)
        dataset.colours = AugmentImagePair(0.5 if recipe.colours else 0.0)
        return dataset

    def prepare(self, recipe: Recipe) -> None:
        """Decodes all that a run of the recipe will read, so that several runs at a time need not."""
        self.training(recipe, 0)
        for side, size in (("val", recipe.size), ("val", JUDGED_SIZE), ("test", recipe.size)):
            self.loader(side, size)


# --- training -------------------------------------------------------------------------------------------------------


class Course:
    """Where a run stands: its steps, its seconds, the learning rate that follows, and the average of the weights.

    The seconds are the processor's, of all threads together, divided by their number, and count only while a batch is
    made and a step done: neither measuring nor another program on the machine takes anything from a run. It ends by
    `minutes` or by `last_step`. To `training.train_one_epoch` this is the scheduler.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, minutes: float, last_step: int | None):
        self.recipe, self.model, self.minutes, self.last_step = recipe, model, minutes, last_step
        self.average = copy.deepcopy(model).eval() if recipe.ema else None
        self.steps, self.seconds, self.since = 0, 0.0, 0.0

    @property
    def share(self) -> float:
        """How much of the run is done; at 1 it is over."""
        return self.steps / self.last_step if self.last_step else self.seconds / (60 * self.minutes)

    def factor(self) -> float:
        """Of the learning rate, for the next step."""
        growth = min(1.0, (self.steps + 1) / self.recipe.warm_up) if self.recipe.warm_up else 1.0
        if self.recipe.schedule == "cosine":
            return growth * (0.005 + 0.995 * (1 + math.cos(math.pi * self.share)) / 2)
        return growth * training.halve_twice(round(1e6 * self.share), 1_000_000)

    def start_clock(self) -> None:
        self.since = time.process_time()

    @torch.no_grad()
    def step(self) -> None:
        """After a step of the optimiser. The average begins short: it does not remember the fresh network."""
        self.steps += 1
        if self.average is not None:
            keep = min(self.recipe.ema, (self.steps + 1) / (self.steps + 10))
            states = self.average.state_dict().values(), self.model.state_dict().values()
            for averaged, new in zip(*states, strict=True):
                averaged.lerp_(new, 1 - keep) if averaged.is_floating_point() else averaged.copy_(new)
        self.seconds += (time.process_time() - self.since) / torch.get_num_threads()

    def state_dict(self) -> dict:
        average = self.average.state_dict() if self.average is not None else None
        return {"steps": self.steps, "seconds": self.seconds, "average": average}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.seconds = state["steps"], state["seconds"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; weight decay of kernels alone. With `clip`, gradients are cut to that norm, bad ones left out."""
    kernels, others = ([p for p in model.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate, fused=True)

    def clip(*_: object) -> None:
        if not torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)):
            optimizer.zero_grad()

    if recipe.clip:
        optimizer.register_step_pre_hook(clip)
    return optimizer


def described(recipe: Recipe, pictures: Pictures, minutes: float, steps: int | None) -> dict:
    """What tells a run from others, but for its name and seed."""
    budget = {"steps": steps, "minutes": None if steps else minutes}
    return {**budget, "cameras": pictures.cameras, **pictures.named(), **recipe.switches()}


def make_batch(dataset: CachedPairs, recipe: Recipe, course: Course, rng: np.random.Generator) -> dict:
    """The batch of a step: which pairs, and what is done to both their views."""
    dataset.epoch = course.steps  # flip and colours are drawn by seed, step and pair
    chosen = rng.choice(len(dataset.odds), recipe.batch_size, replace=False, p=dataset.odds)
    batch = zoom_and_resize(dataset.__getitems__(chosen.tolist()), recipe.size_at(course.share), recipe.zoom, rng)
    return graft(batch, recipe.graft, rng)


@kept_memory()
def train(
    row: str, recipe: Recipe, pictures: Pictures, output: Path, *, seed: int = 0, minutes: float = 10.0,
    steps: int | None = None, every: int = 0, save_minutes: float = 0.5, log: Callable[[str], None] = print,
) -> dict:  # fmt: skip
    """Trains `recipe` until `minutes` (or `steps`) are over and returns what `result.json` in `output` then holds.

    A finished run is not done again. A killed one goes on from `last.pt`, written every `save_minutes`: all that is
    drawn follows from seed and step, so with the same `steps` it ends with the weights of a run that was never
    interrupted. `weights.safetensors` are the last ones (the running average where the recipe has one): none is chosen
    by a measurement. `every` so many steps (0: never) the run is measured for the log, at the size that it then
    learns from.
    Raises ValueError where `output` holds another run, FloatingPointError for a loss that is not finite.
    """
    run = {"row": row, "seed": seed, **described(recipe, pictures, minutes, steps)}
    dataset = pictures.training(recipe, seed)
    if (found := read_result(output / "result.json", run)) is not None:
        log(f"{row}, seed {seed}: finished before, {said(found)}")
        return found

    model = make_model(recipe, pictures.cameras == "grey", seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss, optimizer, course = RecipeLoss(recipe), make_optimizer(recipe, model), Course(recipe, model, minutes, steps)
    scaler = torch.amp.GradScaler(enabled=False)
    checkpoints = Checkpoints(output, run, CPU, model, optimizer, course, scaler)
    if not checkpoints.load(log):
        checkpoints.start()
    history, mean, rng = checkpoints.history, checkpoints.mean, np.random.default_rng()
    model.register_forward_pre_hook(lambda net, x: (disturb(x[0], recipe, rng),) if net.training else None)

    def batches() -> Iterator[dict]:
        """One batch a step, until the run is over or its next measurement is due."""
        nonlocal rng
        while course.share < 1 and not (every and mean.steps and course.steps % every == 0):
            course.start_clock()
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * course.factor()
            rng = np.random.default_rng([seed, course.steps])
            yield make_batch(dataset, recipe, course, rng)

    def save_when_due(mean: AverageMeter) -> None:
        if checkpoints.due(save_minutes):
            checkpoints.save(history, mean)

    answer: Monodepth = model if course.average is None else course.average  # type: ignore[assignment]
    while course.share < 1:
        try:
            trained = training.train_one_epoch(
                model, batches(), loss, optimizer, course, CPU, mean=mean, after_step=save_when_due
            )
            checkpoints.save(history, mean)  # measuring may be killed, too
        except FloatingPointError as error:
            raise FloatingPointError(f"{row}, step {course.steps}: {error}; lower learning_rate or set clip") from error
        if course.share < 1:
            found = measure(answer, replace(recipe, size=recipe.size_at(course.share)), pictures)
            done = {"step": course.steps, "minutes": course.seconds / 60, "train_loss": trained["loss"]}
            log(f"step {course.steps:>6} {done['minutes']:6.1f} min  train {trained['loss']:.4f}  {said(found)}")
            history.append({**done, **found})
            mean = AverageMeter()
            checkpoints.save(history)

    answer = without_head_batch_norm(answer)
    held = {"train_drives": run["train_drives"], "val_drives": run["val_drives"] + run["test_drives"]}
    save_model(answer, output / "weights.safetensors", recipe.size, row=row, seed=seed, **held)
    result = {
        **run,
        "pairs": (pairs := sum(pair.folder.name in run["train_drives"] for pair in dataset.pairs)),
        "further_pairs": len(dataset) - pairs,
        "trained_steps": course.steps,
        "trained_minutes": course.seconds / 60,
        "history": history,
    }
    result |= {"parameters": count_parameters(answer), "machine": machine(torch.get_num_threads())}
    result |= measure(answer, recipe, pictures)
    with files.atomic_write(output / "result.json") as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    for path in (checkpoints.last, checkpoints.previous):
        path.unlink(missing_ok=True)
    log(f"{row}, seed {seed}: {course.steps} steps in {course.seconds / 60:.1f} min, {said(result)}")
    return result


# --- measuring ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def standard_loss(model: nn.Module, own: DataLoader, judged: DataLoader) -> float:
    """The mean of the library's `MonodepthLoss` over pairs, whatever loss and size the network was trained with.

    `own` are the pictures at the network's size, `judged` the same at the size of the loss, to which maps are resized.
    """
    model.eval()
    loss, mean = MonodepthLoss(), AverageMeter()
    for seen, batch in zip(own, judged, strict=True):
        left, right = batch["left_image"], batch["right_image"]
        height, width = left.shape[-2:]
        maps = model(to_device(seen, CPU)["left_image"])
        maps = [resize_map(both, (height >> scale, width >> scale)) for scale, both in enumerate(maps)]
        mean.add({"loss": loss(maps, left, right)[0]}, len(left))
    return mean.read()["loss"]


def measure(model: Monodepth, recipe: Recipe, pictures: Pictures) -> dict:
    """`val_loss`; the mean metrics over the test images with truth, `plain` and with post-processing (`pp`), and these
    images' standard deviation (`spread`) and number (`images`). A side without pairs is left out."""
    found: dict = {}
    own, judged = (pictures.loader("val", size) for size in (recipe.size, JUDGED_SIZE))
    if len(own.dataset):  # type: ignore[arg-type]
        found["val_loss"] = standard_loss(model, own, judged)
    loader = pictures.loader("test", recipe.size)
    if pairs := loader.dataset.pairs:  # type: ignore[attr-defined]
        maps: list[list[Tensor]] = [[], []]
        for _, *batch in testing.predicted_batches(model, loader, "cpu"):
            for kept, new in zip(maps, batch, strict=True):
                kept += new
        with warnings.catch_warnings():  # the focal length of stereo 2012 is known by its width
            warnings.filterwarnings("ignore", message=".*using KITTI's f and B")
            plain, processed = (testing.score(pairs, kept) for kept in maps)
        found |= {"plain": testing.mean_row(plain, "plain"), "pp": testing.mean_row(processed, "post-processed")}
        found |= {"spread": testing.spread_row(processed, "spread over images"), "images": len(processed)}
    return found


def said(found: dict) -> str:
    """Measured figures in half a line."""
    parts = [f"loss {found['val_loss']:.4f}"] if "val_loss" in found else []
    if pp := found.get("pp"):
        parts.append(f"Abs Rel {pp['abs_rel']:.4f} RMSE {pp['rmse']:.2f} d1 {pp['a1']:.3f} D1-all {pp['d1_all']:.3f}")
    return "  ".join(parts)


def read_result(path: Path, expected: dict) -> dict | None:
    """The result in a file; None when there is none. Raises ValueError where it does not say what is expected.

    A switch that the run did not have yet stands where it changes nothing.
    """
    if not path.is_file():
        return None
    found = Recipe().switches() | json.loads(path.read_text())
    other = [f"{key} {found.get(key)} (here {value})" for key, value in expected.items() if found.get(key) != value]
    if other:
        raise ValueError(f"{path} is of another run, {', '.join(other)}: remove its folder or choose another output")
    return found
