"""Exercises: every solution is right, every stub is its solution with blanks, every typical mistake gets its own hint."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
import torch

from monodepth_lib import batch, checks, losses

PATHS = [batch.notebook_path(name) for name in batch.NOTEBOOKS]


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
    assert list(stubs) == list(solutions)
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
# --- 02 ---
# --- 03 ---
# --- 04 ---
# --- 05 ---
# --- 06 ---
# --- 07 ---


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
