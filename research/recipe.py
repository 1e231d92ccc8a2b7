"""A recipe is a list of switches; a sweep is a list of recipes that differ by a few of them (`recipes.toml`).

The defaults are the library's method. Some switches exist only to show what they cost (the lab's warp, batch
normalisation in the head): they are here and not in the library.
"""

from __future__ import annotations

import copy
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from monodepth_lib.checkpoints import load_model
from monodepth_lib.networks import SMALLEST, DisparityHead, Monodepth, get_model

SCHEDULES = ("halve_twice", "cosine")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training, except the pictures, the time and the seed."""

    # the network
    network: str = "unet"  # a name of `networks.get_model`
    base_channels: int = 16  # of unet
    imagenet: bool = False  # start the encoder from ImageNet weights
    size: tuple[int, int] = (128, 416)  # height, width of its pictures
    start: float = 0.03  # disparity of the fresh network everywhere, as a fraction of the width
    head_batch_norm: bool = False  # batch normalisation before the sigmoid, as the lab has it
    frozen: int = 0  # this many first blocks of the encoder, and its stem, do not change, nor do their statistics
    fixed_encoder: bool = False  # batch normalisation in the encoder keeps its averages: a batch of 8 is a noisy sample
    fixed_from: float = 1.0  # from this share of the time on, all batch normalisation does, as in testing
    init: str = ""  # weights to start from: a name in models/ or a .safetensors file; "": random ones
    # the pairs
    pairs: int = 0  # this many, drawn by the seed; a larger number includes the pairs of a smaller one; 0: all
    also: str = ""  # a folder with more drives in colour, below the data folder
    often: float = 1.0  # how often a pair of drives named stereo… (all places differ) is drawn, others: 1
    often_also: float = 1.0  # the same for pairs of `also`
    # the batch
    batch_size: int = 8
    flip: bool = True  # half of the pairs mirrored, views swapped
    colours: bool = True  # the paper's change of colours, in half of the pairs, the same in both views
    tones: bool = False  # half of the colour pictures turned to grey with other weights of the channels
    zoom: float = 1.0  # below 1: seven of ten pairs are enlarged crops, down to this share of height and width
    graft: float = 0.0  # probability of a batch whose lower parts come from other pairs, the same in both views
    merge: float = 0.0  # probability that a pair gets what the hints say is nearer in another pair
    erase: float = 0.0  # probability of one to three grey boxes in what the network sees (not in the loss)
    disturb: float = 0.0  # probability of changed contrast in what the network sees; 1/2 of it noise, 1/3 blur
    calm_from: float = 1.0  # from this share of the time on, no crop, graft or box, disturb at most 0.1; merge goes on
    # the warp
    zero_padding: bool = False  # black beyond the border, not the repeated edge
    unaligned: bool = False  # the lab's grid, which is half a pixel off at the border
    # the loss
    appearance_weight: float = 1.0
    ssim_weight: float = 0.85  # 0: without SSIM; 1: without the L1 part
    smoothness_weight: float = 0.1
    consistency_weight: float = 1.0
    edge: float = 1.0  # smoothness ends at edges of the picture: exp(-edge·|∂I|)
    mean_normalised: bool = False  # smoothness of d / mean(d), which is not larger for near scenes
    maps: tuple[int, ...] = (0, 1, 2, 3)  # the scales of these terms
    full_scale: bool = False  # every map is enlarged to full size for the loss (Monodepth2)
    grey_loss: bool = False  # compare only brightness: a third of the numbers
    hints: tuple[float, float] = (0.0, 0.0)  # weight of the hints of semi-global matching, at the start and at the end
    hint_maps: tuple[float, ...] = (1.0, 0.5, 0.3, 0.3)  # times the weight of each map
    hint_guess: float = 0.3  # the weight of a guess (where one view is hidden); a match has 1
    hint_steps: float = 0.5  # the weight of the hints' steps on the two finest maps, against blurred outlines
    # the optimiser: AdamW, which equals Adam without weight decay
    learning_rate: float = 5e-4
    encoder_rate: float = 1.0  # the encoder's learning rate, as a share of learning_rate
    schedule: str = "halve_twice"  # at 3/5 and 4/5 of the time, as in the paper; or cosine, down to 1/200
    warm_up: int = 0  # steps in which the learning rate grows from 0
    weight_decay: float = 0.0  # of kernels, not of biases and batch normalisation
    clip: float = 0.0  # largest norm of the gradient; 0: any
    ema: float = 0.0  # the result is the running average of the weights with this decay; 0: the last weights

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        if len(self.size) != 2 or min(self.size) < SMALLEST:
            raise ValueError(f"size is {self.size}; it must be height and width, both at least {SMALLEST}")
        if not 0 < self.zoom <= 1:
            raise ValueError(f"zoom is {self.zoom}; it must be above 0 and at most 1")
        if not self.maps or not set(self.maps) <= {0, 1, 2, 3}:
            raise ValueError(f"maps is {self.maps}; it must name some of the scales 0, 1, 2, 3")
        if len(self.hints) != 2 or len(self.hint_maps) != 4:
            raise ValueError("hints takes two weights, at the start and at the end, and hint_maps one for each map")

    def switches(self) -> dict:
        """All switches, in the types of JSON (lists, no tuples)."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def stored_size(self) -> tuple[int, int]:
        """The size at which pictures are stored: 1.5 times as large when crops are enlarged."""
        height, width = self.size
        return self.size if self.zoom == 1 else (height * 3 // 2, width * 3 // 2)

    def at(self, share: float) -> Recipe:
        """The recipe when this share of the training is over."""
        if share < self.calm_from:
            return self
        return replace(self, zoom=1.0, graft=0.0, erase=0.0, disturb=min(self.disturb, 0.1))


def changed(recipe: Recipe, changes: dict, row: str) -> Recipe:
    """`recipe` with some switches changed. Raises ValueError naming the row and its fault."""
    known = asdict(Recipe())
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"row {row}: no switch is named {name!r}; there are {', '.join(known)}")
        kind = next(one.type for one in fields(Recipe) if one.name == name)
        several, number = isinstance(known[name], tuple), "float" in str(kind)
        given = value if several and isinstance(value, list) else [value]
        given = [float(one) if number and type(one) is int else one for one in given]
        sort = type(known[name][0] if several else known[name])
        if isinstance(value, list) != several or any(type(one) is not sort for one in given):
            raise ValueError(f"row {row}: {name} is {value!r}; it must be of type {kind}")
        values[name] = tuple(given) if several else given[0]
    try:
        return replace(recipe, **values)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from error


