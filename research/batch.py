"""The pictures of a run and the batch of each step: all random choices follow from the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from monodepth_lib import kitti
from monodepth_lib.cache import prepare_cache
from monodepth_lib.files import read_picture
from monodepth_lib.transforms import change_colours

from .hints import hint_file, pair_hints, prepare_hints, sample_hints, write_hints
from .recipe import Recipe

SIDES: tuple[kitti.Side, ...] = ("train", "val", "test")
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Pictures:
    """Where a run's pictures come from: three sides of a data folder, decoded once into `cache_dir`."""

    folder: Path
    cameras: kitti.CameraName = "grey"
    val_drives: str | None = None
    test_drives: str | None = None  # None: stereo_2012 where there is one, else the folder test
    cache_dir: Path = Path("output/cache")

    def drives(self, side: kitti.Side) -> str | None:
        """The drives of "train", "val" or "test", as `kitti.select_drives` takes them."""
        if side == "test" and self.test_drives is None and (self.folder / "stereo_2012").is_dir():
            return "stereo_2012"
        return {"train": None, "val": self.val_drives, "test": self.test_drives}[side]

    def named(self, also: str = "") -> dict[str, list[str]]:
        """The names of the drives of the three sides, as a run and its result keep them.

        Raises ValueError when a drive, one in the folder `also` included, is on two sides, or when scenes of stereo
        2015 are among them.
        """
        train, val, test = (kitti.select_drives(self.folder, side, self.drives(side)) for side in SIDES)
        learnt = {**train, **(kitti.find_drives(self.folder / also) if also else {})}
        kitti.check_split(learnt, {**val, **test})
        drives = {**learnt, **val, **test}
        if any(name == "stereo_2015" or kitti.is_stereo_2015(path) for name, path in drives.items()):
            raise ValueError(
                "stereo_2015 is for finished models, not for choices: take other drives here, and measure with "
                "monodepth evaluate"
            )
        return {f"{side}_drives": sorted(names) for side, names in (("train", train), ("val", val), ("test", test))}

    def pairs(self, side: kitti.Side) -> list[kitti.Pair]:
        return kitti.select_pairs(self.folder, side, self.drives(side), cameras=self.cameras)

    def further(self, also: str) -> list[kitti.Pair]:
        """The pairs in colour of the drives in the folder `also` below `folder`; "": none."""
        drives = kitti.find_drives(self.folder / also).values() if also else []
        return [pair for drive in drives for pair in kitti.find_pairs(drive, cameras="colour")]

    def stored(self, pairs: list[kitti.Pair], size: tuple[int, int]) -> np.ndarray:
        """The pairs' pictures at `size`, uint8 (pairs, 2, height, width, 3), memory-mapped."""
        return np.load(prepare_cache(pairs, size, self.cache_dir), mmap_mode="r")


class Pairs:
    """The pairs that a run learns from, and the `odds` with which each is drawn."""

    def __init__(self, recipe: Recipe, pictures: Pictures, seed: int):
        pictures.named(recipe.also)  # raises its errors before a picture is read
        self.recipe, self.seed, self.grey = recipe, seed, pictures.cameras == "grey"
        self.pairs = pictures.pairs("train")
        odds = [recipe.often if pair.folder.name.startswith("stereo") else 1.0 for pair in self.pairs]
        further = pictures.further(recipe.also)
        self.pairs, odds = self.pairs + further, odds + [recipe.often_also] * len(further)
        if recipe.pairs > len(self.pairs):
            raise ValueError(f"pairs is {recipe.pairs}; {pictures.folder} has {len(self.pairs)} to learn from")
        shuffled = np.random.default_rng([seed, 1]).permutation(len(self.pairs))
        self.chosen = np.sort(shuffled[: recipe.pairs or None])
        self.odds = np.array(odds)[self.chosen]
        self.odds /= self.odds.sum()
        if len(self.chosen) < recipe.batch_size:
            raise ValueError(f"{len(self.chosen)} pairs are fewer than a batch of {recipe.batch_size}")
        self.stored = pictures.stored(self.pairs, recipe.stored_size)
        self.hints = None
        if any(recipe.hints):
            self.hints = np.load(prepare_hints(self.pairs, recipe.stored_size, pictures.cache_dir), mmap_mode="r")

    def batch(self, step: int, share: float = 1.0) -> dict:
        """`left_image`, `right_image` (N, 3, H, W), `hints` (N, 2, H, W) if the recipe has them, `name`; and `seen`,
        the input of the network in place of the left views. `share`: the finished part of the training, 0 to 1."""
        r, rng = self.recipe.at(share), np.random.default_rng([self.seed, step])
        drawn = self.chosen[rng.choice(len(self.odds), r.batch_size, replace=False, p=self.odds)]
        made = [self.one(int(index), rng, r) for index in drawn]
        views, hints = (torch.stack(parts) for parts in zip(*made, strict=True))
        if rng.random() < r.graft and len(views) > 1:
            views, hints = graft(views, hints, rng)
        if r.merge and len(views) > 1:
            views, hints = merge(views, hints, r.merge, rng)
        left, right = views.expand(-1, -1, 3, -1, -1).unbind(1)
        batch = {"left_image": left, "right_image": right, "seen": disturb(left, r, rng)}
        names = [self.pairs[index].name for index in drawn]
        return {**batch, "name": names, **({} if self.hints is None else {"hints": hints})}

    def one(self, index: int, rng: np.random.Generator, recipe: Recipe | None = None) -> tuple[Tensor, Tensor]:
        """One pair: cropped, mirrored, in other colours; views (2, 1 or 3, H, W) and hints (2, H, W).

        A crop takes the same rows of both views and keeps the proportions, so the pair stays rectified; enlarging it
        enlarges the disparity by the same factor. A mirrored right view becomes the left one. `recipe`: that of now
        (`Recipe.at`).
        """
        r = recipe or self.recipe
        size = r.size
        height, width = self.stored.shape[2:4]
        share = rng.uniform(r.zoom, 1) if r.zoom < 1 and rng.random() < 0.7 else 1.0
        rows, columns = round(height * share), round(width * share)
        top = round((height - rows) * float(np.clip(rng.normal(0.46, 0.2), 0, 1)))  # mostly the middle, some road
        start = int(rng.integers(0, width - columns + 1))
        window = slice(None), slice(top, top + rows), slice(start, start + columns)
        views = torch.from_numpy(self.stored[index][window].astype(np.float32)) / 255
        if self.grey:
            luma = np.array(LUMA)
            if r.tones and rng.random() < 0.5:
                luma = rng.dirichlet(8 * luma)
            views = views @ torch.from_numpy(luma.astype(np.float32))[:, None]
        views = views.permute(0, 3, 1, 2)
        if views.shape[-2:] != size:
            views = F.interpolate(views, size, mode="bilinear", antialias=True, align_corners=False)
        hints = torch.zeros(2, *size)
        if self.hints is not None:
            hints = sample_hints(
                torch.from_numpy(self.hints[index][window].astype(np.float32)) * (width / columns), size
            )
        if r.flip and rng.random() < 0.5:
            views, hints = views.flip(0, -1), hints.flip(0, -1)
        if r.colours and rng.random() < 0.5:
            gamma, brightness = rng.uniform(0.8, 1.2), rng.uniform(0.5, 2.0)  # the paper's
            colour = torch.from_numpy(rng.uniform(0.8, 1.2, 3).astype(np.float32))
            colour = colour.new_ones(3) if self.grey else colour
            views = change_colours(views.expand(-1, 3, -1, -1), gamma, brightness, colour)[:, : views.shape[1]]
        return views, hints


