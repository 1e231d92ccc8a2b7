"""Checks the answers of exercises: `check("3.1", my_function)` in a notebook's exercise cell.

Exercise 3.1 is the function `exercise_3_1` here. It takes the student's answer and returns None when it is right, else
one sentence: what was expected, what came and, for common mistakes, a hint.
"""

from __future__ import annotations

import math
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import depth, gif, losses, networks, testing, training
from .transforms import change_colours

Judge = Callable[[Any], str | None]
NOT_DONE = "not done yet: replace the ... with your answer"
SOLVED: set[str] = set()  # exercises whose last check in this session was right
NOT_THE_STUDENTS = tuple({str(Path(__file__).parent), *sysconfig.get_paths().values(), "<frozen"})


def compare(got: Any, expected: Any, hints: list[tuple[Any, str]] = [], tolerance: float = 1e-3) -> str | None:  # noqa: B006
    """None when `got` equals `expected` within `tolerance`, else a sentence; `hints`: (typical wrong value, question).

    Numbers, tensors and sequences of them are compared by shape and by the largest difference.
    """
    if is_blank(got):
        return NOT_DONE
    try:
        values = as_numbers(got)
    except (TypeError, ValueError, RuntimeError):
        return f"expected numbers, got {type(got).__name__}"
    target = as_numbers(expected)
    if values.shape != target.shape:
        return f"expected shape {tuple(target.shape)}, got {tuple(values.shape)}"
    if torch.allclose(values, target, atol=tolerance, rtol=0):
        return None
    for wrong, question in hints:
        if torch.allclose(values, as_numbers(wrong), atol=tolerance, rtol=0):
            return f"expected {say(target)}, got {say(values)}: {question}"
    return f"expected {say(target)}, got {say(values)}"


def is_blank(got: Any) -> bool:
    """Whether an answer, or a part of it, is still the ... of the stub (or None)."""
    return got is ... or got is None or (isinstance(got, list | tuple) and any(map(is_blank, got)))


def as_numbers(got: Any) -> torch.Tensor:
    """Turns a number, a tensor, or a sequence of them into one tensor."""
    if isinstance(got, list | tuple) and got:
        return torch.stack([as_numbers(value) for value in got])
    return torch.as_tensor(got, dtype=torch.float64).detach()


def say(values: torch.Tensor) -> str:
    """A number, or the first few of many, with three decimals."""
    flat = [f"{float(v):.3f}" for v in values.flatten()[:5]]
    return flat[0] if values.numel() == 1 else f"[{', '.join(flat)}{', ...' if values.numel() > 5 else ''}]"


def judge(name: str, answer: Any) -> str | None:
    """None when the answer is right, else what it lacks. Raises KeyError for an exercise that does not exist."""
    if name not in EXERCISES:
        raise KeyError(f"no exercise is numbered {name!r}; there are {', '.join(sorted(EXERCISES))}")
    if answer is ...:
        return NOT_DONE
    try:
        return EXERCISES[name](answer)
    except Exception as error:
        if "ellipsis" in str(error):  # the code computed with a ... of the stub
            return NOT_DONE
        return f"your code raised {type(error).__name__}: {error}{last_own_line(error)}"


def last_own_line(error: Exception) -> str:
    """The last line of the student's own code before an error, as text below the message; "" without one."""
    own = [line for line in traceback.extract_tb(error.__traceback__) if not line.filename.startswith(NOT_THE_STUDENTS)]
    return f"\n    line {own[-1].lineno} of the cell: {own[-1].line}" if own else ""


def check(name: str, answer: Any, strict: bool = False) -> None:
    """Prints whether the answer is right or what it lacks; with `strict` raises AssertionError instead of going on.

    The last check of each exercise counts in `tally`.
    """
    lacks = judge(name, answer)
    (SOLVED.add if lacks is None else SOLVED.discard)(name)
    print(f"{name}: right" if lacks is None else f"{name}: {lacks}")
    if strict and lacks is not None:
        raise AssertionError(f"{name}: {lacks}")


def tally(chapter: str) -> None:
    """Prints how many exercises of a notebook are solved: `tally("3")` prints "0 of 5 exercises of notebook 03 ..."."""
    names = [name for name in EXERCISES if name.split(".")[0] == chapter]
    if not names:
        chapters = sorted({name.split(".")[0] for name in EXERCISES}, key=int)
        raise KeyError(f"no notebook {chapter!r} has exercises; there are {', '.join(chapters)}")
    solved = sum(name in SOLVED for name in names)
    print(f"{solved} of {len(names)} exercises of notebook {chapter:0>2} are solved")


# --- 01 data preparation ----------------------------------------------------------------------------------------