def difference(recipe: Recipe, other: Recipe) -> str:
    """The switches in which `recipe` differs from `other`, such as "zoom 0.65, flip off"."""
    mine, theirs = asdict(recipe), asdict(other)
    words = {True: "on", False: "off", "": "none"}
    said = {name: words[value] if value == "" or isinstance(value, bool) else value for name, value in mine.items()}
    return ", ".join(f"{name} {said[name]}" for name in mine if mine[name] != theirs[name])


# --- sweeps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A recipe by its name, and the row it differs from ("" for the base itself)."""

    name: str
    recipe: Recipe
    sweep: str = ""
    like: str = ""
    differs: str = ""
    minutes: float = 10
    steps: int | None = None  # end after this many instead


@dataclass(frozen=True)
class Sweep:
    """Rows that are compared on one page, with its title and text, and the minutes (or steps) and seeds of the runs."""

    name: str
    title: str
    page: str
    text: str = ""
    minutes: float = 10
    steps: int | None = None
    seeds: tuple[int, ...] = (0,)
    rows: dict[str, Row] = field(default_factory=dict)

    def pick(self, names: str) -> list[Row]:
        """The rows named, separated by commas; "": all. Raises ValueError naming what is missing."""
        wanted = [name.strip() for name in names.split(",")] if names else [*self.rows]
        if unknown := [name for name in wanted if name not in self.rows]:
            raise ValueError(f"{self.name} has no row {', '.join(unknown)}; there are {', '.join(self.rows)}")
        return [self.rows[name] for name in wanted]


