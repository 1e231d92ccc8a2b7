"""Exercises: each solution is right, each stub is its solution with blanks, each typical mistake gets its own hint."""

from __future__ import annotations

import linecache
import math
import re
from pathlib import Path

import nbformat
import pytest
import torch

from monodepth_lib import checks, losses, testing
from monodepth_lib.commands import run

PATHS = [run.notebook_path(name) for name in run.NOTEBOOKS if name != "00_first_look"]  # which has no exercises


def exercise_cells(path: Path) -> dict[str, str]:
    """Sources of the cells tagged "exercise", by the exercise's number."""
    cells = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if "exercise" in cell.metadata.get("tags", []):
            (name,) = re.findall(r'checks\.check\("([\d.]+)"', cell.source)
            cells[name] = cell.source
    return cells


def solution_path(path: Path) -> Path:
    return path.parent / "solutions" / path.name


def differs_only_in_blanks(stub: str, solution: str) -> bool:
    """Whether the solution is the stub with something in place of each `...`, and of the comment behind it."""
    stub = re.sub(r" *#[^\n]*", "", stub)
    solution = re.sub(r" *#[^\n]*", "", solution)
    pattern = r"[\s\S]+?".join(re.escape(part) for part in stub.split("..."))
    return "..." in stub and re.fullmatch(pattern, solution) is not None


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_stub_and_solution_differ_only_in_the_blanks(path):
    stubs, solutions = exercise_cells(path), exercise_cells(solution_path(path))
    assert len(stubs) >= 3
    assert sorted(stubs) == list(solutions)  # by number; in the notebook, those beyond the core path stand last
    for name, stub in stubs.items():
        assert differs_only_in_blanks(stub, solutions[name]), name


def test_every_exercise_stands_in_a_notebook():
    stubs = [name for path in PATHS for name in exercise_cells(path)]
    assert sorted(stubs) == sorted(checks.EXERCISES)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_solutions_are_right(path):
    """Runs the solutions' notebook top to bottom as plain Python, each check strict."""
    source = "\n\n".join(
        cell.source for cell in nbformat.read(solution_path(path), as_version=4).cells if cell.cell_type == "code"
    )
    strict = re.sub(r'(checks\.check\("[\d.]+", [^\n]*)\)', r"\1, strict=True)", source)
    assert strict.count("strict=True") == len(exercise_cells(path))
    exec(compile(strict, str(solution_path(path)), "exec"), {})


# Two typical mistakes for each exercise, and words that must stand in what the student is told.
WRONG: dict[str, list[tuple[object, str]]] = {}

# --- 01 ---


def _row_search(size: int = 2, side: int = -1, place: bool = False):
    def search(left, right, row, column, candidates):
        rows = slice(row - size, row + size + 1)
        window = left[rows, column - size : column + size + 1]
        costs = []
        for shift in candidates:
            start = column - size + side * shift
            costs.append(float((window - right[rows, start : start + 2 * size + 1]).abs().sum()))
        return 0 if place else candidates[costs.index(min(costs))]

    return search


def _drives_shared(train, val):
    drives = {name.split("/")[0] for name in val}
    return len(drives & {name.split("/")[0] for name in train}) / len(drives)


WRONG["1.1"] = [(lambda d, f, b: d / (f * b), "upside down"), (lambda d, f, b: f * b * d, "smaller depth")]
WRONG["1.2"] = [
    (lambda left, right: left[0, 3] - right[0, 3], "divide by f"),
    (lambda left, right: (right[0, 3] - left[0, 3]) / left[0, 0], "positive"),
    (lambda left, right: -right[0, 3] / left[0, 0], "not at zero either"),
]


def _of_the_training_frames(train, val):
    drives = {name.split("/")[0] for name in train}
    return sum(name.split("/")[0] in drives for name in val) / len(train)


WRONG["1.3"] = [
    (lambda train, val: len(set(train) & set(val)) / len(val), "before the /"),
    (_drives_shared, "not the drives"),
    (_of_the_training_frames, "not by the training ones"),
]
WRONG["1.4"] = [(_row_search(size=0), "whole window"), (_row_search(side=1), "further left")]

# --- 02 ---