def exercise_1_1(answer) -> str | None:
    disparity, focal, baseline = 5.0, 100.0, 0.5
    hints = [
        (disparity / (focal * baseline), "is the fraction upside down? Near things have the larger disparity"),
        (focal * baseline * disparity, "a larger disparity must give a smaller depth"),
        (focal / disparity, "how far apart are the cameras?"),
    ]
    return compare(answer(disparity, focal, baseline), focal * baseline / disparity, hints)


def exercise_1_2(answer) -> str | None:
    left = [[720.0, 0, 610, 45], [0, 720, 173, 0], [0, 0, 1, 0]]
    right = [[720.0, 0, 610, -339], [0, 720, 173, 0], [0, 0, 1, 0]]
    hints = [
        (384.0, "that is f·B, in px·m: divide by f"),
        (339 / 720, "the left camera is not at zero either: take the difference of both"),
        (-384 / 720, "left minus right: a distance is positive"),
    ]
    return compare(answer(torch.tensor(left), torch.tensor(right)), 384 / 720, hints)


def exercise_1_3(answer) -> str | None:
    train = ["drive_1/0000", "drive_1/0002", "drive_1/0004", "drive_2/0000", "drive_2/0001"]
    val = ["drive_1/0001", "drive_1/0003", "drive_1/0005", "drive_3/0000"]
    hints = [
        (0.0, "two frames of one drive have different names: compare what stands before the /"),
        (3.0, "that is how many: divide by how many validation frames there are"),
        (0.5, "count the frames, not the drives"),
        (0.25, "that is the share that is clean"),
        (0.6, "divide by how many validation frames there are, not by the training ones"),
    ]
    return compare(answer(train, val), 0.75, hints)


def exercise_1_4(answer) -> str | None:
    wide = torch.rand(24, 80, generator=torch.Generator().manual_seed(4))
    left, right = wide[:, :64], wide[:, 7:71]  # what the left view has at x, the right one has at x - 7
    right = right.clone()
    right[10, 30 - 3] = left[10, 30]  # a single pixel fits better elsewhere
    right[10, 30 - 7] += 0.02
    right[8:13, 36:41] = left[8:13, 28:33]  # the same window again, 8 px on the other side
    hints = [
        (3, "one pixel alone is found in many places: compare the whole window"),
        (8, "the right view shows things further left: where does its window start?"),
        (6, "that is a place in the list of candidates: which shift stands there?"),
    ]
    return compare(answer(left, right, 10, 30, list(range(1, 16))), 7, hints)


# --- 02 transforms ----------------------------------------------------------------------------------------------


def exercise_2_1(answer) -> str | None:
    hints = [
        (24.0, "the fraction of the width stays, but what is it in px of the smaller picture?"),
        (24.0 * 1242 / 512, "is the ratio upside down? The picture gets smaller"),
        (24.0 / 1242, "that is the fraction of the width: now in px of the new picture"),
    ]
    return compare(answer(24.0, 1242, 512), 24.0 * 512 / 1242, hints)


def exercise_2_2(answer) -> str | None:
    left = torch.arange(24.0).reshape(3, 2, 4) / 24
    right = 1 - left
    hints = [
        (torch.stack([left.flip(-1), right.flip(-1)]), "mirrored, but who is the left camera now? Swap the views"),
        (torch.stack([right, left]), "swapped, but not mirrored"),
        (torch.stack([right.flip(-2), left.flip(-2)]), "upside down: columns are the last dimension"),
    ]
    return compare(answer(left, right), torch.stack([right.flip(-1), left.flip(-1)]), hints)


def exercise_2_3(answer) -> str | None:
    image = torch.tensor([0.1, 0.4, 0.9]).expand(3, 2, 3).clone()
    gamma, brightness, colour = 1.2, 1.5, torch.tensor([0.8, 1.0, 1.2])
    scale = brightness * colour.reshape(3, 1, 1)
    hints = [
        (image**gamma * scale, "values above 1 are left: clip"),
        ((image * scale).clamp(0, 1) ** gamma, "gamma comes first, then brightness and colour"),
        ((image**gamma * brightness * colour).clamp(0, 1), "the factors run over the columns: a shape of (3, 1, 1)?"),
        ((image * scale).clamp(0, 1), "where is gamma?"),
    ]
    kept = image.clone()
    result = compare(answer(image, gamma, brightness, colour), change_colours(kept, gamma, brightness, colour), hints)
    return "the image given was changed as well: make a new one" if not torch.equal(image, kept) else result


