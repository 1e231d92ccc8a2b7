"""What an exercise's answer lacks, in words: `check("3.1", my_function)` in a notebook's exercise cell.

An exercise is a function here that takes the student's answer and returns None when it is right, else one sentence that
says what was expected, what came, and, for the mistakes that are often made, what to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Judge = Callable[[Any], str | None]
EXERCISES: dict[str, Judge] = {}


def exercise(name: str) -> Callable[[Judge], Judge]:
    """Registers the judge of exercise `name` ("chapter.number")."""

    def register(judge: Judge) -> Judge:
        EXERCISES[name] = judge
        return judge

    return register


def compare(got: Any, expected: Any, hints: list[tuple[Any, str]] = [], tolerance: float = 1e-3) -> str | None:  # noqa: B006
    """None when `got` is `expected` within `tolerance`, else a sentence; `hints`: (typical wrong value, what to ask).

    Numbers, sequences of numbers and tensors are compared alike, by shape and by the largest difference.
    """
    if got is ... or got is None:
        return "not done yet: replace the ... with your answer"
    try:
        values = torch.as_tensor(got, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return f"expected numbers, got {type(got).__name__}"
    target = torch.as_tensor(expected, dtype=torch.float64)
    if values.shape != target.shape:
        return f"expected shape {tuple(target.shape)}, got {tuple(values.shape)}"
    if torch.allclose(values, target, atol=tolerance, rtol=0):
        return None
    for wrong, question in hints:
        if torch.allclose(values, torch.as_tensor(wrong, dtype=torch.float64), atol=tolerance, rtol=0):
            return f"expected {say(target)}, got {say(values)}: {question}"
    return f"expected {say(target)}, got {say(values)}"


def say(values: torch.Tensor) -> str:
    """A number, or the first few of many, with three decimals."""
    flat = [f"{float(v):.3f}" for v in values.flatten()[:5]]
    return flat[0] if values.numel() == 1 else f"[{', '.join(flat)}{', ...' if values.numel() > 5 else ''}]"


def judge(name: str, answer: Any) -> str | None:
    """None when the answer is right, else what it lacks. Raises KeyError for an exercise that does not exist."""
    if name not in EXERCISES:
        raise KeyError(f"no exercise is numbered {name!r}; there are {', '.join(sorted(EXERCISES))}")
    if answer is ...:
        return "not done yet: replace the ... with your answer"
    try:
        return EXERCISES[name](answer)
    except Exception as error:
        return f"your code raised {type(error).__name__}: {error}"


def check(name: str, answer: Any, strict: bool = False) -> None:
    """Prints whether the answer is right or what it lacks; with `strict` raises AssertionError instead of going on."""
    lacks = judge(name, answer)
    print(f"{name}: right" if lacks is None else f"{name}: {lacks}")
    if strict and lacks is not None:
        raise AssertionError(f"{name}: {lacks}")


# --- 01 data preparation ----------------------------------------------------------------------------------------

# --- 02 transforms ----------------------------------------------------------------------------------------------

# --- 03 loss equations ------------------------------------------------------------------------------------------

# --- 04 networks ------------------------------------------------------------------------------------------------

# --- 05 training ------------------------------------------------------------------------------------------------

# --- 06 testing -------------------------------------------------------------------------------------------------

# --- 07 gif -----------------------------------------------------------------------------------------------------