def _brighten(shared=True, inside=False, fixed=False, most=2.0, ends=(0, 1)):
    def brighten(left, right):
        factor = torch.tensor(1.5) if fixed else 0.5 + (most - 0.5) * torch.rand(())
        other = factor if shared else 0.5 + 1.5 * torch.rand(())
        if inside:
            return left.mul_(factor).clamp_(*ends), right.mul_(other).clamp_(*ends)
        return (left * factor).clamp(*ends), (right * other).clamp(*ends)

    return brighten


WRONG["2.1"] = [(lambda d, old, new: d, "smaller picture"), (lambda d, old, new: d * old / new, "upside down")]
WRONG["2.2"] = [
    (lambda left, right: (left.flip(-1), right.flip(-1)), "Swap"),
    (lambda left, right: (right, left), "not mirrored"),
]
WRONG["2.3"] = [
    (lambda i, g, b, c: i**g * b * c.reshape(3, 1, 1), "clip"),
    (lambda i, g, b, c: (i * b * c.reshape(3, 1, 1)).clamp(0, 1) ** g, "gamma comes first"),
    (lambda i, g, b, c: (i**g * b * c).clamp(0, 1), "over the columns"),
]
WRONG["2.4"] = [
    (_brighten(shared=False), "one factor"),
    (_brighten(inside=True), "were changed"),
    (_brighten(fixed=True), "new factor"),
    (_brighten(most=1.5), "all of 0.5 to 2"),
    (_brighten(ends=(0, 2)), "clip both"),
    (lambda left, right: (_brighten()(left, right)[0],) * 2, "came back as one"),
]
WRONG["2.5"] = [(lambda m, old, new: m, "right for a resize"), (lambda m, old, new: m * new / old, "upside down")]

# --- 03 ---


def _best_shift(sign: int = -1, choose=min, half: int = 2):
    def best_shift(left, right, x, shifts):
        around = torch.arange(-half, half + 1)
        costs = [float((left[x + around] - right[x + sign * s + around]).abs().mean()) for s in shifts]
        return shifts[costs.index(choose(costs))]

    return best_shift


def _smoothness_x(over_channels=lambda edge: edge.abs().mean(1, keepdim=True), sign: int = -1):
    def smoothness_x(d, image):
        return (d.diff(dim=-1).abs() * torch.exp(sign * over_channels(image.diff(dim=-1)))).mean()

    return smoothness_x


def _slope(width: int | None = None, minus: int = 1):
    def slope(left_value, right_row, x, d):
        position = x - d * len(right_row)
        before = int(position)
        rise = right_row[before + 1] - right_row[before]
        difference = left_value - (right_row[before] + (position - before) * rise)
        return minus * torch.sign(difference) * rise * (width or len(right_row))

    return slope


WRONG["3.1"] = [
    (lambda right, d_l: losses.warp(right, d_l), "which sign"),
    (lambda right, d_l: losses.warp(right, -d_l * right.shape[-1]), "fractions of the width"),
]
WRONG["3.2"] = [
    (_best_shift(choose=max), "LOWEST"),
    (_best_shift(sign=1), "not at x + shift"),
    (_best_shift(half=0), "compare five"),
]
WRONG["3.3"] = [
    (_smoothness_x(lambda edge: edge.abs()), "three channels"),
    (_smoothness_x(lambda edge: edge.abs().sum(1, keepdim=True)), "average over the channels"),
    (_smoothness_x(sign=1), "make a step cheaper: which sign"),
]
WRONG["3.4"] = [
    (lambda d_l, d_r, limit: (d_l - d_r).abs() > limit, "partner of pixel x"),
    (lambda d_l, d_r, limit: (d_l - losses.warp(d_r, -d_l)).abs() < limit, "FAIL"),
]
WRONG["3.5"] = [(_slope(width=1), "how far does the fetch move"), (_slope(minus=-1), "one minus")]

# --- 04 ---