def exercise_2_4(answer) -> str | None:
    view = torch.linspace(0, 0.4, 24).reshape(3, 2, 4)
    means = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(20):
            left, right = view.clone(), view.clone()
            got = answer(left, right)
            if is_blank(got):
                return NOT_DONE
            got = torch.stack(list(got))
            if not (torch.equal(left, view) and torch.equal(right, view)):
                return "the views given were changed as well: the dataset's own picture must stay as it is"
            if got.shape != (2, 3, 2, 4):
                return compare(got, torch.stack([view, view]))
            if not torch.allclose(got[0], got[1]):
                return "one picture, given as both views, came back as two: draw one factor and use it for both"
            means.append(float(got[0].mean() / view.mean()))
        brighter = torch.full_like(view, 0.9)
        unlike = as_numbers([answer(view.clone(), brighter.clone()) for _ in range(20)]).flatten(2).mean(-1)
    low, high = min(means), max(means)
    if high - low < 0.1:
        return f"twenty calls gave nearly the same brightness, {means[0]:.3f}: draw a new factor in every call"
    if low < 0.4999 or high > 2.0001 or low > 1 or high < 1.5:
        return f"expected factors from all of 0.5 to 2, got {low:.3f} to {high:.3f} in twenty calls"
    if (unlike[:, 0] >= unlike[:, 1]).any():
        return "a dark left and a bright right view came back as one, or the wrong way round"
    if unlike.max() > 1:
        return "a bright view became brighter than 1: clip both to [0, 1]"
    return None


def exercise_2_5(answer) -> str | None:
    hints = [
        (0.3095, "unchanged is right for a resize; a crop leaves f as it is and makes W smaller"),
        (0.3095 * 1000 / 1242, "is the ratio upside down? f·B stays, and it is divided by a smaller W"),
        (0.3095 * 1242, "that is f·B in px·m: divide by the new width"),
    ]
    return compare(answer(0.3095, 1242, 1000), 0.3095 * 1242 / 1000, hints)


# --- 03 loss equations ------------------------------------------------------------------------------------------


