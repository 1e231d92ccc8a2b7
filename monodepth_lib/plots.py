"""Pictures for all notebooks. Numbers are computed elsewhere; here they are only drawn.

Disparity is drawn with "magma": bright is near, dark is far, in grey print and for colour-blind readers too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = "magma"
plt.rcParams.update({"font.size": 12.0, "axes.titlesize": 12.0, "figure.dpi": 80.0, "savefig.dpi": 80.0})  # type: ignore[arg-type]


if "ipykernel" in sys.modules:  # a notebook stores its figures: photographs take a fifth of the space as JPEG
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})


def to_array(image) -> np.ndarray:
    """A tensor (3, H, W) or (H, W), an array or a Pillow image as an array matplotlib draws."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float()
        return (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
    return np.asarray(image)


def colour_map(values, low: float, high: float, colours: str = COLOURS) -> np.ndarray:
    """Values (H, W) as colours, uint8 (H, W, 3): `low` is the map's first colour, `high` its last."""
    scaled = np.clip((to_array(values) - low) / max(high - low, 1e-9), 0, 1)
    return (matplotlib.colormaps[colours](scaled)[..., :3] * 255).round().astype(np.uint8)


def grid(
    images: Sequence, titles: Sequence[str], columns: int = 2, width: float = 12.0, limits: Sequence | None = None,
    bar: str | None = None, colours: str = COLOURS,
) -> Figure:  # fmt: skip
    """Images in a grid with a title each; maps (H, W) are coloured, between `limits` (low, high) where given.

    `bar` names the unit of a colour bar that is drawn beside every map.
    """
    rows = -(-len(images) // columns)
    height, image_width = to_array(images[0]).shape[:2]
    cell = width / columns
    size = (width, rows * (cell * height / image_width + 0.45))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index >= len(images):
            continue
        array = to_array(images[index])
        low, high = limits[index] if limits is not None and limits[index] is not None else (None, None)
        drawn = axis.imshow(array, cmap=colours, vmin=low, vmax=high)
        axis.set_title(titles[index])
        if bar and array.ndim == 2:
            figure.colorbar(drawn, ax=axis, label=bar, shrink=0.9)
    return figure


def history(rows: list[dict]) -> Figure:
    """Training and validation loss over the epochs, and the parts of the training loss."""
    epochs = [row["epoch"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    left.plot(epochs, [row["train_loss"] for row in rows], "o-", label="train")
    if "val_loss" in rows[0]:
        left.plot(epochs, [row["val_loss"] for row in rows], "s--", label="validation")
    left.set(title="Loss", xlabel="epoch", ylabel="sum over 4 scales, 2 views")
    for name, style in (("appearance", "-"), ("smoothness", "--"), ("consistency", ":")):
        right.plot(epochs, [row[f"train_{name}"] for row in rows], style, label=name, linewidth=2)
    right.set(title="Parts of the training loss (weighted)", xlabel="epoch", yscale="log")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    return figure
