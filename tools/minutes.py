"""How long the notebooks take, by one rule: the minutes on their cards and in docs/teaching.md come from here.

    python tools/minutes.py

A minute for 130 words of prose, a minute for a code cell, three minutes for an exercise. The parameters, the folded
set-up, the pipeline figure and the tally do not count. The core path is everything before "Going further". Cards round
to five minutes. The rule has not been checked in a class: correct it when you have times. Two cards say more than the
rule: 00, where a student looks for a photograph and plays, and 08, which is homework.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WORDS_A_MINUTE, MINUTES_A_CELL, MINUTES_AN_EXERCISE = 130, 1, 3
UNCOUNTED = ("plots.pipeline(", "checks.tally(")


class Work(NamedTuple):
    """What a student reads, runs and writes."""

    words: int
    cells: int
    exercises: int

    @property
    def minutes(self) -> float:
        return self.words / WORDS_A_MINUTE + self.cells * MINUTES_A_CELL + self.exercises * MINUTES_AN_EXERCISE


def count_words(text: str) -> int:
    """Words of a prose cell, without formulas, code, addresses and tags."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`|<[^>]+>|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


def work(path: Path) -> tuple[Work, Work]:
    """A notebook's core path, and all of it."""
    core, total, further = Work(0, 0, 0), Work(0, 0, 0), False
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        folded = "jupyter" in cell["metadata"] or any(words in text for words in UNCOUNTED)
        if cell["cell_type"] == "markdown":
            further = further or bool(re.search(r"^## Going further", text, re.MULTILINE))
            one = Work(count_words(text), 0, 0)
        else:
            exercise = "exercise" in tags
            one = Work(0, not (exercise or folded or "parameters" in tags), exercise)
        total = Work(*(a + b for a, b in zip(total, one, strict=True)))
        core = core if further else total
    return core, total


def rounded(minutes: float) -> int:
    """To five minutes, as the cards say it."""
    return 5 * round(minutes / 5)


def card(path: Path) -> list[int]:
    """The minutes that a notebook's card names: of the core path, and of all."""
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"][:3])
    (line,) = re.findall(r"\*\*Time\*\* \|([^|]*)\|", text)
    return [int(number) for number in re.findall(r"\d+", line)[:2]]


def main() -> None:
    print("notebook                words cells exercises  core   all   card")
    sums = [0.0, 0]
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        core, total = work(path)
        says = card(path)
        print(f"{path.stem:22}  {core.words:5} {core.cells:5} {core.exercises:9}", end=" ")
        print(f"{core.minutes:5.0f} {total.minutes:5.0f}   {', '.join(map(str, says))}")
        if not path.stem.startswith("08"):  # homework
            sums = [sums[0] + core.minutes, sums[1] + says[0]]
    print(f"core path of 00 to 07: {sums[0]:.0f} minutes by the rule, {sums[1]} by the cards")


if __name__ == "__main__":
    main()