def _street(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two small views (1, 3, 6, 20) and two maps (1, 1, 6, 20) of about 0 to 4 px, made of noise."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.rand(2, 1, 3, 6, 20, generator=generator)
    maps = 0.2 * torch.rand(2, 1, 1, 6, 20, generator=generator)
    return views[0], views[1], maps[0], maps[1]


def exercise_3_1(answer) -> str | None:
    _, right, disparity, _ = _street()
    hints = [
        (losses.warp(right, disparity), "the right view shows everything further LEFT: which sign does d^l need?"),
        (losses.warp(right, -disparity * 20), "losses.warp takes fractions of the width, not pixels"),
        (right, "does the fetch depend on d_l at all?"),
    ]
    return compare(answer(right, disparity), losses.warp(right, -disparity), hints)


def exercise_3_2(answer) -> str | None:
    generator = torch.Generator().manual_seed(1)
    right = torch.rand(40, generator=generator)
    left = right.roll(4)  # the right view shows it 4 px further left: left[x] = right[x - 4]
    right[20 - 4] += 0.02
    right[20 - 8] = left[20]  # one pixel alone fits better elsewhere
    shifts = [1, 2, 4, 6, 8]
    # the second pair is 6 px apart, the third a little darker on the left
    cases = [(left, right, 20, shifts), (right.roll(6), right, 15, shifts), (left * 0.9, right, 25, shifts)]
    expected = [4, 6, 4]

    def costs(a, b, x, tried, sign=-1, size=True, half=2):
        around = torch.arange(-half, half + 1)
        difference = [a[x + around] - b[x + sign * s + around] for s in tried]
        return [float(d.abs().mean() if size else d.mean()) for d in difference]

    def pick(choose, **options):
        return [case[3][choose(range(5), key=costs(*case, **options).__getitem__)] for case in cases]

    hints = [
        (pick(max), "the best shift has the LOWEST cost"),
        (pick(min, sign=1), "fetch from the right row at x - shift, not at x + shift"),
        (pick(min, size=False), "without abs, too dark and too bright cancel each other"),
        ([2, 3, 2], "that is the position in the list: which shift stands there?"),
        (pick(min, half=0), "one pixel alone is found in many places: compare five"),
    ]
    return compare([answer(*case) for case in cases], expected, hints)


def exercise_3_3(answer) -> str | None:
    image, _, disparity, _ = _street()
    steps, edges = disparity.diff(dim=-1).abs(), image.diff(dim=-1)
    mean = edges.abs().mean(1, keepdim=True)
    hints = [
        ((steps * torch.exp(-edges.abs())).mean(), "|∂I| has three channels, the map one: .mean(1, keepdim=True)"),
        ((steps * torch.exp(-edges.abs().sum(1, keepdim=True))).mean(), "did you average over the channels?"),
        ((steps * torch.exp(-edges.mean(1, keepdim=True))).mean(), "is it |∂I|? Down a dark edge counts as much as up"),
        ((steps * torch.exp(mean)).mean(), "an edge in the picture must make a step cheaper: which sign?"),
        (steps.mean(), "where is the picture? An edge in it must make a step cheaper"),
        ((disparity.diff(dim=-1) * torch.exp(-mean)).mean(), "is it |∂d|? Steps up and down cancel without abs"),
        ((steps * torch.exp(-mean)).sum(), "the mean over the pixels, not their sum"),
    ]
    return compare(answer(disparity, image), (steps * torch.exp(-mean)).mean(), hints, tolerance=1e-4)


def exercise_3_4(answer) -> str | None:
    _, _, d_l, d_r = _street()
    d_l, d_r, limit = d_l / 2, d_r / 2, 0.02

    def fails(fetched):
        return ((d_l - fetched).abs() > limit).double()

    expected = fails(losses.warp(d_r, -d_l))
    hints = [
        (1 - expected, "True must mark the pixels that FAIL"),
        (fails(d_r), "the partner of pixel x stands at x - d^l: fetch the right map from there first"),
        (fails(losses.warp(d_r, d_l)), "the partner stands further LEFT: which sign?"),
        (fails(losses.warp(d_r, -d_r)), "which map says where pixel x of the LEFT view has its partner?"),
        (((d_l - losses.warp(d_r, -d_l)) > limit).double(), "too large and too small both fail: is it |difference|?"),
    ]
    return compare(answer(d_l, d_r, limit), expected, hints)


def exercise_3_5(answer) -> str | None:
    right = torch.tensor([0.1, 0.2, 0.6, 0.5, 0.9, 0.3, 0.4, 0.8])
    cases = [(0.9, 5, 0.2), (0.2, 6, 0.3), (0.1, 6, 0.45)]  # value of the left pixel, its column, disparity
    expected, no_width, no_sign, no_minus = [], [], [], []
    for value, x, d in cases:
        position = x - d * 8
        before = int(position)
        rise = float(right[before + 1] - right[before])
        sign = 1.0 if value > float(right[before]) + (position - before) * rise else -1.0
        expected.append(sign * rise * 8)
        no_width.append(sign * rise)
        no_sign.append(-rise * 8)
        no_minus.append(-sign * rise * 8)
    hints = [
        (no_width, "d is a fraction: how far does the fetch move when d grows by 1?"),
        (no_sign, "the cost is |difference|: its slope has the sign of the difference"),
        (no_minus, "a larger d moves the fetch to the LEFT: one minus is missing (or one too many)"),
    ]
    return compare([answer(value, right, x, d) for value, x, d in cases], expected, hints)


# --- 04 networks ------------------------------------------------------------------------------------------------


def exercise_4_1(answer) -> str | None:
    starts = [0.03, 0.06, 0.15]
    expected = [math.log(d / (networks.MAX_DISPARITY - d)) for d in starts]
    hints = [
        ([math.log(d / (1 - d)) for d in starts], "the sigmoid is multiplied by 0.3: what must the sigmoid itself be?"),
        ([math.log(d) for d in starts], "what must be divided by what, inside the logarithm?"),
        ([-z for z in expected], "is the fraction upside down? Small disparities need a negative bias"),
    ]
    return compare([answer(d) for d in starts], expected, hints)


def exercise_4_2(answer) -> str | None:
    layers = [(3, 16, 3, 1, 64, 208), (64, 128, 1, 2, 32, 104), (16, 32, 3, 2, 64, 208)]
    expected, full_size, no_kernel, side = [], [], [], []
    for c_in, c_out, kernel, stride, height, width in layers:
        layer = torch.nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        numbers = layer.weight.numel()
        rows, columns = layer(torch.zeros(1, c_in, height, width)).shape[-2:]
        expected.append([numbers, numbers * rows * columns])
        full_size.append([numbers, numbers * height * width])
        no_kernel.append([c_in * c_out, c_in * c_out * rows * columns])
        side.append([c_in * c_out * kernel, c_in * c_out * kernel * rows * columns])
    hints = [
        (full_size, "with stride 2, how many pixels does the output have?"),
        (no_kernel, "the kernel has kernel x kernel positions, each with its own numbers"),
        (side, "the kernel is a square"),
    ]
    return compare([answer(*layer) for layer in layers], expected, hints)


def exercise_4_3(answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    x, skip = torch.rand(1, 2, 3, 4, generator=generator), torch.rand(1, 3, 6, 8, generator=generator)

    def up(values):
        return values if values is ... else values + 2 * values.roll(1, -1)  # depends on neighbours, like a convolution

    def join(values):
        return values

    def level(mode: str, skip_first: bool):
        raised = up(torch.nn.functional.interpolate(x, skip.shape[-2:], mode=mode))
        return torch.cat([skip, raised] if skip_first else [raised, skip], dim=1)

    without_up = torch.cat([networks.resize_to(x, skip.shape[-2:]), skip], dim=1)
    up_first = torch.cat([networks.resize_to(up(x), skip.shape[-2:]), skip], dim=1)
    hints = [
        (level("bilinear", False), "this decoder repeats the nearest pixel, it does not blend"),
        (level("nearest", True), "the library joins the upsampled features first, then the skip"),
        (without_up, "did the upsampled features go through `up`?"),
        (up_first, "first to the skip's size, then through `up`"),
    ]
    return compare(answer(x, skip, up, join), level("nearest", False), hints)


def exercise_4_4(answer) -> str | None:
    x = torch.tensor([1.0, 2.0, 6.0])
    running = torch.tensor(2.0), torch.tensor(4.0)
    layer = torch.nn.BatchNorm1d(1)
    layer.running_mean, layer.running_var = (value.view(1).clone() for value in running)
    evaluated = layer.eval()(x[:, None])[:, 0].detach()
    trained = layer.train()(x[:, None])[:, 0].detach()
    expected = torch.stack([trained, evaluated])
    unbiased = (x - x.mean()) / (x.var() + 1e-5).sqrt()
    no_root = torch.stack([(x - 3) / (x.var(correction=0) + 1e-5), (x - 2) / (4 + 1e-5)])
    hints = [
        (torch.stack([trained, trained]), "in evaluation the batch must not matter: which mean and variance then?"),
        (torch.stack([evaluated, evaluated]), "in training the batch's own mean and variance are taken"),
        (torch.stack([evaluated, trained]), "training and evaluation are swapped"),
        (torch.stack([unbiased, evaluated]), "BN divides the sum of squares by n, not by n - 1: correction=0"),
        (no_root, "divide by the standard deviation, the root of the variance"),
    ]
    for correction in (0, 1):  # x.std() in place of a variance
        rooted = (x - x.mean()) / (x.std(correction=correction) + 1e-5).sqrt()
        question = "x.std() is the root already, and the last line takes it once more: give it the variance"
        hints += [(torch.stack([rooted, evaluated]), question)]
    return compare([answer(x, *running, training) for training in (True, False)], expected, hints)


# --- 05 training ------------------------------------------------------------------------------------------------


def exercise_5_1(answer) -> str | None:
    steps = 10
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler, expected = training.schedule(optimizer, steps), list[float]()
    for _ in range(steps):
        expected.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    hints = [
        ([1.0 if s <= 6 else 0.5 if s <= 8 else 0.25 for s in range(steps)], "steps count from 0: 6 of 10 are full"),
        ([1.0 if s < 6 else 0.5 for s in range(steps)], "it is halved a second time, after 4/5 of the steps"),
        ([1.0 if s < 6 else 0.5 if s < 8 else 0.0 for s in range(steps)], "the second halving: 0.5 to 0.25, not to 0"),
        ([1.0 if s < 5 else 0.5 if s < 8 else 0.25 for s in range(steps)], "the first halving comes after 3/5"),
    ]
    lacks = compare([answer(step, steps) for step in range(steps)], expected, hints)
    return lacks or compare([answer(2 * step, 2 * steps) for step in range(steps)], expected)


def exercise_5_2(answer) -> str | None:
    losses, sizes = [1.0, 1.0, 4.0], [8, 8, 1]
    mean = training.AverageMeter()
    for loss, size in zip(losses, sizes, strict=True):
        mean.add({"loss": torch.tensor(loss)}, size)
    hints = [
        (2.0, "the last batch is one pair: should it count as much as a batch of eight?"),
        (20 / 3, "divide by the number of pairs, not by the number of batches"),
        (sum(losses) / (17 / 8), "17 pairs in batches of 8 are three batches, not 17 / 8"),
    ]
    return compare(answer(losses, sizes), mean.read()["loss"], hints, tolerance=1e-4)


class _OneNumber(torch.nn.Module):
    """A network with one weight: a step can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, image):
        return self.weight * image


def exercise_5_3(answer) -> str | None:
    """Two steps of (w·left - right)² with left 1, right 3, rate 0.1, from w = 0.5."""

    def loss(disparities, left, right):
        return (... if disparities is ... else (disparities - right).square().mean()), {}

    def by_hand(seen: float, forget: bool) -> list[float]:
        weight, gradient, weights = 0.5, 0.0, []
        for _ in range(2):
            gradient = 2 * (weight * seen - 3) * seen + (0 if forget else gradient)
            weight -= 0.1 * gradient
            weights.append(weight)
        return weights

    model = _OneNumber()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = {"left_image": torch.ones(1), "right_image": torch.full((1,), 3.0), "name": ["made up"]}
    weights: list[float] = []
    for _ in range(2):
        total = answer(model, optimizer, loss, batch)
        if is_blank(total):
            return NOT_DONE
        weights.append(float(model.weight.detach()))
    hints = [
        ([0.5, 0.5], "the weight did not move: is there a backward, and after it the optimizer's step?"),
        (by_hand(1, False), "the second step still had the first one's gradient: forget it before backward"),
        (by_hand(3, True), "the network sees the left image"),
    ]
    return compare(weights, by_hand(1, True), hints)


def exercise_5_4(answer) -> str | None:
    cases = [([1.5, 1.2, 1.3, 1.4, 1.1], 2), ([1.5, 1.2, 1.3, 1.1, 1.2, 1.0], 2), ([1.5, 1.4, 1.3], 1)]
    hints = [
        ([5, 6, 3], "after 2 epochs without a new best it stopped: it never saw what came later"),
        ([4, 6, 3], "that is the epoch it stopped at: which one's weights were the best?"),
        ([1, 5, 2], "epochs count from 1"),
        ([2, 4, 3], "only epochs in a row count: a new best starts the patience anew"),
    ]
    return compare([answer(losses, patience) for losses, patience in cases], [2, 6, 3], hints)


# --- 06 testing -------------------------------------------------------------------------------------------------


def exercise_6_1(answer) -> str | None:
    # f·B is 360 px·m at 1248 px, 120 px·m at 416 px
    hints = [
        (90.0, "f belongs to the camera's own width: did you bring disparity and f to one width?"),
        (270.0, "did you scale the wrong way? A picture of a third of the width has a third of the focal length"),
        (1 / 30, "depth is f·B over disparity: did you turn the formula upside down?"),
        (0.3, "that is f·B/W, the depth of a disparity of the whole width: divide it by the disparity"),
    ]
    return compare(answer(4.0, 416, 720.0, 0.5, 1248), 30.0, hints)


def exercise_6_2(answer) -> str | None:
    truth = torch.tensor([[0.0, 10.0, 10.0, 10.0, 10.0]])
    predicted = torch.tensor([[5.0, 10.0, 12.0, 7.8, 13.0]])  # 7.8 is within a quarter of 10, but 10 / 7.8 is 1.28
    hints = [
        (0.75, "a ratio has two sides: did you take the larger of p/t and t/p?"),
        (0.4, "the pixel with truth 0 is unknown: did you leave it out?"),
        (0.6, "did you take one side of the ratio, and the pixel with truth 0 too?"),
        (2.0, "a share is wanted, not a count: did you take the mean?"),
    ]
    return compare(answer(predicted, truth), 0.5, hints)


def exercise_6_3(answer) -> str | None:
    truth = torch.tensor([5.0, 10.0, 18.0, 20.0, 30.0, 0.0])
    predicted = torch.tensor([6.0, 14.0, 24.0, 30.0, 12.0, 50.0])
    hints = [  # true: pixels 1 and 2
        ((0.4 + 0.6) / 2, "which depth decides on the band? Did you sort by the predicted depth?"),
        ((0.4 + 1 / 3 + 0.5) / 3, "near belongs to the band and far does not: did you use <= for both?"),
        (1 / 3, "near belongs to the band: did you use < for both?"),
        ((0.4 + 1 / 3) / 6, "did you divide by all pixels? Only those of the band count"),
        ((4 / 14 + 6 / 24) / 2, "the error is relative to the truth: did you divide by the prediction?"),
        (5.0, "the error is relative: did you divide by the truth?"),
    ]
    lacks = compare(answer(predicted, truth, 10.0, 20.0), (0.4 + 1 / 3) / 2, hints)
    unknown = [(float("inf"), "a truth of 0 is unknown: does a band from 0 m leave it out?")]
    return lacks or compare(answer(predicted, truth, 0.0, 10.0), 0.2, unknown)


def exercise_6_4(answer) -> str | None:
    plain, other = torch.linspace(0.10, 0.20, 41), torch.linspace(0.30, 0.05, 41)
    back = other.flip(0)
    hints = [
        (testing.post_process(plain, other), "did you turn the answer to the mirrored picture back?"),
        (testing.post_process(back, plain), "at the left border the mirrored answer counts: are the masks swapped?"),
        ((plain + back) / 2, "the mean holds between the borders only: did you use the masks?"),
    ]
    return compare(answer(plain, other), testing.post_process(plain, back), hints, tolerance=1e-4)


# --- 07 gif -----------------------------------------------------------------------------------------------------


def exercise_7_1(answer) -> str | None:
    hints = [  # 0.3 m / 10 m = 0.03, between 0.01 and 0.11
        (0.3, "did you leave out the low end of the scale?"),
        (0.03, "that is the disparity: how far is it on the way from low to high?"),
        (0.8, "bright, 1, is near: did you turn the scale round?"),
        ((10 / 0.3 - 0.01) / 0.1, "disparity is metres over distance: did you turn it upside down?"),
        (99.9, "that is the place of a distance: the scale is one of disparities"),
    ]
    return compare(answer(10.0, 0.3, 0.01, 0.11), 0.2, hints)


def exercise_7_2(answer) -> str | None:
    clip = torch.tensor([[[0.1, 0.2]], [[0.2, 0.1]], [[0.4, 0.1]]])
    hints = [
        ([0.0, 0.1], "rises and falls cancel: did you take the absolute value?"),
        ([0.1, 0.2], "did you compare with the first frame? Each frame is compared with the one before"),
        ([0.2, 0.2], "did you sum over the pixels? The mean is wanted"),
        (0.1, "one number for each step is wanted: did you take the mean over the frames as well?"),
    ]
    return compare(answer(clip), gif.flicker(clip.numpy()), hints)


def exercise_7_3(answer) -> str | None:
    depths = torch.zeros(40, 90)
    depths[30, 80] = 10.0
    expected = depth.point_cloud(depths, 100.0, (30.0, 10.0))[30, 80]  # 50 px right, 20 px below the centre
    hints = [
        ((8.0, 3.0, 10.0), "did you subtract the centre? It is where the ray goes straight ahead"),
        ((2.0, 5.0, 10.0), "X comes from the column u, Y from the row v: did you swap them?"),
        ((0.0, 7.0, 10.0), "u is the column and goes with X: did you swap u and v?"),
        ((7.0, 0.0, 10.0), "the centre is (column, row): did you swap its parts?"),
        ((50_000.0, 20_000.0, 10.0), "did you multiply by f? One pixel at depth Z is Z / f metres"),
        ((0.5, 0.2, 10.0), "further away one pixel is more metres: did you multiply by z?"),
    ]
    return compare(answer(80, 30, 10.0, 100.0, (30.0, 10.0)), expected, hints)


def exercise_7_4(answer) -> str | None:
    points = torch.tensor(
        [
            [0.0, 0.0, 0.0],  # unknown
            [0.2, 1.68, 5.0],  # the road
            [-3.0, 0.5, 4.0],  # a car beside
            [0.3, 1.4, 8.0],  # a kerb
            [0.1, 0.9, 18.0],
            [-0.6, 0.8, 12.0],  # a car's boot
            [0.4, 0.2, 25.0],
        ]
    )
    hints = [
        (5.0, "Y points down: what rises above the road has a smaller Y than the road"),
        (0.0, "the point with Z = 0 is unknown, not a thing at the camera: leave it out"),
        (4.0, "that one stands beside the way: did you ask for |X| < 1?"),
        (8.0, "a kerb is no obstacle here: more than half a metre above the road"),
        (18.0, "the nearest one is wanted"),
        (25.0, "the nearest one is wanted"),
    ]
    return compare(answer(points, 1.65), 12.0, hints)


# --- 08 your own ------------------------------------------------------------------------------------------------


exercise_8_1 = exercise_2_2


def exercise_8_2(answer) -> str | None:
    _, right, disparity, _ = _street()
    shift = disparity.clone().requires_grad_()
    got = answer(right, shift)
    expected = losses.warp(right, disparity)
    y, x = ((torch.arange(n) * 2 + 1) / n - 1 for n in right.shape[-2:])

    def other(factor: float = 2.0, border: str = "border", corners: bool = False, swapped: bool = False):
        grid_x = x + factor * disparity[:, 0]
        grid = [grid_x, y[:, None].expand_as(grid_x)]
        return torch.nn.functional.grid_sample(
            right, torch.stack(grid[::-1] if swapped else grid, dim=-1), padding_mode=border, align_corners=corners
        )

    hints = [
        (other(1.0), "grid_sample's picture spans 2, from -1 to 1: how long is a fraction d of the width there?"),
        (other(-2.0), "fetch at x + d·W: which sign? The caller brings the minus"),
        (other(2.0 * right.shape[-1]), "d is a fraction of the width, and so is grid_sample's unit: leave W out"),
        (other(border="zeros"), "beyond the border the edge goes on: padding_mode"),
        (other(corners=True), "x and y are pixel centres: align_corners"),
        (other(swapped=True), "grid_sample wants (x, y) in the last dimension, x first"),
    ]
    lacks = compare(got, expected, hints)
    if lacks is None:
        (wanted,) = torch.autograd.grad(losses.warp(right, shift).square().sum(), shift)
        gradient = torch.autograd.grad(got.square().sum(), shift)[0] if got.requires_grad else 0 * wanted
        if not torch.allclose(gradient, wanted, atol=1e-2):
            return "the values are right, but the gradient that reaches the disparity is not: nothing could be learned"
    return lacks


def exercise_8_3(answer) -> str | None:
    a, b, _, _ = _street()
    mean_a, mean_b, mean_ab, mean_squares = (losses.box_sum(v) / 9 for v in (a, b, a * b, a * a + b * b))
    means = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    covariance, variances = mean_ab - mean_a * mean_b, mean_squares - mean_a**2 - mean_b**2
    hints = [
        (means, "that compares the means alone: where are variance and covariance?"),
        (means * (2 * mean_ab + 0.03**2) / (variances + 0.03**2), "the covariance is mean(ab) - mean(a)·mean(b)"),
        (means * (2 * covariance + 0.03**2) / (mean_squares + 0.03**2), "a variance is mean(a²) - mean(a)²"),
        (means * (covariance + 0.03**2) / (variances + 0.03**2), "the covariance counts twice: identical views give 1"),
        ((1 - losses.ssim(a, b)) / 2, "that is the cost (1 - SSIM) / 2: the loss makes it from your SSIM"),
    ]
    return compare(answer(a, b), losses.ssim(a, b), hints)


def exercise_8_4(answer) -> str | None:
    image, _, disparity, _ = _street()

    def term(dim: int, sign: int = -1, channels: Callable = lambda edge: edge.abs().mean(1, keepdim=True)):
        return (disparity.diff(dim=dim).abs() * torch.exp(sign * channels(image.diff(dim=dim)))).mean()

    both = (-1, -2)
    hints = [
        (term(-1), "that is x alone: horizontal stripes would cost nothing. Where is y?"),
        (sum(term(dim, channels=lambda e: e.abs().sum(1, keepdim=True)) for dim in both), "average over the channels"),
        (sum(term(dim, channels=lambda e: e.mean(1, keepdim=True)) for dim in both), "is it |∂I|? Take the size first"),
        (sum(term(dim, sign=1) for dim in both), "an edge in the picture must make a step cheaper: which sign?"),
        (sum(disparity.diff(dim=dim).abs().mean() for dim in both), "where is the picture?"),
        (sum(term(dim) for dim in both) / 2, "the sum of both directions, not their mean"),
    ]
    return compare(answer(disparity, image), losses.smoothness_loss(disparity, image), hints, tolerance=1e-4)


def exercise_8_5(answer) -> str | None:
    _, _, d_l, d_r = _street()
    d_l, d_r = d_l / 2, d_r / 2

    def error(d, other, shift):
        return (d - losses.warp(other, shift)).abs().mean()

    hints = [
        (error(d_l, d_r, -d_l), "that is the left half: the right map is compared as well"),
        (error(d_l, d_r, d_l) + error(d_r, d_l, -d_r), "the partner of a left pixel stands further LEFT: which signs?"),
        (error(d_l, d_r, d_l) + error(d_r, d_l, d_r), "the partner of a left pixel stands further LEFT: x - d^l"),
        (error(d_l, d_r, -d_l) + error(d_r, d_l, -d_r), "the partner of a right pixel stands further RIGHT: x + d^r"),
        (error(d_l, d_r, -d_r) + error(d_r, d_l, d_l), "which map says where a left pixel has its partner?"),
        (2 * (d_l - d_r).abs().mean(), "fetch each map from where the other one points first"),
    ]
    return compare(answer(d_l, d_r), losses.consistency_loss(d_l, d_r), hints, tolerance=1e-4)


def exercise_8_6(answer) -> str | None:
    plain = torch.linspace(0.10, 0.20, 41).expand(1, 2, 41)
    mirrored = torch.linspace(0.05, 0.30, 41).expand(1, 2, 41)
    hints = [
        (testing.post_process(plain, mirrored.flip(-1)), "`mirrored` has been turned back already"),
        (testing.post_process(mirrored, plain), "at the left border `mirrored` counts: are the masks swapped?"),
        ((plain + mirrored) / 2, "the mean holds between the borders only: did you use the masks?"),
        (plain, "where is the mirrored answer?"),
    ]
    return compare(answer(plain, mirrored), testing.post_process(plain, mirrored), hints, tolerance=1e-4)


EXERCISES: dict[str, Judge] = {
    name.removeprefix("exercise_").replace("_", "."): function
    for name, function in list(globals().items())
    if name.startswith("exercise_")
}


def pieces(mine: dict[str, Callable], library: dict[str, Callable]) -> dict[str, Callable]:
    """The student's own pieces, `{"8.2 warp": my_warp}`, by name ("warp"); the library's piece for one not done yet.

    Prints for each piece whose it is. Raises ValueError when one is wrong, after all have been checked.
    """
    chosen, wrong = {}, []
    for key, function in mine.items():
        number, word = key.split()
        lacks = judge(number, function)
        undone = lacks is not None and "not done yet" in lacks
        chosen[word] = library[word] if undone else function
        whose = "yours" if lacks is None else "the library's (yours is not done yet)" if undone else f"WRONG: {lacks}"
        print(f"{number} {word:16} {whose}")
        wrong += [key] if lacks is not None and not undone else []
    if wrong:
        raise ValueError(f"wrong: {', '.join(wrong)}; what each of them lacks stands above")
    return chosen