def _conv_cost(kernel_power: int = 2, strided: bool = True):
    def cost(channels_in, channels_out, kernel, stride, height, width):
        parameters = channels_in * channels_out * kernel**kernel_power
        pixels = (height // stride) * (width // stride) if strided else height * width
        return parameters, parameters * pixels

    return cost


def _decoder_level(mode: str = "nearest", skip_first: bool = False, up_first: bool = False):
    def level(x, skip, up, join):
        x = up(x) if up_first else x
        x = torch.nn.functional.interpolate(x, skip.shape[-2:], mode=mode)
        x = x if up_first else up(x)
        return join(torch.cat([skip, x] if skip_first else [x, skip], dim=1))

    return level


def _batch_norm(use_batch=lambda training: training, correction: int = 0):
    def normalise(x, running_mean, running_var, training):
        mean, var = (x.mean(), x.var(correction=correction)) if use_batch(training) else (running_mean, running_var)
        return (x - mean) / (var + 1e-5).sqrt()

    return normalise


WRONG["4.1"] = [
    (lambda start: math.log(start / (1 - start)), "multiplied by 0.3"),
    (lambda start: math.log((0.3 - start) / start), "upside down"),
]
WRONG["4.2"] = [(_conv_cost(strided=False), "stride 2"), (_conv_cost(kernel_power=0), "positions")]
WRONG["4.3"] = [
    (_decoder_level("bilinear"), "nearest"),
    (_decoder_level(skip_first=True), "then the skip"),
    (_decoder_level(up_first=True), "then through `up`"),
]


def _std_for_variance(x, running_mean, running_var, training):
    mean, var = (x.mean(), x.std()) if training else (running_mean, running_var)
    return (x - mean) / (var + 1e-5) ** 0.5


WRONG["4.4"] = [
    (_batch_norm(lambda _: True), "in evaluation"),
    (_batch_norm(correction=1), "not by n - 1"),
    (_std_for_variance, "is the root already"),
]

# --- 05 ---


def _training_step(forget: bool = True, move: bool = True, view: str = "left_image"):
    def step(model, optimizer, loss, batch):
        total, _ = loss(model(batch[view]), batch["left_image"], batch["right_image"])
        if forget:
            optimizer.zero_grad()
        total.backward()
        if move:
            optimizer.step()
        return total

    return step


def _stopped_at(losses_, patience):
    best = 0
    for epoch in range(len(losses_)):
        best = epoch if losses_[epoch] < losses_[best] else best
        if epoch - best >= patience:
            break
    return epoch + 1


WRONG["5.1"] = [
    (lambda step, steps: 1.0 if step < 0.6 * steps else 0.5, "second time"),
    (lambda step, steps: 1.0 if step <= 0.6 * steps else 0.5 if step <= 0.8 * steps else 0.25, "count from 0"),
    (lambda step, steps: 1.0 if step < 6 else 0.5 if step < 8 else 0.25, "expected"),
]
WRONG["5.2"] = [
    (lambda values, sizes: sum(values) / len(values), "count as much"),
    (lambda values, sizes: sum(v * n for v, n in zip(values, sizes, strict=True)) / len(sizes), "number of pairs"),
]
WRONG["5.3"] = [
    (_training_step(forget=False), "forget it"),
    (_training_step(move=False), "did not move"),
    (_training_step(view="right_image"), "sees the left"),
]
WRONG["5.4"] = [
    (lambda values, patience: values.index(min(values)) + 1, "never saw"),
    (_stopped_at, "stopped at"),
]

# --- 06 ---


def one_sided(predicted, truth):
    return (predicted / truth < 1.25)[truth > 0].float().mean()


def unknown_too(predicted, truth):
    return (torch.maximum(predicted / truth, truth / predicted) < 1.25).float().mean()


def by_predicted_depth(predicted, truth, near, far):
    band = (predicted >= near) & (predicted < far)
    return ((predicted - truth).abs() / truth)[band].mean()


def unknown_in_the_first_band(predicted, truth, near, far):
    band = (truth >= near) & (truth < far)
    return ((predicted - truth).abs() / truth)[band].mean()


def over_all_pixels(predicted, truth, near, far):
    band = (truth >= near) & (truth < far)
    return ((predicted - truth).abs() / truth)[band].sum() / len(truth)


WRONG["6.1"] = [
    (lambda d, w, f, b, camera_w: f * b / d, "one width"),
    (lambda d, w, f, b, camera_w: d / (f * b * w / camera_w), "upside down"),
]


def within_a_quarter(predicted, truth):
    return ((predicted - truth).abs() / truth)[truth > 0].lt(0.25).float().mean()


WRONG["6.2"] = [(one_sided, "two sides"), (unknown_too, "unknown")]
WRONG["6.3"] = [
    (by_predicted_depth, "sort by the predicted"),
    (over_all_pixels, "all pixels"),
    (unknown_in_the_first_band, "is unknown"),
]
WRONG["6.4"] = [
    (lambda plain, other: testing.post_process(plain, other), "mirrored picture back"),
    (lambda plain, other: (plain + other.flip(0)) / 2, "use the masks"),
]


# --- 07 ---


def without_height(points, camera_height):
    x, y, z = points.unbind(-1)
    return z[(x.abs() < 1) & (y > camera_height - 0.5) & (z > 0)].min()


def with_unknown(points, camera_height):
    x, y, z = points.unbind(-1)
    return z[(x.abs() < 1) & (y < camera_height - 0.5)].min()


WRONG["7.1"] = [
    (lambda z, focal_baseline, low, high: focal_baseline / z / (high - low), "low end"),
    (lambda z, focal_baseline, low, high: focal_baseline / z, "on the way from low to high"),
]
WRONG["7.2"] = [
    (lambda clip: (clip[1:] - clip[:-1]).mean(dim=(1, 2)), "absolute value"),
    (lambda clip: (clip[1:] - clip[:1]).abs().mean(dim=(1, 2)), "the first frame"),
]
WRONG["7.3"] = [
    (lambda u, v, z, f, c: (u * z / f, v * z / f, z), "subtract the centre"),
    (lambda u, v, z, f, c: ((u - c[0]) * z * f, (v - c[1]) * z * f, z), "multiply by f"),
]


def the_first_listed(points, camera_height):
    x, y, z = points.unbind(-1)
    return z[(x.abs() < 1) & (y < camera_height - 0.5) & (z > 0)][0]


WRONG["7.4"] = [
    (without_height, "Y points down"),
    (with_unknown, "unknown"),
    (the_first_listed, "nearest one"),
]

# --- 08 ---


def _warp(factor: float = 2.0, padding: str = "border", attached: bool = True):
    def warp(image, disparity):
        y, x = ((torch.arange(n) * 2 + 1) / n - 1 for n in image.shape[-2:])
        grid_x = x + factor * disparity[:, 0]
        grid = torch.stack([grid_x, y[:, None].expand_as(grid_x)], dim=-1)
        grid = grid if attached else grid.detach()
        return torch.nn.functional.grid_sample(image, grid, padding_mode=padding, align_corners=False)

    return warp


def _ssim(half: bool = False, plain_product: bool = False):
    def ssim(a, b):
        mean_a, mean_b, mean_ab, squares = (losses.box_sum(v) / 9 for v in (a, b, a * b, a * a + b * b))
        covariance = mean_ab if plain_product else mean_ab - mean_a * mean_b
        means = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        variances = squares - mean_a**2 - mean_b**2
        return means * ((1 if half else 2) * covariance + 0.03**2) / (variances + 0.03**2)

    return ssim


WRONG["8.1"] = WRONG["2.2"]
WRONG["8.2"] = [
    (_warp(factor=1.0), "spans 2"),
    (_warp(factor=-2.0), "which sign"),
    (_warp(padding="zeros"), "the edge goes on"),
    (_warp(attached=False), "nothing could be learned"),
]
WRONG["8.3"] = [(_ssim(half=True), "counts twice"), (_ssim(plain_product=True), "mean(a)·mean(b)")]
WRONG["8.4"] = [
    (lambda d, image: _smoothness_x()(d, image), "Where is y"),
    (lambda d, image: _smoothness_x(sign=1)(d, image) + _smoothness_x(sign=1)(d.mT, image.mT), "which sign"),
]
WRONG["8.5"] = [
    (lambda d_l, d_r: (d_l - losses.warp(d_r, -d_l)).abs().mean(), "left half"),
    (lambda d_l, d_r: losses.consistency_loss(d_r, d_l), "which signs"),
]
WRONG["8.6"] = [
    (lambda plain, mirrored: testing.post_process(plain, mirrored.flip(-1)), "turned back already"),
    (lambda plain, mirrored: testing.post_process(mirrored, plain), "swapped"),
]


def test_pieces_takes_what_is_right_and_the_librarys_for_what_is_open(capsys):
    library = {"warp": losses.warp, "ssim": losses.ssim}
    right = _warp()
    chosen = checks.pieces({"8.2 warp": right, "8.3 ssim": lambda a, b: ...}, library)
    assert chosen == {"warp": right, "ssim": losses.ssim}
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["8.2", "warp", "yours"]
    assert "the library's" in second


def test_pieces_names_every_wrong_one(capsys):
    library = {"warp": losses.warp, "ssim": losses.ssim, "smoothness": losses.smoothness_loss}
    mine = {"8.2 warp": _warp(-2.0), "8.3 ssim": _ssim(half=True), "8.4 smoothness": losses.smoothness_loss}
    with pytest.raises(ValueError, match=r"wrong: 8\.2 warp, 8\.3 ssim"):
        checks.pieces(mine, library)
    said = capsys.readouterr().out
    assert "which sign" in said
    assert "counts twice" in said


def test_being_within_a_quarter_of_the_truth_is_another_measure_than_d1():
    assert "two sides" in checks.judge("6.2", within_a_quarter)


@pytest.mark.parametrize("name", sorted(checks.EXERCISES))
def test_typical_mistakes_get_their_own_hint(name):
    assert len(WRONG[name]) >= 2
    said = [checks.judge(name, answer) for answer, _ in WRONG[name]]
    for sentence, (_, words) in zip(said, WRONG[name], strict=True):
        assert sentence is not None
        assert words in sentence
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("name", sorted(checks.EXERCISES))
def test_a_stub_is_not_done_yet_and_an_error_is_told(name, capsys):
    def broken(*_args, **_kwargs):
        raise RuntimeError("boom")

    assert "not done yet" in checks.judge(name, lambda *_args, **_kwargs: ...)
    checks.check(name, broken)
    assert "boom" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        checks.check(name, broken, strict=True)


def test_the_tally_counts_the_last_check_of_each_exercise(capsys, monkeypatch):
    monkeypatch.setattr(checks, "SOLVED", set())
    checks.tally("3")
    checks.check("3.1", lambda right, d_l: ...)
    checks.tally("3")
    checks.check("3.1", lambda right, d_l: losses.warp(right, -d_l))
    checks.check("3.1", lambda right, d_l: losses.warp(right, -d_l))
    checks.check("1.1", lambda d, f, b: f * b / d)
    checks.tally("3")
    checks.check("3.1", lambda right, d_l: right)  # changed afterwards, and wrong now
    checks.tally("3")
    said = [line for line in capsys.readouterr().out.splitlines() if " of 5 " in line]
    assert said == [f"{solved} of 5 exercises of notebook 03 are solved" for solved in (0, 0, 1, 0)]
    with pytest.raises(KeyError, match=r"no notebook '9'.*1, 2, 3"):
        checks.tally("9")


def own_code(source: str):
    """What a student's cell defines, compiled as Jupyter does it: the traceback finds the source."""
    name = "/tmp/ipykernel_1/2.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    cell: dict = {"losses": losses}
    exec(compile(source, name, "exec"), cell)
    return cell["answer"]


@pytest.mark.parametrize(
    ("body", "error", "line"),
    [
        ("return losses.warp(right, -disparity)", "NameError: name 'disparity' is not defined", 2),
        ("return losses.warp(right)", "TypeError: warp() missing 1 required positional argument", 2),
        ("return losses.warp(right, d_l[0, 0, 0])", "IndexError: too many indices for tensor", 2),  # raised in ours
        ("return (lambda d: d + 'px')(d_l)", "TypeError", 2),
    ],
)
def test_an_error_shows_the_students_own_last_line(body, error, line, capsys):
    checks.check("3.1", own_code(f"def answer(right, d_l):\n    {body}\n"))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"3.1: your code raised {error}")
    assert second == f"    line {line} of the cell: {body}"


def test_an_error_before_the_students_code_shows_no_line(capsys):
    checks.check("3.1", own_code("def answer(right):\n    return right\n"))  # one argument too few
    (said,) = capsys.readouterr().out.splitlines()
    assert "takes 1 positional argument but 2 were given" in said