def graft(views: Tensor, hints: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """All pairs (N, 2, C, H, W), and their hints, get the part below one row from another pair of the batch.

    The position in the picture then says less about depth, so the network must use the content of the picture.
    """
    count, height = len(views), views.shape[-2]
    row, shift = int(rng.integers(height // 5, height - height // 5)), int(rng.integers(1, count))
    views, hints = (torch.cat([x[..., :row, :], x.roll(shift, 0)[..., row:, :]], dim=-2) for x in (views, hints))
    return views, hints


def merge(views: Tensor, hints: Tensor, odds: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Some pairs (N, 2, C, H, W), and their hints, get all that is nearer in another pair of the batch.

    All cameras stand alike, so a car of one street stands on the road of another one, and hides what is behind it. Both
    views agree, because each has hints. A hint of 0 is unknown and counts as far: it never stands in front, and
    whatever has a hint stands before it. (DepthMix, Hoyer et al., 2021.)
    """
    shift = int(rng.integers(1, len(views)))
    others, theirs, mine = views.roll(shift, 0), hints.roll(shift, 0), hints.abs()
    nearer = (theirs.abs() > 1.1 * mine).float()
    nearer = F.avg_pool2d(F.pad(nearer, (2, 2, 2, 2), mode="replicate"), 5, 1) > 0.5  # the majority: no single pixels
    nearer &= torch.from_numpy(rng.random(len(views)) < odds)[:, None, None, None]
    return torch.where(nearer[:, :, None], others, views), torch.where(nearer, theirs, hints)


def disturb(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """The network's input in place of `images` (N, 3, H, W): other contrast, noise, blur, boxes. The loss sees none."""
    images = images.clone(memory_format=torch.contiguous_format)
    height, width = images.shape[-2:]
    for image in images:
        if rng.random() < recipe.disturb:
            mean = image.mean()
            image.sub_(mean).mul_(rng.uniform(0.6, 1.5)).add_(mean + rng.uniform(-0.15, 0.15)).clamp_(0, 1)
        if rng.random() < recipe.disturb / 2:
            noise = rng.standard_normal((1, height, width), dtype=np.float32) * np.float32(rng.uniform(0, 0.05))
            image.add_(torch.from_numpy(noise))
        if rng.random() < recipe.disturb / 3:
            image.copy_(F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0])
        for _ in range(int(rng.integers(1, 4)) if rng.random() < recipe.erase else 0):
            rows, columns = int(rng.integers(height // 12, height // 4)), int(rng.integers(width // 24, width // 8))
            top, start = int(rng.integers(0, height - rows)), int(rng.integers(0, width - columns))
            image[:, top : top + rows, start : start + columns] = rng.random()
    return images


def pack(pictures: Pictures, also: str, target: Path, size: tuple[int, int]) -> int:
    """Writes the training pairs to `target` as JPEG of `size`, with hints computed at native size; returns how many.

    A machine that is borrowed for minutes then needs some 40 MB instead of all photographs.
    """
    pairs, further = pictures.pairs("train"), pictures.further(also)
    for pair in [*pairs, *further]:
        drive = target / (also if pair in further else "train") / pair.folder.name
        for path, camera in zip((pair.left, pair.right), kitti.CAMERAS[pair.cameras][0], strict=True):
            (drive / camera).mkdir(parents=True, exist_ok=True)
            picture = read_picture(path).resize(size[::-1], Image.Resampling.BILINEAR)
            picture.save(drive / camera / f"{path.stem}.jpg", quality=88)
        write_hints(pair_hints(pair, size), hint_file(kitti.Pair(drive, pair.left, pair.right)))
    return len(pairs) + len(further)