def read_sweeps(path: Path) -> dict[str, Sweep]:
    """The sweeps of a recipe file. Raises ValueError naming the row and its fault.

    `[base]` holds switches of all rows, `[NAME]` a sweep with `title` and `page`, `[NAME.rows.ROW]` a row: the switches
    in which it differs from the base or, with `like`, from a row above, and its own `minutes` or `steps`.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML ({error})") from error
    base = changed(Recipe(), content.pop("base", {}), "base")
    recipes, sweeps = {"base": base}, {}
    for name, table in content.items():
        entries = table.pop("rows", {}) if isinstance(table, dict) else {}
        known = {"title": str, "page": str, "text": str, "minutes": (int, float), "steps": int, "seeds": list}
        if not entries or not {"title", "page"} <= {*table} <= {*known}:
            raise ValueError(
                f"{path}: [{name}] must have title, page and rows; it may have text, minutes, steps and seeds"
            )
        for key, value in table.items():
            if not isinstance(value, known[key]):  # type: ignore[arg-type]
                raise ValueError(f"{path}: [{name}] has {key} {value!r}, which is of another type")
        made = Sweep(name, **{**table, "seeds": tuple(table.get("seeds", [0]))})
        for row, switches in entries.items():
            again = row in recipes and (row != "base" or switches or any(row in one.rows for one in sweeps.values()))
            if again or not row.replace("_", "").isalnum():
                raise ValueError(f"{path}: a row cannot be named {row!r}; take letters, digits and _, none twice")
            like, steps = switches.pop("like", "base"), switches.pop("steps", made.steps)
            minutes = switches.pop("minutes", made.minutes)
            if like not in recipes:
                raise ValueError(f"row {row}: there is no row {like!r} above it to be like")
            recipe = recipes[row] = changed(recipes[like], switches, row)
            like = "" if row == "base" else like
            made.rows[row] = Row(row, recipe, name, like, difference(recipe, recipes[like or "base"]), minutes, steps)
        sweeps[name] = made
    return sweeps


def find_row(sweeps: dict[str, Sweep], name: str) -> Row:
    """The row of that name in any sweep. Raises ValueError naming the known rows."""
    rows = {row.name: row for sweep in reversed(sweeps.values()) for row in sweep.rows.values()}
    if name not in rows:
        raise ValueError(f"no row is named {name}; there are {', '.join(sorted(rows))}")
    return rows[name]


# --- the network --------------------------------------------------------------------------------------------------


def make_model(recipe: Recipe, grey: bool, seed: int) -> Monodepth:
    """The network before its training. Raises FileNotFoundError or ValueError for weights that are missing or wrong."""
    torch.manual_seed(seed)
    stored = load_model(recipe.init) if recipe.init else None
    model = get_model(
        recipe.network,
        base_channels=recipe.base_channels,
        start_disparity=recipe.start,
        grey=grey or (stored is not None and stored.grey),
        imagenet=recipe.imagenet and stored is None,
    )
    if stored is not None:
        try:
            model.load_state_dict(stored.state_dict())
        except RuntimeError as error:
            raise ValueError(f"init {recipe.init} is not of {recipe.network}: {str(error)[:200]}") from error
        model.notes = stored.notes
    for head in heads(model) if recipe.head_batch_norm else []:
        norm = nn.BatchNorm2d(2)
        norm.load_state_dict({"bias": head.conv.bias}, strict=False)  # it starts with the same level
        head.conv = nn.Sequential(head.conv, norm)  # type: ignore[assignment]
    return model


def frozen_parts(recipe: Recipe, model: Monodepth) -> list[nn.Module]:
    """The stem and the first blocks of an EfficientNet, whose features suit all photographs."""
    if not recipe.frozen:
        return []
    net: Any = getattr(model.encoder, "net", None)
    if not hasattr(net, "conv_stem"):
        raise ValueError(f"frozen is for timm's EfficientNets, not for {recipe.network}: set it to 0")
    return [net.conv_stem, net.bn1, *net.blocks[: recipe.frozen]]


def without_head_batch_norm(model: Monodepth) -> Monodepth:
    """A copy for eval mode with the same answers; the normalisation is folded into the convolution."""
    model = copy.deepcopy(model).eval()
    for head in heads(model):
        if isinstance(head.conv, nn.Sequential):
            head.conv = nn.utils.fuse_conv_bn_eval(*head.conv)
    return model


def heads(model: nn.Module) -> list[DisparityHead]:
    return [cast(DisparityHead, module) for module in model.modules() if isinstance(module, DisparityHead)]
